//! Launching on machines of others: who a worker is, and what a batch system is told.
//!
//! In: environment variables (as a function, never the process's own) and plain structs. Out: ranks, host names, a batch
//! script, arguments for `srun`. No process is started here and no connection opened.

pub mod environment;
pub mod hostlist;
pub mod machine;
pub mod script;

pub use environment::{EnvironmentError, Identity, Launcher, Rendezvous, identity};
pub use machine::{Machine, Tasks, srun_arguments};
pub use script::{BatchScript, ScriptError};

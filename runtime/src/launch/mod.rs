//! Other launchers: the identity of a worker, and batch scripts. Used by `cli` and the workers only.
//!
//! In: environment variables (as a function, never the process's own) and plain structs. Out: ranks, host names, a batch
//! script, arguments for `srun`, the devices of this machine. It starts no process and opens no connection.

pub mod devices;
pub mod environment;
pub mod hostlist;
pub mod machine;
pub mod script;

pub use devices::{LocalDevice, device_names, local_devices};
pub use environment::{EnvironmentError, Identity, Launcher, Rendezvous, identity};
pub use machine::{Machine, Tasks, srun_arguments};
pub use script::{BatchScript, ScriptError};

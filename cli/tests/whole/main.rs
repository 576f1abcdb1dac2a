//! End-to-end tests: the real binary on a project in a temporary folder, from spec to rerun.
//!
//! In: a small spec with two stages over generated text. Out: what a user sees. Not here: what one module can show (unit
//! tests), the book (`book`), real corpora (`make demo`).

mod bisect;
mod bounds;
mod classes;
mod cluster;
mod composition;
mod damage;
mod data_order;
mod devices;
mod difference;
mod documents;
#[path = "../../../runtime/train/tests/double/build.rs"]
mod double;
mod failing_calls;
mod harness;
mod hostile;
mod identity;
mod imports;
mod interruption;
mod judging;
mod kills;
mod layouts;
mod libtorch;
mod locks;
mod megatron;
mod merging;
#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;
mod mixtures;
mod places;
mod project;
mod running;
mod slurm;
mod stores;
mod tracking;
mod trust;
mod weights;

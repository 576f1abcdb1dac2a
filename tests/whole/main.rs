//! Whole-path tests: the real binary on a project of its own, from spec to rerun.
//!
//! In: a small spec with two stages over text that the test makes. Out: what a user would see. Not here: what one room
//! can show by itself (unit tests), real corpora (`make demo`).

mod bisect;
mod book;
mod cluster;
mod composition;
mod damage;
mod difference;
mod harness;
mod identity;
mod imports;
mod interruption;
mod judging;
mod kills;
mod layouts;
mod locks;
mod megatron;
mod merging;
mod mixtures;
mod project;
mod running;
mod slurm;
mod tracking;
mod weights;

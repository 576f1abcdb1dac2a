//! RCCL with the HIP runtime, or NCCL with the CUDA runtime, loaded at run time.
//!
//! In: where to search. Out: a [`Library`] whose functions are called through safe types, or a readable reason why it
//! is missing ([`survey`]). Nothing is linked: one program runs with and without devices. Both vendors' libraries have
//! the same functions, numbers and structures as far as they are used here; a test compares them with the headers. Not
//! here: which rank sends what, time limits, tensors.

mod call;
mod communicator;
mod library;
mod runtime;
mod search;
mod survey;
pub mod table;
pub mod types;

pub use call::{Error, Progress};
pub use communicator::Communicator;
pub use library::{Library, Version};
pub use runtime::{DeviceEvent, DeviceStream};
pub use search::{OpenError, Platform, Search};
pub use survey::{Survey, survey};
pub use types::UniqueId;

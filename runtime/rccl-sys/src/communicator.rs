//! A communicator: ranks that send to each other.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::call::{Error, Progress};
use crate::library::{Library, collective, no_function};
use crate::runtime::DeviceStream;
use crate::types::{Configuration, U8, UniqueId};

/// One rank's end of a communicator. Never null. Dropping it aborts it.
pub struct Communicator {
    library: Arc<Library>,
    handle: NonNull<c_void>,
    /// Whether its calls return at once.
    nonblocking: bool,
}

// SAFETY: a communicator may be used from any thread, by one at a time (NCCL's user guide, "Thread Safety").
unsafe impl Send for Communicator {}

impl Communicator {
    /// Starts joining the `size` ranks with the same `id`, on the thread's device. Complete when
    /// [`Communicator::progress`] returns [`Progress::Done`]. A library before NCCL 2.14 blocks until all ranks have
    /// joined.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the library's error.
    pub fn join(library: &Arc<Library>, id: UniqueId, size: u32, rank: u32) -> Result<Self, Error> {
        library.device_count()?;
        let mut handle = std::ptr::null_mut();
        // Ranks are processes; their number always fits.
        let (size, rank) = (size as c_int, rank as c_int);
        let table = &library.collectives;
        let (function, code, nonblocking) = match (table.CommInitRankConfig, table.CommInitRank) {
            (Some(call), _) => {
                let mut how = Configuration::nonblocking();
                // SAFETY: both pointers are to values that outlive the call, which copies the configuration.
                let code = unsafe { call(&mut handle, size, id, rank, &mut how) };
                ("ncclCommInitRankConfig", code, true)
            }
            // SAFETY: the pointer is to a handle that outlives the call.
            (None, Some(call)) => ("ncclCommInitRank", unsafe { call(&mut handle, size, id, rank) }, false),
            (None, None) => return Err(no_function("ncclCommInitRank")),
        };
        let begun = library.progress(function, code);
        let Some(handle) = NonNull::new(handle) else {
            begun?;
            return Err(Error::Collective {
                function,
                code,
                text: "it returned no communicator".to_owned(),
                detail: String::new(),
            });
        };
        // From here on, dropping aborts the communicator.
        let communicator = Self {
            library: Arc::clone(library),
            handle,
            nonblocking,
        };
        begun?;
        Ok(communicator)
    }

    /// Progress of the last call, or an error that happened since.
    ///
    /// # Errors
    /// The error; the communicator can then only be aborted.
    pub fn progress(&self) -> Result<Progress, Error> {
        let mut state = 0;
        // The communicator is alive, and the pointer is to a number that outlives the call.
        collective!(self.library, CommGetAsyncError(self.handle.as_ptr(), &mut state))?;
        self.library.progress("ncclCommGetAsyncError", state)
    }

    /// Sends bytes to a rank of this communicator; call it inside [`Library::group`].
    ///
    /// # Errors
    /// The library's error.
    ///
    /// # Safety
    /// `from` is valid for `bytes` bytes in device memory, and unchanged until the stream has executed this.
    pub unsafe fn send(
        &self,
        from: *const c_void,
        bytes: usize,
        peer: u32,
        stream: &DeviceStream,
    ) -> Result<(), Error> {
        let (kind, peer) = (U8, peer as c_int);
        let (own, stream) = (self.handle.as_ptr(), stream.raw());
        // Communicator and stream are alive; the caller guarantees the memory.
        collective!(self.library, Send(from, bytes, kind, peer, own, stream)).map(drop)
    }

    /// Receives bytes from a rank of this communicator; call it inside [`Library::group`].
    ///
    /// # Errors
    /// The library's error.
    ///
    /// # Safety
    /// `to` is valid for writing `bytes` bytes in device memory, and unused by others until the stream has executed
    /// this.
    pub unsafe fn receive(&self, to: *mut c_void, bytes: usize, peer: u32, stream: &DeviceStream) -> Result<(), Error> {
        let (kind, peer) = (U8, peer as c_int);
        let (own, stream) = (self.handle.as_ptr(), stream.raw());
        // As in `send`.
        collective!(self.library, Recv(to, bytes, kind, peer, own, stream)).map(drop)
    }

    /// Starts waiting for work in progress, so that the communicator can be destroyed when [`Communicator::progress`]
    /// returns done. A no-op for a library before NCCL 2.14, which waits in [`Communicator::destroy`].
    ///
    /// # Errors
    /// The library's error.
    pub fn finalize(&self) -> Result<(), Error> {
        if !self.nonblocking || self.library.collectives.CommFinalize.is_none() {
            return Ok(());
        }
        // The communicator is alive.
        collective!(self.library, CommFinalize(self.handle.as_ptr())).map(drop)
    }

    /// Frees the communicator, which must have no work in progress.
    ///
    /// # Errors
    /// The library's error.
    pub fn destroy(self) -> Result<(), Error> {
        let library = Arc::clone(&self.library);
        let call = library.collectives.CommDestroy;
        let call = call.ok_or_else(|| no_function("ncclCommDestroy"))?;
        let handle = std::mem::ManuallyDrop::new(self).handle;
        // SAFETY: the communicator is alive and not used after this.
        let code = unsafe { call(handle.as_ptr()) };
        library.progress("ncclCommDestroy", code).map(drop)
    }
}

impl Drop for Communicator {
    /// Aborts work in progress and frees the communicator.
    fn drop(&mut self) {
        if let Some(call) = self.library.collectives.CommAbort {
            // SAFETY: the communicator is alive and not used after this. A failure could not be handled.
            unsafe { call(self.handle.as_ptr()) };
        }
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({:?})", self.handle)
    }
}

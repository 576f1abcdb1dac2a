//! A communicator: ranks that send to one another and take sums.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::call::{Error, Progress};
use crate::library::{Library, collective, no_function};
use crate::runtime::Stream;
use crate::types::{Configuration, DataType, SUM, UniqueId};

/// One rank's end of a communicator. Never null, and gone once it is aborted or destroyed. Dropping it aborts it.
pub struct Communicator {
    library: Arc<Library>,
    handle: NonNull<c_void>,
    /// Whether its calls come back at once.
    nonblocking: bool,
}

// SAFETY: a communicator may be used from any thread, by one at a time (NCCL's user guide, "Thread Safety").
unsafe impl Send for Communicator {}

impl Communicator {
    /// Begins to join the `size` ranks that hold `id`, on the thread's device. Joined once [`Communicator::progress`] says
    /// [`Progress::Done`]. A library before NCCL 2.14 comes back only when all have joined.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or what the library says.
    pub fn join(library: &Arc<Library>, id: UniqueId, size: u32, rank: u32) -> Result<Self, Error> {
        library.device_count()?;
        let mut handle = std::ptr::null_mut();
        // Ranks are counted by processes, of which there are never so many.
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
                text: "it gave no communicator".to_owned(),
                detail: String::new(),
            });
        };
        // From here on the communicator is ended by being dropped.
        let communicator = Self {
            library: Arc::clone(library),
            handle,
            nonblocking,
        };
        begun?;
        Ok(communicator)
    }

    /// How far the last call has got, and whether anything has gone wrong since.
    ///
    /// # Errors
    /// What went wrong; the communicator can then only be aborted.
    pub fn progress(&self) -> Result<Progress, Error> {
        let mut state = 0;
        // The communicator is alive, and the pointer is to a number that outlives the call.
        collective!(self.library, CommGetAsyncError(self.handle.as_ptr(), &mut state))?;
        self.library.progress("ncclCommGetAsyncError", state)
    }

    /// Sends bytes to a rank of this communicator; to be called inside [`Library::group`].
    ///
    /// # Errors
    /// What the library says.
    ///
    /// # Safety
    /// `from` is valid for `bytes` bytes in the device's memory, and stays so and unchanged until the stream has run this.
    pub unsafe fn send(&self, from: *const c_void, bytes: usize, peer: u32, stream: &Stream) -> Result<(), Error> {
        let (kind, peer) = (DataType::U8 as c_int, peer as c_int);
        let (own, stream) = (self.handle.as_ptr(), stream.raw());
        // Communicator and stream are alive; the caller vouches for the memory.
        collective!(self.library, Send(from, bytes, kind, peer, own, stream)).map(drop)
    }

    /// Receives bytes from a rank of this communicator; to be called inside [`Library::group`].
    ///
    /// # Errors
    /// What the library says.
    ///
    /// # Safety
    /// `to` is valid for writing `bytes` bytes in the device's memory, and nobody else uses it until the stream has run this.
    pub unsafe fn receive(&self, to: *mut c_void, bytes: usize, peer: u32, stream: &Stream) -> Result<(), Error> {
        let (kind, peer) = (DataType::U8 as c_int, peer as c_int);
        let (own, stream) = (self.handle.as_ptr(), stream.raw());
        // As in `send`.
        collective!(self.library, Recv(to, bytes, kind, peer, own, stream)).map(drop)
    }

    /// Replaces `count` elements by their sums over all ranks.
    ///
    /// # Errors
    /// What the library says.
    ///
    /// # Safety
    /// `data` is valid for reading and writing `count` elements of this type in the device's memory, and nobody else uses it
    /// until the stream has run this.
    pub unsafe fn sum(&self, data: *mut c_void, count: usize, kind: DataType, stream: &Stream) -> Result<(), Error> {
        let (kind, own, stream) = (kind as c_int, self.handle.as_ptr(), stream.raw());
        // As in `send`; the same buffer may be read and written.
        collective!(self.library, AllReduce(data, data, count, kind, SUM, own, stream)).map(drop)
    }

    /// Begins to wait for what is under way, so that the communicator can be destroyed; [`Communicator::progress`] says when
    /// it can be. Done at once by a library before NCCL 2.14, which waits in [`Communicator::destroy`].
    ///
    /// # Errors
    /// What the library says.
    pub fn finalize(&self) -> Result<(), Error> {
        if !self.nonblocking || self.library.collectives.CommFinalize.is_none() {
            return Ok(());
        }
        // The communicator is alive.
        collective!(self.library, CommFinalize(self.handle.as_ptr())).map(drop)
    }

    /// Frees the communicator; nothing may be under way.
    ///
    /// # Errors
    /// What the library says.
    pub fn destroy(self) -> Result<(), Error> {
        let library = Arc::clone(&self.library);
        let call = library.collectives.CommDestroy;
        let call = call.ok_or_else(|| no_function("ncclCommDestroy"))?;
        let handle = std::mem::ManuallyDrop::new(self).handle;
        // SAFETY: the communicator is alive, and nobody has it after this.
        let code = unsafe { call(handle.as_ptr()) };
        library.progress("ncclCommDestroy", code).map(drop)
    }
}

impl Drop for Communicator {
    /// Ends what is under way on the device, and frees the communicator.
    fn drop(&mut self) {
        if let Some(call) = self.library.collectives.CommAbort {
            // SAFETY: the communicator is alive, and nobody has it after this. Its result tells nothing that could be done.
            unsafe { call(self.handle.as_ptr()) };
        }
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({:?})", self.handle)
    }
}

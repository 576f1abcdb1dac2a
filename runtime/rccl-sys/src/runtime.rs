//! Streams and events of the device runtime, and the thread's device.

use std::ffi::c_uint;
use std::fmt;
use std::sync::Arc;

use crate::call::Error;
use crate::library::Library;
use crate::types::{EVENT_DISABLE_TIMING, NOT_READY, RawEvent, RawStream, STREAM_NON_BLOCKING};

/// Calls an optional function of the runtime and turns its result into nothing or an error.
macro_rules! call {
    ($library:expr, $function:ident ( $($argument:expr),* )) => {{
        let library: &Library = &$library;
        match library.runtime.$function {
            // SAFETY: said at each use.
            Some(function) => library.runtime_done(stringify!($function), unsafe { function($($argument),*) }),
            None => Err(library.no_runtime_function(stringify!($function))),
        }
    }};
}

impl Library {
    /// Makes a device that of the calling thread.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn use_device(&self, index: u32) -> Result<(), Error> {
        // A number that no device has is refused.
        call!(self, SetDevice(index as i32))
    }
}

/// Work of a device in the order in which it was given.
pub struct Stream {
    library: Arc<Library>,
    handle: RawStream,
}

// SAFETY: the runtimes' functions may be called from any thread, and a handle is no more than a name to them.
unsafe impl Send for Stream {}

impl Stream {
    /// The default stream, on which libtorch puts its work unless told otherwise.
    pub fn default_of(library: &Arc<Library>) -> Self {
        Self {
            library: Arc::clone(library),
            handle: std::ptr::null_mut(),
        }
    }

    /// A stream of its own on the thread's device, ordered with others by events alone.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn new(library: &Arc<Library>) -> Result<Self, Error> {
        let mut handle = std::ptr::null_mut();
        // The pointer is to a handle that outlives the call.
        call!(library, StreamCreateWithFlags(&mut handle, STREAM_NON_BLOCKING))?;
        Ok(Self {
            library: Arc::clone(library),
            handle,
        })
    }

    /// Makes what is put on this stream from now on wait for an event, as it stands now.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn wait_for(&self, event: &Event) -> Result<(), Error> {
        let now: c_uint = 0;
        // Both handles are alive.
        call!(self.library, StreamWaitEvent(self.handle, event.handle, now))
    }

    pub(crate) fn raw(&self) -> RawStream {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // The handle is this value's own; what is under way still ends. Nobody is left to hear of a failure.
            let _ = call!(self.library, StreamDestroy(self.handle));
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.handle)
    }
}

/// A point in a stream.
pub struct Event {
    library: Arc<Library>,
    handle: RawEvent,
}

// SAFETY: as for `Stream`.
unsafe impl Send for Event {}

impl Event {
    /// # Errors
    /// What the runtime says.
    pub fn new(library: &Arc<Library>) -> Result<Self, Error> {
        let mut handle = std::ptr::null_mut();
        // The pointer is to a handle that outlives the call.
        call!(library, EventCreateWithFlags(&mut handle, EVENT_DISABLE_TIMING))?;
        Ok(Self {
            library: Arc::clone(library),
            handle,
        })
    }

    /// Moves the event to the end of what is on the stream now.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        // Both handles are alive.
        call!(self.library, EventRecord(self.handle, stream.handle))
    }

    /// Whether the device has come to the event.
    ///
    /// # Errors
    /// What the runtime says: also of work on the device that failed meanwhile.
    pub fn is_done(&self) -> Result<bool, Error> {
        // The handle is alive.
        match call!(self.library, EventQuery(self.handle)) {
            Ok(()) => Ok(true),
            Err(Error::Runtime { code: NOT_READY, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // The handle is this value's own.
        let _ = call!(self.library, EventDestroy(self.handle));
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.handle)
    }
}

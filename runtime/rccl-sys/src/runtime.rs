//! Streams and events of the device runtime, and the thread's device.

use std::ffi::c_uint;
use std::fmt;
use std::sync::Arc;

use crate::call::Error;
use crate::library::Library;
use crate::types::{EVENT_DISABLE_TIMING, NOT_READY, RawEvent, RawStream, STREAM_NON_BLOCKING};

/// Calls an optional function of the runtime; returns nothing or an error.
macro_rules! call {
    ($library:expr, $function:ident ( $($argument:expr),* )) => {{
        let library: &Library = &$library;
        match library.runtime.$function {
            // SAFETY: stated at each use.
            Some(function) => library.runtime_done(stringify!($function), unsafe { function($($argument),*) }),
            None => Err(library.no_runtime_function(stringify!($function))),
        }
    }};
}

impl Library {
    /// Makes a device the current one of the calling thread.
    ///
    /// # Errors
    /// The runtime's error.
    pub fn use_device(&self, index: u32) -> Result<(), Error> {
        // An invalid number is refused.
        call!(self, SetDevice(index as i32))
    }
}

/// A queue of device work that runs in order.
pub struct DeviceStream {
    library: Arc<Library>,
    handle: RawStream,
}

// SAFETY: the runtimes' functions may be called from any thread, and a handle is only a name to them.
unsafe impl Send for DeviceStream {}

impl DeviceStream {
    /// The default stream, which libtorch uses by default.
    pub fn default_of(library: &Arc<Library>) -> Self {
        Self {
            library: Arc::clone(library),
            handle: std::ptr::null_mut(),
        }
    }

    /// A new stream on the thread's device, ordered with other streams by events only.
    ///
    /// # Errors
    /// The runtime's error.
    pub fn new(library: &Arc<Library>) -> Result<Self, Error> {
        let mut handle = std::ptr::null_mut();
        // The pointer is to a handle that outlives the call.
        call!(library, StreamCreateWithFlags(&mut handle, STREAM_NON_BLOCKING))?;
        Ok(Self {
            library: Arc::clone(library),
            handle,
        })
    }

    /// Makes later work of this stream wait for an event, as it was last recorded.
    ///
    /// # Errors
    /// The runtime's error.
    pub fn wait_for(&self, event: &DeviceEvent) -> Result<(), Error> {
        let now: c_uint = 0;
        // Both handles are alive.
        call!(self.library, StreamWaitEvent(self.handle, event.handle, now))
    }

    pub(crate) fn raw(&self) -> RawStream {
        self.handle
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // The handle belongs to this value; work in progress still completes. Nothing can handle a failure.
            let _ = call!(self.library, StreamDestroy(self.handle));
        }
    }
}

impl fmt::Debug for DeviceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceStream({:?})", self.handle)
    }
}

/// A point in a stream.
pub struct DeviceEvent {
    library: Arc<Library>,
    handle: RawEvent,
}

// SAFETY: as for `DeviceStream`.
unsafe impl Send for DeviceEvent {}

impl DeviceEvent {
    /// # Errors
    /// The runtime's error.
    pub fn new(library: &Arc<Library>) -> Result<Self, Error> {
        let mut handle = std::ptr::null_mut();
        // The pointer is to a handle that outlives the call.
        call!(library, EventCreateWithFlags(&mut handle, EVENT_DISABLE_TIMING))?;
        Ok(Self {
            library: Arc::clone(library),
            handle,
        })
    }

    /// Records the event after the work that the stream contains now.
    ///
    /// # Errors
    /// The runtime's error.
    pub fn record(&self, stream: &DeviceStream) -> Result<(), Error> {
        // Both handles are alive.
        call!(self.library, EventRecord(self.handle, stream.handle))
    }

    /// Whether the device has reached the event.
    ///
    /// # Errors
    /// The runtime's error, also for device work that failed meanwhile.
    pub fn is_done(&self) -> Result<bool, Error> {
        // The handle is alive.
        match call!(self.library, EventQuery(self.handle)) {
            Ok(()) => Ok(true),
            Err(Error::Runtime { code: NOT_READY, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for DeviceEvent {
    fn drop(&mut self) {
        // The handle belongs to this value.
        let _ = call!(self.library, EventDestroy(self.handle));
    }
}

impl fmt::Debug for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceEvent({:?})", self.handle)
    }
}

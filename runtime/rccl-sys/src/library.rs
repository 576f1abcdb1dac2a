//! A loaded collective library, and functions that need no communicator.

use std::ffi::c_int;
use std::fmt;

use crate::call::{Error, Progress, text};
use crate::search::{OpenError, Platform, Search, open_collectives, open_runtime};
use crate::table::{Collectives, Runtime};
use crate::types::{INSUFFICIENT_DRIVER, NO_DEVICE, SUCCESS, UniqueId};

/// Calls an optional function of the collective library; returns its progress or an error.
macro_rules! collective {
    ($library:expr, $function:ident ( $($argument:expr),* )) => {{
        let library: &crate::library::Library = &$library;
        let name = concat!("nccl", stringify!($function));
        match library.collectives.$function {
            // SAFETY: stated at each use.
            Some(function) => library.progress(name, unsafe { function($($argument),*) }),
            None => Err(crate::library::no_function(name)),
        }
    }};
}
pub(crate) use collective;

/// A loaded library and its runtime. Never unloaded: both start threads and register exit handlers.
pub struct Library {
    platform: Platform,
    pub(crate) collectives: Collectives,
    pub(crate) runtime: Runtime,
}

impl Library {
    /// Loads the collective library and the runtime, preferably those that this process has already loaded: two copies
    /// of a runtime in one process do not see each other's memory. So the library is loaded first, which loads its
    /// runtime.
    ///
    /// # Errors
    /// [`OpenError`] for the first of the two that is missing.
    pub fn open(platform: Platform, search: &Search) -> Result<Self, OpenError> {
        let collectives = open_collectives(platform, search)?.0;
        let runtime = open_runtime(platform, search)?.0;
        Ok(Self {
            platform,
            collectives,
            runtime,
        })
    }

    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// # Errors
    /// [`Error`] if the library does not report it.
    pub fn version(&self) -> Result<Version, Error> {
        version(&self.collectives)
    }

    /// The number of devices that this process can use; at least one.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the runtime's text. No other function of a library may be called then: some work, some
    /// write to standard output, some crash.
    pub fn device_count(&self) -> Result<u32, Error> {
        device_count(&self.runtime, self.platform)
    }

    /// An id for a new communicator, for all its ranks.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the library's error.
    pub fn unique_id(&self) -> Result<UniqueId, Error> {
        self.device_count()?;
        let mut id = UniqueId([0; UniqueId::BYTES]);
        // The pointer is to an id that outlives the call.
        collective!(self, GetUniqueId(&mut id))?;
        Ok(id)
    }

    /// Makes calls that start together when the group is closed, which happens even if a call fails;
    /// [`crate::Communicator::progress`] reports their progress. At least one call is required: an empty group is an
    /// error in RCCL 5.4.3.
    ///
    /// # Errors
    /// The error of the first call that fails, or of the group.
    pub fn group(&self, calls: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        collective!(self, GroupStart())?;
        let made = calls();
        // The group was opened above on this thread.
        let ended = collective!(self, GroupEnd());
        made?;
        ended.map(drop)
    }

    /// Converts a result code of the collective library to progress or an error.
    pub(crate) fn progress(&self, function: &'static str, code: c_int) -> Result<Progress, Error> {
        Progress::of(code).ok_or_else(|| Error::Collective {
            function,
            code,
            text: self.error_string(code),
            detail: self.last_error(),
        })
    }

    /// The library's text for a result code.
    pub fn error_string(&self, code: c_int) -> String {
        // SAFETY: any number has a text, and texts are constants of the library.
        let known = self.collectives.GetErrorString.map(|call| unsafe { text(call(code)) });
        known
            .filter(|known| !known.is_empty())
            .unwrap_or_else(|| format!("error {code}"))
    }

    /// Details of the last error, on one line; empty if the library has none.
    fn last_error(&self) -> String {
        // SAFETY: only later versions use the argument, where null means the last error of all; the text is in memory
        // of the library or of this thread.
        let last = self
            .collectives
            .GetLastError
            .map(|call| unsafe { text(call(std::ptr::null_mut())) });
        last.unwrap_or_default().lines().collect::<Vec<_>>().join(" ")
    }

    /// Converts a result code of the device runtime to nothing or an error.
    pub(crate) fn runtime_done(&self, function: &str, code: c_int) -> Result<(), Error> {
        if code == SUCCESS {
            return Ok(());
        }
        Err(Error::Runtime {
            function: format!("{}{function}", self.platform.runtime_prefix()),
            code,
            text: runtime_text(&self.runtime, code),
        })
    }

    pub(crate) fn no_runtime_function(&self, function: &str) -> Error {
        no_function(&format!("{}{function}", self.platform.runtime_prefix()))
    }
}

pub(crate) fn no_function(function: &str) -> Error {
    Error::NoFunction {
        function: function.to_owned(),
    }
}

pub(crate) fn version(collectives: &Collectives) -> Result<Version, Error> {
    let call = collectives.GetVersion.ok_or_else(|| no_function("ncclGetVersion"))?;
    let mut code = 0;
    // SAFETY: the pointer is to a number that outlives the call.
    let result = unsafe { call(&mut code) };
    if result == SUCCESS {
        return Ok(Version(code));
    }
    Err(Error::Collective {
        function: "ncclGetVersion",
        code: result,
        text: format!("error {result}"),
        detail: String::new(),
    })
}

pub(crate) fn device_count(runtime: &Runtime, platform: Platform) -> Result<u32, Error> {
    let name = || format!("{}GetDeviceCount", platform.runtime_prefix());
    let call = runtime.GetDeviceCount.ok_or_else(|| no_function(&name()))?;
    let mut count = 0;
    // SAFETY: the pointer is to a number that outlives the call.
    let code = unsafe { call(&mut count) };
    match code {
        SUCCESS if count > 0 => Ok(count.unsigned_abs()),
        SUCCESS => Err(Error::NoDevice {
            cause: "the runtime reports none".to_owned(),
        }),
        NO_DEVICE | INSUFFICIENT_DRIVER => Err(Error::NoDevice {
            cause: runtime_text(runtime, code),
        }),
        _ => Err(Error::Runtime {
            function: name(),
            code,
            text: runtime_text(runtime, code),
        }),
    }
}

fn runtime_text(runtime: &Runtime, code: c_int) -> String {
    // SAFETY: any number has a text, and texts are constants of the library.
    let known = runtime.GetErrorString.map(|call| unsafe { text(call(code)) });
    known
        .filter(|known| !known.is_empty())
        .unwrap_or_else(|| format!("error {code}"))
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({:?})", self.platform)
    }
}

/// The version of a collective library, such as 2.21.5.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(c_int);

impl Version {
    /// From NCCL's number (`NCCL_VERSION_CODE`), which had fewer digits up to 2.8.
    pub fn from_code(code: i32) -> Self {
        Self(code)
    }

    fn parts(self) -> [c_int; 3] {
        let major = if self.0 < 10_000 { 1_000 } else { 10_000 };
        [self.0 / major, self.0 % major / 100, self.0 % 100]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.parts();
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

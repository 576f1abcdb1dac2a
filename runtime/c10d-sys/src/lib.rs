//! The part of libtorch's c10d that Aurora uses: a key-value store over TCP, and Gloo's transfers between processes. Also
//! libtorch's version.
//!
//! In: tensors of tch, ranks, tags. Out: transfers in progress, errors with their kind. Not here: which ranks
//! communicate, and how much at once (`aurora-train`).
//!
//! Gloo does not check, and ends the *process*, if two ranks use a tag for different numbers of bytes. The caller must
//! prevent it.

mod error;
pub mod raw;
mod release;

use std::ffi::{c_int, c_void};
use std::net::{IpAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use tch::Tensor;

pub use error::{Error, ErrorKind};
use error::{attempt, text};
pub use release::LibtorchRelease;

/// A connection to the key-value store through which ranks find each other. Nothing outlives the serving process.
#[derive(Debug)]
pub struct TcpStore {
    raw: NonNull<raw::TcpStore>,
}

// SAFETY: c10d's stores may be used from any thread; each locks around a call.
unsafe impl Send for TcpStore {}
// SAFETY: as above.
unsafe impl Sync for TcpStore {}

impl TcpStore {
    /// Serves a store on a free port of `address`, on a thread of this process, and connects to it. Returns the port.
    ///
    /// # Errors
    /// [`Error`] if the address does not belong to this machine.
    pub fn serve(address: IpAddr, limit: Duration) -> Result<(Self, u16), Error> {
        let failed =
            |error: std::io::Error| Error::new(ErrorKind::Other, format!("cannot listen on {address}: {error}"));
        let listener = TcpListener::bind((address, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        // The store closes the listener, also if it cannot be created.
        let listener = listener.into_raw_fd();
        Ok((Self::open(&address.to_string(), port, listener, limit)?, port))
    }

    /// Connects to a store that another process serves.
    ///
    /// # Errors
    /// [`Error`]. If nothing listens there, after up to three times `limit`: c10d retries.
    pub fn connect(host: &str, port: u16, limit: Duration) -> Result<Self, Error> {
        Self::open(host, port, -1, limit)
    }

    fn open(host: &str, port: u16, listener: c_int, limit: Duration) -> Result<Self, Error> {
        let host = text(host)?;
        let raw = create(|out, error| {
            // SAFETY: the text is alive; `out` and `error` may be written.
            unsafe { raw::c10d_store_open(host.as_ptr(), port, listener, milliseconds(limit), out, error) }
        })?;
        Ok(Self { raw })
    }

    /// The same store with `prefix` before every key, over its own connection, so that threads do not wait for each
    /// other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn under(&self, prefix: &str) -> Result<Self, Error> {
        let prefix = text(prefix)?;
        let raw = create(|out, error| {
            // SAFETY: as in `open`; the store is alive.
            unsafe { raw::c10d_store_under(self.raw.as_ptr(), prefix.as_ptr(), out, error) }
        })?;
        Ok(Self { raw })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set(&self, key: &str) -> Result<(), Error> {
        let key = text(key)?;
        // SAFETY: store and text are alive.
        attempt(|error| unsafe { raw::c10d_store_set(self.raw.as_ptr(), key.as_ptr(), error) })
    }

    /// Returns when a key has been set.
    ///
    /// # Errors
    /// [`Error`], of [`ErrorKind::TimedOut`] if the key was not set in time; the store stays usable.
    pub fn wait(&self, key: &str, limit: Duration) -> Result<(), Error> {
        let key = text(key)?;
        // SAFETY: store and text are alive.
        attempt(|error| unsafe { raw::c10d_store_wait(self.raw.as_ptr(), key.as_ptr(), milliseconds(limit), error) })
    }
}

impl Drop for TcpStore {
    fn drop(&mut self) {
        // SAFETY: created by the shim and freed once.
        unsafe { raw::c10d_store_free(self.raw.as_ptr()) }
    }
}

/// One rank's end of a full mesh of connections between `size` ranks.
#[derive(Debug)]
pub struct ProcessGroup {
    raw: NonNull<raw::ProcessGroup>,
}

// SAFETY: c10d's groups may move between threads; calls come one at a time, since the type is not `Sync`.
unsafe impl Send for ProcessGroup {}

impl ProcessGroup {
    /// Connects to the other ranks, which use the same store and connect at the same time.
    ///
    /// `address` is this machine's, as the others reach it. A store serves one group: use a prefix for each.
    ///
    /// # Errors
    /// [`Error`]. If a peer is missing, after up to five times `limit`, as in Gloo.
    pub fn new(store: &TcpStore, rank: usize, size: usize, address: IpAddr, limit: Duration) -> Result<Self, Error> {
        let (rank, size) = (number(rank)?, number(size)?);
        let address = text(&address.to_string())?;
        let limit = milliseconds(limit);
        let raw = create(|out, error| {
            // SAFETY: store and text are alive; `out` and `error` may be written.
            unsafe { raw::c10d_group_new(store.raw.as_ptr(), rank, size, address.as_ptr(), limit, out, error) }
        })?;
        Ok(Self { raw })
    }

    /// Starts sending a contiguous tensor. Completes after the other rank has started to receive, even for small
    /// tensors.
    ///
    /// # Errors
    /// [`Error`], of [`ErrorKind::Closed`] if the connection has ended.
    pub fn send(&self, tensor: &Tensor, to: usize, tag: i32) -> Result<Work, Error> {
        let to = number(to)?;
        let raw = create(|out, error| {
            // SAFETY: group and tensor are alive; the work keeps a reference to the tensor's memory.
            unsafe { raw::c10d_send(self.raw.as_ptr(), pointer(tensor), to, tag, out, error) }
        })?;
        Ok(Work { raw })
    }

    /// Starts receiving into a contiguous tensor.
    ///
    /// # Errors
    /// As [`ProcessGroup::send`].
    pub fn receive(&self, tensor: &Tensor, from: usize, tag: i32) -> Result<Work, Error> {
        let from = number(from)?;
        let raw = create(|out, error| {
            // SAFETY: as in `send`.
            unsafe { raw::c10d_receive(self.raw.as_ptr(), pointer(tensor), from, tag, out, error) }
        })?;
        Ok(Work { raw })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: created by the shim and freed once.
        unsafe { raw::c10d_group_free(self.raw.as_ptr()) }
    }
}

/// A transfer in progress. If it is dropped before it completes, its connection becomes unusable, but nothing more is
/// written.
#[derive(Debug)]
pub struct Work {
    raw: NonNull<raw::Work>,
}

impl Work {
    /// Returns when the transfer has completed.
    ///
    /// # Errors
    /// [`Error`]. After one of [`ErrorKind::TimedOut`] all connections of the group are closed.
    pub fn wait(&self, limit: Duration) -> Result<(), Error> {
        // SAFETY: the work is alive.
        attempt(|error| unsafe { raw::c10d_work_wait(self.raw.as_ptr(), milliseconds(limit), error) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: created by the shim and freed once.
        unsafe { raw::c10d_work_free(self.raw.as_ptr()) }
    }
}

/// The size of c10d's `ProcessGroupGloo` as the shim was compiled, in bytes.
pub fn size_of_group() -> usize {
    // SAFETY: no arguments, no effects.
    unsafe { raw::c10d_size_of_group() }
}

/// Calls a function that creates an object.
fn create<T>(call: impl FnOnce(*mut *mut T, raw::ErrorText) -> c_int) -> Result<NonNull<T>, Error> {
    let mut out = ptr::null_mut();
    attempt(|error| call(&mut out, error))?;
    NonNull::new(out).ok_or_else(|| Error::new(ErrorKind::Other, "the shim returned no object".to_owned()))
}

fn pointer(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

/// At least 1: c10d takes 0 for no limit.
fn milliseconds(limit: Duration) -> i64 {
    i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn number(number: usize) -> Result<c_int, Error> {
    c_int::try_from(number).map_err(|_| Error::new(ErrorKind::Other, format!("{number} is not a valid rank")))
}

//! The part of libtorch's c10d that Aurora uses: a key-value store over TCP, and Gloo's transfers between processes.
//!
//! In: tensors of tch, ranks, tags. Out: transfers under way, errors with their kind. Not here: who talks to whom and
//! how much at once (`aurora-train`).
//!
//! What Gloo does not check, and ends the *process* over: the bytes that one rank sends with a tag and those that the
//! other receives with it must be as many. Callers see to it.

mod error;
pub mod raw;

use std::ffi::{c_int, c_void};
use std::net::{IpAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use tch::Tensor;

pub use error::{Error, Kind};
use error::{attempt, text};

/// A connection to the key-value store through which ranks find each other. Ends with its process: nothing is kept.
#[derive(Debug)]
pub struct Store {
    raw: NonNull<raw::Store>,
}

// SAFETY: c10d's stores may be used from any thread; each has a lock of its own around a call.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store on a free port of `address`, from a thread of this process, and connects to it. Returns the port.
    ///
    /// # Errors
    /// [`Error`], if the address is not this machine's.
    pub fn serve(address: IpAddr, limit: Duration) -> Result<(Self, u16), Error> {
        let failed = |error: std::io::Error| Error::new(Kind::Other, format!("cannot listen on {address}: {error}"));
        let listener = TcpListener::bind((address, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        // The store closes it, also if it cannot be made.
        let listener = listener.into_raw_fd();
        Ok((Self::open(&address.to_string(), port, listener, limit)?, port))
    }

    /// Connects to a store that another process serves.
    ///
    /// # Errors
    /// [`Error`]. Where nobody listens it comes after up to three times `limit`: c10d tries again in whole limits.
    pub fn connect(host: &str, port: u16, limit: Duration) -> Result<Self, Error> {
        Self::open(host, port, -1, limit)
    }

    fn open(host: &str, port: u16, listener: c_int, limit: Duration) -> Result<Self, Error> {
        let host = text(host)?;
        let raw = made(|out, error| {
            // SAFETY: the text is alive; `out` and `error` may be written.
            unsafe { raw::c10d_store_open(host.as_ptr(), port, listener, milliseconds(limit), out, error) }
        })?;
        Ok(Self { raw })
    }

    /// The same store with `prefix` before every key, over a connection of its own, so that threads do not wait for each
    /// other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn under(&self, prefix: &str) -> Result<Self, Error> {
        let prefix = text(prefix)?;
        let raw = made(|out, error| {
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
    /// [`Error`], of [`Kind::TimedOut`] if it was not set in time; the store stays usable then.
    pub fn wait(&self, key: &str, limit: Duration) -> Result<(), Error> {
        let key = text(key)?;
        // SAFETY: store and text are alive.
        attempt(|error| unsafe { raw::c10d_store_wait(self.raw.as_ptr(), key.as_ptr(), milliseconds(limit), error) })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by the shim and freed once.
        unsafe { raw::c10d_store_free(self.raw.as_ptr()) }
    }
}

/// One rank's end of a full mesh of connections between `size` ranks.
#[derive(Debug)]
pub struct Group {
    raw: NonNull<raw::Group>,
}

// SAFETY: c10d's groups may move between threads; calls come one at a time, since the type is not `Sync`.
unsafe impl Send for Group {}

impl Group {
    /// Connects to the other ranks, which have been given the same store and connect at the same time.
    ///
    /// `address` is this machine's, as the others reach it. A store serves one group: give each its own prefix.
    ///
    /// # Errors
    /// [`Error`]. Where a peer is missing it comes after up to five times `limit`: Gloo takes as long.
    pub fn new(store: &Store, rank: usize, size: usize, address: IpAddr, limit: Duration) -> Result<Self, Error> {
        let (rank, size) = (number(rank)?, number(size)?);
        let address = text(&address.to_string())?;
        let limit = milliseconds(limit);
        let raw = made(|out, error| {
            // SAFETY: store and text are alive; `out` and `error` may be written.
            unsafe { raw::c10d_group_new(store.raw.as_ptr(), rank, size, address.as_ptr(), limit, out, error) }
        })?;
        Ok(Self { raw })
    }

    /// Starts sending a contiguous tensor. It ends once the other rank has started to receive, however small it is.
    ///
    /// # Errors
    /// [`Error`], of [`Kind::Closed`] if the connection has ended.
    pub fn send(&self, tensor: &Tensor, to: usize, tag: i32) -> Result<Work, Error> {
        let to = number(to)?;
        let raw = made(|out, error| {
            // SAFETY: group and tensor are alive; the work keeps a reference to the tensor's memory.
            unsafe { raw::c10d_send(self.raw.as_ptr(), pointer(tensor), to, tag, out, error) }
        })?;
        Ok(Work { raw })
    }

    /// Starts receiving into a contiguous tensor.
    ///
    /// # Errors
    /// As [`Group::send`].
    pub fn receive(&self, tensor: &Tensor, from: usize, tag: i32) -> Result<Work, Error> {
        let from = number(from)?;
        let raw = made(|out, error| {
            // SAFETY: as in `send`.
            unsafe { raw::c10d_receive(self.raw.as_ptr(), pointer(tensor), from, tag, out, error) }
        })?;
        Ok(Work { raw })
    }

    /// Replaces a contiguous tensor by its sum over all ranks, which all call this with the same shape and kind.
    ///
    /// # Errors
    /// [`Error`].
    pub fn sum(&self, tensor: &Tensor, limit: Duration) -> Result<(), Error> {
        // SAFETY: group and tensor are alive.
        attempt(|error| unsafe { raw::c10d_sum(self.raw.as_ptr(), pointer(tensor), milliseconds(limit), error) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by the shim and freed once.
        unsafe { raw::c10d_group_free(self.raw.as_ptr()) }
    }
}

/// A transfer under way. Dropped before its end, it leaves its connection unusable, but writes nothing any more.
#[derive(Debug)]
pub struct Work {
    raw: NonNull<raw::Work>,
}

impl Work {
    /// Returns when the transfer has ended.
    ///
    /// # Errors
    /// [`Error`]. After one of [`Kind::TimedOut`] all connections of the group are closed.
    pub fn wait(&self, limit: Duration) -> Result<(), Error> {
        // SAFETY: the work is alive.
        attempt(|error| unsafe { raw::c10d_work_wait(self.raw.as_ptr(), milliseconds(limit), error) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by the shim and freed once.
        unsafe { raw::c10d_work_free(self.raw.as_ptr()) }
    }
}

/// The size of c10d's `ProcessGroupGloo` as the shim was compiled, in bytes.
pub fn size_of_group() -> usize {
    // SAFETY: no arguments, no effects.
    unsafe { raw::c10d_size_of_group() }
}

/// Calls a function that makes an object.
fn made<T>(call: impl FnOnce(*mut *mut T, raw::Text) -> c_int) -> Result<NonNull<T>, Error> {
    let mut out = ptr::null_mut();
    attempt(|error| call(&mut out, error))?;
    NonNull::new(out).ok_or_else(|| Error::new(Kind::Other, "nothing was made".to_owned()))
}

fn pointer(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

/// At least one: zero means no limit to c10d.
fn milliseconds(limit: Duration) -> i64 {
    i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn number(number: usize) -> Result<c_int, Error> {
    c_int::try_from(number).map_err(|_| Error::new(Kind::Other, format!("{number} is no rank")))
}

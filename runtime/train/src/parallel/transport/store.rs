//! The store through which ranks find each other before they are connected.

use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use c10d_sys::ErrorKind;

use super::TransportError;

/// Pause between attempts to reach a store that does not listen yet.
const PAUSE: Duration = Duration::from_millis(50);

/// A small key-value store over TCP that one process serves. Threads may share it.
#[derive(Debug)]
pub struct RendezvousStore {
    store: c10d_sys::TcpStore,
    limit: Duration,
}

impl RendezvousStore {
    /// Serves a store on a free port of `address` until it is dropped, which must not happen before all ranks have
    /// joined. Returns the port.
    ///
    /// `limit` is how long ranks wait for each other.
    ///
    /// # Errors
    /// [`TransportError::Join`] if this process cannot listen there.
    pub fn serve(address: IpAddr, limit: Duration) -> Result<(Self, u16), TransportError> {
        let (store, port) = c10d_sys::TcpStore::serve(address, limit).map_err(join)?;
        Ok((Self { store, limit }, port))
    }

    /// Connects to a store that listens within `limit`, which applies as in [`RendezvousStore::serve`].
    ///
    /// # Errors
    /// [`TransportError::Join`].
    pub fn connect(host: &str, port: u16, limit: Duration) -> Result<Self, TransportError> {
        // c10d's own attempts take up to three times the limit.
        let deadline = Instant::now() + limit;
        while let Err(error) = reach(host, port, deadline) {
            if Instant::now() + PAUSE >= deadline {
                return Err(TransportError::Join(format!("{host}:{port} does not answer: {error}")));
            }
            thread::sleep(PAUSE);
        }
        let store = c10d_sys::TcpStore::connect(host, port, limit).map_err(join)?;
        Ok(Self { store, limit })
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Announces a rank of the group `name` and returns when all its ranks have done so.
    pub(super) fn wait_for_all(
        &self,
        name: &str,
        rank: usize,
        size: usize,
    ) -> Result<c10d_sys::TcpStore, TransportError> {
        let key = |rank: usize| format!("here/{rank}");
        let deadline = Instant::now() + self.limit;
        let store = self.store.under(&format!("{name}/")).map_err(join)?;
        store.set(&key(rank)).map_err(join)?;
        let mut missing = Vec::new();
        for peer in 0..size {
            match store.wait(&key(peer), deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => missing.push(peer.to_string()),
                Err(error) => return Err(join(error)),
            }
        }
        let waited = self.limit.as_secs_f64();
        match missing.as_slice() {
            [] => Ok(store),
            [one] => Err(TransportError::Join(format!(
                "rank {one} did not join within {waited} s"
            ))),
            several => {
                let ranks = several.join(", ");
                Err(TransportError::Join(format!(
                    "ranks {ranks} did not join within {waited} s"
                )))
            }
        }
    }
}

/// Whether the address accepts connections.
fn reach(host: &str, port: u16, deadline: Instant) -> std::io::Result<()> {
    let mut result = Err(std::io::ErrorKind::NotFound.into());
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        result = TcpStream::connect_timeout(&address, left).map(drop);
        if result.is_ok() {
            break;
        }
    }
    result
}

pub(super) fn join(error: c10d_sys::Error) -> TransportError {
    TransportError::Join(error.to_string())
}

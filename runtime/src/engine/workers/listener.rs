//! Accepts workers that Slurm or torchrun have started: the first line of a connection says which worker it is.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::engine::RunError;
use crate::job::Hello;

/// The longest first line that is read from an unknown connection.
const LONGEST_HELLO: u64 = 4096;

/// Where workers connect.
#[derive(Debug)]
pub struct WorkerListener {
    listener: TcpListener,
    /// Workers accepted so far.
    accepted: AtomicUsize,
    token: String,
}

/// A worker that has connected and identified itself.
pub struct Arrival {
    pub stream: TcpStream,
    pub reader: BufReader<TcpStream>,
    pub hello: Hello,
    pub address: SocketAddr,
}

impl WorkerListener {
    /// Opens a port on all addresses; 0 takes a free one.
    ///
    /// # Errors
    /// The port is in use.
    pub fn open(port: u16, token: String) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Launch {
            text: format!("cannot listen on port {port} for workers: {error}"),
            help: "another run may use it: give `MASTER_PORT` another value".to_owned(),
        };
        let listener = TcpListener::bind(("0.0.0.0", port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            accepted: AtomicUsize::new(0),
            token,
        })
    }

    /// The port that was opened.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> Result<u16, RunError> {
        let address = self.listener.local_addr().map_err(|error| RunError::Worker {
            how: format!("before it started: {error}"),
        })?;
        Ok(address.port())
    }

    /// The secret that a worker must send.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The next worker that connects; `None` if none does within `wait`. Connections without the token are closed.
    pub fn arrival(&self, wait: Duration) -> Option<Arrival> {
        let until = Instant::now() + wait;
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => {
                    if let Some(arrival) = self.identify(stream, address) {
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        return Some(arrival);
                    }
                }
                Err(_) if Instant::now() >= until => return None,
                // The listener does not block, so that the caller can check for a stop.
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until `workers` workers have connected in total, and closes the connections of those that no node needed: they
    /// end without an error.
    pub fn dismiss(&self, workers: usize, within: Duration) {
        let until = Instant::now() + within;
        while self.accepted.load(Ordering::Relaxed) < workers && Instant::now() < until {
            drop(self.arrival(Duration::from_millis(100)));
        }
    }

    fn identify(&self, stream: TcpStream, address: SocketAddr) -> Option<Arrival> {
        stream.set_nonblocking(false).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.by_ref().take(LONGEST_HELLO).read_line(&mut line).ok()?;
        let hello: Hello = serde_json::from_str(&line).ok()?;
        if hello.token != self.token {
            return None;
        }
        stream.set_read_timeout(None).ok()?;
        Some(Arrival {
            stream,
            reader,
            hello,
            address,
        })
    }
}

//! Workers that somebody else has started (Slurm, torchrun) connect to the engine: who they are is their first line.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::engine::RunError;
use crate::job::Hello;

/// A line of a stranger is read no further than this.
const LONGEST_HELLO: u64 = 4096;

/// Where workers connect.
#[derive(Debug)]
pub struct Meeting {
    listener: TcpListener,
    /// Workers that have been let in so far.
    came: AtomicUsize,
    token: String,
}

/// A worker that has said who it is.
pub struct Arrival {
    pub stream: TcpStream,
    pub read: BufReader<TcpStream>,
    pub hello: Hello,
    pub address: SocketAddr,
}

impl Meeting {
    /// Opens a port on all addresses; 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken.
    pub fn open(port: u16, token: String) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Launch {
            cause: format!("cannot listen on port {port} for workers: {error}"),
            help: "another run may use it: give `MASTER_PORT` another value".to_owned(),
        };
        let listener = TcpListener::bind(("0.0.0.0", port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            came: AtomicUsize::new(0),
            token,
        })
    }

    /// The port that was opened.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> Result<u16, RunError> {
        let address = self.listener.local_addr().map_err(|error| RunError::Worker {
            how: format!("before it began: {error}"),
        })?;
        Ok(address.port())
    }

    /// What a worker must know to be let in.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The next worker to arrive; nothing if none has within `wait`. A stranger is not let in.
    pub fn arrival(&self, wait: Duration) -> Option<Arrival> {
        let until = Instant::now() + wait;
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => {
                    if let Some(arrival) = self.greet(stream, address) {
                        self.came.fetch_add(1, Ordering::Relaxed);
                        return Some(arrival);
                    }
                }
                Err(_) if Instant::now() >= until => return None,
                // Nobody is there yet: the listener does not block, so that a stop is seen.
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until so many workers have come in all, and sends those away that nobody has needed: they end well.
    pub fn dismiss(&self, workers: usize, within: Duration) {
        let until = Instant::now() + within;
        while self.came.load(Ordering::Relaxed) < workers && Instant::now() < until {
            drop(self.arrival(Duration::from_millis(100)));
        }
    }

    fn greet(&self, stream: TcpStream, address: SocketAddr) -> Option<Arrival> {
        stream.set_nonblocking(false).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut read = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        read.by_ref().take(LONGEST_HELLO).read_line(&mut line).ok()?;
        let hello: Hello = serde_json::from_str(&line).ok()?;
        if hello.token != self.token {
            return None;
        }
        stream.set_read_timeout(None).ok()?;
        Some(Arrival {
            stream,
            read,
            hello,
            address,
        })
    }
}

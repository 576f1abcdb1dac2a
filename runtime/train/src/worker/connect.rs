//! Connections of a worker to the engine and to the other workers.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use aurora_runtime::job::{Event, Hello, Join, TOKEN};
use aurora_runtime::launch::{EnvironmentError, identity};

use super::EventSink;
use crate::model::ComputeDevice;
use crate::parallel::Peers;
use crate::parallel::transport::{Gloo, RendezvousStore, Staged, Transport};
use crate::train::TrainError;
use crate::train::train_state;

/// How long a worker, once it runs, waits for the engine to answer and for the other workers to join. `START_TIMEOUT`
/// in `cli/src/worker_launch.rs` is the longer time that the engine waits for all workers.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// An engine that does not acknowledge heartbeats for this long is lost.
const ENGINE_SILENCE: Duration = Duration::from_secs(10);

/// Connections to the other workers, and the store through which they were made, which closes when it is dropped.
#[derive(Debug)]
pub struct ConnectedPeers {
    pub peers: Vec<Peers>,
    pub store: RendezvousStore,
}

/// Connects to the other workers of the mesh. Returns peers for each thread.
///
/// # Errors
/// [`TrainError`] if a worker cannot be reached in time.
pub fn connect(join: &Join, events: &EventSink, device: ComputeDevice) -> Result<ConnectedPeers, TrainError> {
    let address = resolve(&join.host).map_err(|source| TrainError::Host {
        host: join.host.clone(),
        source,
    })?;
    let store = match &join.store {
        None => {
            let (store, port) = RendezvousStore::serve(address, START_TIMEOUT)?;
            events.send(&Event::RendezvousReady { port });
            store
        }
        Some(store) => {
            let parts = store
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = parts.ok_or_else(|| TrainError::Address(store.clone()))?;
            RendezvousStore::connect(host, port, START_TIMEOUT)?
        }
    };
    let mesh = train_state::mesh(&join.layout);
    let transfer_timeout = Duration::from_secs(u64::from(join.transfer_timeout));
    let thread = |index: u32| {
        let (rank, name) = (join.rank as usize, format!("thread {index}"));
        let gloo = Gloo::join(rank, mesh.world(), &store, &name, address, transfer_timeout)?;
        let transport: Box<dyn Transport> = if device.is_host() {
            Box::new(gloo)
        } else {
            Box::new(Staged::new(gloo))
        };
        Ok(Peers::new(mesh, transport))
    };
    let peers = (0..join.layout.threads.max(1))
        .map(thread)
        .collect::<Result<_, TrainError>>()?;
    Ok(ConnectedPeers { peers, store })
}

fn resolve(host: &str) -> io::Result<IpAddr> {
    let mut found = (host, 0u16).to_socket_addrs()?;
    let first = found
        .next()
        .ok_or_else(|| io::Error::other("the host has no address"))?;
    Ok(first.ip())
}

/// Starts the thread that sends heartbeats until the connection closes; then it ends the process.
///
/// # Errors
/// The system's, if it cannot start a thread.
pub fn send_heartbeats(events: &EventSink) -> io::Result<()> {
    let events = events.clone();
    thread::Builder::new().name("heartbeats".to_owned()).spawn(move || {
        while events.send(&Event::Heartbeat) {
            thread::park_timeout(HEARTBEAT_INTERVAL);
        }
        // Nothing receives the results of this worker any more.
        super::inbox::end(1);
    })?;
    Ok(())
}

/// Where commands come from and where events go.
pub type Line = (Box<dyn BufRead + Send>, Box<dyn Write + Send>);

/// Why a worker cannot connect to the engine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error("neither srun nor torchrun started this worker: their variables are not set")]
    NoLauncher,
    #[error("`{0}` is not a valid HOST:PORT")]
    Address(String),
    #[error("the engine does not answer at {hosts}")]
    Unreachable {
        hosts: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the engine failed")]
    Connection(#[from] io::Error),
}

/// Connects to an engine that did not start this worker itself, at `HOST:PORT`; for an empty host, at the one that the
/// launcher names. The launcher's variables identify this worker.
///
/// # Errors
/// [`ConnectError`].
pub fn call(engine: &str) -> Result<Line, ConnectError> {
    let found = identity(&|name| std::env::var(name).ok())?;
    let me = found.ok_or(ConnectError::NoLauncher)?;
    let invalid = || ConnectError::Address(engine.to_owned());
    let (host, port) = engine.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let hosts = if host.is_empty() {
        me.rendezvous.hosts.clone()
    } else {
        vec![host.to_owned()]
    };
    let stream = reach(&hosts, port)?;
    stream.set_nodelay(true)?;
    close_when_silent(&stream, ENGINE_SILENCE)?;
    let (read, mut write) = (stream.try_clone()?, stream.try_clone()?);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let hello = Hello {
        token: std::env::var(TOKEN).unwrap_or_default(),
        rank: number(me.rank),
        world: number(me.world),
        host: hostname(),
    };
    let line = serde_json::to_string(&hello).expect("names and numbers are JSON");
    writeln!(write, "{line}")?;
    Ok((Box::new(BufReader::new(read)), Box::new(write)))
}

/// Connects to the first host that answers; the engine may start a little later than its workers.
fn reach(hosts: &[String], port: u16) -> Result<TcpStream, ConnectError> {
    let until = Instant::now() + START_TIMEOUT;
    let mut last = io::Error::other("the launcher names no host");
    loop {
        for host in hosts {
            let addresses = (host.as_str(), port).to_socket_addrs();
            for address in addresses.into_iter().flatten() {
                match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
        }
        if Instant::now() > until {
            return Err(ConnectError::Unreachable {
                hosts: hosts
                    .iter()
                    .map(|host| format!("{host}:{port}"))
                    .collect::<Vec<_>>()
                    .join(", "),
                source: last,
            });
        }
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Makes the system close a connection whose other end has not answered for `limit`, whether data was sent or not.
fn close_when_silent(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let number = |n: u128| libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX);
    set_option(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(
        stream,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPIDLE,
        number(u128::from(limit.as_secs() / 2)),
    )?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1)?;
    set_option(
        stream,
        libc::IPPROTO_TCP,
        libc::TCP_USER_TIMEOUT,
        number(limit.as_millis()),
    )
}

fn set_option(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open, the value is one number and outlives the call.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), size) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

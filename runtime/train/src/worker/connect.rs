//! How a worker meets the engine and the other workers.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use aurora_runtime::job::{Event, Hello, Join, TOKEN};
use aurora_runtime::launch::identity;

use super::Events;
use crate::parallel::Peers;
use crate::parallel::transport::{Gloo, Store};
use crate::train::TrainError;
use crate::train::state;

/// How long workers wait for each other, and for the engine, when they start.
const START: Duration = Duration::from_secs(60);

/// How often a worker says that it lives.
const ALIVE: Duration = Duration::from_millis(500);

/// An engine that takes no sign of life for so long is gone.
const ENGINE_SILENCE: Duration = Duration::from_secs(10);

/// The store through which the workers of this one have met; closed when it is dropped.
#[derive(Debug)]
pub struct Met {
    pub peers: Vec<Peers>,
    pub store: Store,
}

/// Connects with the other workers of the mesh: peers for each thread.
///
/// # Errors
/// [`TrainError`] if they cannot be reached in time.
pub fn connect(join: &Join, events: &Events) -> Result<Met, TrainError> {
    let failed = |cause: String| TrainError::Unfit(format!("cannot join the other workers: {cause}"));
    let address = resolve(&join.host).map_err(|error| failed(format!("`{}`: {error}", join.host)))?;
    let store = match &join.store {
        None => {
            let (store, port) = Store::serve(address, START)?;
            events.send(&Event::Store { port });
            store
        }
        Some(store) => {
            let parts = store
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = parts.ok_or_else(|| failed(format!("`{store}` is no host and port")))?;
            Store::connect(host, port, START)?
        }
    };
    let mesh = state::mesh(&join.placement);
    let limit = Duration::from_secs(u64::from(join.timeout));
    let thread = |index: u32| {
        let (rank, name) = (join.rank as usize, format!("thread {index}"));
        let gloo = Gloo::join(rank, mesh.world(), &store, &name, address, limit)?;
        Ok(Peers::new(mesh, Box::new(gloo)))
    };
    let peers = (0..join.placement.threads.max(1))
        .map(thread)
        .collect::<Result<_, TrainError>>()?;
    Ok(Met { peers, store })
}

fn resolve(host: &str) -> io::Result<IpAddr> {
    let mut found = (host, 0u16).to_socket_addrs()?;
    let first = found.next().ok_or_else(|| io::Error::other("no such host"))?;
    Ok(first.ip())
}

/// Says every half second that this worker lives, until nobody hears it.
///
/// # Errors
/// The system's, if it gives no thread.
pub fn stay_alive(events: &Events) -> io::Result<()> {
    let events = events.clone();
    thread::Builder::new().name("alive".to_owned()).spawn(move || {
        while events.send(&Event::Alive) {
            thread::park_timeout(ALIVE);
        }
        // Nobody takes what is made here.
        super::inbox::end(1);
    })?;
    Ok(())
}

/// Orders come from here, events go there.
pub type Line = (Box<dyn BufRead + Send>, Box<dyn Write + Send>);

/// Connects to an engine that has not started this worker itself, at `host:port`; an empty host is the one that the
/// launcher names. Who this worker is stands in the launcher's variables.
///
/// # Errors
/// In words.
pub fn call(engine: &str) -> Result<Line, String> {
    let found = identity(&|name| std::env::var(name).ok()).map_err(|error| error.to_string())?;
    let me = found.ok_or("neither srun nor torchrun has started this worker: their variables are not set")?;
    let (host, port) = engine
        .rsplit_once(':')
        .ok_or_else(|| format!("`{engine}` is no host and port"))?;
    let port: u16 = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    let hosts = if host.is_empty() {
        me.rendezvous.hosts.clone()
    } else {
        vec![host.to_owned()]
    };
    let stream = reach(&hosts, port)?;
    let prepare = || -> io::Result<(TcpStream, TcpStream)> {
        stream.set_nodelay(true)?;
        close_when_silent(&stream, ENGINE_SILENCE)?;
        Ok((stream.try_clone()?, stream.try_clone()?))
    };
    let (read, mut write) = prepare().map_err(|error| error.to_string())?;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let hello = Hello {
        token: std::env::var(TOKEN).unwrap_or(me.run),
        rank: number(me.rank),
        world: number(me.world),
        host: hostname(),
    };
    let line = serde_json::to_string(&hello).map_err(|error| error.to_string())?;
    writeln!(write, "{line}").map_err(|error| error.to_string())?;
    Ok((Box::new(BufReader::new(read)), Box::new(write)))
}

/// Connects to the first host that answers; the engine may come a little later than its workers.
fn reach(hosts: &[String], port: u16) -> Result<TcpStream, String> {
    let until = Instant::now() + START;
    let mut last = "no host is named".to_owned();
    loop {
        for host in hosts {
            let addresses = (host.as_str(), port).to_socket_addrs();
            for address in addresses.into_iter().flatten() {
                match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = format!("{host}:{port}: {error}"),
                }
            }
        }
        if Instant::now() > until {
            return Err(format!("the engine does not answer at {} ({last})", hosts.join(", ")));
        }
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Has the system close a connection whose other end has not answered for so long, whether something was sent or not.
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

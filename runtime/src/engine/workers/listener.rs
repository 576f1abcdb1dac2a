//! Accepts workers that Slurm or torchrun have started: the first line of a connection says which worker it is.
//!
//! Anybody who reaches the port can connect, so a worker must know the run's secret or be a process of this user on this
//! machine. A connection that says nothing is closed after a while, and delays no other one.

use std::io::{self, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::RunError;
use crate::job::Hello;

/// The longest first line that is read from an unknown connection.
const LONGEST_HELLO: usize = 4096;

/// How long a connection may take to send its first line.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that have not sent their first line yet; of more, the oldest are closed.
const MOST_CALLERS: usize = 256;

/// Which connections are workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// From any host, with this secret.
    Secret(String),
    /// From processes of this user on this machine.
    ThisMachine,
}

impl Admission {
    /// A new secret.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self::Secret(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The value of [`TOKEN`](crate::job::TOKEN) for workers.
    pub fn token(&self) -> &str {
        match self {
            Self::Secret(token) => token,
            Self::ThisMachine => "",
        }
    }
}

/// Where workers connect.
#[derive(Debug)]
pub struct WorkerListener {
    listener: TcpListener,
    /// Workers accepted so far.
    accepted: AtomicUsize,
    admission: Admission,
    callers: Mutex<Vec<Caller>>,
}

/// A worker that has connected and identified itself.
#[derive(Debug)]
pub struct Arrival {
    pub stream: TcpStream,
    pub reader: BufReader<TcpStream>,
    pub hello: Hello,
    pub address: SocketAddr,
}

/// A connection that has not sent its first line yet.
#[derive(Debug)]
struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
}

impl Caller {
    /// Its first line; `None` if the line is not complete yet.
    fn hello(&mut self) -> Option<io::Result<Hello>> {
        let mut line = [0; LONGEST_HELLO];
        let received = match self.stream.peek(&mut line) {
            Ok(0) => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => return Some(Err(error)),
        };
        let Some(end) = line[..received].iter().position(|byte| *byte == b'\n') else {
            return (received == LONGEST_HELLO).then(|| Err(io::ErrorKind::InvalidData.into()));
        };
        let line = &mut line[..=end];
        Some(
            self.stream
                .read_exact(line)
                .and_then(|()| Ok(serde_json::from_slice(line)?)),
        )
    }
}

impl WorkerListener {
    /// Opens a port; 0 takes a free one. With a secret it is open on all addresses, without one on this machine's own.
    ///
    /// # Errors
    /// The port is in use.
    pub fn open(port: u16, admission: Admission) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Launch {
            text: format!("cannot listen on port {port} for workers: {error}"),
            help: "another run may use it: give `MASTER_PORT` another value".to_owned(),
        };
        let address = match admission {
            Admission::Secret(_) => Ipv4Addr::UNSPECIFIED,
            Admission::ThisMachine => Ipv4Addr::LOCALHOST,
        };
        let listener = TcpListener::bind((address, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            accepted: AtomicUsize::new(0),
            admission,
            callers: Mutex::default(),
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
        self.admission.token()
    }

    /// The next worker that connects; `None` if none does within `wait`. Other connections are closed.
    pub fn arrival(&self, wait: Duration) -> Option<Arrival> {
        let until = Instant::now() + wait;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for _ in 0..MOST_CALLERS {
                let Ok((stream, address)) = self.listener.accept() else {
                    break;
                };
                if stream.set_nonblocking(true).is_ok() {
                    let since = Instant::now();
                    callers.push(Caller { stream, address, since });
                }
            }
            let mut index = 0;
            while index < callers.len() {
                match callers[index].hello() {
                    None if callers[index].since.elapsed() < HELLO_TIMEOUT => index += 1,
                    Some(Ok(hello)) => {
                        if let Some(arrival) = self.admit(callers.remove(index), hello) {
                            self.accepted.fetch_add(1, Ordering::Relaxed);
                            return Some(arrival);
                        }
                    }
                    None | Some(Err(_)) => drop(callers.remove(index)),
                }
            }
            let surplus = callers.len().saturating_sub(MOST_CALLERS);
            callers.drain(..surplus);
            if Instant::now() >= until {
                return None;
            }
            // Nothing here blocks, so that the caller can check for a stop.
            std::thread::park_timeout(Duration::from_millis(5));
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

    fn admit(&self, caller: Caller, hello: Hello) -> Option<Arrival> {
        let Caller { stream, address, .. } = caller;
        let is_worker = match &self.admission {
            // Hashes are compared in constant time.
            Admission::Secret(token) => blake3::hash(hello.token.as_bytes()) == blake3::hash(token.as_bytes()),
            Admission::ThisMachine => is_own_process(&stream),
        };
        if !is_worker {
            return None;
        }
        stream.set_nonblocking(false).ok()?;
        stream.set_nodelay(true).ok()?;
        let reader = BufReader::new(stream.try_clone().ok()?);
        Some(Arrival {
            stream,
            reader,
            hello,
            address,
        })
    }
}

/// Whether the other end of a connection within this machine belongs to this user, by the kernel's table of connections.
fn is_own_process(stream: &TcpStream) -> bool {
    let (Ok(SocketAddr::V4(here)), Ok(SocketAddr::V4(there))) = (stream.local_addr(), stream.peer_addr()) else {
        return false;
    };
    // `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid …`
    let entry = |address: SocketAddrV4| {
        format!(
            "{:08X}:{:04X}",
            u32::from_ne_bytes(address.ip().octets()),
            address.port()
        )
    };
    let (local, remote) = (entry(there), entry(here));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let user = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str());
        found.then(|| fields.get(7)?.parse::<u32>().ok()).flatten()
    });
    // SAFETY: returns a number.
    user == Some(unsafe { libc::geteuid() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    fn call(listener: &WorkerListener, token: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", listener.port().expect("a port"))).expect("connected");
        let hello = Hello {
            token: token.to_owned(),
            rank: 1,
            world: 2,
            host: "here".to_owned(),
        };
        let line = serde_json::to_string(&hello).expect("JSON");
        write!(stream, "{line}\n{{\"more\": 1}}\n").expect("sent");
        stream
    }

    /// Connections that send nothing, or half a line, are older than a worker's and do not delay it.
    #[test]
    fn silent_connections_delay_no_worker() {
        let listener = WorkerListener::open(0, Admission::random().expect("random")).expect("a listener");
        let port = listener.port().expect("a port");
        let silent: Vec<TcpStream> = (0..40)
            .map(|number| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
                stream.write_all(&b"{\"token\""[..number % 9]).expect("sent");
                stream
            })
            .collect();
        let _worker = call(&listener, listener.token());
        let mut arrival = listener.arrival(Duration::ZERO);
        // A connection is in the queue once it is made; its line may still be on the way.
        while arrival.is_none() {
            arrival = listener.arrival(Duration::from_millis(1));
        }
        let mut arrival = arrival.expect("a worker");
        assert_eq!(arrival.hello.rank, 1);
        // It came before the others were given up.
        assert_eq!(listener.callers.lock().expect("no panic").len(), silent.len());
        // What follows the first line is not lost.
        let mut more = String::new();
        io::BufRead::read_line(&mut arrival.reader, &mut more).expect("a line");
        assert_eq!(more, "{\"more\": 1}\n");
    }

    #[test]
    fn a_stranger_is_not_a_worker() {
        let listener = WorkerListener::open(0, Admission::random().expect("random")).expect("a listener");
        let mut strangers: Vec<TcpStream> = ["", "none", "test"].map(|token| call(&listener, token)).into();
        for stranger in &mut strangers {
            stranger
                .set_read_timeout(Some(Duration::from_secs(60)))
                .expect("a timeout");
            stranger.set_nonblocking(true).expect("a mode");
        }
        let is_open = |mut stream: &TcpStream| matches!(stream.read(&mut [0; 8]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        while strangers.iter().any(is_open) {
            assert!(listener.arrival(Duration::from_millis(1)).is_none());
        }
        assert_ne!(
            Admission::random().expect("random"),
            Admission::random().expect("random")
        );
    }

    /// Without a secret, the port is open on this machine only, and for its user only.
    #[test]
    fn without_a_secret_only_processes_of_this_user_are_workers() {
        let listener = WorkerListener::open(0, Admission::ThisMachine).expect("a listener");
        assert!(listener.listener.local_addr().expect("an address").ip().is_loopback());
        // SAFETY: returns a number.
        if unsafe { libc::geteuid() } == 0 {
            let hello = "{\"token\": \"\", \"rank\": 1, \"world\": 2, \"host\": \"stranger\"}";
            let code = format!(
                "import encodings.idna, os, socket\nos.setuid(65534)\n\
                 stream = socket.create_connection(('127.0.0.1', {}))\nstream.sendall(b'{hello}\\n')\n\
                 try: print(stream.recv(1))\nexcept ConnectionError: print(b'')",
                listener.port().expect("a port")
            );
            let mut command = Command::new("python3");
            command.args(["-c", &code]).stdout(std::process::Stdio::piped());
            let mut stranger = command.spawn().expect("python3 starts");
            while stranger.try_wait().expect("a child").is_none() {
                assert!(
                    listener.arrival(Duration::from_millis(5)).is_none(),
                    "a stranger is a worker"
                );
            }
            let output = stranger.wait_with_output().expect("a child");
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "b''\n",
                "its connection is closed"
            );
        } else {
            crate::missing_tools::missing_tool("root", "connections of another user");
        }
        let _worker = call(&listener, "");
        assert!(listener.arrival(Duration::from_secs(60)).is_some());
    }
}

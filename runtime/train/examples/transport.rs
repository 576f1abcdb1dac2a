//! Times messages between two processes of one host: Gloo, and for comparison a TCP and a UNIX socket.
//!
//! `transport [ROUNDS]`: the number of rounds of the smallest message, 2000 unless given; longer ones take fewer.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use aurora_train::parallel::transport::{Axis, Gloo, RendezvousStore, Transport};
use tch::{Device, Kind, Tensor};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes in each direction, and the divisor of the number of rounds.
const EXCHANGES: [(usize, usize); 3] = [(64 << 10, 2), (2 << 20, 10), (64 << 20, 100)];

type Failed = Box<dyn Error>;

/// One end of a connection.
trait Link {
    fn name(&self) -> &'static str;
    fn send(&mut self, bytes: usize) -> Result<(), Failed>;
    fn receive(&mut self, bytes: usize) -> Result<(), Failed>;
    /// Both directions at once.
    fn exchange(&mut self, bytes: usize) -> Result<(), Failed>;
}

struct Mesh {
    gloo: Gloo,
    sent: Tensor,
    received: Tensor,
}

impl Mesh {
    fn new(gloo: Gloo) -> Self {
        let tensor = || Tensor::zeros([64 << 20], (Kind::Uint8, Device::Cpu));
        Self {
            gloo,
            sent: tensor(),
            received: tensor(),
        }
    }

    fn transfer(&self, send: usize, receive: usize) -> Result<(), Failed> {
        let peer = 1 - self.gloo.rank();
        let sent = self.sent.narrow(0, 0, send as i64);
        let received = self.received.narrow(0, 0, receive as i64);
        // An empty tensor is not sent.
        Ok(self.gloo.exchange(Axis::Data, &[(peer, &sent)], &[(peer, &received)])?)
    }
}

impl Link for Mesh {
    fn name(&self) -> &'static str {
        "gloo"
    }

    fn send(&mut self, bytes: usize) -> Result<(), Failed> {
        self.transfer(bytes, 0)
    }

    fn receive(&mut self, bytes: usize) -> Result<(), Failed> {
        self.transfer(0, bytes)
    }

    fn exchange(&mut self, bytes: usize) -> Result<(), Failed> {
        self.transfer(bytes, bytes)
    }
}

/// A socket with a thread that writes while this one reads.
struct Socket<S> {
    name: &'static str,
    stream: S,
    buffer: Vec<u8>,
    lengths: Sender<usize>,
    written: Receiver<std::io::Result<()>>,
}

impl<S: Read + Write + Send + 'static> Socket<S> {
    fn new(name: &'static str, stream: S, mut writer: S) -> Self {
        let (lengths, requested) = channel::<usize>();
        let (results, written) = channel();
        std::thread::spawn(move || {
            let content = vec![0; 64 << 20];
            for length in requested {
                if results.send(writer.write_all(&content[..length])).is_err() {
                    break;
                }
            }
        });
        Self {
            name,
            stream,
            buffer: vec![0; 64 << 20],
            lengths,
            written,
        }
    }
}

impl<S: Read + Write + Send + 'static> Link for Socket<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn send(&mut self, bytes: usize) -> Result<(), Failed> {
        Ok(self.stream.write_all(&self.buffer[..bytes])?)
    }

    fn receive(&mut self, bytes: usize) -> Result<(), Failed> {
        Ok(self.stream.read_exact(&mut self.buffer[..bytes])?)
    }

    fn exchange(&mut self, bytes: usize) -> Result<(), Failed> {
        self.lengths.send(bytes)?;
        self.stream.read_exact(&mut self.buffer[..bytes])?;
        Ok(self.written.recv()??)
    }
}

/// Runs the same rounds on both ends; the first one prints.
fn rounds(rank: usize, mut link: Box<dyn Link>, rounds: usize) -> Result<(), Failed> {
    let ping = |link: &mut dyn Link| match rank {
        0 => link.send(4).and_then(|()| link.receive(4)),
        _ => link.receive(4).and_then(|()| link.send(4)),
    };
    let times = time(rounds, || ping(link.as_mut()))?;
    report(rank, link.name(), "ping-pong of 4 bytes", &times);
    for (bytes, part) in EXCHANGES {
        let times = time((rounds / part).max(10), || link.exchange(bytes))?;
        report(rank, link.name(), &format!("{} KiB each way", bytes >> 10), &times);
    }
    Ok(())
}

/// Sorted times of the rounds in seconds, without some warm-up rounds.
fn time(rounds: usize, mut round: impl FnMut() -> Result<(), Failed>) -> Result<Vec<f64>, Failed> {
    for _ in 0..rounds / 10 + 1 {
        round()?;
    }
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let began = Instant::now();
        round()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(rank: usize, name: &str, what: &str, times: &[f64]) {
    if rank == 0 {
        let at = |fraction: f64| 1e6 * times[(fraction * (times.len() - 1) as f64) as usize];
        println!(
            "{name:5} {what:22} median {:9.1} µs, 10 % to 90 %: {:9.1} to {:9.1} µs, {} rounds",
            at(0.5),
            at(0.1),
            at(0.9),
            times.len()
        );
    }
}

fn run(
    rank: usize,
    store: &RendezvousStore,
    tcp: (TcpStream, TcpStream),
    unix: (UnixStream, UnixStream),
    count: usize,
) -> Result<(), Failed> {
    let gloo = Gloo::join(rank, 2, store, "timing", HOST, LIMIT)?;
    rounds(rank, Box::new(Mesh::new(gloo)), count)?;
    tcp.0.set_nodelay(true)?;
    rounds(rank, Box::new(Socket::new("tcp", tcp.0, tcp.1)), count)?;
    rounds(rank, Box::new(Socket::new("unix", unix.0, unix.1)), count)
}

fn main() -> Result<(), Failed> {
    tch::set_num_threads(1);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [second, count, store, tcp, unix] = arguments.as_slice()
        && second == "second"
    {
        let store = RendezvousStore::connect("127.0.0.1", store.parse()?, LIMIT)?;
        let tcp = TcpStream::connect((HOST, tcp.parse()?))?;
        let unix = UnixStream::connect(unix)?;
        return run(
            1,
            &store,
            (tcp.try_clone()?, tcp),
            (unix.try_clone()?, unix),
            count.parse()?,
        );
    }
    let count = arguments.first().map_or(Ok(2000), |count| count.parse())?;
    let folder = std::env::temp_dir().join(format!("aurora-transport-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let path = folder.join("socket");
    let unix = UnixListener::bind(&path)?;
    let tcp = TcpListener::bind((HOST, 0))?;
    let (store, port) = RendezvousStore::serve(HOST, LIMIT)?;
    let mut second = Command::new(std::env::current_exe()?)
        .args([
            "second",
            &count.to_string(),
            &port.to_string(),
            &tcp.local_addr()?.port().to_string(),
        ])
        .arg(&path)
        .spawn()?;
    let (tcp, unix) = (tcp.accept()?.0, unix.accept()?.0);
    std::fs::remove_dir_all(&folder)?;
    run(0, &store, (tcp.try_clone()?, tcp), (unix.try_clone()?, unix), count)?;
    second.wait()?;
    Ok(())
}

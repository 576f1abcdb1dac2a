//! The ranks of a measurement: processes of this program, which measure how long they wait for each other.

use std::error::Error;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aurora_train::parallel::transport::{Axis, Gloo, RendezvousStore, Transfer, Transport, TransportError};
use aurora_train::parallel::{Mesh, Peers};
use tch::Tensor;

/// Measures the time that is spent waiting for transfers.
#[derive(Debug)]
struct TimedGloo {
    inner: Gloo,
    nanoseconds: Arc<AtomicU64>,
}

#[derive(Debug)]
struct TimedTransfer(Box<dyn Transfer>, Arc<AtomicU64>);

impl Transfer for TimedTransfer {
    fn wait(self: Box<Self>) -> Result<(), TransportError> {
        let began = Instant::now();
        let result = self.0.wait();
        self.1.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Transport for TimedGloo {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let began = Instant::now();
        let transfer = self.inner.start(axis, sends, receives);
        self.nanoseconds
            .fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(Box::new(TimedTransfer(transfer?, Arc::clone(&self.nanoseconds))))
    }
}

/// The ranks that this process started, and the store, which must exist until all of them have joined.
pub struct OtherRanks(Vec<Child>, Option<RendezvousStore>);

impl Drop for OtherRanks {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// This rank's peers, one per thread; rank 0 starts the other ranks with the same arguments.
pub fn connect(
    arguments: &[String],
    mesh: Mesh,
    rank: usize,
    threads: usize,
    port: u16,
    waited: &Arc<AtomicU64>,
) -> Result<(Vec<Peers>, OtherRanks), Box<dyn Error>> {
    let mut others = OtherRanks(Vec::new(), None);
    if mesh.world() == 1 {
        return Ok(((0..threads).map(|_| Peers::alone()).collect(), others));
    }
    let (here, limit) = (IpAddr::from([127, 0, 0, 1]), Duration::from_secs(120));
    let store = if rank == 0 {
        let (store, port) = RendezvousStore::serve(here, limit)?;
        for rank in 1..mesh.world() {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(arguments)
                .args(["--rank", &rank.to_string(), "--port", &port.to_string()]);
            others.0.push(command.spawn()?);
        }
        store
    } else {
        RendezvousStore::connect("127.0.0.1", port, limit)?
    };
    let peers = (0..threads).map(|thread| {
        let inner = Gloo::join(rank, mesh.world(), &store, &format!("thread {thread}"), here, limit)?;
        let nanoseconds = Arc::clone(waited);
        Ok(Peers::new(mesh, Box::new(TimedGloo { inner, nanoseconds })))
    });
    let peers = peers.collect::<Result<_, TransportError>>()?;
    others.1 = Some(store);
    Ok((peers, others))
}

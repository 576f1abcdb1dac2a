//! The ranks of a measurement: processes of this program, each of which tells how long it waits for the others.

use std::error::Error;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aurora_train::parallel::transport::{Axis, Gloo, Store, Transfer, Transport, TransportError};
use aurora_train::parallel::{Mesh, Peers};
use tch::Tensor;

/// Counts the time that is spent in waiting for transfers.
#[derive(Debug)]
struct Timed {
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

impl Transport for Timed {
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

/// The ranks that this process has started, and the store, which has to be there until all of them have joined.
pub struct Others(Vec<Child>, Option<Store>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// This rank's peers, a thread; rank 0 starts the other ranks with the same arguments.
pub fn meet(
    arguments: &[String],
    mesh: Mesh,
    rank: usize,
    threads: usize,
    port: u16,
    waited: &Arc<AtomicU64>,
) -> Result<(Vec<Peers>, Others), Box<dyn Error>> {
    let mut others = Others(Vec::new(), None);
    if mesh.world() == 1 {
        return Ok(((0..threads).map(|_| Peers::alone()).collect(), others));
    }
    let (here, limit) = (IpAddr::from([127, 0, 0, 1]), Duration::from_secs(120));
    let store = if rank == 0 {
        let (store, port) = Store::serve(here, limit)?;
        for rank in 1..mesh.world() {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(arguments)
                .args(["--rank", &rank.to_string(), "--port", &port.to_string()]);
            others.0.push(command.spawn()?);
        }
        store
    } else {
        Store::connect("127.0.0.1", port, limit)?
    };
    let peers = (0..threads).map(|thread| {
        let inner = Gloo::join(rank, mesh.world(), &store, &format!("thread {thread}"), here, limit)?;
        let nanoseconds = Arc::clone(waited);
        Ok(Peers::new(mesh, Box::new(Timed { inner, nanoseconds })))
    });
    let peers = peers.collect::<Result<_, TransportError>>()?;
    others.1 = Some(store);
    Ok((peers, others))
}

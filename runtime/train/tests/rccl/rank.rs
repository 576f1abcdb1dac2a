//! What a rank does: one scenario, with its results on standard output.

use std::ffi::{CStr, CString, c_char, c_long};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aurora_train::parallel::Mesh;
use aurora_train::parallel::transport::rccl::{Rccl, RcclOptions};
use aurora_train::parallel::transport::{Axis, Transport, TransportError};
use rccl_sys::{Library, Platform, Search};
use tch::{Device, Kind, Tensor};

use super::world::PATIENT;

const AXES: [Axis; 5] = [Axis::Tensor, Axis::Forward, Axis::Backward, Axis::Data, Axis::World];

/// This process as a rank.
pub struct Rank {
    options: RcclOptions,
    double: PathBuf,
}

impl Rank {
    pub fn from_environment() -> Self {
        let double = PathBuf::from(std::env::var("DOUBLE").unwrap());
        let numbers: Vec<usize> = std::env::var("MESH")
            .unwrap()
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let &[tensor, data, pipeline, rank] = &numbers[..] else {
            panic!("{numbers:?}");
        };
        let search = Search {
            collective: Some(double.clone()),
            runtime: Some(double.clone()),
            ..Search::default()
        };
        let seconds =
            |name: &str| std::env::var(name).map_or(PATIENT, |limit| Duration::from_secs(limit.parse().unwrap()));
        Self {
            options: RcclOptions {
                library: Arc::new(Library::open(Platform::Rocm, &search).unwrap()),
                device: Device::Cpu,
                mesh: Mesh { tensor, data, pipeline },
                rank,
                join_timeout: seconds("JOIN_TIMEOUT"),
                transfer_timeout: seconds("TRANSFER_TIMEOUT"),
            },
            double,
        }
    }

    fn store(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(std::env::var("STORE").unwrap()).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    fn join(&self) -> Result<Rccl, TransportError> {
        Rccl::join(&self.options, &mut |name, id| {
            if let Some(id) = id {
                self.store(&format!("{name} {}", id.map(|byte| format!("{byte:02x}")).concat()));
                return Ok(id);
            }
            let text = self.store(name);
            let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
            Ok(std::array::from_fn(byte))
        })
    }

    /// Number of calls of a function of the double.
    fn calls(&self, function: &str) -> c_long {
        let name = CString::new(function).unwrap();
        // SAFETY: the double has this function with this type.
        unsafe {
            let double = libloading::Library::new(&self.double).unwrap();
            let calls = double
                .get::<unsafe extern "C" fn(*const c_char) -> c_long>(b"double_calls\0")
                .unwrap();
            calls(name.as_ptr())
        }
    }

    /// Wrong calls that the double has found so far.
    fn misuse(&self) -> String {
        // SAFETY: as above; the text is never freed.
        unsafe {
            let double = libloading::Library::new(&self.double).unwrap();
            let misuse = double
                .get::<unsafe extern "C" fn() -> *const c_char>(b"double_misuse\0")
                .unwrap();
            CStr::from_ptr(misuse()).to_str().unwrap().to_owned()
        }
    }

    pub fn run(&self, scenario: &str) {
        match scenario {
            "everything" => self.everything(),
            "directions" => self.directions(),
            "send" => self.send(),
            "queue" => self.queue(),
            "sizes" => self.sizes(),
            "join" => {
                println!("{}", self.join().unwrap_err());
                let called = ["ncclGetUniqueId", "ncclCommInitRankConfig", "ncclCommAbort"];
                println!("{:?}", called.map(|function| self.calls(function)));
            }
            "drop" => self.drop_a_transfer(),
            "refused" => self.refused(),
            other => panic!("{other}"),
        }
    }

    /// Checks, after the transport was dropped, that everything was freed and nothing was called wrongly.
    fn check_end(&self, communicators: c_long) {
        assert_eq!(self.misuse(), "");
        assert_eq!(
            (self.calls("ncclCommDestroy"), self.calls("ncclCommAbort")),
            (communicators, 0)
        );
        assert_eq!(self.calls("ncclGroupStart"), self.calls("ncclGroupEnd"));
        assert_eq!(self.calls("hipStreamCreateWithFlags"), self.calls("hipStreamDestroy"));
        assert_eq!(self.calls("hipEventCreateWithFlags"), self.calls("hipEventDestroy"));
    }

    /// This rank's peers on an axis, derived from coordinates only.
    fn peers(&self, axis: Axis) -> Vec<usize> {
        let (mesh, own) = (self.options.mesh, self.options.rank);
        let at = mesh.coordinates(own);
        let is_peer = |other: usize| {
            let there = mesh.coordinates(other);
            let same = (
                there.tensor == at.tensor,
                there.data == at.data,
                there.pipeline == at.pipeline,
            );
            match axis {
                Axis::Tensor => same.1 && same.2,
                Axis::Data => same.0 && same.2,
                Axis::Forward | Axis::Backward => same.0 && same.1,
                Axis::World => true,
            }
        };
        (0..mesh.world())
            .filter(|&other| other != own && is_peer(other))
            .collect()
    }

    fn everything(&self) {
        let transport = self.join().unwrap();
        assert_eq!(
            (transport.rank(), transport.size()),
            (self.options.rank, self.options.mesh.world())
        );
        let own = transport.rank();
        let mut communicators = 0;
        for axis in AXES {
            let peers = self.peers(axis);
            communicators += c_long::from(!peers.is_empty());
            // Several types and sizes, above and below the double's chunk size, all in progress at once.
            let all: Vec<(Kind, i64)> = vec![
                (Kind::Float, 1),
                (Kind::BFloat16, 999),
                (Kind::Float, 0),
                (Kind::Int64, 40_000),
            ];
            let mut transfers = Vec::new();
            for &(kind, length) in &all {
                let made = |from: usize, to: usize| pattern(kind, length, from, to, axis);
                let sent: Vec<Tensor> = peers.iter().map(|&peer| made(own, peer)).collect();
                let received: Vec<Tensor> = peers
                    .iter()
                    .map(|_| Tensor::zeros([length], (kind, Device::Cpu)))
                    .collect();
                let pairs = |tensors: &[Tensor]| -> Vec<(usize, Tensor)> {
                    peers
                        .iter()
                        .copied()
                        .zip(tensors.iter().map(Tensor::shallow_clone))
                        .collect()
                };
                let (sends, receives) = (pairs(&sent), pairs(&received));
                let sends: Vec<(usize, &Tensor)> = sends.iter().map(|(peer, tensor)| (*peer, tensor)).collect();
                let receives: Vec<(usize, &Tensor)> = receives.iter().map(|(peer, tensor)| (*peer, tensor)).collect();
                let transfer = transport.start(axis, &sends, &receives).unwrap();
                let expected: Vec<Tensor> = peers.iter().map(|&peer| made(peer, own)).collect();
                transfers.push((transfer, received, expected));
            }
            for (transfer, received, expected) in transfers {
                transfer.wait().unwrap();
                assert_eq!(received, expected);
            }
        }
        let config = self.calls("ncclCommInitRankConfig");
        assert_eq!(
            config,
            if self.double.ends_with("old.so") {
                0
            } else {
                communicators
            }
        );
        drop(transport);
        self.check_end(communicators);
        println!("{communicators} communicators");
    }

    /// The first pipeline rank sends forward and then receives backward; the second one sends backward and then
    /// receives forward.
    fn directions(&self) {
        let transport = self.join().unwrap();
        let (own, other) = (transport.rank(), 1 - transport.rank());
        let (sent, received) = (
            Tensor::full([100_000], own as i64, (Kind::Int64, Device::Cpu)),
            Tensor::zeros([100_000], (Kind::Int64, Device::Cpu)),
        );
        let (to, from) = if own == 0 {
            (Axis::Forward, Axis::Backward)
        } else {
            (Axis::Backward, Axis::Forward)
        };
        let send = transport.start(to, &[(other, &sent)], &[]).unwrap();
        let receive = transport.start(from, &[], &[(other, &received)]).unwrap();
        send.wait().unwrap();
        receive.wait().unwrap();
        assert_eq!(
            received,
            Tensor::full([100_000], other as i64, (Kind::Int64, Device::Cpu))
        );
        // Their streams wait for the work that libtorch's stream contained at the start.
        assert_eq!(
            (self.calls("hipStreamCreateWithFlags"), self.calls("hipStreamWaitEvent")),
            (2, 2)
        );
        drop(transport);
        self.check_end(3);
    }

    /// Two transfers on one stream; the second one's communicator is aborted first.
    fn queue(&self) {
        let transport = self.join().unwrap();
        if transport.rank() == 1 {
            self.store("done");
            return;
        }
        let tensor = Tensor::ones([8], (Kind::Uint8, Device::Cpu));
        let first = transport.start(Axis::World, &[(1, &tensor)], &[]).unwrap();
        let second = transport.start(Axis::Tensor, &[(1, &tensor)], &[]).unwrap();
        println!("{}", first.wait().unwrap_err());
        println!("{}", second.wait().unwrap_err());
        println!("{} aborted", self.calls("ncclCommAbort"));
        print!("{}", self.misuse());
        self.store("done 1");
    }

    /// Rank 0 sends to rank 1 three times. `PEER` defines what rank 1 does: it receives, stays silent, or ends.
    fn send(&self) {
        let mut transport = Some(self.join().unwrap());
        let peer = std::env::var("PEER").unwrap();
        let tensor = Tensor::ones([1000], (Kind::Float, Device::Cpu));
        if self.options.rank > 0 {
            if peer == "ends" {
                transport = None;
            }
            while let Some(open) = transport.take_if(|_| peer == "receives") {
                match open.exchange(Axis::Tensor, &[], &[(0, &tensor)]) {
                    Ok(()) => transport = Some(open),
                    Err(error) => println!("{error}"),
                }
            }
            self.store("done");
            return;
        }
        if let Some(transport) = &transport {
            for _ in 0..3 {
                match transport.exchange(Axis::Tensor, &[(1, &tensor)], &[]) {
                    Ok(()) => println!("sent"),
                    Err(error) => println!("{error}"),
                }
            }
        }
        // Both communicators, of the tensor axis and the world, before the transport is dropped.
        println!("{} aborted", self.calls("ncclCommAbort"));
        drop(transport);
        println!("{} destroyed", self.calls("ncclCommDestroy"));
        print!("{}", self.misuse());
        self.store("done 1");
    }

    fn sizes(&self) {
        let transport = self.join().unwrap();
        let tensor = Tensor::ones([8 + transport.rank() as i64], (Kind::Uint8, Device::Cpu));
        let other = [(1 - transport.rank(), &tensor)];
        let exchanged = if transport.rank() == 0 {
            transport.exchange(Axis::World, &other, &[])
        } else {
            transport.exchange(Axis::World, &[], &other)
        };
        println!("{}", exchanged.unwrap_err());
        print!("{}", self.misuse());
    }

    fn drop_a_transfer(&self) {
        let transport = self.join().unwrap();
        let tensor = Tensor::ones([8], (Kind::Uint8, Device::Cpu));
        let other = [(1 - transport.rank(), &tensor)];
        if transport.rank() == 0 {
            drop(transport.start(Axis::World, &other, &[]).unwrap());
            println!("{}", transport.exchange(Axis::World, &other, &[]).unwrap_err());
            println!("{} aborted", self.calls("ncclCommAbort"));
            self.store("done 1");
        } else {
            self.store("done");
        }
    }

    fn refused(&self) {
        let transport = self.join().unwrap();
        let (own, other) = (transport.rank(), 1 - transport.rank());
        let options = (Kind::Float, Device::Cpu);
        let all = Tensor::ones([4, 6], options);
        let refuse = |axis: Axis, peer: usize, tensor: &Tensor| {
            println!("{}", transport.start(axis, &[(peer, tensor)], &[]).unwrap_err());
        };
        refuse(Axis::Tensor, other, &all.transpose(0, 1));
        refuse(Axis::Tensor, own, &all);
        refuse(Axis::Tensor, 7, &all);
        refuse(Axis::Forward, other, &all);
        // Everything was refused before any call.
        assert_eq!(self.calls("ncclGroupStart"), 0);
        let received = Tensor::zeros([4, 6], options);
        transport
            .exchange(Axis::Tensor, &[(other, &all)], &[(other, &received)])
            .unwrap();
        assert_eq!(received, all);
        drop(transport);
        self.check_end(2);
    }
}

/// Different values for every pair, direction, axis and type.
fn pattern(kind: Kind, length: i64, from: usize, to: usize, axis: Axis) -> Tensor {
    let start = (from * 7 + to * 31 + axis as usize * 101) as i64;
    Tensor::arange_start(start, start + length, (Kind::Int64, Device::Cpu))
        .remainder(251)
        .to_kind(kind)
}

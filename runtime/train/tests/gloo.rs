//! Gloo between processes. This program is its own rank: started with `rank CASE RANK SIZE PORT` it runs one rank of a
//! case; rank 0 prints the port on which it serves the store. A rank prints the result of each operation.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use aurora_train::parallel::transport::{Axis, Gloo, RendezvousStore, Transport, TransportError};
use libtest_mimic::Trial;
use tch::{Device, Kind, Tensor};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// For peers that answer.
const PATIENT: Duration = Duration::from_secs(60);
/// For peers that do not.
const SHORT: Duration = Duration::from_secs(3);
/// The longest message that is sent in one part, in bytes.
const MAX_MESSAGE: i64 = 1 << 24;

type Case = fn(rank: usize, size: usize, store: &RendezvousStore);

const CASES: [(&str, Case); 12] = [
    ("exchange", exchange),
    ("long", long),
    ("crossing", crossing),
    ("threads", threads),
    ("refused", refused),
    ("mismatch", mismatch),
    ("killed", |rank, size, store| rounds(rank, size, store, PATIENT)),
    ("stopped", |rank, size, store| rounds(rank, size, store, SHORT)),
    ("partially sent", |rank, size, store| partial(rank, size, store, 1)),
    ("partially received", |rank, size, store| partial(rank, size, store, 0)),
    ("dropped", dropped),
    ("missing", missing),
];

fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 11] = [
        ("all_types_and_sizes_arrive", all_types_and_sizes_arrive),
        ("long_messages_arrive", || succeed("long", 2)),
        ("order_matters_only_within_a_size", || succeed("crossing", 2)),
        ("every_thread_has_its_group", || succeed("threads", 2)),
        ("invalid_transfers_are_refused", || succeed("refused", 2)),
        ("unequal_sizes_are_silence", unequal_sizes_are_silence),
        ("a_killed_peer_is_named", || {
            lose_the_last("killed", libc::SIGKILL, "lost 2")
        }),
        ("a_stopped_peer_is_named", || {
            lose_the_last("stopped", libc::SIGSTOP, "rank 2 did not answer for 3 s")
        }),
        (
            "a_peer_killed_during_a_message_is_named",
            a_peer_killed_during_a_message_is_named,
        ),
        (
            "a_dropped_transfer_closes_the_group",
            a_dropped_transfer_closes_the_group,
        ),
        ("a_missing_peer_is_named", a_missing_peer_is_named),
    ];
    let trial = |(name, test): (&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    tests.map(trial).into()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, case, rank, size, port] = arguments.as_slice()
        && first == "rank"
    {
        let limit = if case == "missing" { SHORT } else { PATIENT };
        let case = CASES.iter().find(|(name, _)| name == case).unwrap().1;
        let (rank, size) = (rank.parse().unwrap(), size.parse().unwrap());
        // As in the worker's threads.
        tch::set_num_threads(1);
        let store = if rank == 0 {
            let (store, port) = RendezvousStore::serve(HOST, limit).unwrap();
            print_line(port);
            store
        } else {
            RendezvousStore::connect("127.0.0.1", port.parse().unwrap(), limit).unwrap()
        };
        case(rank, size, &store);
        print_line("end");
        // Rank 0 serves the store, so every rank waits until its input is closed.
        stdin().lines().for_each(drop);
        return ExitCode::SUCCESS;
    }
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials()).exit_code()
}

/// A rank in its own process.
struct Rank {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Rank {
    fn start(case: &str, rank: usize, size: usize, port: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["rank", case, &rank.to_string(), &size.to_string(), port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next_line(&mut self) -> String {
        self.lines.next().expect("the rank has ended").unwrap()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Ends a rank whose case has completed.
    fn end(mut self) {
        assert_eq!(self.next_line(), "end");
        drop(self.child.stdin.take());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ranks(case: &str, size: usize) -> Vec<Rank> {
    let mut first = Rank::start(case, 0, size, "0");
    let port = first.next_line();
    let others = (1..size).map(|rank| Rank::start(case, rank, size, &port));
    [first].into_iter().chain(others).collect()
}

fn pair(case: &str) -> [Rank; 2] {
    let Ok(pair) = ranks(case, 2).try_into() else {
        unreachable!("two ranks were started")
    };
    pair
}

/// A case in which every rank checks its own results.
fn succeed(case: &str, size: usize) {
    ranks(case, size).into_iter().for_each(Rank::end);
}

fn print_line(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn print_error(result: Result<(), TransportError>) {
    match result {
        Err(TransportError::Lost { rank, .. }) => print_line(format!("lost {rank}")),
        Err(error) => print_line(error),
        Ok(()) => print_line("no error"),
    }
}

fn join(rank: usize, size: usize, store: &RendezvousStore, limit: Duration) -> Gloo {
    Gloo::join(rank, size, store, "test", HOST, limit).unwrap()
}

/// Elements whose bytes depend on `seed`.
fn tensor(kind: Kind, count: i64, seed: usize) -> Tensor {
    let bytes = count * kind.elt_size_in_bytes() as i64;
    let bytes: Vec<u8> = (0..bytes as usize)
        .map(|i| (i * 31 + seed * 89 + i / 251) as u8)
        .collect();
    Tensor::from_slice(&bytes).view_dtype(kind)
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::try_from(tensor.flatten(0, -1).view_dtype(Kind::Uint8)).unwrap()
}

/// Between every two ranks, both directions at once.
fn exchange(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, PATIENT);
    assert_eq!((gloo.rank(), gloo.size()), (rank, size));
    let seed = |from: usize, to: usize| from * size + to;
    let peers: Vec<usize> = (0..size).filter(|peer| *peer != rank).collect();
    for count in [0, 1, 3, 1023, 262_144] {
        for kind in [Kind::Uint8, Kind::BFloat16, Kind::Float, Kind::Int64] {
            let sends: Vec<Tensor> = peers.iter().map(|to| tensor(kind, count, seed(rank, *to))).collect();
            let receives: Vec<Tensor> = peers
                .iter()
                .map(|_| Tensor::zeros([count], (kind, Device::Cpu)))
                .collect();
            let with_peers = |tensors| peers.iter().copied().zip(tensors).collect::<Vec<(usize, &Tensor)>>();
            gloo.exchange(Axis::Data, &with_peers(&sends), &with_peers(&receives))
                .unwrap();
            for (from, received) in with_peers(&receives) {
                assert!(
                    bytes(received) == bytes(&tensor(kind, count, seed(from, rank))),
                    "{count} × {kind:?}"
                );
            }
        }
    }
    // A tensor without dimensions; an empty transfer; a contiguous part of a larger tensor.
    let scalar = Tensor::from(rank as f32);
    let received = Tensor::from(-1f32);
    let (next, previous) = ((rank + 1) % size, (rank + size - 1) % size);
    gloo.exchange(Axis::Forward, &[(next, &scalar)], &[(previous, &received)])
        .unwrap();
    assert_eq!(f64::try_from(received).unwrap(), previous as f64);
    gloo.exchange(Axis::Forward, &[], &[]).unwrap();
    let table = Tensor::zeros([4, 5], (Kind::Int64, Device::Cpu));
    gloo.exchange(
        Axis::Tensor,
        &[(next, &Tensor::from_slice(&[rank as i64; 5]))],
        &[(previous, &table.get(2))],
    )
    .unwrap();
    let expected = [vec![0; 10], vec![previous as i64; 5], vec![0; 5]].concat();
    assert_eq!(Vec::<i64>::try_from(table.flatten(0, -1)).unwrap(), expected);
}

fn all_types_and_sizes_arrive() {
    for size in [2, 3, 4] {
        succeed("exchange", size);
    }
}

/// Longer than the maximum by an odd number of bytes.
fn long(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, PATIENT);
    let received = Tensor::zeros([MAX_MESSAGE + 3], (Kind::Uint8, Device::Cpu));
    let mut sent = received.full_like(rank as i64 + 1);
    let _ = sent.narrow(0, MAX_MESSAGE, 3).fill_(9);
    gloo.exchange(Axis::Data, &[(1 - rank, &sent)], &[(1 - rank, &received)])
        .unwrap();
    let expected = sent.fill_(2 - rank as i64);
    let _ = expected.narrow(0, MAX_MESSAGE, 3).fill_(9);
    assert!(received.equal(&expected));
}

/// Started in one order and received in another, by axis and by size; messages of one axis and size keep their order.
fn crossing(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, PATIENT);
    let peer = 1 - rank;
    let of = |seed: usize, count: i64| tensor(Kind::Float, count, seed);
    if rank == 0 {
        let small = gloo.start(Axis::Forward, &[(peer, &of(1, 5))], &[]).unwrap();
        let large = gloo.start(Axis::Forward, &[(peer, &of(2, 5000))], &[]).unwrap();
        let other = gloo.start(Axis::Data, &[(peer, &of(3, 5))], &[]).unwrap();
        let second = gloo.start(Axis::Forward, &[(peer, &of(4, 5))], &[]).unwrap();
        for transfer in [small, large, other, second] {
            transfer.wait().unwrap();
        }
    } else {
        let into = [5, 5000, 5, 5].map(|count| Tensor::zeros([count], (Kind::Float, Device::Cpu)));
        let other = gloo.start(Axis::Data, &[], &[(peer, &into[2])]).unwrap();
        let large = gloo.start(Axis::Forward, &[], &[(peer, &into[1])]).unwrap();
        let small = gloo.start(Axis::Forward, &[], &[(peer, &into[0])]).unwrap();
        let second = gloo.start(Axis::Forward, &[], &[(peer, &into[3])]).unwrap();
        for transfer in [second, other, large, small] {
            transfer.wait().unwrap();
        }
        for (seed, received) in (1..).zip(&into) {
            assert!(
                bytes(received) == bytes(&of(seed, received.size()[0])),
                "message {seed}"
            );
        }
    }
}

/// Several groups, created in no particular order.
fn threads(rank: usize, size: usize, store: &RendezvousStore) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let gloo = Gloo::join(rank, size, store, &format!("thread {thread}"), HOST, PATIENT).unwrap();
                for round in 0..50 {
                    let received = Tensor::zeros([1000], (Kind::Float, Device::Cpu));
                    let of = |rank: usize| tensor(Kind::Float, 1000, (round * 4 + thread) * 2 + rank);
                    gloo.exchange(Axis::Tensor, &[(1 - rank, &of(rank))], &[(1 - rank, &received)])
                        .unwrap();
                    assert!(bytes(&received) == bytes(&of(1 - rank)));
                }
            });
        }
    });
}

fn refused(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, PATIENT);
    let all = tensor(Kind::Float, 12, 1).view([3, 4]);
    let columns = all.narrow(1, 0, 2);
    let error = gloo.exchange(Axis::Data, &[(1 - rank, &columns)], &[]).unwrap_err();
    assert!(
        matches!(&error, TransportError::Strided(shape) if *shape == [3, 2]),
        "{error}"
    );
    assert!(matches!(
        gloo.exchange(Axis::Data, &[], &[(1 - rank, &columns)]),
        Err(TransportError::Strided(_))
    ));
    for peer in [rank, size] {
        let error = gloo.exchange(Axis::Data, &[(peer, &all)], &[]).unwrap_err();
        let text = format!("transfer failed: rank {rank} of 2 cannot exchange tensors with rank {peer}");
        assert_eq!(error.to_string(), text);
    }
    // Nothing was moved, so everything still works.
    let received = all.zeros_like();
    gloo.exchange(Axis::Data, &[(1 - rank, &all)], &[(1 - rank, &received)])
        .unwrap();
    assert!(bytes(&received) == bytes(&all));
}

/// Rank 0 sends more than rank 1 receives, and times out first.
fn mismatch(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, [SHORT, PATIENT][rank]);
    let zeros = Tensor::zeros([[1000, 999][rank]], (Kind::Float, Device::Cpu));
    if rank == 0 {
        print_error(gloo.exchange(Axis::Data, &[(1, &zeros)], &[]));
    } else {
        print_error(gloo.exchange(Axis::Data, &[], &[(0, &zeros)]));
    }
    print_error(gloo.exchange(Axis::Data, &[(1 - rank, &zeros)], &[]));
}

fn unequal_sizes_are_silence() {
    let [mut first, mut second] = pair("mismatch");
    let silent = "rank 1 did not answer for 3 s";
    assert_eq!(first.next_line(), silent);
    assert_eq!(
        first.next_line(),
        format!("transfer failed: an earlier transfer failed: {silent}")
    );
    assert_eq!(second.next_line(), "lost 0");
    assert!(
        second
            .next_line()
            .starts_with("transfer failed: an earlier transfer failed: lost rank 0 (")
    );
    first.end();
    second.end();
}

/// The last rank exchanges with all others repeatedly. Its time limit is long, so that it never gives up first.
fn rounds(rank: usize, size: usize, store: &RendezvousStore, limit: Duration) {
    let last = size - 1;
    let gloo = join(rank, size, store, if rank == last { PATIENT } else { limit });
    let sent = tensor(Kind::Float, 1000, rank);
    let received: Vec<Tensor> = (0..size).map(|_| sent.zeros_like()).collect();
    let peers = if rank == last { 0..last } else { last..size };
    let sends: Vec<(usize, &Tensor)> = peers.clone().map(|peer| (peer, &sent)).collect();
    let receives: Vec<(usize, &Tensor)> = peers.map(|peer| (peer, &received[peer])).collect();
    let round = || gloo.exchange(Axis::World, &sends, &receives);
    round().unwrap();
    print_line("running");
    print_error(std::iter::repeat_with(round).find(Result::is_err).unwrap());
    print_error(round());
}

fn lose_the_last(case: &str, signal: i32, expected: &str) {
    let mut all = ranks(case, 3);
    for rank in &mut all {
        assert_eq!(rank.next_line(), "running");
    }
    all[2].signal(signal);
    for mut rank in all.drain(..2) {
        assert_eq!(rank.next_line(), expected);
        assert!(
            rank.next_line()
                .starts_with("transfer failed: an earlier transfer failed: ")
        );
        rank.end();
    }
}

/// Rank 1 ends during a message that it sends or receives. Its part ends at a multiple of the maximum length, so that
/// the message is never complete, however late the process ends.
fn partial(rank: usize, size: usize, store: &RendezvousStore, sender: usize) {
    let messages = [8, 4][rank];
    let message = Tensor::full(
        [messages * MAX_MESSAGE],
        (rank == sender) as i64,
        (Kind::Uint8, Device::Cpu),
    );
    let ready = Tensor::zeros([1], (Kind::Uint8, Device::Cpu));
    // Gloo does not report a part that was in progress: its time limit must pass, and the process must have ended by
    // then.
    let gloo = join(rank, size, store, SHORT);
    let receiver = 1 - sender;
    let transfer = if rank == receiver {
        let transfer = gloo.start(Axis::Data, &[], &[(sender, &message)]).unwrap();
        gloo.exchange(Axis::World, &[(sender, &ready)], &[]).unwrap();
        transfer
    } else {
        gloo.exchange(Axis::World, &[], &[(receiver, &ready)]).unwrap();
        gloo.start(Axis::Data, &[(receiver, &message)], &[]).unwrap()
    };
    if rank == 1 {
        // The first received byte is followed by many more; those that are sent are not complete yet.
        while message.int64_value(&[0]) == 0 {
            std::thread::yield_now();
        }
        // SAFETY: ends this process.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    print_error(transfer.wait());
}

fn a_peer_killed_during_a_message_is_named() {
    // Both at once, since they wait for time limits.
    for [mut first, _second] in ["partially sent", "partially received"].map(pair) {
        assert_eq!(first.next_line(), "lost 1");
        first.end();
    }
}

fn dropped(rank: usize, size: usize, store: &RendezvousStore) {
    let gloo = join(rank, size, store, PATIENT);
    let zeros = Tensor::zeros([10], (Kind::Float, Device::Cpu));
    let transfer = gloo.start(Axis::Data, &[], &[(1 - rank, &zeros)]).unwrap();
    if rank == 0 {
        drop(transfer);
        print_error(gloo.exchange(Axis::Data, &[], &[]));
    } else {
        print_error(transfer.wait());
    }
}

fn a_dropped_transfer_closes_the_group() {
    let [mut first, mut second] = pair("dropped");
    assert_eq!(
        first.next_line(),
        "transfer failed: an earlier transfer failed: the transfer was dropped before it completed"
    );
    assert_eq!(second.next_line(), "lost 0");
    first.end();
    second.end();
}

/// Rank 2 is never started.
fn missing(rank: usize, size: usize, store: &RendezvousStore) {
    print_error(Gloo::join(rank, size, store, "test", HOST, PATIENT).map(drop));
}

fn a_missing_peer_is_named() {
    let mut first = Rank::start("missing", 0, 3, "0");
    let second = Rank::start("missing", 1, 3, &first.next_line());
    let mut both = [first, second];
    for rank in &mut both {
        let text = rank.next_line();
        // On a slow machine the other rank can be late too.
        assert!(text.starts_with("cannot join the other workers: rank"), "{text}");
        assert!(text.contains(" 2 did not join within 3 s"), "{text}");
    }
    both.into_iter().for_each(Rank::end);
    let closed = std::net::TcpListener::bind((HOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = RendezvousStore::connect("127.0.0.1", closed, Duration::from_millis(200)).unwrap_err();
    let text = format!("cannot join the other workers: 127.0.0.1:{closed} does not answer: ");
    assert!(error.to_string().starts_with(&text), "{error}");
}

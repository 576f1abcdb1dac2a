//! `Rccl` against a test double of RCCL and HIP (`rccl-sys/tests/double`): separate processes, host memory. This
//! program is its own rank if its first argument is `rank`.

#![allow(clippy::unwrap_used)]

use std::process::ExitCode;
use std::sync::Arc;

use aurora_train::parallel::Mesh;
use libtest_mimic::Trial;

use self::missing_tools::missing_tool;
use self::rank::Rank;
use self::world::World;

#[path = "../../../../tests/missing_tools.rs"]
mod missing_tools;
mod rank;
mod world;

/// A name and a function.
type TestCase = (&'static str, fn(&World));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "rank") {
        Rank::from_environment().run(&arguments[2]);
        return ExitCode::SUCCESS;
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Each test starts up to four processes and measures timeouts.
    arguments.test_threads.get_or_insert(1);
    let tests: [TestCase; 11] = [
        ("bytes_are_right", bytes_are_right),
        ("the_two_directions_are_independent", the_two_directions_are_independent),
        ("a_silent_peer_is_named", a_silent_peer_is_named),
        ("queued_transfers_end_too", queued_transfers_end_too),
        ("a_lost_peer_is_named", a_lost_peer_is_named),
        ("errors_abort_everything", errors_abort_everything),
        ("unequal_sizes_are_an_error", unequal_sizes_are_an_error),
        (
            "a_rank_that_does_not_join_is_an_error",
            a_rank_that_does_not_join_is_an_error,
        ),
        ("without_a_device_nothing_is_called", without_a_device_nothing_is_called),
        (
            "a_dropped_transfer_closes_the_transport",
            a_dropped_transfer_closes_the_transport,
        ),
        ("invalid_transfers_have_no_effect", invalid_transfers_have_no_effect),
    ];
    let world = World::new().map(Arc::new);
    if world.is_none() {
        missing_tool("cc", "the RCCL transport, with a test double written in C");
    }
    let trial = |(name, test): TestCase| match world.clone() {
        Some(world) => Trial::test(name, move || {
            test(&world);
            Ok(())
        }),
        None => Trial::test(name, || Ok(())).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, tests.map(trial).into()).exit_code()
}

fn mesh(tensor: usize, data: usize, pipeline: usize) -> Mesh {
    Mesh { tensor, data, pipeline }
}

fn same(_: usize) -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

fn bytes_are_right(world: &World) {
    let all = [
        (mesh(2, 1, 1), "2 communicators"),
        (mesh(1, 1, 2), "3 communicators"),
        (mesh(2, 1, 2), "4 communicators"),
        (mesh(1, 2, 2), "4 communicators"),
        (mesh(1, 4, 1), "2 communicators"),
    ];
    for (mesh, communicators) in all {
        for rank in world.run("everything", mesh, same) {
            assert_eq!(rank, [communicators]);
        }
    }
    // A library without non-blocking calls.
    let old: &'static str = world.folder.path().join("old.so").to_str().unwrap().to_owned().leak();
    world.run("everything", mesh(2, 1, 2), |_| vec![("DOUBLE", old)]);
}

fn the_two_directions_are_independent(world: &World) {
    world.run("directions", mesh(1, 1, 2), |_| vec![("TRANSFER_TIMEOUT", "10")]);
}

const CLOSED: &str = "transfer failed: closed after an earlier error: ";

fn a_silent_peer_is_named(world: &World) {
    let settings = |rank| {
        let limit = if rank == 0 { "1" } else { "60" };
        vec![("PEER", "stays silent"), ("TRANSFER_TIMEOUT", limit)]
    };
    let printed = world.run("send", mesh(2, 1, 1), settings);
    let silent = &printed[0][0];
    assert!(silent.starts_with("rank 1 did not answer for "), "{silent}");
    let closed = format!("{CLOSED}{silent}");
    assert_eq!(
        printed[0][1..],
        [
            &closed,
            &closed,
            "2 aborted",
            "0 destroyed",
            "unfinished: rank 0, send of 4000 bytes with rank 1"
        ]
    );
}

fn queued_transfers_end_too(world: &World) {
    let printed = world.run("queue", mesh(2, 1, 1), |rank| {
        vec![("TRANSFER_TIMEOUT", if rank == 0 { "1" } else { "60" })]
    });
    let silent = &printed[0][0];
    assert!(silent.starts_with("rank 1 did not answer for "), "{silent}");
    let unfinished = "unfinished: rank 0, send of 8 bytes with rank 1";
    assert_eq!(
        printed[0][1..],
        [&format!("{CLOSED}{silent}"), "2 aborted", unfinished, unfinished]
    );
}

fn a_lost_peer_is_named(world: &World) {
    let printed = world.run("send", mesh(2, 1, 1), |_| vec![("PEER", "ends")]);
    let lost = "lost rank 1 (`ncclCommGetAsyncError` failed: remote process exited or there was a network error \
                (lost rank 1))";
    assert_eq!(printed[0][0], lost);
    assert_eq!(printed[0][1], format!("{CLOSED}{lost}"));
    assert_eq!(printed[0][3..5], ["2 aborted", "0 destroyed"]);
}

/// Every error is named and aborts everything, and the peer notices.
fn errors_abort_everything(world: &World) {
    let cases = [
        (
            "ncclGroupEnd:2:2",
            "with rank 1: `ncclGroupEnd` failed: unhandled system error (an injected error)",
        ),
        (
            "ncclSend:2:5",
            "with rank 1: `ncclSend` failed: invalid usage (an injected error)",
        ),
        (
            "async:2:1",
            "with rank 1: `ncclCommGetAsyncError` failed: unhandled cuda error (an injected error)",
        ),
        (
            "hipEventRecord:2:1",
            "with rank 1: `hipEventRecord` failed: invalid argument",
        ),
    ];
    for (fault, cause) in cases {
        let settings = |rank| match rank {
            0 => vec![("PEER", "receives"), ("DOUBLE_FAULTS", fault)],
            _ => vec![("PEER", "receives")],
        };
        let printed = world.run("send", mesh(2, 1, 1), settings);
        let (failed, closed) = (format!("transfer failed: {cause}"), format!("{CLOSED}{cause}"));
        assert_eq!(printed[0][..4], ["sent", &failed, &closed, "2 aborted"]);
        assert!(printed[1][0].starts_with("lost rank 0 ("), "{printed:?}");
    }
}

fn unequal_sizes_are_an_error(world: &World) {
    let printed = world.run("sizes", mesh(2, 1, 1), same);
    assert!(printed[0][0].starts_with("lost rank 1"), "{printed:?}");
    assert!(printed[1][0].contains("invalid usage (sizes differ)"), "{printed:?}");
    assert_eq!(
        printed[1][1],
        "rank 1 gets 8 bytes (kind 1) from rank 0 and expects 9 (kind 1)"
    );
}

fn a_rank_that_does_not_join_is_an_error(world: &World) {
    // The second rank has no device, so it never joins.
    let settings = |rank| {
        vec![
            ("DOUBLE_DEVICES", if rank == 0 { "1" } else { "0" }),
            ("JOIN_TIMEOUT", "1"),
        ]
    };
    let printed = world.run("join", mesh(1, 2, 1), settings);
    let late = &printed[0][0];
    assert!(
        late.starts_with("cannot join the other workers: Data axis, ranks 0, 1: not all ranks joined within "),
        "{late}"
    );
}

fn without_a_device_nothing_is_called(world: &World) {
    let printed = world.run("join", mesh(2, 1, 1), |_| vec![("DOUBLE_DEVICES", "0")]);
    let none = "cannot join the other workers: no device is available: no ROCm-capable device is detected";
    assert_eq!(printed[0], [none, "[0, 0, 0]"]);
}

fn a_dropped_transfer_closes_the_transport(world: &World) {
    let printed = world.run("drop", mesh(2, 1, 1), |_| vec![("TRANSFER_TIMEOUT", "10")]);
    assert_eq!(
        printed[0],
        [
            &format!("{CLOSED}a transfer was dropped before it completed"),
            "2 aborted"
        ]
    );
}

fn invalid_transfers_have_no_effect(world: &World) {
    let printed = world.run("refused", mesh(2, 1, 1), same);
    assert_eq!(
        printed[0],
        [
            "cannot send a tensor of shape [6, 4], which is not contiguous",
            "transfer failed: rank 0 is not a peer of rank 0 on the Tensor axis",
            "transfer failed: rank 7 is not a peer of rank 0 on the Tensor axis",
            "transfer failed: rank 1 is not a peer of rank 0 on the Forward axis",
        ]
    );
}

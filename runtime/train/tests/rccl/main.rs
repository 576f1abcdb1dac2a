//! `Rccl` against a test double of RCCL and HIP (`rccl-sys/tests/double`): real processes, host memory. This program is
//! its own ranks: started with the argument `rank` it becomes one.

#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use aurora_train::parallel::Mesh;

use self::rank::Rank;
use self::world::World;

mod rank;
mod world;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "rank") {
        Rank::from_environment().run(&arguments[2]);
        return ExitCode::SUCCESS;
    }
    let filter: Vec<&String> = arguments[1..]
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let tests: [(&str, Test); 11] = [
        ("bytes_and_sums_are_right", bytes_and_sums_are_right),
        (
            "the_two_directions_do_not_wait_for_each_other",
            the_two_directions_do_not_wait_for_each_other,
        ),
        ("a_silent_peer_is_named", a_silent_peer_is_named),
        ("what_is_queued_ends_too", what_is_queued_ends_too),
        ("a_peer_that_has_gone_is_named", a_peer_that_has_gone_is_named),
        ("errors_abort_everything", errors_abort_everything),
        ("sizes_that_differ_are_an_error", sizes_that_differ_are_an_error),
        (
            "a_rank_that_does_not_come_is_an_error",
            a_rank_that_does_not_come_is_an_error,
        ),
        ("without_a_device_nothing_is_called", without_a_device_nothing_is_called),
        (
            "a_dropped_transfer_closes_the_transport",
            a_dropped_transfer_closes_the_transport,
        ),
        ("what_cannot_be_sent_breaks_nothing", what_cannot_be_sent_breaks_nothing),
    ];
    let Some(world) = World::new() else {
        println!("skipped: there is no C compiler (`cc`) to build the test double with");
        return ExitCode::SUCCESS;
    };
    for (name, test) in tests {
        if filter.is_empty() || filter.iter().any(|filter| name.contains(filter.as_str())) {
            test(&world);
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

type Test = fn(&World);

fn mesh(tensor: usize, data: usize, pipeline: usize) -> Mesh {
    Mesh { tensor, data, pipeline }
}

fn same(_: usize) -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

fn bytes_and_sums_are_right(world: &World) {
    let all = [
        (mesh(2, 1, 1), "2 lanes"),
        (mesh(1, 1, 2), "3 lanes"),
        (mesh(2, 1, 2), "4 lanes"),
        (mesh(1, 2, 2), "4 lanes"),
        (mesh(1, 4, 1), "2 lanes"),
    ];
    for (mesh, lanes) in all {
        for rank in world.run("everything", mesh, same) {
            assert_eq!(rank, [lanes]);
        }
    }
    // A library without calls that come back at once.
    let old: &'static str = world.folder.path().join("old.so").to_str().unwrap().to_owned().leak();
    world.run("everything", mesh(2, 1, 2), |_| vec![("DOUBLE", old)]);
}

fn the_two_directions_do_not_wait_for_each_other(world: &World) {
    world.run("directions", mesh(1, 1, 2), |_| vec![("LIMIT", "10")]);
}

const CLOSED: &str = "transfer failed: closed after an earlier error: ";

fn a_silent_peer_is_named(world: &World) {
    let settings = |rank| {
        let limit = if rank == 0 { "1" } else { "60" };
        vec![("PEER", "stays silent"), ("LIMIT", limit)]
    };
    let said = world.run("send", mesh(2, 1, 1), settings);
    let silent = &said[0][0];
    assert!(silent.starts_with("rank 1 has not answered for "), "{silent}");
    let closed = format!("{CLOSED}{silent}");
    assert_eq!(
        said[0][1..],
        [
            &closed,
            &closed,
            "2 aborted",
            "0 destroyed",
            "unfinished: rank 0, send of 4000 bytes with rank 1"
        ]
    );
}

fn what_is_queued_ends_too(world: &World) {
    let said = world.run("queue", mesh(2, 1, 1), |rank| {
        vec![("LIMIT", if rank == 0 { "1" } else { "60" })]
    });
    let silent = &said[0][0];
    assert!(silent.starts_with("rank 1 has not answered for "), "{silent}");
    let unfinished = "unfinished: rank 0, send of 8 bytes with rank 1";
    assert_eq!(
        said[0][1..],
        [&format!("{CLOSED}{silent}"), "2 aborted", unfinished, unfinished]
    );
}

fn a_peer_that_has_gone_is_named(world: &World) {
    let said = world.run("send", mesh(2, 1, 1), |_| vec![("PEER", "goes")]);
    let gone = "rank 1 has gone (`ncclCommGetAsyncError` failed: remote process exited or there was a network error \
                (rank 1 has gone))";
    assert_eq!(said[0][0], gone);
    assert_eq!(said[0][1], format!("{CLOSED}{gone}"));
    assert_eq!(said[0][3..5], ["2 aborted", "0 destroyed"]);
}

/// Wherever an error comes from, it is named, everything is aborted, and the peer hears of it.
fn errors_abort_everything(world: &World) {
    let cases = [
        (
            "ncclGroupEnd:2:2",
            "with rank 1: `ncclGroupEnd` failed: unhandled system error (the double was told to fail)",
        ),
        (
            "ncclSend:2:5",
            "with rank 1: `ncclSend` failed: invalid usage (the double was told to fail)",
        ),
        (
            "async:2:1",
            "with rank 1: `ncclCommGetAsyncError` failed: unhandled cuda error (the double was told to fail)",
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
        let said = world.run("send", mesh(2, 1, 1), settings);
        let (failed, closed) = (format!("transfer failed: {cause}"), format!("{CLOSED}{cause}"));
        assert_eq!(said[0][..4], ["sent", &failed, &closed, "2 aborted"]);
        assert!(said[1][0].starts_with("rank 0 has gone ("), "{said:?}");
    }
}

fn sizes_that_differ_are_an_error(world: &World) {
    let said = world.run("sizes", mesh(2, 1, 1), same);
    assert!(said[0][0].starts_with("rank 1 has gone"), "{said:?}");
    assert!(said[1][0].contains("invalid usage (sizes differ)"), "{said:?}");
    assert_eq!(
        said[1][1],
        "rank 1 gets 8 bytes (kind 1) from rank 0 and expects 9 (kind 1)"
    );
}

fn a_rank_that_does_not_come_is_an_error(world: &World) {
    // The second one has no device, and so never comes.
    let settings = |rank| {
        vec![
            ("DOUBLE_DEVICES", if rank == 0 { "1" } else { "0" }),
            ("JOIN_LIMIT", "1"),
        ]
    };
    let said = world.run("join", mesh(1, 2, 1), settings);
    let late = &said[0][0];
    assert!(
        late.starts_with("cannot join the other workers: Data axis, ranks 0, 1: not all have come within "),
        "{late}"
    );
}

fn without_a_device_nothing_is_called(world: &World) {
    let said = world.run("join", mesh(2, 1, 1), |_| vec![("DOUBLE_DEVICES", "0")]);
    let none = "cannot join the other workers: there is no device: no ROCm-capable device is detected";
    assert_eq!(said[0], [none, "[0, 0, 0]"]);
}

fn a_dropped_transfer_closes_the_transport(world: &World) {
    let said = world.run("drop", mesh(2, 1, 1), |_| vec![("LIMIT", "10")]);
    assert_eq!(
        said[0],
        [
            &format!("{CLOSED}a transfer was dropped before it was waited for"),
            "2 aborted"
        ]
    );
}

fn what_cannot_be_sent_breaks_nothing(world: &World) {
    let said = world.run("refused", mesh(2, 1, 1), same);
    assert_eq!(
        said[0],
        [
            "a tensor of shape [6, 4] has gaps and cannot be sent as it stands",
            "transfer failed: rank 0 is no peer of rank 0 on the Tensor axis",
            "transfer failed: rank 7 is no peer of rank 0 on the Tensor axis",
            "transfer failed: rank 1 is no peer of rank 0 on the Forward axis",
            "transfer failed: RCCL takes no sum of Bool",
        ]
    );
}

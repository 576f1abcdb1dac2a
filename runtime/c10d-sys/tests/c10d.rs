//! The shim against libtorch, within one process.
//!
//! The shim is compiled against replacements of Gloo's headers, so it must see classes with libtorch's memory layout.

#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use c10d_sys::{ErrorKind, ProcessGroup, TcpStore};
use missing_tools::missing_tool;
use tch::{Device, Tensor};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// What libtorch 2.13.0 itself allocates for one (the argument of `operator new` in `ProcessGroupGloo::merge`).
#[test]
fn the_group_has_libtorchs_size() {
    assert_eq!(c10d_sys::size_of_group(), 488);
}

/// Direct uses of Gloo would be compiled against the replaced headers.
#[test]
fn nothing_of_gloo_is_used_directly() {
    let archive = env!("C10D_SHIM");
    let Ok(output) = Command::new("nm")
        .args(["--undefined-only", "--demangle", archive])
        .output()
    else {
        missing_tool("nm", "that the c10d shim uses nothing of Gloo directly");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("c10d::ProcessGroupGloo::createDeviceForHostname"),
        "nm shows no symbols of {archive}"
    );
    let symbols = text
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(_, name)| name);
    let gloo: Vec<&str> = symbols.filter(|name| name.contains("gloo::")).collect();
    assert_eq!(gloo, Vec::<&str>::new());
}

#[test]
fn a_store_listens_on_its_address_only() {
    let (_store, port) = TcpStore::serve(HOST, PATIENT).unwrap();
    TcpStream::connect((HOST, port)).unwrap();
    TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).unwrap_err();
    let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let error = TcpStore::serve(foreign, PATIENT).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 192.0.2.1: "), "{error}");
}

/// A ring of threads on both ends of a store: each sets a key after the previous one has set its own.
#[test]
fn threads_do_not_wait_for_each_other() {
    let (served, port) = TcpStore::serve(HOST, PATIENT).unwrap();
    let connected = TcpStore::connect("127.0.0.1", port, PATIENT).unwrap();
    thread::scope(|scope| {
        // The first thread starts last, when the others wait.
        for thread in (0..4).rev() {
            let store = [&served, &connected][thread % 2];
            scope.spawn(move || {
                let store = store.under("ring/").unwrap();
                let (own, next) = (thread.to_string(), ((thread + 1) % 4).to_string());
                if thread == 0 {
                    store.set(&next).unwrap();
                    store.wait(&own, PATIENT).unwrap();
                } else {
                    store.wait(&own, PATIENT).unwrap();
                    store.set(&next).unwrap();
                }
            });
        }
    });
}

#[test]
fn waiting_for_an_unset_key_times_out() {
    let (store, _) = TcpStore::serve(HOST, PATIENT).unwrap();
    assert_eq!(store.wait("a", SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    // The store still works; a prefix keeps keys apart.
    store.set("a").unwrap();
    store.wait("a", PATIENT).unwrap();
    assert_eq!(
        store.under("b/").unwrap().wait("a", SHORT).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    assert_eq!(
        store.set("a\0").unwrap_err().to_string(),
        "\"a\\0\" contains a zero byte"
    );
}

/// Two ranks in one process.
#[test]
fn groups_move_bytes() {
    let (store, _) = TcpStore::serve(HOST, PATIENT).unwrap();
    let of =
        |name: &str, rank, size| ProcessGroup::new(&store.under(name).unwrap(), rank, size, HOST, PATIENT).unwrap();
    let sent = Tensor::from_slice(&[1f32, 2.0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let received = Tensor::zeros([2], (tch::Kind::Float, Device::Cpu));
            let group = of("two/", 1, 2);
            group.receive(&received, 0, 7).unwrap().wait(PATIENT).unwrap();
            assert_eq!(Vec::<f32>::try_from(received).unwrap(), [1.0, 2.0]);
        });
        of("two/", 0, 2).send(&sent, 1, 7).unwrap().wait(PATIENT).unwrap();
    });
}

/// See `NoPreemption` in the shim.
#[cfg(target_os = "linux")]
#[test]
fn gloos_threads_do_not_preempt() {
    // The policy is the 41st field; the name, the second, is in parentheses.
    let policy = |task: &std::path::Path| {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (start, rest) = stat.rsplit_once(')')?;
        let name = start.split_once('(')?.1.to_owned();
        Some((name, rest.split_whitespace().nth(38)?.parse::<i32>().ok()?))
    };
    let own = || policy("/proc/thread-self".as_ref()).unwrap().1;
    let before = own();
    if before != 0 {
        missing_tool("the ordinary scheduling policy", "that Gloo's threads do not preempt");
        return;
    }
    let (store, _) = TcpStore::serve(HOST, PATIENT).unwrap();
    let _group = ProcessGroup::new(&store, 0, 1, HOST, PATIENT).unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks: Vec<_> = tasks.filter_map(|task| policy(&task.unwrap().path())).collect();
    let polls: Vec<_> = tasks.iter().filter(|(name, _)| name == "gloo_tcp_loop").collect();
    assert!(
        !polls.is_empty() && polls.iter().all(|(_, policy)| *policy == 3),
        "{tasks:?}"
    );
    assert_eq!(own(), before);
}

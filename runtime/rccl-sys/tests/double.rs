//! The safe layer against the test double (`double/double.c`), and the double against wrong calls, since other tests
//! rely on its records.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::Arc;

use rccl_sys::table::Collectives;
use rccl_sys::{Communicator, Error, Library, OpenError, Platform, Search, Version, survey};
use tempfile::TempDir;

use self::missing_tools::missing_tool;

/// A separate double for one test, since its records are per process; none without a C compiler.
fn build(define: &str) -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("double.so");
    let built = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", define, "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/double.c"))
        .status();
    if built.is_err() {
        missing_tool("cc", "rccl-sys, with a test double written in C");
        return None;
    }
    assert!(built.unwrap().success());
    Some((folder, library))
}

fn at(library: &Path) -> Search {
    Search {
        collective: Some(library.to_owned()),
        runtime: Some(library.to_owned()),
        folders: Vec::new(),
    }
}

fn misuse(library: &Path) -> Vec<String> {
    // SAFETY: the double has this function with this type, and never frees the text.
    unsafe {
        let double = libloading::Library::new(library).unwrap();
        let misuse = double
            .get::<unsafe extern "C" fn() -> *const c_char>(b"double_misuse\0")
            .unwrap();
        let text = CStr::from_ptr(misuse()).to_str().unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_library_is_opened_and_queried() {
    let Some((_folder, path)) = build("-DNEW") else { return };
    let library = Library::open(Platform::Rocm, &at(&path)).unwrap();
    assert_eq!(library.platform(), Platform::Rocm);
    assert_eq!(library.version().unwrap().to_string(), "2.21.5");
    assert_eq!(library.error_string(5), "invalid usage");
    assert_eq!(library.device_count(), Ok(1));
    assert_ne!(library.unique_id().unwrap().to_bytes(), [0; 128]);
    let found = survey(Platform::Rocm, &at(&path));
    assert_eq!(found.missing(), Vec::<&str>::new());
    let path = path.display();
    assert_eq!(
        found.to_string(),
        format!("RCCL 2.21.5 ({path})\nHIP runtime 6.3.42131 ({path})\n1 device")
    );
}

#[test]
fn without_a_device_nothing_else_is_called() {
    let Some((_folder, path)) = build("-DDEVICES=0") else {
        return;
    };
    let library = Arc::new(Library::open(Platform::Rocm, &at(&path)).unwrap());
    let none = Error::NoDevice {
        cause: "no ROCm-capable device is detected".to_owned(),
    };
    assert_eq!(library.unique_id(), Err(none.clone()));
    let id = rccl_sys::UniqueId::from_bytes([1; 128]);
    assert_eq!(Communicator::join(&library, id, 1, 0).err(), Some(none));
    let found = survey(Platform::Rocm, &at(&path));
    assert_eq!(
        found.missing(),
        ["no device is available: no ROCm-capable device is detected"]
    );
}

#[test]
fn an_old_library_lacks_newer_functions() {
    let Some((_folder, path)) = build("-DOLD") else { return };
    // SAFETY: the double's functions have the types of the real ones.
    let table = unsafe { Collectives::load(&libloading::Library::new(&path).unwrap(), "nccl") };
    assert_eq!(table.missing(), ["GetLastError", "CommInitRankConfig", "CommFinalize"]);
}

#[test]
fn missing_libraries_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    // Names that no machine has: this one may have the real libraries.
    let search = Search {
        collective: Some(folder.path().join("librccl.so.1")),
        runtime: Some(folder.path().join("libamdhip64.so.6")),
        folders: Vec::new(),
    };
    let error = Library::open(Platform::Rocm, &search).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("RCCL was not found; tried {here}/librccl.so.1")
    );
    let found = survey(Platform::Rocm, &search);
    assert_eq!(
        found.missing(),
        [
            format!("RCCL was not found; tried {here}/librccl.so.1"),
            format!("HIP runtime was not found; tried {here}/libamdhip64.so.6"),
        ]
    );
    assert!(
        found
            .to_string()
            .ends_with("\ndevices are unknown without the HIP runtime")
    );
    // A file that is not a library, and one that is another library.
    std::fs::write(folder.path().join("librccl.so.1"), "not a library").unwrap();
    let OpenError::Broken { library, cause } = Library::open(Platform::Rocm, &search).unwrap_err() else {
        panic!("not broken");
    };
    assert!(
        library == "RCCL" && cause.contains(&format!("{here}/librccl.so.1: ")),
        "{cause}"
    );
    let other = Search {
        collective: Some("libc.so.6".into()),
        runtime: Some("libc.so.6".into()),
        folders: Vec::new(),
    };
    let found = survey(Platform::Rocm, &other);
    assert_eq!(
        found.missing(),
        [
            "`` is not RCCL: this library has no `ncclGetVersion`",
            "this library has no `hipGetDeviceCount`"
        ]
    );
}

/// Given folders come before the vendor's usual one, and after the dynamic loader's paths.
#[test]
fn folders_are_searched() {
    let Some((folder, path)) = build("-DNEW") else { return };
    std::fs::rename(&path, folder.path().join("libnccl.so.2")).unwrap();
    let search = Search {
        folders: vec![folder.path().join("none"), folder.path().to_owned()],
        ..Search::default()
    };
    let found = survey(Platform::Cuda, &search).collective;
    // A machine with NCCL finds its own.
    let own = found.as_ref().is_ok_and(|text| !text.contains("2.21.5"));
    let expected = format!("NCCL 2.21.5 ({}/libnccl.so.2)", folder.path().display());
    assert!(own || found == Ok(expected), "{found:?}");
}

#[test]
fn versions_have_their_usual_form() {
    let written = [2304, 2708, 2804, 20_900, 21_304, 23_203].map(|code| Version::from_code(code).to_string());
    assert_eq!(written, ["2.3.4", "2.7.8", "2.8.4", "2.9.0", "2.13.4", "2.32.3"]);
    assert!(Version::from_code(2804) < Version::from_code(20_900));
}

/// The double records every wrong call, so a run without records has made none.
#[test]
fn the_double_records_misuse() {
    let Some((_folder, path)) = build("-DNEW") else { return };
    let nothing: *mut c_void = null_mut();
    let mut data = [0u8; 8];
    let buffer: *mut c_void = data.as_mut_ptr().cast();
    // SAFETY: the double's functions have the types of the real ones, and check what they are given.
    unsafe {
        let double = libloading::Library::new(&path).unwrap();
        let nccl = Collectives::load(&double, "nccl");
        // Its records are read below.
        std::mem::forget(double);
        let (send, receive) = (nccl.Send.unwrap(), nccl.Recv.unwrap());
        let (start, end) = (nccl.GroupStart.unwrap(), nccl.GroupEnd.unwrap());
        let mut state: c_int = 0;
        assert_eq!(nccl.CommGetAsyncError.unwrap()(nothing, &mut state), 4);
        assert_eq!((end(), start(), end()), (5, 0, 1));

        // Two ranks of one communicator in this process; both calls return when both have joined.
        let id = {
            let mut id = rccl_sys::UniqueId::from_bytes([0; 128]);
            assert_eq!(nccl.GetUniqueId.unwrap()(&mut id), 0);
            id
        };
        let join = nccl.CommInitRank.unwrap();
        let other = std::thread::spawn(move || {
            let mut comm = null_mut();
            (join(&mut comm, 2, id, 1), comm as usize)
        });
        let mut comm = null_mut();
        assert_eq!(join(&mut comm, 2, id, 0), 0);
        let (joined, other) = other.join().unwrap();
        let other = other as *mut c_void;
        assert_eq!(joined, 0);

        assert_eq!(start(), 0);
        assert_eq!(send(buffer, 8, 1, 0, comm, nothing), 4);
        assert_eq!(receive(buffer, 0, 1, 1, comm, nothing), 4);
        assert_eq!(send(buffer, 8, 1, 1, comm, buffer), 4);
        assert_eq!((send(buffer, 8, 1, 1, comm, nothing), end()), (0, 0));
        assert_eq!(nccl.CommAbort.unwrap()(comm), 0);
        assert_eq!(nccl.CommDestroy.unwrap()(comm), 4);
        assert_eq!(nccl.CommDestroy.unwrap()(other), 0);
        assert_eq!(send(buffer, 8, 1, 1, buffer, nothing), 4);
    }
    assert_eq!(
        misuse(&path),
        [
            "ncclCommGetAsyncError: null communicator",
            "ncclGroupEnd: no group, or one inside another",
            "ncclGroupEnd: empty group",
            "ncclSend: rank 0, type 1, 8 bytes",
            "ncclRecv: rank 1, type 1, 0 bytes",
            "ncclSend: no stream",
            "unfinished: rank 0, send of 8 bytes with rank 1",
            "ncclCommDestroy: communicator after its end",
            "ncclSend: no communicator",
        ]
    );
}

//! The shim is compiled against stand-ins for Gloo's headers: it must see classes as libtorch laid them out.

use std::process::Command;

/// What libtorch 2.13.0 itself allocates for one (the argument of `operator new` in `ProcessGroupGloo::merge`).
#[test]
fn the_group_has_the_size_that_libtorch_gives_it() {
    assert_eq!(c10d_sys::size_of_group(), 488);
}

/// Whatever the shim took from Gloo itself would have been compiled against the stand-ins.
#[test]
fn nothing_of_gloo_is_used_directly() {
    let archive = env!("C10D_SHIM");
    let Ok(output) = Command::new("nm")
        .args(["--undefined-only", "--demangle", archive])
        .output()
    else {
        eprintln!("skipped: there is no nm");
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

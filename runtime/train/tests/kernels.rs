//! The kernels of a device without a device: their source on a CPU behind a double of the driver, against libtorch's
//! operations.

#[path = "double/build.rs"]
mod double;

use std::collections::BTreeSet;

use aurora_train::gpu;
use aurora_train::model::self_test;
use tch::Device;

/// Every kernel agrees with its reference, with the arguments that the worker passes on a device.
#[test]
fn kernels_agree_with_their_references() {
    let folder = tempfile::tempdir().expect("a folder");
    // SAFETY: the only test of this program; no other thread reads the environment.
    unsafe { std::env::set_var("AURORA_CACHE_DIR", folder.path().join("cache")) };
    double::build(folder.path());
    tch::set_num_threads(1);
    let gpu = gpu::load(folder.path(), None).expect("the double");
    assert_eq!(gpu.architecture(), "sm_90");
    let checks = self_test(Device::Cpu).expect("it runs");
    assert!(checks.len() > 70, "{} checks", checks.len());
    let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // Only sums in the same order, or none, can have no error at all.
    assert!(
        checks.iter().any(|check| check.error > 0.0),
        "the kernels were not used"
    );
    let (used, all) = (gpu.used(), double::kernels().into_iter().collect::<BTreeSet<_>>());
    assert_eq!(used, all, "kernels that were compared, and all");
}

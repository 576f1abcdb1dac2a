//! The devices of this machine, as the drivers of its kernel report them.
//!
//! In: the root of the file system, and the variables that hide devices from processes. Out: devices that a worker can use.
//! No library of a vendor is loaded. Not here: whether libtorch can compute on them (the worker finds that out).

use camino::Utf8Path;

use crate::job::WorkerDevice;

/// One device that a process can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDevice {
    /// As the driver reports it: `NVIDIA H100 80GB HBM3`; for AMD the architecture: `gfx90a`.
    pub name: String,
    /// Bytes; none if the driver does not report it without its library.
    pub memory: Option<u64>,
}

/// Variables that limit the devices of a process, each a list of devices.
const AMD_VARIABLES: [&str; 2] = ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"];
const NVIDIA_VARIABLES: [&str; 1] = ["CUDA_VISIBLE_DEVICES"];

/// The devices below `root`, `/` outside of tests. `variable` reads a variable of the environment.
pub fn local_devices(root: &Utf8Path, variable: &dyn Fn(&str) -> Option<String>) -> Vec<LocalDevice> {
    let visible = |mut devices: Vec<LocalDevice>, variables: &[&str]| {
        for list in variables.iter().filter_map(|name| variable(name)) {
            // Devices after the first invalid entry are hidden too, and an invalid first entry hides all.
            let named = list.split(',').map(str::trim).take_while(|entry| is_device(entry));
            devices.truncate(named.count());
        }
        devices
    };
    let mut devices = visible(nvidia(root), &NVIDIA_VARIABLES);
    devices.extend(visible(amd(root), &AMD_VARIABLES));
    devices
}

/// Names where workers of this machine compute, as far as it is known without one; `None` for the processor.
pub fn device_names(device: WorkerDevice) -> Option<String> {
    match device {
        WorkerDevice::Cpu => None,
        WorkerDevice::Simulated => Some("simulated device".to_owned()),
        WorkerDevice::Gpu | WorkerDevice::SharedGpu => {
            let found = local_devices(Utf8Path::new("/"), &|name| std::env::var(name).ok());
            let mut names: Vec<String> = found.into_iter().map(|device| device.name).collect();
            names.sort();
            names.dedup();
            Some(format!("gpu {}", names.join(", ")))
        }
    }
}

/// Whether an entry of such a list is an index or an identifier (`GPU-…`, `MIG-…`).
fn is_device(entry: &str) -> bool {
    entry.parse::<u32>().is_ok() || entry.starts_with("GPU-") || entry.starts_with("MIG-")
}

/// The sorted names in a folder; none if it does not exist.
fn names(folder: &Utf8Path) -> Vec<String> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_owned()).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

/// One folder per device in `/proc/driver/nvidia/gpus`, with a file `information`.
fn nvidia(root: &Utf8Path) -> Vec<LocalDevice> {
    let folder = root.join("proc/driver/nvidia/gpus");
    let device = |name: String| {
        let text = std::fs::read_to_string(folder.join(name).join("information")).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(LocalDevice {
            name: model.trim().to_owned(),
            memory: None,
        })
    };
    names(&folder).into_iter().filter_map(device).collect()
}

/// The nodes of the kernel's topology that have SIMD units; the others are CPUs.
fn amd(root: &Utf8Path) -> Vec<LocalDevice> {
    let folder = root.join("sys/class/kfd/kfd/topology/nodes");
    let property = |text: &str, name: &str| -> Option<u64> {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(found, _)| *found == name)?.1.trim().parse().ok()
    };
    let device = |node: String| {
        let node = folder.join(node);
        let text = std::fs::read_to_string(node.join("properties")).ok()?;
        property(&text, "simd_count").filter(|count| *count > 0)?;
        // 90010 is gfx90a: major version, two digits of minor version and of stepping in hexadecimal.
        let version = property(&text, "gfx_target_version").unwrap_or(0);
        let bank = std::fs::read_to_string(node.join("mem_banks/0/properties")).ok();
        Some(LocalDevice {
            name: format!("gfx{}{:x}{:x}", version / 10_000, version / 100 % 100, version % 100),
            memory: bank.and_then(|text| property(&text, "size_in_bytes")),
        })
    };
    names(&folder).into_iter().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Utf8Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    #[test]
    fn devices_of_both_vendors_are_found_and_hidden_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let none = |_: &str| None;
        assert_eq!(local_devices(root, &none), []);
        for bus in ["0000:1b:00.0", "0000:43:00.0"] {
            let information = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 291\n";
            put(root, &format!("proc/driver/nvidia/gpus/{bus}/information"), information);
        }
        let nodes = "sys/class/kfd/kfd/topology/nodes";
        put(
            root,
            &format!("{nodes}/0/properties"),
            "cpu_cores_count 64\nsimd_count 0\n",
        );
        put(
            root,
            &format!("{nodes}/1/properties"),
            "cpu_cores_count 0\nsimd_count 440\ngfx_target_version 90010\n",
        );
        put(
            root,
            &format!("{nodes}/1/mem_banks/0/properties"),
            "heap_type 1\nsize_in_bytes 68702699520\n",
        );
        let h100 = LocalDevice {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory: None,
        };
        let gcd = LocalDevice {
            name: "gfx90a".to_owned(),
            memory: Some(68_702_699_520),
        };
        assert_eq!(local_devices(root, &none), [h100.clone(), h100.clone(), gcd.clone()]);
        let hidden = |value: &'static str| move |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| value.to_owned());
        assert_eq!(local_devices(root, &hidden("1")), [h100.clone(), gcd.clone()]);
        assert_eq!(local_devices(root, &hidden("")), std::slice::from_ref(&gcd));
        assert_eq!(local_devices(root, &hidden("-1,0")), [gcd]);
    }
}

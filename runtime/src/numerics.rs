//! What the bits of results depend on besides their keys: the numerics class of a machine, and the names that describe it.
//!
//! In: what a worker reports about itself. Out: its class, by which results are looked up and compared. Not here: the probe
//! behind a class (`runtime/train/src/worker/fingerprint.rs`).

use aurora_compiler::lock::PORTABLE_MACHINE;
use aurora_compiler::numerics_class::NumericsClass;
use serde::{Deserialize, Serialize};

/// Names a kind of machine and the library on it. Machines with equal names usually have one numerics class, and machines of
/// one class may have different names: compatibility is decided by the class only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineDescription {
    pub libtorch: String,
    pub cpu: String,
    pub cpu_capability: String,
    /// The device, if it computes on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl MachineDescription {
    /// This machine, with this release of libtorch.
    pub fn here(libtorch: &str, device: Option<String>) -> Self {
        Self {
            libtorch: libtorch.to_owned(),
            cpu: processor(),
            cpu_capability: capability().to_owned(),
            device,
        }
    }
}

impl std::fmt::Display for MachineDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.device {
            Some(device) => write!(f, "libtorch {}, {device}", self.libtorch),
            None => write!(f, "libtorch {}, {}, {}", self.libtorch, self.cpu, self.cpu_capability),
        }
    }
}

/// What a worker reports about its numerics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    pub machine: MachineDescription,
    /// BLAKE3 of the results of a fixed set of real kernel calls.
    pub probe: String,
    /// The same for Aurora's own kernels, which `portable` numerics use: equal on every processor.
    pub portable: String,
}

impl Fingerprint {
    /// The numerics class under `portable` or other numerics; `None` if the probe is not a digest.
    pub fn class(&self, portable: bool) -> Option<NumericsClass> {
        let probe = if portable { &self.portable } else { &self.probe };
        NumericsClass::of_probe(probe, portable)
    }

    /// The machine, as locks and records describe it.
    pub fn description(&self, portable: bool) -> String {
        if portable {
            PORTABLE_MACHINE.to_owned()
        } else {
            self.machine.to_string()
        }
    }
}

/// Vendor, family, model and name of the processor, as the system reports them.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let get = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    if text.is_empty() {
        return std::env::consts::ARCH.to_owned();
    }
    format!(
        "{} {} {} {}",
        get("vendor_id"),
        get("cpu family"),
        get("model"),
        get("model name")
    )
}

/// The widest instruction set of this processor that Aurora's kernels are compiled for.
fn capability() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    "baseline"
}

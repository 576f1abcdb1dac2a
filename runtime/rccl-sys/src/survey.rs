//! The libraries and devices of this machine, as readable text.

use std::fmt;

use crate::library::{device_count, version};
use crate::search::{Platform, Search, open_collectives, open_runtime};

/// What was found for each part, or why it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub platform: Platform,
    /// Version and file of the collective library.
    pub collective: Result<String, String>,
    /// Version and file of the device runtime.
    pub runtime: Result<String, String>,
    /// Number of devices; unknown without a runtime.
    pub devices: Result<u32, String>,
}

/// Searches for the platform's libraries and asks the runtime for devices. Calls nothing else.
pub fn survey(platform: Platform, search: &Search) -> Survey {
    let collective = match open_collectives(platform, search) {
        Ok((table, path)) => version(&table)
            .map(|version| format!("{} {version} ({path})", platform.collective_name()))
            .map_err(|error| format!("`{path}` is not {}: {error}", platform.collective_name())),
        Err(error) => Err(error.to_string()),
    };
    let opened = open_runtime(platform, search);
    let devices = match &opened {
        Ok((table, _)) => device_count(table, platform).map_err(|error| error.to_string()),
        Err(_) => Err(format!("devices are unknown without the {}", platform.runtime_name())),
    };
    let runtime = match opened {
        Ok((table, path)) => {
            let mut code = 0;
            // SAFETY: the pointer is to a number that outlives the call.
            let status = table.RuntimeGetVersion.map(|call| unsafe { call(&mut code) });
            let version = match status {
                Some(crate::types::SUCCESS) => runtime_version(platform, code),
                _ => "of unknown version".to_owned(),
            };
            Ok(format!("{} {version} ({path})", platform.runtime_name()))
        }
        Err(error) => Err(error.to_string()),
    };
    Survey {
        platform,
        collective,
        runtime,
        devices,
    }
}

/// HIP: major × 10⁷ + minor × 10⁵ + patch. CUDA: major × 1000 + minor × 10.
fn runtime_version(platform: Platform, code: i32) -> String {
    match platform {
        Platform::Rocm => format!("{}.{}.{}", code / 10_000_000, code / 100_000 % 100, code % 100_000),
        Platform::Cuda => format!("{}.{}", code / 1000, code % 1000 / 10),
    }
}

impl Survey {
    /// The missing parts, most important first; empty if the platform can be used.
    pub fn missing(&self) -> Vec<&str> {
        let parts = [
            self.collective.as_ref().err(),
            self.runtime.as_ref().err(),
            self.devices.as_ref().err().filter(|_| self.runtime.is_ok()),
        ];
        parts.into_iter().flatten().map(String::as_str).collect()
    }
}

/// One line per part.
impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text_of = |part: &Result<String, String>| match part {
            Ok(text) | Err(text) => text.clone(),
        };
        let devices = match &self.devices {
            Ok(1) => "1 device".to_owned(),
            Ok(count) => format!("{count} devices"),
            Err(text) => text.clone(),
        };
        write!(
            f,
            "{}\n{}\n{devices}",
            text_of(&self.collective),
            text_of(&self.runtime)
        )
    }
}

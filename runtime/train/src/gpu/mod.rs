//! Own kernels of a device: compiled when they are first used, loaded and launched through the vendor's driver.
//!
//! In: tensors on the device. Out: launches on libtorch's current stream; nothing waits for them. `kernels.cu` is one
//! source for CUDA and ROCm. The vendor's libraries are those that libtorch itself uses. Not here: which operation uses
//! which kernel (`model::ops`).

mod cache;
mod compiler;
mod driver;
mod launch;
mod vendor;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use tch::Kind;

use compiler::Compiler;
pub use compiler::{SOURCE, options};
use driver::{Driver, Module};
pub use launch::{Arguments, Grid, MAX_PARTS};
pub use vendor::Vendor;

/// Why there are no own kernels, or a launch failed.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("cannot load `{name}`: {cause}")]
    Library { name: String, cause: String },
    #[error("{call} failed: {cause}")]
    Call { call: &'static str, cause: String },
    #[error("the kernels do not compile for {architecture}: {log}")]
    Compile { architecture: String, log: String },
    #[error(transparent)]
    Libtorch(#[from] aten_sys::Error),
}

/// The kernels of this process's device.
#[derive(Debug)]
pub struct Gpu {
    /// None for a simulated device, whose driver computes at once.
    index: Option<usize>,
    driver: Driver,
    compiler: Compiler,
    architecture: String,
    multiprocessors: Option<i64>,
    memory: u64,
    f32_module: OnceLock<Module>,
    bf16_module: OnceLock<Module>,
}

/// A worker computes on one device.
static GPU: OnceLock<Gpu> = OnceLock::new();

/// Prepares the device with an index, or a simulated one: finds the vendor's libraries in the folder of libtorch. Kernels are compiled when they are first
/// used.
///
/// # Errors
/// [`GpuError`] if a library is missing or there is no such device.
pub fn load(folder: &Path, device: Option<usize>) -> Result<&'static Gpu, GpuError> {
    if let Some(gpu) = GPU.get() {
        return Ok(gpu);
    }
    let index = device.unwrap_or(0);
    let driver = Driver::open(folder, index)?;
    let (library, vendor) = driver.library();
    let compiler = Compiler::new(library, vendor)?;
    let architecture = driver.architecture(index)?;
    let (multiprocessors, memory) = (driver.multiprocessors(index)?, driver.memory(index)?);
    Ok(GPU.get_or_init(|| Gpu {
        index: device,
        multiprocessors,
        memory,
        driver,
        compiler,
        architecture,
        f32_module: OnceLock::new(),
        bf16_module: OnceLock::new(),
    }))
}

/// The kernels of this process's device, if they are loaded.
pub fn current() -> Option<&'static Gpu> {
    GPU.get()
}

impl Gpu {
    /// The architecture that kernels are compiled for: `sm_90`, `gfx90a`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Bytes of the device's memory.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Multiprocessors of a device of CUDA.
    pub fn multiprocessors(&self) -> Option<i64> {
        self.multiprocessors
    }

    /// The device and what computes on it besides libtorch.
    ///
    /// # Errors
    /// [`GpuError::Call`].
    pub fn description(&self) -> Result<String, GpuError> {
        Ok(format!(
            "{} ({}), driver {}, kernels by compiler {}",
            self.driver.name(self.index.unwrap_or(0))?,
            self.architecture,
            self.driver.version()?,
            self.compiler.version()?
        ))
    }

    /// BLAKE3 of what the bits of the kernels depend on: source, options, compiler.
    ///
    /// # Errors
    /// [`GpuError::Call`].
    pub fn kernels_digest(&self) -> Result<blake3::Hash, GpuError> {
        cache::digest(
            &self.compiler,
            &options(self.compiler.vendor(), &self.architecture, true),
        )
    }

    /// The kernels for an element type.
    fn module(&self, kind: Kind) -> Result<&Module, GpuError> {
        let (slot, is_bf16) = match kind {
            Kind::BFloat16 => (&self.bf16_module, true),
            _ => (&self.f32_module, false),
        };
        if let Some(module) = slot.get() {
            return Ok(module);
        }
        let code = cache::code(&self.compiler, &self.architecture, is_bf16)?;
        let module = self.driver.load(&code)?;
        Ok(slot.get_or_init(|| module))
    }

    /// The names of the kernels that have been launched.
    pub fn used(&self) -> BTreeSet<&'static str> {
        let modules = [&self.f32_module, &self.bf16_module];
        modules
            .into_iter()
            .filter_map(OnceLock::get)
            .flat_map(Module::names)
            .collect()
    }

    /// Launches a kernel on libtorch's current stream.
    ///
    /// # Errors
    /// [`GpuError`] if the kernel does not compile or the driver refuses.
    pub fn launch(&self, kind: Kind, name: &'static str, grid: Grid, arguments: &Arguments) -> Result<(), GpuError> {
        if grid.is_empty() {
            return Ok(());
        }
        let function = self.module(kind)?.function(name)?;
        let stream = match self.index {
            Some(index) => aten_sys::current_stream(index)?,
            None => std::ptr::null_mut(),
        };
        self.driver.launch(function, grid, stream, arguments)
    }
}

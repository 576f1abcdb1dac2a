//! Own kernels of a device: compiled when a worker starts, loaded and launched through the vendor's driver.
//!
//! In: tensors on the device. Out: launches on libtorch's current stream; nothing waits for them. `kernels.cu` is one
//! source for CUDA and ROCm. The vendor's libraries are those that libtorch itself uses. Not here: which operation uses
//! which kernel (`model::ops`).

mod cache;
mod compiler;
mod driver;
mod launch;

use std::path::Path;
use std::sync::OnceLock;

use tch::Kind;

pub use compiler::{Compiler, SOURCE};
use driver::{Driver, Module};
pub use launch::{Arguments, Grid, MAX_PARTS};

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
    index: usize,
    driver: Driver,
    compiler: Compiler,
    architecture: String,
    f32_module: OnceLock<Module>,
    bf16_module: OnceLock<Module>,
}

/// A worker computes on one device.
static GPU: OnceLock<Gpu> = OnceLock::new();

/// Prepares the device with an index: finds the vendor's libraries in the folder of libtorch. Kernels are compiled when
/// they are first used.
///
/// # Errors
/// [`GpuError`] if a library is missing or there is no such device.
pub fn load(folder: &Path, index: usize) -> Result<&'static Gpu, GpuError> {
    if let Some(gpu) = GPU.get() {
        return Ok(gpu);
    }
    let driver = Driver::open(folder, index)?;
    let compiler = driver.compiler()?;
    let architecture = driver.architecture(index)?;
    Ok(GPU.get_or_init(|| Gpu {
        index,
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

    /// The device and what computes on it besides libtorch.
    ///
    /// # Errors
    /// [`GpuError::Call`].
    pub fn description(&self) -> Result<String, GpuError> {
        Ok(format!(
            "{} ({}), driver {}, kernels by compiler {}",
            self.driver.name(self.index)?,
            self.architecture,
            self.driver.version()?,
            self.compiler.version()?
        ))
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

    /// Launches a kernel on libtorch's current stream.
    ///
    /// # Errors
    /// [`GpuError`] if the kernel does not compile or the driver refuses.
    pub fn launch(&self, kind: Kind, name: &'static str, grid: Grid, arguments: &Arguments) -> Result<(), GpuError> {
        if grid.is_empty() {
            return Ok(());
        }
        let function = self.module(kind)?.function(name)?;
        let stream = aten_sys::current_stream(self.index)?;
        self.driver.launch(function, grid, stream, arguments)
    }
}

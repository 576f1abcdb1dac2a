//! The driver of a device: loads compiled kernels and launches them. CUDA's driver, or ROCm's HIP runtime: the same calls
//! with the same arguments.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aurora_runtime::launch::local_devices;
use camino::Utf8Path;
use libloading::os::unix::{self, Library};

use super::GpuError;
use super::launch::{Arguments, Grid};
use super::vendor::{Vendor, function};

/// The library of libtorch that depends on the vendor's driver and compiler. Looking a function up in it also searches
/// these.
const LIBRARY: &str = "libcaffe2_nvrtc.so";

/// CUDA's numbers of attributes.
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;

type Launch = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

/// Makes the device the one of the calling thread.
#[derive(Clone, Copy, Debug)]
enum MakeCurrent {
    Cuda {
        set: unsafe extern "C" fn(*mut c_void) -> c_int,
        context: *mut c_void,
    },
    Rocm {
        set: unsafe extern "C" fn(c_int) -> c_int,
        index: c_int,
    },
}

#[derive(Debug)]
pub struct Driver {
    library: Arc<Library>,
    vendor: Vendor,
    make_current: MakeCurrent,
    launch: Launch,
}

// SAFETY: contexts and functions of a driver may be used from any thread.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// A kernel in the device's memory.
#[derive(Clone, Copy, Debug)]
pub struct Function(*mut c_void);

/// Compiled kernels in the device's memory; never unloaded.
#[derive(Debug)]
pub struct Module {
    library: Arc<Library>,
    vendor: Vendor,
    raw: *mut c_void,
    functions: Mutex<HashMap<&'static str, Function>>,
}

// SAFETY: modules and functions of a driver may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Driver {
    /// Opens the driver that the libtorch in a folder uses, for the device with an index.
    pub fn open(folder: &Path, index: usize) -> Result<Self, GpuError> {
        let path = folder.join(LIBRARY);
        // SAFETY: a library of libtorch, whose initialisers have no effect on this process.
        let library = unsafe { Library::open(Some(&path), unix::RTLD_NOW | unix::RTLD_LOCAL) };
        let library = library.map_err(|error| GpuError::Library {
            name: path.display().to_string(),
            cause: error.to_string(),
        })?;
        // SAFETY: only whether it exists.
        let is_cuda = unsafe { function::<*const c_void>(&library, "cuLaunchKernel") }.is_ok();
        let vendor = if is_cuda { Vendor::Cuda } else { Vendor::Rocm };
        let library = Arc::new(library);
        let number = c_int::try_from(index).unwrap_or(c_int::MAX);
        // SAFETY: the types are those of cuda.h and hip_runtime_api.h.
        unsafe {
            let make_current = match vendor {
                Vendor::Cuda => Self::cuda_context(&library, number)?,
                Vendor::Rocm => MakeCurrent::Rocm {
                    set: function(&library, "hipSetDevice")?,
                    index: number,
                },
            };
            let name = match vendor {
                Vendor::Cuda => "cuLaunchKernel",
                Vendor::Rocm => "hipModuleLaunchKernel",
            };
            Ok(Self {
                launch: function(&library, name)?,
                library,
                vendor,
                make_current,
            })
        }
    }

    /// The primary context of a device, which libtorch uses too.
    ///
    /// # Safety
    /// The library is CUDA's.
    unsafe fn cuda_context(library: &Library, index: c_int) -> Result<MakeCurrent, GpuError> {
        // SAFETY: the types are those of cuda.h.
        unsafe {
            let init: unsafe extern "C" fn(c_uint) -> c_int = function(library, "cuInit")?;
            let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = function(library, "cuDeviceGet")?;
            let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
                function(library, "cuDevicePrimaryCtxRetain")?;
            let (mut device, mut context) = (0, std::ptr::null_mut());
            check(library, Vendor::Cuda, "cuInit", init(0))?;
            check(library, Vendor::Cuda, "cuDeviceGet", get(&mut device, index))?;
            check(
                library,
                Vendor::Cuda,
                "cuDevicePrimaryCtxRetain",
                retain(&mut context, device),
            )?;
            Ok(MakeCurrent::Cuda {
                set: function(library, "cuCtxSetCurrent")?,
                context,
            })
        }
    }

    /// The library in which the vendor's functions are found, the compiler's too.
    pub fn library(&self) -> (Arc<Library>, Vendor) {
        (Arc::clone(&self.library), self.vendor)
    }

    /// What kernels are compiled for.
    pub fn architecture(&self, index: usize) -> Result<String, GpuError> {
        match self.vendor {
            Vendor::Rocm => {
                let devices = local_devices(Utf8Path::new("/"), &|name| std::env::var(name).ok());
                let names = devices.into_iter().map(|device| device.name);
                let mut names = names.filter(|name| name.starts_with("gfx"));
                names.nth(index).ok_or(GpuError::Call {
                    call: "reading the architecture",
                    cause: "the driver lists no such device in /sys/class/kfd".to_owned(),
                })
            }
            Vendor::Cuda => {
                let [major, minor] = [MAJOR, MINOR].map(|which| self.cuda_attribute(index, which));
                Ok(format!("sm_{}{}", major?, minor?))
            }
        }
    }

    /// Multiprocessors of a device of CUDA.
    pub fn multiprocessors(&self, index: usize) -> Result<Option<i64>, GpuError> {
        match self.vendor {
            Vendor::Cuda => Ok(Some(i64::from(self.cuda_attribute(index, MULTIPROCESSORS)?))),
            Vendor::Rocm => Ok(None),
        }
    }

    fn cuda_attribute(&self, index: usize, which: c_int) -> Result<c_int, GpuError> {
        let (mut value, number) = (0, c_int::try_from(index).unwrap_or(c_int::MAX));
        // SAFETY: the type is that of cuda.h; the driver writes one number.
        let status = unsafe {
            let get: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
                function(&self.library, "cuDeviceGetAttribute")?;
            get(&mut value, which, number)
        };
        check(&self.library, self.vendor, "cuDeviceGetAttribute", status)?;
        Ok(value)
    }

    /// The device's name.
    pub fn name(&self, index: usize) -> Result<String, GpuError> {
        let call = match self.vendor {
            Vendor::Cuda => "cuDeviceGetName",
            Vendor::Rocm => "hipDeviceGetName",
        };
        let (mut text, number) = ([0u8; 256], c_int::try_from(index).unwrap_or(c_int::MAX));
        // SAFETY: the type is that of the vendor's header; the driver writes at most as many bytes.
        let status = unsafe {
            let get: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int = function(&self.library, call)?;
            get(text.as_mut_ptr().cast(), text.len() as c_int, number)
        };
        check(&self.library, self.vendor, call, status)?;
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }

    /// Bytes of the device's memory.
    pub fn memory(&self, index: usize) -> Result<u64, GpuError> {
        let call = match self.vendor {
            Vendor::Cuda => "cuDeviceTotalMem_v2",
            Vendor::Rocm => "hipDeviceTotalMem",
        };
        let (mut bytes, number) = (0usize, c_int::try_from(index).unwrap_or(c_int::MAX));
        // SAFETY: the type is that of the vendor's header; one number is written.
        let status = unsafe {
            let get: unsafe extern "C" fn(*mut usize, c_int) -> c_int = function(&self.library, call)?;
            get(&mut bytes, number)
        };
        check(&self.library, self.vendor, call, status)?;
        Ok(bytes as u64)
    }

    /// The version of CUDA or HIP that the driver has.
    pub fn version(&self) -> Result<String, GpuError> {
        let call = match self.vendor {
            Vendor::Cuda => "cuDriverGetVersion",
            Vendor::Rocm => "hipDriverGetVersion",
        };
        let mut version = 0;
        // SAFETY: the type is that of the vendor's header; one number is written.
        let status = unsafe {
            let get: unsafe extern "C" fn(*mut c_int) -> c_int = function(&self.library, call)?;
            get(&mut version)
        };
        check(&self.library, self.vendor, call, status)?;
        Ok(version.to_string())
    }

    fn make_current(&self) -> Result<(), GpuError> {
        // SAFETY: the context is alive, or the index is that of a device.
        let status = unsafe {
            match self.make_current {
                MakeCurrent::Cuda { set, context } => set(context),
                MakeCurrent::Rocm { set, index } => set(index),
            }
        };
        check(&self.library, self.vendor, "selecting the device", status)
    }

    /// Loads compiled kernels.
    pub fn load(&self, code: &[u8]) -> Result<Module, GpuError> {
        self.make_current()?;
        let name = match self.vendor {
            Vendor::Cuda => "cuModuleLoadData",
            Vendor::Rocm => "hipModuleLoadData",
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: the type is that of the vendor's header; the driver copies the code.
        let status = unsafe {
            let load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int = function(&self.library, name)?;
            load(&mut raw, code.as_ptr().cast())
        };
        check(&self.library, self.vendor, name, status)?;
        Ok(Module {
            library: Arc::clone(&self.library),
            vendor: self.vendor,
            raw,
            functions: Mutex::default(),
        })
    }

    /// Starts a kernel; does not wait for it.
    pub fn launch(
        &self,
        Function(function): Function,
        grid: Grid,
        stream: *mut c_void,
        arguments: &Arguments,
    ) -> Result<(), GpuError> {
        self.make_current()?;
        let mut addresses = arguments.addresses();
        let [x, y] = grid.blocks;
        // SAFETY: the arguments are alive and have the types of the kernel's parameters, which the callers in `model::ops`
        // guarantee; the driver copies them.
        let status = unsafe {
            (self.launch)(
                function,
                x,
                y,
                1,
                grid.threads,
                1,
                1,
                0,
                stream,
                addresses.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check(&self.library, self.vendor, "a kernel's launch", status)
    }
}

impl Module {
    /// The names of the kernels that were asked for.
    pub fn names(&self) -> Vec<&'static str> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.keys().copied().collect()
    }

    /// The kernel with a name.
    pub fn function(&self, name: &'static str) -> Result<Function, GpuError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = functions.get(name) {
            return Ok(*found);
        }
        let call = match self.vendor {
            Vendor::Cuda => "cuModuleGetFunction",
            Vendor::Rocm => "hipModuleGetFunction",
        };
        let text = CString::new(name).unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the type is that of the vendor's header; module and name are alive.
        let status = unsafe {
            let get: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int =
                function(&self.library, call)?;
            get(&mut raw, self.raw, text.as_ptr())
        };
        check(&self.library, self.vendor, call, status)?;
        functions.insert(name, Function(raw));
        Ok(Function(raw))
    }
}

/// An error with the vendor's text if a call did not succeed.
fn check(library: &Library, vendor: Vendor, call: &'static str, status: c_int) -> Result<(), GpuError> {
    if status == 0 {
        return Ok(());
    }
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: the types are those of the vendors' headers; the texts are static.
    let cause = unsafe {
        match vendor {
            Vendor::Cuda => {
                let describe =
                    function::<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>(library, "cuGetErrorString");
                if let Ok(describe) = describe {
                    describe(status, &mut text);
                }
            }
            Vendor::Rocm => {
                let describe = function::<unsafe extern "C" fn(c_int) -> *const c_char>(library, "hipGetErrorString");
                if let Ok(describe) = describe {
                    text = describe(status);
                }
            }
        }
        if text.is_null() {
            format!("error {status}")
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    Err(GpuError::Call { call, cause })
}

//! The vendor's compiler as a library: NVRTC or hipRTC, which have the same calls under other names.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;

use libloading::os::unix::Library;

use super::GpuError;
use super::vendor::{Vendor, function};

/// The source of all kernels.
pub const SOURCE: &str = include_str!("kernels.cu");

type Program = *mut c_void;
type CreateProgram = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type CompileProgram = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type DestroyProgram = unsafe extern "C" fn(*mut Program) -> c_int;

/// Names of the calls.
#[derive(Debug)]
struct Names {
    create: &'static str,
    compile: &'static str,
    log_size: &'static str,
    log: &'static str,
    code_size: &'static str,
    code: &'static str,
    destroy: &'static str,
    version: &'static str,
}

const NVRTC: Names = Names {
    create: "nvrtcCreateProgram",
    compile: "nvrtcCompileProgram",
    log_size: "nvrtcGetProgramLogSize",
    log: "nvrtcGetProgramLog",
    code_size: "nvrtcGetCUBINSize",
    code: "nvrtcGetCUBIN",
    destroy: "nvrtcDestroyProgram",
    version: "nvrtcVersion",
};

const HIPRTC: Names = Names {
    create: "hiprtcCreateProgram",
    compile: "hiprtcCompileProgram",
    log_size: "hiprtcGetProgramLogSize",
    log: "hiprtcGetProgramLog",
    code_size: "hiprtcGetCodeSize",
    code: "hiprtcGetCode",
    destroy: "hiprtcDestroyProgram",
    version: "hiprtcVersion",
};

/// The vendor's options for an architecture and an element type.
pub fn options(vendor: Vendor, architecture: &str, is_bf16: bool) -> Vec<String> {
    let mut options = match vendor {
        Vendor::Cuda => vec![format!("--gpu-architecture={architecture}"), "--fmad=false".to_owned()],
        Vendor::Rocm => vec![
            format!("--offload-arch={architecture}"),
            "-ffp-contract=off".to_owned(),
            "-O3".to_owned(),
        ],
    };
    options.push("-std=c++17".to_owned());
    if is_bf16 {
        options.push("-DELEMENT_BF16".to_owned());
    }
    options
}

#[derive(Debug)]
pub struct Compiler {
    library: Arc<Library>,
    vendor: Vendor,
    names: &'static Names,
}

impl Compiler {
    /// The compiler in a library, or in one that it depends on.
    ///
    /// # Errors
    /// [`GpuError::Library`] if it is not there.
    pub fn new(library: Arc<Library>, vendor: Vendor) -> Result<Self, GpuError> {
        let names = match vendor {
            Vendor::Cuda => &NVRTC,
            Vendor::Rocm => &HIPRTC,
        };
        // SAFETY: only whether it exists.
        unsafe { function::<*const c_void>(&library, names.create)? };
        Ok(Self { library, vendor, names })
    }

    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The compiler's version.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn version(&self) -> Result<String, GpuError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the type is that of both headers; two numbers are written.
        let status = unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                function(&self.library, self.names.version)?;
            version(&mut major, &mut minor)
        };
        self.check(self.names.version, status)?;
        Ok(format!("{major}.{minor}"))
    }

    /// Compiles [`SOURCE`] with options; returns code that the driver loads.
    ///
    /// # Errors
    /// [`GpuError::Compile`] with the compiler's log.
    pub fn compile(&self, architecture: &str, options: &[String]) -> Result<Vec<u8>, GpuError> {
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let (source, name) = (text(SOURCE), text("kernels.cu"));
        let options: Vec<CString> = options.iter().map(|option| text(option)).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: the types are those of both headers; texts and buffers are alive during the calls, and buffers have the
        // sizes that the compiler states.
        unsafe {
            let create: CreateProgram = function(&self.library, self.names.create)?;
            let status = create(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            );
            self.check(self.names.create, status)?;
            let compile: CompileProgram = function(&self.library, self.names.compile)?;
            let status = compile(program, c_int::try_from(pointers.len()).unwrap_or(0), pointers.as_ptr());
            let result = if status == 0 {
                self.bytes(program, self.names.code_size, self.names.code)
            } else {
                let log = self.bytes(program, self.names.log_size, self.names.log)?;
                let log = CStr::from_bytes_until_nul(&log)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .trim()
                    .to_owned();
                Err(GpuError::Compile {
                    architecture: architecture.to_owned(),
                    log: if log.is_empty() { format!("error {status}") } else { log },
                })
            };
            let destroy: DestroyProgram = function(&self.library, self.names.destroy)?;
            destroy(&mut program);
            result
        }
    }

    /// # Safety
    /// `program` is alive, and the names are those of a pair of calls for a size and for as many bytes.
    unsafe fn bytes(
        &self,
        program: Program,
        size_of: &'static str,
        bytes_of: &'static str,
    ) -> Result<Vec<u8>, GpuError> {
        let mut size = 0;
        // SAFETY: the caller's promise.
        unsafe {
            let get_size: GetSize = function(&self.library, size_of)?;
            self.check(size_of, get_size(program, &mut size))?;
            let mut bytes = vec![0u8; size];
            let get: GetBytes = function(&self.library, bytes_of)?;
            self.check(bytes_of, get(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<(), GpuError> {
        if status == 0 {
            return Ok(());
        }
        let cause = format!("error {status}");
        Err(GpuError::Call { call, cause })
    }
}

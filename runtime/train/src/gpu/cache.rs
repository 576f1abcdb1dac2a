//! Compiled kernels in the user's cache, by digest of source, options and compiler. A file that is damaged, or cannot be
//! written, only costs time.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::GpuError;
use super::compiler::{Compiler, SOURCE, options};

/// Length of the digest at the start of a file.
const DIGEST: usize = blake3::OUT_LEN;

/// BLAKE3 of everything that the code of the kernels depends on.
pub fn digest(compiler: &Compiler, options: &[String]) -> Result<blake3::Hash, GpuError> {
    let mut hasher = blake3::Hasher::new();
    for part in options.iter().map(String::as_str).chain([SOURCE, &compiler.version()?]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Ok(hasher.finalize())
}

/// The kernels for an architecture and an element type, from the cache or compiled now.
pub fn code(compiler: &Compiler, architecture: &str, is_bf16: bool) -> Result<Vec<u8>, GpuError> {
    let options = options(compiler.vendor(), architecture, is_bf16);
    let digest = digest(compiler, &options)?;
    let folder = aurora_runtime::cache_folder().join("kernels");
    let path = folder.join(digest.to_hex().as_str()).into_std_path_buf();
    if let Some(code) = read(&path) {
        return Ok(code);
    }
    let code = compiler.compile(architecture, &options)?;
    // Another worker, or the next run, compiles again if this fails.
    let _ = write(&path, &code);
    Ok(code)
}

/// The contents of a file that is complete.
fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (digest, code) = bytes.split_at_checked(DIGEST)?;
    (blake3::hash(code).as_bytes() == digest).then(|| code.to_vec())
}

fn write(path: &PathBuf, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let scratch = folder.join(format!(".{}", std::process::id()));
    let mut file = std::fs::File::create(&scratch)?;
    file.write_all(blake3::hash(code).as_bytes())?;
    file.write_all(code)?;
    drop(file);
    std::fs::rename(scratch, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub").join("code");
        assert_eq!(read(&path), None);
        write(&path, b"kernels").expect("it is written");
        assert_eq!(read(&path).as_deref(), Some(&b"kernels"[..]));
        for damage in [&b"short"[..], &[0; 64]] {
            std::fs::write(&path, damage).expect("it is written");
            assert_eq!(read(&path), None);
        }
    }
}

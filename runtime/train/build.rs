//! Lets this crate's test programs find libtorch where they were linked against it.
fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(folder) = std::env::var("LIBTORCH")
        && let Ok(folder) = std::fs::canonicalize(folder)
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}/lib", folder.display());
    }
}

//! Lets `aurora-worker` find libtorch where it was linked against it.
fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TRAIN").is_some()
        && let Ok(folder) = std::env::var("LIBTORCH")
        && let Ok(folder) = std::fs::canonicalize(folder)
    {
        println!(
            "cargo:rustc-link-arg-bin=aurora-worker=-Wl,-rpath,{}/lib",
            folder.display()
        );
    }
}

//! Prints the BLAKE3 of files as the store computes it: `hash_speed FILE…`, to be timed beside `b3sum`.
use aurora_runtime::store::hash_file;
use camino::Utf8PathBuf;

fn main() {
    for path in std::env::args().skip(1).map(Utf8PathBuf::from) {
        match hash_file(&path) {
            Ok(hash) => println!("{hash}  {path}"),
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
}

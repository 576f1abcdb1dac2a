use aurora_sandbox::*;
use std::time::Duration;
#[test]
fn smoke() {
    let p = protection(&[]);
    println!("{p:?}");
    let p = match p { Ok(p) => p, Err(e) => { println!("{e}"); e.anyway() } };
    println!("{p}");
    let limits = Limits { wall: Duration::from_secs(2), cpu: Duration::from_secs(2), memory: 256<<20, processes: 1, output: 4096, files: 0 };
    let start = std::time::Instant::now();
    let py = python::Python::find(&p, &limits);
    println!("{py:?} {:?}", start.elapsed());
    let py = py.unwrap().unwrap();
    for code in std::env::var("CODE").unwrap_or("print(1)".into()).split("---") {
    println!("{code}: {:?}", py.check(&p, code, &limits).map(|v| (v.passed, v.outcome.ended, String::from_utf8_lossy(&v.outcome.output).into_owned(), v.outcome.seconds)));
    }
}

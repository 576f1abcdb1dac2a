//! Remote imports: pinned by the lock, read from the store, refused if they change.

use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex};

use crate::project::{Done, Project};

/// A server of files in memory, and the requests that it received.
struct Server {
    address: String,
    files: Arc<Mutex<Vec<(&'static str, String)>>>,
    requested: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            address: format!("http://{}", listener.local_addr().expect("an address")),
            files: Arc::default(),
            requested: Arc::default(),
        };
        let (files, requested) = (Arc::clone(&server.files), Arc::clone(&server.requested));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                let Some(Ok(request)) = lines.next() else { continue };
                lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .for_each(drop);
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let files = files.lock().expect("no thread panicked");
                let found = files
                    .iter()
                    .find(|(name, _)| *name == path)
                    .map(|(_, text)| text.clone());
                requested.lock().expect("no thread panicked").push(path);
                let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                let body = found.unwrap_or_default();
                let length = body.len();
                // A client may close the connection.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        server
    }

    fn put(&self, path: &'static str, text: &str) {
        let mut files = self.files.lock().expect("no thread panicked");
        files.retain(|(name, _)| *name != path);
        files.push((path, text.to_owned()));
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requested.lock().expect("no thread panicked"))
    }
}

const LIBRARY: &str = "import \"deep/rates.aur\" { rate }\nlet beginning = constant(rate = rate, warmup = 4 steps)\n";

fn project(server: &Server) -> Project {
    server.put("/lib/schedules.aur", LIBRARY);
    server.put("/lib/deep/rates.aur", "let rate = 3e-3\n");
    let project = Project::new();
    let spec = project
        .read("specs/small.aur")
        .replacen("constant(rate = 3e-3, warmup = 4 steps)", "beginning", 1);
    let import = format!("import \"{}/lib/schedules.aur\" {{ beginning }}\n", server.address);
    project.write("specs/small.aur", &(import + &spec));
    project
}

/// A server that sends spaces without end, and stops only when the client does.
fn endless() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let head = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            if head.is_ok() {
                while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
            }
        }
    });
    address
}

#[test]
fn an_endless_text_is_refused() {
    let server = Server::start();
    let project = project(&server);
    let import = format!("import \"{}/endless.aur\"\n", endless());
    project.write("specs/small.aur", &(import + &project.read("specs/small.aur")));
    let done = project.aurora(&["lock", "specs/small.aur"]);
    done.exits(1);
    done.prints("has more than 4194304 bytes, the most that is read of it");
}

fn store_of(project: &Project) -> std::path::PathBuf {
    project.path(".aurora/imports")
}

#[test]
fn a_remote_text_is_pinned_and_read_from_the_store() {
    let server = Server::start();
    let project = project(&server);
    let plain_keys = Project::new().keys();
    // Only `lock` and `run` fetch texts that no lock pins.
    let check = |more: &[&str]| -> Done { project.aurora(&[&["check", "specs/small.aur"], more].concat()) };
    let unpinned = check(&[]);
    unpinned.exits(1);
    unpinned.prints("no lock pins its text; run `aurora lock SPEC` to pin it");
    project
        .aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"])
        .exits(1);
    project.aurora(&["lock", "specs/small.aur", "--offline"]).exits(1);
    assert_eq!(server.requests(), [""; 0]);
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    assert_eq!(server.requests(), ["/lib/schedules.aur", "/lib/deep/rates.aur"]);
    let lock = project.read("lockfiles/small.lock");
    let pin = format!("[import.\"{}/lib/deep/rates.aur\"]", server.address);
    assert!(lock.contains(&pin), "{lock}");
    assert!(lock.contains(&blake3_of("let rate = 3e-3\n")), "{lock}");
    // The values count, not where they were written.
    assert_eq!(project.keys(), plain_keys);
    // A remote change has no effect.
    server.put("/lib/deep/rates.aur", "let rate = 1e-3\n");
    check(&[]).exits(0);
    let run = project.aurora(&["run", "specs/small.aur", "--locked", "--offline", "--progress", "none"]);
    run.exits(0);
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    project.aurora(&["gc"]).exits(0);
    project
        .aurora(&["rerun", "lockfiles/small.lock", "--offline", "--progress", "none"])
        .exits(0);
    assert_eq!(server.requests(), [""; 0]);
    // A clone without a store fetches what the lock pins; another text is an error that reports both.
    std::fs::remove_dir_all(store_of(&project)).expect("removed");
    check(&[]).prints("is not in the store; run `aurora lock SPEC` to fetch it");
    let changed = project.aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"]);
    changed.exits(1);
    for content in ["let rate = 3e-3\n", "let rate = 1e-3\n"] {
        changed.prints(&blake3_of(content));
    }
    let address = format!("{}/lib/deep/rates.aur", server.address);
    project
        .aurora(&["lock", "specs/small.aur", "--upgrade", &address])
        .exits(0);
    assert!(
        project
            .read("lockfiles/small.lock")
            .contains(&blake3_of("let rate = 1e-3\n"))
    );
    assert_ne!(project.keys(), plain_keys);
    let nothing = project.aurora(&["lock", "specs/small.aur", "--upgrade", "https://example.org/x.aur"]);
    nothing.exits(1);
    nothing.prints("the spec does not import `https://example.org/x.aur`");
}

#[test]
fn a_damaged_text_of_the_store_is_not_used() {
    let server = Server::start();
    let project = project(&server);
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    server.requests();
    for entry in std::fs::read_dir(store_of(&project)).expect("texts").flatten() {
        std::fs::write(entry.path(), "let rate = 9\n").expect("written");
    }
    project
        .aurora(&["check", "specs/small.aur"])
        .prints("is not in the store");
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    assert_eq!(server.requests().len(), 2);
    project.aurora(&["check", "specs/small.aur"]).exits(0);
    // Texts that no lock pins are deleted.
    std::fs::remove_file(project.path("lockfiles/small.lock")).expect("removed");
    project.aurora(&["gc"]).exits(0);
    assert_eq!(std::fs::read_dir(store_of(&project)).expect("the folder").count(), 0);
}

#[test]
fn a_missing_text_is_reported() {
    let server = Server::start();
    let project = project(&server);
    project.edit("lib/schedules.aur", "lib/nothing.aur");
    let done = project.aurora(&["lock", "specs/small.aur"]);
    done.exits(1);
    done.prints("/lib/nothing.aur`");
    done.prints("404");
}

fn blake3_of(text: &str) -> String {
    aurora_runtime::content_of(text.as_bytes())
}

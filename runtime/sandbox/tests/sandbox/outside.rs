//! Targets of hostile programs: a store, a home, servers, the test itself; and checks whether they were reached.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A word that no program may ever print: it is in the files that it must not read.
pub const CANARY: &str = "canary-5f1e8c";

pub struct Outside {
    folder: TempDir,
    /// Inherited by every process that this one starts, unless it is closed.
    _open: OwnedFd,
    tcp: TcpListener,
    udp: UdpSocket,
    abstract_name: String,
    servers: [UnixListener; 2],
    before: String,
}

impl Outside {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["store", "home"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("secret"), CANARY).expect("a file");
        }
        fs::create_dir(folder.path().join("open")).expect("a folder");
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(folder.path().join("open"), anybody).expect("a mode");
        let mut secret = fs::File::open(folder.path().join("store/secret")).expect("the file");
        secret.seek(SeekFrom::Start(0)).expect("its beginning");
        // SAFETY: a new descriptor, which is owned here, without close-on-exec.
        let open = unsafe { OwnedFd::from_raw_fd(libc::dup(secret.as_raw_fd())) };
        let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let udp = UdpSocket::bind(tcp.local_addr().expect("an address")).expect("the same port");
        let abstract_name = format!("hostile-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let servers = [
            UnixListener::bind_addr(&by_name).expect("a server"),
            UnixListener::bind(folder.path().join("socket")).expect("a server"),
        ];
        tcp.set_nonblocking(true).expect("a mode");
        udp.set_nonblocking(true).expect("a mode");
        for server in &servers {
            server.set_nonblocking(true).expect("a mode");
        }
        let mut outside = Self {
            folder,
            _open: open,
            tcp,
            udp,
            abstract_name,
            servers,
            before: String::new(),
        };
        outside.before = outside.state();
        outside
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Constants for the programs, as Python code.
    pub fn python_constants(&self) -> String {
        format!(
            "secrets = [{:?}, {:?}]\noutside = {:?}\nport = {}\nsocket_name = {:?}\nsocket_path = {:?}\nparent = {}\n",
            self.path("store/secret"),
            self.path("home/secret"),
            self.path("open"),
            self.tcp.local_addr().expect("an address").port(),
            self.abstract_name,
            self.path("socket"),
            std::process::id(),
        )
    }

    /// Everything that hostile programs could have changed, as text.
    fn state(&self) -> String {
        let mut state = String::new();
        let mut files = vec![
            self.folder.path().to_owned(),
            "/usr/bin/python3".into(),
            "/dev/null".into(),
        ];
        while let Some(path) = files.pop() {
            let known = fs::symlink_metadata(&path).expect("a file that was there");
            let (mode, user, inode) = (known.mode(), known.uid(), known.ino());
            state.push_str(&format!("{} {mode:o} {user} {inode}\n", path.display()));
            if known.is_dir() {
                let names = fs::read_dir(&path).expect("a folder");
                let mut names: Vec<_> = names.map(|entry| entry.expect("an entry").path()).collect();
                names.sort();
                files.extend(names);
            } else if path.starts_with(self.folder.path()) && known.is_file() {
                let (bytes, time) = (fs::read(&path).expect("a file"), known.mtime_nsec());
                state.push_str(&format!("  {bytes:?} {time} {}\n", known.nlink()));
            }
        }
        let status = fs::read_to_string("/proc/self/status").expect("this process");
        let processors = status.lines().filter(|line| line.starts_with("Cpus_allowed"));
        state.extend(processors.map(|line| format!("{line}\n")));
        state.push_str(&fs::read_to_string("/proc/self/limits").expect("this process"));
        // SAFETY: returns a number.
        let priority = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        state.push_str(&format!("priority {priority}\n"));
        state
    }

    /// Targets that were reached.
    pub fn reached(&self) -> Vec<String> {
        let mut reached = Vec::new();
        let after = self.state();
        if after != self.before {
            reached.push(format!("changed:\n{}\nwas:\n{}", after, self.before));
        }
        if self.tcp.accept().is_ok() {
            reached.push("a connection".to_owned());
        }
        if self.udp.recv(&mut [0; 8]).is_ok() {
            reached.push("a datagram".to_owned());
        }
        if self.servers.iter().any(|server| server.accept().is_ok()) {
            reached.push("a connection to a socket".to_owned());
        }
        reached
    }
}

/// Other processes with a word in their command, as far as they can be read.
pub fn processes(word: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let listed = fs::read_dir("/proc").expect("processes").flatten();
    let of_others = listed.filter(|entry| entry.file_name() != own.as_str());
    let found = of_others.filter_map(|entry| {
        let mut command = Vec::new();
        // It may end meanwhile.
        fs::File::open(entry.path().join("cmdline"))
            .ok()?
            .read_to_end(&mut command)
            .ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command
            .contains(word)
            .then(|| format!("{:?} {command}", entry.file_name()))
    });
    found.collect()
}

/// Files with a word in their names in folders that everyone can write.
pub fn litter(word: &str) -> Vec<PathBuf> {
    let places = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/", "/usr/lib"].map(Path::new);
    let entries = places
        .into_iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().contains(word)).collect()
}

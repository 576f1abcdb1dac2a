//! Specs and projects of a stranger: nothing of theirs runs, and no variable is sent, before the user has allowed it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::missing_tools::missing_tool;
use crate::project::{Done, Project, SPEC};

/// A project whose evals run a program and ask a server. A run without the network ends after consent, because one source is
/// not pinned.
fn judged() -> Project {
    let project = Project::new();
    let judged = r#"source judges { from = "file:judges/*.py" }
source later { from = "pkg:pypi/networkx@3.6.1" }
corpus later { language = code  from = [code(later)] }
eval liking {
  kind    = plug_in
  data    = [english]
  files   = ["**/*.txt"]
  judge   = command(judges, run = ["python3", "judges/judge.py"])
  better  = higher
}
eval asking {
  kind    = refusal
  data    = [english]
  files   = ["**/*.txt"]
  judge   = endpoint("https://api.example.com/v1", model = "m", question = "{response}?", secret = "AURORA_TEST_KEY")
}
expect learned"#;
    project.write("specs/small.aur", &SPEC.replace("expect learned", judged));
    project.write("judges/judge.py", "print('{\"score\": 1}')\n");
    project.write("judges/words.py", "WORDS = []\n");
    project
}

const RUN: [&str; 5] = ["run", "specs/small.aur", "--offline", "--progress", "none"];

fn is_refused(project: &Project) {
    let done = project.aurora(&RUN);
    done.exits(1);
    done.prints("you have not allowed what `small` does outside of Aurora");
    done.prints("aurora trust specs/small.aur");
    assert!(!project.path(".aurora").exists(), "before any work");
}

/// Consent was there: the run ends at the source that is not pinned.
fn is_allowed(project: &Project) {
    let done = project.aurora(&RUN);
    done.exits(4);
    done.prints("sources are not pinned: later");
    std::fs::remove_dir_all(project.path(".aurora")).expect("a store");
}

#[test]
fn judges_need_consent_and_every_edit_needs_it_again() {
    let project = judged();
    is_refused(&project);
    let done = project.aurora(&[&RUN[..], &["--set", "stage.cap.budget=17 steps"]].concat());
    done.prints("run `aurora trust specs/small.aur --set 'stage.cap.budget=17 steps'`");
    done.prints(
        "eval `liking` runs the program `python3 judge.py` with the files judge.py, words.py, in a sandbox without network",
    );
    done.prints("eval `asking` sends the answers and the variable `AURORA_TEST_KEY` to https://api.example.com/v1");
    // What runs nothing needs no consent.
    for command in ["check", "build", "plan", "show"] {
        project.aurora(&[command, "specs/small.aur"]).exits(0);
    }
    project.aurora(&["diff", "specs/small.aur", "specs/small.aur"]).exits(0);
    project
        .aurora(&["trust", "specs/small.aur", "--list"])
        .prints("not allowed: eval `liking`");
    is_refused(&project);
    project.aurora(&["trust", "specs/small.aur"]).prints("\nallowed: eval");
    is_allowed(&project);
    let changes = [
        ("judges/words.py", "WORDS = []\n", "WORDS = ['no']\n"),
        ("specs/small.aur", "\"judges/judge.py\"]", "\"judges/words.py\"]"),
        (
            "specs/small.aur",
            "\"judges/judge.py\"]",
            "\"judges/judge.py\"], needs = [network]",
        ),
        ("specs/small.aur", "AURORA_TEST_KEY", "HOME"),
        ("specs/small.aur", "api.example.com", "api.example.net"),
    ];
    for (file, old, new) in changes {
        let text = project.read(file);
        assert!(text.contains(old));
        project.write(file, &text.replace(old, new));
        is_refused(&project);
        project.write(file, &text);
        is_allowed(&project);
    }
    // No edit of anything else.
    project.edit("{response}?", "Is this a refusal? {response}");
    is_allowed(&project);
    project.aurora(&["trust", "specs/small.aur", "--revoke"]).exits(0);
    is_refused(&project);
    let done = project.aurora(&[&RUN[..], &["--trust"]].concat());
    done.exits(4);
    is_allowed(&project);
    // A file of the project with the name of a grant is not one.
    let mut command = project.command(&RUN);
    let output = command
        .env("XDG_CONFIG_HOME", "specs")
        .env("HOME", project.root())
        .output();
    Done(output.expect("the binary starts")).exits(1);
}

/// Consent is for the bytes of a program: those of a package are known once it is pinned.
#[test]
fn a_judge_of_a_package_must_be_pinned() {
    let project = judged();
    project.edit("judge   = command(judges,", "judge   = command(later,");
    let done = project.aurora(&RUN);
    done.exits(1);
    done.prints("a program in source `later`, which is not pinned");
    done.prints("aurora lock SPEC");
}

#[test]
fn a_terminal_is_asked() {
    if Command::new("script").arg("--version").output().is_err() {
        return missing_tool("script", "questions on a terminal");
    }
    let project = judged();
    for (answer, status) in [("n\n", 1), ("\n", 1), ("y\n", 4)] {
        let mut words = vec![env!("CARGO_BIN_EXE_aurora")];
        words.extend(RUN);
        let mut command = project.command(&[]);
        let environment: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
            .collect();
        command = Command::new("script");
        command
            .args(["-qec", &words.join(" "), "/dev/null"])
            .current_dir(project.root());
        for (name, value) in environment {
            command.env(name, value.expect("a value"));
        }
        let mut script = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script starts");
        script
            .stdin
            .take()
            .expect("its input")
            .write_all(answer.as_bytes())
            .expect("an answer");
        let done = Done(script.wait_with_output().expect("a child"));
        done.exits(status);
        done.prints("Allow it, now and in later runs? [y/N]");
        done.prints("and the variable `AURORA_TEST_KEY`");
    }
    is_allowed(&project);
}

/// A server of files, and the requests that it has received, with their headers.
struct Server {
    address: String,
    requests: Arc<Mutex<String>>,
}

impl Server {
    fn start(files: Vec<(&'static str, &'static str, Vec<u8>)>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address").to_string(),
            requests: Arc::default(),
        };
        let requests = Arc::clone(&server.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                let head: Vec<String> = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                requests.lock().expect("no thread panicked").push_str(&head.join("\n"));
                let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
                let found = files.iter().find(|(name, ..)| *name == path);
                let (status, kind, body) = match found {
                    Some((_, kind, body)) => ("200 OK", *kind, &body[..]),
                    None => ("404 Not Found", "text/plain", &b""[..]),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // A client may close the connection.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        server
    }

    fn requests(&self) -> String {
        self.requests.lock().expect("no thread panicked").clone()
    }
}

/// A source distribution whose build backend writes a file.
fn hostile_package(canary: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("hostile-1.0");
    std::fs::create_dir(&root).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).expect("a file");
    write("PKG-INFO", "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n");
    write(
        "pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
    );
    write("setup.py", &format!("open({canary:?}, 'w')\n"));
    write("backend.py", &format!("open({canary:?}, 'w')\n"));
    let packed = Command::new("tar")
        .args(["-cz", "-C"])
        .arg(folder.path())
        .arg("hostile-1.0")
        .output()
        .expect("tar");
    packed.stdout
}

#[test]
fn a_source_distribution_is_not_built() {
    let has_pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !has_pip.is_ok_and(|output| output.status.success()) {
        return missing_tool("pip", "packages of PyPI");
    }
    let project = Project::new();
    let canary = project.path("canary");
    let package = hostile_package(canary.to_str().expect("UTF-8"));
    let page =
        b"<!DOCTYPE html><html><body><a href=\"/hostile-1.0.tar.gz\">hostile-1.0.tar.gz</a></body></html>".to_vec();
    let server = Server::start(vec![
        ("/simple/hostile/", "text/html", page),
        ("/hostile-1.0.tar.gz", "application/gzip", package),
    ]);
    let spec = SPEC.replace(
        "corpus py {",
        "source hostile { from = \"pkg:pypi/hostile@1.0\" }\ncorpus py {",
    );
    project.write(
        "specs/small.aur",
        &spec.replace("[code(program)]", "[code(program), code(hostile)]"),
    );
    for command in [
        &["check", "specs/small.aur"][..],
        &["build", "specs/small.aur"],
        &["plan", "specs/small.aur"],
        &["lock", "specs/small.aur"],
        &["run", "specs/small.aur", "--progress", "none"],
    ] {
        let output = project
            .command(command)
            .env("PIP_INDEX_URL", format!("http://{}/simple/", server.address))
            .env("PIP_CONFIG_FILE", "/dev/null")
            .output();
        let done = Done(output.expect("the binary starts"));
        assert!(
            !canary.exists(),
            "`aurora {}` has built the package: {}",
            command.join(" "),
            done.err()
        );
        if matches!(command[0], "lock" | "run") {
            done.exits(4);
            done.prints("`pkg:pypi/hostile@1.0` has no wheel");
        }
    }
    assert!(
        server.requests().contains("GET /simple/hostile/"),
        "{}",
        server.requests()
    );
}

/// Package clients read settings from the folder in which they start and from those above it: a project's may name programs.
#[test]
fn a_project_cannot_set_up_the_package_clients() {
    let project = Project::new();
    let canary = project.path("canary");
    project.write(
        "evil/bin/cargo",
        &format!("#!/bin/sh\ntouch {}\nexit 1\n", canary.display()),
    );
    std::fs::create_dir(project.path("evil/lib")).expect("a folder");
    for name in ["cargo", "rustc"] {
        let program = project.path("evil/bin").join(name);
        if name == "rustc" {
            std::fs::copy(project.path("evil/bin/cargo"), &program).expect("a program");
        }
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }
    let evil = project.path("evil");
    project.write(
        ".cargo/config.toml",
        &format!("[build]\nrustc = {:?}\n", evil.join("bin/rustc")),
    );
    project.write("rust-toolchain.toml", &format!("[toolchain]\npath = {evil:?}\n"));
    project.write("package.json", "{\"name\": \"x\", \"version\": \"1.0.0\"}\n");
    let server = Server::start(Vec::new());
    let settings = format!(
        "registry=http://{0}/\n//{0}/:_authToken=${{AURORA_TEST_KEY}}\n",
        server.address
    );
    project.write(".npmrc", &settings);
    let own = Server::start(Vec::new());
    project.write("user/npmrc", &format!("registry=http://{}/\n", own.address));
    for (client, package) in [("cargo", "pkg:cargo/itoa@1.0.0"), ("npm", "pkg:npm/left-pad@1.3.0")] {
        if Command::new(client).arg("--version").output().is_err() {
            missing_tool(client, "its packages");
            continue;
        }
        let source = format!("source other {{ from = \"{package}\" }}\ncorpus py {{");
        let spec = SPEC.replace("corpus py {", &source);
        project.write(
            "specs/small.aur",
            &spec.replace("[code(program)]", "[code(program), code(other)]"),
        );
        let output = project
            .command(&["lock", "specs/small.aur"])
            .env("AURORA_TEST_KEY", "s3cret")
            .env("CARGO_NET_OFFLINE", "true")
            .env("NPM_CONFIG_USERCONFIG", project.path("user/npmrc"))
            .output();
        let done = Done(output.expect("the binary starts"));
        assert!(
            !canary.exists(),
            "{client} has run a program of the project: {}",
            done.err()
        );
        assert_eq!(server.requests(), "", "{client} has asked the project's server");
    }
}

/// The token of a server is sent encrypted, or stays on this machine.
#[test]
fn a_token_is_not_sent_without_encryption() {
    let project = Project::new();
    let output = project
        .command(&[
            "export",
            "mlflow",
            "specs/small.aur",
            "http://mlflow.example.com:5000",
            "--token",
            "AURORA_TEST_KEY",
        ])
        .env("AURORA_TEST_KEY", "s3cret")
        .output();
    let done = Done(output.expect("the binary starts"));
    done.exits(1);
    done.prints("the token or password would be sent to `http://mlflow.example.com:5000` without encryption");
}

/// Starts two processes with torchrun's variables for `hosts` hosts, of which this machine is all.
fn torchrun(project: &Project, hosts: usize, token: Option<&str>) -> Vec<Done> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port() - 1;
    drop(free);
    let start = |rank: usize| {
        let mut command = project.command(&["run", "specs/small.aur", "--progress", "none"]);
        command
            .args(["--launcher", "torchrun", "--layout", "data=2"])
            .env_remove("AURORA_TOKEN");
        for (name, value) in [
            ("RANK", rank),
            ("WORLD_SIZE", 2),
            ("LOCAL_RANK", rank % (2 / hosts)),
            ("LOCAL_WORLD_SIZE", 2 / hosts),
            ("MASTER_PORT", port.into()),
            ("OMP_NUM_THREADS", 1),
        ] {
            command.env(name, value.to_string());
        }
        // Workers of one host without a secret do not use it.
        command.env("MASTER_ADDR", if token.is_some() { "127.0.0.1" } else { "192.0.2.1" });
        if let Some(token) = token {
            command.env("AURORA_TOKEN", token);
        }
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    };
    let processes = [start(0), start(1)];
    let ended = processes.map(|process| Done(process.wait_with_output().expect("a child")));
    ended.into()
}

/// torchrun's id of a run is no secret: it is `none` unless it is set. The listener's own tests are strangers that connect.
#[test]
fn workers_of_torchrun_have_a_secret_or_are_of_this_machine() {
    let project = Project::new();
    for done in torchrun(&project, 2, None) {
        done.exits(1);
        done.prints("the workers are on several hosts, and `AURORA_TOKEN` is not set");
    }
    for done in torchrun(&project, 2, Some("short")) {
        done.exits(1);
        done.prints("`AURORA_TOKEN` has fewer than 16 characters");
    }
    for done in torchrun(&project, 1, None) {
        done.exits(0);
    }
    let results = project.results();
    let again = Project::new();
    for done in torchrun(&again, 2, Some("a secret of these hosts")) {
        done.exits(0);
    }
    assert_eq!(again.results(), results);
}

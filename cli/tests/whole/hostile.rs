//! Input that is made to read what it must not, to wait for ever, or to write to the terminal.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::project::{Done, Project, SPEC};

#[test]
fn pipes_and_devices_in_place_of_a_spec_are_refused() {
    let project = Project::new();
    let pipe = project.path("specs/pipe.aur");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    symlink("/dev/zero", project.path("specs/zero.aur")).expect("a link");
    for spec in ["specs/pipe.aur", "specs/zero.aur"] {
        for command in ["check", "build", "plan", "fmt"] {
            let done = project.aurora(&[command, spec]);
            done.exits(1);
            done.prints("it is not a regular file");
        }
    }
    // As an import of another file.
    project.write("specs/small.aur", &format!("import \"pipe.aur\"\n{SPEC}"));
    let done = project.aurora(&["check", "specs/small.aur"]);
    done.exits(1);
    done.prints("it is not a regular file");
}

#[test]
fn symbolic_links_do_not_lead_out_of_the_project() {
    let project = Project::new();
    let outside = tempfile::tempdir().expect("a folder");
    let secret = outside.path().join("secret.aur");
    std::fs::write(&secret, "token = hunter2 {\n").expect("a file");
    symlink(&secret, project.path("specs/library.aur")).expect("a link");
    project.write("specs/small.aur", &format!("import \"library.aur\"\n{SPEC}"));
    let done = project.aurora(&["check", "specs/small.aur"]);
    done.exits(1);
    done.prints("it is outside the project");
    assert!(
        !(done.out() + &done.err()).contains("hunter2"),
        "nothing of the file is printed"
    );
    // A source; also through a linked folder.
    project.write("specs/small.aur", SPEC);
    let data = project.path("data/english.txt");
    let kept = outside.path().join("english.txt");
    std::fs::rename(&data, &kept).expect("a file");
    symlink(&kept, &data).expect("a link");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(4);
    done.prints(", which is outside ");
    symlink(outside.path(), project.path("data/more")).expect("a link");
    project.edit("file:data/english.txt", "file:data/more/english.txt");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(4);
    done.prints(", which is outside ");
    // A link inside the project is followed.
    std::fs::remove_file(&data).expect("the link");
    std::fs::rename(&kept, project.path("data/original.txt")).expect("a file");
    symlink("original.txt", &data).expect("a link");
    project.edit("file:data/more/english.txt", "file:data/english.txt");
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
}

#[test]
fn texts_cannot_control_the_terminal() {
    let project = Project::new();
    project.write("specs/small.aur", "experiment x { sead = \"\u{1b}[2J\u{7}forged\" }\n");
    let done = project.aurora(&["check", "specs/small.aur"]);
    done.exits(1);
    let all = done.out() + &done.err();
    assert!(!all.contains(['\u{1b}', '\u{7}']), "{all:?}");
    assert!(all.contains("forged"), "{all:?}");
}

/// What a value must not do: begin a line that looks like one of Aurora.
#[track_caller]
fn forges_nothing(done: &Done) {
    let all = done.out() + &done.err();
    assert!(all.contains("forged"), "{all:?}");
    let is_forged = |line: &str| line.trim_start().starts_with("error: forged") || line.starts_with("  = help: forged");
    assert!(!all.lines().any(is_forged), "{all}");
    let controls = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
    assert!(!all.contains(controls), "{all:?}");
}

#[test]
fn values_cannot_forge_lines() {
    const FORGED: &str = "x\nerror: forged\n  = help: forged\u{1b}[31m\u{202e}\u{9b}1A\r";
    let project = Project::new();
    // The name of a file, in an error, in diagnostics and in a result.
    let name = format!("specs/{FORGED}.aur");
    forges_nothing(&project.aurora(&["check", &name]));
    project.write(&name, "experiment x {}\nmodel y {\n");
    forges_nothing(&project.aurora(&["check", &name]));
    project.write(&name, "experiment   x { seed = 1 }\n");
    forges_nothing(&project.aurora(&["fmt", &name]));
    // The text of a spec, in diagnostics.
    let spec = project.read("specs/small.aur");
    let source = r#"source english { from = "file:data/english.txt" }"#;
    project.write(
        "specs/small.aur",
        "experiment x { seed = \"error: forged\u{9b}1A\u{202e}\" }\n",
    );
    forges_nothing(&project.aurora(&["check", "specs/small.aur"]));
    let missing = "source english { from = \"file:data/forged\u{9b}1A\u{202e}\" }";
    project.write("specs/small.aur", &spec.replace(source, missing));
    forges_nothing(&project.aurora(&["run", "specs/small.aur", "--progress", "plain"]));
    project.write("specs/small.aur", &spec);
    // An entry of a lock, in an error.
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    let lock = project.read("lockfiles/small.lock");
    let entry = "spec = \"specs/small.aur\"";
    assert!(lock.contains(entry), "{lock}");
    let forged = "spec = \"x\\nerror: forged\\n  = help: forged\\u001b[31m\\u202e\\u009b1A\\r\"";
    project.write("lockfiles/small.lock", &lock.replace(entry, forged));
    forges_nothing(&project.aurora(&["rerun", "lockfiles/small.lock"]));
    // JSON stays exact, and controls nothing either.
    let done = project.aurora(&["check", &format!("{name}x"), "--json"]);
    let message = done.json()["error"]["message"].as_str().map(str::to_owned);
    assert!(message.is_some_and(|message| message.contains(FORGED)));
    let first = done.out();
    assert_eq!(first.lines().count(), 1);
    assert!(!first.contains(['\u{202e}', '\u{9b}', '\u{1b}']), "{first:?}");
}

#[test]
fn fmt_keeps_links_and_permissions() {
    let project = Project::new();
    let own = project.path("specs/own.aur");
    std::fs::write(&own, "experiment   small {   seed = 7 }\n").expect("a file");
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    symlink("own.aur", project.path("specs/link.aur")).expect("a link");
    project.aurora(&["fmt", "specs/link.aur"]).exits(0);
    let link = std::fs::symlink_metadata(project.path("specs/link.aur")).expect("a link");
    assert!(link.is_symlink());
    assert_eq!(
        std::fs::read_link(project.path("specs/link.aur")).expect("a link"),
        Path::new("own.aur")
    );
    let status = std::fs::metadata(&own).expect("a file");
    assert_eq!(status.permissions().mode() & 0o777, 0o600);
    assert!(project.read("specs/own.aur").starts_with("experiment small {"));
}

#[test]
fn a_link_in_place_of_a_written_file_is_replaced() {
    let project = Project::new();
    let outside = tempfile::tempdir().expect("a folder");
    let target = outside.path().join("profile");
    std::fs::write(&target, "kept\n").expect("a file");
    symlink(&target, project.path(".gitattributes")).expect("a link");
    assert!(
        std::process::Command::new("git")
            .arg("init")
            .current_dir(project.root())
            .output()
            .is_ok()
    );
    project.aurora(&["git", "install"]).exits(0);
    assert_eq!(
        std::fs::read_to_string(&target).expect("a file"),
        "kept\n",
        "nothing outside is written"
    );
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error() {
    let project = Project::new();
    // 8 blocks of 512 or 1024 bytes: less than a checkpoint or a token file.
    let script = format!(
        "ulimit -f 8; exec {} run specs/small.aur --progress none",
        env!("CARGO_BIN_EXE_aurora")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir(project.root());
    let output = command.env("AURORA_LIBTORCH", crate::project::libtorch()).output();
    let done = crate::project::Done(output.expect("sh starts"));
    done.exits(4);
    done.prints("File too large");
    done.prints("ulimit -f");
}

#[test]
fn what_a_source_unpacks_to_has_a_limit_that_the_spec_raises() {
    let project = Project::new();
    let packed = std::process::Command::new("gzip")
        .arg(project.path("data/english.txt"))
        .status();
    assert!(packed.expect("gzip").success());
    project.edit("\"file:data/english.txt\"", "\"file:data/english.txt.gz\"");
    let keys = project.keys();
    project.edit("english.txt.gz\" }", "english.txt.gz\"  at_most = 1 KiB }");
    assert_eq!(project.keys(), keys, "a limit changes no result");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(4);
    done.prints("`english.txt.gz`: it unpacks to more than 1024 bytes");
    done.prints("such as `at_most = 20 GiB`");
}

/// A server that answers every request with what it was sent, the key included.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            let head: Vec<String> = lines
                .by_ref()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let body = head.join("\n");
            let length = body.len();
            // A client may close the connection.
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

#[test]
fn a_key_that_a_server_repeats_is_neither_printed_nor_recorded() {
    const KEY: &str = "sk-known-to-nobody-else";
    let project = Project::new();
    let eval = format!(
        "source prompts {{ from = \"file:data/prompts.txt\" }}\neval red {{\n  kind = refusal\n  data = [prompts]\n  \
         files = [\"**/*.txt\"]\n  at = [start]\n  maximum = 2 tokens\n  judge = endpoint(\"{}/v1\", model = \"m\", \
         question = \"{{response}}\", secret = \"JUDGE_KEY\")\n}}\nstage cap {{",
        echo()
    );
    project.write("data/prompts.txt", "Why?\n");
    project.edit("stage cap {", &eval);
    let mut command = project.command(&["run", "specs/small.aur", "--progress", "plain", "--trust"]);
    let done = Done(command.env("JUDGE_KEY", KEY).output().expect("aurora starts"));
    done.exits(4);
    done.prints("answers with status 403");
    assert!(!(done.out() + &done.err()).contains(KEY), "{}", done.err());
    let record = project.read(".aurora/runs/latest/run.json");
    assert!(
        record.contains("answers with status 403") && record.contains("***"),
        "{record}"
    );
    let found = std::process::Command::new("grep")
        .args(["-r", KEY])
        .arg(project.root())
        .output();
    assert_eq!(String::from_utf8_lossy(&found.expect("grep").stdout), "");
    // The address of the interface, with a password: an error that does not show it.
    project.edit("http://127", "http://me:hunter2@127");
    let done = project.aurora(&["check", "specs/small.aur"]);
    done.exits(1);
    done.prints("this is not the address of a server");
    assert!(!(done.out() + &done.err()).contains("hunter2"), "{}", done.err());
}

//! Where sources are, and what identifies them.

use std::process::Command;

use crate::project::{Project, SPEC};

const LOCK: &str = "lockfiles/small.lock";

fn git(project: &Project, arguments: &[&str]) {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let done = Command::new("git")
        .args(identity)
        .args(arguments)
        .current_dir(project.root())
        .output();
    let done = done.expect("git starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Moving the files changes no key; renaming one does, and the results of the other name are not used for it.
#[test]
fn a_location_is_not_part_of_a_key_and_a_name_is() {
    let project = Project::new();
    let before = project.keys();
    for name in ["english.txt", "finnish.txt", "program.py"] {
        project.write(&format!("corpora/of/{name}"), &project.read(&format!("data/{name}")));
    }
    std::fs::remove_dir_all(project.path("data")).expect("removed");
    project.write("specs/small.aur", &SPEC.replace("file:data/", "file:corpora/of/"));
    assert_eq!(project.keys(), before);
    project.write("specs/small.aur", &SPEC.replace("file:data/", "file:sources:/"));
    let unbound = project.aurora(&["build", "specs/small.aur"]);
    unbound.exits(4);
    unbound.prints("the root `sources` is not bound to a folder on this machine: add `--root sources=FOLDER`");
    let bound = project.aurora(&["build", "specs/small.aur", "--root", "sources=corpora/of", "--json"]);
    bound.exits(0);
    let keys = bound.json()["nodes"].as_array().expect("nodes").clone();
    assert!(
        keys.iter()
            .all(|node| before[node["name"].as_str().expect("a name")] == node["key"])
    );
    project
        .aurora(&["build", "specs/small.aur", "--root", "sources"])
        .exits(2);
    let (old, new) = (
        project.path("corpora/of/english.txt"),
        project.path("corpora/of/englisch.txt"),
    );
    std::fs::rename(old, new).expect("renamed");
    project.write(
        "specs/small.aur",
        &SPEC
            .replace("file:data/english", "file:corpora/of/englisch")
            .replace("file:data/", "file:corpora/of/"),
    );
    let after = project.keys();
    assert_ne!(after["source/english"], before["source/english"]);
    assert_eq!(after["source/finnish"], before["source/finnish"]);
}

/// One line of `run` for each source that has changed; `diff` against the old revision; `--locked` refuses.
#[test]
fn changed_data_is_reported() {
    let project = Project::new();
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    git(&project, &["init", "--quiet"]);
    git(&project, &["add", "--all"]);
    git(&project, &["commit", "--quiet", "--message", "one"]);
    let text = project.read("data/english.txt");
    project.write("data/english.txt", &format!("{text}One more sentence is at the end.\n"));
    let locked = project.aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"]);
    locked.exits(1);
    locked.prints("E0506");
    locked.prints("english");
    let diff = project.aurora(&["diff", "HEAD:specs/small.aur", "specs/small.aur"]);
    diff.exits(1);
    diff.prints("source.english: file:data/english.txt (");
    diff.prints("source/english");
    let same = project.aurora(&["diff", "HEAD:specs/small.aur", "HEAD:specs/small.aur"]);
    same.exits(0);
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(0);
    let lines: Vec<String> = done
        .err()
        .lines()
        .filter(|line| line.contains("since the lock"))
        .map(str::to_owned)
        .collect();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let bytes = text.len();
    assert!(
        line.starts_with(&format!(
            "source `english` has changed since the lock: 1 file, {bytes} bytes ("
        )),
        "{line}"
    );
    assert!(line.contains(&format!("→ 1 file, {} bytes (", bytes + 33)), "{line}");
    assert!(
        !project
            .aurora(&["run", "specs/small.aur", "--progress", "none"])
            .err()
            .contains("since the lock")
    );
}

#[test]
fn two_specs_with_one_lock_are_an_error() {
    let project = Project::new();
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    project.write("specs/copy.aur", SPEC);
    for command in ["lock", "plan", "run"] {
        let done = project.aurora(&[command, "specs/copy.aur"]);
        done.exits(1);
        done.prints("E0508");
        done.prints("`specs/copy.aur` and `specs/small.aur` are both experiment `small`");
        done.prints("lockfiles/small.lock");
    }
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    // A spec that was moved takes its lock with it, and another experiment in the old place claims nothing.
    project.write("specs/small.aur", &SPEC.replace("experiment small", "experiment other"));
    project.aurora(&["lock", "specs/copy.aur"]).exits(0);
    assert!(project.read(LOCK).contains("spec = \"specs/copy.aur\""));
}

#[test]
fn what_a_folder_leaves_out_is_noted() {
    let project = Project::new();
    project.write("data/en/a.txt", &project.read("data/english.txt"));
    project.write("data/en/.DS_Store", "x");
    project.write("data/en/a.txt~", "x");
    project.edit("file:data/english.txt", "file:data/en");
    let done = project.aurora(&["lock", "specs/small.aur"]);
    done.exits(0);
    done.prints("note: source `english` (file:data/en): 1 files; 2 left out");
    assert!(project.read(LOCK).contains("files = [\"a.txt\"]"));
}

/// A tokenizer's file is renamed in the spec and on disk: the second run reads the renamed file.
#[test]
fn a_renamed_file_is_read_under_its_new_name() {
    let project = Project::new();
    project.run();
    let store = project.aurora(&["export", "hf", "small/cap", "exported"]);
    store.exits(0);
    let tokenizer = project.read("exported/tokenizer.json");
    for name in ["tokenizer-v1.json", "tokenizer-v2.json"] {
        let _ = std::fs::remove_file(project.path("data/tokenizer-v1.json"));
        project.write(&format!("data/{name}"), &tokenizer);
        let spec = SPEC
            .replace("experiment small", "experiment renamed")
            .replace(
                "source english",
                &format!("source tok {{ from = \"file:data/{name}\" }}\nsource english"),
            )
            .replace(
                "kind    = train_bpe(vocabulary = 512)\n  corpora = [en, fi, py]",
                &format!("kind = load(tok, member = \"data/{name}\")"),
            );
        project.write("specs/renamed.aur", &spec);
        let done = project.aurora(&["run", "specs/renamed.aur", "--progress", "none"]);
        done.exits(0);
    }
    std::fs::remove_dir_all(project.path(".aurora")).expect("removed");
    project
        .aurora(&["run", "specs/renamed.aur", "--locked", "--progress", "none"])
        .exits(0);
}

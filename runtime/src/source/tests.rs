use super::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    for (name, text) in [
        ("data/b.txt", "two"),
        ("data/a.txt", "one"),
        ("data/deep/c.txt", "three"),
        ("x.md", "no"),
    ] {
        let file = path.join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("created");
        std::fs::write(file, text).expect("written");
    }
    (folder, path)
}

fn get(root: &Utf8Path, text: &str, pinned: Option<&Pin>, offline: bool) -> Result<Fetched, FetchError> {
    let folders = Folders {
        project: root.to_owned(),
        ..Folders::default()
    };
    let context = SourceContext {
        name: "finnish",
        folders: &folders,
        scratch: root,
        cache: root,
        offline,
        at_most: None,
        limits: None,
    };
    fetch(
        &text.parse().expect("a reference"),
        pinned,
        context,
        ProgressReporter::none(),
    )
}

fn names(fetched: &Fetched) -> Vec<&str> {
    fetched.files.iter().map(|file| file.name.as_str()).collect()
}

fn write(root: &Utf8Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, text).expect("written");
}

/// The manifest as python computes it: `struct.pack("<Q", len(name)) + name + struct.pack("<Q", bytes) + blake3(data)`, with
/// BLAKE3 by the reference implementation in C.
#[test]
fn the_content_is_the_manifest_also_of_one_file() {
    let (_guard, root) = folder();
    let one = get(&root, "file:data/a.txt", None, true).expect("fetched");
    assert_eq!((one.bytes, names(&one)), (3, vec!["a.txt"]));
    let mut manifest = Vec::from(5u64.to_le_bytes());
    manifest.extend(b"a.txt");
    manifest.extend(3u64.to_le_bytes());
    manifest.extend(blake3::hash(b"one").as_bytes());
    assert_eq!(one.content, blake3::hash(&manifest).to_hex().as_str());
    let flat = get(&root, "file:data/*.txt", None, false).expect("fetched");
    assert_eq!(names(&flat), ["a.txt", "b.txt"]);
    let deep = get(&root, "file:**/*.txt", None, false).expect("fetched");
    assert_eq!(names(&deep), ["data/a.txt", "data/b.txt", "data/deep/c.txt"]);
    assert_eq!(deep.bytes, 11);
    // Swapped contents change the content.
    write(&root, "data/a.txt", "two");
    write(&root, "data/b.txt", "one");
    assert_ne!(
        get(&root, "file:data/*.txt", None, false).expect("fetched").content,
        flat.content
    );
    let error = get(&root, "file:data/*.json", None, false)
        .expect_err("none")
        .to_string();
    assert!(error.starts_with("no file matches `data/*.json`"), "{error}");
}

/// Moving files keeps the content, renaming one changes it.
#[test]
fn where_files_are_is_not_part_of_their_identity() {
    let (_guard, root) = folder();
    let content = |text: &str| get(&root, text, None, true).expect("fetched").content;
    let (one, several, all) = (
        content("file:data/a.txt"),
        content("file:data/*.txt"),
        content("file:data"),
    );
    assert_eq!(
        content("file:data/[a].txt"),
        one,
        "one file by a pattern is the same file"
    );
    std::fs::create_dir(root.join("moved")).expect("made");
    std::fs::rename(root.join("data"), root.join("moved/corpora")).expect("renamed");
    assert_eq!(content("file:moved/corpora/a.txt"), one);
    assert_eq!(content("file:moved/corpora/*.txt"), several);
    assert_eq!(content("file:moved/corpora"), all);
    assert_ne!(content("file:moved"), all);
    std::fs::rename(root.join("moved/corpora/a.txt"), root.join("moved/corpora/z.txt")).expect("renamed");
    assert_ne!(content("file:moved/corpora/z.txt"), one);
    assert_ne!(content("file:moved/corpora/*.txt"), several);
}

#[test]
fn a_folder_is_everything_under_it_except_hidden_and_temporary_files() {
    let (_guard, root) = folder();
    for name in [
        ".git/config",
        ".hidden.txt",
        "a.txt~",
        ".#a.txt",
        "#a.txt#",
        "a.swp",
        "deep/.DS_Store",
        "deep/._c.txt",
        "Thumbs.db",
    ] {
        write(&root, &format!("data/{name}"), "left out");
    }
    let all = get(&root, "file:data", None, true).expect("fetched");
    assert_eq!((names(&all), all.skipped), (vec!["a.txt", "b.txt", "deep/c.txt"], 9));
    assert_eq!(
        names(&get(&root, "file:data/", None, true).expect("fetched")),
        names(&all)
    );
    // Those that the pattern does not match are not counted.
    let flat = get(&root, "file:data/*.txt", None, true).expect("fetched");
    assert_eq!((names(&flat), flat.skipped), (vec!["a.txt", "b.txt"], 2));
    // An explicit name, and a pattern that names the dot.
    for (text, found) in [
        ("file:data/.hidden.txt", vec![".hidden.txt"]),
        ("file:data/a.txt~", vec!["a.txt~"]),
        ("file:data/.hid*", vec![".hidden.txt"]),
        ("file:data/.git", vec!["config"]),
        ("file:data/**/.git/*", vec![".git/config"]),
        ("file:data/*.swp", vec!["a.swp"]),
    ] {
        assert_eq!(names(&get(&root, text, None, true).expect(text)), found, "{text}");
    }
    write(&root, "only/.x", "hidden");
    let error = get(&root, "file:only", None, true).expect_err("nothing").to_string();
    assert!(error.contains("1 hidden or temporary entries were left out"), "{error}");
}

#[test]
fn links_to_files_are_read_and_links_to_folders_are_counted() {
    use std::os::unix::fs::symlink;
    let (_guard, root) = folder();
    symlink("a.txt", root.join("data/link.txt")).expect("linked");
    symlink("..", root.join("data/up")).expect("linked");
    let all = get(&root, "file:data", None, true).expect("fetched");
    assert_eq!(
        (names(&all), all.skipped),
        (vec!["a.txt", "b.txt", "deep/c.txt", "link.txt"], 1)
    );
    symlink("missing.txt", root.join("data/gone.txt")).expect("linked");
    let error = get(&root, "file:data", None, true).expect_err("a missing target");
    assert!(crate::errors::chain(&error).contains("gone.txt"), "{error}");
    std::fs::remove_file(root.join("data/gone.txt")).expect("removed");
    let outside = tempfile::NamedTempFile::new().expect("a file");
    symlink(outside.path(), root.join("data/out.txt")).expect("linked");
    let error = get(&root, "file:data", None, true).expect_err("outside").to_string();
    assert!(
        error.contains("which is outside") && error.contains("--root scratch="),
        "{error}"
    );
}

#[test]
fn a_named_root_is_bound_for_each_machine() {
    let (_guard, root) = folder();
    let fetch_with = |folders: &Folders, text: &str| {
        let context = SourceContext {
            name: "finnish",
            folders,
            scratch: &root,
            cache: &root,
            offline: true,
            at_most: None,
            limits: None,
        };
        fetch(
            &text.parse().expect("a reference"),
            None,
            context,
            ProgressReporter::none(),
        )
    };
    let bound = |folder: &str| Folders {
        project: root.join("project"),
        roots: [("scratch".to_owned(), root.join(folder))].into(),
        configuration: None,
    };
    let fetched = fetch_with(&bound("data"), "file:scratch:/*.txt").expect("fetched");
    assert_eq!(names(&fetched), ["a.txt", "b.txt"]);
    assert_eq!(fetched.reference.to_string(), "file:scratch:/*.txt");
    // The binding is not part of the identity.
    std::fs::rename(root.join("data"), root.join("elsewhere")).expect("moved");
    let moved = fetch_with(&bound("elsewhere"), "file:scratch:*.txt").expect("fetched");
    assert_eq!(moved.content, fetched.content);
    // In the user's configuration.
    let configured = |text: &str| {
        write(&root, "config/roots.toml", text);
        let folders = Folders {
            configuration: Some(root.join("config")),
            ..Folders::default()
        };
        fetch_with(&folders, "file:scratch:/a.txt").map_err(|error| error.to_string())
    };
    assert!(configured(&format!("scratch = \"{root}/elsewhere\"\n")).is_ok());
    let error = configured("other = \"/x\"\n").expect_err("unbound");
    assert!(
        error.contains("`--root scratch=FOLDER`") && error.contains("config/roots.toml"),
        "{error}"
    );
    assert!(
        configured("scratch = \"elsewhere\"\n")
            .expect_err("relative")
            .contains("absolute")
    );
    assert!(
        configured("scratch = 1\n")
            .expect_err("a number")
            .contains("roots.toml")
    );
    assert!(
        configured("scratch = \"/no/such\"\n")
            .expect_err("missing")
            .contains("is not a folder")
    );
}

#[test]
fn a_changed_file_is_refused_with_both_contents() {
    let (_guard, root) = folder();
    let fetched = get(&root, "file:data/a.txt", None, false).expect("fetched");
    let pin = Pin {
        from: String::new(),
        files: Vec::new(),
        reference: fetched.reference.to_string(),
        bytes: fetched.bytes,
        content: fetched.content,
    };
    assert!(get(&root, "file:data/a.txt", Some(&pin), false).is_ok());
    std::fs::write(root.join("data/a.txt"), "One").expect("written");
    let changed = get(&root, "file:data/a.txt", None, false).expect("fetched").content;
    let error = get(&root, "file:data/a.txt", Some(&pin), false)
        .expect_err("changed")
        .to_string();
    assert!(error.contains(&pin.content) && error.contains(&changed), "{error}");
    assert!(error.contains("`aurora lock --upgrade finnish`"), "{error}");
}

#[test]
fn offline_fetches_nothing() {
    let (_guard, root) = folder();
    for text in [
        "pkg:pypi/x@1",
        "pkg:deb/debian/x@1?suite=bookworm",
        "pkg:npm/x@1",
        "pkg:cargo/x@1",
        "https://127.0.0.1:9/x",
        "s3://bucket/x",
        "gs://bucket/x",
        "az://container/x",
    ] {
        let error = get(&root, text, None, true).expect_err("offline").to_string();
        assert_eq!(
            error,
            format!("`{text}` is not available here, and `--offline` forbids fetching it")
        );
    }
}

mod cloud;
mod hub;
mod server;
mod web;

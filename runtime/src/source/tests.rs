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
    let context = Context {
        name: "finnish",
        project: root,
        scratch: root,
        cache: root,
        offline,
    };
    fetch(&text.parse().expect("a reference"), pinned, context, Watch::nobody())
}

#[test]
fn one_file_is_its_hash_and_several_are_their_manifests() {
    let (_guard, root) = folder();
    let one = get(&root, "file:data/a.txt", None, true).expect("fetched");
    assert_eq!((one.bytes, one.files.len()), (3, 1));
    assert_eq!(one.content, blake3::hash(b"one").to_hex().as_str());
    let names = |fetched: &Fetched| fetched.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let flat = get(&root, "file:data/*.txt", None, false).expect("fetched");
    assert_eq!(names(&flat), ["data/a.txt", "data/b.txt"]);
    let deep = get(&root, "file:**/*.txt", None, false).expect("fetched");
    assert_eq!(names(&deep), ["data/a.txt", "data/b.txt", "data/deep/c.txt"]);
    assert_eq!(deep.bytes, 11);
    // Contents that are swapped, or a file that is renamed, are another content.
    std::fs::write(root.join("data/a.txt"), "two").expect("written");
    std::fs::write(root.join("data/b.txt"), "one").expect("written");
    assert_ne!(
        get(&root, "file:data/*.txt", None, false).expect("fetched").content,
        flat.content
    );
    let error = get(&root, "file:data/*.json", None, false)
        .expect_err("none")
        .to_string();
    assert!(error.starts_with("no file matches `data/*.json`"), "{error}");
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
    let error = get(&root, "file:data/a.txt", Some(&pin), false)
        .expect_err("changed")
        .to_string();
    assert!(
        error.contains(&pin.content) && error.contains(blake3::hash(b"One").to_hex().as_str()),
        "{error}"
    );
    assert!(error.contains("`aurora lock --upgrade finnish`"), "{error}");
}

#[test]
fn offline_fetches_nothing() {
    let (_guard, root) = folder();
    let error = get(&root, "pkg:pypi/x@1", None, true).expect_err("offline").to_string();
    assert_eq!(error, "`pkg:pypi/x@1` is not here and `--offline` forbids to fetch it");
}

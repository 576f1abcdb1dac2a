//! Fetches the real libraries into the user's cache, once: NCCL and the CUDA runtime as wheels, RCCL and the HIP
//! runtime as Debian packages with all dependencies, including the C library. Nothing is installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Aurora's cache folder.
fn cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("AURORA_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("aurora")))
        .or_else(|| Some(set("HOME")?.join(".cache/aurora")))
        .unwrap_or_else(|| ".aurora-cache".into())
}

/// A folder of the cache, created if it is missing; it is renamed when it is complete.
fn once(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let folder = cache().join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    println!("fetching into {}, once", folder.display());
    fs::create_dir_all(cache()).map_err(|error| error.to_string())?;
    let scratch = tempfile::Builder::new()
        .prefix(".rccl-")
        .tempdir_in(cache())
        .map_err(|error| error.to_string())?;
    let made = scratch.path().join("made");
    fs::create_dir(&made).map_err(|error| error.to_string())?;
    make(&made)?;
    // Another process may have created it first.
    match fs::rename(&made, &folder) {
        Err(error) if !folder.is_dir() => Err(error.to_string()),
        _ => Ok(folder),
    }
}

/// Runs a program and returns its output.
fn run<A: AsRef<OsStr>>(command: &mut Command, arguments: &[A]) -> Result<String, String> {
    let output = command.args(arguments).output();
    let name = command.get_program().to_string_lossy().into_owned();
    let output = output.map_err(|error| format!("cannot run `{name}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{name}` failed: {}", error.lines().last().unwrap_or_default()))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    let ends = |path: &PathBuf| path.extension().is_some_and(|extension| extension == ending);
    listing.map(|entry| entry.path()).filter(ends).collect()
}

/// A folder with `nvidia/nccl` and `nvidia/cu13`.
#[allow(dead_code)] // other test programs include this file
pub fn nccl() -> Result<PathBuf, String> {
    wheels("nccl-2.32.3", "requirements.txt")
}

/// A folder with NVRTC in `nvidia/cu13/lib`.
#[allow(dead_code)] // as above
pub fn nvrtc() -> Result<PathBuf, String> {
    wheels("nvrtc-13.0.88", "nvrtc.txt")
}

/// A folder of the cache with the contents of the wheels in a list.
fn wheels(name: &str, list: &str) -> Result<PathBuf, String> {
    once(name, |made| {
        let pip = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ];
        let patience = ["--retries", "1", "--timeout", "15"];
        let platforms = [
            "--platform",
            "manylinux_2_27_x86_64",
            "--platform",
            "manylinux_2_12_x86_64",
            "--platform",
            "manylinux2014_x86_64",
            "-r",
        ];
        let mut python = Command::new("python3");
        python.args(pip).args(patience).args(platforms);
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lists = ["tests/real", "../rccl-sys/tests/real"].map(|folder| here.join(folder).join(list));
        python.arg(lists.iter().find(|path| path.exists()).unwrap_or(&lists[0]));
        run(python.arg("-d"), &[made])?;
        for wheel in files(made, "whl") {
            run(Command::new("python3").args(["-m", "zipfile", "-e"]), &[&wheel, made])?;
            fs::remove_file(wheel).map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

/// A root folder with Debian trixie's `librccl1`, the headers of RCCL and HIP, and all run-time dependencies.
pub fn rccl() -> Result<PathBuf, String> {
    once("rccl-trixie", |made| {
        let apt = made.with_file_name("apt");
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc/sources.list.d",
            "etc/preferences.d",
        ] {
            fs::create_dir_all(apt.join(part)).map_err(|error| error.to_string())?;
        }
        let mirror = mirror()?;
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let here = apt.display();
        let settings = format!(
            "Dir::State \"{here}/state\";\nDir::State::status \"{here}/state/status\";\nDir::Cache \"{here}/cache\";\n\
             Dir::Etc::sourcelist \"{here}/etc/sources.list\";\nDir::Etc::sourceparts \"{here}/etc/sources.list.d\";\n\
             Dir::Etc::preferencesparts \"{here}/etc/preferences.d\";\nDir::Etc::preferences \"/dev/null\";\n\
             APT::Architecture \"amd64\";\nAPT::Sandbox::User \"root\";\nDebug::NoLocking \"1\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"1\";\nAcquire::http::Timeout \"15\";\n"
        );
        let write = |name: &str, text: &str| fs::write(apt.join(name), text).map_err(|error| error.to_string());
        write("state/status", "")?;
        write(
            "etc/sources.list",
            &format!("deb [signed-by={key}] {mirror} trixie main\n"),
        )?;
        write("apt.conf", &settings)?;
        let get = || {
            let mut get = Command::new("apt-get");
            get.env("APT_CONFIG", apt.join("apt.conf"))
                .current_dir(apt.join("cache/archives"));
            get
        };
        run(&mut get(), &["update", "-q"])?;
        // The status is empty, so this downloads all dependencies, including the C library.
        let closure = [
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            "--download-only",
            "librccl1",
        ];
        run(&mut get(), &closure)?;
        run(&mut get(), &["download", "-q", "librccl-dev", "libamdhip64-dev"])?;
        for package in files(&apt.join("cache/archives"), "deb") {
            run(Command::new("dpkg").arg("-x"), &[package.as_path(), made])?;
        }
        Ok(())
    })
}

/// The Debian mirror that the system uses.
fn mirror() -> Result<String, String> {
    let format = "$(REPO_URI) $(CODENAME) $(COMPONENT)";
    let listed = run(&mut Command::new("apt-get"), &["indextargets", "--format", format])?;
    let main = listed.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (uri, codename, component) = (words.next()?, words.next()?, words.next()?);
        (uri.trim_end_matches('/').ends_with("/debian") && !codename.contains('-') && component == "main")
            .then_some(uri)
    });
    main.map(str::to_owned)
        .next()
        .ok_or_else(|| "the system has no Debian mirror".to_owned())
}

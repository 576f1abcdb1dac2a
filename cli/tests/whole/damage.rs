//! Damaged bytes, full disks, read-only stores.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::missing_tools::missing_tool;
use crate::project::Project;
use crate::stores::records;

fn flip(path: &std::path::Path) {
    let mut bytes = fs::read(path).expect("an object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("permissions");
    fs::write(path, bytes).expect("an object");
}

#[test]
fn a_flipped_byte_is_reported_and_never_used() {
    let project = Project::new();
    project.run();
    let results = project.results();
    for path in project.objects() {
        if fs::metadata(&path).expect("an object").len() == 0 {
            continue;
        }
        flip(&path);
        let name = path
            .parent()
            .and_then(|folder| folder.file_name())
            .expect("a folder")
            .to_string_lossy()
            .into_owned();
        let done = project.aurora(&["verify"]);
        done.exits(1);
        done.prints(&format!(
            "damaged: cas/{name}/{}",
            path.file_name().expect("a name").to_string_lossy()
        ));
    }
    project.run();
    assert_eq!(project.results(), results);
    project.aurora(&["verify"]).exits(0);
}

#[test]
fn damaged_records_are_reported_and_rebuilt() {
    let project = Project::new();
    project.run();
    let results = project.results();
    for folder in ["actions", "realised", "names/small", "classes"] {
        for path in records(&project, folder) {
            flip(&path);
        }
    }
    project.aurora(&["verify"]).exits(1);
    project.run();
    assert_eq!(project.results(), results);
}

#[test]
fn a_full_or_read_only_disk_is_reported_and_damages_nothing() {
    let project = Project::new();
    project.run();
    let mount = |arguments: &[&str]| {
        Command::new("mount")
            .args(arguments)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let unmount = |path: &str| drop(Command::new("umount").arg(path).output());
    let small = project.path("small-disk");
    fs::create_dir_all(&small).expect("a folder");
    let small = small.to_string_lossy().into_owned();
    if !mount(&["-t", "tmpfs", "-o", "size=600k", "tmpfs", &small]) {
        return missing_tool("mount", "full and read-only disks");
    }
    let store = format!("{small}/store");
    let done = project.aurora(&["run", "specs/small.aur", "--store", &store, "--progress", "none"]);
    let verified = project.aurora(&["verify", "--store", &store]);
    let read_only = mount(&["-o", "remount,ro", &small]);
    let refused = project.aurora(&["run", "specs/small.aur", "--store", &store, "--progress", "none"]);
    let still = project.aurora(&["verify", "--store", &store]);
    unmount(&small);
    done.exits(4);
    done.prints("No space left on device");
    done.prints("help: free space");
    verified.exits(0);
    assert!(read_only);
    refused.exits(4);
    refused.prints("Read-only file system");
    refused.prints("help: make the store writable");
    still.exits(0);
}

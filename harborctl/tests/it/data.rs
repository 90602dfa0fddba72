//! What `harborctl dev` keeps, and who can read it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Running, endpoint, run, subscription, told, write};

fn resources(folder: &Path) {
    write(
        folder,
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            ("subscription.yaml", &subscription("all", "target", "**")),
        ],
    );
}

fn dev(folder: &Path, data: &Path) -> (i32, String, String) {
    let (folder, data) = (folder.to_str().unwrap(), data.to_str().unwrap());
    told(&run(&["dev", folder, "--data", data, "--listen", "127.0.0.1:0", "--once"]))
}

#[test]
fn every_file_is_readable_by_this_user_alone() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    resources(folder.path());
    fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    let mut running = Running::dev(folder.path(), data.path());
    let event = running.publish("a.b", "{}");
    running.attempt_of(&event);
    assert_eq!(fs::metadata(data.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(data.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
        names.push(entry.file_name().into_string().unwrap());
    }
    for name in ["ledger.db", "ledger.db-wal", "sealing.key", "generated-secrets.yaml"] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
    running.stop();
}

#[test]
fn a_folder_that_others_may_look_into_is_refused_with_the_command_that_helps() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    resources(folder.path());
    fs::write(data.path().join("foreign"), "").unwrap();
    fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    let (code, stdout, stderr) = dev(folder.path(), data.path());
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("chmod 700"), "{stderr}");
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_written_into_the_folder_of_resources() {
    let folder = tempfile::tempdir().unwrap();
    resources(folder.path());
    for inside in ["data", "deep/er", "."] {
        let (code, stdout, stderr) = dev(folder.path(), &folder.path().join(inside));
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("--data"), "{stderr}");
    }
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["endpoint.yaml", "subscription.yaml"]);
}

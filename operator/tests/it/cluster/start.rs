//! The real program, started with what it cannot work with.

use std::ffi::OsString;
use std::path::Path;

use tokio::process::Command;
use tokio::time::timeout;

use super::support::PATIENCE;

/// Runs the program with these options beside what it needs; answers its exit code and what it wrote to stderr.
async fn run(folder: &Path, options: &[&str], kubeconfig: Option<&str>) -> (Option<i32>, String) {
    let key = folder.join("sealing.key");
    std::fs::write(&key, [7; 32]).unwrap();
    let variables: [(&str, OsString); 6] = [
        ("HOME", folder.into()),
        ("HARBORHOOK_DATABASE", format!("sqlite:{}", folder.join("ledger").display()).into()),
        ("HARBORHOOK_SEALING_KEY_FILE", key.into()),
        ("HARBORHOOK_NAMESPACE", "harborhook".into()),
        ("HARBORHOOK_IDENTITY", "one".into()),
        ("HARBORHOOK_ADMIN_LISTEN", "127.0.0.1:0".into()),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
    command.env_clear().envs(variables).arg("run").args(options).kill_on_drop(true);
    if let Some(file) = kubeconfig {
        command.env("KUBECONFIG", folder.join(file));
    }
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("short.key"), [7; 5]).unwrap();
    std::fs::write(folder.path().join("nonsense"), "clusters: 7").unwrap();
    let (short, missing) = (folder.path().join("short.key"), folder.path().join("missing.key"));
    for (options, kubeconfig, words) in [
        (vec!["--no-such-option"], None, "--no-such-option"),
        (vec!["--resync-seconds", "9"], None, "--resync-seconds"),
        (vec!["--namespace", "Harbor_Hook"], None, "--namespace: \"Harbor_Hook\" is no name"),
        (vec!["--database", "sqlite:"], None, "--database: sqlite: names no file"),
        (vec!["--database", "postgres://u@h/d?sslrootcert=/missing"], None, "the database's URL is wrong: sslrootcert"),
        (vec!["--sealing-key-file", short.to_str().unwrap()], None, "--sealing-key-file"),
        (vec!["--sealing-key-file", missing.to_str().unwrap()], None, "--sealing-key-file"),
        (vec!["--pool-deployment", "pool", "--pool-min-replicas", "20"], None, "--pool-min-replicas"),
        (vec![], Some("missing"), "the API server is not known"),
        (vec![], Some("nonsense"), "the API server is not known"),
        (vec![], None, "run in a pod with a ServiceAccount's token, or name a file in KUBECONFIG"),
    ] {
        let (code, errors) = run(folder.path(), &options, kubeconfig).await;
        assert_eq!(code, Some(2), "{options:?}: {errors}");
        assert!(errors.contains(words), "{options:?}: {errors}");
        assert!(!folder.path().join("ledger").exists(), "{options:?}");
    }
}

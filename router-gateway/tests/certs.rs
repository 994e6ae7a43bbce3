//! `router-gateway certs dev`: what it writes, what it leaves alone, and that its lines are the configuration's.

#![cfg(feature = "tls")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_router-gateway")).args(arguments).output().unwrap()
}

fn certs(out: &Path, more: &[&str]) -> Output {
    run(&[&["certs", "dev", "--out", out.to_str().unwrap()], more].concat())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_makes_certificates_and_prints_the_lines_that_use_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/certs");
    let made = certs(&out, &["--service", "orders", "--service", "billing", "--name", "gw.internal"]);
    assert!(made.status.success(), "{made:?}");
    for name in ["ca", "gateway", "orders", "billing"] {
        assert_eq!(mode(&out.join(format!("{name}.key"))), 0o600, "{name}");
        assert!(out.join(format!("{name}.pem")).exists(), "{name}");
    }
    let printed = String::from_utf8(made.stdout).unwrap();
    let (router, services) = printed.split_once("\n\n# microservice.yaml of orders\n").unwrap();
    assert!(services.contains("orders.pem") && services.contains("billing.key"), "{services}");
    let config = folder.path().join("router.yaml");
    std::fs::write(&config, router).unwrap();
    let checked = run(&["check", config.to_str().unwrap()]);
    assert!(checked.status.success(), "{checked:?}\n{router}");

    // A key of another certificate is found by `check`.
    std::fs::copy(out.join("orders.key"), out.join("gateway.key")).unwrap();
    let checked = run(&["check", config.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("gateway.key: the key is not that of"), "{checked:?}");
}

#[test]
fn it_replaces_nothing_unless_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    assert!(certs(out, &[]).status.success());
    let before = std::fs::read(out.join("ca.pem")).unwrap();
    let again = certs(out, &["--service", "other"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("ca.pem is there already; `--force`"), "{again:?}");
    assert_eq!(std::fs::read(out.join("ca.pem")).unwrap(), before);
    assert!(!out.join("other.pem").exists());
    assert!(certs(out, &["--force"]).status.success());
    assert_ne!(std::fs::read(out.join("ca.pem")).unwrap(), before);
    assert_eq!(mode(&out.join("gateway.key")), 0o600);
}

#[test]
fn what_cannot_be_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for more in [["--service", "ca"], ["--service", "gateway"], ["--service", "Orders"]] {
        let refused = certs(folder.path(), &more);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(certs(&file, &[]).status.code(), Some(1));
    assert!(!folder.path().join("ca.pem").exists());
}

//! Libraries that programs download with: Python's paramiko and asyncssh, Node's ssh2.

use crate::served::{Served, USER, run, succeed};
use std::fs;
use std::path::Path;
use std::process::Command;

/// More than a window of 2 MiB and what queues there are in between.
const SIZE: usize = 24 << 20;

/// Downloads `/2026/shop.dump` by a script that leaves files of this content in `got`.
fn download(program: &str, script: &str, key: &str, prepare: impl FnOnce(&mut Command)) -> (Vec<u8>, String) {
    let served = Served::new();
    let dump = served.put("/2026/shop.dump", SIZE);
    let got = served.path("got");
    fs::create_dir(&got).unwrap();
    let mut command = Command::new(program);
    prepare(&mut command);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/scripts").join(script));
    command.args([&served.port.to_string(), &served.text(key), &served.text("known_hosts"), USER, "/2026/shop.dump"]);
    let said = succeed(&run(command.arg(&got).arg(SIZE.to_string())));
    for file in fs::read_dir(&got).unwrap() {
        let path = file.unwrap().path();
        let content = fs::read(&path).unwrap();
        assert!(dump.ends_with(&content), "{}", path.display());
        let expected = if path.ends_with("tail") { 1000 } else { SIZE };
        assert_eq!(content.len(), expected, "{}", path.display());
    }
    (dump, said)
}

/// A Python that has this module.
fn python_with(module: &str) -> Option<&'static str> {
    let has = |python: &&str| {
        let tried = Command::new(python).args(["-c", &format!("import {module}")]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    if found.is_none() {
        println!("not tested: Python has no {module}");
    }
    found
}

#[test]
fn paramiko_asks_for_a_whole_file_at_once() {
    let Some(python) = python_with("paramiko") else { return };
    let (dump, said) = download(python, "paramiko_client.py", "key.pem", |_| {});
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &dump);
    assert_eq!(said.trim(), data_encoding::HEXLOWER.encode(digest.as_ref()));
}

#[test]
fn asyncssh_with_many_requests() {
    let Some(python) = python_with("asyncssh") else { return };
    download(python, "asyncssh_client.py", "key.pem", |_| {});
}

#[test]
fn node_downloads_in_pieces() {
    let modules = Command::new("npm").args(["root", "--global"]).output();
    let Ok(modules) = modules.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        println!("not tested: npm is not installed");
        return;
    };
    if !Path::new(&modules).join("ssh2-sftp-client").is_dir() {
        println!("not tested: ssh2-sftp-client is not installed (npm install --global ssh2-sftp-client)");
        return;
    }
    download("node", "node_client.js", "key", |command| {
        command.env("NODE_PATH", &modules);
    });
}

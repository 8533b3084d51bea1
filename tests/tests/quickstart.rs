//! The first two commands a person types do what the README says.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::path::Path;
use std::process::Command;
use tests::harness::Binaries;
use tests::seed::Seed;
use tests::trees::{Totals, life_like};

/// Smallest reserve that a server takes by itself: whether the backup goes through must not depend on how full the disk is.
const RESERVE_BYTES: &str = "67108864";

#[test]
fn quickstart_once_compares_equal() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    life_like(&source, Totals { files: 300, bytes: 20 << 20 }, Seed::announce()).unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../quickstart"))
        .arg("--once")
        .arg(&source)
        .env("HOLDFAST_BIN_DIR", Binaries::of_this_build().unwrap().server.parent().unwrap())
        .env("TMPDIR", &work)
        .env("HOLDFAST_DISK_RESERVE_BYTES", RESERVE_BYTES)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for part in ["everything compared equal", "ratio", "MB/s", "https://127.0.0.1:"] {
        assert!(said.contains(part), "does not say {part}: {said}");
    }
    assert!(std::fs::read_dir(&work).unwrap().next().is_none(), "something was left behind");
}

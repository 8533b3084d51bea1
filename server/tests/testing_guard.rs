//! A server whose clock can be moved from outside must not compile without debug assertions.
#![allow(clippy::unwrap_used, reason = "a failure here is the failure of the test")]

use std::path::Path;
use std::process::{Command, Output};

fn compile(options: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testing_guard.rs");
    let compiler = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut command = Command::new(compiler);
    command.args(["--crate-type", "lib", "--edition", "2024", "--check-cfg", "cfg(feature, values(\"testing\"))"]);
    command.args(options).arg("--out-dir").arg(folder.path()).arg(source).output().unwrap()
}

#[test]
fn testing_is_refused_without_debug_assertions() {
    let refused = compile(&["--cfg", "feature=\"testing\"", "-C", "debug-assertions=off"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("must not be in a build without debug assertions"), "{text}");

    for allowed in [
        &["--cfg", "feature=\"testing\"", "-C", "debug-assertions=on"][..],
        &["-C", "debug-assertions=off"][..],
        &["-C", "debug-assertions=on"][..],
    ] {
        let compiled = compile(allowed);
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
}

//! Finds the Holdfast binaries that belong to this bench: those of the same profile, built first when cargo runs it.

use crate::error::{BenchError, Doing};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that holds `holdfastd` and `holdfast`.
pub fn folder() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().doing("own binary")?;
    let folder = own.parent().unwrap_or(Path::new(".")).to_path_buf();
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        // The whole workspace, as ./quickstart does: another selection has other features, and compiles more.
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if folder.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        let status = build.status().doing("cargo build")?;
        if !status.success() {
            return Err(BenchError::Setup("the binaries do not build".into()));
        }
    }
    for name in ["holdfastd", "holdfast"] {
        if !folder.join(name).is_file() {
            return Err(BenchError::Setup(format!("{name} is not in {}; build it first", folder.display())));
        }
    }
    Ok(folder)
}

//! Pack files: names, appending, reading. Knows nothing of the index.

mod appender;
mod reader;
mod scan;

pub(crate) use appender::{Appender, NewFrame, PackNumbers, Sealable};
pub(crate) use reader::{PackFiles, read_frame};
pub(crate) use scan::{
    FoundFrame, TrailerTrust, begin_again, read_readable, read_trailer, scan_frames, scan_pack, seal_adopted,
};

use repo_format::id::PackId;
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".pack";

/// Folder of a vault's packs.
pub(crate) fn packs_directory(vault_directory: &Path) -> PathBuf {
    vault_directory.join("packs")
}

/// File of a pack.
pub(crate) fn pack_path(packs_directory: &Path, pack: &PackId) -> PathBuf {
    packs_directory.join(format!("{pack}{EXTENSION}"))
}

/// The pack a file name stands for, or `None` for a file that is not a pack.
pub(crate) fn pack_of_name(name: &str) -> Option<PackId> {
    name.strip_suffix(EXTENSION)?.parse().ok()
}

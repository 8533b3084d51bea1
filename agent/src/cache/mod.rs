//! What the agent remembers between runs of one series, so that an unchanged tree is neither read nor downloaded. Its
//! loss costs time only, and with `bundles` some space: everything in it is a copy or a hint that is checked before use.
//!
//! One folder per (server, vault, computer, series) with three files, each replaced as a whole at the end of a run:
//! `files` ([`files`]), `nodes` ([`nodes`]) and `bundles` ([`bundles`]). Each names the snapshot root it belongs to.

pub mod bundles;
pub mod files;
pub mod nodes;

use crate::config::{Folders, Login};
use std::path::PathBuf;

/// The folder of one series. Its name is a hash: computer and series may hold anything.
pub fn series_folder(folders: &Folders, login: &Login, computer: &str, series: &str) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for part in [login.url.as_str(), login.vault.as_str(), computer, series] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let name = data_encoding::HEXLOWER.encode(&hasher.finalize().as_bytes()[..16]);
    folders.cache.join("series").join(name)
}

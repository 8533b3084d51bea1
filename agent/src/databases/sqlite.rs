//! SQLite: a copy made by `sqlite3` inside one read transaction, page for page, so that pages that did not change
//! deduplicate. Other programs go on reading and, with a write-ahead log, writing meanwhile.
//!
//! The copy stands in a folder of the cache until it is complete, which takes as much space there as the database has;
//! then it is opened and its name removed, so that nothing of it is left whatever happens.

use super::{Dump, installed, program};
use crate::backup::{Stream, StreamInput};
use crate::config::private_folder;
use crate::error::AgentError;
use crate::program::Group;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// Longest wait for a writer that locks the database, milliseconds.
const LOCK_WAIT_MS: u32 = 60_000;
/// What is printed by the commands of a copy: a number.
const OUTPUT_BYTES_MAX: u64 = 4096;
const COPY: &str = "copy.sqlite";

/// Name of the file in the snapshot.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn dump(path: &Path, cache: &Path, group: Option<&Group>) -> Result<Dump, AgentError> {
    if !path.is_absolute() {
        return Err(AgentError::Usage(format!("{}: an SQLite database is named by its absolute path", path.display())));
    }
    std::fs::metadata(path).map_err(|error| AgentError::file(path, error))?;
    let (sqlite, _) = installed(&["sqlite3"], "sqlite3", &["--version"])?;
    let folder = Folder::create(&cache.join("copies"))?;
    let mut command = Command::new(sqlite);
    // The transaction keeps the copy from beginning again at every write of others, and from ending in another state.
    command.args(["-init", "/dev/null", "-batch", "-bail"]).arg(read_only_name(path));
    command.args([&format!(".timeout {LOCK_WAIT_MS}"), "BEGIN", "SELECT count(*) FROM sqlite_master"]);
    command.arg(format!(".backup main {COPY}")).current_dir(folder.place.path());
    program(command, group).output(OUTPUT_BYTES_MAX)?;
    let copy = folder.place.path().join(COPY);
    let file = File::open(&copy).map_err(|error| AgentError::file(&copy, error))?;
    drop(folder);
    let stream = Stream { name: file_name(path), input: StreamInput::Reader(Box::new(file)) };
    Ok(Dump { streams: vec![stream], warnings: Vec::new() })
}

/// A database as a URI that is only read, never made; everything but plain letters is escaped.
fn read_only_name(path: &Path) -> String {
    let mut name = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => name.push(char::from(*byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name.push_str("?mode=ro");
    name
}

/// A folder for one copy, locked while it is in use.
struct Folder {
    place: tempfile::TempDir,
    _lock: OwnedFd,
}

impl Folder {
    /// A new one below `parent`; what a killed run left there goes.
    fn create(parent: &Path) -> Result<Self, AgentError> {
        private_folder(parent)?;
        // One run at a time, or a folder would be taken for an old one before it is locked.
        let _alone =
            opened(parent).and_then(|folder| Ok(flock(&folder, FlockOperation::LockExclusive).map(|()| folder)?));
        for entry in std::fs::read_dir(parent).map_err(|error| AgentError::file(parent, error))?.flatten() {
            if locked(&entry.path()).is_ok() {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        // Made under a name that no other run takes for an old one before it is locked.
        let made = tempfile::Builder::new().prefix("copy-").tempdir_in(parent);
        let place = made.map_err(|error| AgentError::file(parent, error))?;
        let lock = locked(place.path()).map_err(|error| AgentError::file(place.path(), error))?;
        Ok(Folder { place, _lock: lock })
    }
}

fn opened(folder: &Path) -> std::io::Result<OwnedFd> {
    Ok(open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn locked(folder: &Path) -> std::io::Result<OwnedFd> {
    let folder = opened(folder)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(read_only_name(Path::new("/srv/a b?c%.db")), "file:/srv/a%20b%3Fc%25.db?mode=ro");
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("copy-left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join(COPY), b"x").unwrap();
        let used = Folder::create(folder.path()).unwrap();
        assert!(!left.exists());
        let other = Folder::create(folder.path()).unwrap();
        assert!(used.place.path().exists() && other.place.path().exists());
    }
}

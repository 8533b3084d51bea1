//! How long RocksDB's manifest is known to be. RocksDB takes a manifest that ends early for a shorter history: it then
//! opens tables of different ages, whose log is gone, and says nothing. So its length on disk is written down, and a
//! manifest that is shorter, or an older one, is damage.

use crate::error::StoreError;
use crate::world::{SystemVfs, Vfs};
use std::io;
use std::path::{Path, PathBuf};

/// In the index's folder; RocksDB leaves names alone that are not its own.
const MARK_FILE: &str = "manifest-length";
/// Longest file read here, bytes.
const TEXT_BYTES_MAX: u64 = 4096;

/// A manifest and how much of it is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    /// Its number; RocksDB begins a new one at every start, with a higher number.
    number: u64,
    len: u64,
}

impl Mark {
    /// Twice, so that a mark which is damaged itself is told from one that is true.
    fn encode(self) -> String {
        let line = format!("{} {}\n", self.number, self.len);
        format!("{line}{line}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (first, second) = (lines.next()?, lines.next()?);
        let (number, len) = first.split_once(' ').filter(|_| first == second)?;
        Some(Mark { number: number.parse().ok()?, len: len.parse().ok()? })
    }
}

/// Refuses an index whose manifest has become shorter than it was.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let mark = match text(&directory.join(MARK_FILE)) {
        Ok(text) => Mark::parse(&text),
        Err(_) => None,
    };
    // What of this cannot be read RocksDB judges itself.
    let (Some(mark), Ok((number, path))) = (mark, current(directory)) else { return Ok(()) };
    let Ok(len) = SystemVfs.open(&path).and_then(|file| file.len()) else { return Ok(()) };
    if number < mark.number || (number == mark.number && len < mark.len) {
        return Err(StoreError::IndexDamaged(format!(
            "{} has {len} bytes, manifest {} had {}; stop the server and run `holdfastd rebuild-index`",
            path.display(),
            mark.number,
            mark.len
        )));
    }
    Ok(())
}

/// What was noted last.
#[derive(Default)]
pub(super) struct Noted(Option<Mark>);

impl Noted {
    /// Notes how long the manifest of an open index is now.
    pub(super) fn note(&mut self, directory: &Path) {
        match note(directory, self.0) {
            Ok(mark) => self.0 = Some(mark),
            Err(error) => tracing::warn!(%error, "the length of the index's manifest could not be noted"),
        }
    }

    /// As [`Noted::note`], for every sync of the log: the manifest grows when a table is written, once in many megabytes.
    pub(super) fn note_if_changed(&mut self, directory: &Path) {
        if mark_of(directory).is_ok_and(|mark| self.0 != Some(mark)) {
            self.note(directory);
        }
    }
}

fn note(directory: &Path, before: Option<Mark>) -> io::Result<Mark> {
    let (number, path) = current(directory)?;
    let file = SystemVfs.open(&path)?;
    let mark = Mark { number, len: file.len()? };
    if before != Some(mark) {
        // Only what is on disk may be expected after a loss of power.
        file.sync_data()?;
        SystemVfs.replace(&directory.join(MARK_FILE), mark.encode().as_bytes())?;
    }
    Ok(mark)
}

fn mark_of(directory: &Path) -> io::Result<Mark> {
    let (number, path) = current(directory)?;
    Ok(Mark { number, len: SystemVfs.open(&path)?.len()? })
}

/// Number and file of the manifest in force.
fn current(directory: &Path) -> io::Result<(u64, PathBuf)> {
    let name = text(&directory.join("CURRENT"))?;
    let name = name.trim();
    let number = name.strip_prefix("MANIFEST-").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "CURRENT names no manifest"))?;
    Ok((number, directory.join(name)))
}

fn text(path: &Path) -> io::Result<String> {
    let bytes = SystemVfs.read(path, TEXT_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(number: u64, len: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        set(folder.path(), number, len);
        folder
    }

    fn set(folder: &Path, number: u64, len: usize) {
        std::fs::write(folder.join("CURRENT"), format!("MANIFEST-{number:06}\n")).unwrap();
        std::fs::write(folder.join(format!("MANIFEST-{number:06}")), vec![7; len]).unwrap();
    }

    #[test]
    fn a_manifest_may_grow_and_give_way_to_a_newer_one_but_never_shrink() {
        let folder = index(25, 1000);
        check(folder.path()).unwrap();
        Noted::default().note(folder.path());
        for (number, len, sound) in
            [(25, 1000, true), (25, 1001, true), (26, 10, true), (25, 999, false), (24, 5000, false)]
        {
            set(folder.path(), number, len);
            assert_eq!(check(folder.path()).is_ok(), sound, "{number} {len}");
        }
    }

    #[test]
    fn what_was_written_since_the_last_note_is_noted_by_the_next_sync() {
        let folder = index(25, 1000);
        let mut noted = Noted::default();
        noted.note(folder.path());
        set(folder.path(), 25, 1500);
        noted.note_if_changed(folder.path());
        set(folder.path(), 25, 1200);
        check(folder.path()).unwrap_err();
        set(folder.path(), 26, 10);
        noted.note_if_changed(folder.path());
        check(folder.path()).unwrap();
        set(folder.path(), 25, 1500);
        check(folder.path()).unwrap_err();
    }

    #[test]
    fn a_damaged_mark_is_none() {
        let folder = index(25, 1000);
        Noted::default().note(folder.path());
        let path = folder.path().join(MARK_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] = b'9';
        std::fs::write(&path, bytes).unwrap();
        check(folder.path()).unwrap();
    }
}

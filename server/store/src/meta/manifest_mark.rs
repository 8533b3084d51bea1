//! How long RocksDB's manifest is known to be, and what it holds as far as that. RocksDB takes a manifest that ends early,
//! or whose last record claims to go on behind the end of the file, for a shorter history: it then opens tables of
//! different ages, whose log is gone, and says nothing. So its length and checksum on disk are written down, and a
//! manifest that is shorter, another one up to there, or an older one, is damage.

use crate::error::StoreError;
use crate::world::{SystemVfs, Vfs, VfsFile};
use std::io;
use std::path::{Path, PathBuf};

/// In the index's folder; RocksDB leaves names alone that are not its own.
const MARK_FILE: &str = "manifest-length";
/// Longest file read here, bytes.
const TEXT_BYTES_MAX: u64 = 4096;
/// Bytes of a manifest read at once.
const PIECE_BYTES: u64 = 64 << 10;

/// A manifest and how much of it is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    /// Its number; RocksDB begins a new one at every start, with a higher number.
    number: u64,
    len: u64,
    /// CRC-32C of these bytes; absent in marks of older versions.
    crc: Option<u32>,
}

impl Mark {
    /// Twice, so that a mark which is damaged itself is told from one that is true.
    fn encode(self) -> String {
        let crc = self.crc.map(|crc| format!(" {crc}")).unwrap_or_default();
        let line = format!("{} {}{crc}\n", self.number, self.len);
        format!("{line}{line}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (first, second) = (lines.next()?, lines.next()?);
        let mut words = Some(first).filter(|_| first == second)?.split(' ');
        let (number, len) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let crc = words.next().map(str::parse).transpose().ok()?;
        Some(Mark { number, len, crc })
    }
}

/// Refuses an index whose manifest is not what it was any more.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let mark = match text(&directory.join(MARK_FILE)) {
        Ok(text) => Mark::parse(&text),
        Err(_) => None,
    };
    // What of this cannot be read RocksDB judges itself.
    let (Some(mark), Ok((number, path))) = (mark, current(directory)) else { return Ok(()) };
    let Ok(file) = SystemVfs.open(&path) else { return Ok(()) };
    let Ok(len) = file.len() else { return Ok(()) };
    let damaged = |what: String| {
        let path = path.display();
        Err(StoreError::IndexDamaged(format!("{path} {what}; stop the server and run `holdfastd rebuild-index`")))
    };
    if number < mark.number || (number == mark.number && len < mark.len) {
        return damaged(format!("has {len} bytes, manifest {} had {}", mark.number, mark.len));
    }
    if number == mark.number
        && let Some(crc) = mark.crc
        && checksum(&*file, 0, mark.len, 0).is_ok_and(|now| now != crc)
    {
        return damaged("does not hold what was written".into());
    }
    Ok(())
}

/// What was noted last.
#[derive(Default)]
pub(super) struct Noted(Option<Mark>);

impl Noted {
    /// Notes how long the manifest of an open index is now, and what it holds.
    pub(super) fn note(&mut self, directory: &Path) {
        match note(directory, self.0) {
            Ok(mark) => self.0 = Some(mark),
            Err(error) => tracing::warn!(%error, "the length of the index's manifest could not be noted"),
        }
    }

    /// As [`Noted::note`], for every sync of the log: the manifest grows when a table is written, once in many megabytes.
    pub(super) fn note_if_changed(&mut self, directory: &Path) {
        let is_noted = |(number, _, len)| self.0.is_some_and(|mark| (mark.number, mark.len) == (number, len));
        if open_current(directory).is_ok_and(|manifest| !is_noted(manifest)) {
            self.note(directory);
        }
    }
}

fn note(directory: &Path, before: Option<Mark>) -> io::Result<Mark> {
    let (number, file, len) = open_current(directory)?;
    // What was noted has not changed since: only what came behind it is read.
    let noted = before.filter(|mark| mark.number == number && mark.len <= len);
    let (from, crc) = noted.and_then(|mark| Some((mark.len, mark.crc?))).unwrap_or_default();
    let mark = Mark { number, len, crc: Some(checksum(&*file, from, len, crc)?) };
    if before != Some(mark) {
        // Only what is on disk may be expected after a loss of power.
        file.sync_data()?;
        SystemVfs.replace(&directory.join(MARK_FILE), mark.encode().as_bytes())?;
    }
    Ok(mark)
}

/// CRC-32C of the first `to` bytes, when it is `crc` of the first `from`.
fn checksum(file: &dyn VfsFile, from: u64, to: u64, mut crc: u32) -> io::Result<u32> {
    let (mut at, mut piece) = (from, Vec::new());
    while at < to {
        piece.resize((to - at).min(PIECE_BYTES) as usize, 0);
        file.read_at(at, &mut piece)?;
        crc = crc32c::crc32c_append(crc, &piece);
        at += piece.len() as u64;
    }
    Ok(crc)
}

fn open_current(directory: &Path) -> io::Result<(u64, std::sync::Arc<dyn VfsFile>, u64)> {
    let (number, path) = current(directory)?;
    let file = SystemVfs.open(&path)?;
    let len = file.len()?;
    Ok((number, file, len))
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
    fn a_manifest_that_was_changed_is_damage_as_far_as_it_was_noted() {
        let folder = index(25, 1000);
        let mut noted = Noted::default();
        noted.note(folder.path());
        // What comes behind is added to what is known.
        let path = folder.path().join("MANIFEST-000025");
        let mut bytes = vec![7; 1000];
        bytes.extend(vec![8; 500]);
        std::fs::write(&path, &bytes).unwrap();
        noted.note_if_changed(folder.path());
        check(folder.path()).unwrap();
        for (at, sound) in [(0, false), (999, false), (1000, false), (1499, false), (1500, true)] {
            let mut changed = bytes.clone();
            changed.push(9);
            changed[at] ^= 0x80;
            std::fs::write(&path, changed).unwrap();
            assert_eq!(check(folder.path()).is_ok(), sound, "byte {at}");
        }
    }

    #[test]
    fn a_mark_of_an_older_version_tells_the_length() {
        let folder = index(25, 1000);
        std::fs::write(folder.path().join(MARK_FILE), "25 1000\n25 1000\n").unwrap();
        check(folder.path()).unwrap();
        set(folder.path(), 25, 999);
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

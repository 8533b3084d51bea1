//! What happens where a restore meets something that is already there.

use crate::fs::stat::{FileKind, FileStat};
use repo_format::entry::{Entry, EntryKind};
use std::fmt;
use std::str::FromStr;

/// Longest name most file systems take, bytes.
const SYSTEM_NAME_BYTES_MAX: usize = 255;

/// The choice of a person (`--on-conflict`). A directory that meets a directory is never a conflict: it is reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConflictPolicy {
    /// List the conflicts before anything is written, and stop.
    #[default]
    Stop,
    /// Leave what is there.
    Skip,
    /// Replace what is there if its modification time is before the stored one.
    Newer,
    /// Replace what is there; directories take the stored metadata, and are never replaced by anything else.
    Overwrite,
    /// Restore beside it, under a name with `.restored` at its end.
    KeepBoth,
}

impl FromStr for ConflictPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stop" => Ok(ConflictPolicy::Stop),
            "skip" => Ok(ConflictPolicy::Skip),
            "newer" => Ok(ConflictPolicy::Newer),
            "overwrite" => Ok(ConflictPolicy::Overwrite),
            "keep-both" => Ok(ConflictPolicy::KeepBoth),
            _ => Err("expected stop, skip, newer, overwrite or keep-both"),
        }
    }
}

/// Something in the place of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The entry's path below the target.
    pub path: Vec<u8>,
    /// What is there.
    pub existing: FileKind,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.existing {
            FileKind::File => "a file",
            FileKind::Directory => "a directory",
            FileKind::Symlink => "a symbolic link",
            _ => "something else",
        };
        write!(f, "{}: {kind} is already there", String::from_utf8_lossy(&self.path))
    }
}

/// What to do about a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Stop,
    Leave,
    Replace,
    Beside,
    /// To be replaced, but it is a directory and may hold what the snapshot does not.
    InTheWay,
}

impl ConflictPolicy {
    pub(super) fn decide(self, existing: &FileStat, entry: &Entry) -> Decision {
        let replace = match existing.kind {
            FileKind::Directory if entry.kind != EntryKind::Directory => Decision::InTheWay,
            _ => Decision::Replace,
        };
        match self {
            ConflictPolicy::Stop => Decision::Stop,
            ConflictPolicy::Skip => Decision::Leave,
            ConflictPolicy::Newer if entry.mtime > existing.mtime => replace,
            ConflictPolicy::Newer => Decision::Leave,
            ConflictPolicy::Overwrite => replace,
            ConflictPolicy::KeepBoth => Decision::Beside,
        }
    }
}

/// The `number`th name (from 1) to try for an object that stands beside the one called `name`.
pub(super) fn beside(name: &[u8], number: u32) -> Vec<u8> {
    let suffix = if number <= 1 { ".restored".to_owned() } else { format!(".restored-{number}") };
    let mut beside = name.get(..name.len().min(SYSTEM_NAME_BYTES_MAX - suffix.len())).unwrap_or_default().to_vec();
    beside.extend_from_slice(suffix.as_bytes());
    beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_stay_within_what_systems_take() {
        assert_eq!(beside(b"a", 1), b"a.restored");
        assert_eq!(beside(b"a", 2), b"a.restored-2");
        assert_eq!(beside(&[b'x'; 255], 12).len(), 255);
    }

    #[test]
    fn policies_have_the_names_of_the_command_line() {
        assert_eq!("keep-both".parse(), Ok(ConflictPolicy::KeepBoth));
        assert!("keep_both".parse::<ConflictPolicy>().is_err());
    }
}

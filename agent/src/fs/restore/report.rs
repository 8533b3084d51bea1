//! What a restore did, and what it could not do.

use std::fmt;

/// Examples kept of what could not be done; the rest is only counted.
pub const PROBLEMS_KEPT_MAX: usize = 1000;

/// A part of an object that could not be brought back although the object was, or an object of a kind that this user
/// may not make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProblemKind {
    /// Owner or group.
    Owner,
    /// Permission bits, or set-user/group-id bits withheld because the owner could not be set.
    Mode,
    /// An extended attribute or ACL.
    Xattr,
    /// Modification time.
    Time,
    /// A device node that this user may not create.
    Device,
    /// A hard link; the object is there under its other names only.
    Link,
    /// Something of another kind is in the way and is never removed by a restore (a directory).
    InTheWay,
}

impl ProblemKind {
    const ALL: [ProblemKind; 7] = [
        ProblemKind::Owner,
        ProblemKind::Mode,
        ProblemKind::Xattr,
        ProblemKind::Time,
        ProblemKind::Device,
        ProblemKind::Link,
        ProblemKind::InTheWay,
    ];
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProblemKind::Owner => "owner not set",
            ProblemKind::Mode => "permissions not set",
            ProblemKind::Xattr => "attribute not set",
            ProblemKind::Time => "time not set",
            ProblemKind::Device => "device not created",
            ProblemKind::Link => "hard link not made",
            ProblemKind::InTheWay => "not restored, a directory is in the way",
        })
    }
}

/// One thing that could not be done.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Path in the snapshot.
    pub path: Vec<u8>,
    /// What.
    pub kind: ProblemKind,
    /// Why.
    pub cause: String,
}

/// Counts and examples.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    /// The first [`PROBLEMS_KEPT_MAX`] problems.
    pub problems: Vec<Problem>,
    counts: [u64; ProblemKind::ALL.len()],
    /// Objects brought back, hard links included, directories that existed not.
    pub created: u64,
    /// Of these, how many replaced something.
    pub replaced: u64,
    /// Of these, how many stand beside what was there, under another name.
    pub kept_both: u64,
    /// Left alone because something was there.
    pub skipped: u64,
}

impl RestoreReport {
    pub(super) fn problem(&mut self, path: Vec<u8>, kind: ProblemKind, cause: String) {
        if let Some(count) = self.counts.get_mut(kind as usize) {
            *count += 1;
        }
        if self.problems.len() < PROBLEMS_KEPT_MAX {
            self.problems.push(Problem { path, kind, cause });
        }
    }

    /// How many problems of each kind there were, kinds without any left out.
    pub fn problem_counts(&self) -> impl Iterator<Item = (ProblemKind, u64)> {
        ProblemKind::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }

    /// True when everything came back as it was stored.
    pub fn is_complete(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }
}

//! Hard links of one restore: the first entry of a group is brought back, the others are linked to it at the end,
//! when it is whole.

use repo_format::entry::{Entry, EntryKind, PathKey};
use repo_format::id::ContentHash;
use std::collections::HashMap;

/// The first entry of a group.
#[derive(Clone, Debug)]
pub(super) struct FirstLink {
    pub key: PathKey,
    /// Its name where it was put.
    pub name: Vec<u8>,
    /// Device and inode; what is linked to must still be this.
    pub identity: (u64, u64),
}

#[derive(Debug)]
struct Group {
    kind: u8,
    hash: Option<ContentHash>,
    first: Option<FirstLink>,
}

/// Groups met so far.
#[derive(Debug, Default)]
pub(super) struct Links {
    groups: HashMap<u64, Group>,
}

/// What an entry is to its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Not a hard link, or one whose content differs from its group's: two objects that got the same number.
    Alone,
    /// The first: to be brought back, then reported with [`Links::whole`] or [`Links::failed`].
    First(u64),
    /// Another name of the first.
    Other(u64),
}

impl Links {
    pub(super) fn role(&mut self, entry: &Entry) -> Role {
        let Some(number) = entry.link_group else { return Role::Alone };
        let (kind, hash) = match &entry.kind {
            EntryKind::File { hash, .. } => (0, Some(*hash)),
            EntryKind::Directory => return Role::Alone,
            EntryKind::Symlink { .. } => (1, None),
            EntryKind::Fifo => (2, None),
            EntryKind::Socket => (3, None),
            EntryKind::CharDevice { .. } => (4, None),
            EntryKind::BlockDevice { .. } => (5, None),
        };
        match self.groups.get(&number) {
            Some(group) if (group.kind, group.hash) == (kind, hash) => Role::Other(number),
            Some(_) => Role::Alone,
            None => {
                self.groups.insert(number, Group { kind, hash, first: None });
                Role::First(number)
            }
        }
    }

    pub(super) fn whole(&mut self, role: Role, first: FirstLink) {
        if let Role::First(number) = role
            && let Some(group) = self.groups.get_mut(&number)
        {
            group.first = Some(first);
        }
    }

    /// The first was not brought back: the next entry of the group becomes the first.
    pub(super) fn failed(&mut self, role: Role) {
        if let Role::First(number) = role {
            self.groups.remove(&number);
        }
    }

    pub(super) fn first(&self, number: u64) -> Option<&FirstLink> {
        self.groups.get(&number)?.first.as_ref()
    }
}

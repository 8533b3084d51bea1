//! Names of users and groups by number and the other way round, asked of the system once per run each.

use nix::unistd::{Gid, Group, Uid, User};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Looked-up names. Answers are kept for the life of the value, so make a new one per run.
#[derive(Debug, Default)]
pub struct Owners {
    users: Mutex<HashMap<u32, Arc<[u8]>>>,
    groups: Mutex<HashMap<u32, Arc<[u8]>>>,
    uids: Mutex<HashMap<Vec<u8>, Option<u32>>>,
    gids: Mutex<HashMap<Vec<u8>, Option<u32>>>,
}

impl Owners {
    /// Name of a user; empty when the system knows none.
    pub fn user(&self, uid: u32) -> Arc<[u8]> {
        let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name.into_bytes());
        self.users.lock().entry(uid).or_insert_with(|| ask().unwrap_or_default().into()).clone()
    }

    /// Name of a group; empty when the system knows none.
    pub fn group(&self, gid: u32) -> Arc<[u8]> {
        let ask = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name.into_bytes());
        self.groups.lock().entry(gid).or_insert_with(|| ask().unwrap_or_default().into()).clone()
    }

    /// Number of a user by name.
    pub fn uid(&self, name: &[u8]) -> Option<u32> {
        let ask = || User::from_name(OsStr::from_bytes(name).to_str()?).ok().flatten().map(|user| user.uid.as_raw());
        *self.uids.lock().entry(name.to_vec()).or_insert_with(ask)
    }

    /// Number of a group by name.
    pub fn gid(&self, name: &[u8]) -> Option<u32> {
        let ask = || Group::from_name(OsStr::from_bytes(name).to_str()?).ok().flatten().map(|group| group.gid.as_raw());
        *self.gids.lock().entry(name.to_vec()).or_insert_with(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_nobody_knows_this_number() {
        let owners = Owners::default();
        assert_eq!(&*owners.user(0), b"root");
        assert_eq!(owners.uid(b"root"), Some(0));
        assert_eq!(owners.gid(&owners.group(0)), Some(0));
        assert_eq!(&*owners.user(3_999_999_999), b"");
        assert_eq!(owners.uid(b"\xff"), None);
    }
}

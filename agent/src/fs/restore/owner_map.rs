//! Who owns what comes back: the stored numbers, the stored names, or what a person maps them to.

use crate::fs::owners::Owners;
use repo_format::entry::Entry;

/// A mapping that could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("owner mapping `{text}`: {reason}")]
pub struct OwnerMapError {
    /// As given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Rules in the order given; the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct OwnerMap {
    users: Vec<Rule>,
    groups: Vec<Rule>,
    by_name: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    from: From,
    to: u32,
}

#[derive(Clone, Debug)]
enum From {
    Any,
    Number(u32),
    Name(Vec<u8>),
}

impl OwnerMap {
    /// Without rules, take a user or group by its stored name where this system knows the name, else by its number.
    /// The default is the number.
    #[must_use]
    pub fn by_name(mut self) -> Self {
        self.by_name = true;
        self
    }

    /// Adds a rule: `OLD:NEW` or `user:OLD:NEW` for users, `group:OLD:NEW` for groups. OLD is a name or number as
    /// stored, or `*` for all; NEW a name this system knows, or a number.
    pub fn add(&mut self, text: &str, owners: &Owners) -> Result<(), OwnerMapError> {
        let error = |reason| OwnerMapError { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split(':').collect();
        let (is_group, from, to) = match parts.as_slice() {
            ["group", from, to] => (true, *from, *to),
            ["user", from, to] | [from, to] => (false, *from, *to),
            _ => return Err(error("expected OLD:NEW, user:OLD:NEW or group:OLD:NEW")),
        };
        if from.is_empty() || to.is_empty() {
            return Err(error("a side is empty"));
        }
        let from = match (from, from.parse()) {
            ("*", _) => From::Any,
            (_, Ok(number)) => From::Number(number),
            (name, Err(_)) => From::Name(name.as_bytes().to_vec()),
        };
        let known = || if is_group { owners.gid(to.as_bytes()) } else { owners.uid(to.as_bytes()) };
        let to = to.parse().ok().filter(|&number| number != u32::MAX).or_else(known);
        let to = to.ok_or_else(|| error("this system knows no such name on the right"))?;
        if is_group {
            self.groups.push(Rule { from, to })
        } else {
            self.users.push(Rule { from, to })
        }
        Ok(())
    }

    /// User and group that an entry gets here.
    pub fn owner_of(&self, entry: &Entry, owners: &Owners) -> (u32, u32) {
        let uid = self.one(&self.users, entry.uid, &entry.user, |name| owners.uid(name));
        let gid = self.one(&self.groups, entry.gid, &entry.group, |name| owners.gid(name));
        (uid, gid)
    }

    fn one(&self, rules: &[Rule], number: u32, name: &[u8], known: impl FnOnce(&[u8]) -> Option<u32>) -> u32 {
        let matches = |rule: &&Rule| match &rule.from {
            From::Any => true,
            From::Number(from) => *from == number,
            From::Name(from) => from == name,
        };
        match rules.iter().find(matches) {
            Some(rule) => rule.to,
            None if self.by_name && !name.is_empty() => known(name).unwrap_or(number),
            None => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::entry::{EntryKind, Time};

    fn entry(uid: u32, user: &[u8], gid: u32, group: &[u8]) -> Entry {
        Entry {
            kind: EntryKind::Directory,
            mode: 0,
            uid,
            gid,
            user: user.to_vec(),
            group: group.to_vec(),
            mtime: Time::default(),
            xattrs: Vec::new(),
            link_group: None,
        }
    }

    #[test]
    fn rules_names_and_numbers() {
        let owners = Owners::default();
        let mut map = OwnerMap::default();
        assert_eq!(map.owner_of(&entry(77, b"root", 78, b"root"), &owners), (77, 78));
        assert_eq!(map.clone().by_name().owner_of(&entry(77, b"root", 78, b"no such"), &owners), (0, 78));
        map.add("alice:1234", &owners).unwrap();
        map.add("user:5:root", &owners).unwrap();
        map.add("group:*:99", &owners).unwrap();
        assert_eq!(map.owner_of(&entry(1, b"alice", 1, b""), &owners), (1234, 99));
        assert_eq!(map.owner_of(&entry(5, b"bob", 2, b""), &owners), (0, 99));
        assert_eq!(map.owner_of(&entry(6, b"bob", 2, b""), &owners), (6, 99));
        for bad in ["", "x", "a:", ":b", "user:a", "a:no-such-user-here", "a:4294967295", "a:b:c:d"] {
            assert!(OwnerMap::default().add(bad, &owners).is_err(), "{bad}");
        }
    }
}

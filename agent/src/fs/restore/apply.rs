//! Gives an object its metadata in the one order that works: owner (which clears set-id bits and capabilities), then
//! attributes and ACLs (while the safe mode still lets the owner in), then permissions, then the time.

use super::report::ProblemKind;
use crate::fs::stat::FileStat;
use crate::fs::xattr::{ACL_ACCESS, ACL_DEFAULT, Object, RawXattr};
use repo_format::entry::Time;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmod, chownat, fchmod, fchown, fstat, futimens,
    openat, statat, utimensat,
};
use rustix::io::Errno;
use std::io;

const SET_ID_BITS: u32 = 0o6000;

/// Metadata to be set, owner already mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Vec<RawXattr>,
    /// Attributes that the object has and the snapshot does not are removed: it was there before, or may have
    /// inherited an ACL from a directory that was.
    pub replaces_xattrs: bool,
}

/// What could not be set, and why.
pub(super) type Problems = Vec<(ProblemKind, String)>;

/// Sets everything on an open file or directory. `now` is its status if known.
pub(super) fn apply_open(fd: &OwnedFd, now: Option<FileStat>, attributes: &Attributes) -> io::Result<Problems> {
    let mut problems = Problems::new();
    let now = match now {
        Some(now) => now,
        None => FileStat::from_raw(&fstat(fd)?),
    };
    let change = |uid, gid| fchown(fd, uid, gid);
    let owned = set_owner(&now, attributes, change, &mut problems);
    set_xattrs(&Object::open(fd), attributes, &mut problems);
    let mode = mode_allowed(attributes, owned, &mut problems);
    match fchmod(fd, Mode::from_raw_mode(mode as _)) {
        // Without privilege the system drops the set-group-id bit of a foreign group and says nothing.
        Ok(()) if mode & SET_ID_BITS != 0 => {
            let got = FileStat::from_raw(&fstat(fd)?).mode;
            if got != mode {
                problems.push((ProblemKind::Mode, format!("{mode:04o} became {got:04o}")));
            }
        }
        Ok(()) => {}
        Err(errno) => problems.push((ProblemKind::Mode, errno.to_string())),
    }
    if let Err(errno) = futimens(fd, &times(attributes.mtime)) {
        problems.push((ProblemKind::Time, errno.to_string()));
    }
    Ok(problems)
}

/// Sets everything on a link, pipe, socket or device by its name; links are not followed.
pub(super) fn apply_named(dir: BorrowedFd<'_>, name: &[u8], attributes: &Attributes) -> io::Result<Problems> {
    let mut problems = Problems::new();
    let now = FileStat::from_raw(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
    let change = |uid, gid| chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
    let owned = set_owner(&now, attributes, change, &mut problems);
    set_xattrs(&Object::named(&dir, name), attributes, &mut problems);
    if now.kind != crate::fs::FileKind::Symlink {
        let mode = mode_allowed(attributes, owned, &mut problems);
        if let Err(error) = chmod_named(dir, name, &now, mode) {
            problems.push((ProblemKind::Mode, error.to_string()));
        }
    }
    if let Err(errno) = utimensat(dir, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW) {
        problems.push((ProblemKind::Time, errno.to_string()));
    }
    Ok(problems)
}

/// Changing a mode by name would follow a link put there meanwhile, so the object is held by a path descriptor first.
fn chmod_named(dir: BorrowedFd<'_>, name: &[u8], expected: &FileStat, mode: u32) -> io::Result<()> {
    let held = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !FileStat::from_raw(&fstat(&held)?).same_object(expected) {
        return Err(io::Error::other("replaced by something else meanwhile"));
    }
    Ok(chmod(format!("/proc/self/fd/{}", held.as_fd().as_raw_fd()), Mode::from_raw_mode(mode as _))?)
}

/// Whether owner and group are now as wanted.
fn set_owner(
    now: &FileStat,
    attributes: &Attributes,
    change: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    problems: &mut Problems,
) -> bool {
    let uid = (attributes.uid != now.uid && attributes.uid != u32::MAX).then(|| Uid::from_raw(attributes.uid));
    let gid = (attributes.gid != now.gid && attributes.gid != u32::MAX).then(|| Gid::from_raw(attributes.gid));
    if uid.is_none() && gid.is_none() {
        return true;
    }
    let Err(errno) = change(uid, gid) else { return true };
    // A user may still give a file to one of their groups.
    let group_done = uid.is_some() && gid.is_some() && change(None, gid).is_ok();
    let wanted = format!("{}:{}", attributes.uid, attributes.gid);
    let part = if group_done { ", group set" } else { "" };
    problems.push((ProblemKind::Owner, format!("{wanted}: {errno}{part}")));
    false
}

/// The mode without set-id bits if they would act for somebody else than they were meant for.
fn mode_allowed(attributes: &Attributes, owned: bool, problems: &mut Problems) -> u32 {
    let mode = attributes.mode & 0o7777;
    if owned || mode & SET_ID_BITS == 0 {
        return mode;
    }
    problems.push((ProblemKind::Mode, "set-id bits withheld, since the owner could not be set".to_owned()));
    mode & !SET_ID_BITS
}

fn set_xattrs(object: &Object<'_>, attributes: &Attributes, problems: &mut Problems) {
    let describe = |name: &[u8], error: &io::Error| format!("{}: {error}", String::from_utf8_lossy(name));
    if attributes.replaces_xattrs {
        let wanted = |name: &Vec<u8>| attributes.xattrs.iter().any(|xattr| xattr.name == *name);
        // Labels of a security module belong to the place and are not removed.
        let ours = |name: &Vec<u8>| {
            name.starts_with(b"user.") || *name == ACL_ACCESS || *name == ACL_DEFAULT || name.starts_with(b"trusted.")
        };
        for name in object.names().unwrap_or_default().iter().filter(|name| ours(name) && !wanted(name)) {
            if let Err(error) = object.remove(name) {
                problems.push((ProblemKind::Xattr, describe(name, &error)));
            }
        }
    }
    for xattr in &attributes.xattrs {
        if let Err(error) = object.set(&xattr.name, &xattr.value) {
            problems.push((ProblemKind::Xattr, describe(&xattr.name, &error)));
        }
    }
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds as _ },
    }
}

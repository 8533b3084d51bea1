//! A seeded day in the life of a tree: some files modified, appended to, deleted, renamed and added.

use crate::seed::Random;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Overwritten in part, in place.
    pub modified: Vec<PathBuf>,
    /// Grown at the end.
    pub appended: Vec<PathBuf>,
    /// Deleted.
    pub deleted: Vec<PathBuf>,
    /// Renamed within their folder: from, to.
    pub renamed: Vec<(PathBuf, PathBuf)>,
    /// New.
    pub added: Vec<PathBuf>,
    /// Bytes written in all.
    pub bytes_written: u64,
}

impl Changes {
    /// Files touched in any way.
    pub fn len(&self) -> usize {
        self.modified.len() + self.appended.len() + self.deleted.len() + self.renamed.len() + self.added.len()
    }

    /// True when nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Longest path that is touched, bytes; the kernel refuses longer ones.
const PATH_BYTES_MAX: usize = 3500;

/// Changes `per_mille` thousandths of the regular files under `path`, at least one. The same tree and stream give the
/// same changes.
pub fn apply(path: &Path, per_mille: u64, random: &mut Random) -> io::Result<Changes> {
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let mut changes = Changes::default();
    let wanted = (files.len() as u64 * per_mille / 1000).max(1);
    for number in 0..wanted {
        if files.is_empty() {
            break;
        }
        let index = random.index(files.len());
        let file = files.swap_remove(index);
        match random.below(10) {
            0..5 => {
                changes.bytes_written += overwrite(&file, random)?;
                changes.modified.push(file);
            }
            5..7 => {
                let len = random.between(1, 32 << 10) as usize;
                OpenOptions::new().append(true).open(&file)?.write_all(&random.bytes(len))?;
                changes.bytes_written += len as u64;
                changes.appended.push(file);
            }
            7 => {
                fs::remove_file(&file)?;
                changes.deleted.push(file);
            }
            8 => {
                let to = sibling(&file, &format!("renamed {number}"));
                fs::rename(&file, &to)?;
                changes.renamed.push((file, to));
            }
            _ => {
                let added = sibling(&file, &format!("added {number}"));
                let len = random.between(1, 100 << 10) as usize;
                File::create_new(&added)?.write_all(&random.bytes(len))?;
                changes.bytes_written += len as u64;
                changes.added.push(added);
            }
        }
    }
    Ok(changes)
}

fn overwrite(path: &Path, random: &mut Random) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len();
    let offset = random.below(len + 1);
    let part = (len - offset).min(random.between(1, 64 << 10)).max(1);
    file.write_all_at(&random.bytes(part as usize), offset)?;
    Ok(part)
}

/// A name beside `path` that nothing has: a tree changes many times.
fn sibling(path: &Path, name: &str) -> PathBuf {
    let mut free = path.with_file_name(name);
    for number in 2.. {
        if fs::symlink_metadata(&free).is_err() {
            break;
        }
        free = path.with_file_name(format!("{name}-{number}"));
    }
    free
}

/// Regular files in a fixed order.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
            continue;
        }
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

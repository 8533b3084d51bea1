//! What a tree was at one moment, small enough to keep for every snapshot of a long run: one line per entry, with a hash
//! of its content. [`crate::compare`] looks at more, but needs both trees at hand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries by their path below the tree's top, each with everything that must come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(BTreeMap<PathBuf, String>);

/// Differences named in a message.
const SHOWN_MAX: usize = 10;

impl Manifest {
    /// Reads the tree at `top`: types, modes, owners, modification times, lengths, contents, link targets and counts.
    pub fn of(top: &Path) -> io::Result<Self> {
        let mut manifest = Manifest::default();
        manifest.collect(top, top)?;
        Ok(manifest)
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when it has no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn collect(&mut self, top: &Path, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let content = if metadata.is_file() {
                blake3::hash(&fs::read(&path)?).to_hex().to_string()
            } else if metadata.is_symlink() {
                fs::read_link(&path)?.as_os_str().as_bytes().escape_ascii().to_string()
            } else {
                String::new()
            };
            // A folder's own length and links belong to the file system it stands on; so do the modes of links.
            let (len, links) = if metadata.is_dir() { (0, 0) } else { (metadata.len(), metadata.nlink()) };
            let line = format!(
                "mode {:o}, owner {}:{}, modified {}.{:09}, {len} bytes, {links} links, content {content}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            );
            let below = path.strip_prefix(top).map_err(io::Error::other)?;
            self.0.insert(below.to_path_buf(), line);
            if metadata.is_dir() {
                self.collect(top, &path)?;
            }
        }
        Ok(())
    }

    /// The first differences between this and `other`, for people; empty when they are equal.
    pub fn differences(&self, other: &Manifest) -> Vec<String> {
        let lacking = self.0.iter().filter(|(path, _)| !other.0.contains_key(*path));
        let mut found: Vec<String> = lacking.map(|(path, _)| format!("{} is missing", path.display())).collect();
        for (path, line) in &other.0 {
            match self.0.get(path) {
                Some(same) if same == line => {}
                Some(was) => found.push(format!("{}: {was}; now {line}", path.display())),
                None => found.push(format!("{} was not there", path.display())),
            }
        }
        found.truncate(SHOWN_MAX);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        fs::create_dir(top.join("folder")).unwrap();
        fs::write(top.join("folder/file"), "one").unwrap();
        let before = Manifest::of(top).unwrap();
        assert_eq!(before.len(), 2);
        assert!(before.differences(&Manifest::of(top).unwrap()).is_empty());
        fs::write(top.join("folder/file"), "two").unwrap();
        assert_eq!(before.differences(&Manifest::of(top).unwrap()).len(), 1);
        fs::write(top.join("more"), "").unwrap();
        fs::remove_file(top.join("folder/file")).unwrap();
        // One gone, one new, and the folder that held the first has another time.
        assert_eq!(before.differences(&Manifest::of(top).unwrap()).len(), 3);
    }
}

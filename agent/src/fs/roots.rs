//! The paths a person asked to back up, as a tree: directories above the roots, and the roots.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A root that cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Roots must be absolute.
    #[error("{} is not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    /// `..` depends on links on the way, so it is refused rather than guessed at.
    #[error("{} goes through `..`", .0.display())]
    Ambiguous(PathBuf),
    /// It does not exist or cannot be reached.
    #[error("{}: {source}", path.display())]
    Missing {
        /// The root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There must be something to scan.
    #[error("no path given")]
    None,
}

/// One component of a root, or a root.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Everything below it is wanted.
    pub is_root: bool,
    /// A symbolic link here is followed, because the person said so with a slash.
    pub follow: bool,
    /// The wanted names in it; empty for a root.
    pub children: BTreeMap<Vec<u8>, Node>,
}

impl Node {
    pub(super) fn root() -> Self {
        Node { is_root: true, ..Node::default() }
    }
}

/// All roots.
pub(super) struct Roots {
    pub tree: Node,
    /// Roots kept as links although they lead to directories.
    pub links_to_directories: Vec<Vec<u8>>,
}

impl Roots {
    pub(super) fn new<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Result<Self, RootError> {
        let mut all = Roots { tree: Node::default(), links_to_directories: Vec::new() };
        let mut any = false;
        for root in roots {
            all.add(root.as_ref())?;
            any = true;
        }
        if any { Ok(all) } else { Err(RootError::None) }
    }

    fn add(&mut self, path: &Path) -> Result<(), RootError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(RootError::NotAbsolute(path.to_owned()));
        }
        let components: Vec<&[u8]> =
            bytes.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        if components.contains(&b"..".as_slice()) {
            return Err(RootError::Ambiguous(path.to_owned()));
        }
        let missing = |source| RootError::Missing { path: path.to_owned(), source };
        let follow = bytes.last() == Some(&b'/');
        let metadata = std::fs::symlink_metadata(path).map_err(missing)?;
        if metadata.is_symlink() && !follow && std::fs::metadata(path).is_ok_and(|target| target.is_dir()) {
            self.links_to_directories.push(bytes.to_vec());
        }
        let mut node = &mut self.tree;
        for component in components {
            if node.is_root {
                return Ok(());
            }
            node = node.children.entry(component.to_vec()).or_default();
        }
        node.is_root = true;
        node.follow |= follow;
        node.children.clear();
        Ok(())
    }
}

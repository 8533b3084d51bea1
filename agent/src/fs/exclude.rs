//! Which paths a backup leaves out: patterns in the manner of gitignore, matched on the bytes of absolute paths.
//!
//! * a pattern without a slash (`*.tmp`, `node_modules`) matches a name at any depth;
//! * a pattern that begins with a slash (`/var/cache`) is anchored at the root of the file system;
//! * any other pattern with a slash (`.cache/thumbnails`) matches at any depth, whole components only;
//! * a slash at the end means directories only;
//! * `*` and `?` never match a slash, `**` does; `[a-z]`, `{a,b}` and `\` work as in most shells;
//! * `!` in front takes back what an earlier pattern left out; the last pattern that matches decides.
//!
//! An excluded directory is not entered, so nothing below it can be taken back.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A pattern that could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("exclude pattern `{pattern}`: {reason}")]
pub struct PatternError {
    /// As given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A list of exclude patterns.
#[derive(Clone, Debug)]
pub struct Excludes {
    set: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    excludes: bool,
    directories_only: bool,
}

impl Default for Excludes {
    fn default() -> Self {
        Excludes { set: GlobSet::empty(), rules: Vec::new() }
    }
}

impl Excludes {
    /// From patterns in the order given; empty ones and those that begin with `#` are skipped, as in a file.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut set = GlobSetBuilder::new();
        let mut rules = Vec::new();
        for pattern in patterns {
            let text = pattern.as_ref();
            let error = |reason: String| PatternError { pattern: text.to_owned(), reason };
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (excludes, rest) = text.strip_prefix('!').map_or((true, text), |rest| (false, rest));
            let (directories_only, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
            if rest.is_empty() {
                return Err(error("names nothing".to_owned()));
            }
            let glob = if rest.starts_with('/') { rest.to_owned() } else { format!("**/{rest}") };
            let glob = GlobBuilder::new(&glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|cause| error(cause.kind().to_string()))?;
            set.add(glob);
            rules.push(Rule { excludes, directories_only });
        }
        let set = set.build().map_err(|cause| PatternError {
            pattern: cause.glob().unwrap_or_default().to_owned(),
            reason: cause.kind().to_string(),
        })?;
        Ok(Excludes { set, rules })
    }

    /// True when there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the object at this absolute path is left out.
    pub fn excludes(&self, path: &[u8], is_directory: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let matching = self.set.matches(Path::new(OsStr::from_bytes(path)));
        let applies = |number: &&usize| self.rules.get(**number).is_some_and(|r| is_directory || !r.directories_only);
        let last = matching.iter().filter(applies).max();
        last.and_then(|&number| self.rules.get(number)).is_some_and(|rule| rule.excludes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_depth_directories_and_taking_back() {
        let excludes =
            Excludes::new(["# comment", "", "*.tmp", "/var/cache", ".cache/thumbs", "build/", "!keep.tmp"]).unwrap();
        let yes: &[(&[u8], bool)] = &[
            (b"/a.tmp", false),
            (b"/x/y/a.tmp", false),
            (b"/x/\xff\n.tmp", false),
            (b"/var/cache", true),
            (b"/home/a/.cache/thumbs", true),
            (b"/src/build", true),
        ];
        let no: &[(&[u8], bool)] = &[
            (b"/a.tmpx", false),
            (b"/x/keep.tmp", false),
            (b"/srv/var/cache", true),
            (b"/home/a.cache/thumbs", true),
            (b"/src/build", false),
            (b"/var/cache/x", false),
        ];
        for &(path, directory) in yes {
            assert!(excludes.excludes(path, directory), "{}", String::from_utf8_lossy(path));
        }
        for &(path, directory) in no {
            assert!(!excludes.excludes(path, directory), "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn stars_stay_in_a_component() {
        let excludes = Excludes::new(["/a/*/c", "/b/**/c"]).unwrap();
        assert!(excludes.excludes(b"/a/x/c", false));
        assert!(!excludes.excludes(b"/a/x/y/c", false));
        assert!(excludes.excludes(b"/b/x/y/c", false));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        assert!(Excludes::new(["[a"]).unwrap_err().to_string().contains("[a"));
        assert!(Excludes::new(["/"]).is_err());
        assert!(Excludes::new(["!"]).is_err());
    }
}

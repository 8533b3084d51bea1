//! Paths as clients send them, made absolute and normal without asking anybody.

use crate::limits::PATH_BYTES_MAX;

/// An absolute path without empty components, `.` or `..`: `/` or `/a/b`. Bytes, for names need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportPath(Vec<u8>);

/// Why a path names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than `PATH_BYTES_MAX`.
    #[error("path is too long")]
    TooLong,
    /// It has a NUL in it.
    #[error("path holds a zero byte")]
    Nul,
}

impl ExportPath {
    /// The root.
    pub fn root() -> ExportPath {
        ExportPath(b"/".to_vec())
    }

    /// Normalises what a client sent. Relative paths start at the root; `..` of the root is the root.
    pub fn parse(sent: &[u8]) -> Result<ExportPath, PathError> {
        if sent.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if sent.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut path = Vec::with_capacity(sent.len() + 1);
        for component in sent.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
                name => {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
            }
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(ExportPath(path))
    }

    /// As bytes, with the leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// The components, from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last component; `/` for the root.
    pub fn name(&self) -> &[u8] {
        self.components().last().unwrap_or(b"/")
    }

    /// The entry `name` of this folder. `name` is one component, not `.` or `..`.
    pub fn join(&self, name: &[u8]) -> ExportPath {
        let mut path = if self.is_root() { Vec::new() } else { self.0.clone() };
        path.push(b'/');
        path.extend_from_slice(name);
        ExportPath(path)
    }
}

/// For logs and people: control characters and what is not UTF-8 are escaped, so that one path is one line.
impl std::fmt::Display for ExportPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&printable(&self.0))
    }
}

impl std::fmt::Debug for ExportPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ExportPath({self})")
    }
}

/// Bytes from a client as one line of text: control characters (also those that turn text around), backslashes and what
/// is not UTF-8 become escapes.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let turns =
                matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if character.is_control() || turns || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{ExportPath, PathError, printable};
    use proptest::prelude::{any, proptest};

    #[test]
    fn paths_become_absolute_and_normal() {
        for (sent, normal) in [
            ("", "/"),
            (".", "/"),
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("a/./b", "/a/b"),
            ("../../etc/passwd", "/etc/passwd"),
            ("/a/b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/../..", "/"),
            ("...", "/..."),
        ] {
            let path = ExportPath::parse(sent.as_bytes()).unwrap();
            assert_eq!(path.as_bytes(), normal.as_bytes(), "{sent}");
        }
        assert_eq!(ExportPath::parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(ExportPath::parse(&[b'a'; 4097]), Err(PathError::TooLong));
        assert!(ExportPath::parse(&[b'a'; 4096]).is_ok());
    }

    #[test]
    fn one_path_is_one_line() {
        let text = printable(b"a\nb\r\x1b[31m\xff\\ \xe2\x80\xae\xc3\xa4");
        assert_eq!(text, "a\\nb\\r\\u{1b}[31m\\xff\\\\ \\u{202e}\u{e4}");
    }

    proptest! {
        #[test]
        fn any_path_is_harmless(sent in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(path) = ExportPath::parse(&sent) {
                assert_eq!(ExportPath::parse(path.as_bytes()).unwrap(), path);
                assert!(path.as_bytes().starts_with(b"/"));
                assert!(path.components().all(|name| name != b".." && name != b"." && !name.contains(&b'/')));
                assert!(!path.to_string().chars().any(char::is_control));
            }
        }
    }
}

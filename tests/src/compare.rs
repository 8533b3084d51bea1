//! Compares two trees in everything the agent promises to keep: names, types, contents, modes, owners, modification
//! times to the nanosecond, extended attributes with ACLs, symbolic link targets, device numbers, which names are hard
//! links to one object, and where holes are. Works relative to open directories, so depth does not matter.

use crate::directory::{Directory, raise_open_file_limit};
use rustix::fs::{FileType, SeekFrom, Stat, fstatfs, seek};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What to compare beside names, types, contents, modes, times, attributes and targets.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Owners and groups: only root can restore them.
    pub owners: bool,
    /// Positions of holes. Left out by itself where the two trees are on different kinds of file system.
    pub holes: bool,
    /// Also the attributes of the two top directories themselves.
    pub top: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { owners: rustix::process::geteuid().is_root(), holes: true, top: true }
    }
}

/// One thing that is not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path inside the trees, as bytes.
    pub path: Vec<u8>,
    /// What differs, for people.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path of many kilobytes helps nobody.
        let shown: String = self.path.escape_ascii().to_string().chars().take(300).collect();
        write!(f, "{shown}: {}", self.what)
    }
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Entries in both trees, without the top directories.
    pub entries: u64,
    /// Regular files in both trees.
    pub files: u64,
    /// Sum of the lengths of those files, bytes.
    pub bytes: u64,
    /// The first differences, at most [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub differences_count: u64,
}

/// Differences kept for display.
pub const DIFFERENCES_MAX: usize = 50;

impl Report {
    /// True when nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differences_count == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, {} files, {} bytes compared: ", self.entries, self.files, self.bytes)?;
        if self.is_equal() {
            return write!(f, "equal");
        }
        write!(f, "{} differences", self.differences_count)?;
        for difference in &self.differences {
            write!(f, "\n  {difference}")?;
        }
        Ok(())
    }
}

/// Compares the trees at `left` and `right`. An error means that one of them could not be read.
pub fn compare(left: &Path, right: &Path, mut options: Options) -> io::Result<Report> {
    raise_open_file_limit();
    let (left, right) = (Directory::open(left)?, Directory::open(right)?);
    options.holes &= fstatfs(&left)?.f_type == fstatfs(&right)?.f_type;
    let mut comparison = Comparison {
        options,
        report: Report::default(),
        path: Vec::new(),
        left_links: HashMap::new(),
        right_links: HashMap::new(),
        buffers: (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]),
    };
    if options.top {
        comparison.metadata(&left.stat_self()?, &right.stat_self()?);
        let (one, two) = (left.attributes_self()?, right.attributes_self()?);
        comparison.attributes(&one, &two);
    }
    comparison.directories(&left, &right)?;
    Ok(comparison.report)
}

const BUFFER_BYTES: usize = 1 << 20;

struct Comparison {
    options: Options,
    report: Report,
    path: Vec<u8>,
    /// First path under which each object with several names was seen.
    left_links: HashMap<(u64, u64), Vec<u8>>,
    right_links: HashMap<(u64, u64), Vec<u8>>,
    buffers: (Vec<u8>, Vec<u8>),
}

impl Comparison {
    fn differs(&mut self, what: String) {
        self.report.differences_count += 1;
        if self.report.differences.len() < DIFFERENCES_MAX {
            self.report.differences.push(Difference { path: self.path.clone(), what });
        }
    }

    fn directories(&mut self, left: &Directory, right: &Directory) -> io::Result<()> {
        let (left_names, right_names) = (left.names()?, right.names()?);
        let (mut one, mut two) = (left_names.iter().peekable(), right_names.iter().peekable());
        loop {
            let order = match (one.peek(), two.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left_name), Some(right_name)) => left_name.cmp(right_name),
            };
            let name = if order == Ordering::Greater { two.peek() } else { one.peek() };
            let Some(&name) = name else { return Ok(()) };
            let outer_len = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            match order {
                Ordering::Less => self.differs("only in the first tree".to_owned()),
                Ordering::Greater => self.differs("only in the second tree".to_owned()),
                Ordering::Equal => self.entry(left, right, name)?,
            }
            self.path.truncate(outer_len);
            if order != Ordering::Greater {
                one.next();
            }
            if order != Ordering::Less {
                two.next();
            }
        }
    }

    fn entry(&mut self, left: &Directory, right: &Directory, name: &[u8]) -> io::Result<()> {
        let (one, two) = (left.stat(name)?, right.stat(name)?);
        self.report.entries += 1;
        let kind = FileType::from_raw_mode(one.st_mode);
        if kind != FileType::from_raw_mode(two.st_mode) {
            self.differs(format!("type {kind:?} against {:?}", FileType::from_raw_mode(two.st_mode)));
            return Ok(());
        }
        self.metadata(&one, &two);
        let (left_attributes, right_attributes) = (left.attributes(name)?, right.attributes(name)?);
        self.attributes(&left_attributes, &right_attributes);
        if kind != FileType::Directory && (one.st_nlink > 1 || two.st_nlink > 1) {
            self.links(&one, &two);
        }
        match kind {
            FileType::Directory => self.directories(&left.enter(name)?, &right.enter(name)?)?,
            FileType::RegularFile => {
                self.report.files += 1;
                self.report.bytes += one.st_size as u64;
                if one.st_size != two.st_size {
                    self.differs(format!("length {} against {}", one.st_size, two.st_size));
                } else if one.st_size > 0 {
                    let len = one.st_size as u64;
                    self.contents(&left.open_file(name)?, &right.open_file(name)?, len)?;
                }
            }
            FileType::Symlink => {
                let (one, two) = (left.read_link(name)?, right.read_link(name)?);
                if one != two {
                    self.differs(format!("target {} against {}", one.escape_ascii(), two.escape_ascii()));
                }
            }
            FileType::CharacterDevice | FileType::BlockDevice if one.st_rdev != two.st_rdev => {
                self.differs(format!("device {:#x} against {:#x}", one.st_rdev, two.st_rdev));
            }
            _ => {}
        }
        Ok(())
    }

    fn metadata(&mut self, one: &Stat, two: &Stat) {
        let is_symlink = FileType::from_raw_mode(one.st_mode) == FileType::Symlink;
        if one.st_mode & 0o7777 != two.st_mode & 0o7777 && !is_symlink {
            self.differs(format!("mode {:04o} against {:04o}", one.st_mode & 0o7777, two.st_mode & 0o7777));
        }
        if self.options.owners && (one.st_uid, one.st_gid) != (two.st_uid, two.st_gid) {
            self.differs(format!("owner {}:{} against {}:{}", one.st_uid, one.st_gid, two.st_uid, two.st_gid));
        }
        if (one.st_mtime, one.st_mtime_nsec) != (two.st_mtime, two.st_mtime_nsec) {
            self.differs(format!(
                "modified {}.{:09} against {}.{:09}",
                one.st_mtime, one.st_mtime_nsec, two.st_mtime, two.st_mtime_nsec
            ));
        }
    }

    fn attributes<N: PartialEq + fmt::Debug>(&mut self, one: &[(N, Vec<u8>)], two: &[(N, Vec<u8>)]) {
        if one != two {
            let names = |list: &[(N, Vec<u8>)]| {
                let shown: Vec<String> =
                    list.iter().map(|(name, value)| format!("{name:?} ({} bytes)", value.len())).collect();
                shown.join(", ")
            };
            self.differs(format!("attributes [{}] against [{}]", names(one), names(two)));
        }
    }

    /// Both names must join the object first seen under the same path in either tree.
    fn links(&mut self, one: &Stat, two: &Stat) {
        let path = &self.path;
        let first = |links: &mut HashMap<(u64, u64), Vec<u8>>, stat: &Stat| {
            links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone()).clone()
        };
        let (left, right) = (first(&mut self.left_links, one), first(&mut self.right_links, two));
        if left != right {
            self.differs(format!("hard link to {} against {}", left.escape_ascii(), right.escape_ascii()));
        }
    }

    fn contents(&mut self, left: &File, right: &File, len: u64) -> io::Result<()> {
        let mut ranges = vec![(0, len)];
        if self.options.holes {
            let (one, two) = (data_ranges(left, len)?, data_ranges(right, len)?);
            if one == two {
                ranges = one;
            } else {
                self.differs(format!("data at {} against {}", show(&one), show(&two)));
            }
        }
        let (left_buffer, right_buffer) = &mut self.buffers;
        for (start, end) in ranges {
            let mut offset = start;
            while offset < end {
                let part = (end - offset).min(BUFFER_BYTES as u64) as usize;
                left.read_exact_at(&mut left_buffer[..part], offset)?;
                right.read_exact_at(&mut right_buffer[..part], offset)?;
                if left_buffer[..part] != right_buffer[..part] {
                    let equal = left_buffer.iter().zip(right_buffer.iter()).take_while(|(one, two)| one == two).count();
                    self.differs(format!("contents differ at byte {}", offset + equal as u64));
                    return Ok(());
                }
                offset += part as u64;
            }
        }
        Ok(())
    }
}

fn show(ranges: &[(u64, u64)]) -> String {
    let shown: Vec<String> = ranges.iter().take(4).map(|(start, end)| format!("{start}..{end}")).collect();
    format!("[{}{}]", shown.join(" "), if ranges.len() > 4 { " ..." } else { "" })
}

/// Ranges of a file that are not holes, in order.
fn data_ranges(file: &File, len: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut offset = 0;
    while offset < len {
        let start = match seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(len);
        ranges.push((start, end));
        offset = end;
    }
    Ok(ranges)
}

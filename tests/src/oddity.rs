//! The oddity tree: every strange thing a Linux file system lets a person create, so that a restore that loses any of
//! it is found. What the machine refuses (devices without root, attributes on some file systems) is reported, not fatal.

use crate::directory::{Directory, ModifiedAt};
use crate::seed::Random;
use rustix::fs::FileType;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What was built.
#[derive(Debug, Default)]
pub struct Built {
    /// Everything but the root directory.
    pub entries: u64,
    /// What this machine refused, each once.
    pub refused: Vec<String>,
}

struct Builder<'r> {
    random: &'r mut Random,
    built: Built,
    root: bool,
}

/// Builds the tree in the empty directory `path`; roughly 14,000 entries and 80 MB of data, some GB of holes.
pub fn build(path: &Path, random: &mut Random) -> io::Result<Built> {
    crate::directory::raise_open_file_limit();
    let top = Directory::open(path)?;
    let mut builder = Builder { random, built: Built::default(), root: rustix::process::geteuid().is_root() };
    builder.section(&top, b"names", Builder::names)?;
    builder.section(&top, b"order", Builder::order)?;
    builder.section(&top, b"long", Builder::long_paths)?;
    builder.section(&top, b"modes", Builder::modes)?;
    builder.section(&top, b"owners", Builder::owners)?;
    builder.section(&top, b"times", Builder::times)?;
    builder.section(&top, b"holes", Builder::holes)?;
    builder.section(&top, b"links", Builder::links)?;
    builder.section(&top, b"nodes", Builder::nodes)?;
    builder.section(&top, b"attributes", Builder::attributes)?;
    builder.section(&top, b"sizes", Builder::sizes)?;
    top.set_modified_self((1_000_000_000, 987_654_321))?;
    Ok(builder.built)
}

impl Builder<'_> {
    /// A sub-directory filled by `fill`, whose own time is set when everything inside stands.
    fn section(
        &mut self,
        parent: &Directory,
        name: &[u8],
        fill: impl FnOnce(&mut Self, &Directory) -> io::Result<()>,
    ) -> io::Result<()> {
        let directory = parent.create_directory(name)?;
        self.built.entries += 1;
        fill(self, &directory)?;
        let at = self.ordinary_time();
        directory.set_modified_self(at)
    }

    fn ordinary_time(&mut self) -> ModifiedAt {
        (self.random.between(900_000_000, 1_700_000_000) as i64, self.random.below(1_000_000_000) as u32)
    }

    fn file(&mut self, directory: &Directory, name: &[u8], content: &[u8]) -> io::Result<File> {
        let mut file = directory.create_file(name)?;
        file.write_all(content)?;
        self.built.entries += 1;
        Ok(file)
    }

    fn small_file(&mut self, directory: &Directory, name: &[u8]) -> io::Result<()> {
        let len = self.random.below(300) as usize;
        let content = self.random.bytes(len);
        self.file(directory, name, &content)?;
        let at = self.ordinary_time();
        directory.set_modified(name, at)
    }

    /// Notes a refusal instead of failing.
    fn tolerate(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            let line = format!("{what}: {error}");
            if !self.built.refused.contains(&line) {
                self.built.refused.push(line);
            }
        }
    }

    fn names(&mut self, directory: &Directory) -> io::Result<()> {
        for byte in (1..=255u8).filter(|&byte| byte != b'/') {
            if byte != b'.' {
                self.small_file(directory, &[byte])?;
            }
            self.small_file(directory, &[b'm', byte, b'z'])?;
        }
        let strange: [&[u8]; 26] = [
            b"...",
            b"..a",
            b"-rf",
            b"--",
            b" leading",
            b"trailing ",
            b"  ",
            b"new\nline",
            b"\n\n",
            b"tab\there",
            b"back\\slash",
            b"quote'\"`$()",
            b"*?[!a]{b,c}",
            b"%2f%00%zz",
            b"C:\\windows:stream",
            b"\xff\xfe\xfd not utf-8",
            b"over\xc0\xaflong",
            b"half \xe2\x82 of a euro",
            b"surrogate \xed\xa0\x80",
            "precomposed é".as_bytes(),
            "decomposed e\u{301}".as_bytes(),
            "\u{202e}right to left".as_bytes(),
            "zero\u{200b}width".as_bytes(),
            "żółć 日本語 🗄".as_bytes(),
            b"con",
            b"\x1b[31mred\x07",
        ];
        for name in strange {
            self.small_file(directory, name)?;
        }
        self.small_file(directory, &[b'x'; 255])?;
        self.small_file(directory, &[0xff; 255])?;
        self.small_file(directory, &[b'\n'; 255])?;
        self.section(directory, b"directory\nwith \xff newline", |this, inner| {
            this.small_file(inner, b"inside")?;
            this.section(inner, &[0xfe; 255], |this, deepest| this.small_file(deepest, b"deepest"))
        })
    }

    /// Names whose order differs between comparing whole paths and comparing component by component.
    fn order(&mut self, directory: &Directory) -> io::Result<()> {
        for name in [&b"a"[..], b"a-", b"a.", b"a0", b"aa", b"a\x01", b"b"] {
            self.section(directory, name, |this, inner| {
                this.section(inner, b"a", |this, deeper| this.small_file(deeper, b"a"))?;
                this.small_file(inner, b"a.b")?;
                this.small_file(inner, b"a-b")?;
                this.small_file(inner, b"a\x01b")
            })?;
        }
        self.small_file(directory, b"a.b")?;
        self.section(directory, b"empty", |_, _| Ok(()))
    }

    fn long_paths(&mut self, directory: &Directory) -> io::Result<()> {
        self.descend(directory, 100, &[b'w'; 250])?;
        self.descend(directory, 300, b"d")
    }

    fn descend(&mut self, directory: &Directory, levels: usize, name: &[u8]) -> io::Result<()> {
        if levels == 0 {
            return self.small_file(directory, b"bottom");
        }
        self.section(directory, name, |this, inner| {
            if levels.is_multiple_of(25) {
                this.small_file(inner, b"on the way")?;
            }
            this.descend(inner, levels - 1, name)
        })
    }

    fn modes(&mut self, directory: &Directory) -> io::Result<()> {
        // Without root a person must at least be able to read what is to be backed up, and to remove the tree.
        let (file_floor, directory_floor) = if self.root { (0, 0) } else { (0o400, 0o700) };
        self.section(directory, b"files", |this, inner| {
            for mode in 0..0o10000u32 {
                let name = format!("{mode:04o}");
                this.file(inner, name.as_bytes(), name.as_bytes())?;
                inner.set_mode(name.as_bytes(), mode | file_floor)?;
            }
            Ok(())
        })?;
        self.section(directory, b"directories", |this, inner| {
            for mode in 0..0o10000u32 {
                let name = format!("{mode:04o}");
                let made = inner.create_directory(name.as_bytes())?;
                this.built.entries += 1;
                this.small_file(&made, b"inside")?;
                let at = this.ordinary_time();
                made.set_modified_self(at)?;
                inner.set_mode(name.as_bytes(), mode | directory_floor)?;
            }
            Ok(())
        })
    }

    fn owners(&mut self, directory: &Directory) -> io::Result<()> {
        for (uid, gid) in [(0, 0), (1, 2), (0, 65_534), (65_534, 0), (4_000_000_001, 4_000_000_002), (12_345, 54_321)] {
            let name = format!("file {uid} {gid}");
            self.small_file(directory, name.as_bytes())?;
            let result = directory.set_owner(name.as_bytes(), uid, gid);
            self.tolerate("foreign owners", result);
            // Setting an owner clears these bits, so a restore must set them afterwards.
            directory.set_mode(name.as_bytes(), 0o6755)?;
            let link = format!("link {uid} {gid}");
            directory.create_symlink(link.as_bytes(), b"nowhere")?;
            self.built.entries += 1;
            let result = directory.set_owner(link.as_bytes(), uid, gid);
            self.tolerate("foreign owners", result);
        }
        Ok(())
    }

    fn times(&mut self, directory: &Directory) -> io::Result<()> {
        let seconds = [
            0,
            1,
            -1,
            -86_400,
            -1_000_000_000,
            -2_147_483_648,
            2_147_483_647,
            2_147_483_648,
            4_294_967_295,
            4_294_967_296,
            7_000_000_000,
            15_032_385_535,
            1_234_567_890,
        ];
        for at in seconds {
            for nanoseconds in [0, 1, 999_999_999] {
                let name = format!("file {at} {nanoseconds}");
                self.small_file(directory, name.as_bytes())?;
                directory.set_modified(name.as_bytes(), (at, nanoseconds))?;
            }
            let name = format!("directory {at}");
            directory.create_directory(name.as_bytes())?;
            directory.set_modified(name.as_bytes(), (at, 500_000_001))?;
            let name = format!("link {at}");
            directory.create_symlink(name.as_bytes(), b"file 0 0")?;
            directory.set_modified(name.as_bytes(), (at, 500_000_002))?;
            self.built.entries += 2;
        }
        Ok(())
    }

    fn holes(&mut self, directory: &Directory) -> io::Result<()> {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        // Name, length, and where data is: offset, bytes.
        type Shape = (&'static str, u64, &'static [(u64, u64)]);
        let shapes: [Shape; 12] = [
            ("start", 2 * MIB, &[(MIB, MIB)]),
            ("middle", 3 * MIB, &[(0, MIB), (2 * MIB, MIB)]),
            ("end", 2 * MIB, &[(0, MIB)]),
            ("only", 5 * MIB, &[]),
            ("only small", 4 * KIB, &[]),
            ("one byte at the end of a large one", 3 * 1024 * MIB + 1, &[(3 * 1024 * MIB, 1)]),
            ("one byte at the start of a large one", 3 * 1024 * MIB + 1, &[(0, 1)]),
            ("not on block borders", 777_777, &[(12_345, 70_000), (500_001, 3)]),
            ("small file", 20 * KIB, &[(8 * KIB, 100)]),
            ("odd length", 1_000_001, &[(0, 4096)]),
            ("many", 64 * MIB, &[(0, 4096), (8 * MIB, 8192), (16 * MIB, MIB), (40 * MIB, 4096), (63 * MIB, 100)]),
            ("data across cuts", 40 * MIB, &[(MIB, 9 * MIB), (30 * MIB, 5 * MIB)]),
        ];
        for (name, len, data) in shapes {
            let file = self.file(directory, name.as_bytes(), b"")?;
            file.set_len(len)?;
            for &(offset, bytes) in data {
                let content = self.random.bytes(bytes as usize);
                file.write_all_at(&content, offset)?;
            }
        }
        let comb = self.file(directory, b"comb", b"")?;
        for tooth in 0..400u64 {
            let content = self.random.bytes(4096);
            comb.write_all_at(&content, tooth * 8192)?;
        }
        comb.set_len(401 * 8192)?;
        // Zeros that are really there are data.
        self.file(directory, b"zeros, written", &vec![0; 300_000])?;
        self.file(directory, b"zeros, written, large", &vec![0; 9 << 20])?;
        Ok(())
    }

    fn links(&mut self, directory: &Directory) -> io::Result<()> {
        let large = self.random.bytes(700_000);
        self.file(directory, b"large, one of three", &large)?;
        self.file(directory, b"small, one of two", b"small")?;
        self.file(directory, b"empty, one of two", b"")?;
        self.file(directory, b"equal bytes, not linked 1", b"equal bytes")?;
        self.file(directory, b"equal bytes, not linked 2", b"equal bytes")?;
        self.section(directory, b"elsewhere", |this, inner| {
            directory.link(b"large, one of three", inner, b"large, two of three")?;
            directory.link(b"large, one of three", inner, b"large, three of three")?;
            directory.link(b"small, one of two", inner, b"small, two of two")?;
            directory.link(b"empty, one of two", inner, b"empty, two of two")?;
            this.built.entries += 4;
            Ok(())
        })?;
        let targets: [(&[u8], &[u8]); 9] = [
            (b"to a file", b"small, one of two"),
            (b"to a directory", b"elsewhere"),
            (b"to a directory, with slash", b"elsewhere/"),
            (b"dangling", b"../../no such thing"),
            (b"absolute", b"/etc/passwd"),
            (b"to itself", b"to itself"),
            (b"not utf-8", b"\xff\xfe/\xfd"),
            (b"newline", b"a\nb"),
            (b"to nothing visible", b" "),
        ];
        for (name, target) in targets {
            directory.create_symlink(name, target)?;
            let at = self.ordinary_time();
            directory.set_modified(name, at)?;
            self.built.entries += 1;
        }
        directory.create_symlink(b"longest target", &[b't'; 4095])?;
        directory.create_symlink(b"symlink, one of two", b"dangling")?;
        directory.link(b"symlink, one of two", directory, b"symlink, two of two")?;
        self.built.entries += 3;
        Ok(())
    }

    fn nodes(&mut self, directory: &Directory) -> io::Result<()> {
        let kinds: [(&[u8], FileType, u32, u32); 6] = [
            (b"fifo", FileType::Fifo, 0, 0),
            (b"socket", FileType::Socket, 0, 0),
            (b"null", FileType::CharacterDevice, 1, 3),
            (b"large numbers", FileType::CharacterDevice, 511, 1_048_575),
            (b"loop", FileType::BlockDevice, 7, 0),
            (b"disk", FileType::BlockDevice, 259, 70_000),
        ];
        for (name, kind, major, minor) in kinds {
            match directory.create_node(name, kind, major, minor) {
                Ok(()) => {
                    self.built.entries += 1;
                    directory.set_mode(name, 0o640)?;
                    let at = self.ordinary_time();
                    directory.set_modified(name, at)?;
                }
                Err(error) => self.tolerate("devices", Err(error)),
            }
        }
        directory.link(b"fifo", directory, b"fifo, further name")?;
        self.built.entries += 1;
        Ok(())
    }

    fn attributes(&mut self, directory: &Directory) -> io::Result<()> {
        self.small_file(directory, b"many")?;
        for number in 0..20 {
            let value = self.random.bytes(number * 9);
            self.attribute(directory, b"many", &format!("user.number {number}"), &value);
        }
        self.small_file(directory, b"large")?;
        for len in [60_000, 16_000, 3_500] {
            let value = self.random.bytes(len);
            if directory.set_attribute(b"large", c"user.large", &value).is_ok() {
                break;
            }
        }
        self.small_file(directory, b"odd name")?;
        self.attribute(directory, b"odd name", "user.\u{1}\n \u{fffd}", b"\0\xff\0");
        self.section(directory, b"on a directory", |this, inner| this.small_file(inner, b"inside"))?;
        self.attribute(directory, b"on a directory", "user.directory", b"yes");
        self.small_file(directory, b"access list")?;
        self.attribute(directory, b"access list", ACCESS_LIST, &access_list(&[1234, 4_000_000_000]));
        self.section(directory, b"default access list", |_, _| Ok(()))?;
        self.attribute(directory, b"default access list", "system.posix_acl_default", &access_list(&[77]));
        self.attribute(directory, b"default access list", ACCESS_LIST, &access_list(&[78]));
        if self.root {
            directory.create_symlink(b"link with attribute", b"many")?;
            self.built.entries += 1;
            self.attribute(directory, b"link with attribute", "trusted.link", b"on the link itself");
            self.small_file(directory, b"capability")?;
            // cap_net_bind_service, permitted and effective (linux/capability.h, vfs_cap_data revision 2).
            let mut capability = [0u8; 20];
            capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
            capability[4..8].copy_from_slice(&(1u32 << 10).to_le_bytes());
            self.attribute(directory, b"capability", "security.capability", &capability);
        } else {
            self.built.refused.push("trusted and security attributes: not root".to_owned());
        }
        Ok(())
    }

    fn attribute(&mut self, directory: &Directory, name: &[u8], attribute: &str, value: &[u8]) {
        let result = CString::new(attribute)
            .map_err(io::Error::other)
            .and_then(|attribute| directory.set_attribute(name, &attribute, value));
        self.tolerate(attribute, result);
    }

    /// Lengths around every border the format knows: bundles, chunk minimum, average and maximum.
    fn sizes(&mut self, directory: &Directory) -> io::Result<()> {
        for border in [1usize, 4096, 65_536, 131_072, 524_288, 1 << 20, 4 << 20] {
            for len in [border - 1, border, border + 1] {
                let content = self.random.bytes(len);
                self.file(directory, format!("{len:08}").as_bytes(), &content)?;
            }
        }
        let content = self.random.bytes(9_999_999);
        self.file(directory, b"09999999", &content)?;
        // Without content-defined borders every chunk has the maximum length.
        self.file(directory, b"periodic", &b"abcdefgh".repeat(1 << 20))?;
        Ok(())
    }
}

const ACCESS_LIST: &str = "system.posix_acl_access";

/// A POSIX ACL as the kernel takes it (linux/posix_acl_xattr.h): owner rwx, the named users r-x, group r, mask rwx.
fn access_list(users: &[u32]) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, permissions: u16, id: u32| {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    };
    entry(0x01, 7, NOBODY);
    users.iter().for_each(|&user| entry(0x02, 5, user));
    entry(0x04, 4, NOBODY);
    entry(0x10, 7, NOBODY);
    entry(0x20, 0, NOBODY);
    out
}

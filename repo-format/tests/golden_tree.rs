//! The trees of version 1: the same entries give the same nodes, byte for byte, or every unchanged snapshot would be
//! stored again. `tests/golden/v1/tree.bin` holds the nodes in the order they are finished, each behind its length
//! (u32, little-endian). `HOLDFAST_WRITE_GOLDEN=1` writes it when it is missing.

#[cfg(test)]
mod tree {
    use repo_format::FormatError;
    use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time, Xattr, XattrValue};
    use repo_format::filelist::{ContentCursor, ContentListBuilder};
    use repo_format::id::{ChunkId, NodeId};
    use repo_format::keys::{IdKeys, VaultRootKey};
    use repo_format::node::{BuiltNode, NodeSource};
    use repo_format::pathmap::{Cursor, PathMapBuilder};
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    /// The root of the golden tree.
    const ROOT: &str = "4cf3d1b3ea65ecdf46e810dfa43619b0a4ab472e5be34158f7dc3af5e341e0a5";

    struct Memory(HashMap<NodeId, Arc<[u8]>>);

    impl NodeSource for Memory {
        type Error = FormatError;
        fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, FormatError> {
            self.0.get(id).cloned().ok_or(FormatError::Truncated { what: "golden tree" })
        }
    }

    fn keys() -> IdKeys {
        IdKeys::derive(&VaultRootKey::from_bytes([0x11; 32]))
    }

    fn elements(count: u32) -> Vec<Element> {
        (0..count)
            .map(|number| match number % 11 {
                5 => Element::Hole { len: u64::from(number) << 20 | 1 },
                _ => {
                    let chunk = ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
                    Element::Data { chunk, offset: number % 7, len: 1 + number }
                }
            })
            .collect()
    }

    fn file(content: Content, size: u64, number: u32) -> EntryKind {
        let mut hasher = keys().content_hasher();
        hasher.data(&number.to_le_bytes());
        if number % 2 == 1 {
            hasher.hole(5, 1 << 40);
        }
        EntryKind::File { size, content, hash: hasher.finish(), profile: Profile::Default }
    }

    /// The tree as values, its nodes in order, and its root.
    fn build() -> (BTreeMap<PathKey, Entry>, Vec<BuiltNode>, NodeId) {
        let keys = keys();
        let mut nodes = Vec::new();
        let mut long = ContentListBuilder::new();
        for element in elements(700) {
            long.push(&keys, element, &mut |node| nodes.push(node)).unwrap();
        }
        let long = long.finish(&keys, &mut |node| nodes.push(node)).unwrap();
        let long_size = elements(700).iter().map(Element::len).sum();
        let mut entries = BTreeMap::new();
        for number in 0..600u32 {
            let name = format!("entry {number:04}\u{e9}").into_bytes();
            let folder = format!("folder-{}", number / 150);
            let kind = match number % 9 {
                0 => EntryKind::Directory,
                1 => EntryKind::Symlink { target: b"../elsewhere \xff".to_vec() },
                2 => EntryKind::Fifo,
                3 => EntryKind::Socket,
                4 => EntryKind::CharDevice { major: 1, minor: number },
                5 => EntryKind::BlockDevice { major: u32::MAX, minor: 0 },
                6 => file(long.clone(), long_size, number),
                _ => {
                    let parts = elements(number % 8);
                    let size = parts.iter().map(Element::len).sum();
                    file(Content::Inline(parts), size, number)
                }
            };
            let xattrs = match number % 5 {
                0 => vec![
                    Xattr { name: b"user.a".to_vec(), value: XattrValue::Inline(vec![0, 1, 2]) },
                    Xattr {
                        name: b"user.b".to_vec(),
                        value: XattrValue::Chunk { chunk: ChunkId::from_bytes([3; 32]), len: 70_000 },
                    },
                ],
                _ => Vec::new(),
            };
            let entry = Entry {
                kind,
                mode: number * 7 % 0o10000,
                uid: number % 4,
                gid: u32::MAX - number,
                user: [&b""[..], b"root", b"daemon", b"\xfe"][number as usize % 4].to_vec(),
                group: Vec::new(),
                mtime: Time {
                    seconds: i64::from(number) * 100_000_000 - 9_000_000_000,
                    nanoseconds: 999_999_999 - number,
                },
                xattrs,
                link_group: (number % 9 == 6).then_some(u64::MAX),
            };
            entries.insert(PathKey::new([&b"srv"[..], folder.as_bytes()], &name).unwrap(), entry);
        }
        let root = entries[&entries.keys().next().unwrap().clone()].clone();
        entries.insert(PathKey::root(), Entry { kind: EntryKind::Directory, ..root });
        let mut map = PathMapBuilder::new(&keys);
        for (key, entry) in &entries {
            map.push(key, entry, &mut |node| nodes.push(node)).unwrap();
        }
        let root = map.finish(&mut |node| nodes.push(node)).unwrap();
        (entries, nodes, root)
    }

    fn golden() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/tree.bin");
        if !std::path::Path::new(path).exists() && std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
            let mut bytes = Vec::new();
            for node in build().1 {
                bytes.extend_from_slice(&(node.bytes.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&node.bytes);
            }
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::read(path).unwrap()
    }

    fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
            let (part, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
            parts.push(part);
            bytes = rest;
        }
        parts
    }

    #[test]
    fn the_same_entries_give_the_same_nodes() {
        let golden = golden();
        let (_, nodes, root) = build();
        assert_eq!(nodes.iter().map(|node| node.bytes.as_slice()).collect::<Vec<_>>(), parts(&golden));
        assert_eq!(root.to_string(), ROOT);
    }

    #[test]
    fn old_nodes_are_read() {
        let golden = golden();
        let keys = keys();
        let nodes = parts(&golden).into_iter().map(|bytes| (keys.node_id(bytes), Arc::from(bytes))).collect();
        let memory = Memory(nodes);
        let (entries, ..) = build();
        let mut cursor = Cursor::new(&memory, ROOT.parse().unwrap());
        let mut read = BTreeMap::new();
        while let Some((key, entry)) = cursor.next().unwrap() {
            if let EntryKind::File { content: content @ Content::List(_), .. } = &entry.kind {
                let mut list = ContentCursor::new(&memory, content);
                let mut found = Vec::new();
                while let Some((_, element)) = list.next().unwrap() {
                    found.push(element);
                }
                assert_eq!(found, elements(700));
            }
            read.insert(key, entry);
        }
        assert_eq!(read, entries);
    }
}

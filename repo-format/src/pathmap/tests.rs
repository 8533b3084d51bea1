//! Path maps against a `BTreeMap`.

use super::*;
use crate::entry::Element;
use crate::id::ChunkId;
use crate::keys::VaultRootKey;
use crate::node::verify;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Default)]
struct Memory {
    nodes: HashMap<NodeId, Arc<[u8]>>,
    reads: Cell<usize>,
}

impl NodeSource for Memory {
    type Error = FormatError;
    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, FormatError> {
        self.reads.set(self.reads.get() + 1);
        self.nodes.get(id).cloned().ok_or(FormatError::invalid("test", "no such node"))
    }
}

struct Lengths<'a>(&'a Memory);

impl ChildLengths for Lengths<'_> {
    fn chunk_bytes(&self, _: &ChunkId) -> Option<u64> {
        Some(1000)
    }
    fn node_logical_bytes(&self, id: &NodeId) -> Option<u64> {
        NodeView::parse(self.0.nodes.get(id)?).ok().map(|view| view.logical_bytes)
    }
}

fn keys() -> IdKeys {
    IdKeys::derive(&VaultRootKey::from_bytes([5; 32]))
}

fn build(memory: &mut Memory, entries: &BTreeMap<PathKey, Entry>) -> (NodeId, usize) {
    let keys = keys();
    let mut builder = PathMapBuilder::new(&keys);
    let mut fresh = 0;
    let mut sink = |node: BuiltNode| {
        let view = NodeView::parse(&node.bytes).unwrap();
        assert!(view.nodes().all(|child| memory.nodes.contains_key(&child)), "children come before parents");
        fresh += usize::from(memory.nodes.insert(node.id, Arc::from(node.bytes)).is_none());
    };
    for (key, entry) in entries {
        builder.push(key, entry, &mut sink).unwrap();
    }
    let root = builder.finish(&mut sink).unwrap();
    (root, fresh)
}

fn file(number: u64) -> Entry {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number / 7).to_le_bytes());
    let len = 1 + (number % 900) as u32;
    Entry {
        kind: EntryKind::File {
            size: len.into(),
            content: Content::Inline(vec![Element::Data { chunk: ChunkId::from_bytes(id), offset: 3, len }]),
            hash: ContentHash::from_bytes([number as u8; 32]),
            profile: Profile::Bundle,
        },
        mode: 0o644,
        uid: 1000,
        gid: (number % 3) as u32,
        user: b"someone".to_vec(),
        group: if number.is_multiple_of(2) { Vec::new() } else { b"group".to_vec() },
        mtime: Time { seconds: -5 + number as i64, nanoseconds: 999_999_999 },
        xattrs: Vec::new(),
        link_group: None,
    }
}

fn any_kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        Just(EntryKind::Directory),
        Just(EntryKind::Fifo),
        Just(EntryKind::Socket),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        proptest::collection::vec(1u8.., 1..200).prop_map(|target| EntryKind::Symlink { target }),
        any::<u64>().prop_map(|number| file(number % 5000).kind),
        Just(EntryKind::File {
            size: 0,
            content: Content::Inline(Vec::new()),
            hash: ContentHash::from_bytes([0; 32]),
            profile: Profile::Default
        }),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let xattr = (proptest::collection::vec(any::<u8>(), 1..20), proptest::collection::vec(any::<u8>(), 0..100));
    (
        any_kind(),
        0u32..=0o7777,
        any::<(u32, u32, i64)>(),
        0u32..1_000_000_000,
        any::<Option<u64>>(),
        proptest::collection::vec(xattr, 0..3),
    )
        .prop_map(|(kind, mode, (uid, gid, seconds), nanoseconds, link_group, xattrs)| Entry {
            kind,
            mode,
            uid,
            gid,
            user: if uid % 2 == 0 { Vec::new() } else { uid.to_string().into_bytes() },
            group: Vec::new(),
            mtime: Time { seconds, nanoseconds },
            xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name, value: XattrValue::Inline(value) }).collect(),
            link_group,
        })
}

fn any_key() -> impl Strategy<Value = PathKey> {
    let component = prop_oneof![
        4 => "[a-c]{1,2}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(prop_oneof![1u8..b'.', b'0'..=255], 1..12),
    ];
    proptest::collection::vec(component, 1..5).prop_map(|mut components| {
        let name = components.pop().unwrap();
        PathKey::new(components.iter().map(Vec::as_slice), &name).unwrap()
    })
}

fn collect(memory: &Memory, root: NodeId) -> BTreeMap<PathKey, Entry> {
    let mut cursor = Cursor::new(memory, root);
    let mut entries = BTreeMap::new();
    while let Some((key, entry)) = cursor.next().unwrap() {
        assert!(entries.insert(key, entry).is_none());
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_come_back(entries in proptest::collection::btree_map(any_key(), any_entry(), 0..400), seek in any_key()) {
        let mut memory = Memory::default();
        let (root, _) = build(&mut memory, &entries);
        prop_assert_eq!(&collect(&memory, root), &entries);
        for bytes in memory.nodes.values() {
            verify(&NodeView::parse(bytes).unwrap(), &Lengths(&memory)).unwrap();
        }
        let mut cursor = Cursor::new(&memory, root);
        let mut expected = entries.range(seek.clone()..);
        cursor.seek(seek.as_bytes()).unwrap();
        while let Some((key, entry)) = cursor.next().unwrap() {
            prop_assert_eq!(Some((&key, &entry)), expected.next());
        }
        prop_assert!(expected.next().is_none());
        // Seeking back and to and fro on one cursor finds every entry.
        for (key, entry) in entries.iter().rev().step_by(7) {
            let found = cursor.lookup(key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(entry));
        }
    }

    #[test]
    fn differences_are_exact(
        first in proptest::collection::btree_map(any_key(), any_entry(), 0..300),
        added in proptest::collection::btree_map(any_key(), any_entry(), 0..6),
        removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut second = first.clone();
        for index in &removed {
            if let Some(key) = (!second.is_empty()).then(|| second.keys().nth(index.index(second.len())).unwrap().clone()) {
                second.remove(&key);
            }
        }
        second.extend(added);
        let mut memory = Memory::default();
        let (a, b) = (build(&mut memory, &first).0, build(&mut memory, &second).0);
        let mut rebuilt = first.clone();
        differences(&memory, a, b, |difference| {
            match difference {
                Difference::Added(key, entry) => assert!(rebuilt.insert(key, entry).is_none()),
                Difference::Removed(key, entry) => assert_eq!(rebuilt.remove(&key), Some(entry)),
                Difference::Changed(key, pair) => assert_eq!(rebuilt.insert(key, pair.1), Some(pair.0)),
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(rebuilt, second);
    }

    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 1u8..5) {
        let mut plaintext = b"HFN1\x01".to_vec();
        plaintext.push(kind);
        plaintext.extend_from_slice(&[0, 0, 0, 0, 2, 0]);
        plaintext.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        plaintext.extend_from_slice(&[0; 8]);
        plaintext.extend_from_slice(&[1; 32]);
        plaintext.extend_from_slice(&[2; 32]);
        plaintext.extend_from_slice(&bytes);
        let view = NodeView::parse(&plaintext).unwrap();
        let _ = verify(&view, &Lengths(&Memory::default()));
    }
}

fn folder(count: u64) -> BTreeMap<PathKey, Entry> {
    (0..count)
        .map(|number| {
            let directory = format!("d{}", number / 1000);
            let name = format!("file-{number:09}");
            (PathKey::new([&b"home"[..], directory.as_bytes()], name.as_bytes()).unwrap(), file(number))
        })
        .collect()
}

#[test]
fn one_changed_entry_changes_one_path_of_nodes() {
    let mut memory = Memory::default();
    let mut entries = folder(20_000);
    let (before, all) = build(&mut memory, &entries);
    assert!(all < 20_000 / 30, "nodes hold about 64 entries, found {all} nodes");
    let key = entries.keys().nth(11_111).unwrap().clone();
    entries.get_mut(&key).unwrap().mode = 0o600;
    let (after, fresh) = build(&mut memory, &entries);
    assert!(fresh <= 4, "{fresh} new nodes");
    memory.reads.set(0);
    let mut found = 0;
    differences(&memory, before, after, |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, 1);
    assert!(memory.reads.get() < 700, "{} nodes read", memory.reads.get());
    // An inserted and a removed entry as well.
    entries.insert(PathKey::new([&b"home"[..], b"d3"], b"file-000003000x").unwrap(), file(1));
    let (_, fresh) = build(&mut memory, &entries);
    assert!(fresh <= 6, "{fresh} new nodes after an insertion");
}

#[test]
fn a_folder_is_one_range_before_its_subfolders() {
    let path = |text: &str| PathKey::from_path(text.as_bytes()).unwrap();
    let mut keys: Vec<PathKey> =
        ["/", "/a", "/a/b", "/a/b/z", "/a/c", "/a!x", "/a!x/q", "/ab", "/a/b/a", "/a/b!"].map(path).into();
    keys.sort();
    let shown: Vec<String> = keys.iter().map(|key| String::from_utf8(key.to_path()).unwrap()).collect();
    assert_eq!(shown, ["/", "/a", "/a!x", "/ab", "/a/b", "/a/b!", "/a/c", "/a/b/a", "/a/b/z", "/a!x/q"]);
    assert!(path("/a/b/z").as_bytes().starts_with(&path("/a/b").subtree_prefix()));
    assert_eq!(path("/a/b").child(b"z").unwrap(), path("/a/b/z"));
    assert_eq!(path("/").child(b"a").unwrap(), path("/a"));
    assert_eq!(path("/a/b/z").directory().collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn keys_that_would_leave_the_target_are_refused() {
    assert!(PathKey::from_path(b"/a/../b").is_err());
    for bytes in [&b""[..], b"a", b"..\0\0x", b"\0..", b"\0.", b"\0a/b", b"a/b\0\0c", b"a\0", b"a\0\0", b"\0a\0b"] {
        assert!(PathKey::from_encoded(bytes).is_err(), "{bytes:?}");
    }
    assert!(PathKey::from_encoded(b"\0").unwrap().is_root());
}

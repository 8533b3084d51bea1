//! Content lists against a plain vector of elements.

use super::*;
use crate::id::ChunkId;
use crate::keys::VaultRootKey;
use crate::node::verify;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

struct Memory(HashMap<NodeId, Arc<[u8]>>);

impl NodeSource for Memory {
    type Error = FormatError;
    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, FormatError> {
        self.0.get(id).cloned().ok_or(FormatError::invalid("test", "no such node"))
    }
}

struct Lengths<'a>(&'a Memory);

impl ChildLengths for Lengths<'_> {
    fn chunk_bytes(&self, _: &ChunkId) -> Option<u64> {
        Some(2000)
    }
    fn node_logical_bytes(&self, id: &NodeId) -> Option<u64> {
        NodeView::parse(self.0.0.get(id)?).ok().map(|view| view.logical_bytes)
    }
}

fn keys() -> IdKeys {
    IdKeys::derive(&VaultRootKey::from_bytes([9; 32]))
}

fn build(elements: &[Element]) -> (Memory, Content) {
    let mut nodes = HashMap::new();
    let mut sink = |node: BuiltNode| {
        nodes.insert(node.id, Arc::from(node.bytes));
    };
    let mut builder = ContentListBuilder::new();
    for element in elements {
        builder.push(&keys(), *element, &mut sink).unwrap();
    }
    let content = builder.finish(&keys(), &mut sink).unwrap();
    (Memory(nodes), content)
}

fn any_element() -> impl Strategy<Value = Element> {
    prop_oneof![
        4 => (any::<u16>(), 0u32..1000, 1u32..1000).prop_map(|(chunk, offset, len)| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&chunk.to_le_bytes());
            Element::Data { chunk: ChunkId::from_bytes(id), offset, len }
        }),
        1 => (1u64..1 << 40).prop_map(|len| Element::Hole { len }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn elements_come_back_from_any_offset(
        elements in proptest::collection::vec(any_element(), 0..1500),
        part in 0.0f64..1.2,
    ) {
        let (memory, content) = build(&elements);
        prop_assert_eq!(matches!(content, Content::Inline(_)), elements.len() <= CONTENT_INLINE_MAX);
        for bytes in memory.0.values() {
            verify(&NodeView::parse(bytes).unwrap(), &Lengths(&memory)).unwrap();
        }
        let mut placed = Vec::new();
        let mut offset = 0;
        for element in &elements {
            placed.push((offset, *element));
            offset += element.len();
        }
        let from = (offset as f64 * part) as u64;
        for from in [0, from] {
            let mut cursor = ContentCursor::new(&memory, &content);
            let mut got = Vec::new();
            while let Some(item) = cursor.next_from(from).unwrap() {
                got.push(item);
            }
            let expected: Vec<_> = placed.iter().filter(|(at, element)| at + element.len() > from).copied().collect();
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn a_reference_outside_its_chunk_is_found() {
    let element = Element::Data { chunk: ChunkId::from_bytes([1; 32]), offset: 1500, len: 501 };
    let (memory, content) = build(&vec![element; CONTENT_INLINE_MAX + 1]);
    let Content::List(root) = content else { panic!("a list was expected") };
    let bytes = memory.node(&root).unwrap();
    assert!(verify(&NodeView::parse(&bytes).unwrap(), &Lengths(&memory)).is_err());
}

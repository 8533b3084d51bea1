//! What differs between two path maps; ranges they share are passed over unread.

use super::Cursor;
use crate::entry::{Entry, PathKey};
use crate::id::NodeId;
use crate::node::NodeSource;
use std::cmp::Ordering;

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only in the second map.
    Added(PathKey, Entry),
    /// Only in the first map.
    Removed(PathKey, Entry),
    /// In both, not equal: first, second.
    Changed(PathKey, Box<(Entry, Entry)>),
}

/// Calls `report` for every difference from the map under `first` to the one under `second`, in key order.
pub fn differences<S: NodeSource>(
    source: &S,
    first: NodeId,
    second: NodeId,
    mut report: impl FnMut(Difference) -> Result<(), S::Error>,
) -> Result<(), S::Error> {
    if first == second {
        return Ok(());
    }
    let (mut left, mut right) = (Cursor::new(source, first), Cursor::new(source, second));
    loop {
        let here = right.nodes_beginning_here()?;
        if !here.is_empty() {
            let shared = left.nodes_beginning_here()?.into_iter().find(|node| here.contains(node));
            if let Some(node) = shared {
                left.skip_node(&node);
                right.skip_node(&node);
                continue;
            }
        }
        let order = match (left.peek()?, right.peek()?) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order == Ordering::Greater { None } else { left.next()? };
        let after = if order == Ordering::Less { None } else { right.next()? };
        match (before, after) {
            (Some((key, a)), Some((_, b))) if a != b => report(Difference::Changed(key, Box::new((a, b))))?,
            (Some((key, entry)), None) => report(Difference::Removed(key, entry))?,
            (None, Some((key, entry))) => report(Difference::Added(key, entry))?,
            _ => {}
        }
    }
}

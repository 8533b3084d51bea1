//! Which bytes of a file were read: ranges that grow together, so that the log can say whether a download was complete.

use crate::limits::COVERED_RANGES_MAX;
use std::collections::BTreeMap;

/// Disjoint ranges, start to end.
#[derive(Debug, Default)]
pub struct Covered {
    ranges: BTreeMap<u64, u64>,
}

impl Covered {
    /// Adds `length` bytes from `start`.
    pub fn add(&mut self, start: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut start, mut end) = (start, start.saturating_add(length));
        while let Some((&other, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        // Random readers make many pieces; a piece that is forgotten only makes a complete read look incomplete.
        if self.ranges.len() < COVERED_RANGES_MAX {
            self.ranges.insert(start, end);
        }
    }

    /// Bytes covered.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether all of a file of `size` bytes is covered.
    pub fn all_of(&self, size: u64) -> bool {
        size == 0 || self.ranges.first_key_value().is_some_and(|(start, end)| *start == 0 && *end >= size)
    }
}

#[cfg(test)]
mod tests {
    use super::Covered;
    use proptest::prelude::proptest;

    proptest! {
        #[test]
        fn covered_bytes_are_those_that_were_added(reads in proptest::collection::vec((0u64..200, 0u64..40), 0..40)) {
            let mut covered = Covered::default();
            let mut each = [false; 240];
            for (start, length) in reads {
                covered.add(start, length);
                each[start as usize..(start + length) as usize].fill(true);
            }
            assert_eq!(covered.bytes(), each.iter().filter(|read| **read).count() as u64);
            let complete = each.iter().take_while(|read| **read).count() as u64;
            assert!(covered.all_of(complete));
            assert!(!covered.all_of(complete + 1));
        }
    }
}

//! Which bundles have become too empty. A small file that changes leaves its old bytes in a bundle whose other files
//! still need it; without anything done about it, space and restores get worse from run to run. So every run adds up
//! which parts of each bundle its snapshot uses, and the next one reads the files of those less than half used again
//! and puts them into fresh bundles: a hundredth of the tree at most, the emptiest first.
//!
//! What of this is not known, because the cache was lost or a bound below was passed, counts as used.

use super::limits::{BUNDLES_WATCHED_MAX, SLICES_WATCHED_MAX};
use repo_format::entry::{Content, Element, Entry, EntryKind, Profile};
use repo_format::id::ChunkId;
use std::collections::{HashMap, HashSet};

/// A run reads at most one part in this many of the tree again, by files and by bytes.
const TREE_PARTS: u64 = 100;

/// What one run may bundle again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebundling {
    /// Bundles whose files are bundled again.
    pub chunks: HashSet<ChunkId>,
    /// Files that may still be read again.
    pub files_left: u64,
    /// Bytes of them that may still be read again.
    pub bytes_left: u64,
}

impl Rebundling {
    /// Takes a file of the base snapshot out of what may be read again. `false`: its entry stays as it is.
    pub fn take(&mut self, entry: &Entry) -> bool {
        let Some((chunk, _, len)) = slice(entry) else { return false };
        let takes = self.files_left > 0 && self.bytes_left >= u64::from(len) && self.chunks.contains(&chunk);
        if takes {
            self.files_left -= 1;
            self.bytes_left -= u64::from(len);
        }
        takes
    }

    /// Whether an entry's content lies in a bundle to be replaced.
    pub fn replaces(&self, entry: &Entry) -> bool {
        slice(entry).is_some_and(|(chunk, _, _)| self.chunks.contains(&chunk))
    }
}

/// What a run knows of its bundles, and what the next one is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundlePlan {
    /// Bundles in use and their lengths, bytes.
    pub lengths: Vec<(ChunkId, u32)>,
    /// For the next run.
    pub again: Rebundling,
}

#[derive(Clone, Copy, Default)]
struct Use {
    number: u32,
    len: u32,
    used: u32,
    files: u32,
    /// Bytes of `files`, copies counted again: what reading them takes.
    file_bytes: u64,
}

/// Adds up what a snapshot uses of its bundles.
#[derive(Default)]
pub struct BundleUse {
    bundles: HashMap<ChunkId, Use>,
    /// (bundle, offset) of every part that has been counted: files of equal content share one.
    slices: HashSet<(u32, u32)>,
    files: u64,
    bytes: u64,
}

impl BundleUse {
    /// Nothing counted; of bundles that the last run knew the lengths are known.
    pub fn new(lengths: Vec<(ChunkId, u32)>) -> Self {
        let mut counted = BundleUse::default();
        for (chunk, len) in lengths {
            counted.made(chunk, len);
        }
        counted
    }

    /// A bundle of `len` bytes.
    pub fn made(&mut self, chunk: ChunkId, len: u32) {
        if let Some(bundle) = self.bundle(chunk) {
            bundle.len = bundle.len.max(len);
        }
    }

    fn bundle(&mut self, chunk: ChunkId) -> Option<&mut Use> {
        let number = self.bundles.len() as u32;
        if self.bundles.len() >= BUNDLES_WATCHED_MAX && !self.bundles.contains_key(&chunk) {
            return None;
        }
        Some(self.bundles.entry(chunk).or_insert(Use { number, ..Use::default() }))
    }

    /// An entry of the snapshot.
    pub fn count(&mut self, entry: &Entry) {
        if let EntryKind::File { size, .. } = entry.kind {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(size);
        }
        let Some((chunk, offset, len)) = slice(entry) else { return };
        let Some(bundle) = self.bundle(chunk) else { return };
        bundle.len = bundle.len.max(offset.saturating_add(len));
        bundle.files = bundle.files.saturating_add(1);
        bundle.file_bytes += u64::from(len);
        let key = (bundle.number, offset);
        if self.slices.len() >= SLICES_WATCHED_MAX && !self.slices.contains(&key) || self.slices.insert(key) {
            let used = self.bundles.get_mut(&chunk).map(|bundle| &mut bundle.used);
            used.into_iter().for_each(|used| *used = used.saturating_add(len));
        }
    }

    /// What the next run needs to know: bundles in use, and those less than half used that fit into a hundredth of the
    /// tree. Where not even one fits, the emptiest is taken in parts.
    pub fn plan(self) -> BundlePlan {
        let (mut files, mut bytes) = (self.files / TREE_PARTS, self.bytes / TREE_PARTS);
        let mut again = Rebundling { chunks: HashSet::new(), files_left: files, bytes_left: bytes };
        let mut lengths = Vec::new();
        let mut sparse = Vec::new();
        for (chunk, bundle) in self.bundles.into_iter().filter(|(_, bundle)| bundle.files > 0) {
            lengths.push((chunk, bundle.len));
            if u64::from(bundle.used) * 2 < u64::from(bundle.len) {
                sparse.push((chunk, bundle));
            }
        }
        // By what a byte read again gives; the id makes the order that of every run.
        let share = |bundle: &Use| f64::from(bundle.used) / f64::from(bundle.len);
        sparse.sort_by(|(a, one), (b, other)| {
            share(one).total_cmp(&share(other)).then_with(|| a.as_bytes().cmp(b.as_bytes()))
        });
        for (chunk, bundle) in &sparse {
            if u64::from(bundle.files) <= files && bundle.file_bytes <= bytes {
                files -= u64::from(bundle.files);
                bytes -= bundle.file_bytes;
                again.chunks.insert(*chunk);
            }
        }
        if again.chunks.is_empty() {
            again.chunks.extend(sparse.first().map(|(chunk, _)| *chunk));
        }
        BundlePlan { lengths, again }
    }
}

/// The part of a bundle that holds a small file: chunk, offset, length.
fn slice(entry: &Entry) -> Option<(ChunkId, u32, u32)> {
    match &entry.kind {
        EntryKind::File { content: Content::Inline(elements), profile: Profile::Bundle, .. } => {
            match elements.as_slice() {
                [Element::Data { chunk, offset, len }] => Some((*chunk, *offset, *len)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::entry::Time;
    use repo_format::id::ContentHash;

    fn file(size: u64, content: Vec<Element>, profile: Profile) -> Entry {
        let hash = ContentHash::from_bytes([0; 32]);
        Entry {
            kind: EntryKind::File { size, content: Content::Inline(content), hash, profile },
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: Time::default(),
            xattrs: Vec::new(),
            link_group: None,
        }
    }

    fn chunk(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    fn part(number: u8, offset: u32, len: u32) -> Entry {
        file(u64::from(len), vec![Element::Data { chunk: chunk(number), offset, len }], Profile::Bundle)
    }

    /// `count` large files, so that a hundredth of the tree is `count / 100` files and bytes enough.
    fn large_files(counted: &mut BundleUse, count: u64) {
        for _ in 0..count {
            let large = vec![Element::Data { chunk: chunk(255), offset: 0, len: 100 }];
            counted.count(&file(1 << 20, large, Profile::Default));
        }
    }

    #[test]
    fn only_bundles_less_than_half_used_are_bundled_again() {
        let mut counted = BundleUse::new(vec![(chunk(1), 1000), (chunk(2), 1000), (chunk(3), 1000)]);
        large_files(&mut counted, 1000);
        counted.made(chunk(4), 100);
        counted.count(&part(1, 0, 500));
        counted.count(&part(2, 0, 300));
        counted.count(&part(2, 500, 199));
        counted.count(&part(4, 0, 100));
        // Never heard of: its end is where the last part of it ends.
        counted.count(&part(5, 600, 301));
        counted.count(&part(5, 0, 200));
        counted.count(&part(6, 600, 299));
        let plan = counted.plan();
        assert_eq!(plan.again.chunks, [chunk(2), chunk(6)].into());
        assert_eq!((plan.again.files_left, plan.again.bytes_left), (10, ((1000 << 20) + 1899) / 100));
        let mut lengths = plan.lengths;
        lengths.sort_unstable_by_key(|(chunk, _)| *chunk.as_bytes());
        let known = [(1, 1000), (2, 1000), (4, 100), (5, 901), (6, 899)];
        assert_eq!(lengths, known.map(|(number, len)| (chunk(number), len)), "the third is used by nobody");
    }

    #[test]
    fn copies_of_one_file_use_one_part() {
        let mut counted = BundleUse::new(vec![(chunk(1), 1000)]);
        large_files(&mut counted, 1000);
        for _ in 0..5 {
            counted.count(&part(1, 300, 300));
        }
        assert_eq!(counted.plan().again.chunks, [chunk(1)].into());
    }

    #[test]
    fn the_emptiest_go_first_and_never_more_than_a_hundredth() {
        let mut counted = BundleUse::new((1..=3).map(|number| (chunk(number), 1000)).collect());
        large_files(&mut counted, 300);
        for (number, files) in [(1, 3), (2, 2), (3, 1)] {
            (0..files).for_each(|file| counted.count(&part(number, file * 100, 100)));
        }
        let mut again = counted.plan().again;
        assert_eq!(again.chunks, [chunk(3), chunk(2)].into());
        assert_eq!(again.files_left, 3);
        assert!(again.replaces(&part(2, 0, 100)) && !again.replaces(&part(1, 0, 100)));
        assert!(!again.take(&part(1, 0, 100)), "not of the plan");
        assert!(again.take(&part(2, 0, 100)) && again.take(&part(2, 100, 100)) && again.take(&part(3, 0, 100)));
        assert!(!again.take(&part(3, 0, 100)), "more than was planned");
        assert_eq!(again.files_left, 0);
        let mut few = Rebundling { chunks: [chunk(1)].into(), files_left: 9, bytes_left: 150 };
        assert!(few.take(&part(1, 0, 100)) && !few.take(&part(1, 100, 100)) && few.take(&part(1, 100, 50)));
    }

    #[test]
    fn a_bundle_larger_than_a_hundredth_goes_in_parts() {
        let mut counted = BundleUse::new(vec![(chunk(1), 1000), (chunk(2), 1000)]);
        large_files(&mut counted, 200);
        (0..4).for_each(|file| counted.count(&part(1, file * 100, 100)));
        (0..3).for_each(|file| counted.count(&part(2, file * 100, 100)));
        let again = counted.plan().again;
        assert_eq!((again.chunks, again.files_left), ([chunk(2)].into(), 2));
    }

    #[test]
    fn a_small_tree_reads_nothing_again() {
        let mut counted = BundleUse::new(vec![(chunk(1), 1000)]);
        counted.count(&part(1, 0, 10));
        let mut again = counted.plan().again;
        assert!(!again.take(&part(1, 0, 10)));
    }
}

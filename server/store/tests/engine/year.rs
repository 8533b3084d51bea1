//! A year of a small computer on the real engine, day by day: a backup, retention by the real rules, and collection run
//! dry. How much compaction copies, and how much of the packs is dead meanwhile. The simulator beside the policy
//! (`compaction_policy/tests.rs`) has the same year with larger packs and without an engine.

use crate::bed::{VAULT, chunk, master, node};
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::id::{NodeId, ObjectId, SnapshotId};
use repo_format::keys::IdKeys;
use repo_format::pathmap::{Cursor, PathMapBuilder};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::meta::MemoryMeta;
use store::retention::{Candidate, Plan, Policies, Policy, Series};
use store::world::{Clock, World};
use store::{CommitInput, IncomingObject, Store, StoreSettings};

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// 2027-01-01, at noon.
const START_NS: i64 = 1_798_804_800_000_000_000;
const CHUNKS: usize = 2000;
/// A day's new chunks fill about six packs, as those of 20 GB do packs of the usual size.
const PACK_BYTES: u64 = 256 << 10;

/// Time that the test moves.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// One place of the tree: the seed its bytes come from, and the entry that refers to them.
#[derive(Clone)]
struct Place {
    version: u64,
    entry: Entry,
}

struct Year {
    _folder: tempfile::TempDir,
    store: Store,
    keys: IdKeys,
    clock: Arc<Hands>,
    choices: Choices,
    seed: u64,
    versions: u64,
    places: Vec<Place>,
    /// Chunks of the day that are to be sent.
    new: Vec<IncomingObject>,
    /// Nodes of the last snapshot: its successor sends the others only.
    sent: HashSet<ObjectId>,
    last: Option<SnapshotId>,
    /// Versions of every snapshot that may still be there.
    expected: BTreeMap<SnapshotId, (NodeId, Vec<u64>)>,
    keep: Policy,
    /// Worst share of dead bytes at any moment and at the end of a day, since it was last asked, percent.
    worst: f64,
    worst_at_rest: f64,
}

/// 16 to 48 KiB that do not compress: with smaller ones the nodes, which change with every chunk, would be a larger part
/// of the vault than they ever are.
fn content(seed: u64, version: u64) -> Vec<u8> {
    let mut state = (seed << 32) ^ version.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    next();
    let len = (16 << 10) + (next() % (32 << 10)) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn memory_folder() -> tempfile::TempDir {
    // Half a million syncs of a simulated year say nothing about a disk.
    match Path::new("/dev/shm") {
        memory if memory.is_dir() => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

impl Year {
    fn new(seed: u64, keep: Policy) -> Self {
        let folder = memory_folder();
        let clock = Arc::new(Hands(AtomicI64::new(START_NS)));
        let settings = StoreSettings {
            memory_bytes: 32 << 20,
            reserve_bytes: Some(0),
            pack_bytes_target: PACK_BYTES,
            ..StoreSettings::new(folder.path().to_owned())
        };
        let world = World { clock: clock.clone(), ..World::system() };
        let store = Store::open_with(settings, world, &master(), Arc::new(MemoryMeta::default())).unwrap();
        store.create_vault(VAULT).unwrap();
        let keys = store.id_keys(&VAULT).unwrap();
        let mut year = Year {
            _folder: folder,
            store,
            keys,
            clock,
            choices: Choices(seed),
            seed,
            versions: 0,
            places: Vec::new(),
            new: Vec::new(),
            sent: HashSet::new(),
            last: None,
            expected: BTreeMap::new(),
            keep,
            worst: 0.0,
            worst_at_rest: 0.0,
        };
        for _ in 0..CHUNKS {
            let place = year.fresh();
            year.places.push(place);
        }
        year
    }

    fn fresh(&mut self) -> Place {
        self.versions += 1;
        let bytes = content(self.seed, self.versions);
        let mut hasher = self.keys.content_hasher();
        hasher.data(&bytes);
        let element = Element::Data { chunk: self.keys.chunk_id(&bytes), offset: 0, len: bytes.len() as u32 };
        self.new.push(chunk(&self.keys, &bytes));
        let entry = Entry {
            kind: EntryKind::File {
                size: bytes.len() as u64,
                content: Content::Inline(vec![element]),
                hash: hasher.finish(),
                profile: Profile::Default,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: Time::default(),
            xattrs: Vec::new(),
            link_group: None,
        };
        Place { version: self.versions, entry }
    }

    /// Replaces so many places anywhere, and so many in one run.
    fn change(&mut self, scattered: usize, run: usize) {
        let mut places: Vec<usize> = (0..scattered).map(|_| self.choices.below(CHUNKS)).collect();
        let start = self.choices.below(CHUNKS);
        places.extend((start..start + run).map(|place| place % CHUNKS));
        places.sort_unstable();
        places.dedup();
        for place in places {
            self.places[place] = self.fresh();
        }
    }

    fn backup(&mut self) {
        let (session, _) = self.store.begin_upload(&VAULT, "computer", "series", self.last.as_ref()).unwrap();
        for part in std::mem::take(&mut self.new).chunks(64) {
            self.store.put_chunks(&VAULT, &session, part).unwrap();
        }
        let (mut nodes, mut all) = (Vec::new(), HashSet::new());
        let mut builder = PathMapBuilder::new(&self.keys);
        let mut take = |built: &repo_format::node::BuiltNode| {
            let id = ObjectId::from(built.id);
            if !self.sent.contains(&id) && all.insert(id) {
                nodes.push(node(built));
            }
            all.insert(id);
        };
        for (number, place) in self.places.iter().enumerate() {
            let key = PathKey::from_path(format!("file {number:05}").as_bytes()).unwrap();
            builder.push(&key, &place.entry, &mut |built| take(&built)).unwrap();
        }
        let root = builder.finish(&mut |built| take(&built)).unwrap();
        self.store.put_nodes(&VAULT, &session, &nodes).unwrap();
        self.sent = all;
        let input = CommitInput { root, summary_json: b"{}".to_vec() };
        let snapshot = self.store.commit(&VAULT, &session, &input).unwrap().snapshot;
        self.expected.insert(snapshot, (root, self.places.iter().map(|place| place.version).collect()));
        self.last = Some(snapshot);
    }

    fn expire(&mut self) {
        let series = Series { computer: "computer".into(), name: "series".into() };
        let snapshots = self.store.snapshots(&VAULT).unwrap();
        let candidates: Vec<Candidate> = snapshots
            .iter()
            .map(|snapshot| Candidate {
                snapshot: snapshot.snapshot,
                series: series.clone(),
                committed_ns: snapshot.committed_ns,
                has_warnings: false,
                tags: Vec::new(),
                hold_until_ns: None,
            })
            .collect();
        let policies = Policies { default: Some(self.keep.clone()), by_series: BTreeMap::new() };
        let plan = Plan::make(&candidates, &policies, self.store.now_ns().unwrap()).unwrap();
        let expired = plan.expired();
        assert_eq!(self.store.purge_snapshots(&VAULT, &expired).unwrap(), expired.len() as u64);
        for snapshot in expired {
            self.expected.remove(&snapshot);
        }
    }

    fn dead_percent(&self) -> f64 {
        let space = self.store.space(&VAULT).unwrap();
        // What waits to be reaped is dead as well, though no row says so yet.
        (space.dead_bytes + space.pending_bytes) as f64 * 100.0 / space.stored_bytes.max(1) as f64
    }

    fn collect(&mut self) {
        loop {
            let done = self.store.maintain(&VAULT, self.clock.now_ns()).unwrap();
            self.worst = self.worst.max(self.dead_percent());
            if !done.more {
                break;
            }
        }
        self.worst_at_rest = self.worst_at_rest.max(self.dead_percent());
    }

    fn pass(&self, ns: i64) {
        self.clock.0.fetch_add(ns, Ordering::Relaxed);
    }

    /// What is kept reads back as it was, and everything counted is as counted.
    fn check(&self) {
        let listed: HashSet<SnapshotId> =
            self.store.snapshots(&VAULT).unwrap().iter().map(|snapshot| snapshot.snapshot).collect();
        assert_eq!(listed, self.expected.keys().copied().collect());
        let reader = self.store.reader(&VAULT).unwrap();
        for (root, versions) in self.expected.values() {
            let mut cursor = Cursor::new(&reader, *root);
            for version in versions {
                let (_, entry) = cursor.next().unwrap().unwrap();
                let EntryKind::File { content: Content::Inline(elements), .. } = entry.kind else { panic!("no file") };
                let [Element::Data { chunk, .. }] = elements.as_slice() else { panic!("not one chunk") };
                assert!(reader.chunk(chunk).unwrap()[..] == content(self.seed, *version), "version {version}");
            }
            assert!(cursor.next().unwrap().is_none());
        }
        assert_eq!(self.store.recount(&VAULT).unwrap().drift, Vec::<String>::new());
    }
}

struct Figures {
    /// Over the second half.
    copied_per_ingested: f64,
    /// After the tenth day: at any moment, and when there was nothing left to do.
    worst: f64,
    worst_at_rest: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.3} bytes copied per byte ingested over the second half; dead at most {:.1} % at any moment, {:.1} % at \
             rest",
            self.copied_per_ingested, self.worst, self.worst_at_rest
        )
    }
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HOLDFAST_SEED={seed}");
    seed
}

fn live(name: &str, days: u32, (scattered, run): (usize, usize), keep: Policy) -> Figures {
    let mut year = Year::new(seed(), keep);
    let mut half = year.store.stats();
    for day in 1..=days {
        if day > 1 {
            year.change(scattered, run);
        }
        if day == 11 {
            (year.worst, year.worst_at_rest) = (0.0, 0.0);
        }
        year.backup();
        year.expire();
        year.collect();
        // An hour later what was left open for more is finished.
        year.pass(HOUR_NS);
        year.collect();
        year.pass(DAY_NS - HOUR_NS);
        if day == days / 2 {
            half = year.store.stats();
        }
        if day.is_multiple_of(90) {
            year.check();
        }
    }
    year.check();
    let stats = year.store.stats();
    let ingested = stats.bytes_stored - half.bytes_stored;
    let copied = stats.bytes_copied - half.bytes_copied;
    let figures = Figures {
        copied_per_ingested: copied as f64 / ingested as f64,
        worst: year.worst,
        worst_at_rest: year.worst_at_rest,
    };
    println!("{name}, {days} days on the engine: {figures}; {} snapshots kept", year.expected.len());
    figures
}

fn usual() -> Policy {
    Policy { daily: 7, weekly: 4, monthly: 12, ..Policy::default() }
}

fn assert_within(figures: &Figures) {
    assert!(figures.copied_per_ingested <= 0.25, "{figures}");
    assert!(figures.worst <= 20.0, "{figures}");
}

#[test]
fn some_months_on_the_engine_copy_little_and_leave_little_dead() {
    assert_within(&live("7/4/12, 2 % daily, half scattered, half one run", 100, (20, 20), usual()));
}

#[test]
#[ignore = "long: ./check --long"]
fn a_year_on_the_engine_copies_little_and_leaves_little_dead() {
    assert_within(&live("7/4/12, 2 % daily, half scattered, half one run", 365, (20, 20), usual()));
}

/// Every pack loses the same share every day: what that costs is told, not promised.
#[test]
#[ignore = "long: ./check --long"]
fn a_year_of_keep_7_on_the_engine_leaves_little_dead() {
    let keep = Policy { daily: 7, ..Policy::default() };
    let figures = live("keep-7, 2 % daily, scattered", 365, (40, 0), keep);
    assert!(figures.worst <= 20.0, "{figures}");
}

//! Many runs over a tree that changes a little each time: what its last snapshot needs stays near what a fresh vault
//! would, because bundles that have become too empty are replaced, a little in every run.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

mod support;

use agent::backup::{BackupOptions, BackupResult, Source, backup};
use agent::cache::files::{FilesWriter, Remembered};
use agent::connection::Connection;
use agent::fs::{RestoreOptions, ScanEvent, ScanOptions, Scanner};
use agent::restore::{RestoreRequest, restore};
use repo_format::entry::{Profile, Time};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{FakeServer, Said, noise};

/// Small files of the tree, and of those how many change in each generation: less than one in a hundred, which a run
/// may read again.
const FILES: usize = 1000;
const FOLDERS: usize = 10;
const CHANGED: usize = 4;
const GENERATIONS: usize = 300;

/// A tree in memory and on disk, and the numbers its changes come from.
struct Tree {
    folder: tempfile::TempDir,
    random: u64,
    content: BTreeMap<PathBuf, Vec<u8>>,
    /// Change time of the last file written, nanoseconds.
    changed_ns: i128,
}

impl Tree {
    fn new() -> Self {
        let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        println!("HOLDFAST_SEED={seed}");
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree { folder, random: seed, content: BTreeMap::new(), changed_ns: 0 };
        for file in 0..FILES {
            tree.write(file);
        }
        tree
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % bound
    }

    fn write(&mut self, file: usize) {
        let path = self.source().join(format!("folder {:02}", file % FOLDERS)).join(format!("file {file}"));
        let (seed, len) = (self.below(1 << 30), self.below(8000) as usize + 1);
        let bytes = noise(seed, len);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        let stat = fs::metadata(&path).unwrap();
        self.changed_ns = i128::from(stat.ctime()) * 1_000_000_000 + i128::from(stat.ctime_nsec());
        self.content.insert(path, bytes);
    }

    /// Other content in scattered files.
    fn change(&mut self) {
        for _ in 0..CHANGED {
            let file = self.below(FILES as u64) as usize;
            self.write(file);
        }
    }

    /// The status of a file changed within the last clock tick is not trusted; lets the tick pass.
    fn settle(&self) {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128;
        while now() < self.changed_ns + 25_000_000 {
            std::thread::yield_now();
        }
    }

    fn backup(&self, connection: &Connection) -> BackupResult {
        self.settle();
        let options = BackupOptions {
            computer: "here".into(),
            name: None,
            tags: Vec::new(),
            profile: Profile::Default,
            workers: 2,
        };
        let source = Source::Paths { roots: vec![self.source()], options: Box::new(ScanOptions::default()) };
        backup(connection, source, &options, &Said::default().report()).unwrap()
    }

    /// What a vault that never held anything else needs for the tree.
    fn fresh_bytes(&self) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let server = FakeServer::new();
        let result = self.backup(&server.connect(folder.path()));
        server.reached_bytes(&result.snapshot.root)
    }

    fn assert_restored(&self, connection: &Connection, result: &BackupResult) {
        let target = tempfile::tempdir().unwrap();
        let request = RestoreRequest {
            paths: Vec::new(),
            target: target.path().to_owned(),
            options: RestoreOptions::default(),
            dry_run: false,
            workers: 2,
        };
        let restored = restore(connection, &result.snapshot, request, &Said::default().report()).unwrap();
        assert!(restored.is_complete(), "{restored:?}");
        for (path, bytes) in &self.content {
            let restored = target.path().join(path.strip_prefix("/").unwrap());
            assert!(fs::read(&restored).unwrap() == *bytes, "{} came back different", path.display());
        }
    }
}

fn forget_bundles(folder: &Path) {
    for series in fs::read_dir(folder.join("cache/series")).unwrap() {
        fs::remove_file(series.unwrap().path().join("bundles")).unwrap();
    }
}

struct Life {
    /// Space of the last snapshot by that of a fresh vault, largest and last.
    worst: f64,
    last: f64,
    rebundled: u64,
}

/// Lives through `generations`, forgetting after each what bundles hold unless `remembers`.
fn live(tree: &mut Tree, generations: usize, remembers: bool) -> Life {
    let folder = tempfile::tempdir().unwrap();
    let server: Arc<FakeServer> = FakeServer::new();
    let connection = server.connect(folder.path());
    let mut result = tree.backup(&connection);
    let mut life = Life { worst: 0.0, last: 0.0, rebundled: 0 };
    for generation in 1..=generations {
        tree.change();
        if !remembers {
            forget_bundles(folder.path());
        }
        let before = result.counters;
        result = tree.backup(&connection);
        let counters = &result.counters;
        life.rebundled += counters.files_rebundled;
        assert!(counters.files_opened <= CHANGED as u64, "{counters:?}");
        assert!(counters.files_rebundled <= before.files / 100, "{counters:?}");
        assert!(counters.bytes_rebundled <= before.logical_bytes / 100, "{counters:?}");
        if generation % 10 == 0 {
            life.last = server.reached_bytes(&result.snapshot.root) as f64 / tree.fresh_bytes() as f64;
            life.worst = life.worst.max(life.last);
        }
        if generation % 50 == 0 {
            println!(
                "generation {generation}: {:.2} times a fresh vault, {} files bundled again",
                life.last, life.rebundled
            );
            tree.assert_restored(&connection, &result);
        }
    }
    tree.assert_restored(&connection, &result);
    // Without changes nothing is opened, and what is bundled again comes to an end.
    let mut left = u64::MAX;
    for _ in 0..60 {
        let quiet = tree.backup(&connection).counters;
        assert_eq!((quiet.files_opened, quiet.bytes_read), (0, 0), "{quiet:?}");
        left = quiet.files_rebundled;
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0, "the same tree is bundled again and again");
    life
}

/// Four files in a thousand change in each generation, anywhere. Bundles made together decay together, so it is worst
/// when most of them come near one half; then what a run may read again is more than what changes.
#[test]
fn space_does_not_decay_over_generations() {
    let (life, without) = std::thread::scope(|scope| {
        let without = scope.spawn(|| live(&mut Tree::new(), GENERATIONS, false));
        (live(&mut Tree::new(), GENERATIONS, true), without.join().unwrap())
    });
    println!(
        "{GENERATIONS} generations: at most {:.2}, at last {:.2} times a fresh vault, {} files bundled again; {:.2} \
         without",
        life.worst, life.last, life.rebundled, without.last
    );
    assert!(life.worst < 1.65 && life.last < 1.45, "{:.2}, {:.2}", life.worst, life.last);
    assert!(without.last > life.last * 1.3, "{:.2} without, {:.2} with", without.last, life.last);
}

/// A file that is not what its status says it is keeps the content the last snapshot has: the run that only wanted it in
/// another bundle is not the one to replace it.
#[test]
fn what_has_other_bytes_than_its_status_says_stays_where_it_is() {
    let mut tree = Tree::new();
    let folder = tempfile::tempdir().unwrap();
    let server: Arc<FakeServer> = FakeServer::new();
    let connection = server.connect(folder.path());
    tree.backup(&connection);
    // Most of one folder changes: what is left of its bundles is to be bundled again.
    for file in (0..FILES).step_by(FOLDERS).skip(5) {
        tree.write(file);
    }
    let second = tree.backup(&connection);
    let others: Vec<PathBuf> =
        (0..5).map(|file| tree.source().join(format!("folder 00/file {}", file * FOLDERS))).collect();
    for path in &others {
        let len = fs::metadata(path).unwrap().len() as usize;
        fs::write(path, noise(77, len)).unwrap();
    }
    // As if the disk had lost the bytes and kept the status.
    let series = fs::read_dir(folder.path().join("cache/series")).unwrap().next().unwrap().unwrap().path();
    let mut writer = FilesWriter::create(&series).unwrap();
    for event in Scanner::new(&[tree.source()], ScanOptions::default()).unwrap() {
        let ScanEvent::Item(item) = event else { panic!("a warning") };
        writer.push(&item.key, &Remembered::of(&item.stat)).unwrap();
    }
    let started = Time { seconds: i64::MAX, nanoseconds: 0 };
    writer.finish(&second.snapshot.root.parse().unwrap(), started).unwrap();
    let third = tree.backup(&connection);
    assert!(third.counters.files_rebundled > 0, "{:?}", third.counters);
    assert_eq!(third.counters.files_opened, 0, "{:?}", third.counters);
    tree.assert_restored(&connection, &third);
}

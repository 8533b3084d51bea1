//! Whole runs against a server in memory: what is backed up comes back, unchanged files are not opened, and changes
//! cost in proportion.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

mod support;

use agent::backup::{BackupOptions, BackupResult, Source, StreamInput, backup};
use agent::browse::{FindPattern, cat, diff, find};
use agent::check::check;
use agent::connection::Connection;
use agent::error::AgentError;
use agent::fs::{RestoreOptions, ScanOptions};
use agent::program::Program;
use agent::restore::{RestoreRequest, RestoreResult, restore};
use agent::snapshots::Filter;
use repo_format::entry::Profile;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use support::{FakeServer, Said, noise};

struct Scene {
    server: std::sync::Arc<FakeServer>,
    folder: tempfile::TempDir,
    connection: Connection,
    said: Said,
}

impl Scene {
    fn new() -> Self {
        let (server, folder) = (FakeServer::new(), tempfile::tempdir().unwrap());
        let connection = server.connect(folder.path());
        fs::create_dir(folder.path().join("source")).unwrap();
        Scene { server, folder, connection, said: Said::default() }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn options() -> BackupOptions {
        BackupOptions { computer: "here".into(), name: None, tags: Vec::new(), profile: Profile::Default, workers: 2 }
    }

    fn try_backup(&self) -> Result<BackupResult, AgentError> {
        // The status of a file changed within the last clock tick is not trusted; let the tick pass.
        settle(&self.source());
        let source = Source::Paths { roots: vec![self.source()], options: Box::new(ScanOptions::default()) };
        backup(&self.connection, source, &Self::options(), &self.said.report())
    }

    fn backup(&self) -> BackupResult {
        self.try_backup().unwrap()
    }

    fn restore(&self, result: &BackupResult, paths: &[&Path]) -> (PathBuf, RestoreResult) {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        use std::os::unix::ffi::OsStrExt;
        let request = RestoreRequest {
            paths: paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
            target: target.clone(),
            options: RestoreOptions::default(),
            dry_run: false,
            workers: 2,
        };
        let restored = restore(&self.connection, &result.snapshot, request, &self.said.report()).unwrap();
        (target.join(self.source().strip_prefix("/").unwrap()), restored)
    }

    fn assert_same(&self, result: &BackupResult) {
        let (below, restored) = self.restore(result, &[]);
        assert!(restored.is_complete(), "{restored:?} {}", self.said.text());
        let (expected, found) = (listing(&self.source()), listing(&below));
        assert_eq!(expected.len(), found.len());
        for (a, b) in expected.iter().zip(&found) {
            assert_eq!(a, b);
        }
    }
}

fn settle(path: &Path) {
    let newest = listing_paths(path)
        .into_iter()
        .map(|path| fs::symlink_metadata(path).unwrap())
        .map(|stat| i128::from(stat.ctime()) * 1_000_000_000 + i128::from(stat.ctime_nsec()));
    let newest = newest.max().unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128;
    while now() < newest + 40_000_000 {
        std::thread::yield_now();
    }
}

fn listing_paths(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let mut waiting = vec![path.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            all.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

/// Relative path, mode, owner, time, and content or link target of everything below.
fn listing(path: &Path) -> Vec<(PathBuf, u32, u32, i64, i64, blake3::Hash)> {
    listing_paths(path)
        .into_iter()
        .map(|each| {
            let stat = fs::symlink_metadata(&each).unwrap();
            let content = if stat.is_symlink() {
                use std::os::unix::ffi::OsStrExt;
                fs::read_link(&each).unwrap().as_os_str().as_bytes().to_vec()
            } else if stat.is_file() {
                fs::read(&each).unwrap()
            } else {
                Vec::new()
            };
            let name = each.strip_prefix(path).unwrap().to_owned();
            (name, stat.mode(), stat.uid(), stat.mtime(), stat.mtime_nsec(), blake3::hash(&content))
        })
        .collect()
}

fn fill(scene: &Scene) {
    for folder in 0..6u64 {
        for file in 0..40u64 {
            let len = (file * 997 + folder * 131) as usize % 30_000;
            scene.write(&format!("folder {folder}/file {file}"), &noise(folder * 1000 + file, len));
        }
    }
    scene.write("empty", b"");
    scene.write("edge below", &noise(1, 65_535));
    scene.write("edge", &noise(2, 65_536));
    scene.write("large", &noise(3, 9_000_000));
    scene.write("text", "again and again ".repeat(100_000).as_bytes());
    symlink("nowhere", scene.source().join("link")).unwrap();
    fs::hard_link(scene.source().join("large"), scene.source().join("second name")).unwrap();
    fs::hard_link(scene.source().join("folder 1/file 7"), scene.source().join("other name")).unwrap();
    fs::write(scene.source().join("holes"), b"").unwrap();
    let file = fs::File::options().write(true).open(scene.source().join("holes")).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&noise(4, 100_000), 5_000_000).unwrap();
    file.set_len(20_000_000).unwrap();
}

#[test]
fn a_tree_comes_back_and_the_second_run_opens_nothing() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.backup();
    assert_eq!(first.counters.warnings, 0, "{}", scene.said.text());
    scene.assert_same(&first);
    let seen = scene.server.seen();
    assert_eq!((seen.durable_again, seen.received_again), (0, 0));

    scene.server.reset_seen();
    let second = scene.backup();
    let counters = &second.counters;
    assert_eq!((counters.files_opened, counters.bytes_read, counters.files_rebundled), (0, 0, 0), "{counters:?}");
    assert_eq!(counters.files, first.counters.files);
    // The folders above the source may have changed: one leaf and the root.
    assert!(counters.chunks_sent == 0 && counters.nodes_sent <= 2, "{counters:?}");
    let seen = scene.server.seen();
    assert_eq!((seen.chunks, seen.asked, seen.objects_read), (0, 0, 0), "{seen:?}");
    scene.assert_same(&second);
}

#[test]
fn a_lost_cache_costs_reading_but_no_space() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.backup();
    let stored = scene.server.stored_bytes();
    fs::remove_dir_all(scene.folder.path().join("cache")).unwrap();
    let second = scene.backup();
    assert!(second.counters.files_opened > 200);
    assert_eq!(second.counters.chunks_sent, 0);
    assert_eq!(second.counters.files_same_content, first.counters.files_opened);
    let added = scene.server.stored_bytes() - stored;
    // One leaf and the root, since the folders above the source may have changed, and the list of the large file, which
    // the vault has.
    assert!(added <= second.counters.node_bytes_sent, "{:?}", second.counters);
    assert!(second.counters.nodes_sent <= 3, "{:?}", second.counters);
    assert_eq!(scene.backup().counters.files_opened, 0);
}

#[test]
fn changes_cost_in_proportion_and_both_versions_come_back() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.backup();
    let before = listing(&scene.source());
    scene.write("folder 2/file 3", b"another content");
    scene.write("folder 9/new", b"new");
    fs::remove_file(scene.source().join("folder 4/file 1")).unwrap();
    let mut large = fs::read(scene.source().join("large")).unwrap();
    large[4_000_000] ^= 1;
    fs::write(scene.source().join("large"), large).unwrap();
    let second = scene.backup();
    assert!(second.counters.files_opened <= 5, "{:?}", second.counters);
    assert!(second.counters.chunk_bytes_sent < 5_000_000, "{:?}", second.counters);
    scene.assert_same(&second);
    let (below, _) = scene.restore(&first, &[]);
    assert_eq!(listing(&below), before);

    let said = Said::default();
    let counts = diff(&scene.connection, &first.snapshot, &second.snapshot, &said.report()).unwrap();
    let text = said.text();
    assert!(
        text.contains("folder 2/file 3") && text.contains("folder 9/new") && text.contains("folder 4/file 1"),
        "{text}"
    );
    // `large` has two names; the folders changed their times.
    assert_eq!((counts.added, counts.removed, counts.changed), (2, 1, 3), "{text}");
    let said = Said::default();
    let pattern = FindPattern::new("file 3").unwrap();
    assert_eq!(find(&scene.connection, &pattern, &Filter::default(), &said.report()).unwrap(), 7, "{}", said.text());
}

#[test]
fn a_renamed_folder_is_not_read_again() {
    let scene = Scene::new();
    fill(&scene);
    scene.backup();
    // The index serves files that did not change since the last run began.
    fs::rename(scene.source().join("folder 3"), scene.source().join("another folder")).unwrap();
    let second = scene.backup();
    assert_eq!(second.counters.files_opened, 0, "{:?}", second.counters);
    assert_eq!(second.counters.files_moved, 40);
    assert_eq!(second.counters.chunks_sent, 0);
    scene.assert_same(&second);
}

#[test]
fn parts_come_back_alone() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.backup();
    let wanted = scene.source().join("folder 2");
    let (below, restored) = scene.restore(&first, &[&wanted, &scene.source().join("large")]);
    assert!(restored.is_complete());
    assert_eq!(listing(&below.join("folder 2")), listing(&wanted));
    assert!(below.join("large").exists() && !below.join("folder 1").exists());
    let mut out = Vec::new();
    cat(&scene.connection, &first.snapshot, scene.source().join("holes").to_str().unwrap().as_bytes(), &mut out)
        .unwrap();
    assert_eq!(out, fs::read(scene.source().join("holes")).unwrap());
}

#[test]
fn a_stream_is_cut_finely_and_deduplicates() {
    let scene = Scene::new();
    let mut content = noise(7, 6_000_000);
    let options = BackupOptions { profile: Profile::Fine, ..Scene::options() };
    let stream = |content: &[u8]| {
        let input = StreamInput::Reader(Box::new(std::io::Cursor::new(content.to_vec())));
        let source = Source::stream("dump.sql", input);
        backup(&scene.connection, source, &options, &scene.said.report()).unwrap()
    };
    let first = stream(&content);
    content.splice(1_000_000..1_000_000, *b"a few more rows");
    let second = stream(&content);
    assert!(second.counters.chunk_bytes_sent < 600_000, "{:?}", second.counters);
    assert_eq!(second.snapshot.series, "dump.sql");
    let mut out = Vec::new();
    cat(&scene.connection, &second.snapshot, b"/dump.sql", &mut out).unwrap();
    assert!(out == content);
    assert!(first.counters.chunks_sent > 40);
}

#[test]
fn a_failing_command_commits_nothing() {
    let scene = Scene::new();
    let run = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        let source = Source::stream("x", StreamInput::Command(Box::new(Program::new(command))));
        backup(&scene.connection, source, &Scene::options(), &scene.said.report())
    };
    let error = run("echo half; exit 9").unwrap_err();
    assert!(matches!(&error, AgentError::CommandFailed(text) if text.contains('9')), "{error}");
    assert!(scene.server.state.lock().snapshots.is_empty());
    run("echo whole").unwrap();
    assert_eq!(scene.server.state.lock().snapshots.len(), 1);
}

#[test]
fn check_names_the_paths_of_lost_and_damaged_objects() {
    let scene = Scene::new();
    fill(&scene);
    let first = scene.backup();
    let snapshots = [first.snapshot.clone()];
    for read_data in [false, true] {
        let result = check(&scene.connection, &snapshots, read_data, &scene.said.report()).unwrap();
        assert_eq!((result.bad_objects, result.chunks_checked), (0, true), "{result:?}");
    }
    let chunk = scene.server.objects(repo_format::id::ObjectKind::Chunk)[0];
    scene.server.damage(&chunk);
    for read_data in [false, true] {
        let said = Said::default();
        let result = check(&scene.connection, &snapshots, read_data, &said.report()).unwrap();
        assert_eq!(result.bad_objects, 1);
        assert!(result.bad_paths >= 1 && said.text().contains("source/text"), "{}", said.text());
    }
    let (below, restored) = scene.restore(&first, &[]);
    assert!(restored.failures > 0 && !below.join("text").exists());
    assert!(below.join("large").exists());

    // The next run stores what is damaged anew where the files are still there.
    let second = scene.backup();
    assert!(second.counters.chunks_sent >= 1, "{:?}", second.counters);
    assert_eq!((second.counters.objects_healed, second.counters.objects_still_damaged), (1, 0));
    scene.assert_same(&second);
    let result = check(&scene.connection, &[second.snapshot], true, &scene.said.report()).unwrap();
    assert_eq!(result.bad_objects, 0);
}

#[test]
fn an_unreadable_node_costs_its_own_files_a_reading() {
    for cached in [true, false] {
        let scene = Scene::new();
        for number in 0..1500 {
            scene.write(&format!("small/{number:04}"), &noise(number, 90));
        }
        scene.write("last", &noise(9999, 200_000));
        let first = scene.backup();
        // A leaf in the middle.
        let nodes = scene.server.objects(repo_format::id::ObjectKind::Node);
        scene.server.damage(&nodes[nodes.len() / 2]);
        if !cached {
            fs::remove_dir_all(scene.folder.path().join("cache")).unwrap();
        }
        let second = scene.backup();
        let healing = (second.counters.objects_healed, second.counters.objects_still_damaged);
        scene.assert_same(&second);
        if cached {
            // The agent's own copy of the node heals the old snapshot as well.
            assert_eq!((healing, second.counters.files_opened), ((1, 0), 0), "{:?}", second.counters);
            scene.assert_same(&first);
        } else {
            // Nobody knows any more where the bundles of those files lie: only the new snapshot is whole.
            assert_eq!(healing, (0, 1), "{:?}", second.counters);
            let said = scene.said.text();
            assert!(said.contains("part of the last snapshot") && said.contains("what follows this path"), "{said}");
            let known = second.counters.files_same_content;
            assert!((1200..1500).contains(&known), "more than its own files are unknown: {:?}", second.counters);
        }
    }
}

#[test]
fn what_stays_damaged_is_named() {
    let scene = Scene::new();
    scene.write("changed", &noise(1, 300_000));
    scene.write("kept", &noise(2, 300_000));
    let first = scene.backup();
    for chunk in scene.server.objects(repo_format::id::ObjectKind::Chunk) {
        scene.server.damage(&chunk);
    }
    let damaged = scene.server.state.lock().damaged.len() as u64;
    scene.write("changed", &noise(3, 300_000));
    let second = scene.backup();
    let counts = &second.counters;
    assert!(counts.objects_healed > 0 && counts.objects_still_damaged > 0, "{counts:?}");
    assert_eq!(counts.objects_healed + counts.objects_still_damaged, damaged);
    let said = scene.said.text();
    assert!(said.contains("source/changed") && !said.contains("source/kept"), "{said}");
    scene.assert_same(&second);
    let (below, restored) = scene.restore(&first, &[Path::new("/")]);
    assert!(restored.failures > 0 || !restored.is_complete());
    assert!(below.join("kept").exists());
}

//! What goes in comes out: trees of every kind, streams, versions, and what they cost the second time.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use tests::harness::{Scene, summary};
use tests::trees::{self, Totals};
use tests::{change, oddity};

fn count(summary: &Value, name: &str) -> u64 {
    summary
        .pointer(&format!("/counters/{name}"))
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no {name} in {summary}"))
}

/// Backs `source` up twice: what comes back is identical, and the second run opens no file and adds next to nothing.
fn twice(scene: &Scene, source: &Path) {
    let first = scene.backup(source, 0).unwrap();
    let second = scene.backup(source, 0).unwrap();
    assert_eq!(count(&second, "files"), count(&first, "files"));
    assert_eq!(count(&second, "files_opened"), 0, "{second}");
    assert_eq!(count(&second, "bytes_read"), 0);
    assert_eq!(count(&second, "files_rebundled"), 0);
    assert_eq!(count(&second, "chunks_sent"), 0);
    // The second version, of which nothing was sent, is made of what the first one sent: restoring it shows both.
    let snapshots = scene.snapshots().unwrap();
    assert_eq!(snapshots.len(), 2);
    // Folders above it, which other tests work in as well, may differ.
    let difference = scene.agent.run(["diff", &snapshots[0], &snapshots[1]]).unwrap();
    assert_eq!(difference.code, Some(0), "{}", difference.stderr);
    assert!(!difference.text().contains(source.to_str().unwrap()), "{}", difference.text());
    let report = scene.restore_and_compare(&snapshots[1], source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
}

#[test]
fn every_oddity_comes_back() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    let built = oddity::build(&source, &mut scene.seed.stream("oddity tree")).unwrap();
    eprintln!("refused by this machine: {:?}", built.refused);
    twice(&scene, &source);
}

#[test]
fn a_life_like_tree_comes_back_in_both_versions() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 4000, bytes: 120 << 20 }, scene.seed).unwrap();
    twice(&scene, &source);
    versions(&scene, &source);
}

/// Changes the tree, backs it up, and checks that both versions come back, that `diff` and `find` tell them apart, and
/// that what was added is in proportion to the change.
fn versions(scene: &Scene, source: &Path) {
    let before = scene.path("before");
    let copied = std::process::Command::new("cp").arg("-a").arg(source).arg(&before).status().unwrap();
    assert!(copied.success());
    let old = scene.snapshots().unwrap().pop().unwrap();
    let changes = change::apply(source, 10, &mut scene.seed.stream("change")).unwrap();
    let third = scene.backup(source, 0).unwrap();
    let new = scene.snapshots().unwrap().pop().unwrap();

    // Beside what was written, a change costs at most the chunks it touches: a bundle or a cut chunk, 4 MiB at most and
    // about 512 KiB on average, and the nodes above.
    let touched = (changes.len() as u64) * (700 << 10) + changes.bytes_written;
    assert!(count(&third, "bytes_added") < touched, "{third} after {changes:?}");
    let opened = (changes.modified.len() + changes.appended.len() + changes.added.len() + changes.renamed.len()) as u64;
    assert!(count(&third, "files_opened") <= opened, "{third} after {changes:?}");

    let report = scene.restore_and_compare(&new, source, "new").unwrap();
    assert!(report.is_equal(), "{report}");
    let restored = scene.restore(&old, source, "old").unwrap();
    let report = tests::compare::compare(&before, &restored, tests::compare::Options::default()).unwrap();
    assert!(report.is_equal(), "{report}");

    let outcome = scene.agent.run(["diff", &old, &new]).unwrap();
    let told = outcome.text();
    let paths = changes.modified.iter().chain(&changes.appended).chain(&changes.added).chain(&changes.deleted);
    for path in paths {
        let path = path.to_str().unwrap();
        assert!(told.contains(path), "diff does not tell {path}: {told}");
    }
    assert!(told.lines().count() < 4 * changes.len() + 200, "{told}");
    if let Some(added) = changes.added.first() {
        let name = added.file_name().unwrap().to_str().unwrap();
        let found = scene.agent.run(["find", name]).unwrap().text();
        assert!(found.contains(added.to_str().unwrap()), "{found}");
    }
    assert!(scene.agent.run(["diff", &new, &new]).unwrap().text().lines().count() <= 2);
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
}

/// The programs of this machine, topped up with a seeded tree where they are fewer than 5 GB and 100,000 files.
#[test]
#[ignore = "long: ./check --long"]
fn a_real_system_comes_back() {
    let scene = Scene::new().unwrap();
    let system = Path::new("/usr");
    let goal = Totals { files: 100_000, bytes: 5_000_000_000 };
    let more = scene.path("more");
    fs::create_dir(&more).unwrap();
    let topped_up = trees::top_up(&more, trees::totals(system).unwrap(), goal, scene.seed).unwrap();
    eprintln!("topped up by {topped_up:?}");
    let backup = || {
        let arguments = ["backup".as_ref(), "--json".as_ref(), system.as_os_str(), more.as_os_str()];
        summary(&scene.agent.run(arguments).unwrap(), 0).unwrap()
    };
    let first = backup();
    assert!(count(&first, "files") >= goal.files && count(&first, "logical_bytes") >= goal.bytes * 99 / 100, "{first}");
    let second = backup();
    assert_eq!((count(&second, "files_opened"), count(&second, "files_rebundled")), (0, 0), "{second}");
    let target = scene.path("target");
    let outcome =
        scene.agent.run(["restore".as_ref(), "latest".as_ref(), "--to".as_ref(), target.as_os_str()]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for source in [system, &more] {
        let restored = target.join(source.strip_prefix("/").unwrap());
        let report = tests::compare::compare(source, &restored, tests::compare::Options::default()).unwrap();
        assert!(report.is_equal(), "{report}");
    }
}

#[test]
fn a_large_directory_comes_back() {
    large_directory(10_000);
}

#[test]
#[ignore = "long: ./check --long"]
fn a_directory_of_a_million_files_comes_back() {
    large_directory(1_000_000);
}

fn large_directory(files: u64) {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::many_small_files(&source, files, scene.seed).unwrap();
    twice(&scene, &source);
}

#[test]
fn a_sparse_file_comes_back_with_its_holes() {
    sparse(400 << 20, 80 << 20);
}

#[test]
#[ignore = "long: ./check --long"]
fn a_sparse_file_of_ten_gigabytes_comes_back_with_its_holes() {
    sparse(10_000_000_000, 4_000_000_000);
}

fn sparse(len: u64, data: u64) {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    trees::sparse_file(&source.join("disk.img"), len, data, scene.seed).unwrap();
    let first = scene.backup(&source, 0).unwrap();
    // Holes are never read.
    assert!(count(&first, "bytes_read") < data + data / 4, "{first}");
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
}

#[test]
fn a_second_dump_through_a_command_adds_little() {
    let scene = Scene::new().unwrap();
    const BYTES: u64 = 64 << 20;
    let mut dumps = Vec::new();
    for version in 0..2 {
        let path = scene.path(&format!("dump {version}"));
        trees::dump(fs::File::create(&path).unwrap(), BYTES, version, scene.seed).unwrap();
        let outcome = scene
            .agent
            .run([
                "backup".as_ref(),
                "--json".as_ref(),
                "--stdin".as_ref(),
                "shop.sql".as_ref(),
                "--stdin-from-command".as_ref(),
                "--".as_ref(),
                "cat".as_ref(),
                path.as_os_str(),
            ])
            .unwrap();
        dumps.push((summary(&outcome, 0).unwrap(), path));
    }
    let second = &dumps[1].0;
    // One row in 4,000 differs: here the fine chunks around them are a larger part than in a dump of a gigabyte.
    assert!(count(second, "bytes_added") < count(&dumps[0].0, "bytes_added") / 4, "{dumps:?}");
    for (snapshot, (_, path)) in scene.snapshots().unwrap().iter().zip(&dumps) {
        let outcome = scene.agent.run(["cat", snapshot, "/shop.sql"]).unwrap();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(outcome.stdout == fs::read(path).unwrap(), "the dump came back different");
    }
}

#[test]
fn standard_input_comes_back_and_a_failing_command_commits_nothing() {
    let scene = Scene::new().unwrap();
    let content = scene.seed.stream("standard input").bytes(9_000_001);
    let mut command = scene.agent.command(["backup", "--stdin", "pipe.bin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(child.wait().unwrap().success());
    let outcome = scene.agent.run(["cat", "latest", "/pipe.bin"]).unwrap();
    assert!(outcome.stdout == content, "standard input came back different: {}", outcome.stderr);

    let failing = ["backup", "--stdin", "x", "--stdin-from-command", "--", "sh", "-c", "echo half a dump; exit 9"];
    let outcome = scene.agent.run(failing).unwrap();
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains('9'), "{}", outcome.stderr);
    assert_eq!(scene.snapshots().unwrap().len(), 1);
}

#[test]
fn a_part_of_a_snapshot_comes_back_alone() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    for name in ["wanted/inner", "other"] {
        fs::create_dir_all(source.join(name)).unwrap();
        fs::write(source.join(name).join("file"), name).unwrap();
    }
    scene.backup(&source, 0).unwrap();
    let target = scene.path("target");
    let wanted = source.join("wanted");
    let outcome = scene
        .agent
        .run([
            "restore".as_ref(),
            "latest".as_ref(),
            "--to".as_ref(),
            target.as_os_str(),
            "--path".as_ref(),
            wanted.as_os_str(),
            "--dry-run".as_ref(),
        ])
        .unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!target.exists() || fs::read_dir(&target).unwrap().next().is_none(), "a dry run wrote something");
    let outcome = scene
        .agent
        .run([
            "restore".as_ref(),
            "latest".as_ref(),
            "--to".as_ref(),
            target.as_os_str(),
            "--path".as_ref(),
            wanted.as_os_str(),
        ])
        .unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let below = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(below.join("wanted/inner/file")).unwrap(), "wanted/inner");
    assert!(!below.join("other").exists());
}

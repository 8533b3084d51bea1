//! A tree that changes a little from run to run, backed up by the real programs: what its last snapshot needs stays near
//! what a fresh vault would, and no run reads more of it again than a hundredth.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::harness::{Login, Scene};
use tests::seed::Random;

const FOLDERS: u64 = 20;
/// Time for a server to collect what is not needed any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// A life of so many runs over so many small files, of which so many change before each: one half of them in the first
/// folder, the others anywhere.
struct Life {
    files: u64,
    changed: u64,
    generations: u64,
    /// What the last snapshot may take, hundredths of what it takes in a fresh vault.
    percent_max: u64,
}

#[test]
fn some_generations_of_small_changes_leave_bundles_full() {
    live(&Life { files: 2000, changed: 20, generations: 25, percent_max: 130 });
}

#[test]
#[ignore = "long: ./check --long"]
fn many_generations_of_small_changes_leave_bundles_full() {
    live(&Life { files: 4000, changed: 24, generations: 400, percent_max: 150 });
}

fn write(source: &Path, file: u64, random: &mut Random) {
    let folder = source.join(format!("folder {:02}", file % FOLDERS));
    fs::create_dir_all(&folder).unwrap();
    let len = random.between(1, 8000) as usize;
    fs::write(folder.join(format!("file {file}")), random.bytes(len)).unwrap();
}

fn count(summary: &Value, name: &str) -> u64 {
    let value = summary.pointer(&format!("/counters/{name}")).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no {name} in {summary}"))
}

fn live(life: &Life) {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    let mut random = scene.seed.stream("generations");
    (0..life.files).for_each(|file| write(&source, file, &mut random));
    let mut before = scene.backup(&source, 0).unwrap();
    let (mut rebundled, mut worst_per_mille) = (0, 0);
    for _ in 0..life.generations {
        for number in 0..life.changed {
            let file = match number % 2 {
                0 => random.below(life.files / FOLDERS) * FOLDERS,
                _ => random.below(life.files),
            };
            write(&source, file, &mut random);
        }
        let summary = scene.backup(&source, 0).unwrap();
        let of = |name| (count(&summary, name), count(&before, name));
        let (again, files) = (of("files_rebundled").0, of("files").1);
        assert!(again <= files / 100, "{summary}");
        assert!(of("bytes_rebundled").0 <= of("logical_bytes").1 / 100, "{summary}");
        rebundled += again;
        worst_per_mille = worst_per_mille.max(again * 1000 / files);
        before = summary;
    }
    assert!(rebundled > 0, "nothing was bundled again");

    let snapshots = scene.snapshots().unwrap();
    let (last, old) = snapshots.split_last().unwrap();
    for id in [last, &old[old.len() / 2]] {
        let outcome = scene.agent.run(["check", id]).unwrap();
        assert_eq!(outcome.code, Some(0), "{}{}", outcome.text(), outcome.stderr);
    }
    let report = scene.restore_and_compare(last, &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");

    // With the older ones gone the vault holds what the last needs, and no more.
    let server = scene.server().unwrap();
    for some in old.chunks(50) {
        let words = ["vault", "forget", scene.user.vault.as_str()];
        let words: Vec<&str> = words.into_iter().chain(some.iter().map(String::as_str)).chain(["--purge"]).collect();
        server.administer(&scene.binaries, &words).unwrap();
    }
    let keeper = server.keeper(&scene.binaries, &scene.user).unwrap();
    let aged = keeper.settled(&scene.data(), SETTLED_WITHIN).unwrap().reached;
    let user = server.add_user(&scene.binaries, "fresh").unwrap();
    let agent = Login::create(&scene.binaries, &user, &scene.path("fresh")).unwrap();
    let outcome = agent.run(["backup".as_ref(), source.as_os_str()]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let keeper = server.keeper(&scene.binaries, &user).unwrap();
    let fresh = keeper.settled(&scene.data(), SETTLED_WITHIN).unwrap().reached;
    eprintln!(
        "generations: {} runs, {} of {} files changed in each, {rebundled} bundled again, at most {worst_per_mille} per \
         mille of the tree in a run; the last snapshot takes {} bytes, {} in a fresh vault: {:.2} times",
        life.generations,
        life.changed,
        life.files,
        aged.frame_bytes,
        fresh.frame_bytes,
        aged.frame_bytes as f64 / fresh.frame_bytes as f64
    );
    assert!(aged.frame_bytes * 100 <= fresh.frame_bytes * life.percent_max, "{aged:?}, {fresh:?} in a fresh vault");
    let report = scene.restore_and_compare(last, &source, "restored again").unwrap();
    assert!(report.is_equal(), "{report}");
}

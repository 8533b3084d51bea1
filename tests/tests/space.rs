//! What nobody keeps gives its space back, soon and without being asked, while nothing is uploaded.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::change;
use tests::harness::{Keeper, Scene};
use tests::trees::{self, Totals};

/// The promise: space of a purged or expired snapshot is back within this on an idle server.
const BACK_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn the_space_of_removed_snapshots_is_back_within_a_minute() {
    back(Totals { files: 300, bytes: 24 << 20 });
}

#[test]
#[ignore = "long: ./check --long"]
fn the_space_of_large_removed_snapshots_is_back_within_a_minute() {
    back(Totals { files: 8000, bytes: 1 << 30 });
}

/// Purged, expired, deleted and due, and the last one of a vault: each time the ledger and the pack files say so in time.
fn back(tree: Totals) {
    let mut scene = Scene::new().unwrap();
    let (first, second) = (scene.path("first"), scene.path("second"));
    trees::life_like(&first, tree, scene.seed).unwrap();
    trees::life_like(&second, tree, tests::seed::Seed(scene.seed.stream("second").next_u64())).unwrap();
    let keeper = scene.server().unwrap().keeper(&scene.binaries, &scene.user).unwrap();
    let backup = |scene: &Scene, source: &Path| {
        let summary = scene.backup(source, 0).unwrap();
        summary.pointer("/snapshot/id").and_then(serde_json::Value::as_str).unwrap().to_owned()
    };
    let administer = |scene: &Scene, arguments: &[&str]| {
        let vault = &scene.user.vault;
        let arguments: Vec<&str> =
            arguments.iter().map(|word| if *word == "VAULT" { vault.as_str() } else { *word }).collect();
        scene.server().unwrap().administer(&scene.binaries, &arguments).unwrap()
    };

    let purged = backup(&scene, &first);
    let old = backup(&scene, &second);
    let mut random = scene.seed.stream("changes");
    change::apply(&second, 500, &mut random).unwrap();
    let new = backup(&scene, &second);
    report(&scene, &keeper, "at first");

    administer(&scene, &["vault", "forget", "VAULT", &purged, "--purge"]);
    report(&scene, &keeper, "purged");
    administer(&scene, &["vault", "retention", "VAULT", "--keep-last", "1"]);
    administer(&scene, &["vault", "retention", "VAULT", "--run"]);
    report(&scene, &keeper, "expired");
    assert_eq!(scene.snapshots().unwrap(), [new.as_str()], "{old} did not expire");

    // What is found to be due after a crash goes as well.
    let again = backup(&scene, &first);
    administer(&scene, &["vault", "undelete-days", "VAULT", "0"]);
    administer(&scene, &["vault", "forget", "VAULT", &again]);
    let data = scene.data();
    scene.kill_server().unwrap();
    scene.start_server(&data).unwrap();
    report(&scene, &keeper, "deleted, due, and killed");
    let compared = scene.restore_and_compare(&new, &second, "restored").unwrap();
    assert!(compared.is_equal(), "{compared}");

    administer(&scene, &["vault", "forget", "VAULT", &new, "--purge"]);
    let empty = report(&scene, &keeper, "everything purged");
    assert_eq!(empty, 0);
    assert!(fs::exists(data.join("store")).unwrap());
}

/// Waits for the space, says how long it took, and gives what is left.
fn report(scene: &Scene, keeper: &Keeper, when: &str) -> u64 {
    let settled = keeper.settled(&scene.data(), BACK_WITHIN).unwrap();
    eprintln!(
        "space back, {when}: {} bytes reached by snapshots and in the ledger, {} in pack files, after {} ms",
        settled.reached.frame_bytes,
        settled.file_bytes,
        settled.elapsed.as_millis()
    );
    settled.reached.frame_bytes
}

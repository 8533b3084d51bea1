//! The index is lost, and comes back from packs and journals: snapshots and their states, objects and ledgers equal.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use tests::change;
use tests::harness::{Scene, administer};
use tests::trees::{self, Totals};

#[test]
fn a_lost_index_is_rebuilt_equal() {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 2000, bytes: 60 << 20 }, scene.seed).unwrap();
    scene.backup(&source, 0).unwrap();
    change::apply(&source, 50, &mut scene.seed.stream("change")).unwrap();
    scene.backup(&source, 0).unwrap();
    let data = scene.data();
    // A second vault, so that a rebuild that mixes them up is found.
    let server = scene.server().unwrap();
    let other = server.add_user(&scene.binaries, "other").unwrap();
    let other = tests::harness::Login::create(&scene.binaries, &other, &scene.path("other agent")).unwrap();
    let outcome = other.run(["backup".as_ref(), source.join("..").join("source").as_os_str()]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);

    let vaults =
        |scene: &Scene| scene.server().unwrap().administer(&scene.binaries, &["vault", "list", "--json"]).unwrap();
    let (snapshots, ledgers) = (scene.snapshot_records().unwrap(), vaults(&scene));
    assert_eq!(snapshots.len(), 2);
    scene.stop_server().unwrap();

    let index = data.join("store/index");
    assert!(index.is_dir(), "the index is not where this test expects it");
    fs::remove_dir_all(&index).unwrap();
    let said = administer(&scene.binaries, &data, &["rebuild-index"]).unwrap();
    eprintln!("{said}");
    scene.start_server(&data).unwrap();

    assert_eq!(scene.snapshot_records().unwrap(), snapshots);
    assert_eq!(vaults(&scene), ledgers);
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
    // The rebuilt index knows every object: nothing is sent again.
    fs::remove_dir_all(scene.agent.cache()).unwrap();
    let again = scene.backup(&source, 0).unwrap();
    assert_eq!(again.pointer("/counters/chunks_sent").and_then(serde_json::Value::as_u64), Some(0), "{again}");
}

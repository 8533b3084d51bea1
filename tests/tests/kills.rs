//! Both programs die without warning at random moments, and nothing that was promised is lost or sent twice.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tests::harness::Scene;
use tests::process;
use tests::trees::{self, Totals};

/// Most that an upload session may lose in one crash of the server: what was received but not yet durable, bytes.
const RECEIVED_ONLY_BYTES_MAX: u64 = 32 << 20;

fn count(summary: &Value, name: &str) -> u64 {
    summary
        .pointer(&format!("/counters/{name}"))
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no {name} in {summary}"))
}

#[test]
fn the_server_is_killed_during_an_upload() {
    kill_the_server(4, Totals { files: 3000, bytes: 200 << 20 }, "15M");
}

#[test]
#[ignore = "long: ./check --long"]
fn the_server_is_killed_twenty_times_during_an_upload() {
    kill_the_server(20, Totals { files: 40_000, bytes: 3 << 30 }, "50M");
}

/// Kills the server `kills` times at random moments while a tree is uploaded at `rate`, slow enough to be hit.
fn kill_the_server(kills: u32, tree: Totals, rate: &str) {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, tree, scene.seed).unwrap();
    let data = scene.data();
    let mut random = scene.seed.stream("kills");

    let output = scene.path("summary");
    let mut command = scene.agent.command(["backup", "--json", "--limit-upload", rate]);
    command.arg(&source).stdin(Stdio::null()).stdout(File::create(&output).unwrap()).stderr(Stdio::inherit());
    let mut agent = command.spawn().unwrap();
    let mut killed = 0;
    while killed < kills {
        let alive_for = Duration::from_millis(random.between(20, 700));
        if process::wait_at_most(&mut agent, alive_for).unwrap().is_some() {
            panic!("the upload was over after {killed} kills: the tree is too small");
        }
        scene.kill_server().unwrap();
        scene.start_server(&data).unwrap();
        killed += 1;
    }
    let status = agent.wait().unwrap();
    let summary = last_line(&output);
    eprintln!("{killed} kills; {summary}");
    assert!(status.success(), "{status}");
    assert_eq!(count(&summary, "chunks_resent_durable"), 0);
    let most = u64::from(killed) * RECEIVED_ONLY_BYTES_MAX;
    assert!(count(&summary, "chunk_bytes_resent") <= most, "{summary}");

    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    assert_eq!(scene.snapshots().unwrap().len(), 1);
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
}

#[test]
fn the_agent_is_killed_and_the_next_run_sends_only_what_is_missing() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 3000, bytes: 200 << 20 }, scene.seed).unwrap();
    let mut random = scene.seed.stream("kills");
    for _ in 0..2 {
        // Slowed down so that it cannot be over; killed some time after the first of its data is durable.
        let stored = stored_bytes(&scene);
        let mut command = scene.agent.command(["backup", "--limit-upload", "10M"]);
        command.arg(&source).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut agent = command.spawn().unwrap();
        let mut alive_for = Duration::from_millis(100);
        while stored_bytes(&scene) == stored {
            assert!(process::wait_at_most(&mut agent, alive_for).unwrap().is_none(), "the tree is too small");
        }
        alive_for = Duration::from_millis(random.between(0, 1000));
        assert!(process::wait_at_most(&mut agent, alive_for).unwrap().is_none(), "the tree is too small");
        process::kill(agent).unwrap();
    }
    assert!(scene.snapshots().unwrap().is_empty(), "a killed run left a snapshot");
    let before = stored_bytes(&scene);
    assert!(before > 0, "nothing of the interrupted runs is there");
    let last = scene.backup(&source, 0).unwrap();
    eprintln!("after two interrupted runs, {before} bytes stored: {last}");
    assert!(count(&last, "chunks_present") > 0, "{last}");
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");

    // A vault that never saw an interruption: its cuts are its own, so it holds only nearly as much.
    let fresh = Scene::new().unwrap();
    let whole = count(&fresh.backup(&source, 0).unwrap(), "chunk_bytes_sent");
    let sent = count(&last, "chunk_bytes_sent");
    assert!(sent + before < whole + whole / 10, "{sent} sent in the last run, {before} there before, {whole} in all");
    let (stored, without_kills) = (stored_bytes(&scene), stored_bytes(&fresh));
    assert!(stored < without_kills + without_kills / 10, "{stored} stored, {without_kills} without interruption");
}

/// Bytes that the only vault takes in packs, as the server's ledger says.
fn stored_bytes(scene: &Scene) -> u64 {
    let said = scene.server().unwrap().administer(&scene.binaries, &["vault", "list", "--json"]).unwrap();
    let vaults: Value = serde_json::from_str(&said).unwrap();
    vaults.pointer("/vaults/0/physical_bytes").and_then(Value::as_u64).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn a_server_that_ends_cleanly_lets_uploads_finish() {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 2000, bytes: 120 << 20 }, scene.seed).unwrap();
    let data = scene.data();
    let mut command = scene.agent.command(["backup".as_ref(), source.as_os_str()]);
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    assert!(process::wait_at_most(&mut agent, Duration::from_millis(300)).unwrap().is_none());
    scene.stop_server().unwrap();
    scene.start_server(&data).unwrap();
    assert!(agent.wait().unwrap().success());
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
}

fn last_line(path: &Path) -> Value {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

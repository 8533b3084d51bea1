//! What a person does to snapshots with the real programs: forget, bring back, hold, tag, expire; and that the space
//! comes back while everything that stays is restored as it was.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::harness::{Login, Outcome, Scene, User, administer, summary};

/// The promise is a minute on an idle server.
const SPACE_WITHIN: Duration = Duration::from_secs(60);

/// An agent on the same vault whose token has further rights.
fn agent_with(scene: &Scene, rights: &str) -> io::Result<Login> {
    let vault = &scene.user.vault;
    let said = administer(
        &scene.binaries,
        &scene.data(),
        &["token", "add", "owner", "--vault", vault, "--rights", rights, "--json"],
    )?;
    let token: Value = serde_json::from_str(&said).map_err(io::Error::other)?;
    let secret = token["secret"].as_str().unwrap_or_default().to_owned();
    let user = User { token: secret, ..scene.user.clone() };
    Login::create(&scene.binaries, &user, &scene.path(&format!("agent-{rights}")))
}

fn operate(scene: &Scene, arguments: &[&str]) -> String {
    administer(&scene.binaries, &scene.data(), arguments).unwrap()
}

fn status(scene: &Scene) -> Value {
    let said = operate(scene, &["vault", "status", &scene.user.vault, "--json"]);
    serde_json::from_str(&said).unwrap()
}

fn count(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn done(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.text(), outcome.stderr);
    outcome.text()
}

fn refused(outcome: &Outcome, expected: &str) {
    assert_eq!(outcome.code, Some(1), "{}", outcome.text());
    assert!(outcome.stderr.contains(expected), "{expected:?} is not in {}", outcome.stderr);
}

/// A folder with a file of `bytes` that do not compress, another one at each call.
fn write_version(scene: &Scene, name: &str, version: u32, bytes: usize) -> PathBuf {
    let source = scene.path(name);
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("data"), scene.seed.stream(&format!("{name} {version}")).bytes(bytes)).unwrap();
    fs::write(source.join("version"), version.to_string()).unwrap();
    source
}

/// Waits until the vault holds about `bytes`, at most as long as is promised.
fn wait_for_space(scene: &Scene, bytes_max: u64) -> Value {
    let started = Instant::now();
    loop {
        let now = status(scene);
        if count(&now, "physical_bytes") <= bytes_max && count(&now, "dead_bytes") <= bytes_max {
            eprintln!("space was back after {:?}: {now}", started.elapsed());
            return now;
        }
        assert!(started.elapsed() < SPACE_WITHIN, "space is not back after {SPACE_WITHIN:?}: {now}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_was_forgotten_comes_back_until_it_is_purged() {
    let scene = Scene::new().unwrap();
    let source = write_version(&scene, "source", 1, 3_000_000);
    scene.backup(&source, 0).unwrap();
    let kept = write_version(&scene, "kept", 1, 500_000);
    scene.backup(&kept, 0).unwrap();
    let [first, second] = scene.snapshots().unwrap().try_into().unwrap();

    // The token of an agent may not do it, and the message says which right is missing.
    refused(&scene.agent.run(["forget", &first[..10]]).unwrap(), "`delete`");
    refused(&scene.agent.run(["forget", &first[..10], "--purge"]).unwrap(), "`purge`");
    let owner = agent_with(&scene, "backup,restore,delete,purge").unwrap();
    let tried = done(owner.run(["forget", &first[..10], "--dry-run"]).unwrap());
    assert!(tried.contains("would forget 1 snapshot; nothing was changed"), "{tried}");
    let said = done(owner.run(["forget", &first[..10]]).unwrap());
    assert!(said.contains("deleted 1 snapshot; until") && said.contains("holdfast undelete"), "{said}");

    let listed = done(scene.agent.run(["snapshots"]).unwrap());
    assert!(listed.lines().next().unwrap().contains("(deleted, undelete until"), "{listed}");
    assert!(!listed.lines().nth(1).unwrap().contains("deleted"), "{listed}");
    let target = scene.path("refused");
    let restore = scene.agent.run(["restore".as_ref(), first.as_ref(), "--to".as_ref(), target.as_os_str()]).unwrap();
    refused(&restore, "holdfast undelete");
    assert!(scene.agent.run(["check"]).unwrap().text().starts_with("1 snapshots"));
    let now = status(&scene);
    assert_eq!((count(&now, "snapshots"), count(&now, "deleted_snapshots")), (2, 1));
    assert!(count(&now, "deleted_logical_bytes") > 3_000_000, "{now}");

    // A backup does not build on a deleted snapshot, but still sends nothing twice.
    let again = scene.backup(&source, 0).unwrap();
    assert!(count(&again["counters"], "bytes_added") < 100_000, "{again}");
    done(owner.run(["undelete", &first[..10]]).unwrap());
    assert!(!done(scene.agent.run(["snapshots"]).unwrap()).contains("deleted"));
    for (snapshot, of) in [(&first, &source), (&second, &kept)] {
        let report = scene.restore_and_compare(snapshot, of, "back").unwrap();
        assert!(report.is_equal(), "{report}");
    }

    let third = scene.snapshots().unwrap().pop().unwrap();
    let said = done(owner.run(["forget", &first, &third, "--purge"]).unwrap());
    assert!(said.contains("removed 2 snapshots for good"), "{said}");
    assert_eq!(scene.snapshots().unwrap(), std::slice::from_ref(&second));
    let after = wait_for_space(&scene, 1_000_000);
    assert!(count(&after, "physical_bytes") > 500_000, "{after}");
    let report = scene.restore_and_compare(&second, &kept, "kept again").unwrap();
    assert!(report.is_equal(), "{report}");
    // Idempotent, and clear about what never was.
    refused(&owner.run(["forget", &first]).unwrap(), "no snapshot");
}

#[test]
fn a_rule_forgets_what_it_shows_and_never_the_newest() {
    let scene = Scene::new().unwrap();
    let owner = agent_with(&scene, "backup,restore,delete,purge,hold").unwrap();
    for version in 1..=5 {
        let source = write_version(&scene, "source", version, 400_000);
        let tag = if version == 2 { "audit" } else { "nightly" };
        done(owner.run(["backup".as_ref(), "--tag".as_ref(), tag.as_ref(), source.as_os_str()]).unwrap());
    }
    let all = scene.snapshots().unwrap();
    done(owner.run(["hold", &all[2], "--until", "2099-12-31"]).unwrap());
    assert!(done(owner.run(["snapshots"]).unwrap()).contains("(held until 2"));

    let rule = ["forget", "--keep-last", "1", "--keep-tag", "audit"];
    let plan = summary(&owner.run(rule.iter().chain(&["--dry-run", "--json"])).unwrap(), 0).unwrap();
    let figures = |result: &Value| ["would_go", "deleted", "kept", "held"].map(|name| count(result, name));
    assert_eq!(figures(&plan), [2, 0, 2, 1], "{plan}");
    assert_eq!(scene.snapshots().unwrap(), all, "a dry run changed something");
    let other = done(owner.run(rule.iter().chain(&["--computer", "elsewhere"])).unwrap());
    assert!(other.contains("deleted 0 snapshots"), "{other}");
    let said = done(owner.run(rule).unwrap());
    assert!(said.contains("keep") && said.contains("(last, newest") && said.contains("tag audit"), "{said}");
    let deleted: Vec<bool> =
        scene.snapshot_records().unwrap().iter().map(|record| record.get("deleted").is_some()).collect();
    assert_eq!(deleted, [true, false, false, true, false]);

    // The same plan on the server; the hold survives purging as well.
    let by_operator = operate(
        &scene,
        &["vault", "retention", &scene.user.vault, "--keep-last", "1", "--keep-tag", "audit", "--dry-run"],
    );
    assert!(by_operator.contains("0 of 3 snapshots would expire"), "{by_operator}");
    refused(&owner.run(["forget", &all[2], "--purge"]).unwrap(), "held until 2");
    refused(&scene.agent.run(["hold", &all[2], "--lift"]).unwrap(), "`hold`");
    done(owner.run(["hold", &all[2], "--lift"]).unwrap());
    done(owner.run(["forget", &all[2], "--purge"]).unwrap());
    // Tags may be what keeps a snapshot: an agent adds, an owner takes away.
    done(scene.agent.run(["tag", &all[1][..12], "--add", "seen"]).unwrap());
    refused(&scene.agent.run(["tag", &all[1][..12], "--remove", "audit"]).unwrap(), "`delete`");
    let tagged = done(owner.run(["tag", &all[1][..12], "--remove", "audit"]).unwrap());
    assert!(tagged.contains("[seen]"), "{tagged}");
    for usage in [["forget", "--dry-run"].as_slice(), &["forget", "--keep-last", "0"]] {
        refused(&owner.run(usage).unwrap(), "--keep-last");
    }
    refused(&owner.run(["forget", "--keep-daily", "1", "--time-zone", "Nowhere/City"]).unwrap(), "Nowhere/City");
}

#[test]
fn the_server_expires_by_itself_and_what_stays_is_whole() {
    let mut scene = Scene::with_server(None, &["--retention-seconds", "2"]).unwrap();
    let mut versions = Vec::new();
    for version in 1..=4 {
        let source = write_version(&scene, "source", version, 2_000_000);
        scene.backup(&source, 0).unwrap();
        versions.push(scene.snapshots().unwrap().pop().unwrap());
    }
    let before = count(&status(&scene), "physical_bytes");
    assert!(before > 8_000_000);
    let set = operate(&scene, &["vault", "retention", &scene.user.vault, "--keep-last", "1"]);
    assert!(set.contains("keep last 1"), "{set}");
    let started = Instant::now();
    while scene.snapshots().unwrap().len() > 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing expired");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(scene.snapshots().unwrap(), versions[3..]);
    let after = wait_for_space(&scene, 2_500_000);
    assert!(count(&after, "physical_bytes") > 2_000_000, "{after}");
    // The files go right behind the figures.
    while stored_bytes(&scene.data()) >= before {
        assert!(started.elapsed() < SPACE_WITHIN, "the files are as large as before");
        std::thread::sleep(Duration::from_millis(100));
    }
    let source = scene.path("source");
    let report = scene.restore_and_compare(&versions[3], &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    let check = done(scene.agent.run(["check", "--read-data"]).unwrap());
    assert!(check.contains("no problems"), "{check}");

    // Everything is as it was after a kill.
    let data = scene.data();
    scene.kill_server().unwrap();
    scene.start_server(&data).unwrap();
    assert_eq!(scene.snapshots().unwrap(), versions[3..]);
    let report = scene.restore_and_compare("latest", &source, "after the kill").unwrap();
    assert!(report.is_equal(), "{report}");
}

/// Bytes of all packs.
fn stored_bytes(data: &Path) -> u64 {
    let mut bytes = 0;
    for vault in fs::read_dir(data.join("store/vaults")).unwrap() {
        for pack in fs::read_dir(vault.unwrap().path().join("packs")).unwrap() {
            // One that is removed meanwhile holds nothing.
            bytes += pack.unwrap().metadata().map_or(0, |metadata| metadata.len());
        }
    }
    bytes
}

/// The snapshot is purged while it is being restored: the restore ends as if nothing had happened.
#[test]
fn a_restore_keeps_what_it_reads() {
    let scene = Scene::new().unwrap();
    let owner = agent_with(&scene, "restore,purge").unwrap();
    let source = write_version(&scene, "source", 1, 64 << 20);
    scene.backup(&source, 0).unwrap();
    let snapshot = scene.snapshots().unwrap().pop().unwrap();
    let target = scene.path("restored");
    let mut restore = scene.agent.command(["restore".as_ref(), "latest".as_ref(), "--to".as_ref(), target.as_os_str()]);
    let mut restore = restore.spawn().unwrap();
    let below = target.join(source.strip_prefix("/").unwrap());
    let started = Instant::now();
    while !below.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the restore does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    done(owner.run(["forget", &snapshot, "--purge"]).unwrap());
    assert!(restore.wait().unwrap().success());
    let report = tests::compare::compare(&source, &below, tests::compare::Options::default()).unwrap();
    assert!(report.is_equal(), "{report}");
    wait_for_space(&scene, 0);
}

/// A clock that nobody can vouch for removes nothing, says so in words, and goes on once someone has looked at it.
#[test]
fn nothing_expires_while_the_clock_is_not_believed() {
    let mut scene = Scene::new().unwrap();
    for version in 1..=2 {
        let source = write_version(&scene, "source", version, 100_000);
        scene.backup(&source, 0).unwrap();
    }
    let all = scene.snapshots().unwrap();
    let vault = scene.user.vault.clone();
    operate(&scene, &["vault", "retention", &vault, "--keep-last", "1"]);
    let data = scene.data();
    scene.stop_server().unwrap();
    fs::write(data.join("store/clock"), "no clock at all").unwrap();
    scene.expected_log.push("the clock's file is damaged");
    scene.start_server(&data).unwrap();

    let refusal = administer(&scene.binaries, &data, &["vault", "retention", &vault, "--run"]).unwrap_err().to_string();
    assert!(refusal.contains("holdfastd clock confirm"), "{refusal}");
    let refusal = administer(&scene.binaries, &data, &["vault", "forget", &vault, &all[0]]).unwrap_err().to_string();
    assert!(refusal.contains("holdfastd clock confirm"), "{refusal}");
    assert!(operate(&scene, &["clock", "status"]).contains("Nothing expires"));
    // Backups and restores do not ask the clock.
    let source = write_version(&scene, "source", 3, 100_000);
    scene.backup(&source, 0).unwrap();
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    assert_eq!(scene.snapshots().unwrap().len(), 3);

    assert!(operate(&scene, &["clock", "confirm"]).contains("it is believed"));
    let run = operate(&scene, &["vault", "retention", &vault, "--run"]);
    assert!(run.contains("2 of 3 snapshots expired and are gone"), "{run}");
    assert_eq!(scene.snapshots().unwrap().len(), 1);
}

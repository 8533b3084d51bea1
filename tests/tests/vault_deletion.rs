//! A vault is deleted while it is used: the upload in flight ends with a clear error, and no file of the server names the
//! vault afterwards. A deletion that a kill interrupts goes on at the next start.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::harness::{Login, Scene};
use tests::trees::{self, Totals};

fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_files(&path, found) } else { found.push(path) }
    }
}

/// Id raw and as text, and the vault's wrapped keys as they lie in the keyring.
fn needles(data: &Path, vault: &str) -> Vec<Vec<u8>> {
    const WRAPPED: usize = 24 + 32 + 16;
    let raw: Vec<u8> =
        (0..vault.len()).step_by(2).map(|at| u8::from_str_radix(&vault[at..at + 2], 16).unwrap()).collect();
    let keyring = fs::read(data.join("store/keyring.a")).unwrap();
    let entry = keyring.windows(raw.len()).position(|window| window == raw).unwrap() + raw.len();
    let root = keyring[entry..entry + WRAPPED].to_vec();
    let first = keyring[entry + WRAPPED + 8..entry + WRAPPED + 8 + WRAPPED].to_vec();
    vec![raw, vault.as_bytes().to_vec(), vault.to_uppercase().into_bytes(), root, first]
}

/// Files below `data` that hold one of `needles`, in their names or contents, and how many were looked at.
fn traces(data: &Path, needles: &[Vec<u8>]) -> (Vec<PathBuf>, usize) {
    let mut files = Vec::new();
    all_files(data, &mut files);
    let count = files.len();
    let holds = |path: &PathBuf| {
        // A file may go while it is looked for: then it holds nothing.
        let bytes = fs::read(path).unwrap_or_default();
        let name = path.to_string_lossy().into_owned().into_bytes();
        let is_in = |hay: &[u8], needle: &[u8]| hay.windows(needle.len()).any(|window| window == needle);
        needles.iter().any(|needle| is_in(&bytes, needle) || is_in(&name, needle))
    };
    (files.into_iter().filter(holds).collect(), count)
}

fn delete(scene: &Scene, name: &str) -> serde_json::Value {
    let said =
        scene.server().unwrap().administer(&scene.binaries, &["vault", "delete", name, "--confirm", name, "--json"]);
    serde_json::from_str(&said.unwrap()).unwrap()
}

#[test]
fn a_deleted_vault_is_in_no_file_and_the_upload_in_flight_hears_of_it() {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 800, bytes: 20 << 20 }, scene.seed).unwrap();
    scene.backup(&source, 0).unwrap();
    let data = scene.data();
    let other = scene.server().unwrap().add_user(&scene.binaries, "other").unwrap();
    let agent = Login::create(&scene.binaries, &other, &scene.path("other agent")).unwrap();
    let outcome = agent.run(["backup".as_ref(), source.as_os_str()]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    // Over a restart, so that rows are in tables, logs and manifests of more than one generation.
    scene.stop_server().unwrap();
    scene.start_server(&data).unwrap();
    let outcome = agent.run(["backup".as_ref(), source.join("..").join("source").as_os_str()]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let gone = needles(&data, &other.vault);
    assert!(traces(&data, &gone).0.len() >= 6, "the scan finds what is there: {:?}", traces(&data, &gone));

    // Wrong names delete nothing.
    let server = scene.server().unwrap();
    assert!(server.administer(&scene.binaries, &["vault", "delete", "other", "--confirm", "tester"]).is_err());
    assert!(server.administer(&scene.binaries, &["vault", "delete", "nobody", "--confirm", "nobody"]).is_err());

    let large = scene.path("large");
    fs::create_dir(&large).unwrap();
    trees::dense_file(&large.join("file"), 600 << 20, scene.seed).unwrap();
    let mut command = agent.command(["backup".as_ref(), large.as_os_str()]);
    let uploading = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let packs = data.join("store/vaults").join(&other.vault).join("packs");
    let before = fs::read_dir(&packs).unwrap().count();
    let started = Instant::now();
    while fs::read_dir(&packs).unwrap().count() < before + 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "the upload does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    let receipt = delete(&scene, "other");
    let ended = uploading.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("deleted"), "{said}");

    let (found, looked) = traces(&data, &gone);
    eprintln!(
        "scan of {looked} files of the data folder: {} hold the id or the wrapped keys; receipt {receipt}",
        found.len()
    );
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(receipt.pointer("/packs").and_then(serde_json::Value::as_u64).unwrap() >= 2, "{receipt}");
    assert_eq!(receipt.pointer("/name").and_then(serde_json::Value::as_str), Some("default/other/default"));
    // Whoever comes later hears it as well, also over a restart; others do not notice.
    let later = agent.run(["snapshots"]).unwrap();
    assert_eq!(later.code, Some(1), "{}", later.text());
    assert!(later.stderr.contains("deleted"), "{}", later.stderr);
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    scene.stop_server().unwrap();
    scene.start_server(&data).unwrap();
    assert_eq!(traces(&data, &gone).0, Vec::<PathBuf>::new());
    assert_ne!(agent.run(["snapshots"]).unwrap().code, Some(0));
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
    // The user is still listed, and goes on request.
    let server = scene.server().unwrap();
    assert!(server.administer(&scene.binaries, &["user", "list"]).unwrap().contains("other"));
    server.administer(&scene.binaries, &["user", "delete", "other", "--confirm", "other"]).unwrap();
    assert!(!server.administer(&scene.binaries, &["user", "list"]).unwrap().contains("other"));
}

#[test]
fn a_deletion_goes_on_after_kills() {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::life_like(&source, Totals { files: 300, bytes: 10 << 20 }, scene.seed).unwrap();
    scene.backup(&source, 0).unwrap();
    scene.expected_log.push("a deletion cannot be finished");
    let data = scene.data();
    for round in 0..6u64 {
        let name = format!("user{round}");
        let user = scene.server().unwrap().add_user(&scene.binaries, &name).unwrap();
        let agent = Login::create(&scene.binaries, &user, &scene.path(&name)).unwrap();
        assert_eq!(agent.run(["backup".as_ref(), source.as_os_str()]).unwrap().code, Some(0));
        let gone = needles(&data, &user.vault);
        let mut deleting = std::process::Command::new(&scene.binaries.server)
            .args(["vault", "delete", &name, "--confirm", &name, "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From the decision on, a little later every round.
        let intent = data.join("store/deletions").join(&user.vault);
        let started = Instant::now();
        let is_decided = || intent.exists();
        while !is_decided() && started.elapsed() < Duration::from_secs(20) && deleting.try_wait().unwrap().is_none() {}
        std::thread::sleep(Duration::from_millis(8 * round));
        scene.kill_server().unwrap();
        let _ = deleting.wait();
        scene.start_server(&data).unwrap();
        let started = Instant::now();
        while is_decided() || !traces(&data, &gone).0.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(60), "round {round}: {:?}", traces(&data, &gone));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
}

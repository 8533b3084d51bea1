//! Real file systems that are really full: the data volume and a volume of the index of its own, under load of real
//! agents, up to the last byte. Uploads are refused clearly, reading and deleting go on, the server lives, and when there
//! is space again everything goes on by itself with nothing lost.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use api::problem::Code;
use repo_format::id::ObjectKind;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::harness::{Answer, Login, Scene, Wire, one_record};
use tests::seed::Seed;
use tests::trees;

/// Long enough on a busy machine; nothing here waits for a fixed time.
const WITHIN: Duration = Duration::from_secs(240);

/// An ext4 file system in a file, unmounted when dropped.
struct LoopDisk {
    mount: PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopDisk {
    /// `None` where this process may not mount.
    fn mount(mib: u64) -> Option<Self> {
        let folder = tempfile::TempDir::with_prefix("holdfast-disk-").unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let made = rustix::process::geteuid().is_root()
            && quiet(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            && quiet(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        if !made {
            eprintln!("skipped: a file system in a file needs root, mkfs.ext4 and loop devices");
            return None;
        }
        Some(LoopDisk { mount, _folder: folder })
    }

    fn free(&self) -> u64 {
        let volume = rustix::fs::statvfs(&self.mount).unwrap();
        volume.f_bavail * volume.f_frsize
    }

    /// Takes space away until at most `leave` bytes are free.
    fn fill(&self, leave: u64) {
        let path = self.mount.join("filler");
        let file = fs::File::options().create(true).append(true).open(path).unwrap();
        let piece = vec![0x5a; 256 << 10];
        while self.free() > leave {
            let part = usize::try_from(self.free() - leave).unwrap().min(piece.len());
            match std::io::Write::write(&mut &file, &piece[..part]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
            // The free space that is shown does not know of what waits to be written.
            file.sync_data().unwrap();
        }
    }

    fn give_back(&self) {
        fs::remove_file(self.mount.join("filler")).unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WITHIN, "{what}: not within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Posts a chunk of a session of its own, as an agent would.
fn put_chunk(wire: &Wire, session: &str, seed: u8) -> Answer {
    let plaintext = [seed; 1000];
    let id = wire.id_keys().unwrap().chunk_id(&plaintext).into();
    wire.post_binary(&format!("{session}/chunks"), one_record(ObjectKind::Chunk, 0, 1000, &id, &plaintext)).unwrap()
}

fn backup(agent: &Login, path: &Path) -> Child {
    let mut command = agent.command(["backup".as_ref(), path.as_os_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(agent: Child) {
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn dense(path: &Path, mib: u64, seed: Seed) {
    fs::create_dir(path).unwrap();
    trees::dense_file(&path.join("file"), mib << 20, seed).unwrap();
}

/// What both tests have in common: a server with two snapshots, an agent at work, and expectations of the log.
struct Under {
    scene: Scene,
    kept: PathBuf,
    large: PathBuf,
    doomed: String,
    wire: Wire,
    session: String,
}

impl Under {
    fn prepare(mut scene: Scene, large_mib: u64) -> Self {
        scene.expected_log.extend([
            "No space left on device",
            "the index could not be written",
            "the index was opened again",
            "its ballast is given up",
            "a write or sync failed",
            "a journal write failed",
            "is full",
            "sync failed",
        ]);
        let (kept, doomed, large) = (scene.path("kept"), scene.path("doomed"), scene.path("large"));
        dense(&kept, 20, Seed(scene.seed.0.wrapping_add(1)));
        dense(&doomed, 30, Seed(scene.seed.0.wrapping_add(2)));
        dense(&large, large_mib, Seed(scene.seed.0.wrapping_add(3)));
        scene.backup(&kept, 0).unwrap();
        scene.backup(&doomed, 0).unwrap();
        let doomed = scene.snapshots().unwrap().last().unwrap().clone();
        let wire = Wire::connect(&scene.user).unwrap();
        let session = wire.begin().unwrap();
        assert_eq!(put_chunk(&wire, &session, 1).status, 200);
        Under { scene, kept, large, doomed, wire, session }
    }

    fn is_refused(&self, seed: u8) -> bool {
        let answer = put_chunk(&self.wire, &self.session, seed);
        match (answer.status, answer.code()) {
            (507, Some(Code::ServerDiskFull)) => true,
            (200, None) => false,
            // The index or a pack failed under this very request: asked again, the answer is one of the two.
            (503, Some(Code::Retry)) | (409, Some(Code::IncarnationChanged)) => false,
            (status, code) => panic!("{status} {code:?}: {:?}", answer.body),
        }
    }

    fn restores(&self, target: &str) {
        let snapshots = self.scene.snapshots().unwrap();
        let report = self.scene.restore_and_compare(&snapshots[0], &self.kept, target).unwrap();
        assert!(report.is_equal(), "{report}");
    }

    fn administer(&self, arguments: &[&str]) -> String {
        self.scene.server().unwrap().administer(&self.scene.binaries, arguments).unwrap()
    }

    fn purge_doomed(&self) {
        self.administer(&["vault", "forget", "tester", &self.doomed, "--purge"]);
        assert!(!self.scene.snapshots().unwrap().contains(&self.doomed));
    }

    fn deleted(&self, snapshot: &str) -> bool {
        let records = self.scene.snapshot_records().unwrap();
        let record = records.iter().find(|record| record.pointer("/id").and_then(|id| id.as_str()) == Some(snapshot));
        record.is_some_and(|record| record.get("deleted").is_some_and(|deleted| !deleted.is_null()))
    }

    fn state(&self) -> (String, String) {
        let said = self.scene.server().unwrap().administer(&self.scene.binaries, &["vault", "list", "--json"]).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let text = |name: &str| said.pointer(&format!("/vaults/0/{name}")).and_then(|text| text.as_str());
        (text("state").unwrap_or_default().to_owned(), text("reason").unwrap_or_default().to_owned())
    }

    fn end(mut self, pid: u32) {
        assert_eq!(self.scene.server().unwrap().pid(), pid, "the server lived through it");
        wait_for("ready again", || self.state().0 == "ready");
        let report = self.scene.restore_and_compare("latest", &self.large, "restored large").unwrap();
        assert!(report.is_equal(), "{report}");
        self.restores("restored kept");
        let check = self.scene.agent.run(["check"]).unwrap();
        assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
        let data = self.scene.data();
        self.scene.stop_server().unwrap();
        // And nothing was only in memory.
        self.scene.start_server(&data).unwrap();
        self.restores("restored again");
        let check = self.scene.agent.run(["check"]).unwrap();
        assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
        self.scene.stop_server().unwrap();
    }
}

#[test]
fn a_full_data_volume_refuses_uploads_and_nothing_else() {
    let Some(disk) = LoopDisk::mount(700) else { return };
    let scene = Scene::with_server(Some(&disk.mount.join("data")), &[]).unwrap();
    let under = Under::prepare(scene, 120);
    let ballast =
        || (1..=4).filter(|piece| under.scene.data().join(format!("store/ballast.{piece}")).is_file()).count();
    assert_eq!(ballast(), 4);
    // A second snapshot of a series, so that one of them expires.
    under.scene.backup(&under.kept, 0).unwrap();
    let older = under.scene.snapshots().unwrap()[0].clone();
    under.administer(&["vault", "retention", &under.scene.user.vault, "--keep-last", "1"]);
    let pid = under.scene.server().unwrap().pid();
    // Room for a part of it; the reserve of 64 MiB is not for uploads.
    disk.fill((64 + 50) << 20);
    let agent = backup(&under.scene.agent, &under.large);
    wait_for("refused at the reserve", || under.is_refused(2));
    eprintln!("data volume: refused with {} MiB free", disk.free() >> 20);
    let (state, reason) = under.state();
    assert_eq!(state, "read_only", "{reason}");
    assert!(reason.contains("full"), "{reason}");
    under.restores("restored at the reserve");
    // Other programs take the reserve to the last byte, and again what each step gives back: deleting, purging and
    // expiring work all the same.
    disk.fill(0);
    eprintln!("data volume: {} bytes free", disk.free());
    for seed in 10..20 {
        wait_for("refused on a full disk", || under.is_refused(seed));
    }
    assert_eq!(ballast(), 4, "uploads do not get it");
    under.administer(&["vault", "forget", "tester", &under.doomed]);
    assert!(under.deleted(&under.doomed), "it is softly deleted");
    disk.fill(0);
    under.purge_doomed();
    disk.fill(0);
    let expired = under.administer(&["vault", "retention", &under.scene.user.vault, "--run"]);
    eprintln!("data volume: deleted, purged and expired on a full disk, {} pieces of ballast left", ballast());
    assert!(expired.contains("1 of 2 snapshots expired and are gone"), "{expired}");
    assert!(!under.scene.snapshots().unwrap().contains(&older));
    under.restores("restored on a full disk");
    disk.give_back();
    finished(agent);
    wait_for("the ballast comes back", || {
        under.is_refused(30);
        ballast() == 4
    });
    under.end(pid);
}

#[test]
fn a_full_index_volume_refuses_uploads_and_nothing_else() {
    let Some(disk) = LoopDisk::mount(300) else { return };
    let index = disk.mount.join("index volume");
    let scene = Scene::with_server(None, &["--index-dir", index.to_str().unwrap()]).unwrap();
    let under = Under::prepare(scene, 400);
    let pid = under.scene.server().unwrap().pid();
    assert!(index.join("index/CURRENT").is_file() && !under.scene.data().join("store/index").exists());
    assert!(index.join("ballast").is_file(), "a volume of its own has its ballast");
    let agent = backup(&under.scene.agent, &under.large);
    // Below the reserve: refused before anything fails.
    disk.fill(40 << 20);
    wait_for("refused at the reserve", || under.is_refused(2));
    eprintln!("index volume: refused with {} MiB free", disk.free() >> 20);
    assert!(under.state().1.contains("index disk is full"), "{:?}", under.state());
    under.restores("restored at the reserve");
    under.purge_doomed();
    // To the last byte, and what the ballast gave back as well.
    for seed in 10..16 {
        disk.fill(0);
        wait_for("refused on a full disk", || under.is_refused(seed));
    }
    assert!(!index.join("ballast").exists(), "the ballast goes first");
    // Something that must write: it fails for want of space, and the index with it.
    let said = under.wire.post_json(
        &format!("/vaults/{}/uploads", under.wire.vault),
        &serde_json::json!({"computer": "c", "series": "s"}),
    );
    eprintln!("index volume: {} bytes free; begin answers {:?}", disk.free(), said.map(|answer| answer.status));
    under.restores("restored on a full disk");
    disk.give_back();
    finished(agent);
    wait_for("the ballast comes back", || {
        under.is_refused(30);
        index.join("ballast").is_file()
    });
    under.end(pid);
}

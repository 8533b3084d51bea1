//! Files that cannot be read, that grow, shrink and vanish while they are read: reported, never fatal, never mixed up.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::directory::remove_tree;
use tests::harness::Scene;

/// Nobody, on every Linux.
const NOBODY: u32 = 65_534;

#[test]
fn an_unreadable_file_is_a_warning() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("readable"), b"content").unwrap();
    fs::write(source.join("secret"), b"hidden").unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    fs::write(source.join("closed/inside"), b"unseen").unwrap();
    let private = |name: &str| fs::set_permissions(source.join(name), fs::Permissions::from_mode(0o000));
    private("secret").unwrap();
    private("closed").unwrap();

    let mut command = scene.agent.command(["backup".as_ref(), "--json".as_ref(), source.as_os_str()]);
    if rustix::process::geteuid().is_root() {
        // Root reads everything: the agent must be someone else, with programs and folders it can reach.
        let program = scene.path("holdfast");
        fs::copy(&scene.binaries.agent, &program).unwrap();
        for folder in [scene.path(""), scene.path("agent")] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        give_away(&scene.path("agent"));
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new(program);
        command.envs(environment).args(arguments).uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("/secret") && said.contains("/closed"), "{said}");
    let record = scene.snapshot_records().unwrap().pop().unwrap();
    assert_eq!(record.pointer("/summary/warnings").and_then(serde_json::Value::as_u64), Some(2), "{record}");

    let restored = scene.restore("latest", &source, "restored").unwrap();
    assert_eq!(fs::read(restored.join("readable")).unwrap(), b"content");
    assert!(!restored.join("secret").exists(), "a file that was never read came back");
}

fn give_away(path: &std::path::Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
}

/// Ends the thread that makes trouble, also when the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_that_change_while_they_are_read() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    let calm = scene.seed.stream("calm").bytes(3_000_000);
    fs::write(source.join("calm"), &calm).unwrap();
    fs::write(source.join("zz calm"), &calm).unwrap();
    let growing = source.join("growing");
    fs::write(&growing, vec![b'g'; 20_000_000]).unwrap();
    let shrinking = source.join("shrinking");
    fs::write(&shrinking, vec![b's'; 20_000_000]).unwrap();

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = scene.seed.stream("trouble");
            let mut file = OpenOptions::new().append(true).open(&growing).unwrap();
            let mut left = 20_000_000u64;
            while !done.load(Ordering::Relaxed) {
                file.write_all(&[b'g'; 1000]).unwrap();
                left = left.saturating_sub(20_000).max(1);
                File::options().write(true).open(&shrinking).unwrap().set_len(left).unwrap();
                let name = source.join(format!("vanishing {:03}", random.below(400)));
                if fs::remove_file(&name).is_err() {
                    fs::write(&name, b"soon gone").unwrap();
                }
                let folder = source.join(format!("folder {:02}", random.below(20)));
                if remove_tree(&folder).is_ok() && random.chance(1, 2) {
                    fs::create_dir(&folder).unwrap();
                    fs::write(folder.join("inside"), b"soon gone too").unwrap();
                }
            }
        });
        let _stop = SetOnDrop(&done);
        for _ in 0..5 {
            let outcome = scene.agent.run(["backup".as_ref(), "--json".as_ref(), source.as_os_str()]).unwrap();
            let said = format!("{}{}", outcome.text(), outcome.stderr);
            assert!(matches!(outcome.code, Some(0 | 3)), "ended with {:?}: {said}", outcome.code);
        }
    });
    for (number, snapshot) in scene.snapshots().unwrap().iter().enumerate() {
        let restored = scene.restore(snapshot, &source, &format!("restored {number}")).unwrap();
        assert!(fs::read(restored.join("calm")).unwrap() == calm);
        assert!(fs::read(restored.join("zz calm")).unwrap() == calm);
        // A moment of its life, or nothing: never bytes it did not have.
        for (name, byte) in [("growing", b'g'), ("shrinking", b's')] {
            let came_back = fs::read(restored.join(name)).unwrap_or_default();
            assert!(came_back.iter().all(|found| *found == byte || *found == 0), "{name} is mixed up");
        }
    }
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
}

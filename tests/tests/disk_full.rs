//! The server's own disk fills up during an upload: refused before bytes are read, and the agent goes on when there is
//! space again.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tests::harness::Scene;
use tests::trees;

/// A file system of limited size, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(path: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={mib}m,mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "holdfast-test"]).arg(path).stderr(Stdio::null());
        let mounted = rustix::process::geteuid().is_root() && command.status().is_ok_and(|status| status.success());
        mounted.then(|| SmallDisk(path.to_path_buf()))
    }

    fn grow(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn an_upload_waits_out_a_full_disk() {
    let mount_point = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(mount_point.path(), 256) else {
        eprintln!("skipped: a file system of limited size needs root");
        return;
    };
    let mut scene = Scene::with_server(Some(&mount_point.path().join("data")), &[]).unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    trees::dense_file(&source.join("incompressible"), 400 << 20, scene.seed).unwrap();

    let mut command = scene.agent.command(["backup".as_ref(), source.as_os_str()]);
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(agent.stderr.take().unwrap());
    let mut line = String::new();
    loop {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the agent ended: {:?}", agent.wait());
        if line.contains("disk") || line.contains("space") {
            break;
        }
    }
    // The server lives, answers, and still takes small things out of its reserve.
    assert!(scene.snapshots().unwrap().is_empty());
    disk.grow(1024);
    let rest = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut said, &mut text).map(|_| text)
    });
    let status = agent.wait().unwrap();
    assert!(status.success(), "{status}: {}", rest.join().unwrap().unwrap());
    let report = scene.restore_and_compare("latest", &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    let check = scene.agent.run(["check"]).unwrap();
    assert_eq!(check.code, Some(0), "{}{}", check.text(), check.stderr);
    scene.stop_server().unwrap();
    drop(disk);
}

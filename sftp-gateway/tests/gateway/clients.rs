//! Other people's clients: each downloads complete and identical, resumes where it can, and shows sizes and dates.

use crate::served::{MODIFIED, Served, USER, installed, run, secret, succeed};
use sftp_gateway::keys::PublicKey;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

#[test]
fn lftp_mirrors_in_parts_and_resumes() {
    if !installed("lftp") {
        return;
    }
    let served = Served::new();
    let dump = served.put("/2026/shop.dump", 9_000_001);
    fs::write(served.path("resumed.dump"), &dump[..3_000_000]).unwrap();
    let ssh = served.ssh_options().join(" ");
    let script = format!(
        "set sftp:connect-program \"ssh -a -x {ssh}\"; set net:max-retries 1; set net:timeout 60; \
         open -u {USER}, -p {} sftp://127.0.0.1; cls -l --time-style=%Y-%m-%dT%H:%M 2026; \
         pget -n 4 2026/shop.dump -o {}; get -c 2026/shop.dump -o {}; mirror 2026 {}",
        served.port,
        served.text("pget.dump"),
        served.text("resumed.dump"),
        served.text("mirror"),
    );
    let home = served.path("home");
    fs::create_dir(&home).unwrap();
    let shown = succeed(&run(Command::new("lftp").args(["--norc", "-c", &script]).env("HOME", &home).env("TZ", "UTC")));
    assert!(shown.contains("9000001") && shown.contains("2026-03-25T14:29"), "{shown}");
    for name in ["pget.dump", "resumed.dump", "mirror/shop.dump"] {
        assert!(fs::read(served.path(name)).unwrap() == dump, "{name}");
    }
}

#[test]
fn rclone_lists_copies_and_checks() {
    if !installed("rclone") {
        return;
    }
    let served = Served::new();
    for number in 0..8 {
        served.put(&format!("/2026/{number}.dump"), 1_000_000 * number);
    }
    let big = served.put("/2026/big.dump", 20_000_000);
    let config = format!(
        "[export]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {USER}\nkey_file = {}\nknown_hosts_file = {}\n",
        served.port,
        served.text("key.pem"),
        served.text("known_hosts"),
    );
    secret(&served.path("rclone.conf"), &config);
    let rclone = |arguments: &[&str]| {
        let mut command = Command::new("rclone");
        command.args(["--config", &served.text("rclone.conf"), "--retries", "1", "--low-level-retries", "1"]);
        succeed(&run(command.args(arguments).env("TZ", "UTC")))
    };
    let listing = rclone(&["lsl", "export:2026"]);
    assert!(listing.contains("20000000 2026-03-25 14:29:00.000000000 big.dump"), "{listing}");
    let target = served.text("copied");
    rclone(&[
        "copy",
        "export:2026",
        &target,
        "--transfers",
        "4",
        "--multi-thread-streams",
        "4",
        "--multi-thread-cutoff",
        "5M",
    ]);
    assert!(fs::read(served.path("copied/big.dump")).unwrap() == big);
    assert_eq!(fs::metadata(served.path("copied/big.dump")).unwrap().mtime(), i64::from(MODIFIED));
    rclone(&["check", "export:2026", &target, "--download"]);
    rclone(&["check", "export:2026", &target]);
    let sums = rclone(&["md5sum", "export:2026"]);
    assert_eq!(sums.lines().count(), 9, "{sums}");
    rclone(&["about", "export:"]);
}

#[test]
fn psftp_and_pscp_with_their_own_key_format() {
    if !installed("psftp") || !installed("puttygen") {
        return;
    }
    let served = Served::new();
    let dump = served.put("/2026/shop.dump", 5_000_000);
    let fingerprints: Vec<_> =
        fs::read_to_string(served.path("known_hosts")).unwrap().lines().map(host_fingerprint).collect();
    let home = served.path("home");
    fs::create_dir(&home).unwrap();
    let port = served.port.to_string();
    let key = served.text("key.ppk");
    let common = |program: &str| {
        let mut command = Command::new(program);
        command.args(["-batch", "-P", &port, "-i", &key]).env("HOME", &home).env("TZ", "UTC");
        for fingerprint in &fingerprints {
            command.args(["-hostkey", fingerprint]);
        }
        command
    };
    fs::write(served.path("resumed.dump"), &dump[..2_000_000]).unwrap();
    let script = format!(
        "ls 2026\nget 2026/shop.dump {}\nreget 2026/shop.dump {}\nquit\n",
        served.text("psftp.dump"),
        served.text("resumed.dump")
    );
    fs::write(served.path("script"), script).unwrap();
    let shown = succeed(&run(common("psftp").args(["-b", &served.text("script"), &served.host()])));
    assert!(shown.contains("-r--r--r--    1 tenant   export    5000000 Mar 25 "), "{shown}");
    for mode in ["-sftp", "-scp"] {
        let from = format!("{}:/2026/shop.dump", served.host());
        succeed(&run(common("pscp").args(["-p", mode, &from, &served.text(&format!("pscp{mode}.dump"))])));
    }
    for name in ["psftp.dump", "resumed.dump", "pscp-sftp.dump", "pscp-scp.dump"] {
        assert!(fs::read(served.path(name)).unwrap() == dump, "{name}");
    }
}

/// `SHA256:...` of a line of known_hosts.
fn host_fingerprint(line: &str) -> String {
    let key = line.split_once(' ').unwrap().1;
    PublicKey::parse(key).unwrap().fingerprint()
}

#[test]
fn curl_downloads_and_resumes() {
    if !installed("curl") {
        return;
    }
    let served = Served::new();
    let dump = served.put("/2026/shop.dump", 4_000_000);
    fs::write(served.path("resumed.dump"), &dump[..1_500_000]).unwrap();
    // A key of the customer's own: libssh2 before 1.11 signs with RSA keys only by SHA-1, which nobody takes any more.
    let own = served.text("own");
    succeed(&run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "own", "-f", &own])));
    let public = PublicKey::parse(&fs::read_to_string(served.path("own.pub")).unwrap()).unwrap();
    served.accounts.set(&public, Ok(served.fs.clone()));
    let url = |path: &str| format!("sftp://{USER}@127.0.0.1:{}{path}", served.port);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--key", &own, "--insecure"]);
        succeed(&run(command.args(arguments)))
    };
    let version = succeed(&run(Command::new("curl").arg("--version")));
    if !version.contains(" sftp ") {
        println!("not tested: this curl has no SFTP");
        return;
    }
    let listing = curl(&[&url("/2026/")]);
    assert!(listing.contains(" 4000000 Mar 25 "), "{listing}");
    curl(&["-o", &served.text("got.dump"), &url("/2026/shop.dump")]);
    curl(&["-C", "-", "-o", &served.text("resumed.dump"), &url("/2026/shop.dump")]);
    curl(&["-r", "1000-1999", "-o", &served.text("range.dump"), &url("/2026/shop.dump")]);
    assert!(fs::read(served.path("got.dump")).unwrap() == dump);
    assert!(fs::read(served.path("resumed.dump")).unwrap() == dump);
    assert!(fs::read(served.path("range.dump")).unwrap() == dump[1000..2000]);
}

#[test]
fn sshfs_reads_at_random() {
    if !installed("sshfs") || !std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    let served = Served::new();
    let dump = served.put("/2026/shop.dump", 6_000_000);
    let mount = served.path("mount");
    fs::create_dir(&mount).unwrap();
    let mut command = Command::new("sshfs");
    let key = format!("IdentityFile={}", served.text("key.pem"));
    let known = format!("UserKnownHostsFile={}", served.text("known_hosts"));
    command.arg(format!("{}:/", served.host())).arg(&mount).args(["-F", "/dev/null", "-p", &served.port.to_string()]);
    for option in
        ["ro", "max_conns=2", "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", &key, &known]
    {
        command.args(["-o", option]);
    }
    let mounted = run(&mut command);
    if !mounted.status.success() && String::from_utf8_lossy(&mounted.stderr).contains("fuse: ") {
        println!("not tested: this system does not let sshfs mount");
        return;
    }
    succeed(&mounted);
    let outcome = std::panic::catch_unwind(|| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::open(mount.join("2026/shop.dump")).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.mtime()), (6_000_000, i64::from(MODIFIED)));
        let mut at = 1u64;
        for length in 1..200usize {
            at = at * 48_271 % 2_147_483_647;
            let start = (at % 5_900_000) as usize;
            let mut piece = vec![0; length * 17];
            file.read_exact_at(&mut piece, start as u64).unwrap();
            assert!(piece == dump[start..start + piece.len()], "{start}");
        }
        assert!(fs::read(mount.join("2026/shop.dump")).unwrap() == dump);
        assert!(fs::write(mount.join("new"), "x").is_err());
    });
    let unmount = if installed("fusermount3") { "fusermount3" } else { "fusermount" };
    succeed(&run(Command::new(unmount).arg("-u").arg(&mount)));
    outcome.unwrap();
}

//! A real PostgreSQL dump through `--stdin-from-command`, twice with a little change between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::harness::{Scene, summary};
use tests::process;

/// Rows of about 85 bytes in the dump.
const ROWS: u64 = 12_500_000;

/// A PostgreSQL cluster of its own, on a Unix socket in its folder.
struct Cluster {
    server: Option<Child>,
    programs: PathBuf,
    folder: PathBuf,
    account: Option<(u32, u32)>,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: scripts/prepare long");
        let programs = versions.map(|entry| entry.unwrap().path().join("bin")).max().unwrap();
        fs::create_dir_all(folder).unwrap();
        // The server refuses to run as root.
        let account = rustix::process::geteuid().is_root().then(|| (number_of("-u"), number_of("-g")));
        if let Some((uid, gid)) = account {
            chown(folder, Some(uid), Some(gid)).unwrap();
        }
        let mut cluster = Cluster { server: None, programs, folder: folder.to_path_buf(), account };
        let mut made = cluster.command("initdb");
        made.args(["--auth=trust", "--no-sync", "-U", "holdfast", "-D", "data"]).stdout(Stdio::null());
        assert!(made.status().unwrap().success());
        let mut server = cluster.command("postgres");
        server.args(["-D", "data", "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_wal_size=4GB", "-k"]);
        server.arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
        cluster.server = Some(server.spawn().unwrap());
        while !cluster.client("pg_isready").stdout(Stdio::null()).status().unwrap().success() {
            let ended = process::wait_at_most(cluster.server.as_mut().unwrap(), std::time::Duration::from_millis(50));
            assert!(ended.unwrap().is_none(), "PostgreSQL did not start");
        }
        cluster
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.folder);
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-h").arg(&self.folder).args(["-U", "holdfast", "-d", "postgres"]);
        command
    }

    /// Dumps that differ only where the data does: newer versions otherwise put a random word into each.
    fn dump(&self) -> Command {
        let mut command = self.client("pg_dump");
        let help = self.command("pg_dump").arg("--help").output().unwrap();
        if String::from_utf8_lossy(&help.stdout).contains("--restrict-key") {
            command.arg("--restrict-key=holdfast");
        }
        command
    }

    fn run(&self, sql: &str) {
        assert!(self.client("psql").args(["-qc", sql]).status().unwrap().success(), "{sql}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = process::end(self.server.take());
    }
}

fn number_of(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the account postgres exists")
}

#[test]
#[ignore = "long: ./check --long"]
fn a_dump_of_a_gigabyte_comes_back_and_the_next_one_adds_under_one_percent() {
    let scene = Scene::new().unwrap();
    // The server's account must reach its folder, which the scene's does not allow.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = Cluster::start(&folder.path().join("cluster"));
    cluster.run(&format!(
        "create table orders as select n as id, md5(n::text) as customer, md5((n * 7)::text) as note, n * 1.25 as total \
         from generate_series(1, {ROWS}) as n"
    ));
    let mut added = Vec::new();
    for round in 0..2 {
        if round == 1 {
            cluster.run("update orders set total = total + 1 where id % 250000 = 3");
            cluster.run("insert into orders select n, 'new', 'row', 1 from generate_series(1, 5000) as n");
        }
        let dump = cluster.dump();
        let mut arguments: Vec<OsString> =
            ["backup", "--json", "--stdin", "shop.sql", "--stdin-from-command", "--"].map(OsString::from).to_vec();
        arguments.push(dump.get_program().to_owned());
        arguments.extend(dump.get_args().map(ToOwned::to_owned));
        let made = summary(&scene.agent.run(arguments).unwrap(), 0).unwrap();
        eprintln!("{made}");
        let count = |name: &str| made.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap();
        assert!(count("bytes_read") > 1_000_000_000, "{made}");
        added.push(count("bytes_added"));

        let mut came_back = scene.agent.command(["cat", "latest", "/shop.sql"]);
        let mut came_back = came_back.stdout(Stdio::piped()).spawn().unwrap();
        let mut wanted = cluster.dump();
        let mut wanted = wanted.stdout(Stdio::piped()).spawn().unwrap();
        let equal = same_bytes(came_back.stdout.take().unwrap(), wanted.stdout.take().unwrap());
        assert!(came_back.wait().unwrap().success() && wanted.wait().unwrap().success());
        assert!(equal, "dump {round} came back different");
    }
    assert!(added[1] < added[0] / 100, "{added:?}");
}

fn same_bytes(mut one: impl std::io::Read, mut two: impl std::io::Read) -> bool {
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (left_len, right_len) = (fill(&mut one, &mut left), fill(&mut two, &mut right));
        if left[..left_len] != right[..right_len] {
            return false;
        }
        if left_len < left.len() {
            return true;
        }
    }
}

fn fill(source: &mut impl std::io::Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            len => filled += len,
        }
    }
    filled
}

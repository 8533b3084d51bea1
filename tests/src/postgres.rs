//! A PostgreSQL cluster of its own for a test, on a Unix socket in its folder, gone with it. Needs the Debian package
//! `postgresql` (`scripts/prepare check` installs it). Also compiled into the tests of `control`, which may not use
//! this crate: names nothing but the standard library and tempfile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The cluster's own user and its database besides `postgres`.
pub const USER: &str = "holdfast";
/// Between two looks whether the server is ready; it has no event for that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running cluster.
pub struct Cluster {
    server: Option<Child>,
    programs: PathBuf,
    account: Option<(u32, u32)>,
    // Dropped behind the server.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Makes and starts one, without syncs: it need not survive anything.
    pub fn start() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: scripts/prepare check");
        let programs = versions.map(|entry| entry.unwrap().path().join("bin")).max().unwrap();
        // The server's account must reach its folder, which a test's own folder need not allow.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // The server refuses to run as root.
        let account = (fs::metadata("/proc/self").unwrap().uid() == 0).then(|| (number_of("-u"), number_of("-g")));
        if let Some((uid, gid)) = account {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut cluster = Cluster { server: None, programs, account, folder };
        let mut made = cluster.command("initdb");
        made.args(["--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-U", USER, "-D", "data"]);
        assert!(made.stdout(Stdio::null()).status().unwrap().success(), "initdb");
        let mut server = cluster.command("postgres");
        server.args(["-D", "data", "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_wal_size=4GB", "-k"]);
        server.arg(cluster.folder()).stdout(Stdio::null()).stderr(Stdio::null());
        cluster.server = Some(server.spawn().unwrap());
        while !cluster.client("pg_isready").stdout(Stdio::null()).status().unwrap().success() {
            assert!(cluster.server.as_mut().unwrap().try_wait().unwrap().is_none(), "PostgreSQL did not start");
            std::thread::sleep(LOOK_EVERY);
        }
        cluster
    }

    /// Where it and its socket are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// For a client library.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{USER}@{socket}/{database}")
    }

    /// A new, empty database.
    pub fn create_database(&self, name: &str) {
        self.run(&format!("create database \"{name}\""));
    }

    /// One of PostgreSQL's programs, under the server's account.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder());
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A client program that knows the way to the server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-h").arg(self.folder()).args(["-U", USER, "-d", "postgres"]);
        command
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Statements that must succeed.
    pub fn run(&self, sql: &str) {
        assert!(self.client("psql").args(["-qc", sql]).status().unwrap().success(), "{sql}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

fn number_of(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the account postgres exists")
}

//! A MariaDB server of its own for a test, on a Unix socket in its folder, gone with it. Needs the Debian packages
//! `mariadb-server-core` and `mariadb-client` (`scripts/prepare check` installs them).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The server's administrator, who needs no password.
pub const USER: &str = "root";
/// Between two looks whether the server is ready; it has no event for that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running server.
pub struct Mariadb {
    server: Option<Child>,
    // Dropped behind the server.
    folder: tempfile::TempDir,
}

impl Mariadb {
    /// Makes and starts one that need not survive anything.
    pub fn start() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let data = folder.path().join("data");
        // A server that starts removes what others have left in this folder, and what they still use.
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let temporary = format!("--tmpdir={}", temporary.display());
        let account = Command::new("id").arg("-un").output().unwrap();
        let account = format!("--user={}", String::from_utf8_lossy(&account.stdout).trim());
        let mut make = Command::new("mariadb-install-db");
        make.arg("--no-defaults").arg(format!("--datadir={}", data.display())).arg(&account).arg(&temporary);
        make.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        let made = make.output().expect("MariaDB is installed: scripts/prepare check");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = File::create(folder.path().join("log")).unwrap();
        // Where Debian keeps it, which is not everybody's path.
        let installed = Path::new("/usr/sbin/mariadbd");
        let program = if installed.exists() { installed } else { Path::new("mariadbd") };
        let mut command = Command::new(program);
        command.arg("--no-defaults").arg(format!("--datadir={}", data.display())).arg(account).arg(temporary);
        command.arg(format!("--socket={}", folder.path().join("socket").display()));
        command.args(["--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--event-scheduler=OFF"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut made = Mariadb { server: Some(command.spawn().unwrap()), folder };
        while !made.client("mariadb-admin").arg("ping").output().unwrap().status.success() {
            assert!(made.server.as_mut().unwrap().try_wait().unwrap().is_none(), "MariaDB did not start");
            std::thread::sleep(LOOK_EVERY);
        }
        made
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A client program that knows the way to the server, as its administrator.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--no-defaults").arg(format!("--socket={}", self.socket().display())).arg(format!("--user={USER}"));
        command
    }

    /// Statements that must succeed; what they give, tab separated.
    pub fn run(&self, sql: &str) -> String {
        let done = self.client("mariadb").args(["--batch", "--skip-column-names", "-e", sql]).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.kill();
    }
}

//! A gateway for one test: files in memory, one account, keys in files, and everything that is observed.

use parking_lot::{Condvar, Mutex};
use sftp_gateway::keys::{CustomerKey, HostKeys, PublicKey, known_hosts_line};
use sftp_gateway::testing::{MemoryFile, MemoryFs};
use sftp_gateway::{Account, Accounts, Event, ExportFs, Gateway, GatewayConfig, LogIn, LookUp, Observer, Refusal};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longer than any stall of a machine that is in use for other things.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// 2026-03-25 14:29:00 UTC.
pub const MODIFIED: u32 = 1_774_448_940;
pub const USER: &str = "export-7";

static KEY: LazyLock<CustomerKey> = LazyLock::new(|| CustomerKey::generate("export-7 of a test").unwrap());
static HOST_KEYS: LazyLock<String> = LazyLock::new(|| HostKeys::generate().unwrap().text().to_owned());

pub fn key() -> &'static CustomerKey {
    &KEY
}

/// Bytes that compress badly and differ everywhere.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

type Granted = Result<Arc<dyn ExportFs>, Refusal>;

/// Keys that may log in as `USER`, and why others may not.
#[derive(Default)]
pub struct TestAccounts {
    keys: Mutex<HashMap<PublicKey, Granted>>,
}

impl TestAccounts {
    pub fn set(&self, key: &PublicKey, fs: Granted) {
        self.keys.lock().insert(key.clone(), fs);
    }
}

impl Accounts for TestAccounts {
    fn look_up(&self, log_in: LogIn) -> LookUp {
        let found = self.keys.lock().get(&log_in.key).cloned().filter(|_| log_in.user == USER);
        Box::pin(async move {
            let fs = found.unwrap_or(Err(Refusal::Unknown))?;
            Ok(Account { name: "customer-1".into(), key: "key-1".into(), fs })
        })
    }
}

#[derive(Default)]
pub struct Events {
    seen: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Observer for Events {
    fn event(&self, event: &Event) {
        self.seen.lock().push(event.clone());
        self.changed.notify_all();
    }
}

impl Events {
    /// Whether such a thing has happened.
    pub fn any(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.seen.lock().iter().any(wanted)
    }

    /// The first event that `wanted` gives something for, waited for.
    pub fn wait<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock();
        loop {
            if let Some(found) = seen.iter().find_map(&wanted) {
                return found;
            }
            assert!(!self.changed.wait_until(&mut seen, deadline).timed_out(), "no event: {what}; seen: {:?}", *seen);
        }
    }
}

pub struct Served {
    pub port: u16,
    pub gateway: Arc<Gateway>,
    pub folder: tempfile::TempDir,
    pub fs: Arc<MemoryFs>,
    pub accounts: Arc<TestAccounts>,
    pub events: Arc<Events>,
    pub runtime: Option<Runtime>,
}

impl Served {
    pub fn new() -> Served {
        Served::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut GatewayConfig)) -> Served {
        let fs = Arc::new(MemoryFs::new());
        let accounts = Arc::new(TestAccounts::default());
        accounts.set(&key().public, Ok(fs.clone()));
        let events = Arc::new(Events::default());
        let mut config = GatewayConfig::new(HostKeys::from_text(&HOST_KEYS).unwrap());
        config.penalties_exempt = vec!["127.0.0.0/8".parse().unwrap()];
        change(&mut config);
        let host_keys = config.host_keys.public().to_vec();
        let gateway = Arc::new(Gateway::new(config, accounts.clone(), events.clone()).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = gateway.clone();
        runtime.spawn(async move { serving.serve(listener).await });

        let folder = tempfile::tempdir().unwrap();
        let known: Vec<String> = host_keys.iter().map(|key| known_hosts_line("127.0.0.1", port, key) + "\n").collect();
        fs::write(folder.path().join("known_hosts"), known.concat()).unwrap();
        for (name, text) in [("key.pem", &key().pem), ("key", &key().openssh), ("key.ppk", &key().ppk)] {
            secret(&folder.path().join(name), text);
        }
        Served { port, gateway, folder, fs, accounts, events, runtime: Some(runtime) }
    }

    /// Serves noise at `path`; gives it.
    pub fn put(&self, path: &str, length: usize) -> Vec<u8> {
        let content = noise(length as u64 + path.len() as u64, length);
        // Pieces of an odd size: whoever answers short reads is found out.
        self.fs.put(path, MemoryFile { piece_bytes: 100_003, ..MemoryFile::new(content.clone(), MODIFIED) });
        content
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Options of OpenSSH's clients, without the port.
    pub fn ssh_options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.text("known_hosts"));
        let key = self.text("key.pem");
        [
            "-F",
            "/dev/null",
            "-i",
            &key,
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            &known,
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// `user@127.0.0.1`
    pub fn host(&self) -> String {
        format!("{USER}@127.0.0.1")
    }

    /// OpenSSH's ssh with these options and this command.
    pub fn ssh(&self, options: &[&str], command: &str) -> Output {
        let mut ssh = Command::new("ssh");
        ssh.args(self.ssh_options()).args(["-p", &self.port.to_string()]).args(options).args([&self.host(), command]);
        run(&mut ssh)
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
    }

    /// OpenSSH's sftp with these options and this batch.
    pub fn sftp(&self, options: &[&str], batch: &str) -> Output {
        fs::write(self.path("batch"), batch).unwrap();
        let port = format!("Port={}", self.port);
        let mut command = Command::new("sftp");
        command.args(self.ssh_options()).args(["-o", &port]).args(options);
        command.args(["-b", &self.text("batch"), &self.host()]).current_dir(self.folder.path());
        run(&mut command)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Whether a program is there. `./check` installs all that tests ask for.
pub fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        println!("not tested: {program} is not installed");
    }
    found
}

/// Runs a command with nothing to read, and ends it when it takes longer than anybody's patience.
pub fn run(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (reader(child.stdout.take().unwrap()), reader(child.stderr.take().unwrap()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} hangs: {}", String::from_utf8_lossy(&stderr.join().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// The standard output of a command that must succeed.
pub fn succeed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

fn reader(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

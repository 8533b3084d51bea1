//! Databases of real servers: backed up, brought back by the very commands that stand in the snapshot, compared; dumps
//! that are cut short; passwords that nobody sees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::harness::{Scene, summary};
use tests::mariadb::Mariadb;
use tests::postgres::{Cluster, USER};
use tests::shop::{PASSWORD, ask_sqlite, fill_mariadb, fill_postgresql, run_in_shop, state_of_mariadb, state_of_shop};

/// Rows of a table whose changes are to be small beside it.
const ROWS: u64 = 200_000;
/// Rows of a table whose dump is larger than what the agent holds in memory, so that the dump waits for the server.
const ROWS_OF_LONG_DUMP: u64 = 1_000_000;
/// The same for PostgreSQL, whose dumps are shorter and read faster.
const ROWS_OF_LONG_POSTGRESQL_DUMP: u64 = 4_000_000;
/// Slow enough to look at a dump while it runs.
const SLOW: &str = "--limit-upload=1M";
fn backup(scene: &Scene, arguments: &[&str], code: i32) -> Value {
    let all: Vec<&str> = ["backup", "--json"].iter().chain(arguments).copied().collect();
    summary(&scene.agent.run(all).unwrap(), code).unwrap()
}

fn count(made: &Value, name: &str) -> u64 {
    made.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap()
}

fn cat(scene: &Scene, series: &str, path: &str) -> Vec<u8> {
    let outcome = scene.agent.run(["cat", "latest", "--series", series, path]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout
}

/// Ids of the programs that a process started.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let behind_name = stat.rsplit(')').next().unwrap_or_default();
            behind_name.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

/// A backup that runs, after it has read some of the dump.
struct Running {
    agent: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let all: Vec<&str> = ["backup", "--json", SLOW].iter().chain(arguments).copied().collect();
        let mut agent = scene.agent.command(all);
        let mut agent = agent.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(agent.stdout.take().unwrap());
        let mut running = Running { agent, said };
        let mut line = String::new();
        while running.said.read_line(&mut line).unwrap() > 0 {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_ne!(event["event"], "summary", "the dump was over before it could be looked at");
            if event["event"] == "progress" && count(&event, "bytes_read") > 1_000_000 {
                return running;
            }
            line.clear();
        }
        panic!("the backup ended at once: {}", running.end().1);
    }

    /// Its end: exit code, and everything it said.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        self.agent.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.agent.wait().unwrap().code(), said)
    }

    /// It must fail, say `why`, and leave nothing that looks like a backup.
    fn must_fail(self, scene: &Scene, why: &str) {
        let (code, said) = self.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why) && said.contains("nothing was committed"), "{said}");
        assert!(scene.snapshots().unwrap().is_empty());
    }
}

/// Runs a backup to its end, and looks all the time at what the list of processes and their environments give away of
/// it and of what it starts. Exit code, what it said, and that.
fn watched(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String, Vec<u8>) {
    let all: Vec<&str> = ["backup"].iter().chain(arguments).copied().collect();
    let (said, errors) = (scene.path("said"), scene.path("errors"));
    let mut agent = scene.agent.command(all);
    agent.stdin(Stdio::null()).stdout(fs::File::create(&said).unwrap()).stderr(fs::File::create(&errors).unwrap());
    let mut agent = agent.spawn().unwrap();
    let mut shown = Vec::new();
    let code = loop {
        for id in children_of(agent.id()).into_iter().chain([agent.id()]) {
            for file in ["cmdline", "environ"] {
                shown.extend(fs::read(format!("/proc/{id}/{file}")).unwrap_or_default());
            }
        }
        if let Some(status) = agent.try_wait().unwrap() {
            break status.code();
        }
    };
    (code, fs::read_to_string(said).unwrap() + &fs::read_to_string(errors).unwrap(), shown)
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn private_file(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn place(cluster: &Cluster) -> Vec<String> {
    vec![format!("--database-host={}", cluster.folder().display()), format!("--database-user={USER}")]
}

#[test]
fn a_postgresql_database_comes_back_in_an_empty_cluster_by_its_own_instructions() {
    let scene = Scene::new().unwrap();
    let cluster = Cluster::start();
    fill_postgresql(&cluster, 20_000);
    let place = place(&cluster);
    let arguments = ["--postgresql", "it's shop", &place[0], &place[1], "--name", "it's shop"];
    backup(&scene, &arguments, 0);

    let instructions = String::from_utf8(cat(&scene, "it's shop", "/it's shop.restore.txt")).unwrap();
    let other = Cluster::start();
    let environment = [("PGHOST", other.folder()), ("PGUSER", Path::new(USER))];
    scene.agent.follow(&instructions, &[".globals.sql", ".create.sql", "-d 'dbname="], &environment).unwrap();
    assert_eq!(state_of_shop(&other), state_of_shop(&cluster));
    scene.agent.follow(&instructions, &["createdb ", "-d restored"], &environment).unwrap();
}

#[test]
fn an_unchanged_postgresql_database_adds_nothing_and_a_little_change_adds_little() {
    let scene = Scene::new().unwrap();
    let cluster = Cluster::start();
    fill_postgresql(&cluster, ROWS);
    let place = place(&cluster);
    let arguments = ["--postgresql", "it's shop", &place[0], &place[1]];
    let first = count(&backup(&scene, &arguments, 0), "bytes_added");
    let same = count(&backup(&scene, &arguments, 0), "chunks_sent");
    run_in_shop(&cluster, "insert into orders (id, customer) select -n, 'new' from generate_series(1, 20) as n");
    let changed = count(&backup(&scene, &arguments, 0), "bytes_added");
    eprintln!("postgresql: first {first}, after a change {changed}");
    assert_eq!(same, 0);
    assert!(changed < first / 20, "{first} {changed}");
}

#[test]
fn a_postgresql_server_that_dies_in_mid_dump_leaves_no_snapshot() {
    let scene = Scene::new().unwrap();
    let mut cluster = Cluster::start();
    fill_postgresql(&cluster, ROWS_OF_LONG_POSTGRESQL_DUMP);
    let place = place(&cluster);
    let running = Running::start(&scene, &["--postgresql", "it's shop", &place[0], &place[1]]);
    cluster.kill();
    running.must_fail(&scene, "pg_dump: error");
}

#[test]
fn a_killed_dump_leaves_no_snapshot() {
    let scene = Scene::new().unwrap();
    let cluster = Cluster::start();
    fill_postgresql(&cluster, ROWS_OF_LONG_POSTGRESQL_DUMP);
    let place = place(&cluster);
    let running = Running::start(&scene, &["--postgresql", "it's shop", &place[0], &place[1]]);
    let children = children_of(running.agent.id());
    assert_eq!(children.len(), 1);
    let id = rustix::process::Pid::from_raw(i32::try_from(children[0]).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    running.must_fail(&scene, "signal: 9");
}

#[test]
fn a_postgresql_password_is_nowhere_to_be_seen_and_missing_rights_are_a_warning() {
    let scene = Scene::new().unwrap();
    let cluster = Cluster::start();
    fill_postgresql(&cluster, ROWS);
    cluster.run(&format!("alter role clerk password $p${PASSWORD}$p$"));
    run_in_shop(
        &cluster,
        "grant select on all tables in schema public to clerk; \
         grant select on all sequences in schema public to clerk; select lo_unlink(4242)",
    );
    let rules = cluster.folder().join("data/pg_hba.conf");
    let trusting = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all clerk scram-sha-256\n{trusting}")).unwrap();
    cluster.run("select pg_reload_conf()");

    let (password, wrong) = (scene.path("password"), scene.path("wrong"));
    private_file(&password, &format!("{PASSWORD}\n"));
    private_file(&wrong, "guessed\n");
    let host = format!("--database-host={}", cluster.folder().display());
    let arguments = |file: &Path| {
        let file = format!("--database-password-file={}", file.display());
        ["--postgresql", "it's shop", &host, "--database-user=clerk", &file].map(str::to_owned)
    };
    let refused = arguments(&wrong);
    let outcome = scene.agent.run(["backup"].into_iter().chain(refused.iter().map(String::as_str))).unwrap();
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("password authentication failed"), "{}", outcome.stderr);

    let arguments = arguments(&password);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, said, shown) = watched(&scene, &arguments);
    assert!(holds(&shown, "pg_dump") && holds(&shown, "PGPASSFILE=/proc/") && !holds(&shown, PASSWORD));
    // Only a superuser may read the other roles' passwords.
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the roles in this backup have no passwords") && !said.contains(PASSWORD), "{said}");
}

fn socket(server: &Mariadb) -> [String; 2] {
    [format!("--database-host={}", server.socket().display()), "--database-user=root".to_owned()]
}

#[test]
fn a_mariadb_database_comes_back_in_an_empty_server_by_its_own_instructions() {
    let scene = Scene::new().unwrap();
    let server = Mariadb::start();
    fill_mariadb(&server, 20_000);
    let place = socket(&server);
    backup(&scene, &["--mariadb", "shop", &place[0], &place[1]], 0);

    let series = format!("mariadb:shop@{}", server.socket().display());
    let instructions = String::from_utf8(cat(&scene, &series, "/shop.restore.txt")).unwrap();
    let other = Mariadb::start();
    let home = scene.path("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join(".my.cnf"), format!("[client]\nsocket={}\nuser=root\n", other.socket().display())).unwrap();
    let environment = [("HOME", home.as_path())];
    scene.agent.follow(&instructions, &["/shop.create.sql", "utf8mb4 shop", "/shop.users.sql"], &environment).unwrap();
    assert_eq!(state_of_mariadb(&other, "shop"), state_of_mariadb(&server, "shop"));
    let of_database = "select default_collation_name from information_schema.schemata where schema_name = 'shop'; \
                       show grants for clerk@localhost";
    assert_eq!(other.run(of_database), server.run(of_database));
    scene.agent.follow(&instructions, &["create database restored", "utf8mb4 restored"], &environment).unwrap();
    assert_eq!(state_of_mariadb(&other, "restored")[..3], state_of_mariadb(&server, "shop")[..3]);
}

#[test]
fn an_unchanged_mariadb_database_adds_nothing_and_a_little_change_adds_little() {
    let scene = Scene::new().unwrap();
    let server = Mariadb::start();
    fill_mariadb(&server, ROWS);
    let place = socket(&server);
    let arguments = ["--mariadb", "shop", &place[0], &place[1]];
    let first = count(&backup(&scene, &arguments, 0), "bytes_added");
    let same = count(&backup(&scene, &arguments, 0), "chunks_sent");
    server.run("use shop; insert into orders (id, customer) select cast(seq as signed) * -1, 'new' from seq_1_to_20");
    let changed = count(&backup(&scene, &arguments, 0), "bytes_added");
    eprintln!("mariadb: first {first}, after a change {changed}");
    assert_eq!(same, 0);
    assert!(changed < first / 20, "{first} {changed}");
}

#[test]
fn a_mariadb_server_that_dies_in_mid_dump_leaves_no_snapshot() {
    let scene = Scene::new().unwrap();
    let mut server = Mariadb::start();
    fill_mariadb(&server, ROWS_OF_LONG_DUMP);
    let place = socket(&server);
    let running = Running::start(&scene, &["--mariadb", "shop", &place[0], &place[1]]);
    server.kill();
    running.must_fail(&scene, "Lost connection");
}

#[test]
fn a_mariadb_password_is_nowhere_to_be_seen_and_missing_rights_are_a_warning() {
    let scene = Scene::new().unwrap();
    let server = Mariadb::start();
    fill_mariadb(&server, ROWS);
    let password = scene.path("password");
    private_file(&password, PASSWORD);
    let host = format!("--database-host={}", server.socket().display());
    let file = format!("--database-password-file={}", password.display());
    let (code, said, shown) = watched(&scene, &["--mariadb", "shop", &host, "--database-user=clerk", &file]);
    assert!(holds(&shown, "--defaults-extra-file=/proc/") && !holds(&shown, PASSWORD));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the accounts of the server are not in this backup") && !said.contains(PASSWORD), "{said}");

    fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).unwrap();
    let outcome = scene.agent.run(["backup", "--mariadb", "shop", &host, "--database-user=clerk", &file]).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("chmod 600"), "{}", outcome.stderr);
}

/// `sqlite3` that stays, for as long as its standard input does.
fn sqlite(path: &Path) -> Child {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail"]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn an_sqlite_database_comes_back_as_it_was_between_two_transactions() {
    let scene = Scene::new().unwrap();
    let path = scene.path("my app.db");
    ask_sqlite(
        &path,
        "pragma journal_mode = wal; create table notes (id integer primary key, text, bytes blob);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)
         insert into notes select i, 'note ' || i || char(10), randomblob(100) from n",
    );
    let wanted = ask_sqlite(&path, ".dump");
    // Somebody else is in the middle of a transaction.
    let mut writer = sqlite(&path);
    let mut into_writer = writer.stdin.take().unwrap();
    into_writer.write_all(b"begin; update notes set text = 'half'; select 'begun';\n").unwrap();
    into_writer.flush().unwrap();
    let mut begun = String::new();
    BufReader::new(writer.stdout.as_mut().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(begun, "begun\n");

    let arguments = ["--sqlite", path.to_str().unwrap()];
    let first = backup(&scene, &arguments, 0);
    let series = format!("sqlite:{}", path.display());
    let restored = scene.path("restored.db");
    fs::write(&restored, cat(&scene, &series, "/my app.db")).unwrap();
    assert_eq!(ask_sqlite(&restored, "pragma integrity_check"), "ok\n");
    assert!(ask_sqlite(&restored, ".dump") == wanted, "what came back differs");
    let same = backup(&scene, &arguments, 0);
    assert_eq!(count(&same, "chunks_sent"), 0);

    into_writer.write_all(b"rollback; update notes set text = 'new' where id = 77;\n.quit\n").unwrap();
    assert!(writer.wait().unwrap().success());
    let changed = backup(&scene, &arguments, 0);
    let (first, changed) = (count(&first, "bytes_added"), count(&changed, "bytes_added"));
    eprintln!("sqlite: first {first}, after a change {changed}");
    assert!(changed < first / 20, "{first} {changed}");

    // In the place of one that was lost with all that belongs to it.
    let wanted = ask_sqlite(&path, ".dump");
    let instructions = String::from_utf8(cat(&scene, &series, "/my app.db.restore.txt")).unwrap();
    fs::write(&path, b"rubbish").unwrap();
    scene.agent.follow(&instructions, &["holdfast cat", "integrity_check", "rm -f", "mv "], &[]).unwrap();
    assert!(ask_sqlite(&path, ".dump") == wanted, "what came back differs");
    let left = fs::read_dir(scene.agent.cache().join("copies")).unwrap().count();
    assert_eq!(left, 0, "copies are left in the cache");
}

#[test]
fn an_sqlite_database_that_is_none_leaves_no_snapshot() {
    let scene = Scene::new().unwrap();
    let path = scene.path("app.db");
    fs::write(&path, "this is not a database, but long enough to look like the header of one".repeat(100)).unwrap();
    let outcome = scene.agent.run(["backup", "--sqlite", path.to_str().unwrap()]).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("not a database"), "{}", outcome.stderr);
    let outcome = scene.agent.run(["backup", "--sqlite", "/no/such/file"]).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("/no/such/file"), "{}", outcome.stderr);
    assert!(scene.snapshots().unwrap().is_empty());
}

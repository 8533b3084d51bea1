//! Plans of databases, carried out by the agent as a service against real servers: they run by themselves and come back in
//! empty servers by the instructions that are in their snapshots; a database that dies while it is dumped is told by the
//! job, its log, a mail and a webhook, and leaves nothing that looks like a backup; a dump that waits can be cancelled.
//!
//! Needs programs whose clock can be moved:
//! `cargo build -p server -p agent --bins --features server/testing,agent/testing`, then this with `--features testing`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::transport::Method;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::harness::{Day, Login, Person, text};
use tests::mariadb::Mariadb;
use tests::postgres::{Cluster, USER};
use tests::receivers::{ReceivedRequest, WebReceiver};
use tests::shop::{ask_sqlite, fill_mariadb, fill_postgresql, run_in_shop, state_of_mariadb, state_of_shop};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
/// 2027-01-15 01:00 UTC.
const NIGHT: i64 = 1_799_974_800 * SECOND;
/// Longest wait for anything that is to happen by itself.
const SOON: Duration = Duration::from_secs(120);
/// Between two looks at what has no event.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PLATFORM: &str = "00000000000000000000000000000000";

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < SOON, "{what}: not in time");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The owner of a new customer, with space of her own.
fn owner(day: &Day, email: &str) -> Person {
    let product = day.operator(&["product", "add", "Backup"]);
    let local = fs::read_to_string(day.server.data().join("run/local-token")).unwrap();
    let invite = json!({
        "kind": "customer", "email": email, "title": "Acme Ltd",
        "service": { "product": text(&product, "id"), "licence": "trial", "quantity": 1 },
    });
    let path = format!("/tenants/{PLATFORM}/invitations");
    let (status, answer) = day.ask(Some(local.trim()), Method::Post, &path, &invite);
    assert!((200..300).contains(&status), "{status} {answer}");
    let owner = day.come_in(email);
    let services = day.done(&owner, Method::Get, "/services", &Value::Null);
    let service = text(&services["items"][0], "id");
    let path = format!("/services/{service}/allocations/{}", owner.user);
    day.done(&owner, Method::Put, &path, &json!({ "bytes": 1 << 29 }));
    owner
}

/// A plan that runs at this minute of every hour; its id.
fn plan(day: &Day, owner: &Person, computer: &str, name: &str, minute: u32, source: Value) -> String {
    let schedule = json!({ "rule": { "every": "hour", "minute": minute } });
    let body = json!({ "name": name, "source": source, "schedule": schedule });
    text(&day.done(owner, Method::Post, &format!("/computers/{computer}/plans"), &body), "id")
}

fn in_postgresql(cluster: &Cluster) -> Value {
    json!({ "kind": "postgresql", "database": "it's shop", "host": cluster.folder(), "user": USER })
}

fn in_mariadb(server: &Mariadb) -> Value {
    json!({ "kind": "mariadb", "database": "shop", "host": server.socket(), "user": tests::mariadb::USER })
}

fn fill_sqlite(path: &Path) {
    ask_sqlite(
        path,
        "pragma journal_mode = wal; create table notes (id integer primary key, text, bytes blob);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
         insert into notes select i, 'note ' || i || char(10), randomblob(100) from n",
    );
}

/// The one job of a plan, once it has ended.
fn only_job(day: &Day, owner: &Person, plan: &str) -> Value {
    let mut jobs = Value::Null;
    until("the job of a plan", || {
        jobs = day.done(owner, Method::Get, &format!("/jobs?plan={plan}"), &Value::Null);
        jobs["items"].as_array().is_some_and(|jobs| !jobs.is_empty())
    });
    assert_eq!(jobs["items"].as_array().map(Vec::len), Some(1), "{jobs}");
    day.ended(owner, &text(&jobs["items"][0], "id"))
}

/// The instructions in the newest snapshot of a series.
fn instructions(agent: &Login, series: &str, path: &str) -> String {
    let outcome = agent.run(["cat", "latest", "--series", series, path]).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.text()
}

#[test]
fn plans_of_three_databases_run_by_themselves_and_come_back_in_empty_servers() {
    let day = Day::begin(NIGHT, &[]);
    let anna = owner(&day, "anna@acme.example");
    let (one, computer) = day.enrol(&anna, "one");
    let (cluster, server, file) = (Cluster::start(), Mariadb::start(), day.path("my app.db"));
    fill_postgresql(&cluster, 20_000);
    fill_mariadb(&server, 20_000);
    fill_sqlite(&file);
    let names = ["the shop's books", "stock", "notes"];
    let sources = [in_postgresql(&cluster), in_mariadb(&server), json!({ "kind": "sqlite", "path": file })];
    let plans: Vec<String> =
        names.iter().zip(sources).map(|(name, source)| plan(&day, &anna, &computer, name, 1, source)).collect();
    let running = day.run(&one);
    day.move_clock(NIGHT + MINUTE + 2 * SECOND);
    for (name, plan) in names.iter().zip(&plans) {
        let job = only_job(&day, &anna, plan);
        let log = day.done(&anna, Method::Get, &format!("/jobs/{}/log", text(&job, "id")), &Value::Null);
        assert_eq!((job["state"].as_str(), job["cause"].as_str()), (Some("succeeded"), Some("schedule")), "{log}");
        assert_eq!(day.snapshots(&one, name, 1)[0].1, text(&job, "snapshot"));
    }
    running.stop();
    let said = names.iter().zip(["/it's shop", "/shop", "/my app.db"]);
    let said: Vec<String> = said.map(|(name, path)| instructions(&one, name, &format!("{path}.restore.txt"))).collect();
    // Another computer has newer snapshots of series of the same names.
    let (two, _) = day.enrol(&anna, "two");
    let other = day.path("other");
    fs::write(&other, "something else").unwrap();
    for name in names {
        let outcome = two.run(["backup", other.to_str().unwrap(), "--name", name]).unwrap();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }

    let other = Cluster::start();
    let environment = [("PGHOST", other.folder()), ("PGUSER", Path::new(USER))];
    one.follow(&said[0], &[".globals.sql", ".create.sql", "-d 'dbname="], &environment).unwrap();
    assert_eq!(state_of_shop(&other), state_of_shop(&cluster));

    let other = Mariadb::start();
    let home = day.path("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join(".my.cnf"), format!("[client]\nsocket={}\nuser=root\n", other.socket().display())).unwrap();
    let environment = [("HOME", home.as_path())];
    one.follow(&said[1], &["/shop.create.sql", "utf8mb4 shop", "/shop.users.sql"], &environment).unwrap();
    assert_eq!(state_of_mariadb(&other, "shop"), state_of_mariadb(&server, "shop"));
    assert_eq!(other.run("show grants for clerk@localhost"), server.run("show grants for clerk@localhost"));

    let wanted = ask_sqlite(&file, ".dump");
    fs::remove_file(&file).unwrap();
    one.follow(&said[2], &["holdfast cat", "integrity_check", "rm -f", "mv "], &[]).unwrap();
    assert!(ask_sqlite(&file, ".dump") == wanted, "what came back differs");
    day.server.stop().unwrap();
}

/// A session with a database that holds a lock; gone with it.
struct Holder(Child);

impl Holder {
    /// The last of the statements says `held`.
    fn start(mut session: Command, statements: &str) -> Holder {
        let mut session = session.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = session.stdin.as_mut().unwrap();
        input.write_all(statements.as_bytes()).unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        BufReader::new(session.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Holder(session)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Dumps of the shop stop behind all rows, where the large objects begin.
fn hold_large_objects(cluster: &Cluster) -> Holder {
    let mut psql = cluster.command("psql");
    psql.arg("-h").arg(cluster.folder()).args(["-U", USER, "-qAt", "-d", "dbname='it\\'s shop'"]);
    Holder::start(psql, "begin; lock table pg_largeobject in access exclusive mode; select 'held';\n")
}

/// Those dumps that wait for a lock.
const WAITING: &str = "and wait_event_type = 'Lock'";

fn dumps_of_postgresql(cluster: &Cluster, which: &str) -> usize {
    let question = format!("select count(*) from pg_stat_activity where application_name = 'pg_dump' {which}");
    run_in_shop(cluster, &question).trim().parse().unwrap()
}

/// Dumps stop where the last table begins.
fn hold_last_table(server: &Mariadb) -> Holder {
    let mut mariadb = server.client("mariadb");
    mariadb.args(["--batch", "--skip-column-names", "--unbuffered"]);
    Holder::start(mariadb, "lock tables shop.zebras write; select 'held';\n")
}

fn dump_of_mariadb_waits(server: &Mariadb) -> bool {
    let question = "select count(*) from information_schema.processlist where state like 'Waiting for table%' \
                    and info like 'SELECT%zebras%'";
    server.run(question).trim() == "1"
}

/// Whether this was signed with a secret, as any receiver finds out.
fn is_signed(request: &ReceivedRequest, secret: &str) -> bool {
    let (seconds, signature) = request.headers["holdfast-signature"].split_once(",v1=").unwrap();
    let seconds = seconds.strip_prefix("t=").unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let signed = [seconds.as_bytes(), b".", &request.body].concat();
    let signature = data_encoding::HEXLOWER.decode(signature.as_bytes()).unwrap();
    aws_lc_rs::hmac::verify(&key, &signed, &signature).is_ok()
}

/// Everybody who is to hear of failed jobs.
struct Night {
    day: Day,
    anna: Person,
    agent: Login,
    hooks: WebReceiver,
    hook_secret: String,
}

impl Night {
    fn start(&self, plan: &str) -> String {
        text(&self.day.done(&self.anna, Method::Post, &format!("/plans/{plan}/start"), &Value::Null), "id")
    }

    /// Backs up well; the snapshot.
    fn back_up(&self, plan: &str) -> String {
        let job = self.day.ended(&self.anna, &self.start(plan));
        assert_eq!(job["state"], "succeeded", "{job}");
        text(&job, "snapshot")
    }

    /// A job has failed: it says `why`, as its log does, which is found by these words; mail and webhook say it too; and
    /// the series has the snapshot that it had before.
    fn is_told(&self, job: &str, name: &str, why: &str, snapshot: &str) {
        let failed = self.day.ended(&self.anna, job);
        let log = self.day.done(&self.anna, Method::Get, &format!("/jobs/{job}/log"), &Value::Null);
        assert_eq!((failed["state"].as_str(), failed["error_code"].as_str()), (Some("failed"), Some("command_failed")));
        let message = text(&failed, "message");
        assert!(message.contains(why) && message.contains("nothing was committed"), "{message}");
        assert!(failed["snapshot"].is_null(), "{failed}");
        if name != "notes" {
            assert!(failed["counts"]["bytes_done"].as_u64() > Some(100_000), "not in the middle of a dump: {failed}");
        }
        let lines = log["items"].as_array().unwrap();
        assert!(lines.iter().any(|line| line["level"] == "error" && text(line, "text").contains(why)), "{log}");

        let search = format!("/job-logs?state=failed&words={}", why.replace(' ', "%20"));
        let mut found = Value::Null;
        until("the search in logs", || {
            found = self.day.done(&self.anna, Method::Get, &search, &Value::Null);
            found["items"].as_array().is_some_and(|found| !found.is_empty())
        });
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(
            (found["items"][0]["job"]["id"].as_str(), &found["items"][0]["job"]["plan_name"]),
            (Some(job), &json!(name))
        );

        let subject = format!("Backup failed: one, {name}");
        let mail = self.day.mails.mails.wait_for(SOON, |mail| mail.header("subject") == Some(subject.clone()));
        assert_eq!(mail.to, [self.anna.email.as_str()]);
        assert!(mail.body().contains(why), "{}", mail.body());
        let request = self.hooks.requests.wait_for(SOON, |request| {
            let told: Value = serde_json::from_slice(&request.body).unwrap();
            told["facts"]["job_id"] == job
        });
        assert_eq!(request.headers["holdfast-event"], "backup_failed");
        assert!(is_signed(&request, &self.hook_secret) && !is_signed(&request, "hfw_other"));
        let told: Value = serde_json::from_slice(&request.body).unwrap();
        assert!(told["facts"]["reason"].as_str().unwrap().contains(why) && told["facts"]["plan"] == name, "{told}");

        assert_eq!(self.day.snapshots(&self.agent, name, 1)[0].1, snapshot);
    }
}

#[test]
fn a_database_that_dies_in_mid_dump_is_told_and_leaves_nothing_that_looks_like_a_backup() {
    let hooks = WebReceiver::start();
    let day = Day::begin(NIGHT, &["--webhook-networks", "127.0.0.0/8", "--notice-seconds", "1"]);
    let anna = owner(&day, "anna@acme.example");
    let body = json!({ "user": anna.user, "url": hooks.url("/hook"), "events": ["backup_failed", "healed"] });
    let hook_secret = text(&day.done(&anna, Method::Post, "/webhooks", &body), "secret");
    let (agent, computer) = day.enrol(&anna, "one");
    let (mut cluster, mut server, file) = (Cluster::start(), Mariadb::start(), day.path("app.db"));
    fill_postgresql(&cluster, 20_000);
    fill_mariadb(&server, 20_000);
    server.run("create table shop.zebras (stripes int); insert into shop.zebras values (7)");
    fill_sqlite(&file);
    let books = plan(&day, &anna, &computer, "books", 50, in_postgresql(&cluster));
    let stock = plan(&day, &anna, &computer, "stock", 50, in_mariadb(&server));
    let notes = plan(&day, &anna, &computer, "notes", 50, json!({ "kind": "sqlite", "path": file }));
    let running = day.run(&agent);
    let night = Night { day, anna, agent, hooks, hook_secret };
    let before = [&books, &stock, &notes].map(|plan| night.back_up(plan));

    // Cancelled while its dump waits for a lock, it ends with its dump, and does not wait for the lock.
    let holder = hold_large_objects(&cluster);
    let job = night.start(&books);
    until("a dump that waits", || dumps_of_postgresql(&cluster, WAITING) == 1);
    night.day.done(&night.anna, Method::Post, &format!("/jobs/{job}/cancel"), &Value::Null);
    assert_eq!(night.day.ended(&night.anna, &job)["state"], "cancelled");
    // PostgreSQL looks whether anybody is there when the wait is over.
    drop(holder);
    until("the end of a dump", || dumps_of_postgresql(&cluster, "") == 0);

    let holder = hold_large_objects(&cluster);
    let job = night.start(&books);
    until("a dump that waits", || dumps_of_postgresql(&cluster, WAITING) == 1);
    cluster.kill();
    night.is_told(&job, "books", "server closed the connection unexpectedly", &before[0]);
    drop(holder);

    let holder = hold_last_table(&server);
    let job = night.start(&stock);
    until("a dump that waits", || dump_of_mariadb_waits(&server));
    server.kill();
    night.is_told(&job, "stock", "Lost connection to server during query", &before[1]);
    drop(holder);

    // There is no server of SQLite that could die; the file can.
    fs::write(&file, "rubbish ".repeat(1000)).unwrap();
    let job = night.start(&notes);
    night.is_told(&job, "notes", "file is not a database", &before[2]);

    // Whole again, it is over, and told too.
    fs::remove_file(&file).unwrap();
    fill_sqlite(&file);
    night.back_up(&notes);
    let healed = |request: &ReceivedRequest| request.headers["holdfast-event"] == "healed";
    let request = night.hooks.requests.wait_for(SOON, healed);
    let told: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(is_signed(&request, &night.hook_secret) && told["facts"]["plan"] == "notes", "{told}");
    assert_eq!(night.hooks.requests.count(|_| true), 0, "everything is told once");
    let failed = |subject: Option<String>| subject.unwrap_or_default().starts_with("Backup failed");
    assert_eq!(night.day.mails.mails.count(|mail| failed(mail.header("subject"))), 0, "everything is told once");
    let log = night.day.server.log();
    assert!(!log.contains(&night.hook_secret), "a secret is in the log");
    running.stop();
    night.day.server.stop().unwrap();
}

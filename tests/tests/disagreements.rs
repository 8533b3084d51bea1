//! Accounts and store are made to disagree by hand, in every way that `accounts check` knows, and it names each: behind the
//! back of the running server, through a second connection to its accounts, or by a kill. What can be put right is put
//! right by `--repair`; what holds data, or would be lost, stays until a person decides.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::transport::Method;
use control::{Actor, Control, DoomedVault, QuotaLimits, QuotaScope, UserName};
use serde_json::{Value, json};
use server::kill_points::{KILL_FILE_VARIABLE, KillPoint};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tests::harness::{Binaries, Login, Server, User};

const CLOCK_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";
/// Past the time of grace of a deleted user.
const LATER_SECONDS: i64 = 40 * 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(120);

struct Bed {
    binaries: Binaries,
    folder: tempfile::TempDir,
    server: Option<Server>,
    accounts: Control,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::of_this_build().unwrap();
        let server = start(&binaries, &folder, &[]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accounts = runtime.block_on(Control::open(&folder.path().join("data/accounts.sqlite"))).unwrap();
        Bed { binaries, folder, server: Some(server), accounts, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn restart(&mut self, arguments: &[&str]) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
        self.server = Some(start(&self.binaries, &self.folder, arguments));
    }

    fn user(&self, name: &str) -> User {
        self.server().add_user(&self.binaries, name).unwrap()
    }

    fn done(&self, method: Method, path: &str, body: &Value) -> Value {
        self.server().local().unwrap().done(method, path, body).unwrap()
    }

    /// Behind the server's back.
    fn change<T>(&self, change: impl Future<Output = Result<T, control::ControlError>>) -> T {
        self.runtime.block_on(change).unwrap()
    }

    /// Differences, each by its kind and what it is about, and whether it was put right.
    fn differences(&self, method: Method, path: &str) -> BTreeSet<(String, String, bool)> {
        let body = if method == Method::Get { Value::Null } else { json!({}) };
        let checked = self.done(method, path, &body);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let difference = |one: &Value| (text(&one["kind"]), text(&one["object"]), one["repaired"].as_bool().unwrap());
        checked["items"].as_array().unwrap().iter().map(difference).collect()
    }

    /// The check names exactly these, twice, since looking changes nothing; and so does the command, which fails.
    fn finds(&self, expected: &[(&str, String)]) {
        let expected: BTreeSet<_> = expected.iter().map(|(kind, of)| ((*kind).to_owned(), of.clone(), false)).collect();
        for _ in 0..2 {
            assert_eq!(self.differences(Method::Get, "/accounts/check"), expected);
        }
        let said = self.server().administer(&self.binaries, &["accounts", "check"]).unwrap_err().to_string();
        assert!(expected.iter().all(|(kind, of, _)| said.contains(kind) && said.contains(of)), "{said}");
    }

    /// A repair says of these that they are put right, or are not.
    fn repairs(&self, expected: &[(&str, String, bool)]) {
        let expected = expected.iter().map(|(kind, of, repaired)| ((*kind).to_owned(), of.clone(), *repaired));
        assert_eq!(self.differences(Method::Post, "/accounts/repair"), expected.collect::<BTreeSet<_>>());
    }

    fn agrees(&self) {
        assert_eq!(self.differences(Method::Get, "/accounts/check"), BTreeSet::new());
        let said = self.server().administer(&self.binaries, &["accounts", "check"]).unwrap();
        assert_eq!(said.trim(), "Accounts and store agree.");
    }

    fn delete(&self, vault: &str, name: &str) {
        self.done(Method::Delete, &format!("/vaults/{vault}?confirm={name}"), &Value::Null);
    }

    fn user_id(&self, user: &User) -> control::UserId {
        let at = self.change(self.accounts.locate_vault(&user.vault.parse().unwrap()));
        at.unwrap().user.unwrap()
    }
}

fn start(binaries: &Binaries, folder: &tempfile::TempDir, arguments: &[&str]) -> Server {
    let (clock, kill) = (folder.path().join("clock"), folder.path().join("kill"));
    let variables: [(&str, &OsStr); 2] = [(CLOCK_VARIABLE, clock.as_os_str()), (KILL_FILE_VARIABLE, kill.as_os_str())];
    Server::start_with(binaries, &folder.path().join("data"), ([127, 0, 0, 1], 0).into(), arguments, &variables)
        .unwrap()
}

fn actor() -> Actor {
    Actor { id: "test".into(), name: "a test".into(), behalf: None, address: "local".into() }
}

fn named(user: &str) -> UserName {
    UserName::new("default", user).unwrap()
}

#[test]
fn limits_that_the_store_does_not_go_by() {
    let bed = Bed::new();
    let anna = bed.user("anna");
    bed.agrees();
    let limit = QuotaScope::User(named("anna"));
    let tight = QuotaLimits { physical_hard: Some(1 << 30), ..QuotaLimits::default() };
    bed.change(bed.accounts.set_quota(&limit, tight, 1));
    bed.finds(&[("quota_differs", format!("limit {limit}"))]);
    bed.repairs(&[("quota_differs", format!("limit {limit}"), true)]);
    bed.agrees();
    let reading = bed.done(Method::Get, "/quotas/user:default%2Fanna", &Value::Null);
    assert_eq!(reading["limits"]["physical_hard_bytes"].as_u64(), Some(1 << 30));

    // The other way round: the store keeps a limit that the accounts have forgotten.
    bed.change(bed.accounts.set_quota(&limit, QuotaLimits::default(), 2));
    bed.finds(&[("quota_differs", format!("limit {limit}"))]);
    bed.repairs(&[("quota_differs", format!("limit {limit}"), true)]);
    bed.agrees();

    // A vault counts under a partner's limit, of which the store does not know.
    bed.done(
        Method::Post,
        "/tenants",
        &json!({
            "kind": "partner", "title": "North", "name": "north", "parent": control::TenantId::PLATFORM.to_string(),
        }),
    );
    bed.change(bed.accounts.set_partner("default", Some("north"), 3));
    bed.finds(&[("quota_chain_differs", format!("vault {}", anna.vault))]);
    bed.repairs(&[("quota_chain_differs", format!("vault {}", anna.vault), true)]);
    bed.agrees();
}

#[test]
fn keys_and_accounts_without_each_other() {
    let bed = Bed::new();
    let (anna, _) = (bed.user("anna"), bed.user("bert"));
    let vault = format!("vault {}", anna.vault);
    bed.change(bed.accounts.delete_vault(&anna.vault.parse().unwrap()));
    bed.finds(&[("keys_without_vault", vault.clone())]);
    bed.repairs(&[("keys_without_vault", vault, true)]);
    bed.agrees();

    // Keys cannot be made again: a person restores them, or deletes what is left.
    let ghost = "ab".repeat(16);
    bed.change(bed.accounts.create_vault(ghost.parse().unwrap(), "ghost", &named("bert"), 1));
    let found = ("vault_without_keys", format!("vault {ghost}"));
    bed.finds(&[found.clone(), ("quota_chain_differs", format!("vault {ghost}"))]);
    bed.repairs(&[(found.0, found.1.clone(), false), ("quota_chain_differs", format!("vault {ghost}"), true)]);
    bed.finds(&[found]);
    let path = format!("/vaults/{ghost}?confirm=default/bert/ghost");
    let (status, answer) = bed.server().local().unwrap().ask(Method::Delete, &path, &Value::Null).unwrap();
    assert!(status < 300 || status == 404, "{status} {answer}");
    bed.agrees();
}

#[test]
fn data_that_no_account_names_is_never_destroyed_by_a_repair() {
    let bed = Bed::new();
    let anna = bed.user("anna");
    let login = Login::create(&bed.binaries, &anna, &bed.path("anna")).unwrap();
    fs::create_dir(bed.path("files")).unwrap();
    fs::write(bed.path("files/note"), "the only copy").unwrap();
    let backed_up = login.run(["backup".as_ref(), bed.path("files").as_os_str()]).unwrap();
    assert_eq!(backed_up.code, Some(0), "{}", backed_up.stderr);
    bed.agrees();
    bed.change(bed.accounts.delete_vault(&anna.vault.parse().unwrap()));
    let found = ("data_without_account", format!("vault {}", anna.vault));
    bed.finds(std::slice::from_ref(&found));
    bed.repairs(&[(found.0, found.1.clone(), false)]);
    bed.finds(&[found]);
    let packs = bed.path("data/store/vaults").join(&anna.vault);
    assert!(packs.is_dir(), "the data are gone");
    bed.delete(&anna.vault, &anna.vault);
    bed.agrees();
}

#[test]
fn a_part_of_a_service_without_a_vault() {
    let bed = Bed::new();
    let anna = bed.user("anna");
    let user = bed.user_id(&anna);
    let product = bed.done(Method::Post, "/products", &json!({ "name": "Backup", "unit": "gib" }));
    let tenants = bed.done(Method::Get, "/tenants?kind=customer", &Value::Null);
    let tenant = tenants["items"][0]["id"].as_str().unwrap();
    let order = json!({ "product": product["id"], "quantity": 50 });
    let service = bed.done(Method::Post, &format!("/tenants/{tenant}/trials"), &order);
    let share = format!("/services/{}/allocations/{user}", service["id"].as_str().unwrap());
    bed.done(Method::Put, &share, &json!({ "bytes": 1 << 30 }));
    bed.agrees();
    bed.delete(&anna.vault, "default/anna/default");
    bed.finds(&[("allocation_without_vault", format!("user {user}"))]);
    bed.repairs(&[("allocation_without_vault", format!("user {user}"), true)]);
    bed.agrees();
    let vaults = bed.done(Method::Get, "/vaults", &Value::Null);
    assert_eq!(vaults["vaults"].as_array().map(Vec::len), Some(1), "{vaults}");
}

#[test]
fn a_proof_that_was_not_finished() {
    let bed = Bed::new();
    let anna = bed.user("anna");
    let vault = anna.vault.parse().unwrap();
    let at = bed.change(bed.accounts.locate_vault(&vault)).unwrap();
    let doomed = DoomedVault { vault, user: at.user.unwrap(), tenant: at.tenant().unwrap() };
    bed.delete(&anna.vault, "default/anna/default");
    bed.agrees();
    bed.change(bed.accounts.begin_receipt(&actor(), &doomed, "planted", 1));
    bed.finds(&[("open_receipt", format!("vault {vault}"))]);
    bed.repairs(&[("open_receipt", format!("vault {vault}"), true)]);
    bed.agrees();
}

#[test]
fn a_removal_that_is_due_waits_for_a_clock_that_is_believed() {
    let mut bed = Bed::new();
    let (anna, _) = (bed.user("anna"), bed.user("bert"));
    let user = bed.user_id(&anna);
    bed.done(Method::Post, &format!("/users/{user}/disable"), &json!({}));
    bed.done(Method::Delete, &format!("/users/{user}"), &json!({}));
    bed.agrees();
    bed.server.take().unwrap().stop().unwrap();
    fs::write(bed.path("clock"), LATER_SECONDS.to_string()).unwrap();
    bed.restart(&[]);
    let due = ("removal_due", format!("user {user}"));
    bed.finds(std::slice::from_ref(&due));
    bed.repairs(&[(due.0, due.1.clone(), false)]);
    bed.finds(std::slice::from_ref(&due));
    bed.done(Method::Post, "/clock/confirm", &json!({}));
    bed.repairs(&[(due.0, due.1, true)]);
    bed.agrees();
}

/// A deletion was decided, the server is killed, and behind its start the master key cannot be read any more.
#[test]
fn a_deletion_that_cannot_go_on() {
    let mut bed = Bed::new();
    let anna = bed.user("anna");
    fs::write(bed.path("kill"), KillPoint::DeletionDecided.name()).unwrap();
    let path = format!("/vaults/{}?confirm=default/anna/default", anna.vault);
    let local = bed.server().local().unwrap();
    local.ask(Method::Delete, &path, &Value::Null).unwrap_err();
    let mut killed = bed.server.take().unwrap();
    killed.ended_within(PATIENCE).unwrap().unwrap();
    fs::remove_file(bed.path("kill")).unwrap();
    // Gives the key once, and then only where somebody has healed what is wrong.
    let folder = bed.folder.path().display();
    let command = format!(
        "cd {folder}; if [ -e healed ] || [ ! -e asked ]; then touch asked; cat data/master.key; else exit 1; fi"
    );
    bed.restart(&["--master-key-command", &command]);
    let found = ("half_done_deletion", format!("vault {}", anna.vault));
    bed.finds(std::slice::from_ref(&found));
    bed.repairs(&[(found.0, found.1.clone(), false)]);
    bed.finds(std::slice::from_ref(&found));
    fs::write(bed.path("healed"), "").unwrap();
    bed.repairs(&[(found.0, found.1, true)]);
    bed.agrees();
}

//! Deleting, bringing back, purging, holding, tagging, retention: who may, what it does, and what is said.

use crate::harness::{Client, Server, Tree, VaultClient, ok, refused, token};
use api::browse::{Deleted, Snapshot, Snapshots};
use api::problem::Code;
use api::retention::{Action, Retention, RetentionPlan, RetentionRun};
use api::states::RestoreHold;
use api::vault::{ClockStatus, VaultState, VaultStatus};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FAR_NS: i64 = 4_000_000_000_000_000_000;
const FARTHER_NS: i64 = 5_000_000_000_000_000_000;

impl Client {
    async fn put(&self, path: &str, body: &Value) -> Response {
        self.request(Method::PUT, path).json(body).send().await.unwrap()
    }

    async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    async fn call(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }
}

impl VaultClient {
    /// Another holder of rights on the same vault.
    fn with_rights(&self, server: &Server, rights: &str) -> VaultClient {
        let made = token(server, &["--vault", &self.vault, "--rights", rights]);
        VaultClient { client: server.client(&made.secret), vault: self.vault.clone() }
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        ok::<Snapshots>(self.client.get(&self.path("/snapshots")).await).await.snapshots
    }

    fn snapshot_path(&self, snapshot: &Snapshot, rest: &str) -> String {
        self.path(&format!("/snapshots/{}{rest}", snapshot.id))
    }
}

async fn forbidden(response: Response, named: &str) {
    let problem = refused(response, StatusCode::FORBIDDEN, Code::Forbidden).await;
    assert!(problem.detail.contains(named), "{}", problem.detail);
}

#[tokio::test]
async fn an_agent_s_token_cannot_destroy_what_it_has_backed_up() {
    let server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 1);
    let snapshot = anna.backup(&tree).await;
    let at = |rest: &str| anna.snapshot_path(&snapshot, rest);
    forbidden(anna.client.delete(&at("")).await, "`delete`").await;
    forbidden(anna.client.call(&at("/undelete")).await, "`delete`").await;
    forbidden(anna.client.call(&at("/purge")).await, "`purge`").await;
    let policy = json!({"policy": {"keep_last": 1}});
    forbidden(anna.client.put(&anna.path("/retention"), &policy).await, "`purge`").await;
    forbidden(anna.client.call(&anna.path("/retention/run")).await, "`purge`").await;
    forbidden(anna.client.put(&anna.path("/undelete-days"), &json!({"days": 0})).await, "`purge`").await;

    // It may make losing harder, never easier.
    let held: Snapshot = ok(anna.client.put(&at("/hold"), &json!({"until_ns": FAR_NS})).await).await;
    assert_eq!(held.hold_until_ns, Some(FAR_NS));
    let _: Snapshot = ok(anna.client.put(&at("/hold"), &json!({"until_ns": FARTHER_NS})).await).await;
    for shorter in [json!({"until_ns": FAR_NS}), json!({"until_ns": null})] {
        let refusal = anna.client.put(&at("/hold"), &shorter).await;
        let problem = refused(refusal, StatusCode::CONFLICT, Code::SnapshotHeld).await;
        assert!(problem.detail.contains("2128-06-11") && problem.detail.contains("`hold`"), "{}", problem.detail);
    }
    let tagged: Snapshot = ok(anna.client.put(&at("/tags"), &json!({"tags": ["a", "b"]})).await).await;
    assert_eq!(tagged.tags, ["a", "b"]);
    forbidden(anna.client.put(&at("/tags"), &json!({"tags": ["b"]})).await, "`delete`").await;
    assert_eq!(anna.snapshots().await, [tagged]);

    // A reader sees states and plans, and changes none.
    let reader = anna.with_rights(&server, "restore");
    let _: VaultStatus = ok(reader.client.get(&reader.path("")).await).await;
    let _: RetentionPlan = ok(reader.client.post(&reader.path("/retention/plan"), &json!({})).await).await;
    forbidden(reader.client.put(&at("/hold"), &json!({"until_ns": FARTHER_NS})).await, "`hold`").await;
    forbidden(reader.client.put(&at("/tags"), &json!({"tags": ["a", "b", "c"]})).await, "`backup`").await;
    // Nobody's rights reach into another vault.
    let bert = server.user("bert").with_rights(&server, "backup,restore,delete,purge,hold");
    for response in [
        bert.client.delete(&at("")).await,
        bert.client.call(&at("/purge")).await,
        bert.client.get(&anna.path("")).await,
        bert.client.get(&anna.path("/retention")).await,
        bert.client.put(&at("/hold"), &json!({"until_ns": null})).await,
    ] {
        refused(response, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
    forbidden(bert.client.get("/api/v1/clock").await, "operator").await;
}

/// How many days a deletion can be undone, to the nearest: its two times are read one after the other.
fn days(state: &Deleted) -> i64 {
    const DAY_NS: i64 = 86_400_000_000_000;
    (state.until_ns - state.deleted_ns + DAY_NS / 2) / DAY_NS
}

#[tokio::test]
async fn deleted_snapshots_come_back() {
    let server = Server::start();
    let anna = server.user("anna");
    let owner = anna.with_rights(&server, "delete");
    let tree = Tree::build(&anna.keys().await, 2);
    let snapshot = anna.backup(&tree).await;
    let small = owner.snapshot_path(&snapshot, "/content?path=/docs/small");
    let deleted: Snapshot = ok(owner.client.delete(&owner.snapshot_path(&snapshot, "")).await).await;
    let again: Snapshot = ok(owner.client.delete(&owner.snapshot_path(&snapshot, "")).await).await;
    assert_eq!(deleted, again);
    let state = deleted.deleted.clone().unwrap();
    assert_eq!(days(&state), 14, "{state:?}");
    assert_eq!(state.by, "t");
    assert_eq!(anna.snapshots().await, [deleted]);

    let problem = refused(anna.client.get(&small).await, StatusCode::CONFLICT, Code::SnapshotDeleted).await;
    assert!(problem.detail.contains("holdfast undelete"), "{}", problem.detail);
    let begin = json!({"computer": "pc", "series": "s", "base_snapshot": snapshot.id});
    let refusal = anna.client.post(&anna.path("/uploads"), &begin).await;
    refused(refusal, StatusCode::CONFLICT, Code::SnapshotDeleted).await;
    let status: VaultStatus = ok(owner.client.get(&owner.path("")).await).await;
    assert_eq!((status.snapshots, status.deleted_snapshots), (1, 1));
    assert_eq!(status.deleted_logical_bytes, snapshot.logical_bytes);
    assert_eq!(status.logical_bytes, snapshot.logical_bytes, "what can come back counts");

    let back: Snapshot = ok(owner.client.call(&owner.snapshot_path(&snapshot, "/undelete")).await).await;
    assert_eq!(back, snapshot);
    let _: Snapshot = ok(owner.client.call(&owner.snapshot_path(&snapshot, "/undelete")).await).await;
    assert!(anna.client.get(&small).await.bytes().await.unwrap() == tree.small);
    let missing = owner.path("/snapshots/00000000000000000000000000000000");
    refused(owner.client.delete(&missing).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    forbidden(owner.client.call(&owner.snapshot_path(&snapshot, "/purge")).await, "`purge`").await;
    // Once deleted is only deleted by the vault's own days.
    let operator = server.client(&server.run_file("local-token"));
    let set: VaultStatus = ok(operator.put(&owner.path("/undelete-days"), &json!({"days": 999})).await).await;
    assert_eq!(set.undelete_days, 999);
    let refusal = operator.put(&owner.path("/undelete-days"), &json!({"days": 1000})).await;
    refused(refusal, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let deleted: Snapshot = ok(owner.client.delete(&owner.snapshot_path(&snapshot, "")).await).await;
    let state = deleted.deleted.unwrap();
    assert_eq!(days(&state), 999, "{state:?}");
}

#[tokio::test]
async fn purging_frees_at_once_unless_a_hold_forbids_it() {
    let server = Server::start();
    let anna = server.user("anna");
    let owner = anna.with_rights(&server, "backup,purge,delete");
    let keeper = anna.with_rights(&server, "hold");
    let tree = Tree::build(&anna.keys().await, 3);
    let snapshot = anna.backup(&tree).await;
    let at = |rest: &str| anna.snapshot_path(&snapshot, rest);
    let _: Snapshot = ok(owner.client.put(&at("/hold"), &json!({"until_ns": FAR_NS})).await).await;
    for response in [owner.client.call(&at("/purge")).await, owner.client.delete(&at("")).await] {
        let problem = refused(response, StatusCode::CONFLICT, Code::SnapshotHeld).await;
        assert!(problem.detail.contains("2096-10-02 07:06:40 UTC"), "{}", problem.detail);
    }
    let lifted: Snapshot = ok(keeper.client.put(&at("/hold"), &json!({"until_ns": null})).await).await;
    assert_eq!(lifted.hold_until_ns, None);
    for _ in 0..2 {
        let purged = owner.client.call(&at("/purge")).await;
        assert_eq!(purged.status(), StatusCode::NO_CONTENT);
    }
    assert!(anna.snapshots().await.is_empty());
    let status: VaultStatus = ok(owner.client.get(&owner.path("")).await).await;
    assert_eq!((status.snapshots, status.logical_bytes, status.state), (0, 0, VaultState::Ready));
    assert_eq!((status.name.as_str(), status.user.as_str()), ("default", "default/anna"));
}

#[tokio::test]
async fn space_comes_back_once_nothing_reads_it() {
    let server = Server::start();
    let anna = server.user("anna");
    let owner = anna.with_rights(&server, "purge");
    let tree = Tree::build(&anna.keys().await, 6);
    let snapshot = anna.backup(&tree).await;
    let begin = json!({"snapshot": snapshot.id});
    let hold: RestoreHold = ok(anna.client.post(&anna.path("/restores"), &begin).await).await;
    let restore = anna.path(&format!("/restores/{}", hold.id));
    forbidden(owner.client.post(&owner.path("/restores"), &begin).await, "`restore`").await;
    assert_eq!(owner.client.call(&owner.snapshot_path(&snapshot, "/purge")).await.status(), StatusCode::NO_CONTENT);
    refused(anna.client.post(&anna.path("/restores"), &begin).await, StatusCode::NOT_FOUND, Code::NotFound).await;

    let status = async || -> VaultStatus { ok(owner.client.get(&owner.path("")).await).await };
    let before = status().await;
    assert!(before.physical_bytes > 0 && before.logical_bytes == 0, "{before:?}");
    // Longer than the collector waits after a start, and for a sign of work.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(status().await.physical_bytes, before.physical_bytes, "a restore reads it");
    assert_eq!(anna.client.put(&restore, &json!({})).await.status(), StatusCode::NO_CONTENT);
    for _ in 0..2 {
        assert_eq!(anna.client.delete(&restore).await.status(), StatusCode::NO_CONTENT);
    }
    refused(anna.client.put(&restore, &json!({})).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let ended = Instant::now();
    let packs = server.data().join("store/vaults").join(&anna.vault).join("packs");
    let after = loop {
        let now = status().await;
        let files = std::fs::read_dir(&packs).unwrap().count();
        // The files go right behind the figures.
        if now.physical_bytes == 0 && now.pending_bytes == 0 && now.dead_bytes == 0 && files == 0 {
            break now;
        }
        assert!(ended.elapsed() < Duration::from_secs(60), "{now:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((after.snapshots, after.damaged_objects), (0, 0));
    // And the metrics right behind the files.
    let expected = [
        "holdfast_collected_total{what=\"packs\"}",
        "holdfast_bytes{kind=\"deleted_logical\"} 0",
        "holdfast_clock_jumped 0",
        "holdfast_job_pending_vaults{job=\"housekeeping\"} 0",
    ];
    let metrics = loop {
        let metrics = server.metrics().await;
        let Some(missing) = expected.iter().find(|line| !metrics.contains(**line)) else { break metrics };
        assert!(ended.elapsed() < Duration::from_secs(90), "{missing} is missing in {metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(!metrics.contains("holdfast_job_failures_total{"), "{metrics}");
}

#[tokio::test]
async fn retention_plans_before_it_acts() {
    let server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 4);
    let mut snapshots = Vec::new();
    for _ in 0..4 {
        snapshots.push(anna.backup(&tree).await);
    }
    let operator = server.client(&server.run_file("local-token"));
    let path = |rest: &str| anna.path(&format!("/retention{rest}"));
    let _: Snapshot =
        ok(operator.put(&anna.snapshot_path(&snapshots[0], "/hold"), &json!({"until_ns": FAR_NS})).await).await;

    // Without a policy everything stays.
    let plan: RetentionPlan = ok(anna.client.post(&path("/plan"), &json!({})).await).await;
    assert!(plan.items.iter().all(|item| item.action == Action::Keep), "{plan:?}");
    let run: RetentionRun = ok(operator.call(&path("/run")).await).await;
    assert_eq!(run.expired, 0);
    // A policy is tried by whoever may look, without being stored.
    let tried: RetentionPlan =
        ok(anna.client.post(&path("/plan"), &json!({"policy": {"keep_last": 2}, "series": "s"})).await).await;
    let actions: Vec<(String, Action)> = tried.items.iter().map(|item| (item.snapshot.clone(), item.action)).collect();
    let expected = [(3, Action::Keep), (2, Action::Keep), (1, Action::Expire), (0, Action::Held)];
    assert_eq!(actions, expected.map(|(at, action)| (snapshots[at].id.clone(), action)));
    assert_eq!(tried.items[0].reasons, ["last", "newest", "newest without warnings"]);
    assert_eq!(tried.items[0].logical_bytes, snapshots[3].logical_bytes);
    for filter in [json!({"computer": "other"}), json!({"series": "x"}), json!({"tag": "x"})] {
        let none: RetentionPlan = ok(anna.client.post(&path("/plan"), &filter).await).await;
        assert!(none.items.is_empty(), "{filter}");
    }

    for (wrong, named) in [
        (json!({"policy": {"keep_last": 0}}), "at least one rule"),
        (json!({"policy": {"keep_last": 1, "time_zone": "Nowhere/City"}}), "Nowhere/City"),
        (json!({"policy": {"keep_lats": 1}}), "keep_lats"),
        (json!({"policy": {"keep_last": 1}, "series": {"computer": "pc", "series": ""}}), "series"),
    ] {
        let problem = refused(operator.put(&path(""), &wrong).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
        assert!(problem.detail.contains(named), "{}", problem.detail);
    }
    let of_series = json!({"policy": {"keep_last": 3}, "series": {"computer": "pc", "series": "s"}});
    let _: Retention = ok(operator.put(&path(""), &of_series).await).await;
    let set: Retention = ok(operator.put(&path(""), &json!({"policy": {"keep_last": 1}})).await).await;
    assert_eq!(set.policies.len(), 2);
    assert_eq!(set.undelete_days, 14);
    let plan: RetentionPlan = ok(anna.client.post(&path("/plan"), &json!({})).await).await;
    assert!(plan.items.iter().all(|item| item.action != Action::Expire), "the series has its own: {plan:?}");
    let removed = json!({"policy": null, "series": {"computer": "pc", "series": "s"}});
    let _: Retention = ok(operator.put(&path(""), &removed).await).await;
    let run: RetentionRun = ok(operator.call(&path("/run")).await).await;
    assert_eq!(run.expired, 2);
    let left: Vec<String> = anna.snapshots().await.into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [snapshots[0].id.clone(), snapshots[3].id.clone()]);
    let again: RetentionRun = ok(operator.call(&path("/run")).await).await;
    assert_eq!(again.expired, 0);
    let clock: ClockStatus = ok(operator.get("/api/v1/clock").await).await;
    assert_eq!(clock.jumped_from_ns, None);
    let missing = "/api/v1/vaults/00000000000000000000000000000000";
    for rest in ["", "/retention", "/snapshots"] {
        let refusal = operator.get(&format!("{missing}{rest}")).await;
        refused(refusal, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
}

#[tokio::test]
async fn an_operator_does_the_same_on_the_command_line() {
    let server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 5);
    let first = anna.backup(&tree).await;
    let second = anna.backup(&tree).await;
    let said = |arguments: &[&str]| {
        let output = server.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let failing = |arguments: &[&str], expected: &str| {
        let output = server.command(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{arguments:?}: {text}");
    };
    failing(&["vault", "status", "nobody"], "holdfastd vault list");
    for name in ["anna", "default/anna", "default/anna/default", &anna.vault] {
        assert!(said(&["vault", "status", name]).contains("2 (0 deleted, 0 held)"));
    }
    let short = &second.id[..8];
    assert!(said(&["vault", "forget", "anna", short]).contains("deleted by operator on the server, undelete until"));
    assert!(said(&["vault", "snapshots", "anna"]).contains("undelete until"));
    assert!(said(&["vault", "status", "anna"]).contains("2 (1 deleted, 0 held)"));
    assert!(!said(&["vault", "undelete", "anna", short]).contains("undelete until"));
    let held: Value = server.json(&["vault", "hold", "anna", short, "--until", "2099-12-31", "--json"]);
    assert_eq!(held["snapshots"][0]["hold_until_ns"], 4_102_444_799_000_000_000i64);
    failing(&["vault", "forget", "anna", short, "--purge"], "held until 2099-12-31 23:59:59 UTC");
    said(&["vault", "hold", "anna", short, "--lift"]);
    assert!(said(&["vault", "tag", "anna", short, "--set", "a,b"]).contains("a,b"));
    failing(&["vault", "forget", "anna", "ffffffffffff"], "vault snapshots");

    assert!(said(&["vault", "retention", "anna"]).contains("everything is kept"));
    let tried = said(&["vault", "retention", "anna", "--keep-last", "1", "--dry-run"]);
    assert!(tried.contains("1 of 2 snapshots would expire; nothing was changed"), "{tried}");
    let set = said(&["vault", "retention", "anna", "--keep-last", "1", "--keep-tag", "x", "--time-zone", "Asia/Tokyo"]);
    assert!(set.contains("keep last 1, tag x (time zone Asia/Tokyo)"), "{set}");
    assert!(said(&["vault", "retention", "anna", "--run"]).contains("1 of 2 snapshots expired and are gone"));
    assert!(said(&["vault", "retention", "anna", "--remove"]).contains("everything is kept"));
    assert!(said(&["vault", "undelete-days", "anna", "0"]).contains("undelete days         0"));
    assert!(said(&["vault", "forget", "anna", short, "--purge"]).contains("Removed for good"));
    assert!(anna.snapshots().await.is_empty(), "{}", first.id);
    assert!(said(&["vault", "damage", "anna"]).contains("Nothing is known to be damaged"));
    assert!(said(&["vault", "scrub", "anna"]).contains("are verified"));
    let audit = said(&["vault", "audit", "anna"]);
    assert!(audit.contains("0 counts too low (corrected), 0 too high, 0 objects missing"), "{audit}");
    assert!(said(&["clock", "status"]).contains("it is believed"));
    assert!(said(&["clock", "confirm"]).contains("it is believed"));
}

//! Agents of enrolled computers over the wire: what their credential opens, and the calls of a job from its begin to its
//! end. Enrolments and plans are made in the accounts directly, as if somebody had just done so.

use crate::harness::{Server, Tree, VaultClient, ok, refused};
use api::agents::{AppendLog, BeginJob, ComputerPlans, EndJob, Hello, Orders, Welcome};
use api::computers::{Enrol, Enrolled};
use api::jobs::{Job, JobCause, JobCounts, JobState, LogLevel, LogLine};
use api::problem::Code;
use control::{Actor, ComputerId, Control, NewRevision, Plan, Scope, ScopePart, TenantId, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BODY: &str = r#"{"source":{"kind":"folders","paths":["/etc"],"excludes":[],"one_file_system":false,"exclude_caches":true},"schedule":{"rule":{"every":"never"},"time_zone":"UTC","jitter_minutes":0,"catch_up":true}}"#;

/// The accounts of a running server.
struct Accounts {
    control: Control,
    scope: Scope,
}

fn actor() -> Actor {
    Actor { id: "test".into(), name: "anna".into(), behalf: None, address: "local".into() }
}

impl Accounts {
    async fn of(server: &Server) -> Accounts {
        let control = Control::open(&server.data().join("accounts.sqlite")).await.unwrap();
        let authority = control.take_authority().unwrap();
        let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
        Accounts { control, scope }
    }

    async fn owner(&self, vault: &str) -> UserId {
        self.control.locate_vault(&vault.parse().unwrap()).await.unwrap().unwrap().user.unwrap()
    }

    async fn enrolment(&self, user: &UserId) -> String {
        let made = self.control.create_enrolment(&self.scope, &actor(), user, None, i64::MAX, 0).await.unwrap();
        made.secret.expose().to_owned()
    }

    async fn plan(&self, computer: &str, name: &str) -> Plan {
        let computer: ComputerId = computer.parse().unwrap();
        let new = NewRevision { body: BODY, due: None, retention: None };
        self.control.create_plan(&self.scope, &actor(), &computer, name, &new, 1).await.unwrap()
    }
}

fn enrol(token: &str, name: &str) -> Enrol {
    Enrol { token: token.into(), name: name.into(), replaces: None, os: "Debian".into(), agent_version: "1".into() }
}

fn random_id() -> String {
    control::JobId::generate().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computers_credential_backs_up_and_restores_and_opens_nothing_else() {
    let server = Server::start();
    let (anna, bert) = (server.user("anna"), server.user("bert"));
    let accounts = Accounts::of(&server).await;
    let user = accounts.owner(&anna.vault).await;
    let token = accounts.enrolment(&user).await;
    let anyone = server.client("");
    for wrong in ["", "hfe_nonsense", &anna.client.secret] {
        refused(anyone.post("/api/v1/enrol", &enrol(wrong, "a")).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
    let made: Enrolled = ok(anyone.post("/api/v1/enrol", &enrol(&token, "laptop")).await).await;
    assert_eq!((made.computer.name.as_str(), &made.vault, made.user.as_str()), ("laptop", &anna.vault, "default/anna"));
    refused(anyone.post("/api/v1/enrol", &enrol(&token, "again")).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    assert!(made.credential.starts_with("hfc_"));
    assert!(!server.log().contains(&made.credential) && !server.log().contains(&token), "a secret is in the log");

    let agent = VaultClient { client: server.client(&made.credential), vault: made.vault.clone() };
    let tree = Tree::build(&agent.keys().await, 1);
    let snapshot = agent.backup(&tree).await;
    let path = agent.path(&format!("/snapshots/{}/content?path=/docs/small", snapshot.id));
    assert_eq!(agent.client.get(&path).await.bytes().await.unwrap(), tree.small);
    let me: Value = ok(agent.client.get("/api/v1/me").await).await;
    assert_eq!((&me["token"], &me["rights"]), (&json!(made.computer.id), &json!(["backup", "restore"])));

    let foreign = format!("/api/v1/vaults/{}/snapshots", bert.vault);
    refused(agent.client.get(&foreign).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let remove = agent.client.request(Method::DELETE, &agent.path(&format!("/snapshots/{}", snapshot.id)));
    refused(remove.send().await.unwrap(), StatusCode::FORBIDDEN, Code::Forbidden).await;
    for path in ["/users", "/vaults", "/tokens", "/computers", "/plans"] {
        let answer = agent.client.get(&format!("/api/v1{path}")).await;
        refused(answer, StatusCode::FORBIDDEN, Code::Forbidden).await;
    }
    let own = format!("/api/v1/computers/{}", made.computer.id);
    refused(agent.client.get(&own).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    // And nobody else speaks for a computer.
    let hello = anna.client.post("/api/v1/computer/hello", &Hello::default()).await;
    refused(hello, StatusCode::FORBIDDEN, Code::Forbidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_begun_spoken_of_and_ended() {
    let server = Server::start_with(&["--heartbeat-seconds", "1"]);
    let anna = server.user("anna");
    let accounts = Accounts::of(&server).await;
    let user = accounts.owner(&anna.vault).await;
    let token = accounts.enrolment(&user).await;
    let made: Enrolled = ok(server.client("").post("/api/v1/enrol", &enrol(&token, "laptop")).await).await;
    let agent = server.client(&made.credential);
    let welcome: Welcome = ok(agent.post("/api/v1/computer/hello", &Hello::default()).await).await;
    assert_eq!((welcome.heartbeat_seconds, &welcome.vault), (1, &anna.vault));
    let plan = accounts.plan(&made.computer.id, "nightly").await;
    let plans: ComputerPlans = ok(agent.get("/api/v1/computer/plans").await).await;
    assert_eq!(plans.plans[0].id, plan.id.to_string());
    assert_eq!(serde_json::to_string(&plans.plans[0].body).unwrap(), BODY);

    // Without news the wait is as long as was asked for, and no longer.
    let asked = Instant::now();
    let path = format!("/api/v1/computer/orders?wait=1&plans={}", plans.version);
    let nothing: Orders = ok(agent.get(&path).await).await;
    assert!(nothing.orders.is_empty() && (Duration::from_secs(1)..Duration::from_secs(10)).contains(&asked.elapsed()));

    let id = random_id();
    let begin = BeginJob {
        id: id.clone(),
        plan: Some(plan.id.to_string()),
        revision: Some(1),
        cause: JobCause::Schedule,
        slot_ns: None,
    };
    let job: Job = ok(agent.post("/api/v1/computer/jobs", &begin).await).await;
    assert_eq!((job.state, &job.id), (JobState::Running, &id));
    let again: Job = ok(agent.post("/api/v1/computer/jobs", &begin).await).await;
    assert_eq!(again, job);
    let other = BeginJob { id: random_id(), ..begin.clone() };
    let busy = agent.post("/api/v1/computer/jobs", &other).await;
    refused(busy, StatusCode::CONFLICT, Code::WrongState).await;
    for wrong in
        [BeginJob { id: "x".into(), ..begin.clone() }, BeginJob { id: random_id(), revision: Some(9), ..begin }]
    {
        let answer = agent.post("/api/v1/computer/jobs", &wrong).await;
        assert!(answer.status().is_client_error(), "{wrong:?}");
    }

    let path = |rest: &str| format!("/api/v1/computer/jobs/{id}{rest}");
    let counts = JobCounts { files: 3, bytes_done: 30, bytes_total: Some(60), bytes_added: 1, warnings: 0 };
    let beat: Job = ok(agent.request(Method::PUT, &path("")).json(&counts).send().await.unwrap()).await;
    assert_eq!(beat.counts, counts);
    let line = |line: i64| LogLine { line, at_ns: 1, level: LogLevel::Warning, text: format!("line {line}") };
    for lines in [vec![line(0), line(1)], vec![line(1), line(2)]] {
        let appended = agent.post(&path("/log"), &AppendLog { lines }).await;
        assert_eq!(appended.status(), StatusCode::NO_CONTENT);
    }
    let many = AppendLog { lines: (0..501).map(line).collect() };
    refused(agent.post(&path("/log"), &many).await, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;

    // Silent for three seconds, it is lost; when it speaks again, it was only away.
    let operator = server.client(&server.run_file("local-token"));
    let seen = async || -> Job { ok(operator.get(&format!("/api/v1/jobs/{id}")).await).await };
    let silent = Instant::now();
    loop {
        let job = seen().await;
        if job.state == JobState::Failed {
            assert_eq!(job.error_code.as_deref(), Some("lost"));
            break;
        }
        assert!(silent.elapsed() < Duration::from_secs(30), "{job:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let beat: Job = ok(agent.request(Method::PUT, &path("")).json(&counts).send().await.unwrap()).await;
    assert_eq!((beat.state, beat.error_code), (JobState::Running, None));
    let end = EndJob { state: JobState::Warning, error_code: None, message: None, snapshot: None, counts };
    let ended: Job = ok(agent.post(&path("/end"), &end).await).await;
    assert_eq!(seen().await, ended);
    let log: Value = ok(operator.get(&format!("/api/v1/jobs/{id}/log?limit=2")).await).await;
    assert_eq!(log["items"].as_array().unwrap().len(), 2);
    let next = log["next"].as_str().unwrap();
    let rest: Value = ok(operator.get(&format!("/api/v1/jobs/{id}/log?limit=2&after={next}")).await).await;
    assert_eq!(rest["items"][0]["text"], json!("line 2"));
    let wrong = EndJob { state: JobState::Missed, ..end.clone() };
    refused(agent.post(&path("/end"), &wrong).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let other_end = EndJob { state: JobState::Failed, ..end };
    refused(agent.post(&path("/end"), &other_end).await, StatusCode::CONFLICT, Code::WrongState).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_lets_nobody_wait() {
    let mut server = Server::start();
    let anna = server.user("anna");
    let accounts = Accounts::of(&server).await;
    let user = accounts.owner(&anna.vault).await;
    let token = accounts.enrolment(&user).await;
    let made: Enrolled = ok(server.client("").post("/api/v1/enrol", &enrol(&token, "laptop")).await).await;
    accounts.control.close().await;
    let agent = server.client(&made.credential);
    let operator = server.client(&server.run_file("local-token"));
    let waiting = tokio::spawn(async move { ok::<Orders>(agent.get("/api/v1/computer/orders?wait=50").await).await });
    let path = format!("/api/v1/computers/{}", made.computer.id);
    while !ok::<Value>(operator.get(&path).await).await["online"].as_bool().unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = Instant::now();
    server.signal("-TERM");
    assert!(waiting.await.unwrap().going_down);
    assert!(tokio::task::spawn_blocking(move || server.wait()).await.unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

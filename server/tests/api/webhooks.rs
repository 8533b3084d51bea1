//! Webhooks and notices over HTTP, to real receivers on loopback; lists of jobs and the search in their logs.

use crate::harness::{Client, Server, ok, refused};
use crate::identity::PASSWORD;
use crate::receivers::{ReceivedRequest, SmtpReceiver, SmtpSettings, WebReceiver};
use api::agents::{AppendLog, BeginJob, EndJob};
use api::computers::{Enrolled, Enrolment};
use api::identity::LoggedIn;
use api::invitations::{AcceptedInvitation, SentInvitation};
use api::jobs::{FoundLog, Job, JobCause, JobCounts, JobState, ListedJob, LogLevel, LogLine};
use api::notices::{Notice, NoticeSettings};
use api::page::Page;
use api::plans::Plan;
use api::problem::Code;
use api::services::{Products, Service, Services};
use api::webhook::{Delivery, DeliveryState, EventKind, NewWebhook, QueuedDelivery, Webhook};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PLATFORM: &str = "00000000000000000000000000000000";
const SOON: Duration = Duration::from_secs(30);

pub fn local(server: &Server) -> Client {
    server.client(&server.run_file("local-token"))
}

async fn put(client: &Client, path: &str, body: &Value) -> reqwest::Response {
    client.request(Method::PUT, path).json(body).send().await.unwrap()
}

async fn delete(client: &Client, path: &str) -> reqwest::Response {
    client.request(Method::DELETE, path).send().await.unwrap()
}

/// The customer of users that the command line makes.
async fn default_tenant(server: &Server) -> String {
    server.user("anna");
    let tenants: Value = ok(local(server).get("/api/v1/tenants?kind=customer").await).await;
    tenants["items"][0]["id"].as_str().unwrap().to_owned()
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

/// The delivery as soon as it was tried so often or has ended.
async fn tried(client: &Client, webhook: &str, id: &str, tries: i64) -> Delivery {
    let started = Instant::now();
    loop {
        let page: Page<Delivery> = ok(client.get(&format!("/api/v1/webhooks/{webhook}/deliveries")).await).await;
        let delivery = page.items.into_iter().find(|delivery| delivery.id == id).unwrap();
        if delivery.state != DeliveryState::Queued || delivery.tries >= tries {
            return delivery;
        }
        assert!(started.elapsed() < SOON, "{delivery:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_sent_is_signed_and_tried_again() {
    let receiver = WebReceiver::start();
    let server = Server::start_with(&["--webhook-networks", "127.0.0.0/8"]);
    let tenant = default_tenant(&server).await;
    let local = local(&server);
    let body = json!({"tenant": tenant, "url": receiver.url("/hook?x=1"), "events": ["backup_failed", "healed"]});
    let made: NewWebhook = ok(local.post("/api/v1/webhooks", &body).await).await;
    assert!(made.secret.starts_with("hfw_") && made.webhook.active);
    let path = format!("/api/v1/webhooks/{}", made.webhook.id);
    let shown: Webhook = ok(local.get(&path).await).await;
    assert_eq!(shown, made.webhook);

    let test = async || -> QueuedDelivery { ok(local.post(&format!("{path}/test"), &json!({})).await).await };
    let queued = test().await;
    let request = receiver.requests.wait_for(SOON, |_| true);
    assert_eq!((request.path.as_str(), request.headers["holdfast-event"].as_str()), ("/hook?x=1", "test"));
    assert_eq!(request.headers["holdfast-delivery"], queued.id);
    assert!(is_signed(&request, &made.secret) && !is_signed(&request, "hfw_other"));
    let told: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((told["id"].as_str(), told["tenant"].as_str()), (Some(queued.id.as_str()), Some(tenant.as_str())));
    let delivery = tried(&local, &made.webhook.id, &queued.id, 99).await;
    assert_eq!((delivery.state, delivery.tries, delivery.last_status), (DeliveryState::Delivered, 1, Some(200)));

    // Another secret signs from now on.
    let renewed: NewWebhook = ok(local.post(&format!("{path}/secret"), &json!({})).await).await;
    test().await;
    let request = receiver.requests.wait_for(SOON, |_| true);
    assert!(is_signed(&request, &renewed.secret) && !is_signed(&request, &made.secret));

    // What is not taken waits for another try; a redirection is not followed.
    receiver.answer_with(500, "");
    let queued = test().await;
    let delivery = tried(&local, &made.webhook.id, &queued.id, 1).await;
    assert_eq!((delivery.state, delivery.last_status), (DeliveryState::Queued, Some(500)));
    assert!(delivery.next_try_ns.unwrap() > delivery.created_ns);
    let shown: Webhook = ok(local.get(&path).await).await;
    assert!(shown.failing_since_ns.is_some());
    receiver.answer_with(302, &format!("location: {}\r\n", receiver.url("/elsewhere")));
    let queued = test().await;
    assert_eq!(tried(&local, &made.webhook.id, &queued.id, 1).await.last_status, Some(302));
    assert_eq!(receiver.requests.count(|request| request.path == "/elsewhere"), 0);

    let changed: Webhook = ok(put(&local, &path, &json!({"active": false, "events": ["quota"]})).await).await;
    assert_eq!((changed.active, changed.events), (false, vec![EventKind::Quota]));
    let _: Webhook = ok(delete(&local, &path).await).await;
    for path in [path.as_str(), "/api/v1/webhooks/nonsense"] {
        refused(local.get(path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
    let listed: Page<Webhook> = ok(local.get("/api/v1/webhooks").await).await;
    assert!(listed.items.is_empty());
    let log = server.log();
    assert!(!log.contains(&made.secret) && !log.contains(&renewed.secret), "a secret is in the log");
}

#[tokio::test]
async fn nothing_behind_the_walls_is_reached() {
    let receiver = WebReceiver::start();
    let server = Server::start();
    let tenant = default_tenant(&server).await;
    let local = local(&server);
    let port = receiver.address.port();
    for url in [receiver.url("/"), format!("https://127.0.0.1:{port}/"), "ftp://example.org/".into(), "x".into()] {
        let body = json!({"tenant": tenant, "url": url, "events": ["quota"]});
        refused(local.post("/api/v1/webhooks", &body).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    // A name is looked at when something is sent.
    let body = json!({"tenant": tenant, "url": format!("https://localhost:{port}/"), "events": ["quota"]});
    let made: NewWebhook = ok(local.post("/api/v1/webhooks", &body).await).await;
    let path = format!("/api/v1/webhooks/{}", made.webhook.id);
    let queued: QueuedDelivery = ok(local.post(&format!("{path}/test"), &json!({})).await).await;
    let delivery = tried(&local, &made.webhook.id, &queued.id, 1).await;
    assert!(delivery.last_error.as_deref().unwrap().contains("may be reached"), "{delivery:?}");
    assert_eq!(receiver.requests.count(|_| true), 0);
    for body in [
        json!({"url": "https://example.org/", "events": ["quota"]}),
        json!({"tenant": tenant, "user": tenant, "url": "https://example.org/", "events": ["quota"]}),
        json!({"tenant": tenant, "url": "https://example.org/", "events": []}),
        json!({"tenant": "x", "url": "https://example.org/", "events": ["quota"]}),
    ] {
        let answer = local.post("/api/v1/webhooks", &body).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    let absent = json!({"tenant": "f".repeat(32), "url": "https://example.org/", "events": ["quota"]});
    refused(local.post("/api/v1/webhooks", &absent).await, StatusCode::NOT_FOUND, Code::NotFound).await;
}

/// The owner of a new customer with a trial, who has a part of it, and the computer with its plan.
pub struct Customer {
    pub tenant: String,
    pub owner: Client,
    pub agent: Client,
    pub plan: Plan,
}

impl Customer {
    pub async fn new(server: &Server, title: &str, email: &str) -> Customer {
        let local = local(server);
        let anyone = server.client("");
        let products: Products = ok(local.get("/api/v1/products").await).await;
        let offer = json!({"product": products.items[0].id, "licence": "trial", "quantity": 1});
        let invite = json!({"kind": "customer", "email": email, "title": title, "service": offer});
        let sent: SentInvitation =
            ok(local.post(&format!("/api/v1/tenants/{PLATFORM}/invitations"), &invite).await).await;
        let secret = sent.link.unwrap().0.rsplit_once('#').unwrap().1.to_owned();
        let come_in = json!({"secret": secret, "name": "Anna", "password": PASSWORD});
        let AcceptedInvitation { tenant, user, .. } =
            ok(anyone.post("/api/v1/invitations/accept", &come_in).await).await;
        let login = json!({"login": email, "password": PASSWORD, "program": "test"});
        let login: LoggedIn = ok(anyone.post("/api/v1/login", &login).await).await;
        let owner = server.client(&login.secret.0);

        let enrolments = format!("/api/v1/users/{user}/enrolments");
        let early = owner.post(&enrolments, &json!({})).await;
        let problem = refused(early, StatusCode::CONFLICT, Code::WrongState).await;
        assert!(problem.detail.contains("allocate"), "{problem:?}");
        let services: Services = ok(owner.get("/api/v1/services").await).await;
        let Service { id: service, .. } = &services.items[0];
        let give = json!({"bytes": 1_i64 << 20});
        let path = format!("/api/v1/services/{service}/allocations/{user}");
        let _: Value = ok(put(&owner, &path, &give).await).await;
        let enrolment: Enrolment = ok(owner.post(&enrolments, &json!({})).await).await;
        let enrol = json!({"token": enrolment.token, "name": "laptop", "os": "Debian", "agent_version": "1"});
        let enrolled: Enrolled = ok(anyone.post("/api/v1/enrol", &enrol).await).await;
        let plan = json!({
            "name": "nightly",
            "source": {"kind": "folders", "paths": ["/home"]},
            "schedule": {"rule": {"every": "day", "at": "02:00"}, "time_zone": "UTC"},
        });
        let path = format!("/api/v1/computers/{}/plans", enrolled.computer.id);
        let plan: Plan = ok(owner.post(&path, &plan).await).await;
        Customer { tenant, owner, agent: server.client(&enrolled.credential), plan }
    }

    /// Orders a run of its plan.
    pub async fn order_backup(&self) -> reqwest::Response {
        self.owner.post(&format!("/api/v1/plans/{}/start", self.plan.id), &json!({})).await
    }

    /// A job that its agent begins, tells a line of, and ends.
    pub async fn job(&self, state: JobState, text: &str) -> Job {
        let id = control::JobId::generate().unwrap().to_string();
        let (plan, cause) = (Some(self.plan.id.clone()), JobCause::Schedule);
        let begin = BeginJob { id: id.clone(), plan, revision: Some(1), cause, slot_ns: None };
        let _: Job = ok(self.agent.post("/api/v1/computer/jobs", &begin).await).await;
        let lines = vec![LogLine { line: 0, at_ns: 1, level: LogLevel::Error, text: text.into() }];
        let path = format!("/api/v1/computer/jobs/{id}");
        let answer = self.agent.post(&format!("{path}/log"), &AppendLog { lines }).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let failed = state == JobState::Failed;
        let end = EndJob {
            state,
            error_code: failed.then(|| "command_failed".into()),
            message: failed.then(|| "pg_dump ended with 1".into()),
            snapshot: None,
            counts: JobCounts::default(),
        };
        ok(self.agent.post(&format!("{path}/end"), &end).await).await
    }
}

/// The items of a list, once there are `count` of them.
async fn items<T: serde::de::DeserializeOwned>(client: &Client, path: &str, count: usize) -> Vec<T> {
    let started = Instant::now();
    loop {
        let page: Page<T> = ok(client.get(&format!("/api/v1{path}")).await).await;
        if page.items.len() == count {
            return page.items;
        }
        assert!(started.elapsed() < SOON, "{path}: {} items", page.items.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_failed_backup_is_told_by_mail_and_by_webhook_and_found_by_its_log() {
    let (mails, hooks) = (SmtpReceiver::start(SmtpSettings::default()), WebReceiver::start());
    let smtp = mails.address.to_string();
    let server = Server::start_with(&[
        "--smtp-server",
        &smtp,
        "--smtp-security",
        "none",
        "--mail-from",
        "backup@sender.example",
        "--webhook-networks",
        "127.0.0.0/8",
        "--notice-seconds",
        "1",
    ]);
    let acme = Customer::new(&server, "Acme", "anna@acme.example").await;
    let other = Customer::new(&server, "Other", "olga@other.example").await;
    let hook = async |customer: &Customer, path: &str| -> NewWebhook {
        let events = ["backup_failed", "healed"];
        let body = json!({"tenant": customer.tenant, "url": hooks.url(path), "events": events});
        ok(customer.owner.post("/api/v1/webhooks", &body).await).await
    };
    let (told, _) = (hook(&acme, "/acme").await, hook(&other, "/other").await);

    let failed = acme.job(JobState::Failed, "pg_dump: could not connect to the quokka").await;
    let mail = mails.mails.wait_for(SOON, |mail| {
        mail.to == ["anna@acme.example"] && mail.header("subject").unwrap() == "Backup failed: laptop, nightly"
    });
    assert!(mail.body().contains("pg_dump ended with 1") && mail.body().contains("quokka"), "{}", mail.body());
    let request = hooks.requests.wait_for(SOON, |request| request.headers["holdfast-event"] == "backup_failed");
    assert!(request.path == "/acme" && is_signed(&request, &told.secret), "{request:?}");
    let facts: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(facts["facts"]["job_id"], json!(failed.id));
    let open: Vec<Notice> = items(&acme.owner, "/notices?open=true", 1).await;
    assert_eq!((open[0].kind, &open[0].tenant), (EventKind::BackupFailed, &acme.tenant));

    // Found by what it is, and by what its log says; by those only who may see it.
    other.job(JobState::Succeeded, "all is well, says the quokka").await;
    let listed: Vec<ListedJob> = items(&acme.owner, "/jobs?state=failed&sort=end", 1).await;
    assert_eq!((&listed[0].job.id, listed[0].computer_name.as_str()), (&failed.id, "laptop"));
    assert_eq!((listed[0].plan_name.as_deref(), listed[0].tenant_title.as_str()), (Some("nightly"), "Acme"));
    let found: Vec<FoundLog> = items(&acme.owner, "/job-logs?words=QUOKKA%20connect", 1).await;
    assert_eq!((&found[0].job.job.id, found[0].lines.len()), (&failed.id, 1));
    assert_eq!(items::<FoundLog>(&local(&server), "/job-logs?words=quokka", 2).await.len(), 2);
    assert_eq!(items::<FoundLog>(&other.owner, "/job-logs?words=quokka", 1).await[0].job.tenant, other.tenant);
    for foreign in [format!("/jobs?plan={}", acme.plan.id), format!("/jobs?tenant={}", acme.tenant)] {
        items::<ListedJob>(&other.owner, &foreign, 0).await;
    }
    let page: Page<ListedJob> = ok(local(&server).get("/api/v1/jobs?limit=1&ascending=true").await).await;
    assert_eq!(page.items[0].job.id, failed.id);
    let rest = format!("/api/v1/jobs?limit=1&ascending=true&after={}", page.next.unwrap());
    let rest: Page<ListedJob> = ok(local(&server).get(&rest).await).await;
    assert_eq!(rest.items[0].tenant, other.tenant);
    for wrong in
        ["/jobs?state=lost", "/jobs?plan=x", "/jobs?sort=size", "/jobs?after=x", "/job-logs", "/job-logs?words="]
    {
        let answer = acme.owner.get(&format!("/api/v1{wrong}")).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }

    // It is over with the next good one, and nobody else heard of any of it.
    acme.job(JobState::Succeeded, "done").await;
    let healed = hooks.requests.wait_for(SOON, |request| request.headers["holdfast-event"] == "healed");
    assert_eq!(healed.path, "/acme");
    items::<Notice>(&acme.owner, "/notices?open=true", 0).await;
    items::<Notice>(&acme.owner, "/notices?open=false", 1).await;
    assert_eq!(hooks.requests.count(|request| request.path == "/other"), 0);
    assert_eq!(mails.mails.count(|mail| mail.header("subject").unwrap().starts_with("Backup failed")), 0);

    let path = format!("/api/v1/tenants/{}/notice-settings", acme.tenant);
    let set: NoticeSettings = ok(put(&acme.owner, &path, &json!({"stale_days": 7})).await).await;
    assert_eq!(ok::<NoticeSettings>(acme.owner.get(&path).await).await, set);
    let wrong = put(&acme.owner, &path, &json!({"stale_days": 0})).await;
    refused(wrong, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(other.owner.get(&path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let summary = put(&acme.owner, "/api/v1/profile/weekly-summary", &json!({"wanted": false})).await;
    assert_eq!(summary.status(), StatusCode::NO_CONTENT);
    let metrics = server.metrics().await;
    assert!(metrics.contains("holdfast_webhook_tries_total{result=\"delivered\"} 2"), "{metrics}");
}

//! Quotas through real HTTP: refused before the body is read, with every figure; set and seen through API and commands.

use crate::harness::{Client, Sent, Server, Tree, VaultClient, body, chunk, ok, refused};
use api::problem::{Code, Problem};
use api::quota::{Quota, QuotaKind, Quotas};
use api::upload::{BeginUpload, Durable, Received, UploadSession};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

fn limit_path(limit: &str) -> String {
    format!("/api/v1/quotas/{}", limit.replace('/', "%2F"))
}

fn operator(server: &Server) -> Client {
    server.client(&server.run_file("local-token"))
}

async fn show(operator: &Client, limit: &str) -> Quota {
    ok(operator.get(&limit_path(limit)).await).await
}

async fn put(client: &Client, path: &str, body: &Value) -> reqwest::Response {
    client.request(Method::PUT, path).json(body).send().await.unwrap()
}

async fn set_physical(operator: &Client, limit: &str, bytes: u64) {
    let _: Quota = ok(put(operator, &limit_path(limit), &json!({"physical_hard_bytes": bytes})).await).await;
}

/// The refusal of a quota, with figures that agree with each other.
async fn refused_by_quota(response: reqwest::Response) -> Problem {
    let problem = refused(response, StatusCode::PAYLOAD_TOO_LARGE, Code::QuotaExceeded).await;
    let figures = problem.quota.clone().unwrap();
    assert!(figures.used_bytes + figures.reserved_bytes + figures.requested_bytes >= figures.limit_bytes);
    for figure in [figures.used_bytes, figures.reserved_bytes, figures.limit_bytes, figures.requested_bytes] {
        assert!(figure == 0 || problem.detail.contains(&figure.to_string()), "{problem:?}");
    }
    assert!(problem.detail.contains(&figures.limit) && problem.detail.contains(&figures.help));
    problem
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused_before_it_is_read() {
    let server = Server::start();
    let anna = server.user("anna");
    let operator = operator(&server);
    set_physical(&operator, "user:anna", 100_000).await;
    let session = anna.begin().await;
    // Nothing of the body is ever sent: the answer comes for the declared length alone.
    let never = reqwest::Body::wrap_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = anna.client.request(Method::POST, &anna.upload_path(&session, "/chunks"));
    let request = request.header("content-type", api::BINARY).header("content-length", 100_001).body(never);
    let response = tokio::time::timeout(Duration::from_secs(10), request.send()).await.unwrap().unwrap();
    let problem = refused_by_quota(response).await;
    let figures = problem.quota.unwrap();
    assert_eq!((figures.limit.as_str(), figures.kind), ("user:default/anna", QuotaKind::Physical));
    assert_eq!((figures.used_bytes, figures.reserved_bytes), (0, 0));
    assert_eq!((figures.limit_bytes, figures.requested_bytes), (100_000, 100_001));
    assert!(server.metrics().await.contains("holdfast_quota_refusals_total 1"));
    // The document also holds its figures beside the usual members, as RFC 9457 wants them.
    let response = anna.client.post_binary(&anna.upload_path(&session, "/chunks"), vec![0; 200_000]).await;
    let document: Value = response.json().await.unwrap();
    assert_eq!((&document["limit_bytes"], &document["used_bytes"]), (&json!(100_000), &json!(0)));
}

#[tokio::test]
async fn a_full_quota_refuses_new_bytes_and_nothing_else() {
    let server = Server::start();
    let anna = server.user("anna");
    let operator = operator(&server);
    let keys = anna.keys().await;
    let tree = Tree::build(&keys, 0);
    let snapshot = anna.backup(&tree).await;
    let used = show(&operator, "user:default/anna").await;
    assert!(used.used_physical_bytes > 0 && used.used_logical_bytes == snapshot.logical_bytes);
    assert_eq!((used.reserved_physical_bytes, used.reserved_logical_bytes), (0, 0));
    set_physical(&operator, "user:anna", used.used_physical_bytes).await;

    let session = anna.begin().await;
    let more = chunk(&keys, b"one more");
    let path = anna.upload_path(&session, "/chunks");
    refused_by_quota(anna.client.post_binary(&path, body(&[more])).await).await;
    // What is stored already needs no room: nodes, flush and commit go through, and so does reading.
    let _: Durable = ok(anna.client.post_binary(&anna.upload_path(&session, "/nodes"), body(&tree.nodes)).await).await;
    let flush = json!({"incarnation": session.incarnation});
    let _: Durable = ok(anna.client.post(&anna.upload_path(&session, "/flush"), &flush).await).await;
    anna.commit(&session, &tree).await;
    let id: &[u8] = tree.chunks[0].id.as_bytes();
    let read = anna.client.post_binary(&anna.path("/objects"), id.to_vec()).await;
    assert_eq!(read.status(), StatusCode::OK);

    // Logical: a snapshot that would pass the limit cannot begin.
    let logical = show(&operator, "user:anna").await.used_logical_bytes;
    let limits = json!({"logical_hard_bytes": logical});
    let set: Quota = ok(put(&operator, &limit_path("user:anna"), &limits).await).await;
    assert_eq!(set.limits.physical_hard_bytes, None, "a body sets all of a limit");
    let begin = BeginUpload { computer: "pc".into(), series: "s".into(), base_snapshot: None };
    let problem = refused_by_quota(anna.client.post(&anna.path("/uploads"), &begin).await).await;
    assert_eq!(problem.quota.unwrap().kind, QuotaKind::Logical);
}

#[tokio::test]
async fn limits_of_customer_and_partner_hold_over_their_users() {
    let server = Server::start();
    let operator = operator(&server);
    let user = |name: &str, customer: &str| -> VaultClient {
        let added: Value = server.json(&["user", "add", name, "--customer", customer, "--json"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        VaultClient { client: server.client(&text(&added["token"]["secret"])), vault: text(&added["user"]["vault"]) }
    };
    let (anna, bert, carl) = (user("anna", "acme"), user("bert", "acme"), user("carl", "other"));
    for customer in ["acme", "other"] {
        assert!(server.command(&["quota", "partner", customer, "north"]).status.success());
    }
    set_physical(&operator, "customer:acme", 150_000).await;
    set_physical(&operator, "partner:north", 250_000).await;
    let send = async |client: &VaultClient, salt: u8| {
        let keys = client.keys().await;
        let plaintext: Vec<u8> =
            (0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ salt).collect();
        let raw = Sent { codec: 0, payload: plaintext.clone(), ..chunk(&keys, &plaintext) };
        let session = client.begin().await;
        client.client.post_binary(&client.upload_path(&session, "/chunks"), body(&[raw])).await
    };
    let received: Received = ok(send(&anna, 1).await).await;
    assert_eq!(received.new_objects, 1);
    let problem = refused_by_quota(send(&bert, 2).await).await;
    assert_eq!(problem.quota.unwrap().limit, "customer:acme");
    let _: Received = ok(send(&carl, 3).await).await;
    let problem = refused_by_quota(send(&carl, 4).await).await;
    let figures = problem.quota.unwrap();
    assert_eq!(figures.limit, "partner:north");
    assert!(figures.used_bytes + figures.reserved_bytes > 200_000);

    let of_anna: Quotas = ok(anna.client.get(&anna.path("/quotas")).await).await;
    let names: Vec<&str> = of_anna.quotas.iter().map(|quota| quota.limit.as_str()).collect();
    assert_eq!(names, [&format!("vault:{}", anna.vault), "user:acme/anna", "customer:acme", "partner:north"]);
    refused(anna.client.get(&carl.path("/quotas")).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    assert!(server.command(&["quota", "partner", "other", "--none"]).status.success());
    let _: Received = ok(send(&carl, 4).await).await;
}

#[tokio::test]
async fn soft_limits_are_noticed_and_quotas_survive_a_restart() {
    let server = Server::start();
    let anna = server.user("anna");
    let keys = anna.keys().await;
    let set = ["quota", "set", "user:anna", "--physical-soft", "1KiB", "--logical", "1GiB", "--json"];
    let set: Quota = server.json(&set);
    assert_eq!((set.limits.physical_soft_bytes, set.limits.logical_hard_bytes), (Some(1024), Some(1 << 30)));
    let session = anna.begin().await;
    assert!(session.notices.is_empty());
    let tree = Tree::build(&keys, 0);
    let _: Received =
        ok(anna.client.post_binary(&anna.upload_path(&session, "/chunks"), body(&tree.chunks)).await).await;
    let durable: Durable =
        ok(anna.client.post_binary(&anna.upload_path(&session, "/nodes"), body(&tree.nodes)).await).await;
    let notice = &durable.notices[0];
    assert_eq!((notice.limit.as_str(), notice.kind), ("user:default/anna", QuotaKind::Physical));
    assert_eq!((notice.soft_bytes, notice.hard_bytes), (1024, None));
    assert!(notice.used_bytes > 1024 && durable.notices.len() == 1);
    let metrics = server.metrics().await;
    assert!(metrics.contains("holdfast_quota_limits{kind=\"physical\",state=\"soft_exceeded\"} 1"), "{metrics}");
    let reserved = show(&operator(&server), "user:anna").await.reserved_logical_bytes;
    assert!(reserved > 0);

    // One more bound, the others stay; then everything again after a stop without warning.
    let more: Quota = server.json(&["quota", "set", "user:anna", "--physical", "10MiB", "--json"]);
    assert_eq!(more.limits.logical_hard_bytes, Some(1 << 30));
    let data = server.data().to_owned();
    server.signal("-KILL");
    let mut server = server;
    server.wait();
    let again = Server::start_on(&data, &[]);
    let shown: Quotas = again.json(&["quota", "show", "--json"]);
    let [quota] = shown.quotas.as_slice() else { panic!("{shown:?}") };
    assert_eq!((quota.limit.as_str(), quota.limits), ("user:default/anna", more.limits));
    assert_eq!(quota.used_physical_bytes, more.used_physical_bytes);
    assert_eq!(quota.reserved_logical_bytes, reserved, "the snapshot under way keeps its room");
    let anna = VaultClient { client: again.client(&anna.client.secret), vault: anna.vault };
    let session: UploadSession = ok(anna.client.get(&anna.upload_path(&session, "")).await).await;
    anna.commit(&session, &tree).await;
    let text = String::from_utf8(again.command(&["quota", "show", "user:anna"]).stdout).unwrap();
    assert!(text.contains("above the soft limit") && text.contains("10 MiB"), "{text}");
    let lifted: Quota = again.json(&[
        "quota",
        "set",
        "user:anna",
        "--physical",
        "none",
        "--physical-soft",
        "none",
        "--logical",
        "none",
        "--json",
    ]);
    assert_eq!(lifted.limits, api::quota::QuotaLimits::default());
    let shown: Quotas = again.json(&["quota", "show", "--json"]);
    assert!(shown.quotas.is_empty());
}

#[tokio::test]
async fn only_operators_set_quotas_and_nonsense_is_refused() {
    let server = Server::start();
    let anna = server.user("anna");
    let operator = operator(&server);
    let limits = json!({"physical_hard_bytes": 1});
    for response in [
        anna.client.get("/api/v1/quotas").await,
        anna.client.get(&limit_path("user:anna")).await,
        put(&anna.client, &limit_path("user:anna"), &limits).await,
        put(&anna.client, "/api/v1/customers/default/partner", &json!({"partner": "x"})).await,
    ] {
        refused(response, StatusCode::FORBIDDEN, Code::Forbidden).await;
    }
    for bad in ["user:nobody", "customer:nobody", "vault:00", "thing:x", "x"] {
        refused(put(&operator, &limit_path(bad), &limits).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    let typo = json!({"physical_hard": 1});
    refused(put(&operator, &limit_path("user:anna"), &typo).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let none = server.command(&["quota", "set", "user:anna"]);
    assert_eq!(none.status.code(), Some(1));
    let partner = ["quota", "partner", "nobody", "north"];
    assert_eq!(server.command(&partner).status.code(), Some(1));
}

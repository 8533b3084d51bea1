//! Starting, stopping, a full disk, and mistakes at the start.

use crate::harness::{Server, Tree, VaultClient, body, ok, program, refused};
use api::problem::Code;
use api::upload::{Durable, Received};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_running_upload_finishes_before_the_server_stops() {
    let mut server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 5);
    let session = anna.begin().await;
    let upload = |rest| anna.upload_path(&session, rest);
    let _: Received = ok(anna.client.post_binary(&upload("/chunks"), body(&tree.chunks)).await).await;
    server.signal("-TERM");
    let begin = json!({"computer": "c", "series": "s"});
    let ready = loop {
        let ready = anna.client.get("/readyz").await;
        if ready.status() != StatusCode::OK {
            break ready;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready: Value = ready.json().await.unwrap();
    assert_eq!(ready["status"], "draining");
    let refusal = anna.client.post(&anna.path("/uploads"), &begin).await;
    assert!(refusal.headers().contains_key("retry-after"));
    refused(refusal, StatusCode::SERVICE_UNAVAILABLE, Code::Retry).await;
    let _: Durable = ok(anna.client.post_binary(&upload("/nodes"), body(&tree.nodes)).await).await;
    anna.commit(&session, &tree).await;
    assert!(server.wait().success(), "{}", server.log());
    assert!(!server.data().join("run/address").exists());
    let log = server.log();
    assert!(log.contains("stopped") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let mut server = Server::start_with(&["--drain-seconds", "3600"]);
    let anna = server.user("anna");
    anna.begin().await;
    server.signal("-TERM");
    while anna.client.get("/readyz").await.status() == StatusCode::OK {
        tokio::task::yield_now().await;
    }
    server.signal("-INT");
    assert!(server.wait().success());
}

#[tokio::test]
async fn a_full_disk_is_said_before_the_body_is_read() {
    let server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 6);
    let snapshot = anna.backup(&tree).await;
    let session = anna.begin().await;
    let (data, secret) = (server.data().to_owned(), anna.client.secret.clone());
    let folder = server.stop();

    let server = Server::start_on(&data, &["--disk-reserve-bytes", &u64::MAX.to_string()]);
    let client = server.client(&secret);
    let begin = json!({"computer": "c", "series": "s"});
    refused(client.post(&anna.path("/uploads"), &begin).await, StatusCode::INSUFFICIENT_STORAGE, Code::ServerDiskFull)
        .await;
    for rest in ["/chunks", "/nodes"] {
        // Large enough that the answer must reach a client that is still writing.
        let body = vec![0u8; 20 << 20];
        let answer = client.post_binary(&anna.upload_path(&session, rest), body).await;
        let problem = refused(answer, StatusCode::INSUFFICIENT_STORAGE, Code::ServerDiskFull).await;
        assert!(problem.detail.contains("free space"), "{}", problem.detail);
    }
    let ready: Value = ok(client.get("/readyz").await).await;
    assert!(ready["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains("disk")));
    assert!(server.metrics().await.contains("holdfast_disk_full 1"));
    // Reading goes on.
    let small = client.get(&anna.path(&format!("/snapshots/{}/content?path=/docs/small", snapshot.id))).await;
    assert!(small.bytes().await.unwrap() == tree.small);
    server.stop();

    let server = Server::start_on(&data, &[]);
    let client = server.client(&secret);
    let session: api::upload::UploadSession = ok(client.get(&anna.upload_path(&session, "")).await).await;
    let _: Received = ok(client.post_binary(&anna.upload_path(&session, "/chunks"), body(&tree.chunks)).await).await;
    drop((server, folder));
}

#[tokio::test]
async fn mistakes_at_the_start_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let failing = |arguments: &[&str], expected: &str| {
        let output = program(&data).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{arguments:?}: {text}");
    };
    failing(&["user", "list"], "no server is running");
    failing(&["serve", "--certificate", "/nothing.pem"], "private_key");
    failing(&["serve", "--log", "=x=="], "setting `log`");
    failing(&["--config", "/nothing.toml", "serve"], "/nothing.toml");
    failing(&["serve", "--listen", "192.0.2.1:1"], "cannot listen on 192.0.2.1:1");

    let server = Server::start_on(&data, &[]);
    failing(&["serve", "--listen", "127.0.0.1:0"], "in use by a running server");
    failing(&["rebuild-index"], "in use by a running server");
    failing(&["master-key", "rotate"], "in use by a running server");
    server.stop();
    failing(&["user", "list"], "no server is running");

    let key = std::fs::read(data.join("master.key")).unwrap();
    std::fs::remove_file(data.join("master.key")).unwrap();
    failing(&["serve"], "put the master key from the recovery sheet back");
    let other = server::master_key::generate().unwrap();
    server::master_key::store(&data.join("master.key"), &other).unwrap();
    failing(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"], "wrong key");
    std::fs::write(data.join("master.key"), &key).unwrap();
    Server::start_on(&data, &[]).stop();
}

#[tokio::test]
async fn http2_is_offered_and_metrics_have_a_door_of_their_own() {
    let server = Server::start();
    let pem = std::fs::read(server.data().join("run/certificate.pem")).unwrap();
    let client = server.client("");
    let http2 =
        reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]).build().unwrap();
    let answer = http2.get(format!("{}/api/v1/info", client.base)).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    refused(client.get("/metrics").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let document: Value = ok(client.get("/api/v1/openapi.json").await).await;
    assert!(document["paths"]["/api/v1/info"].is_object());
    let door = format!("http://{}", server.run_file("metrics-address"));
    assert_eq!(client.http.get(format!("{door}/healthz")).send().await.unwrap().text().await.unwrap(), "ok\n");
    assert!(client.http.get(format!("{door}/readyz")).send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_change_of_the_master_key_survives_being_cut_short() {
    let server = Server::start();
    let anna = server.user("anna");
    let keys = anna.keys().await.to_bytes();
    let (data, secret) = (server.data().to_owned(), anna.client.secret.clone());
    let folder = server.stop();
    let (key, next) = (data.join("master.key"), data.join("master.key.next"));
    let old = std::fs::read(&key).unwrap();
    let opens = |expected: Vec<u8>| {
        let (data, secret, key, next, vault) =
            (data.clone(), secret.clone(), key.clone(), next.clone(), anna.vault.clone());
        async move {
            let server = Server::start_on(&data, &[]);
            let anna = VaultClient { client: server.client(&secret), vault };
            assert_eq!(anna.keys().await.to_bytes(), keys);
            server.stop();
            assert_eq!(std::fs::read(&key).unwrap(), expected);
            assert!(!next.exists());
        }
    };
    // Cut before the keyring was wrapped again: the waiting key opens nothing.
    server::master_key::store(&next, &server::master_key::generate().unwrap()).unwrap();
    opens(old.clone()).await;
    // Cut behind it: the waiting key is the one.
    assert!(program(&data).args(["master-key", "rotate"]).output().unwrap().status.success());
    let new = std::fs::read(&key).unwrap();
    assert_ne!(new, old);
    server::master_key::store(&next, &server::master_key::read_file(&key, true).unwrap()).unwrap();
    std::fs::write(&key, &old).unwrap();
    opens(new).await;
    drop(folder);
}

#[tokio::test]
async fn what_is_not_tls_is_turned_away() {
    let server = Server::start();
    let mut stream = tokio::net::TcpStream::connect(server.run_file("address")).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    assert!(server.metrics().await.contains("holdfast_tls_handshake_failures_total 1"));
}

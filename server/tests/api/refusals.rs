//! Every wrong request has its own clear answer and leaves nothing behind.

use crate::harness::{Sent, Server, Tree, VaultClient, body, chunk, ok, refused, token};
use api::problem::{Code, Problem};
use repo_format::id::{ObjectId, ObjectKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn nothing_is_stored(server: &Server) {
    let vaults: Value = server.json(&["vault", "list", "--json"]);
    for vault in vaults["vaults"].as_array().unwrap() {
        assert_eq!((&vault["physical_bytes"], &vault["pending_bytes"]), (&json!(0), &json!(0)), "{vault}");
    }
}

#[tokio::test]
async fn wrong_and_expired_tokens() {
    let server = Server::start();
    let anna = server.user("anna");
    let no_token = anna.client.http.get(format!("{}/api/v1/me", anna.client.base)).send().await.unwrap();
    assert_eq!(no_token.headers()["www-authenticate"], "Bearer");
    refused(no_token, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    let mut changed = anna.client.secret.clone().into_bytes();
    changed[10] = if changed[10] == b'x' { b'y' } else { b'x' };
    let links = "hfo_0000000000000000000000000000000000000000000_000000";
    for secret in ["", "hf_", "nonsense", links, std::str::from_utf8(&changed).unwrap()] {
        let answer = server.client(secret).get("/api/v1/me").await;
        refused(answer, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    }
    let expired = token(&server, &["--vault", &anna.vault, "--valid-seconds", "0"]);
    let answer = server.client(&expired.secret).get("/api/v1/me").await;
    refused(answer, StatusCode::UNAUTHORIZED, Code::TokenExpired).await;
}

#[tokio::test]
async fn a_foreign_vault_looks_like_none() {
    let server = Server::start();
    let (anna, bert) = (server.user("anna"), server.user("bert"));
    let operator = server.client(&server.run_file("local-token"));
    let without_instance = |mut problem: Problem| {
        problem.instance = None;
        serde_json::to_value(problem).unwrap()
    };
    let session = "0123456789abcdef0123456789abcdef";
    for (method, rest) in [
        (Method::GET, "/keys".to_owned()),
        (Method::GET, "/snapshots".into()),
        (Method::GET, format!("/snapshots/{session}")),
        (Method::GET, format!("/snapshots/{session}/entries?path=/")),
        (Method::GET, format!("/snapshots/{session}/content?path=/a")),
        (Method::POST, "/objects".into()),
        (Method::GET, format!("/uploads/{session}")),
        (Method::DELETE, format!("/uploads/{session}")),
        (Method::POST, format!("/uploads/{session}/have")),
        (Method::POST, format!("/uploads/{session}/chunks")),
        (Method::POST, format!("/uploads/{session}/nodes")),
        (Method::GET, "/retention".into()),
        (Method::GET, String::new()),
    ] {
        // An operator looks after every vault, but reads and writes none.
        let is_about_the_vault =
            rest.is_empty() || rest == "/retention" || rest == "/snapshots" || rest == format!("/snapshots/{session}");
        let mut answers = Vec::new();
        for vault in [bert.vault.as_str(), session, "no-id-at-all"] {
            let path = format!("/api/v1/vaults/{vault}{rest}");
            let request = anna.client.request(method.clone(), &path).header("content-type", api::BINARY);
            let answer = request.send().await.unwrap();
            answers.push(without_instance(refused(answer, StatusCode::NOT_FOUND, Code::NotFound).await));
            let by_operator = operator.request(method.clone(), &path).send().await.unwrap();
            if !is_about_the_vault {
                refused(by_operator, StatusCode::FORBIDDEN, Code::Forbidden).await;
            }
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{rest}: {answers:?}");
    }
}

#[tokio::test]
async fn paths_methods_types_and_versions() {
    let server = Server::start();
    let anna = server.user("anna");
    let client = &anna.client;
    refused(client.get("/api/v1/nothing").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    refused(client.get("/").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let wrong_method = client.request(Method::PUT, "/api/v1/me").send().await.unwrap();
    assert!(wrong_method.headers().contains_key("allow"));
    refused(wrong_method, StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed).await;
    let not_text = client.get("/api/v1/vaults/%FF/keys").await;
    refused(not_text, StatusCode::BAD_REQUEST, Code::BadRequest).await;

    let uploads = anna.path("/uploads");
    let post = |kind: &str, body: &'static str| {
        client.request(Method::POST, &uploads).header("content-type", kind.to_owned()).body(body).send()
    };
    refused(post("text/plain", "{}").await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType)
        .await;
    refused(post("application/json", "{}").await.unwrap(), StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(post("application/json", "{\"comp").await.unwrap(), StatusCode::BAD_REQUEST, Code::TruncatedBody).await;
    for begin in [json!({"computer": "", "series": "s"}), json!({"computer": "x".repeat(2000), "series": "s"})] {
        refused(client.post(&uploads, &begin).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    let base = json!({"computer": "c", "series": "s", "base_snapshot": "00".repeat(16)});
    refused(client.post(&uploads, &base).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let session = anna.begin().await;
    let json_chunks = client.post(&anna.upload_path(&session, "/chunks"), &json!({})).await;
    refused(json_chunks, StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType).await;

    let other = client.request(Method::GET, "/api/v1/me").header(api::PROTOCOL_HEADER, "999").send().await.unwrap();
    let problem = refused(other, StatusCode::UPGRADE_REQUIRED, Code::UpgradeRequired).await;
    assert!(problem.detail.contains("999"), "{}", problem.detail);
    let same = client.request(Method::GET, "/api/v1/me").header(api::PROTOCOL_HEADER, api::PROTOCOL_VERSION);
    assert_eq!(same.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn wrong_objects() {
    let server = Server::start();
    let anna = server.user("anna");
    let keys = anna.keys().await;
    let session = anna.begin().await;
    let (chunks, nodes) = (anna.upload_path(&session, "/chunks"), anna.upload_path(&session, "/nodes"));
    let good = chunk(&keys, &[b'z'; 5000]);

    let other_id = Sent { id: ObjectId::from_bytes([9; 32]), ..good.clone() };
    let answer = anna.client.post_binary(&chunks, body(&[other_id])).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, Code::IdMismatch).await;

    // A bomb: a megabyte of zeros compressed, declared as one byte; and one declared as larger than it is.
    let bomb = chunk(&keys, &vec![0; 1 << 20]);
    for plain_len in [1, (1 << 20) - 1, (1 << 20) + 1] {
        let answer = anna.client.post_binary(&chunks, body(&[Sent { plain_len, ..bomb.clone() }])).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, Code::BadCompression).await;
    }
    let unknown_codec = anna.client.post_binary(&chunks, body(&[Sent { codec: 77, ..good.clone() }])).await;
    refused(unknown_codec, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let too_long = anna.client.post_binary(&chunks, body(&[Sent { plain_len: u32::MAX, ..good.clone() }])).await;
    assert!(too_long.status().is_client_error(), "{}", too_long.status());
    let as_node = anna.client.post_binary(&chunks, body(&[Sent { kind: ObjectKind::Node, ..good.clone() }])).await;
    refused(as_node, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let as_chunk = anna.client.post_binary(&nodes, body(std::slice::from_ref(&good))).await;
    refused(as_chunk, StatusCode::BAD_REQUEST, Code::BadRequest).await;

    let tree = Tree::build(&keys, 3);
    let missing = anna.client.post_binary(&nodes, body(&tree.nodes)).await;
    let problem = refused(missing, StatusCode::CONFLICT, Code::MissingObjects).await;
    assert!(problem.missing.contains(&tree.chunks[5].id.to_string()));
    let no_node = Sent {
        id: keys.node_id(b"no node").into(),
        kind: ObjectKind::Node,
        codec: 0,
        plain_len: 7,
        payload: b"no node".to_vec(),
    };
    let answer = anna.client.post_binary(&nodes, body(&[no_node])).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, Code::BadNode).await;
    let commit = json!({"root": "11".repeat(32), "summary": api::upload::RunSummary::default()});
    let answer = anna.client.post(&anna.upload_path(&session, "/commit"), &commit).await;
    refused(answer, StatusCode::CONFLICT, Code::MissingObjects).await;
    nothing_is_stored(&server).await;
}

#[tokio::test]
async fn truncated_and_oversized_bodies() {
    let server = Server::start();
    let anna = server.user("anna");
    let keys = anna.keys().await;
    let session = anna.begin().await;
    let chunks = anna.upload_path(&session, "/chunks");
    let whole = body(&[chunk(&keys, b"first chunk"), chunk(&keys, b"second chunk")]);
    for len in [0, 3, 20, whole.len() - 9, whole.len() - 1] {
        let answer = anna.client.post_binary(&chunks, whole.slice(..len)).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::TruncatedBody).await;
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    refused(anna.client.post_binary(&chunks, longer).await, StatusCode::BAD_REQUEST, Code::TruncatedBody).await;
    let mut reserved = whole.to_vec();
    reserved[6] = 1;
    refused(anna.client.post_binary(&chunks, reserved).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let mut huge_record = whole.to_vec();
    huge_record[..4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    refused(anna.client.post_binary(&chunks, huge_record).await, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;

    // Declared as too large, and too large without a declaration.
    let large = vec![0u8; api::upload::UPLOAD_BODY_BYTES_MAX + 1];
    refused(anna.client.post_binary(&chunks, large).await, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;
    let have = anna.upload_path(&session, "/have");
    let ids = vec![1u8; 32 * (api::upload::HAVE_IDS_MAX + 1)];
    refused(anna.client.post_binary(&have, ids).await, StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;
    refused(anna.client.post_binary(&have, vec![1u8; 33]).await, StatusCode::BAD_REQUEST, Code::TruncatedBody).await;
    let json = format!("{{\"computer\": \"{}\"}}", "x".repeat(2 << 20));
    let answer = anna.client.request(Method::POST, &anna.path("/uploads")).header("content-type", "application/json");
    refused(answer.body(json).send().await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge).await;
    nothing_is_stored(&server).await;
    cut_connection(&server, &anna, &chunks, &whole).await;
    nothing_is_stored(&server).await;
}

/// Sends half of a body and ends the connection; answers when the server has counted the request.
async fn cut_connection(server: &Server, anna: &VaultClient, path: &str, whole: &[u8]) {
    let pem = std::fs::read(server.data().join("run/certificate.pem")).unwrap();
    let certificate: rustls_pki_types::CertificateDer<'static> =
        rustls_pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(server.run_file("address")).await.unwrap();
    let name = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        anna.client.secret,
        api::BINARY,
        whole.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&whole[..whole.len() / 2]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The server may close before or after its answer.
    let _ = stream.read_to_end(&mut answer).await;
    let counted = "method=\"POST\",route=\"/api/v1/vaults/{vault}/uploads/{session}/chunks\",status=\"400\"}";
    let refused_before = 7;
    let was_refused = async {
        loop {
            let metrics = server.metrics().await;
            let line = metrics.lines().find(|line| line.contains(counted)).unwrap_or_default().to_owned();
            if line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0) > refused_before {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), was_refused).await.expect("the cut request is counted as refused");
}

#[tokio::test]
async fn wrong_questions_about_snapshots() {
    let server = Server::start();
    let anna = server.user("anna");
    let tree = Tree::build(&anna.keys().await, 4);
    let snapshot = anna.backup(&tree).await;
    let path = |rest: &str| anna.path(&format!("/snapshots/{}{rest}", snapshot.id));
    let get = |rest: &str| {
        let path = path(rest);
        let client = anna.client.clone();
        async move { client.get(&path).await }
    };
    refused(get("/entries?path=/nothing").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    refused(get("/entries?path=/docs/small").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    refused(get("/entries?path=/docs/..").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(get("/entries?path=/docs&limit=x").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(get("/entries?path=/docs&after=a/b").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(get("/content").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(get("/content?path=/docs").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    refused(get("/content?path=/docs/none").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let outside = anna.client.request(Method::GET, &path("/content?path=/docs/small")).header("range", "bytes=1000-");
    let outside = outside.send().await.unwrap();
    assert_eq!(outside.headers()["content-range"], "bytes */1000");
    refused(outside, StatusCode::RANGE_NOT_SATISFIABLE, Code::RangeNotSatisfiable).await;
    let head = anna.client.request(Method::HEAD, &path("/content?path=/docs/small")).send().await.unwrap();
    assert_eq!((head.status(), head.headers()["content-length"].to_str().unwrap()), (StatusCode::OK, "1000"));
    let other = anna.begin().await;
    let conflict = json!({"root": tree.nodes[0].id.to_string(), "summary": api::upload::RunSummary::default()});
    anna.commit(&other, &tree).await;
    let answer = anna.client.post(&anna.upload_path(&other, "/commit"), &conflict).await;
    refused(answer, StatusCode::CONFLICT, Code::Conflict).await;
    let _: Value = ok(anna.client.get(&anna.path("/snapshots")).await).await;
}

//! Data in and out: upload, commit, browse, objects, ranges, restart, rebuild, change of the master key.

use crate::harness::{ODD_NAME, Server, Tree, VaultClient, body, ok, refused};
use api::browse::{Entries, Snapshots};
use api::objects::{BodyDecoder, CODEC_ABSENT, Record};
use api::problem::Code;
use api::upload::{Durable, Received};
use repo_format::compress::{Codec, decompress};
use reqwest::{Method, StatusCode};
use std::path::Path;

async fn objects(anna: &VaultClient, ids: &[u8]) -> Vec<Record> {
    let response = anna.client.post_binary(&anna.path("/objects"), ids.to_vec()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut decoder = BodyDecoder::default();
    decoder.push(&response.bytes().await.unwrap());
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        records.push(record);
    }
    decoder.finish().unwrap();
    records
}

async fn check_everything(anna: &VaultClient, tree: &Tree, snapshot: &str) {
    let snapshots: Snapshots = ok(anna.client.get(&anna.path("/snapshots")).await).await;
    let found = snapshots.snapshots.iter().find(|found| found.id == snapshot).unwrap();
    assert_eq!(
        (found.root.clone(), found.logical_bytes),
        (tree.root.to_string(), (tree.small.len() + tree.large.len()) as u64)
    );
    assert_eq!((found.computer.as_str(), found.summary.files), ("pc", 2));

    let in_snapshot = |rest: &str| anna.path(&format!("/snapshots/{snapshot}{rest}"));
    let root: Entries = ok(anna.client.get(&in_snapshot("/entries")).await).await;
    assert_eq!(root.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["docs"]);
    let docs: Entries = ok(anna.client.get(&in_snapshot("/entries?path=/docs")).await).await;
    let names: Vec<_> = docs.entries.iter().map(|entry| (entry.name.as_str(), entry.kind.as_str())).collect();
    assert_eq!(names, [("large", "file"), ("odd%20%FF%20name", "symlink"), ("small", "file")]);
    assert_eq!(docs.entries[0].size, tree.large.len() as u64);
    assert_eq!(docs.entries[0].modified_ns, (-5_000_000_000i64 + 7).to_string());
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page: Entries =
            ok(anna.client.get(&in_snapshot(&format!("/entries?path=/docs&limit=1{after}"))).await).await;
        paged.extend(page.entries);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paged.len(), ODD_NAME.len().min(3));

    let large = anna.client.get(&in_snapshot("/content?path=/docs/large")).await;
    assert_eq!(large.headers()["content-length"], tree.large.len().to_string().as_str());
    assert!(large.bytes().await.unwrap() == tree.large, "the large file differs");
    let small = anna.client.get(&in_snapshot("/content?path=%2Fdocs%2Fsmall")).await;
    assert!(small.bytes().await.unwrap() == tree.small);
    // Around the hole, within one element, across many, and at the end.
    let hole = 151 * 27_000;
    let end = tree.large.len();
    for (start, stop) in [
        (0, 1),
        (26_999, 27_001),
        (hole - 5, hole + 5),
        (hole + 299_990, hole + 300_010),
        (5_000, 900_000),
        (end - 3, end),
    ] {
        let range = format!("bytes={start}-{}", stop - 1);
        let part = anna
            .client
            .request(Method::GET, &in_snapshot("/content?path=/docs/large"))
            .header("range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers()["content-range"], format!("bytes {start}-{}/{end}", stop - 1).as_str());
        assert!(part.bytes().await.unwrap() == tree.large[start..stop], "{start}..{stop}");
    }
}

#[tokio::test]
async fn what_goes_in_comes_out_after_restart_and_rebuild() {
    let server = Server::start();
    let anna = server.user("anna");
    let keys = anna.keys().await;
    let tree = Tree::build(&keys, 1);

    let session = anna.begin().await;
    let upload = |rest| anna.upload_path(&session, rest);
    let ids: Vec<u8> = tree.chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect();
    let none = anna.client.post_binary(&upload("/have"), ids.clone()).await;
    assert_eq!(none.headers()[api::upload::INCARNATION_HEADER], session.incarnation.to_string().as_str());
    assert_eq!(none.bytes().await.unwrap(), vec![0u8; tree.chunks.len()]);
    let received: Received = ok(anna.client.post_binary(&upload("/chunks"), body(&tree.chunks)).await).await;
    assert_eq!((received.new_objects, received.incarnation), (tree.chunks.len() as u64, session.incarnation));
    let again: Received = ok(anna.client.post_binary(&upload("/chunks"), body(&tree.chunks)).await).await;
    assert_eq!((again.new_objects, again.stored_bytes), (0, 0));
    assert_eq!(
        anna.client.post_binary(&upload("/have"), ids.clone()).await.bytes().await.unwrap(),
        vec![1u8; tree.chunks.len()]
    );
    let flush = api::upload::Flush { incarnation: session.incarnation };
    let _: Durable = ok(anna.client.post(&upload("/flush"), &flush).await).await;
    let durable: Durable = ok(anna.client.post_binary(&upload("/nodes"), body(&tree.nodes)).await).await;
    assert!(durable.new_objects > 2);
    let snapshot = anna.commit(&session, &tree).await;
    assert_eq!(anna.commit(&session, &tree).await, snapshot);
    check_everything(&anna, &tree, &snapshot.id).await;

    let mut wanted = ids.clone();
    wanted.extend_from_slice(&ids[..32]);
    wanted.extend_from_slice(&[0xEE; 32]);
    let records = objects(&anna, &wanted).await;
    assert_eq!(records.len(), tree.chunks.len() + 1);
    assert_eq!(records.iter().filter(|record| record.codec == CODEC_ABSENT).count(), 1);
    for record in records.iter().filter(|record| record.codec != CODEC_ABSENT) {
        let plaintext = decompress(Codec::from_byte(record.codec).unwrap(), &record.payload, record.plain_len).unwrap();
        assert_eq!(keys.chunk_id(&plaintext).as_bytes(), record.id.as_bytes());
    }
    let metrics = server.metrics().await;
    assert!(
        metrics.contains("route=\"/api/v1/vaults/{vault}/uploads/{session}/commit\",status=\"200\"} 2"),
        "{metrics}"
    );
    assert!(!metrics.contains(&anna.vault), "a vault id is a label");

    let vaults = |server: &Server| server.json::<serde_json::Value>(&["vault", "list", "--json"]);
    let before = vaults(&server);
    assert_eq!(before["vaults"][0]["pending_bytes"], 0);
    let (data, secret) = (server.data().to_owned(), anna.client.secret.clone());
    let folder = server.stop();
    let reopened = |server: &Server| VaultClient { client: server.client(&secret), vault: anna.vault.clone() };
    let server = Server::start_on(&data, &[]);
    check_everything(&reopened(&server), &tree, &snapshot.id).await;
    assert_eq!(vaults(&server), before);
    server.stop();

    std::fs::remove_dir_all(data.join("store/index")).unwrap();
    run(&data, &["rebuild-index"]);
    let rotated = run(&data, &["master-key", "rotate"]);
    assert!(rotated.contains("RECOVERY SHEET"));
    let server = Server::start_on(&data, &[]);
    check_everything(&reopened(&server), &tree, &snapshot.id).await;
    assert_eq!(vaults(&server), before);
    server.stop();
    drop(folder);
}

fn run(data: &Path, arguments: &[&str]) -> String {
    let output = crate::harness::program(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_aborted_session_is_gone() {
    let server = Server::start();
    let anna = server.user("anna");
    let session = anna.begin().await;
    let path = anna.upload_path(&session, "");
    let _: api::upload::UploadSession = ok(anna.client.get(&path).await).await;
    let gone = anna.client.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    refused(anna.client.get(&path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let empty = anna.client.post_binary(&anna.upload_path(&session, "/chunks"), body(&[])).await;
    refused(empty, StatusCode::NOT_FOUND, Code::NotFound).await;
}

#[tokio::test]
async fn vaults_share_nothing() {
    let server = Server::start();
    let (anna, bert) = (server.user("anna"), server.user("bert"));
    let tree = Tree::build(&anna.keys().await, 2);
    let snapshot = anna.backup(&tree).await;
    assert_ne!(anna.keys().await.to_bytes(), bert.keys().await.to_bytes());
    // The same ids, asked for with another vault's token.
    let session = bert.begin().await;
    let ids: Vec<u8> = tree.chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect();
    let have = bert.client.post_binary(&bert.upload_path(&session, "/have"), ids.clone()).await;
    assert!(have.bytes().await.unwrap().iter().all(|&present| present == 0));
    assert!(objects(&bert, &ids).await.iter().all(|record| record.codec == CODEC_ABSENT));
    let path = bert.path(&format!("/snapshots/{}", snapshot.id));
    refused(bert.client.get(&path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
}

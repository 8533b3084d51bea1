//! What the server refuses, each with its own code, leaving nothing behind and going on for others.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use api::problem::Code;
use api::upload::UPLOAD_BODY_BYTES_MAX;
use bytes::{BufMut, BytesMut};
use repo_format::id::{ChunkId, ObjectId, ObjectKind};
use repo_format::limits::CHUNK_BYTES_MAX;
use std::fs;
use tests::harness::{Login, Scene, User, Wire, one_record};
use tests::process;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

#[test]
fn tokens_and_certificates() {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    scene.backup(&source, 0).unwrap();

    let wrong = Wire::with_token(&scene.user, "hf_0000000000000000000000000000000000000000000").unwrap();
    let answer = wrong.get("/me").unwrap();
    assert_eq!((answer.status, answer.code()), (401, Some(Code::Unauthorized)));
    let stranger = Login::without_login(&scene.binaries, &scene.path("stranger"));
    let outcome = stranger.log_in(&User { token: "hf_wrong".into(), ..scene.user.clone() }).unwrap();
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.to_lowercase().contains("token"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hf_wrong"), "a secret was printed: {}", outcome.stderr);
    let outcome = stranger.run(["snapshots"]).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("login"), "{}", outcome.stderr);

    let other = User { fingerprint: format!("sha256:{}", "ab".repeat(32)), ..scene.user.clone() };
    let outcome = stranger.log_in(&other).unwrap();
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("certificate"), "{}", outcome.stderr);

    let server = scene.server().unwrap();
    let short = ["token", "add", "short", "--vault", &scene.user.vault, "--valid-seconds", "1", "--json"];
    let made: serde_json::Value = serde_json::from_str(&server.administer(&scene.binaries, &short).unwrap()).unwrap();
    let secret = made.pointer("/secret").or(made.pointer("/token/secret")).unwrap().as_str().unwrap();
    let expired = Wire::with_token(&scene.user, secret).unwrap();
    let mut answer = expired.get("/me").unwrap();
    while answer.status == 200 {
        answer = expired.get("/me").unwrap();
    }
    assert_eq!((answer.status, answer.code()), (401, Some(Code::TokenExpired)));

    // Another's vault does not exist for me.
    let foreign = server.add_user(&scene.binaries, "foreign").unwrap();
    let foreign = Wire::connect(&User { vault: scene.user.vault.clone(), ..foreign }).unwrap();
    for path in ["keys", "snapshots"] {
        let answer = foreign.get(&format!("/vaults/{}/{path}", foreign.vault)).unwrap();
        assert_eq!((answer.status, answer.code()), (404, Some(Code::NotFound)), "{path}");
    }
    let answer = foreign
        .post_json(&format!("/vaults/{}/uploads", foreign.vault), &serde_json::json!({"computer": "a", "series": "b"}));
    assert_eq!(answer.unwrap().code(), Some(Code::NotFound));
    assert_eq!(scene.snapshots().unwrap().len(), 1);
}

#[test]
fn hostile_bodies() {
    let scene = Scene::new().unwrap();
    let wire = Wire::connect(&scene.user).unwrap();
    let keys = wire.id_keys().unwrap();
    let session = wire.begin().unwrap();
    let chunks = format!("{session}/chunks");
    let content = scene.seed.stream("chunk").bytes(5000);
    let id = ObjectId::from(keys.chunk_id(&content));
    let len = content.len() as u32;
    let good = one_record(ObjectKind::Chunk, RAW, len, &id, &content);

    let mut expectations = Vec::new();
    let other = ObjectId::from(ChunkId::from_bytes([9; 32]));
    expectations.push(("foreign id", one_record(ObjectKind::Chunk, RAW, len, &other, &content), 422, Code::IdMismatch));
    let mut flipped = content.clone();
    flipped[4000] ^= 1;
    expectations.push((
        "changed content",
        one_record(ObjectKind::Chunk, RAW, len, &id, &flipped),
        422,
        Code::IdMismatch,
    ));
    expectations.push(("no end", good.slice(..good.len() - 8), 400, Code::TruncatedBody));
    expectations.push(("cut in a record", good.slice(..good.len() / 2), 400, Code::TruncatedBody));
    let wrong_len = one_record(ObjectKind::Chunk, RAW, len - 1, &id, &content);
    expectations.push(("wrong length", wrong_len, 422, Code::BadCompression));
    let garbage = one_record(ObjectKind::Chunk, ZSTD, len, &id, &content);
    expectations.push(("not zstd", garbage, 422, Code::BadCompression));
    let zeros = vec![0; 256 << 20];
    let packed = zstd::bulk::compress(&zeros, 3).unwrap();
    let bomb = one_record(ObjectKind::Chunk, ZSTD, CHUNK_BYTES_MAX as u32, &id, &packed);
    expectations.push(("bomb", bomb, 422, Code::BadCompression));
    let small_bomb = one_record(ObjectKind::Chunk, ZSTD, 10, &id, &packed);
    expectations.push(("bomb that claims ten bytes", small_bomb, 422, Code::BadCompression));
    let unknown_codec = one_record(ObjectKind::Chunk, 77, len, &id, &content);
    expectations.push(("unknown codec", unknown_codec, 400, Code::BadRequest));
    let mut too_long = BytesMut::new();
    too_long.put_u32_le(CHUNK_BYTES_MAX as u32 + 100);
    too_long.put_bytes(0, 100);
    expectations.push(("record above every limit", too_long.freeze(), 413, Code::TooLarge));
    let huge = vec![0; UPLOAD_BODY_BYTES_MAX + 1].into();
    expectations.push(("body above every limit", huge, 413, Code::TooLarge));
    for (what, body, status, code) in expectations {
        let answer = wire.post_binary(&chunks, body).unwrap();
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!((answer.status, answer.code()), (status, Some(code)), "{what}: {said}");
        assert_eq!(wire.have(&session, &[id, other]).unwrap(), [false, false], "{what} left something behind");
    }
    let answer = wire.post_json(&chunks, &serde_json::json!({})).unwrap();
    assert_eq!(answer.code(), Some(Code::UnsupportedMediaType));

    // A chunk's bytes never pass as a node, and a node that names what is not there is refused with the list.
    let answer = wire.post_binary(&format!("{session}/nodes"), one_record(ObjectKind::Node, RAW, len, &id, &content));
    let answer = answer.unwrap();
    assert!(matches!(answer.code(), Some(Code::IdMismatch | Code::BadNode)), "{}", answer.status);

    let answer = wire.post_binary(&chunks, good).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(wire.have(&session, &[id, other]).unwrap(), [true, false]);
    let (_, peak) = process::memory(scene.server().unwrap().pid());
    assert!(peak > 0 && peak < 300_000_000, "the server took {peak} bytes");
}

//! The committed description of the API is the one the code makes.
#![allow(clippy::unwrap_used, reason = "a failure here is the failure of the test")]

#[test]
fn the_committed_description_is_current() {
    let made = server::http::openapi_document().unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    // Not assert_eq: the texts are long, and the way out is one command.
    assert!(
        made == committed,
        "server/openapi.json is not current: run `cargo run -p server -- openapi > server/openapi.json`"
    );
    let parsed: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(parsed["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    let commit = &parsed["paths"]["/api/v1/vaults/{vault}/uploads/{session}/commit"]["post"];
    assert!(commit["responses"]["default"]["content"]["application/problem+json"].is_object());
}

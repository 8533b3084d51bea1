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
    assert_eq!(parsed["info"]["title"], "Holdfast");
    let problem = &parsed["components"]["schemas"]["Problem"];
    assert_eq!(problem["required"], serde_json::json!(["type", "title", "status", "detail", "code"]));
    for member in ["missing", "limit_bytes", "free"] {
        assert!(problem["properties"][member].is_object(), "{member}: {problem}");
    }
}

/// `routes.csv` says of every route what it asks for: a verb of the matrix, `operator` (`operator+step-up` where it takes
/// a fresh factor), `any` (whoever is known), `computer` (the credential of an enrolled one), or `public`.
#[test]
fn every_route_says_what_it_asks_for() {
    let described: serde_json::Value = serde_json::from_str(&server::http::openapi_document().unwrap()).unwrap();
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.strip_prefix(api::PREFIX).unwrap();
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.to_owned())));
    }
    let mut listed: Vec<(String, String)> = Vec::new();
    for line in server::app::auth::ROUTES.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 3, "{line}");
        let is_known = matches!(fields[2], "operator" | "operator+step-up" | "any" | "computer" | "public")
            || server::app::Verb::named(fields[2]).is_some();
        assert!(is_known, "{line}: no such right");
        listed.push((fields[0].to_owned(), fields[1].to_owned()));
    }
    routes.sort();
    listed.sort();
    let missing: Vec<_> = routes.iter().filter(|route| !listed.contains(route)).collect();
    let unknown: Vec<_> = listed.iter().filter(|route| !routes.contains(route)).collect();
    assert!(missing.is_empty(), "not in server/src/app/auth/routes.csv: {missing:?}");
    assert!(unknown.is_empty(), "in routes.csv, but no routes: {unknown:?}");
    assert_eq!(routes.len(), listed.len(), "a route stands twice");
}

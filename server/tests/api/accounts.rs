//! Administration, tokens, the operator link and the master key.

use crate::harness::{Server, ok, program, refused, token};
use api::accounts::{Me, NewToken, Right, Tokens, Users, Vaults};
use api::problem::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[tokio::test]
async fn a_first_start_says_everything_once() {
    let server = Server::start();
    let output = std::fs::read_to_string(&server.output).unwrap();
    for expected in ["HOLDFAST RECOVERY SHEET", "Master key", "Fingerprint", "certificate   sha256:", "user add NAME"] {
        assert!(output.contains(expected), "{expected} is missing in:\n{output}");
    }
    for file in ["master.key", "run/local-token", "tls/private-key.pem"] {
        let mode = std::fs::metadata(server.data().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::metadata(server.data()).unwrap().permissions().mode() & 0o777, 0o700);

    let link = output.split_whitespace().find(|word| word.contains("/operator-link/")).unwrap();
    let client = server.client("");
    let fresh: NewToken = ok(client.http.post(link).send().await.unwrap()).await;
    assert_eq!(fresh.rights, [Right::Operator]);
    refused(client.http.post(link).send().await.unwrap(), StatusCode::NOT_FOUND, Code::NotFound).await;
    let operator = server.client(&fresh.secret);
    let users: Users = ok(operator.get("/api/v1/users").await).await;
    assert!(users.users.is_empty());
    let secret_of_link = link.rsplit('/').next().unwrap();
    let key = std::fs::read_to_string(server.data().join("master.key")).unwrap();
    let log = server.log();
    for secret in [secret_of_link, fresh.secret.as_str(), key.trim(), server.run_file("local-token").as_str()] {
        assert!(!log.contains(secret), "a secret is in the log");
    }

    let data = server.data().to_owned();
    let folder = server.stop();
    let server = Server::start_on(&data, &[]);
    let output = std::fs::read_to_string(&server.output).unwrap();
    assert!(!output.contains("RECOVERY SHEET") && !output.contains("operator-link"), "{output}");
    let again: Value = ok(server.client(&fresh.secret).get("/api/v1/users").await).await;
    assert_eq!(again, json!({"users": []}));
    drop((server, folder));
}

#[tokio::test]
async fn users_vaults_and_tokens() {
    let server = Server::start();
    let anna = server.user("anna");
    let me: Me = ok(anna.client.get("/api/v1/me").await).await;
    assert_eq!((me.user.as_deref(), me.vault.as_deref()), (Some("default/anna"), Some(anna.vault.as_str())));
    assert_eq!(me.rights, [Right::Backup, Right::Restore]);

    let text = String::from_utf8(server.command(&["user", "add", "bert", "--customer", "acme"]).stdout).unwrap();
    let url = server.run_file("public-url");
    assert!(text.contains(&format!("holdfast login {url} --fingerprint sha256:")), "{text}");
    assert!(text.contains("hf_"), "{text}");

    let taken = server.command(&["user", "add", "anna"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("exists already"));
    let users: Users = server.json(&["user", "list", "--json"]);
    assert_eq!(users.users.len(), 2);
    let further: Value = server.json(&["vault", "add", "mail", "--user", "acme/bert", "--json"]);
    let vaults: Vaults = server.json(&["vault", "list", "--json"]);
    assert_eq!(vaults.vaults.len(), 3);
    assert!(vaults.vaults.iter().all(|vault| vault.physical_bytes == 0 && vault.snapshots == 0));

    let mail = token(&server, &["--vault", further["id"].as_str().unwrap(), "--rights", "restore"]);
    assert_eq!(mail.rights, [Right::Restore]);
    let reader = server.client(&mail.secret);
    let vault = further["id"].as_str().unwrap();
    let _: Value = ok(reader.get(&format!("/api/v1/vaults/{vault}/snapshots")).await).await;
    let begin = json!({"computer": "c", "series": "s"});
    let path = format!("/api/v1/vaults/{vault}/uploads");
    refused(reader.post(&path, &begin).await, StatusCode::FORBIDDEN, Code::Forbidden).await;

    let revoked = server.command(&["token", "revoke", &mail.id]);
    assert!(revoked.status.success());
    refused(reader.get("/api/v1/me").await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    // The use is noted behind the answer.
    let listed = loop {
        let tokens: Tokens = server.json(&["token", "list", "--json"]);
        let listed = tokens.tokens.into_iter().find(|token| token.id == mail.id).unwrap();
        if listed.used_ns.is_some() {
            break listed;
        }
    };
    assert!(listed.revoked_ns.is_some());
    assert!(server.command(&["token", "list"]).status.success());
}

#[tokio::test]
async fn only_operators_administer() {
    let server = Server::start();
    let anna = server.user("anna").client;
    for path in ["/users", "/customers", "/vaults", "/tokens", "/master-key"] {
        refused(anna.get(&format!("/api/v1{path}")).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    }
    let token = json!({"name": "x", "rights": ["operator"]});
    refused(anna.post("/api/v1/tokens", &token).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    refused(
        anna.request(Method::POST, "/api/v1/operator-link").send().await.unwrap(),
        StatusCode::FORBIDDEN,
        Code::Forbidden,
    )
    .await;

    let local = server.client(&server.run_file("local-token"));
    let made: Value = ok(local.post("/api/v1/customers", &json!({"name": "acme"})).await).await;
    assert_eq!(made["name"], "acme");
    refused(local.post("/api/v1/customers", &json!({"name": "acme"})).await, StatusCode::CONFLICT, Code::Conflict)
        .await;
    for wrong in [
        json!({"name": "x", "rights": []}),
        json!({"name": "x", "rights": ["backup"]}),
        json!({"name": "x", "rights": ["operator", "backup"]}),
        json!({"name": "", "rights": ["operator"]}),
        json!({"name": "x", "rights": ["backup"], "vault": "00000000000000000000000000000000"}),
        json!({"name": "x", "rights": ["operator"], "valid_seconds": u64::MAX}),
    ] {
        refused(local.post("/api/v1/tokens", &wrong).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
}

#[tokio::test]
async fn the_master_key_is_confirmed_by_reading_it_back() {
    let server = Server::start();
    let client = server.client("");
    let ready: Value = ok(client.get("/readyz").await).await;
    assert_eq!(ready["status"], "ready");
    assert!(ready["warnings"][0].as_str().unwrap().contains("master key not confirmed"));
    assert!(server.metrics().await.contains("holdfast_master_key_unconfirmed 1"));

    let confirm = |typed: &str| {
        let mut command = program(server.data());
        let mut child =
            command.args(["master-key", "confirm"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let key = std::fs::read_to_string(server.data().join("master.key")).unwrap();
    let wrong = if key.starts_with('7') { key.replacen('7', "8", 1) } else { format!("7{}", &key[1..]) };
    assert!(!confirm(&wrong).status.success());
    let ready: Value = ok(client.get("/readyz").await).await;
    assert_eq!(ready["warnings"].as_array().unwrap().len(), 1);
    assert!(confirm(&key.to_lowercase().replace('-', " ")).status.success());
    let ready: Value = ok(client.get("/readyz").await).await;
    assert_eq!(ready["warnings"], json!([]));
    assert!(server.metrics().await.contains("holdfast_master_key_unconfirmed 0"));

    let copy = server.data().with_extension("copy");
    std::fs::write(&copy, &key).unwrap();
    assert!(server.command(&["master-key", "verify", copy.to_str().unwrap()]).status.success());
    std::fs::write(&copy, &wrong).unwrap();
    assert!(!server.command(&["master-key", "verify", copy.to_str().unwrap()]).status.success());
    let sheet = server.command(&["master-key", "show-sheet"]).stdout;
    assert!(String::from_utf8(sheet).unwrap().contains(&key[..10]));
}

/// With the feature `testing` only: the clock of a running server is moved by a file.
#[cfg(feature = "testing")]
#[tokio::test]
async fn a_token_expires_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("clock");
    let server = Server::start_with_environment(
        &folder.path().join("data"),
        &[(server::clock::CLOCK_FILE_VARIABLE, offset.to_str().unwrap())],
    );
    let anna = server.user("anna");
    let hour = token(&server, &["--vault", &anna.vault, "--valid-seconds", "3600"]);
    let client = server.client(&hour.secret);
    let _: Me = ok(client.get("/api/v1/me").await).await;
    std::fs::write(&offset, "3500").unwrap();
    let _: Me = ok(client.get("/api/v1/me").await).await;
    std::fs::write(&offset, "3601").unwrap();
    refused(client.get("/api/v1/me").await, StatusCode::UNAUTHORIZED, Code::TokenExpired).await;
    std::fs::write(&offset, "-10").unwrap();
    let _: Me = ok(client.get("/api/v1/me").await).await;
}

//! Users and tenants go in two steps and leave a proof; what the accounts know can be taken away; accounts and store
//! agree, also behind a crash.

use crate::harness::{Client, Server, Tree, ok, refused};
use api::members::Members;
use api::problem::Code;
use api::removal::{AccountsCheck, UserState};
use api::tenants::{Tenant, TenantState};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

async fn send(client: &Client, method: Method, path: &str) -> Response {
    client.request(method, &format!("/api/v1{path}")).json(&json!({})).send().await.unwrap()
}

fn operator(server: &Server) -> Client {
    server.client(&server.run_file("local-token"))
}

#[tokio::test]
async fn a_user_and_a_customer_go_in_two_steps_and_come_back() {
    let server = Server::start();
    let operator = operator(&server);
    let anna = server.user("anna");
    let keys = anna.keys().await;
    let snapshot = anna.backup(&Tree::build(&keys, 0)).await;
    let default: Value = ok(operator.get("/api/v1/tenants?kind=customer").await).await;
    let tenant = default["items"][0]["id"].as_str().unwrap().to_owned();
    let members: Members = ok(operator.get(&format!("/api/v1/tenants/{tenant}/members")).await).await;
    let user = members.items[0].user.clone();

    let early = send(&operator, Method::DELETE, &format!("/users/{user}")).await;
    let problem = refused(early, StatusCode::CONFLICT, Code::WrongState).await;
    assert!(problem.detail.contains("disable the user first"), "{problem:?}");
    let disabled: UserState = ok(send(&operator, Method::POST, &format!("/users/{user}/disable")).await).await;
    assert_eq!(disabled.state, "disabled");
    let begin = json!({"computer": "pc", "series": "s"});
    let closed = anna.client.post(&anna.path("/uploads"), &begin).await;
    refused(closed, StatusCode::FORBIDDEN, Code::ServiceRestricted).await;
    let entries = anna.path(&format!("/snapshots/{}/entries", snapshot.id));
    refused(anna.client.get(&entries).await, StatusCode::FORBIDDEN, Code::ServiceRestricted).await;
    let deleted: UserState = ok(send(&operator, Method::DELETE, &format!("/users/{user}")).await).await;
    assert_eq!(deleted.state, "deleted");
    let members: Members = ok(operator.get(&format!("/api/v1/tenants/{tenant}/members")).await).await;
    assert!(members.items[0].delete_after_ns.is_some());
    // Its time has not come: nothing is due, and nothing is lost by coming back.
    let checked: AccountsCheck = ok(send(&operator, Method::POST, "/accounts/repair").await).await;
    assert_eq!(checked.items, []);
    for step in ["undelete", "enable"] {
        let _: UserState = ok(send(&operator, Method::POST, &format!("/users/{user}/{step}")).await).await;
    }
    let _: Value = ok(anna.client.get(&entries).await).await;

    let gone: Tenant = ok(send(&operator, Method::POST, &format!("/tenants/{tenant}/disconnect")).await).await;
    assert_eq!(gone.state, TenantState::Disconnected);
    refused(anna.client.get(&entries).await, StatusCode::FORBIDDEN, Code::ServiceRestricted).await;
    let doomed: Tenant = ok(send(&operator, Method::DELETE, &format!("/tenants/{tenant}")).await).await;
    assert!(doomed.delete_after_ns.is_some());
    let back: Tenant = ok(send(&operator, Method::POST, &format!("/tenants/{tenant}/connect")).await).await;
    assert_eq!((back.state, back.delete_after_ns), (TenantState::Active, None));
    let _: Value = ok(anna.client.get(&entries).await).await;
    assert!(server.command(&["accounts", "check"]).status.success());
}

#[tokio::test]
async fn an_export_is_whole_and_without_secrets() {
    let server = Server::start();
    let operator = operator(&server);
    let anna = server.user("anna");
    let tenants: Value = ok(operator.get("/api/v1/tenants?kind=customer").await).await;
    let tenant = tenants["items"][0]["id"].as_str().unwrap();
    let response = operator.get(&format!("/api/v1/tenants/{tenant}/export")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let export: Value = ok(response).await;
    assert_eq!(export["tenant"][0]["name"], "default");
    assert_eq!(export["users"][0]["name"], "anna");
    assert_eq!(export["vaults"][0]["id"], anna.vault.as_str());
    assert_eq!(export["audit_log"][0]["verb"], "tenant.export");
    assert!(export["services"].as_array().unwrap().is_empty());
    assert!(!export.to_string().contains(&anna.client.secret));
    let foreign = anna.client.get(&format!("/api/v1/tenants/{tenant}/export")).await;
    refused(foreign, StatusCode::NOT_FOUND, Code::NotFound).await;
}

/// The server's clock is moved past the time of grace while it is off.
#[cfg(feature = "testing")]
#[tokio::test]
async fn what_is_over_is_destroyed_with_a_proof() {
    use api::removal::RemovalReceipts;
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let data = folder.path().join("data");
    let start = || Server::start_with_environment(&data, &[("HOLDFAST_TEST_CLOCK_FILE", clock.to_str().unwrap())]);
    let server = start();
    let local = operator(&server);
    let anna = server.user("anna");
    let keys = anna.keys().await;
    anna.backup(&Tree::build(&keys, 0)).await;
    let tenants: Value = ok(local.get("/api/v1/tenants?kind=customer").await).await;
    let tenant = tenants["items"][0]["id"].as_str().unwrap().to_owned();
    let _: Tenant = ok(send(&local, Method::POST, &format!("/tenants/{tenant}/disconnect")).await).await;
    let _: Tenant = ok(send(&local, Method::DELETE, &format!("/tenants/{tenant}")).await).await;
    server.stop();
    std::fs::write(&clock, (31 * 24 * 3600).to_string()).unwrap();
    let server = start();
    let operator = operator(&server);
    // A clock that jumps is not believed: nothing is destroyed before somebody has looked at it.
    let checked: AccountsCheck = ok(send(&operator, Method::POST, "/accounts/repair").await).await;
    assert!(
        !checked.items.is_empty() && checked.items.iter().all(|item| item.kind == "removal_due" && !item.repaired),
        "{checked:?}"
    );
    assert!(server.command(&["clock", "confirm"]).status.success());
    let checked: AccountsCheck = ok(send(&operator, Method::POST, "/accounts/repair").await).await;
    assert!(!checked.items.is_empty() && checked.items.iter().all(|item| item.repaired), "{checked:?}");
    let gone = operator.get(&format!("/api/v1/tenants/{tenant}")).await;
    refused(gone, StatusCode::NOT_FOUND, Code::NotFound).await;
    let receipts: RemovalReceipts = ok(operator.get("/api/v1/removal-receipts").await).await;
    let receipt = &receipts.items[0];
    assert_eq!((receipt.vault.as_str(), receipt.cause.as_str()), (anna.vault.as_str(), "customer deleted"));
    assert!(receipt.finished_ns.is_some() && receipt.packs.unwrap() > 0 && receipt.pack_bytes.unwrap() > 0);
    let checked: AccountsCheck = ok(operator.get("/api/v1/accounts/check").await).await;
    assert_eq!(checked.items, []);
}

//! The audit log over HTTP and the command line: pages, filters, scopes, and an export that shows every change of it.

use crate::every_route::oracle::Matrix;
use crate::every_route::world::{World, send};
use crate::harness::{Client, Server, ok, refused};
use api::audit::{AuditChain, AuditEntry};
use api::page::Page;
use api::problem::Code;
use api::tenants::Tenant;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;

/// Everything that a query gives, page by page.
async fn all(client: &Client, query: &str, limit: u32) -> Vec<AuditEntry> {
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/audit?limit={limit}{query}{after}");
        let page: Page<AuditEntry> = ok(client.get(&path).await).await;
        assert!(page.items.len() <= limit as usize);
        entries.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return entries,
        }
    }
}

#[tokio::test]
async fn the_log_is_paged_filtered_and_exported() {
    let server = Server::start();
    let operator = server.client(&server.run_file("local-token"));
    let mut tenants = Vec::new();
    for number in 0..7 {
        let body = json!({"kind": "customer", "title": format!("Customer {number}")});
        let made: Tenant = ok(send(&operator, Method::POST, "/tenants", &body).await).await;
        tenants.push(made.id);
    }
    let edited = &tenants[3];
    let path = format!("/tenants/{edited}");
    let _: Tenant = ok(send(&operator, Method::PATCH, &path, &json!({"title": "Acme"})).await).await;
    let whole = all(&operator, "", 200).await;
    let in_pages = all(&operator, "", 3).await;
    assert_eq!(whole, in_pages);
    let sequence: Vec<i64> = whole.iter().rev().map(|entry| entry.sequence).collect();
    assert_eq!(sequence, (1..=whole.len() as i64).collect::<Vec<_>>());

    let newest = &whole[0];
    assert_eq!((newest.verb.as_str(), newest.object.as_str()), ("tenant.edit", format!("tenant {edited}").as_str()));
    assert_eq!((newest.actor.as_str(), newest.address.as_str()), ("local", "local"));
    assert!(newest.after.as_ref().unwrap().contains("Acme"), "{newest:?}");
    let count = async |query: &str| all(&operator, query, 200).await.len();
    assert_eq!(count("&verb=tenant.edit").await, 1);
    assert_eq!(count("&verb=tenant.invite_child").await, 7);
    assert_eq!(count(&format!("&object={edited}")).await, 2);
    assert_eq!(count(&format!("&object=tenant%20{edited}&verb=tenant.edit")).await, 1);
    assert_eq!(count(&format!("&tenant={edited}")).await, 2);
    assert_eq!(count("&actor=local").await, whole.len());
    assert_eq!(count("&actor=operator%20on%20the%20server").await, whole.len());
    for nothing in ["&actor=nobody", "&object=%25", "&object=_", "&verb=tenant", "&until_ns=1"] {
        assert_eq!(count(nothing).await, 0, "{nothing}");
    }
    assert_eq!(count(&format!("&since_ns={}", newest.at_ns)).await, 1);
    assert_eq!(count(&format!("&until_ns={}", newest.at_ns)).await, whole.len() - 1);
    for wrong in ["limit=0", "limit=201", "after=x", "tenant=x", "since_ns=x"] {
        let answer = operator.get(&format!("/api/v1/audit?{wrong}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    let anna = server.user("anna").client;
    for path in ["/audit", "/audit/export", "/audit/chain"] {
        refused(anna.get(&format!("/api/v1{path}")).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    }

    let chain: AuditChain = ok(operator.get("/api/v1/audit/chain").await).await;
    assert_eq!(chain.broken_at, None);
    let text = ok_text(&operator, "/api/v1/audit/export").await;
    let lines: Vec<AuditEntry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(chain.last_hash.as_ref(), lines.last().map(|entry| &entry.hash));
    assert_eq!(chain.entries, lines.len() as i64);
    for pair in lines.windows(2) {
        assert_eq!((pair[0].sequence + 1, &pair[0].hash), (pair[1].sequence, &pair[1].previous_hash));
    }
    let some = ok_text(&operator, "/api/v1/audit/export?after=2&limit=3").await;
    let expected: Vec<&str> = text.lines().skip(2).take(3).collect();
    assert_eq!(some.lines().collect::<Vec<_>>(), expected);
}

async fn ok_text(client: &Client, path: &str) -> String {
    let answer = client.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], api::audit::JSON_LINES);
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_changed_export_is_found_out() {
    let server = Server::start();
    for number in 0..3 {
        let _: Tenant = server.json(&["tenant", "add", "customer", &format!("Customer {number}"), "--json"]);
    }
    let export = server.command(&["audit", "export"]);
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let text = String::from_utf8(export.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 3, "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let verify = |lines: &[&str], more: &[&str]| {
        std::fs::write(&file, lines.join("\n")).unwrap();
        let mut arguments = vec!["audit", "verify", file.to_str().unwrap()];
        arguments.extend(more);
        let output = server.command(&arguments);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(verify(&lines, &["--whole"]).0);
    assert!(verify(&lines[1..], &[]).0, "a part of the log is as it was written");
    let (good, said) = verify(&lines[1..], &["--whole"]);
    assert!(!good && said.contains("entry 1 is missing"), "{said}");
    let gap = [&lines[..1], &lines[2..]].concat();
    let (good, said) = verify(&gap, &["--whole"]);
    assert!(!good && said.contains("entry 2 is missing"), "{said}");
    let changed = lines[1].replacen("Customer", "Somebody", 1);
    assert_ne!(changed, lines[1]);
    let (good, said) = verify(&[lines[0], &changed], &[]);
    assert!(!good && said.contains("line 2") && said.contains("was changed"), "{said}");
    let (good, said) = verify(&[lines[1], lines[0]], &[]);
    assert!(!good && said.contains("stands behind"), "{said}");

    let own = server.command(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&own.stdout).into_owned();
    assert!(own.status.success() && said.contains("are as they were written"), "{said}");
    let listed = server.command(&["audit", "list", "--verb", "tenant.invite_child", "--since", "2020-01-01"]);
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(!server.command(&["audit", "list", "--since", "yesterday"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_the_own_part_of_the_log() {
    let world = World::build(&Matrix::read()).await;
    let tenant = |name: &str| world.things(name).ids["tenant"].clone();
    let (north, acme, beta, coast) = (tenant("north"), tenant("anna"), tenant("cleo"), tenant("dora"));
    let tenants_seen = async |asker: &str| -> BTreeSet<String> {
        all(&world.principal(asker).plain, "", 200).await.into_iter().map(|entry| entry.tenant).collect()
    };
    let set = |tenants: &[&String]| -> BTreeSet<String> { tenants.iter().map(|tenant| (*tenant).clone()).collect() };
    assert!(tenants_seen("OP").await.is_superset(&set(&[&north, &acme, &beta, &coast])));
    assert_eq!(tenants_seen("PA").await, set(&[&north, &acme, &beta]));
    assert_eq!(tenants_seen("PG").await, set(&[&acme, &beta]));
    assert_eq!(tenants_seen("CA").await, set(&[&acme]));
    assert_eq!(tenants_seen("RO").await, set(&[&acme]));
    assert_eq!(tenants_seen("foreign CA").await, set(&[&coast]));
    let own = world.principal("BU").own["user"].clone();
    let entries = all(&world.principal("BU").plain, "", 200).await;
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry.user.as_ref() == Some(&own)));
    // Filters do not widen what is seen.
    assert!(all(&world.principal("CA").plain, &format!("&tenant={coast}"), 200).await.is_empty());
    // What somebody from above does is done on behalf of the customer, and the customer sees it.
    let path = format!("/tenants/{acme}");
    let edited = send(&world.principal("PA").plain, Method::PATCH, &path, &json!({"title": "acme"})).await;
    assert!(edited.status().is_success());
    let seen = all(&world.principal("CA").plain, "&verb=tenant.edit", 200).await;
    assert_eq!((seen[0].behalf_tenant.as_ref(), seen[0].actor_name.as_str()), (Some(&acme), "PA"));
}

//! Attacks on the walls between tenants, as docs/security/tenant-isolation.md tells of them. Ids in paths are the subject
//! of `every_route`, times of `timing`; here is what goes into bodies, queries, headers and odd paths, and every way up.

use crate::every_route::oracle::Matrix;
use crate::every_route::world::{World, now_ns, send};
use crate::harness::{Client, ok, refused, token};
use crate::identity::PASSWORD;
use api::accounts::NewToken;
use api::audit::AuditEntry;
use api::identity::{LoggedIn, NewApiToken};
use api::invitations::SentInvitation;
use api::objects::{BodyDecoder, CODEC_ABSENT};
use api::page::Page;
use api::problem::Code;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const ABSENT: &str = "ffffffffffffffffffffffffffffffff";

/// An answer with the id that was asked for taken out.
async fn without(answer: Response, id: &str) -> (StatusCode, String) {
    let status = answer.status();
    let mut text = answer.text().await.unwrap();
    if let Ok(mut body) = serde_json::from_str::<Value>(&text) {
        if let Some(body) = body.as_object_mut() {
            body.remove("instance");
        }
        text = body.to_string();
    }
    (status, text.replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_ids_in_bodies_and_queries_are_like_absent_ones() {
    let world = World::build(&Matrix::read()).await;
    let (anna, dora) = (world.things("anna").ids.clone(), world.things("dora").ids.clone());
    let (north, south) = (world.things("north").ids.clone(), world.things("south").ids.clone());
    let own = |text: &str| {
        let filled = anna.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{{{name}}}"), id));
        filled.replace("{north}", &north["tenant"])
    };
    let fresh_job = control::JobId::generate().unwrap().to_string();
    // Who, what, the body, and what stands in for X.
    let attacks: &[(&str, &str, &str, Value, &str)] = &[
        ("CA", "PUT", "/services/{service}/contacts/technical", json!({"user": "X"}), &dora["user"]),
        ("CA", "POST", "/tenants/{tenant}/back-up-mine", json!({"service": "X", "bytes": 1}), &dora["service"]),
        ("CA", "POST", "/tenants/{tenant}/owner", json!({"user": "X"}), &dora["user"]),
        ("CA", "POST", "/users/{user}/enrolments", json!({"replaces": "X"}), &dora["computer"]),
        ("CA", "POST", "/api-tokens", json!({"name": "t", "verbs": ["tenant.view"], "tenant": "X"}), &dora["tenant"]),
        ("CA", "GET", "/services?tenant=X", json!({}), &dora["tenant"]),
        ("CA", "GET", "/computers?user=X", json!({}), &dora["user"]),
        ("CA", "GET", "/plans?computer=X", json!({}), &dora["computer"]),
        ("CA", "GET", "/jobs?tenant=X", json!({}), &dora["tenant"]),
        ("CA", "GET", "/jobs?user=X", json!({}), &dora["user"]),
        ("CA", "GET", "/jobs?computer=X", json!({}), &dora["computer"]),
        ("CA", "GET", "/jobs?plan=X", json!({}), &dora["plan"]),
        ("CA", "GET", "/job-logs?words=backup&tenant=X", json!({}), &dora["tenant"]),
        (
            "CA",
            "POST",
            "/webhooks",
            json!({"user": "X", "url": "https://x.invalid/", "events": ["quota"]}),
            &dora["user"],
        ),
        (
            "CA",
            "POST",
            "/webhooks",
            json!({"tenant": "X", "url": "https://x.invalid/", "events": ["quota"]}),
            &dora["tenant"],
        ),
        ("CA", "GET", "/audit?tenant=X", json!({}), &dora["tenant"]),
        ("CA", "GET", "/audit?object=X", json!({}), &dora["service"]),
        ("PA", "POST", "/tenants", json!({"kind": "customer", "title": "x", "parent": "X"}), &south["tenant"]),
        (
            "PA",
            "POST",
            "/tenants/{north}/groups",
            json!({"name": "x", "verbs": [], "customers": ["X"]}),
            &dora["tenant"],
        ),
        (
            "PA",
            "POST",
            "/tenants/{north}/invitations",
            json!({"email": "x@people.example", "groups": ["X"]}),
            &south["group"],
        ),
        ("BU", "POST", "/vaults/{vault}/restores", json!({"snapshot": "X"}), &dora["snapshot"]),
        (
            "BU",
            "POST",
            "/vaults/{vault}/uploads",
            json!({"computer": "pc", "series": "s", "base_snapshot": "X"}),
            &dora["snapshot"],
        ),
        (
            "BU",
            "POST",
            "/computers/{computer}/restores",
            json!({"snapshot": "X", "target": "/tmp/r"}),
            &dora["snapshot"],
        ),
        (
            "agent",
            "POST",
            "/computer/jobs",
            json!({"id": fresh_job, "plan": "X", "revision": 1, "cause": "schedule"}),
            &dora["plan"],
        ),
    ];
    for (asker, method, path, body, foreign) in attacks {
        let client = &world.principal(asker).fresh;
        let mut answers = Vec::new();
        for id in [*foreign, &ABSENT[..foreign.len().min(ABSENT.len())]] {
            let body: Value = serde_json::from_str(&body.to_string().replace('X', id)).unwrap();
            let path = own(&path.replace('X', id));
            let answer = send(client, method.parse().unwrap(), &path, &body).await;
            answers.push(without(answer, id).await);
        }
        assert_eq!(answers[0], answers[1], "{asker} {method} {path}");
        let (status, text) = &answers[0];
        let is_empty_list = *status == StatusCode::OK && text.contains(r#""items":[]"#);
        assert!(is_empty_list || status.is_client_error(), "{asker} {method} {path}: {status} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_vault_says_nothing_of_what_another_one_holds() {
    let world = World::build(&Matrix::read()).await;
    let (anna, dora) = (&world.vaults["anna"], world.things("dora").ids.clone());
    // Both vaults hold the same tree, under ids of their own.
    assert_ne!(world.things("anna").ids["root"], dora["root"]);
    let root = data_encoding::HEXLOWER.decode(dora["root"].as_bytes()).unwrap();
    let session = anna.begin().await;
    let have = anna.client.post_binary(&anna.upload_path(&session, "/have"), root.clone()).await;
    assert_eq!(have.bytes().await.unwrap().to_vec(), [0]);
    let mut decoder = BodyDecoder::default();
    decoder.push(&anna.client.post_binary(&anna.path("/objects"), root).await.bytes().await.unwrap());
    let record = decoder.next_record().unwrap().unwrap();
    assert_eq!((record.codec, record.payload.len()), (CODEC_ABSENT, 0));
    let commit = json!({"root": dora["root"], "summary": api::upload::RunSummary::default()});
    let committed = anna.client.post(&anna.upload_path(&session, "/commit"), &commit).await;
    refused(committed, StatusCode::CONFLICT, Code::MissingObjects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_and_headers_open_nothing() {
    let world = World::build(&Matrix::read()).await;
    let (acme, coast) = (&world.things("anna").ids["tenant"], &world.things("dora").ids["tenant"]);
    let asker = &world.principal("CA").fresh;
    let upper = coast.to_uppercase();
    let paths = [
        format!("/tenants/{acme}/../{coast}"),
        format!("/tenants/{acme}%2f..%2f{coast}"),
        format!("/tenants/%2e%2e/tenants/{coast}"),
        format!("/tenants//{coast}"),
        format!("//tenants/{coast}"),
        format!("/tenants/{coast}/"),
        format!("/tenants/{coast}%00"),
        format!("/tenants/%20{coast}"),
        format!("/tenants/{coast}%0a"),
        format!("/tenants/{upper}"),
        format!("/tenants/{acme},{coast}"),
        format!("/tenants/{coast};{acme}"),
        format!("/tenants/{acme}%27%20OR%20%271%27=%271"),
        "/tenants/%25".to_owned(),
    ];
    for path in paths {
        let answer = asker.get(&format!("/api/v1{path}")).await;
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    let list = asker.get(&format!("/api/v1/tenants?tenant={coast}&parent={coast}&kind=customer&kind=customer")).await;
    assert!(!list.text().await.unwrap().contains(coast.as_str()));
    let headers = [
        ("x-http-method-override", "DELETE".to_owned()),
        ("x-original-url", format!("/api/v1/tenants/{coast}")),
        ("x-rewrite-url", format!("/api/v1/tenants/{coast}")),
        ("x-tenant-id", coast.clone()),
        ("host", "south.example".to_owned()),
        ("cookie", format!("tenant={coast}")),
    ];
    for (name, value) in headers {
        let answer = asker.request(Method::GET, &format!("/api/v1/tenants/{acme}")).header(name, value).send().await;
        let seen: api::tenants::Tenant = ok(answer.unwrap()).await;
        assert_eq!(seen.id, *acme, "{name}");
    }
    // A forged cursor of another tenant's list goes on in one's own.
    let cursor = data_encoding::BASE64URL_NOPAD.encode(json!(["", coast]).to_string().as_bytes());
    let list = asker.get(&format!("/api/v1/tenants?after={cursor}")).await;
    assert!(!list.text().await.unwrap().contains(coast.as_str()));

    // Whoever says to come from elsewhere comes from where the connection does.
    let policy = json!({"idle_minutes": 30, "second_factor": "optional", "trusted_networks": ["192.0.2.0/24"]});
    let set = send(&world.local, Method::PUT, &format!("/tenants/{acme}/security"), &policy).await;
    assert!(set.status().is_success());
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip"] {
        let value = if name == "forwarded" { "for=192.0.2.1" } else { "192.0.2.1" };
        let answer = asker.request(Method::GET, "/api/v1/profile").header(name, value).send().await.unwrap();
        refused(answer, StatusCode::FORBIDDEN, Code::UntrustedNetwork).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_than_was_given() {
    let world = World::build(&Matrix::read()).await;
    let anna = world.things("anna").ids.clone();
    let north = &world.things("north").ids;
    let fresh = |name: &str| world.principal(name).fresh.clone();
    let forbidden = async |client: &Client, method: Method, path: &str, body: Value, needed: &str| {
        let problem = refused(send(client, method, path, &body).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
        assert!(problem.detail.contains(needed), "{path}: {problem:?}");
    };
    let acme = &anna["tenant"];
    // Up by an invitation, a role, a group, a token.
    let invitations = format!("/tenants/{acme}/invitations");
    let admin = json!({"email": "mallory@people.example", "role": "admin"});
    forbidden(&fresh("PG"), Method::POST, &invitations, admin.clone(), "administrator").await;
    forbidden(&fresh("BU"), Method::POST, &invitations, admin.clone(), "user.invite").await;
    let platform = format!("/tenants/{}/invitations", "0".repeat(32));
    for climber in ["CA", "PA"] {
        let answer = send(&fresh(climber), Method::POST, &platform, &admin).await;
        refused(answer, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
    let member = |user: &str| format!("/tenants/{acme}/members/{user}");
    let roles = json!({"roles": ["admin"]});
    forbidden(&fresh("BU"), Method::PUT, &member(&anna["user"]), roles.clone(), "user.invite").await;
    forbidden(&fresh("PG"), Method::PUT, &member(&anna["user"]), roles, "administrator").await;
    let own = member(&world.principal("CA").own["user"]);
    let oneself = send(&fresh("CA"), Method::PUT, &own, &json!({"roles": ["user"]})).await;
    refused(oneself, StatusCode::CONFLICT, Code::Conflict).await;
    let groups = format!("/tenants/{}/groups", north["tenant"]);
    for verb in ["storage.admin", "payment.confirm", "support_access.switch"] {
        forbidden(&fresh("PA"), Method::POST, &groups, json!({"name": verb, "verbs": [verb]}), verb).await;
    }
    let token_of_ca = fresh("token of CA");
    let wanted = json!({"name": "x", "verbs": ["tenant.view"]});
    let made = send(&token_of_ca, Method::POST, "/api-tokens", &wanted).await;
    refused(made, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let stepped = send(&token_of_ca, Method::POST, "/login/step-up", &json!({"password": PASSWORD})).await;
    refused(stepped, StatusCode::FORBIDDEN, Code::Forbidden).await;

    // Nobody from above reads content by making a token for it; the first one comes from the server's own machine.
    let content = json!({"name": "x", "vault": anna["vault"], "rights": ["restore"]});
    forbidden(&fresh("OP"), Method::POST, "/tokens", content.clone(), "content.restore").await;
    let link: api::accounts::OperatorLink =
        ok(send(&fresh("OP"), Method::POST, "/operator-link", &json!({})).await).await;
    let by_link: NewToken = ok(world.local.http.post(&link.url).send().await.unwrap()).await;
    forbidden(&world.server.client(&by_link.secret), Method::POST, "/tokens", content, "content.restore").await;
    let _ = token(&world.server, &["--vault", &anna["vault"], "--rights", "restore"]);

    // A contact of one service gives nothing of the others.
    let second = world.things("bert").ids["service"].clone();
    let mine = format!("/tenants/{acme}/back-up-mine");
    forbidden(&fresh("AC"), Method::POST, &mine, json!({"service": second, "bytes": 1}), "allocation.set").await;

    // Support access is over when it is switched off, whoever is reading.
    let keys = format!("/api/v1/vaults/{}/keys", anna["vault"]);
    let partner = fresh("PA");
    assert_eq!(partner.get(&keys).await.status(), StatusCode::OK);
    let switch = format!("/tenants/{acme}/support-access");
    let off = send(&fresh("CA"), Method::PUT, &switch, &json!({"until_ns": null})).await;
    assert!(off.status().is_success());
    refused(partner.get(&keys).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let past = send(&fresh("CA"), Method::PUT, &switch, &json!({"until_ns": now_ns() - 1})).await;
    assert!(past.status().is_success());
    refused(partner.get(&keys).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
}

/// Somebody from outside is an administrator and a contact for a while, and is taken out again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_taken_out_holds_nothing_any_more() {
    let world = World::build(&Matrix::read()).await;
    let (anna, dora) = (world.things("anna").ids.clone(), world.things("dora").ids.clone());
    let coast = format!("/tenants/{}", dora["tenant"]);
    // Anna, who is at home elsewhere, is invited into coast.
    let guest = world.principal("BU").own["user"].clone();
    let invite = json!({"email": "BU@people.example", "role": "auditor"});
    let sent: SentInvitation =
        ok(send(&world.local, Method::POST, &format!("{coast}/invitations"), &invite).await).await;
    let link = sent.link.unwrap().0;
    let secret = link.rsplit_once('#').unwrap().1;
    let accept = json!({"secret": secret, "password": PASSWORD});
    let accepted = send(&world.server.client(""), Method::POST, "/invitations/accept", &accept).await;
    assert!(accepted.status().is_success());
    let contact = format!("/services/{}/contacts/admin", dora["service"]);
    let administrator = &world.principal("foreign CA").fresh;
    let set = send(administrator, Method::PUT, &contact, &json!({"user": guest})).await;
    assert!(set.status().is_success());
    let asker = &world.principal("BU").fresh;
    let service = format!("/api/v1/services/{}", dora["service"]);
    for path in [&service, &format!("/api/v1{coast}")] {
        assert_eq!(asker.get(path).await.status(), StatusCode::OK, "{path}");
    }
    let token: NewApiToken = {
        let body = json!({"name": "t", "verbs": ["service.view"], "tenant": dora["tenant"]});
        ok(send(asker, Method::POST, "/api-tokens", &body).await).await
    };
    let token = world.server.client(&token.secret.0);
    assert_eq!(token.get(&service).await.status(), StatusCode::OK);

    let out = send(administrator, Method::DELETE, &format!("{coast}/members/{guest}"), &json!({})).await;
    assert!(out.status().is_success(), "{}", out.text().await.unwrap());
    for (client, path) in [(asker, &service), (&token, &service), (asker, &format!("/api/v1{coast}"))] {
        refused(client.get(path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
    let seen: Page<AuditEntry> = ok(asker.get("/api/v1/audit?limit=200").await).await;
    assert!(seen.items.iter().all(|entry| entry.user.as_ref() == Some(&guest)));
    // The service has a contact all the same.
    let contacts: Value = ok(administrator.get(&format!("/api/v1/services/{}/contacts", dora["service"])).await).await;
    let holder = contacts["items"].as_array().unwrap().iter().find(|one| one["kind"] == "admin").unwrap();
    assert_eq!(holder["user"], world.principal("foreign CA").own["user"].as_str());

    // And a login session of somebody who is disabled ends with the next request.
    let body = json!({"login": "RO@people.example", "password": PASSWORD, "program": "test"});
    let session: LoggedIn = ok(world.server.client("").post("/api/v1/login", &body).await).await;
    let auditor = world.server.client(&session.secret.0);
    let tenant = format!("/api/v1/tenants/{}", anna["tenant"]);
    assert_eq!(auditor.get(&tenant).await.status(), StatusCode::OK);
    let user = &world.principal("RO").own["user"];
    let disabled =
        send(&world.principal("CA").fresh, Method::POST, &format!("/users/{user}/disable"), &json!({})).await;
    assert!(disabled.status().is_success());
    refused(auditor.get(&tenant).await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
}

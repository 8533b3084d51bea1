//! Tenants, services, allocations, members and groups through real HTTP and the command line, and what the state of a
//! service means for backups and restores.

use crate::harness::{Client, Server, Tree, VaultClient, ok, refused};
use api::members::Members;
use api::problem::Code;
use api::quota::Quota;
use api::services::{Allocation, Allocations, Products, Service, ServiceContacts, ServiceState, Services};
use api::tenants::{Tenant, TenantKind, Tenants};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const GIB: i64 = 1 << 30;
const ABSENT: &str = "00000000000000000000000000000099";

fn operator(server: &Server) -> Client {
    server.client(&server.run_file("local-token"))
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Response {
    client.request(method, &format!("/api/v1{path}")).json(body).send().await.unwrap()
}

async fn post<T: serde::de::DeserializeOwned>(client: &Client, path: &str, body: &Value) -> T {
    ok(send(client, Method::POST, path, body).await).await
}

/// A customer with a user who has a vault and an agent's token, as the command line makes them.
async fn customer_with_user(server: &Server, customer: &str, user: &str) -> (Tenant, String, VaultClient) {
    let made: Tenant = server.json(&["tenant", "add", "customer", customer, "--name", customer, "--json"]);
    let added: Value = server.json(&["user", "add", user, "--customer", customer, "--json"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let vault = text(&added["user"]["vault"]);
    let client = VaultClient { client: server.client(&text(&added["token"]["secret"])), vault };
    let path = format!("/api/v1/tenants/{}/members", made.id);
    let members: Members = ok(operator(server).get(&path).await).await;
    (made, members.items[0].user.clone(), client)
}

#[tokio::test]
async fn tenants_are_made_listed_and_edited() {
    let server = Server::start();
    let operator = operator(&server);
    let north: Tenant = server.json(&["tenant", "add", "partner", "North IT", "--name", "north", "--json"]);
    assert_eq!(north.kind, TenantKind::Partner);
    let acme: Tenant =
        server.json(&["tenant", "add", "customer", "Acme Ltd", "--name", "acme", "--parent", "north", "--json"]);
    assert_eq!(acme.parent.as_deref(), Some(north.id.as_str()));
    let taken =
        send(&operator, Method::POST, "/tenants", &json!({"kind": "customer", "title": "x", "name": "acme"})).await;
    refused(taken, StatusCode::CONFLICT, Code::Conflict).await;
    let below = json!({"kind": "customer", "title": "x", "parent": acme.id});
    refused(send(&operator, Method::POST, "/tenants", &below).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let absent = json!({"kind": "customer", "title": "x", "parent": ABSENT});
    refused(send(&operator, Method::POST, "/tenants", &absent).await, StatusCode::NOT_FOUND, Code::NotFound).await;

    // Page by page, every one once.
    for number in 0..7 {
        let body = json!({"kind": "customer", "title": format!("Customer {number}")});
        let _: Tenant = post(&operator, "/tenants", &body).await;
    }
    let (mut titles, mut after) = (Vec::new(), String::new());
    loop {
        let page: Tenants = ok(operator.get(&format!("/api/v1/tenants?kind=customer&limit=3{after}")).await).await;
        assert!(page.items.len() <= 3);
        titles.extend(page.items.into_iter().map(|tenant| tenant.title));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let mut expected = vec!["Acme Ltd".to_owned()];
    expected.extend((0..7).map(|number| format!("Customer {number}")));
    assert_eq!(titles, expected);
    for bad in ["limit=0", "limit=201", "limit=x", "after=nonsense", "kind=ghost"] {
        let answer = operator.get(&format!("/api/v1/tenants?{bad}")).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }

    let edited: Tenant = server.json(&[
        "tenant",
        "edit",
        "acme",
        "--title",
        "Acme GmbH",
        "--time-zone",
        "Europe/Berlin",
        "--legal",
        "country=DE",
        "--contact",
        "email=office@acme.example",
        "--json",
    ]);
    assert_eq!((edited.title.as_str(), edited.time_zone.as_str()), ("Acme GmbH", "Europe/Berlin"));
    assert_eq!((edited.legal["country"].as_str(), edited.contact["email"].as_str()), ("DE", "office@acme.example"));
    let wrong = server.command(&["tenant", "edit", "acme", "--legal", "shoe_size=44"]);
    assert_eq!(wrong.status.code(), Some(1));
    for path in [format!("/tenants/{ABSENT}"), "/tenants/nonsense".into()] {
        let problem =
            refused(operator.get(&format!("/api/v1{path}")).await, StatusCode::NOT_FOUND, Code::NotFound).await;
        assert!(problem.detail.contains("tenant"), "{problem:?}");
    }
    // The switch is the customer's own.
    let path = format!("/tenants/{}/support-access", acme.id);
    let switch = send(&operator, Method::PUT, &path, &json!({"until_ns": 5})).await;
    let problem = refused(switch, StatusCode::FORBIDDEN, Code::Forbidden).await;
    assert!(problem.detail.contains("support_access.switch"), "{problem:?}");
    // An agent's token is nobody in the tree.
    let anna = server.user("anna");
    refused(anna.client.get("/api/v1/tenants").await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let unseen = anna.client.get(&format!("/api/v1/tenants/{}", acme.id)).await;
    refused(unseen, StatusCode::NOT_FOUND, Code::NotFound).await;
}

#[tokio::test]
async fn a_service_is_ordered_paid_given_and_refused_with_its_limits() {
    let server = Server::start();
    let operator = operator(&server);
    let (acme, anna, _) = customer_with_user(&server, "acme", "anna").await;
    let products: Products = ok(operator.get("/api/v1/products").await).await;
    assert_eq!((products.items[0].terms.name.as_str(), products.items[0].terms.trial_users), ("backup", 5));

    let ordered: Service = server.json(&["service", "order", "acme", "--json"]);
    assert_eq!((ordered.quantity, ordered.state), (100, ServiceState::Ordered));
    assert_eq!(ordered.expires_on, ordered.latest_expires_on);
    let path = format!("/services/{}", ordered.id);
    // The account is open before the order is paid.
    let given: Allocation = server.json(&["service", "allocate", &ordered.id, "anna", "--space", "20GiB", "--json"]);
    assert_eq!((given.bytes, given.user.as_str()), (20 * GIB, anna.as_str()));
    let paid: Service = server.json(&["service", "pay", &ordered.id, "--json"]);
    assert!(paid.state == ServiceState::Active && paid.takes_backups && paid.allows_restores);
    let twice = send(&operator, Method::POST, &format!("{path}/pay"), &json!({})).await;
    let problem = refused(twice, StatusCode::CONFLICT, Code::WrongState).await;
    assert!(problem.detail.contains("active"), "{problem:?}");

    let late = json!({"expires_on": "2999-01-01"});
    let late = send(&operator, Method::PUT, &format!("{path}/licence"), &late).await;
    let problem = refused(late, StatusCode::CONFLICT, Code::LicenceExceeded).await;
    assert!(problem.detail.contains(&format!("the latest date is {}", paid.latest_expires_on)), "{problem:?}");

    let _: Value = server.json(&["user", "add", "bert", "--customer", "acme", "--json"]);
    let members: Members = ok(operator.get(&format!("/api/v1/tenants/{}/members", acme.id)).await).await;
    let bert = &members.items[1].user;
    let allocate = format!("{path}/allocations/{bert}");
    let refused_one = send(&operator, Method::PUT, &allocate, &json!({"bytes": 81 * GIB})).await;
    let problem = refused(refused_one, StatusCode::CONFLICT, Code::AllocationExceedsFree).await;
    let figures = problem.allocation.unwrap();
    assert_eq!((figures.free, figures.allocated, figures.stored_bytes), (80 * GIB, 20 * GIB, 0));
    assert_eq!((figures.capacity, figures.requested, problem.quota), (100 * GIB, 81 * GIB, None));
    let _: Allocation = ok(send(&operator, Method::PUT, &allocate, &json!({"bytes": 80 * GIB})).await).await;
    let list: Allocations = ok(operator.get(&format!("/api/v1{path}/allocations")).await).await;
    assert_eq!((list.items.len(), list.allocated, list.free), (2, 100 * GIB, 0));
    for absent in [ABSENT, "nonsense"] {
        let absent = send(&operator, Method::PUT, &format!("{path}/allocations/{absent}"), &json!({"bytes": 1})).await;
        let problem = refused(absent, StatusCode::NOT_FOUND, Code::NotFound).await;
        assert!(problem.detail.contains("user"), "{problem:?}");
    }
    // The limits are in force in the store.
    for (limit, bytes) in [("user:acme%2Fanna", 20 * GIB), ("user:acme%2Fbert", 80 * GIB), ("customer:acme", 100 * GIB)]
    {
        let quota: Quota = ok(operator.get(&format!("/api/v1/quotas/{limit}")).await).await;
        assert_eq!(quota.limits.physical_hard_bytes, Some(bytes as u64), "{limit}");
    }
    let take_back = send(&operator, Method::DELETE, &allocate, &json!({})).await;
    assert_eq!(take_back.status(), StatusCode::NO_CONTENT);
    let quota: Quota = ok(operator.get("/api/v1/quotas/user:acme%2Fbert").await).await;
    assert_eq!(quota.limits.physical_hard_bytes, Some(0));
    // Restarted, the same limits are there.
    let data = server.data().to_owned();
    let folder = server.stop();
    let server = Server::start_on(&data, &[]);
    let operator = self::operator(&server);
    let quota: Quota = ok(operator.get("/api/v1/quotas/user:acme%2Fanna").await).await;
    assert_eq!(quota.limits.physical_hard_bytes, Some(20 * GIB as u64));
    let contacts: ServiceContacts = ok(operator.get(&format!("/api/v1{path}/contacts")).await).await;
    assert!(contacts.items.is_empty(), "nobody administers the customer yet");
    let roles = format!("/tenants/{}/members/{anna}", acme.id);
    let _: Value = ok(send(&operator, Method::PUT, &roles, &json!({"roles": ["admin", "user"]})).await).await;
    let contacts: ServiceContacts = ok(operator.get(&format!("/api/v1{path}/contacts")).await).await;
    assert_eq!(contacts.items.len(), 3);
    let last = send(&operator, Method::PUT, &roles, &json!({"roles": ["user"]})).await;
    refused(last, StatusCode::CONFLICT, Code::Conflict).await;
    let services: Services = ok(operator.get(&format!("/api/v1/services?tenant={}", acme.id)).await).await;
    assert_eq!(services.items.len(), 1);
    drop((server, folder));
}

#[tokio::test]
async fn many_at_once_are_given_no_more_than_there_is() {
    let server = Server::start();
    let operator = operator(&server);
    let (acme, _, _) = customer_with_user(&server, "acme", "user 0").await;
    for number in 1..8 {
        let body = json!({"name": format!("user {number}"), "customer": "acme"});
        let _: Value = post(&operator, "/users", &body).await;
    }
    let trial: Service = post(&operator, &format!("/tenants/{}/trials", acme.id), &json!({"quantity": 7})).await;
    assert_eq!(trial.state, ServiceState::Trial);
    let members: Members = ok(operator.get(&format!("/api/v1/tenants/{}/members", acme.id)).await).await;
    let requests = members.items.iter().map(|member| {
        let path = format!("/services/{}/allocations/{}", trial.id, member.user);
        let operator = operator.clone();
        tokio::spawn(async move { send(&operator, Method::PUT, &path, &json!({"bytes": GIB})).await })
    });
    let (mut given, mut trial_full) = (0, 0);
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap();
        match answer.status() {
            StatusCode::OK => given += 1,
            _ => {
                let problem = refused(answer, StatusCode::CONFLICT, Code::LicenceExceeded).await;
                assert!(problem.detail.contains("at most 5 users"), "{problem:?}");
                trial_full += 1;
            }
        }
    }
    assert_eq!((given, trial_full), (5, 3));
    let again = send(&operator, Method::POST, &format!("/tenants/{}/trials", acme.id), &json!({})).await;
    refused(again, StatusCode::CONFLICT, Code::LicenceExceeded).await;
}

#[tokio::test]
async fn backups_and_restores_are_as_open_as_the_service() {
    let server = Server::start();
    let operator = operator(&server);
    let (acme, anna, agent) = customer_with_user(&server, "acme", "anna").await;
    let begin = json!({"computer": "pc", "series": "s"});
    let open = async |backups: bool, restores: bool, word: &str| {
        let answer = agent.client.post(&agent.path("/uploads"), &begin).await;
        if backups {
            let _: Value = ok(answer).await;
        } else {
            let problem = refused(answer, StatusCode::FORBIDDEN, Code::ServiceRestricted).await;
            assert!(problem.detail.contains(word), "{problem:?}");
        }
        let answer = agent.client.get(&agent.path("/snapshots")).await;
        let snapshots: Value = ok(answer).await;
        let snapshot = snapshots["snapshots"][0]["id"].as_str().unwrap().to_owned();
        let answer = agent.client.get(&agent.path(&format!("/snapshots/{snapshot}/entries"))).await;
        if restores {
            let _: Value = ok(answer).await;
        } else {
            let problem = refused(answer, StatusCode::FORBIDDEN, Code::ServiceRestricted).await;
            assert!(problem.detail.contains(word), "{problem:?}");
        }
    };
    let keys = agent.keys().await;
    agent.backup(&Tree::build(&keys, 0)).await;
    // Begun while it was open, an upload may end.
    let running = agent.begin().await;
    let service: Service = post(&operator, &format!("/tenants/{}/services", acme.id), &json!({"quantity": 1})).await;
    let path = format!("/services/{}", service.id);
    open(false, true, "allocated").await;
    let give = format!("{path}/allocations/{anna}");
    let _: Value = ok(send(&operator, Method::PUT, &give, &json!({"bytes": GIB})).await).await;
    open(false, false, "ordered").await;
    let step = async |step: &str| {
        let _: Service = post(&operator, &format!("{path}/{step}"), &json!({})).await;
    };
    step("pay").await;
    open(true, true, "").await;
    step("restrict").await;
    open(false, true, "restricted").await;
    agent.commit(&running, &Tree::build(&keys, 0)).await;
    step("suspend").await;
    open(false, false, "suspended").await;
    step("pay").await;
    open(true, true, "").await;
    let early = send(&operator, Method::POST, &format!("{path}/terminate"), &json!({})).await;
    refused(early, StatusCode::CONFLICT, Code::WrongState).await;
}

#[tokio::test]
async fn groups_are_made_for_customers_of_a_partner() {
    let server = Server::start();
    let operator = operator(&server);
    let north: Tenant = server.json(&["tenant", "add", "partner", "North", "--name", "north", "--json"]);
    let acme: Tenant = server.json(&["tenant", "add", "customer", "Acme", "--parent", "north", "--json"]);
    let path = format!("/tenants/{}/groups", north.id);
    // The operator sees groups, and makes none: they hand on what a partner holds.
    let terms = json!({"name": "desk", "verbs": ["job.view"], "customers": [acme.id]});
    let made = send(&operator, Method::POST, &path, &terms).await;
    let problem = refused(made, StatusCode::FORBIDDEN, Code::Forbidden).await;
    assert!(problem.detail.contains("group.manage"), "{problem:?}");
    let groups: Value = ok(operator.get(&format!("/api/v1{path}")).await).await;
    assert_eq!(groups, json!({"items": []}));
    let absent = operator.get(&format!("/api/v1/groups/{ABSENT}")).await;
    refused(absent, StatusCode::NOT_FOUND, Code::NotFound).await;
}

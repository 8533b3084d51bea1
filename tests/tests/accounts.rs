//! The first day of everyone, from an empty data folder, with the real programs and nothing but the command line and the
//! API: an operator makes a partner, the partner a customer on trial, the customer a user with 20 GiB, who enrols a
//! computer with one line; its plan runs by itself at its minutes, also in the hour in which clocks change; a version
//! comes back on another computer by an order.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::transport::Method;
use serde_json::{Value, json};
use std::fs;
use tests::harness::{Day, text};
use tests::postgres::Cluster;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const GIB: i64 = 1 << 30;
/// 2026-10-25 00:00 UTC; an hour later clocks in Berlin go from 03:00 back to 02:00.
const NIGHT: i64 = 1_792_886_400 * SECOND;

#[test]
fn from_an_empty_folder_to_a_version_on_another_computer() {
    first_day(Day::begin(NIGHT, &[]));
}

#[test]
fn from_an_empty_folder_and_an_empty_postgresql_database() {
    let cluster = Cluster::start();
    cluster.create_database("accounts");
    let url = cluster.url("accounts");
    let day = Day::begin_with(NIGHT, &[], &[("HOLDFAST_ACCOUNTS_URL", url.as_ref())]);
    let data = day.server.data().to_owned();
    first_day(day);
    assert!(!data.join("accounts.sqlite").exists(), "the accounts are in SQLite as well");
}

fn first_day(day: Day) {
    let product = day.operator(&["product", "add", "Backup"]);
    day.operator(&["invitation", "send", "petra@partner.example", "--partner", "North IT"]);
    let partner = day.come_in("petra@partner.example");

    // The partner invites a customer with a trial of 50 GiB; what a trial may hold is the product's to say.
    let invite = json!({
        "kind": "customer", "email": "carla@acme.example", "title": "Acme Ltd",
        "service": { "product": text(&product, "id"), "licence": "trial", "quantity": 50 },
    });
    day.done(&partner, Method::Post, &format!("/tenants/{}/invitations", partner.tenant), &invite);
    let customer = day.come_in("carla@acme.example");
    assert_ne!(customer.tenant, partner.tenant);
    let services = day.done(&customer, Method::Get, "/services", &Value::Null);
    let service = services["items"][0].clone();
    assert_eq!((service["state"].as_str(), service["quantity"].as_i64()), (Some("trial"), Some(50)), "{service}");
    let service = text(&service, "id");

    // The customer invites a user and gives her 20 GiB, which she sees, and which cannot be more than there is.
    let invite = json!({ "kind": "user", "email": "anna@acme.example", "role": "user" });
    day.done(&customer, Method::Post, &format!("/tenants/{}/invitations", customer.tenant), &invite);
    let anna = day.come_in("anna@acme.example");
    let allocation = format!("/services/{service}/allocations/{}", anna.user);
    let (status, refused) = day.ask(Some(&customer.secret), Method::Put, &allocation, &json!({ "bytes": 51 * GIB }));
    assert_eq!((status, refused["code"].as_str()), (409, Some("allocation_exceeds_free")), "{refused}");
    let given = day.done(&customer, Method::Put, &allocation, &json!({ "bytes": 20 * GIB }));
    assert_eq!(given["bytes"].as_i64(), Some(20 * GIB));
    let (status, own) = day.ask(Some(&anna.secret), Method::Put, &allocation, &json!({ "bytes": 30 * GIB }));
    assert_eq!(status, 403, "nobody gives themselves space: {own}");

    // One line on her computer; one plan every ten minutes, also in the hour that comes twice, and one at a fixed time
    // that comes twice, of which once is enough.
    let source = day.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("note"), "first").unwrap();
    let (one, computer) = day.enrol(&anna, "one");
    day.move_clock(NIGHT + 21 * MINUTE);
    let plan = |name: &str, rule: Value| {
        let body = json!({
            "name": name,
            "source": { "kind": "folders", "paths": [source] },
            "schedule": { "rule": rule, "time_zone": "Europe/Berlin" },
        });
        text(&day.done(&anna, Method::Post, &format!("/computers/{computer}/plans"), &body), "id")
    };
    plan("documents", json!({ "every": "cron", "expression": "*/10 * * * *" }));
    plan("daily", json!({ "every": "day", "at": "02:30" }));
    let running = day.run(&one);
    let slots: Vec<i64> = (0..10).map(|number| NIGHT + 30 * MINUTE + number * 10 * MINUTE).collect();
    for (number, slot) in slots.iter().enumerate() {
        fs::write(source.join("note"), format!("version {}", number + 1)).unwrap();
        day.move_clock(slot + 2 * SECOND);
        day.snapshots(&one, "documents", number + 1);
    }
    let snapshots = day.snapshots(&one, "documents", slots.len());
    for ((committed, _), slot) in snapshots.iter().zip(&slots) {
        assert!((*slot..slot + MINUTE).contains(committed), "{snapshots:?}");
    }
    let once = day.snapshots(&one, "daily", 1);
    assert!((slots[0]..slots[1]).contains(&once[0].0), "{once:?}");

    // The third version on another computer, by an order that is given on the server.
    // Who has done nothing for two hours is asked to log in again.
    assert_eq!(day.ask(Some(&anna.secret), Method::Get, "/profile", &Value::Null).0, 401);
    let [partner, customer, anna] = [partner, customer, anna].map(|person| day.log_in(person));
    let (two, other) = day.enrol(&anna, "two");
    let second = day.run(&two);
    let target = day.path("restored");
    let order = json!({ "snapshot": snapshots[2].1, "target": target, "paths": [source] });
    let restores = format!("/computers/{other}/restores");
    let ordered = day.done(&anna, Method::Post, &restores, &order);
    let restored = day.ended(&anna, &text(&ordered, "id"));
    assert_eq!(restored["state"], "succeeded", "{restored}");
    let back = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(back.join("note")).unwrap(), "version 3");

    // Neither the customer nor the partner reads what is Anna's, and both see that it is there.
    for above in [&customer, &partner] {
        let (status, answer) = day.ask(Some(&above.secret), Method::Post, &restores, &order);
        assert_eq!(status, 403, "{answer}");
        day.done(above, Method::Get, &format!("/computers/{computer}"), &Value::Null);
    }
    let checked = day.operator(&["accounts", "check"]);
    assert_eq!(checked["items"].as_array().map(Vec::len), Some(0), "{checked}");
    second.stop();
    running.stop();
    day.server.stop().unwrap();
}

//! Quotas with the real programs: many agents at once into the last bytes of a user, of a customer and of a partner. At no
//! moment is a hard limit passed, each refusal says every figure, and what is stored can be restored all the while.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use api::problem::Code;
use api::quota::{Quota, Quotas};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tests::harness::{Login, Scene, User, Wire};
use tests::seed::Seed;
use tests::trees;

const MIB: u64 = 1 << 20;
const AGENTS: usize = 16;

fn quota(operator: &Wire, limit: &str) -> Quota {
    let answer = operator.get(&format!("/quotas/{}", limit.replace('/', "%2F"))).unwrap();
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}: {:?}", answer.status, answer.body))
}

fn operator(scene: &Scene) -> Wire {
    let secret = fs::read_to_string(scene.data().join("run/local-token")).unwrap();
    Wire::with_token(&scene.user, secret.trim()).unwrap()
}

fn administer(scene: &Scene, arguments: &[&str]) -> Value {
    let said = scene.server().unwrap().administer(&scene.binaries, arguments).unwrap();
    serde_json::from_str(&said).unwrap_or(Value::Null)
}

fn user_of(scene: &Scene, customer: &str, name: &str) -> User {
    let added = administer(scene, &["user", "add", name, "--customer", customer, "--json"]);
    let text = |pointer: &str| added.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    User {
        url: scene.user.url.clone(),
        fingerprint: text("/fingerprint"),
        token: text("/token/secret"),
        vault: text("/user/vault"),
    }
}

/// A number that stands before `word` in a text.
fn figure(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap();
    let digits = before.trim_end().rsplit(|character: char| !character.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no figure before {word:?} in {text}"))
}

/// Sixteen agents, spread over `users`, each with `each_bytes` of its own that do not compress, into a limit that has
/// `left_bytes` left. What every agent said at its end.
fn race(scene: &Scene, users: &[User], limit: &str, left_bytes: u64, each_bytes: u64) -> Vec<(Option<i32>, String)> {
    let agents: Vec<(Login, PathBuf)> = (0..AGENTS)
        .map(|number| {
            let user = &users[number % users.len()];
            let login = Login::create(&scene.binaries, user, &scene.path(&format!("agent-{number}"))).unwrap();
            let source = scene.path(&format!("source-{number}"));
            fs::create_dir(&source).unwrap();
            trees::dense_file(&source.join("noise"), each_bytes, Seed(scene.seed.0.wrapping_add(number as u64 + 1)))
                .unwrap();
            (login, source)
        })
        .collect();
    let operator = operator(scene);
    let hard = quota(&operator, limit).used_physical_bytes + left_bytes;
    administer(scene, &["quota", "set", limit, "--physical", &hard.to_string()]);
    let (done, looks, most) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let ends = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = quota(&operator, limit);
                let taken = now.used_physical_bytes + now.reserved_physical_bytes;
                assert!(taken <= hard, "{now:?}");
                most.fetch_max(taken, Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let runs: Vec<_> = agents
            .iter()
            .map(|(login, source)| {
                scope.spawn(move || {
                    let outcome = login.run(["backup".as_ref(), source.as_os_str()]).unwrap();
                    (outcome.code, outcome.stderr)
                })
            })
            .collect();
        let ends: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        ends
    });
    let refused = ends.iter().filter(|(code, _)| *code != Some(0)).count();
    let (looks, most) = (looks.load(Ordering::Relaxed), most.load(Ordering::Relaxed));
    eprintln!(
        "{limit}: {AGENTS} agents of {} MiB into {} MiB: {} backed up, {refused} refused; at most {most} of {hard} bytes \
         taken in {looks} looks",
        each_bytes / MIB,
        left_bytes / MIB,
        AGENTS - refused,
    );
    // The room was there to be used, and was: what was refused did not fit beside what others had taken.
    assert!(most + 16 * MIB >= hard, "only {most} of {hard} bytes were ever taken");
    for (code, said) in ends.iter().filter(|(code, _)| *code != Some(0)) {
        assert_eq!(*code, Some(1), "{said}");
        assert!(said.contains(&format!("the physical quota of {limit} is reached")), "{said}");
        let used =
            said.split("is reached: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()).unwrap();
        let (reserved, requested) = (figure(said, " reserved by"), figure(said, " more are needed"));
        assert_eq!(figure(said, " bytes are used"), hard, "{said}");
        assert!(used + reserved <= hard && used + reserved + requested > hard, "{said}");
        assert!(said.contains("delete snapshots") && said.contains("Restoring and deleting still work"), "{said}");
    }
    ends
}

/// Waits until an idle server has given back what nothing keeps.
fn wait_for_room(operator: &Wire, limit: &str, below: u64) {
    for _ in 0..600 {
        if quota(operator, limit).used_physical_bytes <= below {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("after a minute still {:?}, not {below}", quota(operator, limit));
}

fn sixteen_agents_of_one_user(left_bytes: u64, each_bytes: u64) {
    let scene = Scene::new().unwrap();
    let source = scene.path("source");
    trees::many_small_files(&source, 50, scene.seed).unwrap();
    scene.backup(&source, 0).unwrap();
    let first = scene.snapshots().unwrap().pop().unwrap();
    let limit = "user:default/tester";
    let ends = race(&scene, std::slice::from_ref(&scene.user), limit, left_bytes, each_bytes);
    assert!(ends.iter().any(|(code, _)| *code != Some(0)), "twice as much as fits was taken");
    // Full or not: restoring works, and so does a backup that brings nothing new.
    let report = scene.restore_and_compare(&first, &source, "restored").unwrap();
    assert!(report.is_equal(), "{report}");
    scene.backup(&source, 0).unwrap();
    let committed = ends.iter().filter(|(code, _)| *code == Some(0)).count();
    assert_eq!(scene.snapshots().unwrap().len(), committed + 2);
}

#[test]
fn sixteen_agents_share_the_last_bytes_of_a_user() {
    sixteen_agents_of_one_user(128 * MIB, 16 * MIB);
}

#[test]
#[ignore = "long: ./check --long"]
fn sixteen_agents_share_the_last_gigabyte_of_a_user() {
    sixteen_agents_of_one_user(1024 * MIB, 128 * MIB);
}

fn sixteen_agents_of_a_partner(left_bytes: u64, each_bytes: u64) {
    let scene = Scene::new().unwrap();
    let users: Vec<User> = [("acme", "anna"), ("acme", "bert"), ("zenith", "carl"), ("zenith", "dora")]
        .iter()
        .map(|(customer, name)| user_of(&scene, customer, name))
        .collect();
    for customer in ["acme", "zenith"] {
        administer(&scene, &["quota", "partner", customer, "north"]);
    }
    let ends = race(&scene, &users, "partner:north", left_bytes, each_bytes);
    assert!(ends.iter().any(|(code, _)| *code != Some(0)), "twice as much as fits was taken");
    // The partner's figures are the sum of its customers', and each user sees under what it counts.
    let operator = operator(&scene);
    let sum = |quotas: &[Quota]| quotas.iter().map(|quota| quota.used_physical_bytes).sum::<u64>();
    let customers = [quota(&operator, "customer:acme"), quota(&operator, "customer:zenith")];
    let (north, sum_of_customers) = (quota(&operator, "partner:north"), sum(&customers));
    assert!(north.used_physical_bytes.abs_diff(sum_of_customers) <= each_bytes, "{north:?} {customers:?}");
    let wire = Wire::connect(&users[2]).unwrap();
    let answer = wire.get(&format!("/vaults/{}/quotas", wire.vault)).unwrap();
    let seen: Quotas = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(seen.quotas.last().unwrap().limit, "partner:north");
    assert_eq!(operator.get("/vaults/00/quotas").unwrap().code(), Some(Code::Forbidden));
}

#[test]
fn sixteen_agents_of_two_customers_share_the_last_bytes_of_a_partner() {
    sixteen_agents_of_a_partner(128 * MIB, 16 * MIB);
}

#[test]
#[ignore = "long: ./check --long"]
fn sixteen_agents_of_two_customers_share_the_last_gigabyte_of_a_partner() {
    sixteen_agents_of_a_partner(1024 * MIB, 128 * MIB);
}

#[test]
fn a_refusal_and_a_soft_limit_are_said_plainly() {
    let scene = Scene::new().unwrap();
    let (small, large) = (scene.path("small"), scene.path("large"));
    for (folder, bytes) in [(&small, MIB), (&large, 40 * MIB)] {
        fs::create_dir(folder).unwrap();
        trees::dense_file(&folder.join("noise"), bytes, scene.seed).unwrap();
    }
    scene.backup(&small, 0).unwrap();
    let operator = operator(&scene);
    let limit = "user:default/tester";
    let before = quota(&operator, limit).used_physical_bytes;
    let hard = before + 20 * MIB;
    let set = ["quota", "set", limit, "--physical", &hard.to_string(), "--physical-soft", "1KiB"];
    administer(&scene, &set);
    let refused = scene.agent.run(["backup".as_ref(), large.as_os_str()]).unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let said = &refused.stderr;
    assert!(said.contains(&format!("the physical quota of {limit} is reached")) && said.contains("delete snapshots"));
    assert_eq!(quota(&operator, limit).reserved_logical_bytes, 0, "the refused run has ended its session");
    // What it had sent goes, so that the room can be used.
    wait_for_room(&operator, limit, before + 64 * 1024);
    // A soft limit is noticed, in words and for scripts, and the run is complete.
    let noticed = scene.agent.run(["backup".as_ref(), small.as_os_str()]).unwrap();
    assert_eq!(noticed.code, Some(0), "{}", noticed.stderr);
    assert!(noticed.stderr.contains("is above its soft limit"), "{}", noticed.stderr);
    let summary = scene.backup(&small, 0).unwrap();
    assert_eq!(summary.pointer("/quota_notices/0/limit").and_then(Value::as_str), Some(limit), "{summary}");
}

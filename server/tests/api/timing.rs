//! What is somebody else's and what is not there cannot be told apart by how long the answer takes: pairs of requests,
//! one for each, in turn, on one connection; what counts is the medians.

use crate::every_route::oracle::Matrix;
use crate::every_route::world::{Principal, World};
use crate::harness::Client;
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// Medians may differ by this much,
const TOLERATED: Duration = Duration::from_micros(50);
/// or by this part of the larger one.
const TOLERATED_PERCENT: u32 = 5;
/// Pairs that are not counted, while connections and caches warm up.
const WARM_UP: usize = 20;

/// One request of each class of routes: who asks, how, and by which path around the id. For some a body.
const CLASSES: &[(&str, &str, &str, &str, &str)] = &[
    ("tenant", "CA", "GET", "tenant", "/tenants/{}"),
    ("members of a tenant", "CA", "GET", "tenant", "/tenants/{}/members"),
    ("edit of a tenant", "CA", "PATCH", "tenant", "/tenants/{}"),
    ("tenant, of a user", "BU", "GET", "tenant", "/tenants/{}"),
    ("tenant, of a member of a group", "PG", "GET", "tenant", "/tenants/{}"),
    ("service", "CA", "GET", "service", "/services/{}"),
    ("service, of a contact", "TC", "GET", "service", "/services/{}"),
    ("service, of an auditor", "RO", "GET", "service", "/services/{}"),
    ("user", "CA", "POST", "user", "/users/{}/enrolments"),
    ("group", "PA", "GET", "group", "/groups/{}"),
    ("invitation", "CA", "DELETE", "invitation", "/invitations/{}"),
    ("computer", "CA", "GET", "computer", "/computers/{}"),
    ("computer, of a user", "BU", "GET", "computer", "/computers/{}"),
    ("plan", "CA", "GET", "plan", "/plans/{}"),
    ("job", "CA", "GET", "job", "/jobs/{}"),
    ("webhook", "CA", "GET", "webhook", "/webhooks/{}"),
    ("log of a job", "BU", "GET", "job", "/jobs/{}/log"),
    ("vault", "CA", "GET", "vault", "/vaults/{}"),
    ("snapshots of a vault", "BU", "GET", "vault", "/vaults/{}/snapshots"),
    ("upload into a vault", "BU", "POST", "vault", "/vaults/{}/uploads"),
    ("vault, by the token of another one", "vault token", "GET", "vault", "/vaults/{}/snapshots"),
    ("vault, by an agent", "agent", "GET", "vault", "/vaults/{}/snapshots"),
    ("job, by an agent", "agent", "PUT", "job", "/computer/jobs/{}"),
];

/// What came of one class.
#[derive(Clone, Copy, Debug)]
struct Measured {
    foreign: Duration,
    absent: Duration,
}

impl Measured {
    fn differ(&self) -> bool {
        let larger = self.foreign.max(self.absent);
        self.foreign.abs_diff(self.absent) > TOLERATED.max(larger * TOLERATED_PERCENT / 100)
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn ask(client: &Client, method: &Method, path: &str) -> Duration {
    let body = match *method == Method::PUT {
        true => serde_json::to_value(api::jobs::JobCounts::default()).unwrap(),
        false => json!({"computer": "pc", "series": "s"}),
    };
    let request = client.request(method.clone(), path).json(&body);
    let asked = Instant::now();
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let _ = answer.bytes().await.unwrap();
    let took = asked.elapsed();
    assert_eq!(status, reqwest::StatusCode::NOT_FOUND, "{method} {path}");
    took
}

/// `pairs` pairs of one class; which of a pair goes first changes from one to the next.
async fn measure(world: &World, class: usize, pairs: usize) -> Measured {
    let (_, asker, method, parameter, path) = CLASSES[class];
    let principal: &Principal = world.principal(asker);
    let things = if parameter == "group" { "south" } else { "dora" };
    let id = &world.things(things).ids[parameter];
    let method: Method = method.parse().unwrap();
    let of = |id: &str| format!("/api/v1{}", path.replace("{}", id));
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..WARM_UP + pairs {
        // An id that nothing has, another one each time: nothing can have been looked up before.
        let paths = [of(id), of(&control::TenantId::generate().unwrap().to_string())];
        for turn in 0..2 {
            let which = (number + turn) % 2;
            let took = ask(&principal.plain, &method, &paths[which]).await;
            if number >= WARM_UP {
                times[which].push(took);
            }
        }
    }
    let [foreign, absent] = times.map(median);
    Measured { foreign, absent }
}

/// Names the one class that the long test measures, such as `webhook`.
const CLASS_VARIABLE: &str = "HOLDFAST_TIMING_CLASS";

/// Measures every class, or the one that was asked for, and says which of them differ.
async fn differing(world: &World, pairs: usize) -> Vec<String> {
    let mut differing = Vec::new();
    let wanted = std::env::var(CLASS_VARIABLE).ok();
    assert!(wanted.as_ref().is_none_or(|wanted| CLASSES.iter().any(|class| class.0 == wanted)), "{wanted:?}: no class");
    for (class, (name, asker, method, _, path)) in CLASSES.iter().enumerate() {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let measured = measure(world, class, pairs).await;
        let line = format!(
            "{name}: {method} {path} by {asker}: foreign {:.1} us, absent {:.1} us",
            measured.foreign.as_secs_f64() * 1e6,
            measured.absent.as_secs_f64() * 1e6
        );
        println!("{line}");
        if measured.differ() {
            differing.push(line);
        }
    }
    differing
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./check --long"]
async fn ten_thousand_pairs_of_each_class_take_the_same_time() {
    let world = World::build(&Matrix::read()).await;
    let differing = differing(&world, 10_000).await;
    assert!(differing.is_empty(), "{differing:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_absent_things_take_the_same_time() {
    let world = World::build(&Matrix::read()).await;
    let mut left: Vec<usize> = (0..CLASSES.len()).collect();
    // On a busy machine a few hundred pairs may come out crooked by chance; a difference that is there stays.
    for pairs in [150, 600, 2400] {
        let mut again = Vec::new();
        for class in left {
            let measured = measure(&world, class, pairs).await;
            if measured.differ() {
                println!("{} after {pairs} pairs: {measured:?}", CLASSES[class].0);
                again.push(class);
            }
        }
        left = again;
    }
    let names: Vec<&str> = left.iter().map(|class| CLASSES[*class].0).collect();
    assert!(left.is_empty(), "foreign and absent differ: {names:?}");
}

/// The harness sees what it is there to see: 200 us more for what exists and is somebody else's.
#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_difference_of_200_us_is_seen() {
    let planted = [(server::app::auth::FOREIGN_DELAY_VARIABLE, "200")];
    let folder = tempfile::tempdir().unwrap();
    let server = crate::harness::Server::start_with_environment(&folder.path().join("data"), &planted);
    let world = World::build_on(server, &Matrix::read()).await;
    let (mut looked_up, mut unseen) = (0, Vec::new());
    for (class, (name, asker, ..)) in CLASSES.iter().enumerate() {
        // Nothing is looked up for those who name the vault that they hold a token of.
        if matches!(*asker, "vault token" | "agent") {
            continue;
        }
        looked_up += 1;
        let measured = measure(&world, class, 600).await;
        if !measured.differ() || measured.foreign < measured.absent {
            unseen.push((*name, measured));
        }
    }
    assert!(looked_up >= 15 && unseen.is_empty(), "not seen: {unseen:#?}");
}

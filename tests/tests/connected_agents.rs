//! Thousands of agents that wait for orders, each with a credential and a TLS connection of its own to a real server. What
//! waits, comes back and stays away is the agent's own code (`agent::service::listen`) over its own transport; only
//! backups are left out, and threads of the network are shared. How long an order takes to an agent, what the server
//! takes of memory, and what happens when the server is killed, or stopped in good order, and starts again.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::client::{Client, ClientError, Patience};
use agent::service::listen::{Listener, Pauses, greet, listen};
use agent::stop::Stop;
use agent::tls::Trust;
use agent::transport::{HttpTransport, Method, Request, Response, Transport, TransportError};
use api::agents::{BeginJob, EndJob, Order, OrderKind};
use api::jobs::{JobCause, JobCounts, JobState};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::directory::raise_open_file_limit;
use tests::harness::{Binaries, Hand, Server};
use tests::process;
use tests::seed::Seed;

/// Longest wait for anything that is to happen; no promise, only the end of a test that hangs.
const PATIENCE: Duration = Duration::from_secs(300);
const PASSWORD: &str = "correct horse battery staple";
/// Agents of one user.
const COMPUTERS_EACH: usize = 50;
/// What an agent's thread needs: everything of the network happens on the shared ones.
const STACK_BYTES: usize = 512 << 10;
/// Threads that do what persons do.
const HANDS: usize = 4;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// An order that is on its way, and one that has come.
#[derive(Default)]
struct Delivery {
    sent: Option<(Instant, u64)>,
    /// How long it took, and whether the request was open already when it was sent.
    taken: Option<(Duration, bool)>,
}

/// What one agent did.
#[derive(Default)]
struct Seat {
    requests: AtomicU64,
    delivery: Mutex<Delivery>,
}

/// What all agents did.
struct Book {
    seats: Vec<Seat>,
    /// When each request was sent.
    requests: Mutex<Vec<Instant>>,
    /// How long agents chose to stay away, in the order in which they did.
    pauses: Mutex<Vec<(usize, Duration)>>,
    delivered: AtomicUsize,
    news: (Mutex<()>, Condvar),
}

impl Book {
    fn requests_since(&self, from: Instant) -> Vec<Instant> {
        let mut found: Vec<Instant> = self.requests.lock().unwrap().iter().filter(|at| **at >= from).copied().collect();
        found.sort();
        found
    }
}

/// Most of `moments` within any one second; `moments` are in order.
fn peak_per_second(moments: &[Instant]) -> usize {
    let mut first = 0;
    let mut peak = 0;
    for (last, at) in moments.iter().enumerate() {
        while *at - moments[first] >= Duration::from_secs(1) {
            first += 1;
        }
        peak = peak.max(last + 1 - first);
    }
    peak
}

/// The agent's transport, watched.
struct Watched {
    inner: HttpTransport,
    book: Arc<Book>,
    seat: usize,
}

impl Transport for Watched {
    fn send(&self, request: &Request) -> Result<Response, TransportError> {
        self.book.seats[self.seat].requests.fetch_add(1, Ordering::SeqCst);
        self.book.requests.lock().unwrap().push(Instant::now());
        self.inner.send(request)
    }
}

/// What an agent does with what it hears, without the backups.
struct Ears {
    client: Client,
    book: Arc<Book>,
    seat: usize,
}

impl Listener for Ears {
    fn fetch_plans(&self) -> Result<i64, ClientError> {
        Ok(self.client.computer_plans()?.version)
    }

    fn obey(&self, order: Order) {
        let seat = &self.book.seats[self.seat];
        {
            let mut delivery = seat.delivery.lock().unwrap();
            if let (Some((at, requests)), None) = (delivery.sent, delivery.taken) {
                delivery.taken = Some((at.elapsed(), seat.requests.load(Ordering::SeqCst) == requests));
                self.book.delivered.fetch_add(1, Ordering::SeqCst);
            }
        }
        let _guard = self.book.news.0.lock().unwrap();
        self.book.news.1.notify_all();
        drop(_guard);
        // The job is begun and ends, with nothing between.
        let OrderKind::Start { plan } = order.kind else { panic!("only starts are ordered") };
        let begin =
            BeginJob { id: order.job.clone(), plan: Some(plan), revision: None, cause: JobCause::Order, slot_ns: None };
        let end = EndJob {
            state: JobState::Succeeded,
            error_code: None,
            message: None,
            snapshot: None,
            counts: JobCounts::default(),
        };
        let client = &self.client;
        let taken = client.order_received(&order.id).and_then(|()| client.begin_job(&begin));
        match taken.and_then(|_| client.end_job(&order.job, &end)) {
            // The test is over.
            Ok(_) | Err(ClientError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn remark(&self, _text: &str) {}

    fn pausing(&self, pause: Duration) {
        self.book.pauses.lock().unwrap().push((self.seat, pause));
    }
}

#[derive(Clone, Debug)]
struct Computer {
    plan: String,
    credential: String,
}

/// A server and its crowd.
struct Crowd {
    binaries: Binaries,
    folder: tempfile::TempDir,
    server: Option<Server>,
    listen: SocketAddr,
    trust: Trust,
    network: Arc<tokio::runtime::Runtime>,
    admin: String,
    computers: Vec<Computer>,
    book: Arc<Book>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// So many enrolled computers with a plan each; their agents do not run yet.
    fn enrolled(count: usize) -> Crowd {
        raise_open_file_limit();
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::of_this_build().unwrap();
        let server = Server::start(&binaries, &folder.path().join("data")).unwrap();
        let trust = Trust::Pinned(server.fingerprint().unwrap().parse().unwrap());
        let network = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let book = Book {
            seats: (0..count).map(|_| Seat::default()).collect(),
            requests: Mutex::default(),
            pauses: Mutex::default(),
            delivered: AtomicUsize::new(0),
            news: Default::default(),
        };
        let listen = server.address();
        let mut crowd = Crowd {
            binaries,
            folder,
            server: Some(server),
            listen,
            trust,
            network: Arc::new(network),
            admin: String::new(),
            computers: Vec::new(),
            book: Arc::new(book),
            stop: Stop::default(),
            threads: Vec::new(),
        };
        crowd.admin = crowd.administrator();
        crowd.computers = crowd.enrol(count);
        crowd
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn transport(&self, secret: Option<&str>) -> HttpTransport {
        let secret = secret.map(|secret| secret.to_owned().into());
        let url = format!("https://{}", self.listen);
        HttpTransport::on(self.network.clone(), &url, &self.trust, secret, None).unwrap()
    }

    fn hand(&self, secret: Option<&str>) -> Hand {
        Hand::over(self.transport(secret))
    }

    /// The secret of somebody who administers the customer to whom every user belongs.
    fn administrator(&self) -> String {
        let operator = self.server().local().unwrap();
        self.server().add_user(&self.binaries, "user-0").unwrap();
        let tenants = operator.done(Method::Get, "/tenants?kind=customer", &Value::Null).unwrap();
        let tenant = text(&tenants["items"][0], "id");
        let invite = json!({ "kind": "user", "email": "carla@acme.example", "role": "admin" });
        let sent = operator.done(Method::Post, &format!("/tenants/{tenant}/invitations"), &invite).unwrap();
        let link = text(&sent, "link");
        let secret = link.split_once('#').unwrap().1;
        let nobody = self.hand(None);
        let accept = json!({ "secret": secret, "name": "carla", "password": PASSWORD });
        nobody.done(Method::Post, "/invitations/accept", &accept).unwrap();
        let login = json!({ "login": "carla@acme.example", "password": PASSWORD });
        text(&nobody.done(Method::Post, "/login", &login).unwrap(), "secret")
    }

    fn enrol(&self, count: usize) -> Vec<Computer> {
        let users: Vec<String> = {
            for number in 1..count.div_ceil(COMPUTERS_EACH) {
                self.server().add_user(&self.binaries, &format!("user-{number}")).unwrap();
            }
            let admin = self.hand(Some(&self.admin));
            let tenant =
                text(&admin.done(Method::Get, "/tenants?kind=customer", &Value::Null).unwrap()["items"][0], "id");
            let mut users = Vec::new();
            let mut path = format!("/tenants/{tenant}/members?limit=200");
            loop {
                let page = admin.done(Method::Get, &path, &Value::Null).unwrap();
                let members = page["items"].as_array().unwrap().iter();
                users.extend(members.filter(|one| text(one, "name").starts_with("user-")).map(|one| text(one, "user")));
                match page["next"].as_str() {
                    Some(next) => path = format!("/tenants/{tenant}/members?limit=200&after={next}"),
                    None => break users,
                }
            }
        };
        assert_eq!(users.len(), count.div_ceil(COMPUTERS_EACH));
        let next = AtomicUsize::new(0);
        let made: Mutex<Vec<Option<Computer>>> = Mutex::new(vec![None; count]);
        let work = || {
            let (admin, nobody) = (self.hand(Some(&self.admin)), self.hand(None));
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= count {
                    return;
                }
                let user = &users[number / COMPUTERS_EACH];
                let enrolment = admin.done(Method::Post, &format!("/users/{user}/enrolments"), &json!({})).unwrap();
                let enrol = json!({ "token": text(&enrolment, "token"), "name": format!("pc-{number}") });
                let enrolled = nobody.done(Method::Post, "/enrol", &enrol).unwrap();
                let computer = text(&enrolled["computer"], "id");
                let plan = json!({
                    "name": "documents",
                    "source": { "kind": "folders", "paths": ["/home"] },
                    "schedule": { "rule": { "every": "never" } },
                });
                let plan = admin.done(Method::Post, &format!("/computers/{computer}/plans"), &plan).unwrap();
                let computer = Computer { plan: text(&plan, "id"), credential: text(&enrolled, "credential") };
                made.lock().unwrap()[number] = Some(computer);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(work);
            }
        });
        made.into_inner().unwrap().into_iter().map(Option::unwrap).collect()
    }

    /// Every agent starts now.
    fn start_agents(&mut self, pauses: Pauses) {
        for (seat, computer) in self.computers.iter().enumerate() {
            let inner = self.transport(Some(&computer.credential));
            let transport = Watched { inner, book: self.book.clone(), seat };
            // As the service has it.
            let patience = Patience { total: Duration::from_secs(60), ..Patience::default() };
            let (stop, book) = (self.stop.clone(), self.book.clone());
            let client = Client::new(Arc::new(transport), patience, stop.clone());
            let live = move || {
                if let Ok(Some(Ok(_))) = greet(&client, &stop, pauses, &|_| {}) {
                    let ears = Ears { client: client.clone(), book, seat };
                    listen(&client, &stop, pauses, &ears);
                }
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(live).unwrap();
            self.threads.push(thread);
        }
    }

    /// How many agents wait, as the server says.
    fn waiting(&self) -> usize {
        let address = std::fs::read_to_string(self.server().data().join("run/metrics-address")).unwrap();
        let mut stream = TcpStream::connect(address.trim()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find_map(|line| line.strip_prefix("holdfast_agents_waiting "));
        line.unwrap_or_else(|| panic!("{answer}")).trim().parse().unwrap()
    }

    /// Waits until every agent waits; how long that took.
    fn all_waiting(&self, since: Instant) -> Duration {
        loop {
            let waiting = self.waiting();
            if waiting == self.computers.len() {
                return since.elapsed();
            }
            assert!(since.elapsed() < PATIENCE, "{waiting} of {} agents wait", self.computers.len());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Orders a start on so many computers, `each_second` of them in a second if the machine keeps up. How long each took
    /// to its agent, in order; and how many came with the request that was open when they were given.
    fn order(&self, count: usize, seed: Seed, each_second: u32) -> (Vec<Duration>, usize) {
        let mut chosen: Vec<usize> = (0..self.computers.len()).collect();
        let mut random = seed.stream("orders");
        for place in 0..count {
            chosen.swap(place, place + random.index(self.computers.len() - place));
        }
        chosen.truncate(count);
        let before = self.book.delivered.load(Ordering::SeqCst);
        let (next, begun) = (AtomicUsize::new(0), Instant::now());
        let work = || {
            let admin = self.hand(Some(&self.admin));
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                let Some(computer) = chosen.get(number) else { return };
                let due = begun + Duration::from_secs(number as u64) / each_second;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let seat = &self.book.seats[*computer];
                let requests = seat.requests.load(Ordering::SeqCst);
                *seat.delivery.lock().unwrap() = Delivery { sent: Some((Instant::now(), requests)), taken: None };
                admin
                    .done(Method::Post, &format!("/plans/{}/start", self.computers[*computer].plan), &json!({}))
                    .unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(work);
            }
        });
        let mut guard = self.book.news.0.lock().unwrap();
        let ended = Instant::now();
        while self.book.delivered.load(Ordering::SeqCst) < before + chosen.len() {
            assert!(ended.elapsed() < PATIENCE, "not all orders have reached their agents");
            guard = self.book.news.1.wait_timeout(guard, Duration::from_secs(1)).unwrap().0;
        }
        drop(guard);
        let taken = chosen.iter().map(|seat| self.book.seats[*seat].delivery.lock().unwrap().taken.unwrap());
        let (mut times, open): (Vec<Duration>, Vec<bool>) = taken.unzip();
        times.sort();
        (times, open.into_iter().filter(|open| *open).count())
    }

    /// Memory of the server at its peak since it started, bytes.
    fn peak_memory(&self) -> u64 {
        process::memory(self.server().pid()).1
    }

    /// Ends the server and starts it again at the same address.
    fn restart(&mut self, kill: bool) -> Restarted {
        let server = self.server.take().unwrap();
        let data = server.data().to_path_buf();
        self.book.pauses.lock().unwrap().clear();
        let gone = Instant::now();
        if kill {
            server.kill().unwrap()
        } else {
            server.stop().unwrap()
        }
        self.server = Some(Server::start_at(&self.binaries, &data, self.listen, &[]).unwrap());
        let back = gone.elapsed();
        let all = self.all_waiting(gone);
        let requests = self.book.requests_since(gone);
        Restarted { back, all, requests: requests.len(), peak: peak_per_second(&requests) }
    }

    fn pauses(&self) -> Vec<(usize, Duration)> {
        self.book.pauses.lock().unwrap().clone()
    }

    fn end(mut self) {
        self.stop.fail(agent::error::AgentError::Stopped);
        self.server.take().unwrap().kill().unwrap();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        drop(self.folder);
    }
}

/// What a restart was to its agents. Times from the moment the server was ended.
#[derive(Debug)]
struct Restarted {
    /// Until it answered again.
    back: Duration,
    /// Until every agent waited again.
    all: Duration,
    /// Requests that agents sent, refused connections included.
    requests: usize,
    /// Most of them in any one second.
    peak: usize,
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

fn told(times: &[Duration]) -> String {
    format!("median {:?}, p99 {:?}, longest {:?}", at(times, 500), at(times, 990), at(times, 1000))
}

#[test]
#[ignore = "long: ./check --long"]
fn five_thousand_agents_wait_for_orders() {
    const AGENTS: usize = 5000;
    const MEMORY_BYTES_MAX: u64 = 400_000_000;
    let seed = Seed::announce();
    let began = Instant::now();
    let mut crowd = Crowd::enrolled(AGENTS);
    eprintln!("{AGENTS} computers enrolled in {:?}", began.elapsed());
    let began = Instant::now();
    crowd.start_agents(Pauses::USUAL);
    let all = crowd.all_waiting(began);
    let peak = peak_per_second(&crowd.book.requests_since(began));
    eprintln!("all started at once: connected after {all:?}, at most {peak} requests in a second");
    let (calm, _) = crowd.order(1000, seed, 50);
    eprintln!("1,000 orders, 50 in a second: {}", told(&calm));
    let (hasty, _) = crowd.order(AGENTS, Seed(seed.0.wrapping_add(1)), 10_000);
    eprintln!("an order to every agent, as fast as the server takes them: {}", told(&hasty));
    let mut memory = crowd.peak_memory();
    eprintln!("server at its peak: {} MB", memory / 1_000_000);
    for (kill, how) in [(true, "killed"), (false, "stopped in good order")] {
        let restarted = crowd.restart(kill);
        let Restarted { back, all, requests, peak } = restarted;
        eprintln!(
            "server {how}: answered again after {back:?}, all agents back after {all:?}, {requests} requests, at most \
             {peak} in a second"
        );
        assert!(all < Duration::from_secs(60), "{all:?}");
        assert!(peak < AGENTS / 5, "a storm: {peak} requests in a second");
        let (times, _) = crowd.order(200, Seed(seed.0.wrapping_add(2)), 50);
        eprintln!("200 orders behind it: {}", told(&times));
        assert!(at(&times, 1000) < Duration::from_secs(2), "{}", told(&times));
        memory = memory.max(crowd.peak_memory());
        eprintln!("server at its peak: {} MB", crowd.peak_memory() / 1_000_000);
    }
    assert!(at(&calm, 1000) < Duration::from_secs(2), "{}", told(&calm));
    assert!(at(&hasty, 1000) < Duration::from_secs(2), "{}", told(&hasty));
    assert!(memory < MEMORY_BYTES_MAX, "the server took {memory} bytes");
    crowd.end();
}

/// The same with fewer, by counts: nothing here depends on how fast the machine is.
#[test]
fn agents_hear_orders_at_once_and_come_back_spread_out() {
    const AGENTS: usize = 200;
    const ORDERS: usize = 100;
    let seed = Seed::announce();
    let pauses = Pauses { return_within: Duration::from_secs(3), retry_within: Duration::from_secs(6) };
    let mut crowd = Crowd::enrolled(AGENTS);
    crowd.start_agents(pauses);
    crowd.all_waiting(Instant::now());
    let (_, open) = crowd.order(ORDERS, seed, 1000);
    // Some may have been between two requests, behind an answer.
    assert!(open >= ORDERS * 9 / 10, "only {open} of {ORDERS} orders came with the request that was open");
    crowd.all_waiting(Instant::now());
    let restarted = crowd.restart(true);
    let chosen = crowd.pauses();
    // One request behind each pause, and nothing beside it; agents that asked a second before the end may have been
    // about to ask again.
    assert!(restarted.requests <= chosen.len() + AGENTS / 10, "{restarted:?}, {} pauses", chosen.len());
    // The first pause of each is spread over the whole time: in no tenth of it are more than a quarter.
    let mut first = BTreeMap::new();
    for (seat, pause) in &chosen {
        first.entry(*seat).or_insert(*pause);
    }
    assert_eq!(first.len(), AGENTS, "an agent came back without staying away");
    let mut tenths = [0; 10];
    for pause in first.values() {
        let part = 10 * pause.as_nanos() / pauses.return_within.as_nanos();
        tenths[usize::try_from(part).unwrap().min(9)] += 1;
    }
    assert!(tenths.iter().all(|inside| *inside <= AGENTS / 4), "agents come back in heaps: {tenths:?}");
    let (_, open) = crowd.order(ORDERS, seed, 1000);
    assert!(open >= ORDERS * 9 / 10, "only {open} of {ORDERS} orders came with the request that was open");
    crowd.end();
}

//! Use cases of agents over a real store and real accounts, on a clock that stands until it is moved.

use super::*;
use crate::app::auth::{Person, Via};
use crate::app::{AppParts, Principal};
use crate::clock::Clock;
use api::plans::{PlanBody, PlanSource};
use control::{
    Control, Holding, JobCause, Licence, LogLevel, LoginSessionId, NewService, Place, PlanState, Role, SecretKind,
    TokenSecret, UserName, UserStep,
};
use repo_format::keyring::MasterKey;
use schedule::{Rule, Schedule};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicI64;
use store::world::World;
use store::{Store, StoreSettings};

const MINUTE: i64 = 60_000_000_000;
/// 2026-11-21 12:00 UTC.
const NOON: i64 = 1_795_262_400_000_000_000;

/// A clock that stands until it is moved.
#[derive(Debug)]
struct Standing(AtomicI64);

impl Clock for Standing {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Bed {
    app: Arc<App>,
    clock: Arc<Standing>,
    anna: Principal,
    bert: Principal,
    _folder: tempfile::TempDir,
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn login(step_up_until_ns: i64) -> Via {
    let session = LoginSessionId::from_bytes([3; 16]);
    Via::Login { session, second_factor_missing: false, step_up_until_ns }
}

async fn user(app: &App, name: &str) -> Principal {
    let name = UserName::parse(name).unwrap();
    let made = app.create_user(Principal::Local.operator().unwrap(), &name).await.unwrap();
    let at = app.control.locate_vault(&made.vault.unwrap()).await.unwrap().unwrap();
    let (user, tenant) = (at.user.unwrap(), at.tenant().unwrap());
    Principal::Person(Box::new(Person {
        user,
        name: name.to_string(),
        tenant,
        holdings: vec![Holding { role: Role::BackupUser, place: Place::Own { user, tenant }, verbs: Vec::new() }],
        via: login(i64::MAX),
        address: LOCALHOST,
    }))
}

impl Bed {
    async fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let master = MasterKey::from_bytes([1; 32]);
        let store = Store::open(StoreSettings::new(folder.path().join("store")), World::system(), &master).unwrap();
        let clock = Arc::new(Standing(AtomicI64::new(NOON)));
        let parts = AppParts {
            control: Control::open(&folder.path().join("accounts.sqlite")).await.unwrap(),
            store: Arc::new(store),
            clock: clock.clone(),
            local_secret: TokenSecret::generate(SecretKind::Token).unwrap(),
            master_fingerprint: master.fingerprint(),
            public_url: "https://localhost".into(),
            sealer: Arc::new(crate::sealing::SealingKey::from_bytes([2; 32])),
            load_master_key: Arc::new(move || Ok(master.clone())),
            webhooks: crate::webhook_sender::WebhookSender::new(Vec::new()).unwrap(),
        };
        let app = Arc::new(App::new(parts).await.unwrap());
        let (anna, bert) = (user(&app, "acme/anna").await, user(&app, "acme/bert").await);
        Bed { app, clock, anna, bert, _folder: folder }
    }

    fn advance(&self, ns: i64) -> i64 {
        self.clock.0.fetch_add(ns, Ordering::SeqCst) + ns
    }

    /// A computer of anna's, by the way a person goes.
    async fn enrolled(&self, name: &str) -> (ComputerGrant, String) {
        let Principal::Person(anna) = &self.anna else { panic!("a person") };
        let made = self.app.create_enrolment(&self.anna, &anna.user.to_string(), None).await.unwrap();
        let enrolled = self.app.enrol(made.secret.expose(), name, None, SystemWords::default()).await.unwrap();
        let agent = self.app.authenticate(enrolled.secret.expose(), LOCALHOST).await.unwrap();
        (agent.computer().unwrap(), enrolled.secret.expose().to_owned())
    }

    async fn plan(&self, grant: &ComputerGrant, name: &str, rule: Rule) -> Plan {
        let body = body(rule);
        self.app.create_plan(&self.anna, &grant.id().to_string(), name, &body, None).await.unwrap()
    }
}

fn body(rule: Rule) -> PlanBody {
    PlanBody {
        source: PlanSource::Sqlite { path: "/var/lib/shop.db".into() },
        schedule: Schedule { rule, ..Schedule::default() },
        retention: None,
        upload_bytes_per_second: None,
        before: Vec::new(),
        after: Vec::new(),
    }
}

fn begin(plan: &Plan, slot_ns: Option<i64>) -> BeginJob {
    BeginJob {
        id: JobId::generate().unwrap(),
        plan: Some(plan.id),
        revision: Some(plan.revision),
        cause: JobCause::Schedule,
        slot_ns,
        next: None,
    }
}

fn done() -> EndJob {
    let counts = JobCounts::default();
    EndJob { state: JobState::Succeeded, error_code: None, message: None, snapshot: None, counts }
}

#[tokio::test]
async fn a_bell_is_heard_by_those_who_wait_at_it() {
    let agents = Agents::default();
    let (one, other) = (ComputerId::from_bytes([1; 16]), ComputerId::from_bytes([2; 16]));
    assert!(!agents.is_online(one));
    let bell = agents.bell(one);
    let waiting = Waiting::at(bell.clone());
    assert!(agents.is_online(one) && !agents.is_online(other));
    let rung = bell.notify.notified();
    tokio::pin!(rung);
    rung.as_mut().enable();
    agents.ring(other);
    assert!(tokio::time::timeout(Duration::from_millis(20), rung.as_mut()).await.is_err());
    agents.ring(one);
    tokio::time::timeout(Duration::from_secs(10), rung).await.unwrap();
    assert_eq!(agents.waiting(), 1);
    drop(waiting);
    assert_eq!(agents.waiting(), 0);
}

#[tokio::test]
async fn an_order_reaches_the_agent_that_waits_and_only_that_one() {
    let bed = Bed::new().await;
    let (laptop, _) = bed.enrolled("laptop").await;
    let (other, _) = bed.enrolled("other").await;
    let nightly = bed.plan(&laptop, "nightly", Rule::Day { at: "02:00".into() }).await;
    let version = bed.app.plans_for_agent(&laptop).await.unwrap().0;
    let wait = |grant: ComputerGrant, plans: i64| {
        let app = bed.app.clone();
        tokio::spawn(async move { app.wait_for_orders(&grant, Duration::from_secs(600), Some(plans)).await.unwrap() })
    };
    let (at_laptop, at_other) = (wait(laptop.clone(), version), wait(other.clone(), 0));
    while bed.app.waiting_agents() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(bed.app.computer(&bed.anna, &laptop.id().to_string()).await.unwrap().1, "online");
    let ordered = std::time::Instant::now();
    let job = bed.app.start_plan(&bed.anna, &nightly.id.to_string()).await.unwrap();
    let mail = at_laptop.await.unwrap();
    assert!(ordered.elapsed() < Duration::from_secs(2), "{:?}", ordered.elapsed());
    assert_eq!(mail.orders.iter().map(|order| order.job).collect::<Vec<_>>(), [job.id]);
    assert!(!at_other.is_finished());
    bed.app.order_received(&laptop, &mail.orders[0].id.to_string()).await.unwrap();
    // A change of the plans is news as well.
    let at_laptop = wait(laptop.clone(), version);
    bed.app.pause_plan(&bed.anna, &nightly.id.to_string()).await.unwrap();
    let mail = at_laptop.await.unwrap();
    assert!(mail.orders.is_empty() && mail.plans_version > version);
    assert_eq!(bed.app.plans_for_agent(&laptop).await.unwrap().1[0].plan.state, PlanState::Paused);

    // Nothing happens: the wait is over when it is over, and at once when the server goes down.
    let nothing = bed.app.wait_for_orders(&laptop, Duration::from_millis(10), Some(mail.plans_version)).await.unwrap();
    assert!(nothing.orders.is_empty() && !nothing.going_down);
    bed.app.drain();
    assert!(at_other.await.unwrap().going_down);
}

#[tokio::test]
async fn a_job_runs_from_order_to_end_with_its_log() {
    let bed = Bed::new().await;
    let (laptop, _) = bed.enrolled("laptop").await;
    let nightly = bed.plan(&laptop, "nightly", Rule::Never).await;
    assert_eq!(nightly.due, None);
    let started = bed.app.start_computer(&bed.anna, &laptop.id().to_string()).await.unwrap();
    let queued = started[0].1.as_ref().unwrap().clone();
    let again = bed.app.start_computer(&bed.anna, &laptop.id().to_string()).await.unwrap();
    assert!(again[0].1.as_ref().unwrap_err().contains("queued already"), "{again:?}");
    assert!(matches!(bed.app.start_plan(&bed.anna, &nightly.id.to_string()).await, Err(AppError::WrongState(_))));

    let id = queued.id.to_string();
    let job = BeginJob { id: queued.id, plan: None, revision: None, ..begin(&nightly, None) };
    assert_eq!(bed.app.begin_job(&laptop, job).await.unwrap().state, JobState::Running);
    let line = LogLine { line: 0, at_ns: NOON, level: LogLevel::Info, text: "begun".into() };
    bed.app.append_job_log(&laptop, &id, vec![line.clone()]).await.unwrap();
    assert_eq!(bed.app.job_log(&bed.anna, &id, None, 10).await.unwrap(), [line]);
    bed.advance(MINUTE);
    let beat = bed.app.job_heartbeat(&laptop, &id, JobCounts::default()).await.unwrap();
    assert_eq!(beat.heartbeat_ns, Some(NOON + MINUTE));
    bed.app.cancel_job(&bed.anna, &id).await.unwrap();
    let mail = bed.app.wait_for_orders(&laptop, Duration::ZERO, None).await.unwrap();
    assert_eq!(mail.orders[0].job, queued.id);
    let ended = bed.app.end_job(&laptop, &id, EndJob { state: JobState::Cancelled, ..done() }).await.unwrap();
    assert_eq!(bed.app.job(&bed.anna, &id).await.unwrap(), ended);
    assert!(matches!(bed.app.cancel_job(&bed.anna, &id).await, Err(AppError::WrongState(_))));
}

#[tokio::test]
async fn nobody_else_sees_a_computer_or_what_belongs_to_it() {
    let bed = Bed::new().await;
    let (laptop, credential) = bed.enrolled("laptop").await;
    let nightly = bed.plan(&laptop, "nightly", Rule::Never).await;
    let job = bed.app.start_plan(&bed.anna, &nightly.id.to_string()).await.unwrap();
    let (computer, plan, job) = (laptop.id().to_string(), nightly.id.to_string(), job.id.to_string());
    let absent = "00".repeat(16);
    for (computer, plan, job) in [(&computer, &plan, &job), (&absent, &absent, &absent)] {
        let not_found = |error: AppError| assert!(matches!(error, AppError::NotFound { .. }), "{error}");
        not_found(bed.app.computer(&bed.bert, computer).await.unwrap_err());
        not_found(bed.app.retire_computer(&bed.bert, computer).await.unwrap_err());
        not_found(bed.app.start_computer(&bed.bert, computer).await.unwrap_err());
        not_found(bed.app.create_plan(&bed.bert, computer, "x", &body(Rule::Never), None).await.unwrap_err());
        not_found(bed.app.plan(&bed.bert, plan).await.unwrap_err());
        not_found(bed.app.revise_plan(&bed.bert, plan, &body(Rule::Never), None).await.unwrap_err());
        not_found(bed.app.start_plan(&bed.bert, plan).await.unwrap_err());
        not_found(bed.app.job(&bed.bert, job).await.unwrap_err());
        not_found(bed.app.job_log(&bed.bert, job, None, 9).await.unwrap_err());
        not_found(bed.app.cancel_job(&bed.bert, job).await.unwrap_err());
    }
    assert!(bed.app.computers(&bed.bert, None, None, 9).await.unwrap().is_empty());
    assert!(bed.app.plans(&bed.bert, None, None, 9).await.unwrap().is_empty());
    // An operator looks after computers, and neither adds any nor looks into them.
    let (found, online) = bed.app.computer(&Principal::Local, &computer).await.unwrap();
    assert_eq!((found.id, online), (laptop.id(), false));
    let Principal::Person(anna) = &bed.anna else { panic!("a person") };
    let user = anna.user.to_string();
    let refused = bed.app.create_enrolment(&Principal::Local, &user, None).await;
    assert!(matches!(refused, Err(AppError::Forbidden { .. })), "{refused:?}");
    let refused = bed.app.create_enrolment(&bed.bert, &user, None).await;
    assert!(matches!(refused, Err(AppError::NotFound { .. })), "{refused:?}");
    // To take a place asks for a fresh factor.
    let Principal::Person(mut stale) = bed.anna.clone() else { panic!("a person") };
    stale.via = login(NOON);
    let stale = Principal::Person(stale);
    bed.app.create_enrolment(&stale, &user, None).await.unwrap();
    let refused = bed.app.create_enrolment(&stale, &user, Some(&computer)).await;
    assert!(matches!(refused, Err(AppError::StepUpNeeded { .. })), "{refused:?}");

    // The agent speaks for its computer and reaches nothing of the tree; with the computer its credential dies.
    let agent = bed.app.authenticate(&credential, LOCALHOST).await.unwrap();
    assert!(matches!(bed.app.computer(&agent, &computer).await, Err(AppError::NotFound { .. })));
    assert!(matches!(bed.app.computers(&agent, None, None, 9).await, Err(AppError::Forbidden { .. })));
    bed.app.retire_computer(&bed.anna, &computer).await.unwrap();
    assert!(matches!(bed.app.authenticate(&credential, LOCALHOST).await, Err(AppError::Unauthorized)));
}

#[tokio::test]
async fn the_server_marks_what_was_missed_and_what_was_lost() {
    let bed = Bed::new().await;
    let (laptop, _) = bed.enrolled("laptop").await;
    let hourly = bed.plan(&laptop, "hourly", Rule::Hour { minute: 30 }).await;
    let half_past = NOON + 30 * MINUTE;
    assert_eq!(hourly.due.unwrap().slot_ns, half_past);
    // It runs at its minute: nothing is missed.
    bed.advance(30 * MINUTE);
    let job = bed.app.begin_job(&laptop, begin(&hourly, Some(half_past))).await.unwrap();
    bed.app.end_job(&laptop, &job.id.to_string(), done()).await.unwrap();
    bed.advance(20 * MINUTE);
    assert_eq!(bed.app.note_missed_jobs().await.unwrap(), 0);
    // The agent is away for three hours: three misses, none before its time.
    bed.advance(2 * 60 * MINUTE + 54 * MINUTE);
    assert_eq!(bed.app.note_missed_jobs().await.unwrap(), 2);
    bed.advance(MINUTE);
    assert_eq!(bed.app.note_missed_jobs().await.unwrap(), 1);
    assert_eq!(bed.app.note_missed_jobs().await.unwrap(), 0);
    // It comes back, and is told what to make up for.
    let (_, plans) = bed.app.plans_for_agent(&laptop).await.unwrap();
    assert_eq!(plans[0].seen_ns, half_past);
    let table = timetable(&plans[0].plan.body, NOON).unwrap();
    let now_ns = bed.app.now_ns();
    let due = table.due(plans[0].seen_ns, now_ns, 1);
    let slot_ns = half_past + 3 * 60 * MINUTE;
    assert_eq!(due, schedule::Due::Now { slot_ns, catch_up: true });
    let late = bed.app.begin_job(&laptop, begin(&hourly, Some(slot_ns))).await.unwrap();
    assert_eq!(late.cause, JobCause::CatchUp);
    let future = bed.app.begin_job(&laptop, begin(&hourly, Some(now_ns + 1))).await;
    assert!(matches!(future, Err(AppError::Invalid(_))));

    // It falls silent in the midst of it.
    bed.advance(MINUTE - 1);
    assert_eq!(bed.app.lose_silent_jobs().await.unwrap(), 0);
    bed.advance(2);
    assert_eq!(bed.app.lose_silent_jobs().await.unwrap(), 1);
    let lost = bed.app.job(&bed.anna, &late.id.to_string()).await.unwrap();
    assert_eq!((lost.state, lost.error_code.as_deref()), (JobState::Failed, Some("lost")));
    bed.app.flush_seen().await.unwrap();
    let (seen, _) = bed.app.computer(&bed.anna, &laptop.id().to_string()).await.unwrap();
    assert_eq!(seen.seen_ns, Some(now_ns));
}

#[tokio::test]
async fn a_restore_is_ordered_of_what_is_there() {
    let bed = Bed::new().await;
    let (laptop, _) = bed.enrolled("laptop").await;
    let computer = laptop.id().to_string();
    let mut restore = api::computers::NewRestore {
        snapshot: "ab".repeat(16),
        paths: vec![],
        target: "/restored".into(),
        on_conflict: Default::default(),
    };
    for snapshot in ["ab".repeat(16), "nonsense".into()] {
        restore.snapshot = snapshot;
        let refused = bed.app.order_restore(&bed.anna, &computer, &restore).await;
        assert!(matches!(refused, Err(AppError::NotFound { what: "snapshot" })), "{refused:?}");
    }
    restore.target = "restored".into();
    let refused = bed.app.order_restore(&bed.anna, &computer, &restore).await;
    assert!(matches!(refused, Err(AppError::Invalid(_))), "{refused:?}");
    let refused = bed.app.order_restore(&bed.bert, &computer, &restore).await;
    assert!(matches!(refused, Err(AppError::NotFound { what: "computer" })), "{refused:?}");
}

#[tokio::test]
async fn what_is_closed_starts_nothing_and_enrols_nobody() {
    let bed = Bed::new().await;
    let (laptop, credential) = bed.enrolled("laptop").await;
    let plan = bed.plan(&laptop, "nightly", Rule::Never).await.id.to_string();
    let computer = laptop.id().to_string();
    let Principal::Person(anna) = &bed.anna else { panic!("a person") };
    let (user, tenant) = (anna.user, anna.tenant);
    let is_closed = |error: AppError| assert!(matches!(error, AppError::ServiceRestricted(_)), "{error}");

    bed.app.step_user(&Principal::Local, user, UserStep::Disable).await.unwrap();
    is_closed(bed.app.authenticate(&credential, LOCALHOST).await.unwrap_err());
    is_closed(bed.app.start_plan(&bed.anna, &plan).await.unwrap_err());
    is_closed(bed.app.start_computer(&bed.anna, &computer).await.unwrap_err());
    is_closed(bed.app.create_enrolment(&bed.anna, &user.to_string(), None).await.unwrap_err());
    bed.app.step_user(&Principal::Local, user, UserStep::Enable).await.unwrap();
    bed.app.authenticate(&credential, LOCALHOST).await.unwrap();

    // The customer has bought something of which this user was given nothing: no backups, but a new machine to restore on.
    let product = bed.app.control.products().await.unwrap()[0].id;
    let (scope, actor) = (bed.app.own_scope(), server_actor());
    let new = NewService { tenant, product, licence: Licence::Paid, quantity: 10, expires_on: None, auto_renew: false };
    bed.app.control.order_service(&scope, &actor, &new, None, NOON).await.unwrap();
    bed.app.gates.forget();
    is_closed(bed.app.start_plan(&bed.anna, &plan).await.unwrap_err());
    bed.app.create_enrolment(&bed.anna, &user.to_string(), None).await.unwrap();
}

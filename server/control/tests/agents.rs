//! Computers and their credentials, plans with revisions, jobs through all their states, logs and orders, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, BeginJob, Computer, ComputerState, Control, ControlError, Due, EndJob, ExportPlace, JobCause, JobCounts,
    JobId, JobState, LOST, LogLevel, LogLine, NewRevision, OrderKind, Plan, PlanId, PlanState, RetentionPolicy, Scope,
    ScopePart, SystemWords, TenantId, TokenSecret, UserId, UserName,
};
use repo_format::id::VaultId;

on_each_engine! {
    an_enrolment_makes_one_computer_and_its_credential_dies_with_it,
    another_machine_takes_a_computers_place,
    plans_have_revisions_and_states,
    a_job_goes_through_its_states_and_says_so,
    what_never_began_is_missed_and_made_up_for,
    silent_jobs_are_lost_and_found_again,
    orders_are_given_until_they_are_taken,
    logs_are_kept_once,
    nothing_of_another_computer_or_tenant_is_reached,
    an_enrolment_needs_a_vault,
    an_export_holds_plans_jobs_and_logs_and_no_credential,
}

const MINUTE: i64 = 60_000_000_000;

fn actor() -> Actor {
    Actor { id: "u".into(), name: "anna".into(), behalf: None, address: "192.0.2.1".into() }
}

fn all(control: &Control) -> Scope {
    Scope::new(&control.take_authority().unwrap(), vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

async fn user(control: &Control, name: &str, number: u8) -> UserId {
    let vault = VaultId::from_bytes([number; 16]);
    control.create_user(&UserName::parse(name).unwrap(), vault, 1).await.unwrap();
    control.locate_vault(&vault).await.unwrap().unwrap().user.unwrap()
}

fn words() -> SystemWords<'static> {
    SystemWords { os: "Debian", agent_version: "0.1.0" }
}

async fn enrolled(control: &Control, scope: &Scope, user: &UserId, name: &str) -> (Computer, TokenSecret) {
    let made = control.create_enrolment(scope, &actor(), user, None, 100 * MINUTE, 1).await.unwrap();
    control.enrol(&made.secret.digest(), name, None, words(), "agent", 2).await.unwrap()
}

fn revision(body: &str, due: Option<Due>) -> NewRevision<'_> {
    NewRevision { body, due, retention: None }
}

async fn plan(control: &Control, scope: &Scope, computer: &Computer, name: &str, due: Option<Due>) -> Plan {
    control.create_plan(scope, &actor(), &computer.id, name, &revision("{}", due), 3).await.unwrap()
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

fn end(state: JobState) -> EndJob {
    let counts = JobCounts { files: 7, bytes_done: 70, bytes_total: Some(70), bytes_added: 5, warnings: 0 };
    EndJob { state, error_code: None, message: None, snapshot: Some("ab".into()), counts }
}

fn is_wrong_state<T>(result: &Result<T, ControlError>) -> bool {
    matches!(result, Err(ControlError::WrongState { .. }))
}

fn is_not_found<T>(result: &Result<T, ControlError>) -> bool {
    matches!(result, Err(ControlError::NotFound { .. }))
}

async fn an_enrolment_makes_one_computer_and_its_credential_dies_with_it(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let made = control.create_enrolment(&scope, &actor(), &anna, None, 10 * MINUTE, 0).await.unwrap();
    let enrol =
        async |name: &str, at_ns: i64| control.enrol(&made.secret.digest(), name, None, words(), "agent", at_ns).await;
    assert!(is_not_found(&enrol("late", 10 * MINUTE).await));
    assert!(matches!(enrol("a/b", MINUTE).await, Err(ControlError::Invalid { what: "computer name", .. })));
    let (laptop, secret) = enrol("laptop", MINUTE).await.unwrap();
    assert_eq!((laptop.name.as_str(), laptop.user, laptop.os.as_str()), ("laptop", anna, "Debian"));
    assert!(is_not_found(&enrol("second", MINUTE).await), "good once");
    // A name is taken as long as its computer is active; the enrolment stays good.
    let again = control.create_enrolment(&scope, &actor(), &anna, None, 10 * MINUTE, 0).await.unwrap();
    let taken = control.enrol(&again.secret.digest(), "laptop", None, words(), "agent", MINUTE).await;
    assert!(matches!(taken, Err(ControlError::Exists { what: "computer", .. })), "{taken:?}");
    control.enrol(&again.secret.digest(), "desktop", None, words(), "agent", MINUTE).await.unwrap();

    let known = control.find_computer(&secret.digest()).await.unwrap().unwrap();
    assert_eq!((known.computer.id, known.vault), (laptop.id, Some(VaultId::from_bytes([1; 16]))));
    assert_eq!(known.user.to_string(), "acme/anna");
    assert_eq!(control.find_computer(&made.secret.digest()).await.unwrap(), None);
    let names = |found: Vec<Computer>| found.into_iter().map(|computer| computer.name).collect::<Vec<_>>();
    assert_eq!(names(control.computers(&scope, Some(&anna), None, 9).await.unwrap()), ["desktop", "laptop"]);
    control.note_seen(&[(laptop.id, 5 * MINUTE), (laptop.id, 4 * MINUTE)]).await.unwrap();
    assert_eq!(control.computer(&scope, &laptop.id).await.unwrap().seen_ns, Some(5 * MINUTE));

    let nightly = plan(&control, &scope, &laptop, "nightly", None).await;
    let queued = control.order_backup(&scope, &actor(), &nightly.id, 6 * MINUTE).await.unwrap();
    let retired = control.retire_computer(&scope, &actor(), &laptop.id, 7 * MINUTE).await.unwrap();
    assert_eq!(retired.state, ComputerState::Retired);
    assert_eq!(control.find_computer(&secret.digest()).await.unwrap(), None);
    assert!(is_wrong_state(&control.retire_computer(&scope, &actor(), &laptop.id, 7 * MINUTE).await));
    assert!(is_not_found(&control.plan(&scope, &nightly.id).await));
    assert_eq!(control.job(&scope, &queued.id).await.unwrap().state, JobState::Cancelled);
    // Its name is free again.
    enrolled(&control, &scope, &anna, "laptop").await;
    control.verify_audit_log().await.unwrap();
    let verbs: Vec<String> =
        control.audit_entries(&scope, None, 100).await.unwrap().into_iter().map(|entry| entry.verb).collect();
    for verb in ["computer.add", "computer.enrolled", "computer.retire", "plan.edit", "backup.start", "job.cancel"] {
        assert!(verbs.iter().any(|found| found == verb), "{verb} is not in {verbs:?}");
    }
}

async fn another_machine_takes_a_computers_place(control: Control) {
    let scope = all(&control);
    let (anna, bert) = (user(&control, "acme/anna", 1).await, user(&control, "acme/bert", 2).await);
    let (old, dead) = enrolled(&control, &scope, &anna, "mail").await;
    let nightly = plan(&control, &scope, &old, "nightly", None).await;
    let running = control.begin_job(&scope, &old, &begin(&nightly, None), "agent", 5).await.unwrap();
    // Nobody takes the place of another user's computer.
    let foreign = control.create_enrolment(&scope, &actor(), &bert, Some(&old.id), MINUTE, 0).await;
    assert!(is_not_found(&foreign));
    let made = control.create_enrolment(&scope, &actor(), &anna, Some(&old.id), MINUTE, 0).await.unwrap();
    let digest = made.secret.digest();
    let enrol = async |named: Option<&str>| control.enrol(&digest, "other", named, words(), "agent", 10).await;
    assert!(matches!(enrol(None).await, Err(ControlError::Invalid { what: "replaces", .. })));
    assert!(matches!(enrol(Some("web")).await, Err(ControlError::Invalid { what: "replaces", .. })));
    let (new, alive) = enrol(Some("mail")).await.unwrap();
    assert_eq!((new.id, new.name.as_str(), new.created_ns), (old.id, "mail", old.created_ns));
    assert_eq!(control.find_computer(&dead.digest()).await.unwrap(), None);
    assert_eq!(control.find_computer(&alive.digest()).await.unwrap().unwrap().computer.id, old.id);
    let lost = control.job(&scope, &running.id).await.unwrap();
    assert_eq!((lost.state, lost.error_code.as_deref()), (JobState::Failed, Some(LOST)));
    assert_eq!(control.plans_of_computer(&new.id).await.unwrap().1.len(), 1);
    // And the other way round: a place is not taken where none is given.
    let fresh = control.create_enrolment(&scope, &actor(), &anna, None, MINUTE, 0).await.unwrap();
    let wrong = control.enrol(&fresh.secret.digest(), "x", Some("mail"), words(), "agent", 10).await;
    assert!(matches!(wrong, Err(ControlError::Invalid { what: "replaces", .. })));
}

async fn plans_have_revisions_and_states(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let due = Some(Due { slot_ns: 100, overdue_ns: 200 });
    let policy = RetentionPolicy { keep_daily: 7, time_zone: "UTC".into(), ..RetentionPolicy::default() };
    let first = NewRevision { body: r#"{"a":1}"#, due, retention: Some(&policy) };
    let made = control.create_plan(&scope, &actor(), &laptop.id, "nightly", &first, 5).await.unwrap();
    assert_eq!((made.revision, made.state, made.due), (1, PlanState::Enabled, due));
    let vault = VaultId::from_bytes([1; 16]);
    let stored = control.retention_policies(&vault).await.unwrap();
    let series = stored[0].series.as_ref().unwrap();
    assert_eq!((series.computer.as_str(), series.series.as_str(), &stored[0].policy), ("laptop", "nightly", &policy));
    let taken = control.create_plan(&scope, &actor(), &laptop.id, "nightly", &revision("{}", None), 5).await;
    assert!(matches!(taken, Err(ControlError::Exists { what: "plan", .. })));

    let (version, _) = control.plans_of_computer(&laptop.id).await.unwrap();
    let second = control.revise_plan(&scope, &actor(), &made.id, &revision(r#"{"a":2}"#, due), 6).await.unwrap();
    assert_eq!((second.revision, second.body.as_str(), second.revised_ns), (2, r#"{"a":2}"#, 6));
    assert!(control.retention_policies(&vault).await.unwrap().is_empty(), "kept for ever from now on");
    let (after, plans) = control.plans_of_computer(&laptop.id).await.unwrap();
    assert!(after > version);
    assert_eq!(plans, [second]);
    let revisions = control.plan_revisions(&scope, &made.id).await.unwrap();
    assert_eq!(revisions.iter().map(|one| one.body.as_str()).collect::<Vec<_>>(), [r#"{"a":2}"#, r#"{"a":1}"#]);
    assert_eq!(revisions[0].created_by, "anna");

    let paused = control.pause_plan(&scope, &actor(), &made.id, 7).await.unwrap();
    assert_eq!((paused.state, paused.due), (PlanState::Paused, None));
    assert!(is_wrong_state(&control.pause_plan(&scope, &actor(), &made.id, 7).await));
    // A revision does not wake it.
    assert_eq!(control.revise_plan(&scope, &actor(), &made.id, &revision("{}", due), 8).await.unwrap().due, None);
    let resumed = control.resume_plan(&scope, &actor(), &made.id, due, 9).await.unwrap();
    assert_eq!((resumed.state, resumed.due), (PlanState::Enabled, due));
    assert_eq!(control.overdue_plans(199, 9).await.unwrap(), []);
    assert_eq!(control.overdue_plans(200, 9).await.unwrap().len(), 1);

    plan(&control, &scope, &laptop, "hourly", None).await;
    let names = |found: Vec<Plan>| found.into_iter().map(|plan| plan.name).collect::<Vec<_>>();
    assert_eq!(names(control.plans(&scope, Some(&laptop.id), None, 9).await.unwrap()), ["hourly", "nightly"]);
    let behind = control.plans(&scope, None, Some(("hourly", PlanId::from_bytes([0xff; 16]))), 9).await.unwrap();
    assert_eq!(names(behind), ["nightly"]);
    let queued = control.order_backup(&scope, &actor(), &made.id, 10).await.unwrap();
    control.delete_plan(&scope, &actor(), &made.id, 11).await.unwrap();
    assert!(is_not_found(&control.plan(&scope, &made.id).await));
    assert_eq!(control.job(&scope, &queued.id).await.unwrap().state, JobState::Cancelled);
    assert_eq!(names(control.plans_of_computer(&laptop.id).await.unwrap().1), ["hourly"]);
    plan(&control, &scope, &laptop, "nightly", None).await;
}

async fn a_job_goes_through_its_states_and_says_so(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let nightly = plan(&control, &scope, &laptop, "nightly", Some(Due { slot_ns: 100, overdue_ns: 200 })).await;

    let mut one = begin(&nightly, Some(100));
    one.next = Some(Due { slot_ns: 300, overdue_ns: 400 });
    let job = control.begin_job(&scope, &laptop, &one, "agent", 110).await.unwrap();
    assert_eq!((job.state, job.slot_ns, job.started_ns, job.ended_ns), (JobState::Running, Some(100), 110, None));
    assert_eq!(control.plan(&scope, &nightly.id).await.unwrap().due, one.next);
    assert_eq!(control.begin_job(&scope, &laptop, &one, "agent", 120).await.unwrap(), job, "the same again");
    assert!(is_wrong_state(&control.begin_job(&scope, &laptop, &begin(&nightly, None), "agent", 120).await));
    assert!(is_wrong_state(&control.order_backup(&scope, &actor(), &nightly.id, 120).await));
    let counts = JobCounts { files: 1, bytes_done: 10, bytes_total: None, bytes_added: 1, warnings: 0 };
    let beat = control.job_heartbeat(&laptop, &job.id, &counts, 130).await.unwrap();
    assert_eq!((beat.heartbeat_ns, beat.counts), (Some(130), counts));
    assert_eq!(control.job(&scope, &job.id).await.unwrap(), beat);
    let done = control.end_job(&laptop, &job.id, end(JobState::Succeeded), "agent", 140).await.unwrap();
    assert_eq!((done.state, done.ended_ns, done.counts.files), (JobState::Succeeded, Some(140), 7));
    assert_eq!(control.job(&scope, &job.id).await.unwrap(), done);
    assert_eq!(control.end_job(&laptop, &job.id, end(JobState::Succeeded), "agent", 150).await.unwrap(), done);
    assert!(is_wrong_state(&control.end_job(&laptop, &job.id, end(JobState::Failed), "agent", 150).await));
    assert!(is_wrong_state(&control.begin_job(&scope, &laptop, &one, "agent", 150).await), "it has ended");
    // The same moment does not run twice.
    assert!(is_wrong_state(&control.begin_job(&scope, &laptop, &begin(&nightly, Some(100)), "agent", 150).await));
    let unchanged = control.job_heartbeat(&laptop, &job.id, &counts, 160).await.unwrap();
    assert_eq!(unchanged, done, "what has ended is not woken by a late sign of life");
    for state in [JobState::Missed, JobState::Queued, JobState::Running] {
        let refused = control.end_job(&laptop, &job.id, end(state), "agent", 150).await;
        assert!(matches!(refused, Err(ControlError::Invalid { .. })));
    }

    // Ordered: queued, begun with its own id, cancelled while it runs by an order.
    let queued = control.order_backup(&scope, &actor(), &nightly.id, 200).await.unwrap();
    assert_eq!(queued.state, JobState::Queued);
    let take = BeginJob { id: queued.id, plan: None, revision: None, ..begin(&nightly, None) };
    let running = control.begin_job(&scope, &laptop, &take, "agent", 210).await.unwrap();
    assert_eq!((running.state, running.cause, running.started_ns), (JobState::Running, JobCause::Order, 210));
    assert_eq!(control.waiting_orders(&laptop.id, 9).await.unwrap().1, []);
    control.cancel_job(&scope, &actor(), &running.id, 220).await.unwrap();
    control.cancel_job(&scope, &actor(), &running.id, 221).await.unwrap();
    let (_, orders) = control.waiting_orders(&laptop.id, 9).await.unwrap();
    assert_eq!(
        orders.iter().map(|order| (order.kind, order.job)).collect::<Vec<_>>(),
        [(OrderKind::Cancel, queued.id)]
    );
    let cancelled = control.end_job(&laptop, &running.id, end(JobState::Cancelled), "agent", 230).await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(control.waiting_orders(&laptop.id, 9).await.unwrap().1, [], "the order has no object any more");
    assert!(is_wrong_state(&control.cancel_job(&scope, &actor(), &running.id, 240).await));

    // Cancelled before it began: it cannot begin any more.
    let queued = control.order_backup(&scope, &actor(), &nightly.id, 300).await.unwrap();
    let gone = control.cancel_job(&scope, &actor(), &queued.id, 310).await.unwrap();
    assert_eq!((gone.state, gone.message.as_deref()), (JobState::Cancelled, Some("cancelled by anna")));
    let take = BeginJob { id: queued.id, ..begin(&nightly, None) };
    assert!(is_wrong_state(&control.begin_job(&scope, &laptop, &take, "agent", 320).await));
    // One that nobody came for.
    let old = control.order_backup(&scope, &actor(), &nightly.id, 400).await.unwrap();
    assert_eq!(control.give_queued_jobs_up(400, 500).await.unwrap(), []);
    assert_eq!(control.give_queued_jobs_up(401, 500).await.unwrap()[0].id, old.id);
    control.verify_audit_log().await.unwrap();
}

async fn what_never_began_is_missed_and_made_up_for(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let due = Some(Due { slot_ns: 100, overdue_ns: 110 });
    let nightly = plan(&control, &scope, &laptop, "nightly", due).await;
    let next = Some(Due { slot_ns: 400, overdue_ns: 410 });
    let missed = control.miss_slots(&nightly, &[100, 200, 300], next, 310).await.unwrap();
    assert_eq!(missed.iter().map(|job| job.slot_ns.unwrap()).collect::<Vec<_>>(), [100, 200, 300]);
    assert!(missed.iter().all(|job| job.state == JobState::Missed && job.started_ns == job.slot_ns.unwrap()));
    assert_eq!(control.plan(&scope, &nightly.id).await.unwrap().due, next);
    assert_eq!(control.miss_slots(&nightly, &[100], next, 310).await.unwrap(), [], "the plan has moved on");
    assert_eq!(control.last_slot(&nightly.id).await.unwrap(), None, "a miss may still be made up for");

    // The computer wakes: its run for the last of them stands beside the miss.
    let late = control.begin_job(&scope, &laptop, &begin(&nightly, Some(300)), "agent", 350).await.unwrap();
    assert_eq!((late.cause, late.slot_ns, late.state), (JobCause::CatchUp, None, JobState::Running));
    assert_eq!(control.last_slot(&nightly.id).await.unwrap(), Some(350));
    // While it runs, what is due is not missed.
    let current = control.plan(&scope, &nightly.id).await.unwrap();
    let later = Some(Due { slot_ns: 500, overdue_ns: 510 });
    assert_eq!(control.miss_slots(&current, &[400], later, 450).await.unwrap(), []);
    control.end_job(&laptop, &late.id, end(JobState::Succeeded), "agent", 460).await.unwrap();
    // Neither is what ran, nor anything of a paused plan.
    control.begin_job(&scope, &laptop, &begin(&nightly, Some(500)), "agent", 501).await.unwrap();
    let current = control.plan(&scope, &nightly.id).await.unwrap();
    assert_eq!(current.due, None);
    let stale = Plan { due: later, ..current };
    assert_eq!(control.miss_slots(&stale, &[500], None, 520).await.unwrap(), []);
    assert_eq!(control.last_slot(&nightly.id).await.unwrap(), Some(500));
}

async fn silent_jobs_are_lost_and_found_again(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let nightly = plan(&control, &scope, &laptop, "nightly", None).await;
    let job = control.begin_job(&scope, &laptop, &begin(&nightly, None), "agent", 100).await.unwrap();
    assert_eq!(control.lose_silent_jobs(100, 160).await.unwrap(), []);
    let lost = control.lose_silent_jobs(101, 161).await.unwrap();
    assert_eq!((lost.len(), lost[0].state, lost[0].error_code.as_deref()), (1, JobState::Failed, Some(LOST)));
    assert_eq!(control.job(&scope, &job.id).await.unwrap().ended_ns, Some(161));
    // It was only away.
    let found = control.job_heartbeat(&laptop, &job.id, &JobCounts::default(), 200).await.unwrap();
    assert_eq!((found.state, found.error_code, found.ended_ns), (JobState::Running, None, None));
    assert_eq!(control.job(&scope, &job.id).await.unwrap().state, JobState::Running);
    control.lose_silent_jobs(201, 300).await.unwrap();
    let done = control.end_job(&laptop, &job.id, end(JobState::Warning), "agent", 310).await.unwrap();
    assert_eq!((done.state, done.ended_ns), (JobState::Warning, Some(310)));

    // An agent that was started anew runs nothing of before, and is given again what it had only received.
    let running = control.begin_job(&scope, &laptop, &begin(&nightly, None), "agent", 400).await.unwrap();
    let hourly = plan(&control, &scope, &laptop, "hourly", None).await;
    let queued = control.order_backup(&scope, &actor(), &hourly.id, 410).await.unwrap();
    let (_, orders) = control.waiting_orders(&laptop.id, 9).await.unwrap();
    control.deliver_order(&laptop.id, &orders[0].id, 420).await.unwrap();
    assert_eq!(control.waiting_orders(&laptop.id, 9).await.unwrap().1, []);
    let greeted =
        control.greet_computer(&laptop.id, SystemWords { os: "NixOS", agent_version: "2" }, 430).await.unwrap();
    assert_eq!((greeted.os.as_str(), greeted.seen_ns), ("NixOS", Some(430)));
    assert_eq!(control.job(&scope, &running.id).await.unwrap().error_code.as_deref(), Some(LOST));
    assert_eq!(control.job(&scope, &queued.id).await.unwrap().state, JobState::Queued);
    assert_eq!(control.waiting_orders(&laptop.id, 9).await.unwrap().1, orders);
}

async fn orders_are_given_until_they_are_taken(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let (other, _) = enrolled(&control, &scope, &anna, "other").await;
    let restore = control.order_restore(&scope, &actor(), &laptop.id, r#"{"target":"/r"}"#, 10).await.unwrap();
    let nightly = plan(&control, &scope, &laptop, "nightly", None).await;
    let backup = control.order_backup(&scope, &actor(), &nightly.id, 20).await.unwrap();
    for _ in 0..2 {
        let (version, orders) = control.waiting_orders(&laptop.id, 9).await.unwrap();
        assert_eq!(version, 1, "one plan was made");
        let found: Vec<_> = orders.iter().map(|order| (order.kind, order.job, order.plan)).collect();
        let expected = [(OrderKind::Restore, restore.id, None), (OrderKind::Start, backup.id, Some(nightly.id))];
        assert_eq!(found, expected);
        assert_eq!(orders[0].body, r#"{"target":"/r"}"#);
    }
    assert_eq!(control.waiting_orders(&other.id, 9).await.unwrap(), (0, vec![]));
    let (_, orders) = control.waiting_orders(&laptop.id, 9).await.unwrap();
    assert!(is_not_found(&control.deliver_order(&other.id, &orders[0].id, 30).await));
    for _ in 0..2 {
        control.deliver_order(&laptop.id, &orders[0].id, 30).await.unwrap();
    }
    assert_eq!(control.waiting_orders(&laptop.id, 9).await.unwrap().1, orders[1..]);
    let begun = BeginJob { id: restore.id, plan: None, ..begin(&nightly, None) };
    let begun = control.begin_job(&scope, &laptop, &begun, "agent", 40).await.unwrap();
    assert_eq!((begun.state, begun.plan), (JobState::Running, None));
}

async fn logs_are_kept_once(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let (laptop, _) = enrolled(&control, &scope, &anna, "laptop").await;
    let nightly = plan(&control, &scope, &laptop, "nightly", None).await;
    let job = control.begin_job(&scope, &laptop, &begin(&nightly, None), "agent", 100).await.unwrap();
    let line = |line: i64| LogLine { line, at_ns: line, level: LogLevel::Info, text: format!("line {line}") };
    let lines: Vec<LogLine> = (0..5).map(line).collect();
    control.append_job_log(&laptop, &job.id, &lines[..3]).await.unwrap();
    let other = LogLine { text: "otherwise".into(), ..line(2) };
    control.append_job_log(&laptop, &job.id, &[other, line(3), line(4)]).await.unwrap();
    assert_eq!(control.job_log(&scope, &job.id, None, 100).await.unwrap(), lines, "what is there stays");
    assert_eq!(control.job_log(&scope, &job.id, Some(2), 1).await.unwrap(), [line(3)]);
    assert_eq!(control.job(&scope, &job.id).await.unwrap().log_kept, 5);
    // More than is kept is only counted, and what cannot be a line is refused as a whole.
    control.append_job_log(&laptop, &job.id, &[line(10_000)]).await.unwrap();
    assert_eq!(control.job(&scope, &job.id).await.unwrap().log_kept, 5);
    for wrong in [line(-1), LogLine { text: "a\0".into(), ..line(9) }, LogLine { text: "a".repeat(2001), ..line(9) }] {
        let refused = control.append_job_log(&laptop, &job.id, &[line(8), wrong]).await;
        assert!(matches!(refused, Err(ControlError::Invalid { .. })));
    }
    assert_eq!(control.job_log(&scope, &job.id, None, 100).await.unwrap().len(), 5);
}

async fn nothing_of_another_computer_or_tenant_is_reached(control: Control) {
    let authority = control.take_authority().unwrap();
    let everything = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
    let (anna, bert) = (user(&control, "acme/anna", 1).await, user(&control, "other/bert", 2).await);
    let (laptop, _) = enrolled(&control, &everything, &anna, "laptop").await;
    let (foreign, _) = enrolled(&control, &everything, &bert, "laptop").await;
    let nightly = plan(&control, &everything, &laptop, "nightly", None).await;
    let job = control.begin_job(&everything, &laptop, &begin(&nightly, None), "agent", 100).await.unwrap();

    let berts = Scope::new(&authority, vec![ScopePart::User(bert)]);
    assert!(is_not_found(&control.computer(&berts, &laptop.id).await));
    assert!(is_not_found(&control.plan(&berts, &nightly.id).await));
    assert!(is_not_found(&control.job(&berts, &job.id).await));
    assert!(is_not_found(&control.job_log(&berts, &job.id, None, 9).await));
    assert!(is_not_found(&control.cancel_job(&berts, &actor(), &job.id, 1).await));
    assert!(is_not_found(&control.retire_computer(&berts, &actor(), &laptop.id, 1).await));
    assert!(is_not_found(&control.create_enrolment(&berts, &actor(), &anna, None, MINUTE, 0).await));
    assert!(is_not_found(&control.order_restore(&berts, &actor(), &laptop.id, "{}", 1).await));
    let refused = control.create_plan(&berts, &actor(), &laptop.id, "x", &revision("{}", None), 1).await;
    assert!(is_not_found(&refused));
    assert_eq!(control.computers(&berts, None, None, 9).await.unwrap().len(), 1);
    assert_eq!(control.computers(&berts, Some(&anna), None, 9).await.unwrap(), []);
    assert!(control.plans(&berts, None, None, 9).await.unwrap().is_empty());

    // A computer speaks for its own jobs and plans alone.
    assert!(is_not_found(&control.begin_job(&everything, &foreign, &begin(&nightly, None), "agent", 1).await));
    let same_id = BeginJob { id: job.id, ..begin(&nightly, None) };
    assert!(is_not_found(&control.begin_job(&everything, &foreign, &same_id, "agent", 1).await));
    assert!(is_not_found(&control.job_heartbeat(&foreign, &job.id, &JobCounts::default(), 1).await));
    assert!(is_not_found(&control.end_job(&foreign, &job.id, end(JobState::Failed), "agent", 1).await));
    assert!(is_not_found(&control.append_job_log(&foreign, &job.id, &[]).await));
    assert_eq!(control.locate_computer(&laptop.id).await.unwrap().unwrap().user, Some(anna));
    assert_eq!(control.locate_plan(&nightly.id).await.unwrap().unwrap().user, Some(anna));
    assert_eq!(control.locate_job(&job.id).await.unwrap().unwrap().user, Some(anna));
    assert_eq!(control.locate_job(&JobId::from_bytes([9; 16])).await.unwrap(), None);
}

async fn an_enrolment_needs_a_vault(control: Control) {
    let scope = all(&control);
    let anna = user(&control, "acme/anna", 1).await;
    let made = control.create_enrolment(&scope, &actor(), &anna, None, MINUTE, 0).await.unwrap();
    control.delete_vault(&VaultId::from_bytes([1; 16])).await.unwrap();
    let refused = control.create_enrolment(&scope, &actor(), &anna, None, MINUTE, 0).await;
    assert!(is_wrong_state(&refused), "{refused:?}");
    let enrolled = control.enrol(&made.secret.digest(), "laptop", None, words(), "agent", 1).await;
    assert!(is_not_found(&enrolled), "{enrolled:?}");
    assert_eq!(control.computers(&scope, Some(&anna), None, 9).await.unwrap(), []);
}

async fn an_export_holds_plans_jobs_and_logs_and_no_credential(control: Control) {
    let scope = all(&control);
    let (anna, bert) = (user(&control, "acme/anna", 1).await, user(&control, "other/bert", 2).await);
    let (laptop, secret) = enrolled(&control, &scope, &anna, "laptop").await;
    let (foreign, _) = enrolled(&control, &scope, &bert, "foreign").await;
    let lines: Vec<LogLine> = (0..700)
        .map(|line| LogLine { line, at_ns: line, level: LogLevel::Info, text: format!("line {line}") })
        .collect();
    for computer in [&laptop, &foreign] {
        for name in ["nightly", "hourly"] {
            let plan = plan(&control, &scope, computer, name, None).await;
            for number in 2..15 {
                let body = format!("{{\"number\":{number}}}");
                control.revise_plan(&scope, &actor(), &plan.id, &revision(&body, None), 4).await.unwrap();
            }
            let job = BeginJob { revision: Some(14), ..begin(&plan, None) };
            let job = control.begin_job(&scope, computer, &job, "agent", 100).await.unwrap();
            control.append_job_log(computer, &job.id, &lines).await.unwrap();
        }
    }
    let acme = control.locate_user(&anna).await.unwrap().unwrap().tenant().unwrap();
    let (mut place, mut sections) = (ExportPlace::default(), std::collections::BTreeMap::new());
    while let Some((page, next)) = control.export_page(&scope, &acme, &place).await.unwrap() {
        sections.entry(page.section).or_insert_with(Vec::new).extend(page.rows);
        place = next;
    }
    assert_eq!(sections["computers"].len(), 1);
    assert_eq!((sections["computers"][0]["name"].as_str(), sections["plans"].len()), (Some("laptop"), 2));
    assert_eq!((sections["jobs"].len(), sections["enrolments"].len()), (2, 1));
    assert!(sections["jobs"].iter().all(|job| job["ended_ns"].is_null() && job["log_lines"] == 700));
    // In order and each once, over pages that end inside of a job and of a plan.
    let numbers: Vec<i64> = sections["job_log"].iter().map(|line| line["line"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (0..700).chain(0..700).collect::<Vec<i64>>());
    let numbers: Vec<i64> = sections["plan_revisions"].iter().map(|one| one["revision"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..15).chain(1..15).collect::<Vec<i64>>());
    let text = serde_json::to_string(&sections).unwrap();
    assert!(!text.contains(&foreign.id.to_string()), "of somebody else");
    assert!(!text.contains(secret.expose()) && !text.contains("secret_hash"), "a secret");
}

//! Notices, who is told, and weekly summaries, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;
mod people;

use control::{
    Actor, BeginJob, Computer, Control, Due, EndJob, EventKind, JobCause, JobCounts, JobId, JobState, LogLevel,
    LogLine, NewRevision, NewWebhook, NoticesChanged, Plan, QuotaScope, QuotaUse, Scope, ScopePart, SpaceKind,
    SystemWords, TenantId, UserId, UserName, WebhookId,
};
use people::person;
use repo_format::id::VaultId;

on_each_engine! {
    a_failed_backup_is_told_once_and_is_over_with_the_next_good_one,
    what_was_missed_and_what_is_late_is_told,
    a_quota_is_told_when_it_gets_worse_and_not_around_a_level,
    a_week_is_summed_up_on_monday,
}

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;
/// A Saturday, 15:00 UTC.
const SATURDAY: i64 = 1_795_273_200_000_000_000;
const LINK: &str = "https://backup.example";

fn actor() -> Actor {
    Actor { id: "u".into(), name: "anna".into(), behalf: None, address: "192.0.2.1".into() }
}

struct Scene {
    scope: Scope,
    user: UserId,
    tenant: TenantId,
    computer: Computer,
    plan: Plan,
}

async fn scene(control: &Control, at_ns: i64) -> Scene {
    let scope = Scope::new(&control.take_authority().unwrap(), vec![ScopePart::Subtree(TenantId::PLATFORM)]);
    let vault = VaultId::from_bytes([1; 16]);
    let (user, tenant) = person(control, &scope, "acme", "anna@example.org", vault, at_ns).await;
    let made = control.create_enrolment(&scope, &actor(), &user, None, at_ns + DAY, at_ns).await.unwrap();
    let words = SystemWords { os: "Debian", agent_version: "0.1.0" };
    let (computer, _) = control.enrol(&made.secret.digest(), "laptop", None, words, "agent", at_ns).await.unwrap();
    let due = Some(Due { slot_ns: at_ns + DAY, overdue_ns: at_ns + DAY + HOUR });
    let revision = NewRevision { body: "{}", due, retention: None };
    let plan = control.create_plan(&scope, &actor(), &computer.id, "nightly", &revision, at_ns).await.unwrap();
    Scene { scope, user, tenant, computer, plan }
}

impl Scene {
    async fn run(&self, control: &Control, state: JobState, at_ns: i64) -> JobId {
        let begin = BeginJob {
            id: JobId::generate().unwrap(),
            plan: Some(self.plan.id),
            revision: Some(self.plan.revision),
            cause: JobCause::Order,
            slot_ns: None,
            next: Some(Due { slot_ns: at_ns + DAY, overdue_ns: at_ns + DAY + HOUR }),
        };
        let job = control.begin_job(&self.scope, &self.computer, &begin, "agent", at_ns).await.unwrap();
        let line = |number, level, text: &str| LogLine { line: number, at_ns, level, text: text.into() };
        let lines = [line(0, LogLevel::Info, "reading /home"), line(1, LogLevel::Error, "/home: no such folder")];
        control.append_job_log(&self.computer, &job.id, &lines).await.unwrap();
        let failed = state == JobState::Failed;
        let end = EndJob {
            state,
            error_code: failed.then(|| "source_missing".into()),
            message: failed.then(|| "the folder /home is not there".into()),
            snapshot: None,
            counts: JobCounts::default(),
        };
        control.end_job(&self.computer, &job.id, end, "agent", at_ns + 1).await.unwrap();
        job.id
    }

    async fn look(&self, control: &Control, quotas: &[QuotaUse], at_ns: i64) -> (u64, u64, u64) {
        let NoticesChanged { opened, worsened, healed } = control.derive_notices(quotas, LINK, at_ns).await.unwrap();
        (opened, worsened, healed)
    }

    /// Takes what waits, and says what it is about.
    async fn mails(&self, control: &Control) -> Vec<(String, String, String)> {
        let mut told = Vec::new();
        for mail in control.due_mails(i64::MAX, 100).await.unwrap() {
            control.mail_sent(&mail, 1).await.unwrap();
            told.push((mail.address.clone(), mail.text.subject.clone(), mail.text.body.clone()));
        }
        told
    }
}

async fn a_failed_backup_is_told_once_and_is_over_with_the_next_good_one(control: Control) {
    let scene = scene(&control, 0).await;
    let hook = NewWebhook {
        id: WebhookId::generate().unwrap(),
        tenant: scene.tenant,
        user: None,
        url: "https://example.org/hook",
        events: &[EventKind::BackupFailed, EventKind::Healed],
        sealed_secret: "sealed",
    };
    control.create_webhook(&scene.scope, &actor(), &hook, 1).await.unwrap();
    assert_eq!(scene.look(&control, &[], HOUR).await, (0, 0, 0));
    let job = scene.run(&control, JobState::Failed, 2 * HOUR).await;
    assert_eq!(scene.look(&control, &[], 2 * HOUR + 5).await, (1, 0, 0));
    let mails = scene.mails(&control).await;
    assert_eq!(mails.len(), 1, "{mails:?}");
    let (address, subject, body) = &mails[0];
    assert_eq!((address.as_str(), subject.as_str()), ("anna@example.org", "Backup failed: laptop, nightly"));
    for expected in ["1970-01-01 02:00 UTC", "the folder /home is not there", "/home: no such folder", LINK] {
        assert!(body.contains(expected), "{expected} is missing in {body}");
    }
    let told = control.due_deliveries(i64::MAX, 10).await.unwrap();
    assert_eq!((told.len(), told[0].event.as_str()), (1, "backup_failed"));
    let body: serde_json::Value = serde_json::from_str(&told[0].body).unwrap();
    assert_eq!(body["facts"]["job_id"].as_str(), Some(job.to_string().as_str()));
    assert_eq!(body["facts"]["reason"].as_str(), Some("the folder /home is not there"));
    assert_eq!(body["user"].as_str(), Some(scene.user.to_string().as_str()));
    control.delivered(&told[0], 200, 3 * HOUR).await.unwrap();

    // It goes on failing: nobody is told again.
    scene.run(&control, JobState::Failed, 26 * HOUR).await;
    assert_eq!(scene.look(&control, &[], 26 * HOUR + 5).await, (0, 0, 0));
    assert!(scene.mails(&control).await.is_empty());
    let open = control.notices(&scene.scope, Some(true), None, 10).await.unwrap();
    assert_eq!((open.len(), open[0].kind, open[0].since_ns), (1, EventKind::BackupFailed, 2 * HOUR + 5));
    assert_eq!(control.notice_counts().await.unwrap()["backup_failed"], 1);

    scene.run(&control, JobState::Warning, 27 * HOUR).await;
    assert_eq!(scene.look(&control, &[], 27 * HOUR + 5).await, (0, 0, 1));
    assert!(scene.mails(&control).await.is_empty(), "the end is not told by mail");
    let told = control.due_deliveries(i64::MAX, 10).await.unwrap();
    assert_eq!((told.len(), told[0].event.as_str()), (1, "healed"));
    assert!(control.notices(&scene.scope, Some(true), None, 10).await.unwrap().is_empty());
    let healed = control.notices(&scene.scope, Some(false), None, 10).await.unwrap();
    assert_eq!(healed[0].healed_ns, Some(27 * HOUR + 5));
    // The next failure is another one.
    scene.run(&control, JobState::Failed, 28 * HOUR).await;
    assert_eq!(scene.look(&control, &[], 28 * HOUR + 5).await, (1, 0, 0));
    assert_eq!(scene.mails(&control).await.len(), 1);
}

async fn what_was_missed_and_what_is_late_is_told(control: Control) {
    let scene = scene(&control, 0).await;
    let next = Some(Due { slot_ns: 2 * DAY, overdue_ns: 2 * DAY + HOUR });
    control.miss_slots(&scene.plan, &[DAY], next, DAY + HOUR).await.unwrap();
    assert_eq!(scene.look(&control, &[], DAY + HOUR).await, (1, 0, 0));
    let mails = scene.mails(&control).await;
    assert_eq!(mails[0].1, "Backup missed: laptop, nightly");
    // Three days are over.
    assert_eq!(scene.look(&control, &[], 3 * DAY - 1).await, (0, 0, 0));
    assert_eq!(scene.look(&control, &[], 3 * DAY).await, (1, 0, 0));
    let mails = scene.mails(&control).await;
    assert_eq!(mails[0].1, "No backup for 3 days: laptop, nightly");
    assert!(mails[0].2.contains("The last one: never."), "{mails:?}");
    assert_eq!(scene.look(&control, &[], 9 * DAY).await, (0, 0, 0));
    scene.run(&control, JobState::Succeeded, 9 * DAY).await;
    assert_eq!(scene.look(&control, &[], 9 * DAY + 5).await, (0, 0, 2));
    assert!(scene.mails(&control).await.is_empty());
    // A tenant may want to know later. And a plan that is paused is not late.
    control.set_stale_days(&scene.scope, &actor(), &scene.tenant, 10, 9 * DAY).await.unwrap();
    scene.run(&control, JobState::Cancelled, 10 * DAY).await;
    assert_eq!(scene.look(&control, &[], 18 * DAY).await, (0, 0, 0));
    assert_eq!(scene.look(&control, &[], 19 * DAY + 5).await, (1, 0, 0));
    control.pause_plan(&scene.scope, &actor(), &scene.plan.id, 20 * DAY).await.unwrap();
    assert_eq!(scene.look(&control, &[], 20 * DAY).await, (0, 0, 1));
}

async fn a_quota_is_told_when_it_gets_worse_and_not_around_a_level(control: Control) {
    let scene = scene(&control, 0).await;
    let used = |percent: u64| {
        vec![QuotaUse {
            scope: QuotaScope::User(UserName::parse("acme/anna").unwrap()),
            kind: SpaceKind::Physical,
            used: percent << 30,
            limit: 100 << 30,
        }]
    };
    for (percent, changed, subject) in [
        (79, (0, 0, 0), None),
        (80, (1, 0, 0), Some("80 % of the space is used: acme/anna")),
        (79, (0, 0, 0), None),
        (81, (0, 0, 0), None),
        (95, (0, 1, 0), Some("95 % of the space is used: acme/anna")),
        (94, (0, 0, 0), None),
        (96, (0, 0, 0), None),
        (100, (0, 1, 0), Some("100 % of the space is used: acme/anna")),
        (74, (0, 0, 1), None),
        (99, (1, 0, 0), Some("99 % of the space is used: acme/anna")),
    ] {
        assert_eq!(scene.look(&control, &used(percent), HOUR).await, changed, "{percent}");
        let mails = scene.mails(&control).await;
        assert_eq!(mails.first().map(|mail| mail.1.as_str()), subject, "{percent}");
        assert!(mails.len() <= 1);
    }
    let open = control.notices(&scene.scope, Some(true), None, 10).await.unwrap();
    assert_eq!((open[0].kind, open[0].level, open[0].user), (EventKind::Quota, 95, Some(scene.user)));
    assert_eq!(open[0].facts["used_bytes"], (99u64 << 30).to_string());
}

async fn a_week_is_summed_up_on_monday(control: Control) {
    let scene = scene(&control, SATURDAY - 10 * DAY).await;
    // Known from now on; the first summary comes on Monday.
    assert_eq!(control.send_summaries(LINK, SATURDAY - 9 * DAY, 50).await.unwrap(), 1);
    assert_eq!(control.send_summaries(LINK, SATURDAY - 9 * DAY, 50).await.unwrap(), 0);
    assert!(scene.mails(&control).await.is_empty());
    let monday = SATURDAY + DAY + 16 * HOUR;
    // Whatever was due before is behind us.
    control.send_summaries(LINK, monday - 6 * DAY, 50).await.unwrap();
    scene.mails(&control).await;
    for (state, at_ns) in [
        (JobState::Succeeded, monday - 8 * DAY),
        (JobState::Succeeded, monday - 5 * DAY),
        (JobState::Succeeded, monday - 4 * DAY),
        (JobState::Failed, monday - 3 * DAY),
        (JobState::Warning, monday - 2 * DAY),
        (JobState::Succeeded, monday + HOUR),
    ] {
        scene.run(&control, state, at_ns).await;
    }
    assert_eq!(control.send_summaries(LINK, monday - 1, 50).await.unwrap(), 0);
    assert_eq!(control.send_summaries(LINK, monday + 2 * HOUR, 50).await.unwrap(), 1);
    let mails = scene.mails(&control).await;
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(mails[0].1, "Backups from 2026-11-16 to 2026-11-23: 1 failed, 0 missed");
    for expected in ["1 computers", "succeeded      2", "with warnings  1", "failed         1", "laptop / nightly"] {
        assert!(mails[0].2.contains(expected), "{expected} is missing in {}", mails[0].2);
    }
    assert_eq!(control.send_summaries(LINK, monday + 3 * HOUR, 50).await.unwrap(), 0);
    // Who does not want any gets none.
    control.set_wants_summary(&scene.user, false).await.unwrap();
    assert_eq!(control.send_summaries(LINK, monday + 30 * DAY, 50).await.unwrap(), 0);
}

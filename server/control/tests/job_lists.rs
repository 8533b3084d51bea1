//! Lists of jobs and the search in their logs, on both engines: every filter, alone and in pairs, with every order, held
//! against the same thing done by hand. A filter or order that the list does not know does not compile here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, BeginJob, Computer, Control, EndJob, JOB_STATE_ORDER, JobCause, JobCounts, JobFilter, JobId, JobKind,
    JobSort, JobState, ListedJob, LogLevel, LogLine, NewRevision, Plan, Scope, ScopePart, SystemWords, TenantId,
    UserId, UserName,
};
use repo_format::id::VaultId;

on_each_engine! {
    every_filter_with_every_order_finds_what_is_there,
    pages_meet_and_scopes_hold,
    logs_are_found_by_their_words,
}

const MINUTE: i64 = 60_000_000_000;

fn actor() -> Actor {
    Actor { id: "u".into(), name: "anna".into(), behalf: None, address: "192.0.2.1".into() }
}

struct Scene {
    scope: Scope,
    owners: Vec<(UserId, TenantId, Computer, Plan)>,
    authority: control::Authority,
}

async fn scene(control: &Control) -> Scene {
    let authority = control.take_authority().unwrap();
    let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
    let mut owners = Vec::new();
    for (number, name) in ["acme/anna", "acme/bert", "north/cleo"].into_iter().enumerate() {
        let vault = VaultId::from_bytes([number as u8 + 1; 16]);
        control.create_user(&UserName::parse(name).unwrap(), vault, 1).await.unwrap();
        let place = control.locate_vault(&vault).await.unwrap().unwrap();
        let (user, tenant) = (place.user.unwrap(), place.tenant().unwrap());
        for computer in ["laptop", "server"] {
            let made = control.create_enrolment(&scope, &actor(), &user, None, MINUTE, 1).await.unwrap();
            let words = SystemWords { os: "Debian", agent_version: "0.1.0" };
            let (computer, _) = control.enrol(&made.secret.digest(), computer, None, words, "agent", 1).await.unwrap();
            let revision = NewRevision { body: "{}", due: None, retention: None };
            let plan = control.create_plan(&scope, &actor(), &computer.id, "nightly", &revision, 1).await.unwrap();
            owners.push((user, tenant, computer, plan));
        }
    }
    Scene { scope, owners, authority }
}

/// Jobs of all states and kinds; several begin or end at the same moment.
async fn fill(control: &Control, scene: &Scene) -> Vec<ListedJob> {
    let mut at_ns = 10 * MINUTE;
    for round in 0..3 {
        for (number, (_, _, computer, plan)) in scene.owners.iter().enumerate() {
            for state in [JobState::Succeeded, JobState::Failed, JobState::Warning, JobState::Cancelled] {
                if (number + round) % 2 == 0 {
                    at_ns += MINUTE;
                }
                let is_restore = number % 3 == 1 && state != JobState::Warning;
                let begin = match is_restore {
                    true => {
                        let job =
                            control.order_restore(&scene.scope, &actor(), &computer.id, "{}", at_ns).await.unwrap();
                        BeginJob {
                            id: job.id,
                            plan: None,
                            revision: None,
                            cause: JobCause::Order,
                            slot_ns: None,
                            next: None,
                        }
                    }
                    false => BeginJob {
                        id: JobId::generate().unwrap(),
                        plan: Some(plan.id),
                        revision: Some(plan.revision),
                        cause: JobCause::Order,
                        slot_ns: None,
                        next: None,
                    },
                };
                let job = control.begin_job(&scene.scope, computer, &begin, "agent", at_ns).await.unwrap();
                let end =
                    EndJob { state, error_code: None, message: None, snapshot: None, counts: JobCounts::default() };
                control.end_job(computer, &job.id, end, "agent", at_ns + (round as i64 + 1) * MINUTE).await.unwrap();
            }
        }
    }
    // Some that have not ended.
    for (_, _, computer, plan) in &scene.owners[..2] {
        control.order_backup(&scene.scope, &actor(), &plan.id, at_ns).await.unwrap();
        control.order_restore(&scene.scope, &actor(), &computer.id, "{}", at_ns + 1).await.unwrap();
    }
    control.jobs(&scene.scope, &JobFilter::default(), JobSort::Start, false, None, 1000).await.unwrap()
}

/// The list, by hand.
fn expected(all: &[ListedJob], filter: &JobFilter, sort: JobSort, ascending: bool) -> Vec<JobId> {
    // Whoever adds a filter must say here what it lets through.
    let JobFilter { state, tenant, user, computer, plan, kind, from_ns, to_ns } = filter;
    let at = |job: &ListedJob| match sort {
        JobSort::End => job.job.ended_ns.unwrap_or(i64::MAX),
        JobSort::Start | JobSort::State => job.job.started_ns,
    };
    let mut found: Vec<&ListedJob> = all
        .iter()
        .filter(|listed| {
            let job = &listed.job;
            state.is_none_or(|state| job.state == state)
                && tenant.is_none_or(|tenant| job.tenant == tenant)
                && user.is_none_or(|user| job.user == user)
                && computer.is_none_or(|computer| job.computer == computer)
                && plan.is_none_or(|plan| job.plan == Some(plan))
                && kind.is_none_or(|kind| job.kind == kind)
                && from_ns.is_none_or(|from_ns| at(listed) >= from_ns)
                && to_ns.is_none_or(|to_ns| at(listed) < to_ns)
        })
        .collect();
    let rank = |job: &ListedJob| JOB_STATE_ORDER.iter().rev().position(|state| *state == job.job.state);
    found.sort_by_key(|job| {
        let rank = if sort == JobSort::State { rank(job) } else { None };
        (rank, at(job), job.job.id.to_string())
    });
    if !ascending {
        found.reverse();
    }
    found.into_iter().map(|job| job.job.id).collect()
}

async fn every_filter_with_every_order_finds_what_is_there(control: Control) {
    let scene = scene(&control).await;
    let all = fill(&control, &scene).await;
    assert!(all.len() > 70, "{}", all.len());
    let (user, tenant, computer, plan) = &scene.owners[1];
    let middle_ns = all[all.len() / 2].job.started_ns;
    let none = JobFilter::default();
    let mut singles: Vec<JobFilter> =
        JOB_STATE_ORDER.iter().map(|state| JobFilter { state: Some(*state), ..none.clone() }).collect();
    singles.extend([
        JobFilter { tenant: Some(*tenant), ..none.clone() },
        JobFilter { user: Some(*user), ..none.clone() },
        JobFilter { computer: Some(computer.id), ..none.clone() },
        JobFilter { plan: Some(plan.id), ..none.clone() },
        JobFilter { kind: Some(JobKind::Backup), ..none.clone() },
        JobFilter { kind: Some(JobKind::Restore), ..none.clone() },
        JobFilter { from_ns: Some(middle_ns), ..none.clone() },
        JobFilter { to_ns: Some(middle_ns), ..none.clone() },
    ]);
    let merged = |a: &JobFilter, b: &JobFilter| JobFilter {
        state: a.state.or(b.state),
        tenant: a.tenant.or(b.tenant),
        user: a.user.or(b.user),
        computer: a.computer.or(b.computer),
        plan: a.plan.or(b.plan),
        kind: a.kind.or(b.kind),
        from_ns: a.from_ns.or(b.from_ns),
        to_ns: a.to_ns.or(b.to_ns),
    };
    let mut filters = vec![none];
    for (at, one) in singles.iter().enumerate() {
        filters.extend(singles[at..].iter().map(|other| merged(one, other)));
    }
    let mut found_some = 0;
    for filter in &filters {
        for sort in [JobSort::Start, JobSort::End, JobSort::State] {
            for ascending in [false, true] {
                let listed = control.jobs(&scene.scope, filter, sort, ascending, None, 200).await.unwrap();
                let ids: Vec<JobId> = listed.iter().map(|job| job.job.id).collect();
                assert_eq!(ids, expected(&all, filter, sort, ascending), "{filter:?} {sort:?} {ascending}");
                found_some += usize::from(!ids.is_empty());
            }
        }
    }
    assert!(found_some > filters.len() * 4, "{found_some} of {}", filters.len() * 6);
}

async fn pages_meet_and_scopes_hold(control: Control) {
    let scene = scene(&control).await;
    let all = fill(&control, &scene).await;
    let (anna, acme, ..) = &scene.owners[0];
    let north = scene.owners[4].1;
    let scopes = [
        vec![ScopePart::Subtree(TenantId::PLATFORM)],
        vec![ScopePart::Tenant(*acme)],
        vec![ScopePart::Subtree(north)],
        vec![ScopePart::User(*anna)],
        vec![ScopePart::User(*anna), ScopePart::Subtree(north)],
        vec![ScopePart::Tenant(*acme), ScopePart::User(*anna)],
        vec![ScopePart::Both(vec![ScopePart::User(*anna)], north)],
        vec![],
    ];
    for parts in scopes {
        let reaches = |job: &ListedJob| match parts.as_slice() {
            [ScopePart::Subtree(id)] if *id == TenantId::PLATFORM => true,
            [ScopePart::Tenant(_)] | [ScopePart::Tenant(_), ScopePart::User(_)] => job.job.tenant == *acme,
            [ScopePart::Subtree(_)] => job.job.tenant == north,
            [ScopePart::User(_)] => job.job.user == *anna,
            [ScopePart::User(_), ScopePart::Subtree(_)] => job.job.user == *anna || job.job.tenant == north,
            _ => false,
        };
        let seen: Vec<ListedJob> = all.iter().filter(|job| reaches(job)).cloned().collect();
        let scope = Scope::new(&scene.authority, parts.clone());
        for sort in [JobSort::Start, JobSort::End, JobSort::State] {
            for ascending in [false, true] {
                let (mut paged, mut after) = (Vec::new(), None);
                loop {
                    let filter = JobFilter::default();
                    let page = control.jobs(&scope, &filter, sort, ascending, after.as_ref(), 7).await.unwrap();
                    let Some(last) = page.last() else { break };
                    after = Some(last.cursor(sort));
                    paged.extend(page.iter().map(|job| job.job.id));
                }
                let wanted = expected(&seen, &JobFilter::default(), sort, ascending);
                assert_eq!(paged, wanted, "{parts:?} {sort:?} {ascending}");
            }
        }
        // A filter leads to nothing that the scope does not reach.
        let foreign = JobFilter { computer: Some(scene.owners[2].2.id), ..JobFilter::default() };
        let found = control.jobs(&scope, &foreign, JobSort::Start, false, None, 200).await.unwrap();
        assert!(found.iter().all(reaches), "{parts:?}");
    }
}

async fn logs_are_found_by_their_words(control: Control) {
    let scene = scene(&control).await;
    let all = fill(&control, &scene).await;
    for (number, listed) in all.iter().enumerate() {
        let (_, _, computer, _) = scene.owners.iter().find(|owner| owner.2.id == listed.job.computer).unwrap();
        let line = |number: i64, text: String| LogLine { line: number, at_ns: 1, level: LogLevel::Info, text };
        let mut lines = vec![line(0, format!("reading /srv/data on {}", listed.computer))];
        if number % 10 == 0 {
            lines.push(line(1, format!("/srv/data/Größe-{number}.PST: permission denied")));
        }
        control.append_job_log(computer, &listed.job.id, &lines).await.unwrap();
    }
    while control.index_logs(1, 7).await.unwrap() > 0 {}
    let filter = JobFilter::default();
    let search = async |scope: &Scope, words: &str, filter: &JobFilter, limit: u32| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = control.search_logs(scope, words, filter, after.as_ref(), limit).await.unwrap();
            assert!(page.found.len() <= limit as usize);
            found.extend(page.found);
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let denied = search(&scene.scope, "DENIED permission", &filter, 3).await;
    assert_eq!(denied.len(), all.len().div_ceil(10));
    assert!(denied.iter().all(|found| found.lines.len() == 1 && found.lines[0].line == 1));
    let mut ids: Vec<JobId> = denied.iter().map(|found| found.job.job.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), denied.len(), "nothing is found twice");
    assert_eq!(search(&scene.scope, "größe 20", &filter, 50).await.len(), 1);
    assert_eq!(search(&scene.scope, "reading", &filter, 50).await.len(), all.len());
    assert!(search(&scene.scope, "reading elephants", &filter, 50).await.is_empty());
    let servers = search(&scene.scope, "server", &filter, 50).await;
    assert_eq!(servers.len(), all.iter().filter(|job| job.computer == "server").count());
    let (anna, _, laptop, _) = &scene.owners[0];
    let of_laptop = JobFilter { computer: Some(laptop.id), state: Some(JobState::Failed), ..JobFilter::default() };
    let wanted = all.iter().filter(|job| job.job.computer == laptop.id && job.job.state == JobState::Failed).count();
    assert_eq!(search(&scene.scope, "data", &of_laptop, 2).await.len(), wanted);
    let own = Scope::new(&scene.authority, vec![ScopePart::User(*anna)]);
    let wanted = all.iter().filter(|job| job.job.user == *anna).count();
    assert_eq!(search(&own, "data", &filter, 2).await.len(), wanted);
    assert!(search(&Scope::new(&scene.authority, vec![]), "data", &filter, 2).await.is_empty());
    for wrong in ["", "a", "- / -", "a1 a2 a3 a4 a5 a6 a7 a8 a9"] {
        assert!(control.search_logs(&scene.scope, wrong, &filter, None, 9).await.is_err(), "{wrong}");
    }
    // Lines that come later are found too, once.
    let (_, _, computer, _) = scene.owners.iter().find(|owner| owner.2.id == all[0].job.computer).unwrap();
    let late = LogLine { line: 9, at_ns: 1, level: LogLevel::Warning, text: "zebra crossing".into() };
    control.append_job_log(computer, &all[0].job.id, &[late]).await.unwrap();
    assert!(search(&scene.scope, "zebra", &filter, 9).await.is_empty());
    assert_eq!(control.index_logs(2, 100).await.unwrap(), 1);
    assert_eq!(control.index_logs(2, 100).await.unwrap(), 0);
    assert_eq!(search(&scene.scope, "zebra", &filter, 9).await.len(), 1);
}

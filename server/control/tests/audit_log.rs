//! Entries of the audit log by filters and places, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{Actor, AuditFilter, AuditPlace, Control, Deed, Scope, ScopePart, TenantId, UserId};

on_each_engine! {
    filters_let_through_what_they_say,
    places_go_on_where_the_page_before_ended,
}

fn actor(id: &str, name: &str) -> Actor {
    Actor { id: id.into(), name: name.into(), behalf: None, address: "local".into() }
}

fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

async fn note(control: &Control, actor: &Actor, tenant: TenantId, verb: &str, object: &str, now_ns: i64) {
    let deed = Deed { tenant, user: None, verb, object: object.into(), before: None, after: None };
    control.note_deed(actor, deed, now_ns).await.unwrap();
}

fn scope(control: &Control, part: impl FnOnce() -> ScopePart) -> Scope {
    Scope::new(&control.take_authority().unwrap(), vec![part()])
}

async fn filters_let_through_what_they_say(control: Control) {
    let scope = scope(&control, || ScopePart::Subtree(TenantId::PLATFORM));
    let (anna, bert) = (actor("a1", "Anna"), actor("b2", "Bert"));
    note(&control, &anna, tenant(1), "plan.edit", "plan abc", 10).await;
    note(&control, &bert, tenant(1), "plan.edit", "plan a_c", 20).await;
    note(&control, &anna, tenant(2), "user.invite", "user x%z", 30).await;
    let found = async |filter: AuditFilter| -> Vec<i64> {
        let entries = control.find_audit_entries(&scope, &filter, AuditPlace::After(0), 10).await.unwrap();
        entries.into_iter().map(|entry| entry.sequence).collect()
    };
    let nothing = AuditFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(nothing()).await, [1, 2, 3]);
    assert_eq!(found(AuditFilter { since_ns: Some(20), ..nothing() }).await, [2, 3]);
    assert_eq!(found(AuditFilter { until_ns: Some(20), ..nothing() }).await, [1]);
    assert_eq!(found(AuditFilter { actor: text("a1"), ..nothing() }).await, [1, 3]);
    assert_eq!(found(AuditFilter { actor: text("Bert"), ..nothing() }).await, [2]);
    assert_eq!(found(AuditFilter { verb: text("plan.edit"), ..nothing() }).await, [1, 2]);
    assert_eq!(found(AuditFilter { tenant: Some(tenant(2)), ..nothing() }).await, [3]);
    assert_eq!(found(AuditFilter { object: text("plan abc"), ..nothing() }).await, [1]);
    // What is asked for is no pattern.
    assert_eq!(found(AuditFilter { object: text("a_c"), ..nothing() }).await, [2]);
    assert_eq!(found(AuditFilter { object: text("x%z"), ..nothing() }).await, [3]);
    assert_eq!(found(AuditFilter { object: text("%"), ..nothing() }).await, [0i64; 0]);
    assert_eq!(found(AuditFilter { object: text("' OR 1 = 1 --"), ..nothing() }).await, [0i64; 0]);
    let both = AuditFilter { actor: text("Anna"), verb: text("plan.edit"), object: text("abc"), ..nothing() };
    assert_eq!(found(both).await, [1]);
}

async fn places_go_on_where_the_page_before_ended(control: Control) {
    let user = UserId::from_bytes([7; 16]);
    let scope = scope(&control, || ScopePart::User(user));
    let anna = actor("a1", "Anna");
    for number in 0..20 {
        let user = (number % 2 == 0).then_some(user);
        let deed =
            Deed { tenant: tenant(1), user, verb: "v", object: format!("o {number}"), before: None, after: None };
        control.note_deed(&anna, deed, number).await.unwrap();
    }
    let filter = AuditFilter::default();
    let (mut seen, mut place) = (Vec::new(), AuditPlace::Before(None));
    loop {
        let page = control.find_audit_entries(&scope, &filter, place, 3).await.unwrap();
        assert!(page.iter().all(control::AuditEntry::is_intact));
        let Some(last) = page.last() else { break };
        place = AuditPlace::Before(Some(last.sequence));
        seen.extend(page.into_iter().map(|entry| entry.sequence));
    }
    let own: Vec<i64> = (0..10).map(|number| 19 - 2 * number).collect();
    assert_eq!(seen, own);
    let page = control.find_audit_entries(&scope, &filter, AuditPlace::After(15), 3).await.unwrap();
    assert_eq!(page.into_iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [17, 19]);
}

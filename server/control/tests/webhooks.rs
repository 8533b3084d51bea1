//! Webhooks and what is on its way to them, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Authority, Control, ControlError, DeliveryState, EventKind, NewTenant, NewWebhook, Scope, ScopePart, Tenant,
    TenantId, TenantKind, WebhookChange, WebhookId,
};

on_each_engine! {
    a_webhook_is_made_changed_and_removed,
    a_delivery_is_tried_until_it_arrives_or_is_too_old,
    many_deliveries_to_one_webhook_hold_up_no_other,
    webhooks_are_seen_as_far_as_the_scope_reaches,
}

const SECOND_NS: i64 = 1_000_000_000;

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn all(authority: &Authority) -> Scope {
    Scope::new(authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

async fn customer(control: &Control, scope: &Scope, title: &str) -> Tenant {
    let new = NewTenant { parent: TenantId::PLATFORM, kind: TenantKind::Customer, name: None, title };
    control.create_tenant(scope, &actor(), &new, 1).await.unwrap()
}

fn new(tenant: TenantId, url: &str) -> NewWebhook<'_> {
    NewWebhook {
        id: WebhookId::generate().unwrap(),
        tenant,
        user: None,
        url,
        events: &[EventKind::BackupFailed, EventKind::Quota],
        sealed_secret: "sealed",
    }
}

async fn a_webhook_is_made_changed_and_removed(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = customer(&control, &scope, "Acme").await;
    for wrong in ["", "example.org", "ftp://example.org", "https://", "https://a b", "https://user:x@example.org/"] {
        let made = control.create_webhook(&scope, &actor(), &new(acme.id, wrong), 5).await;
        assert!(matches!(made, Err(ControlError::Invalid { what: "URL", .. })), "{wrong}: {made:?}");
    }
    let without = NewWebhook { events: &[], ..new(acme.id, "https://example.org/hook") };
    assert!(control.create_webhook(&scope, &actor(), &without, 5).await.is_err());

    let made = control.create_webhook(&scope, &actor(), &new(acme.id, "https://example.org/hook"), 5).await.unwrap();
    assert!(made.is_active && made.failing_since_ns.is_none());
    assert_eq!(control.webhooks(&scope, None, 10).await.unwrap(), std::slice::from_ref(&made));
    let delivery = control.test_webhook(&scope, &made.id, 6).await.unwrap();

    let change = WebhookChange { events: Some(&[EventKind::Test]), is_active: Some(false), ..WebhookChange::default() };
    let changed = control.change_webhook(&scope, &actor(), &made.id, &change, 7).await.unwrap();
    assert_eq!(
        (changed.is_active, changed.events.as_slice(), &changed.url),
        (false, &[EventKind::Test][..], &made.url)
    );
    // What waits for a webhook that was paused is not sent when it is no longer.
    assert!(control.due_deliveries(i64::MAX, 10).await.unwrap().is_empty());
    let listed = control.deliveries(&scope, &made.id, None, 10).await.unwrap();
    assert_eq!((listed[0].id, listed[0].state), (delivery, DeliveryState::Failed));
    let paused = control.test_webhook(&scope, &made.id, 8).await;
    assert!(matches!(paused, Err(ControlError::WrongState { what: "webhook", .. })));

    control.delete_webhook(&scope, &actor(), &made.id, 9).await.unwrap();
    assert!(matches!(control.webhook(&scope, &made.id).await, Err(ControlError::NotFound { .. })));
    assert_eq!(control.locate_webhook(&made.id).await.unwrap(), None);
    // The customer, the webhook, its change, its end.
    assert_eq!(control.verify_audit_log().await.unwrap(), 4);
}

async fn a_delivery_is_tried_until_it_arrives_or_is_too_old(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = customer(&control, &scope, "Acme").await;
    let hook = control.create_webhook(&scope, &actor(), &new(acme.id, "https://example.org/hook"), 5).await.unwrap();
    let first = control.test_webhook(&scope, &hook.id, 10).await.unwrap();
    let due = control.due_deliveries(10, 10).await.unwrap();
    assert_eq!((due.len(), due[0].id, due[0].sealed_secret.as_str()), (1, first, "sealed"));
    let body: serde_json::Value = serde_json::from_str(&due[0].body).unwrap();
    assert_eq!((body["event"].as_str(), body["id"].as_str()), (Some("test"), Some(first.to_string().as_str())));
    assert_eq!(body["tenant"].as_str(), Some(acme.id.to_string().as_str()));

    let next_ns = control.not_delivered(&due[0], Some(503), "503 Busy", 10).await.unwrap().unwrap();
    assert!((15 * SECOND_NS..20 * SECOND_NS).contains(&(next_ns - 10)));
    assert!(control.due_deliveries(next_ns - 1, 10).await.unwrap().is_empty());
    assert_eq!(control.webhook(&scope, &hook.id).await.unwrap().failing_since_ns, Some(10));
    control.delivered(&due[0], 204, next_ns).await.unwrap();
    assert_eq!(control.webhook(&scope, &hook.id).await.unwrap().failing_since_ns, None);
    let listed = control.deliveries(&scope, &hook.id, None, 10).await.unwrap();
    assert_eq!((listed[0].state, listed[0].tries, listed[0].last_status), (DeliveryState::Delivered, 2, Some(204)));

    let mut now_ns = 20 * SECOND_NS;
    let second = control.test_webhook(&scope, &hook.id, now_ns).await.unwrap();
    let mut tries = 0;
    while let Some(due) = control.due_deliveries(now_ns, 1).await.unwrap().first() {
        tries += 1;
        match control.not_delivered(due, None, "nobody answers", now_ns).await.unwrap() {
            Some(next_ns) => now_ns = next_ns,
            None => break,
        }
    }
    let listed = control.deliveries(&scope, &hook.id, None, 1).await.unwrap();
    assert_eq!((listed[0].id, listed[0].state, listed[0].tries), (second, DeliveryState::Failed, tries));
    assert!((24..30).contains(&(now_ns / SECOND_NS / 3600)), "{now_ns}");
    assert_eq!(control.forget_deliveries(now_ns + 1, 10).await.unwrap(), 2);
}

async fn many_deliveries_to_one_webhook_hold_up_no_other(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = customer(&control, &scope, "Acme").await;
    let busy = control.create_webhook(&scope, &actor(), &new(acme.id, "https://example.org/1"), 5).await.unwrap();
    let quiet = control.create_webhook(&scope, &actor(), &new(acme.id, "https://example.org/2"), 5).await.unwrap();
    let mut told = Vec::new();
    for at_ns in 10..30 {
        told.push(control.test_webhook(&scope, &busy.id, at_ns).await.unwrap());
    }
    let last = control.test_webhook(&scope, &quiet.id, 40).await.unwrap();
    let due = control.due_deliveries(50, 2).await.unwrap();
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [told[0], last]);
    // One after the other, in their order.
    control.delivered(&due[1], 200, 50).await.unwrap();
    for expected in told {
        let due = control.due_deliveries(50, 10).await.unwrap();
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [expected]);
        control.delivered(&due[0], 200, 50).await.unwrap();
    }
    assert!(control.due_deliveries(50, 10).await.unwrap().is_empty());
}

async fn webhooks_are_seen_as_far_as_the_scope_reaches(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let (acme, other) = (customer(&control, &scope, "Acme").await, customer(&control, &scope, "Other").await);
    let hook = control.create_webhook(&scope, &actor(), &new(acme.id, "https://example.org/1"), 5).await.unwrap();
    control.create_webhook(&scope, &actor(), &new(other.id, "https://example.org/2"), 5).await.unwrap();
    let of_other = Scope::new(&authority, vec![ScopePart::Subtree(other.id)]);
    assert_eq!(control.webhooks(&of_other, None, 10).await.unwrap().len(), 1);
    let page = control.webhooks(&scope, None, 1).await.unwrap();
    let next = control.webhooks(&scope, Some((page[0].created_ns, page[0].id)), 10).await.unwrap();
    assert_eq!((page.len(), next.len()), (1, 1));
    let foreign = [
        control.webhook(&of_other, &hook.id).await.map(|_| ()),
        control.test_webhook(&of_other, &hook.id, 6).await.map(|_| ()),
        control.deliveries(&of_other, &hook.id, None, 10).await.map(|_| ()),
        control.change_webhook(&of_other, &actor(), &hook.id, &WebhookChange::default(), 6).await.map(|_| ()),
        control.delete_webhook(&of_other, &actor(), &hook.id, 6).await.map(|_| ()),
        control.create_webhook(&of_other, &actor(), &new(acme.id, "https://example.org/3"), 6).await.map(|_| ()),
    ];
    assert!(foreign.iter().all(|answer| matches!(answer, Err(ControlError::NotFound { .. }))), "{foreign:?}");
}

//! The tree of tenants, who holds what in it, and the log of who did what, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Authority, Control, ControlError, Deed, NewTenant, Place, QuotaLimits, QuotaScope, Role, Scope, ScopePart,
    TENANT_DEPTH_MAX, Tenant, TenantId, TenantKind, UserName,
};
use repo_format::id::VaultId;

on_each_engine! {
    a_tree_is_at_most_so_deep_and_is_seen_as_far_as_the_scope_reaches,
    a_member_holds_what_its_own_is,
    the_audit_log_shows_what_was_changed,
}

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn all(authority: &Authority) -> Scope {
    Scope::new(authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

async fn make(control: &Control, scope: &Scope, parent: TenantId, kind: TenantKind, title: &str) -> Tenant {
    let new = NewTenant { parent, kind, name: None, title };
    control.create_tenant(scope, &actor(), &new, 1).await.unwrap()
}

async fn a_tree_is_at_most_so_deep_and_is_seen_as_far_as_the_scope_reaches(control: Control) {
    let authority = control.take_authority().unwrap();
    assert!(control.take_authority().is_none());
    let scope = all(&authority);
    let north = make(&control, &scope, TenantId::PLATFORM, TenantKind::Partner, "North").await;
    let reseller = make(&control, &scope, north.id, TenantKind::Partner, "Reseller").await;
    let acme = make(&control, &scope, reseller.id, TenantKind::Customer, "Acme").await;
    let south = make(&control, &scope, TenantId::PLATFORM, TenantKind::Customer, "South").await;
    assert_eq!(TENANT_DEPTH_MAX, 4);
    for (parent, kind) in [
        (reseller.id, TenantKind::Partner),
        (acme.id, TenantKind::Customer),
        (acme.id, TenantKind::Partner),
        (TenantId::PLATFORM, TenantKind::Platform),
    ] {
        let new = NewTenant { parent, kind, name: None, title: "too deep" };
        let made = control.create_tenant(&scope, &actor(), &new, 1).await;
        assert!(matches!(made, Err(ControlError::Invalid { what: "parent", .. })), "{made:?}");
    }
    let of_north = Scope::new(&authority, vec![ScopePart::Subtree(north.id)]);
    let seen = control.tenants(&of_north, None, None, 10).await.unwrap();
    assert_eq!(seen.iter().map(|tenant| tenant.title.as_str()).collect::<Vec<_>>(), ["Acme", "North", "Reseller"]);
    let customers = control.tenants(&of_north, Some(TenantKind::Customer), None, 10).await.unwrap();
    assert_eq!(customers, std::slice::from_ref(&acme));
    let behind = control.tenants(&of_north, None, Some(("Acme", acme.id)), 1).await.unwrap();
    assert_eq!(behind, std::slice::from_ref(&north));
    assert!(matches!(control.tenant(&of_north, &south.id).await, Err(ControlError::NotFound { .. })));
    let below_south = NewTenant { parent: south.id, kind: TenantKind::Customer, name: None, title: "x" };
    let made = control.create_tenant(&of_north, &actor(), &below_south, 1).await;
    assert!(matches!(made, Err(ControlError::NotFound { .. })), "{made:?}");
    let nothing = Scope::new(&authority, Vec::new());
    assert!(control.tenants(&nothing, None, None, 10).await.unwrap().is_empty());
}

async fn a_member_holds_what_its_own_is(control: Control) {
    let name = UserName::parse("acme/anna").unwrap();
    let vault = VaultId::from_bytes([1; 16]);
    control.create_user(&name, vault, 5).await.unwrap();
    control.set_partner("acme", Some("north"), 6).await.unwrap();
    let place = control.locate_vault(&vault).await.unwrap().unwrap();
    assert_eq!((place.path.len(), place.path[0]), (3, TenantId::PLATFORM));
    let user = place.user.unwrap();
    let held = control.holdings(&user).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].role, &held[0].place),
        (Role::BackupUser, &Place::Own { user, tenant: place.tenant().unwrap() })
    );
    assert_eq!(control.locate_tenant(&place.tenant().unwrap()).await.unwrap().unwrap().path, place.path);
    assert_eq!(control.locate_vault(&VaultId::from_bytes([2; 16])).await.unwrap(), None);

    let partner: QuotaScope = "partner:north".parse().unwrap();
    let limits = QuotaLimits { physical_hard: Some(7), ..QuotaLimits::default() };
    control.set_quota(&partner, limits, 7).await.unwrap();
    assert_eq!(control.quotas().await.unwrap()[0].scope, partner);
    assert!(control.quota_chain(&vault).await.unwrap().contains(&partner));
    control.set_partner("acme", None, 8).await.unwrap();
    assert!(!control.quota_chain(&vault).await.unwrap().contains(&partner));
    assert_eq!(control.locate_vault(&vault).await.unwrap().unwrap().path.len(), 2);
}

async fn the_audit_log_shows_what_was_changed(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    for number in 0..5 {
        let deed = Deed {
            tenant: TenantId::PLATFORM,
            user: None,
            verb: "test",
            object: format!("thing {number}"),
            before: None,
            after: Some(serde_json::json!({ "number": number })),
        };
        control.note_deed(&actor(), deed, number).await.unwrap();
    }
    assert_eq!(control.verify_audit_log().await.unwrap(), 5);
    let listed = control.audit_entries(&scope, None, 2).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [5, 4]);
    let older = control.audit_entries(&scope, Some(4), 9).await.unwrap();
    assert_eq!(older.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(control.audit_entries(&Scope::new(&authority, vec![]), None, 9).await.unwrap().is_empty());
}

//! Members, owners and groups, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Authority, Control, ControlError, GroupTerms, MemberRole, NewTenant, Place, Role, Scope, ScopePart,
    TenantId, TenantKind, UserId, UserName,
};
use repo_format::id::VaultId;

on_each_engine! {
    a_tenant_keeps_an_administrator,
    a_tenant_changes_its_owner_by_offer_and_acceptance,
    members_are_listed_as_far_as_the_scope_reaches,
    a_group_gives_verbs_for_customers_of_its_partner,
}

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn person(user: UserId) -> Actor {
    Actor { id: user.to_string(), ..actor() }
}

struct World {
    control: Control,
    authority: Authority,
    scope: Scope,
}

impl World {
    fn new(control: Control) -> World {
        let authority = control.take_authority().unwrap();
        let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
        World { control, authority, scope }
    }

    async fn tenant(&self, parent: TenantId, kind: TenantKind, name: &str) -> TenantId {
        let new = NewTenant { parent, kind, name: Some(name), title: name };
        self.control.create_tenant(&self.scope, &actor(), &new, 1).await.unwrap().id
    }

    async fn user(&self, customer: &str, name: &str, number: u8) -> UserId {
        let vault = VaultId::from_bytes([number; 16]);
        self.control.create_user(&UserName::new(customer, name).unwrap(), vault, 1).await.unwrap();
        self.control.locate_vault(&vault).await.unwrap().unwrap().user.unwrap()
    }

    async fn set(
        &self,
        by: &Actor,
        tenant: &TenantId,
        user: &UserId,
        roles: &[MemberRole],
    ) -> Result<(), ControlError> {
        self.control.set_roles(&self.scope, by, tenant, user, roles, 2).await.map(|_| ())
    }
}

async fn a_tenant_keeps_an_administrator(control: Control) {
    let world = World::new(control);
    let acme = world.tenant(TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, bert) = (world.user("acme", "anna", 1).await, world.user("acme", "bert", 2).await);
    let (admin, user) = (MemberRole::Admin, MemberRole::User);
    world.set(&actor(), &acme, &anna, &[admin, user]).await.unwrap();
    let held = world.control.holdings(&anna).await.unwrap();
    assert!(held.iter().any(|one| one.role == Role::CustomerAdmin && one.place == Place::Subtree(acme)), "{held:?}");
    for last in [vec![user], vec![MemberRole::Auditor]] {
        let refused = world.set(&actor(), &acme, &anna, &last).await;
        assert!(matches!(refused, Err(ControlError::MustStay(_))), "{refused:?}");
    }
    let oneself = world.set(&person(anna), &acme, &anna, &[admin]).await;
    assert!(matches!(oneself, Err(ControlError::MustStay(_))), "{oneself:?}");
    world.set(&person(anna), &acme, &bert, &[admin]).await.unwrap();
    world.set(&person(bert), &acme, &anna, &[user]).await.unwrap();
    assert!(world.set(&actor(), &acme, &bert, &[]).await.is_err());
    let held = world.control.holdings(&anna).await.unwrap();
    assert_eq!(held.iter().map(|one| one.role).collect::<Vec<_>>(), [Role::BackupUser]);
    let other = world.tenant(TenantId::PLATFORM, TenantKind::Customer, "other").await;
    let absent = world.set(&actor(), &other, &anna, &[user]).await;
    assert!(matches!(absent, Err(ControlError::NotFound { what: "user", .. })), "{absent:?}");
    let home = world.control.remove_member(&world.scope, &actor(), &acme, &anna, 3).await;
    assert!(matches!(home, Err(ControlError::MustStay(_))), "{home:?}");
    world.control.verify_audit_log().await.unwrap();
}

async fn a_tenant_changes_its_owner_by_offer_and_acceptance(control: Control) {
    let world = World::new(control);
    let acme = world.tenant(TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, bert) = (world.user("acme", "anna", 1).await, world.user("acme", "bert", 2).await);
    let (control, scope) = (&world.control, &world.scope);
    let offer = async |user: &UserId, now_ns: i64| control.offer_owner(scope, &actor(), &acme, user, now_ns).await;
    assert!(matches!(offer(&anna, 1).await, Err(ControlError::WrongState { .. })), "no administrator yet");
    for user in [&anna, &bert] {
        world.set(&actor(), &acme, user, &[MemberRole::Admin]).await.unwrap();
    }
    let until = offer(&anna, 1).await.unwrap();
    let accept = async |user: &UserId, now_ns: i64| control.accept_owner(&person(*user), &acme, user, now_ns).await;
    assert!(matches!(accept(&bert, 2).await, Err(ControlError::NotFound { what: "offer", .. })));
    assert!(matches!(accept(&anna, until).await, Err(ControlError::NotFound { .. })), "too late");
    assert!(accept(&anna, until - 1).await.unwrap().owner);
    assert!(matches!(accept(&anna, 2).await, Err(ControlError::NotFound { .. })), "once");
    assert!(matches!(offer(&anna, 3).await, Err(ControlError::MustStay(_))), "the owner already");
    let demoted = world.set(&actor(), &acme, &anna, &[MemberRole::User]).await;
    assert!(matches!(demoted, Err(ControlError::MustStay(_))), "{demoted:?}");
    offer(&bert, 3).await.unwrap();
    assert!(accept(&bert, 4).await.unwrap().owner);
    assert!(!control.member(&acme, &anna).await.unwrap().owner);
    world.set(&actor(), &acme, &anna, &[MemberRole::User]).await.unwrap();
    control.verify_audit_log().await.unwrap();
}

async fn members_are_listed_as_far_as_the_scope_reaches(control: Control) {
    let world = World::new(control);
    let acme = world.tenant(TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, _) = (world.user("acme", "anna", 1).await, world.user("acme", "bert", 2).await);
    world.user("other", "cora", 3).await;
    let names = async |scope: &Scope, after: Option<(&str, UserId)>, limit: u32| {
        let members = world.control.members(scope, &acme, after, limit).await.unwrap();
        members.into_iter().map(|member| member.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.scope, None, 10).await, ["anna", "bert"]);
    assert_eq!(names(&world.scope, None, 1).await, ["anna"]);
    assert_eq!(names(&world.scope, Some(("anna", anna)), 10).await, ["bert"]);
    let own = Scope::new(&world.authority, vec![ScopePart::User(anna)]);
    assert_eq!(names(&own, None, 10).await, ["anna"]);
    let nothing = Scope::new(&world.authority, vec![]);
    assert!(names(&nothing, None, 10).await.is_empty());
    let member = world.control.member(&acme, &anna).await.unwrap();
    assert_eq!(
        (member.roles.as_slice(), member.owner, member.state.as_str()),
        (&[MemberRole::User][..], false, "active")
    );
}

async fn a_group_gives_verbs_for_customers_of_its_partner(control: Control) {
    let world = World::new(control);
    let north = world.tenant(TenantId::PLATFORM, TenantKind::Partner, "north").await;
    let acme = world.tenant(north, TenantKind::Customer, "acme").await;
    let other = world.tenant(TenantId::PLATFORM, TenantKind::Customer, "other").await;
    let (control, scope) = (&world.control, &world.scope);
    let anna = world.user("acme", "anna", 1).await;
    let terms = |customers: Vec<TenantId>, all_customers: bool| GroupTerms {
        name: "help desk".into(),
        verbs: vec!["job.view".into()],
        all_customers,
        customers,
    };
    for foreign in [other, north, TenantId::PLATFORM] {
        let made = control.create_group(scope, &actor(), &north, &terms(vec![foreign], false), 1).await;
        assert!(matches!(made, Err(ControlError::NotFound { what: "tenant", .. })), "{made:?}");
    }
    assert_eq!(control.groups(scope, &north).await.unwrap(), []);
    assert!(control.create_group(scope, &actor(), &acme, &terms(vec![], true), 1).await.is_err(), "of a customer");
    let group = control.create_group(scope, &actor(), &north, &terms(vec![acme], false), 1).await.unwrap();
    let taken = control.create_group(scope, &actor(), &north, &terms(vec![], true), 1).await;
    assert!(matches!(taken, Err(ControlError::Exists { .. })), "{taken:?}");
    let stranger = control.set_group_member(scope, &actor(), &group.id, &anna, true, 2).await;
    assert!(matches!(stranger, Err(ControlError::NotFound { what: "user", .. })), "{stranger:?}");
    assert_eq!(control.locate_group(&group.id).await.unwrap().unwrap().path, [TenantId::PLATFORM, north]);
    let edited = control.edit_group(scope, &actor(), &group.id, &terms(vec![], true), 3).await.unwrap();
    assert!(edited.terms.all_customers && edited.terms.customers.is_empty());
    let unseen = Scope::new(&world.authority, vec![ScopePart::Subtree(acme)]);
    assert!(matches!(control.group(&unseen, &group.id).await, Err(ControlError::NotFound { .. })));
    control.delete_group(scope, &actor(), &group.id, 4).await.unwrap();
    assert!(matches!(control.group(scope, &group.id).await, Err(ControlError::NotFound { .. })));
    assert_eq!(control.locate_group(&group.id).await.unwrap(), None);
    control.verify_audit_log().await.unwrap();
}

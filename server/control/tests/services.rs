//! Licences: their rules, the states of services, and what users are given, also by many at once, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Authority, ContactKind, Control, ControlError, ExportTerms, Gate, Licence, LicenceChange, MemberRole,
    NewAllocation, NewService, NewTenant, ProductId, ProductTerms, QuotaScope, Scope, ScopePart, Service, ServiceId,
    ServiceState, Share, SystemWords, TenantChange, TenantId, TenantKind, Unit, UserId, UserName,
};
use repo_format::id::VaultId;
use std::collections::BTreeMap;

on_each_engine! {
    a_licence_ends_at_the_latest_a_year_behind_its_booking,
    only_the_named_transitions_exist,
    time_moves_services,
    a_renewed_term_follows_the_one_that_runs,
    never_more_than_there_is_is_given_away,
    many_at_once_get_no_more_than_there_is,
    a_trial_protects_five_users_once,
    products_sold_by_users_and_computers_are_counted_so,
    quotas_follow_what_was_bought_and_given,
    vaults_are_as_open_as_their_services,
    there_is_one_contact_of_each_kind,
    what_is_known_of_a_tenant_can_be_changed,
}

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
const GIB: i64 = 1 << 30;
/// 2026-11-21 14:00 UTC.
const NOW: i64 = 1_795_269_600_000_000_000;

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

struct World {
    control: Control,
    #[allow(dead_code, reason = "keeps the one authority of the database")]
    authority: Authority,
    scope: Scope,
    backup: ProductId,
}

impl World {
    async fn new(control: Control) -> World {
        let authority = control.take_authority().unwrap();
        let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
        let backup = control.products().await.unwrap()[0].id;
        World { control, authority, scope, backup }
    }

    async fn customer(&self, name: &str) -> TenantId {
        let new = NewTenant { parent: TenantId::PLATFORM, kind: TenantKind::Customer, name: Some(name), title: name };
        self.control.create_tenant(&self.scope, &actor(), &new, NOW).await.unwrap().id
    }

    /// With a vault, as the command line makes it.
    async fn user(&self, customer: &str, name: &str) -> (UserId, VaultId) {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).unwrap();
        let vault = VaultId::from_bytes(bytes);
        let name = UserName::new(customer, name).unwrap();
        self.control.create_user(&name, vault, NOW).await.unwrap();
        (self.control.locate_vault(&vault).await.unwrap().unwrap().user.unwrap(), vault)
    }

    fn new_service(&self, tenant: TenantId, licence: Licence, quantity: i64) -> NewService {
        NewService { tenant, product: self.backup, licence, quantity, expires_on: None, auto_renew: false }
    }

    async fn order(&self, new: &NewService, now_ns: i64) -> Result<Service, ControlError> {
        self.control.order_service(&self.scope, &actor(), new, None, now_ns).await
    }

    async fn active(&self, tenant: TenantId, quantity: i64) -> ServiceId {
        let id = self.order(&self.new_service(tenant, Licence::Paid, quantity), NOW).await.unwrap().id;
        self.control.pay_service(&self.scope, &actor(), &id, NOW).await.unwrap();
        id
    }

    async fn give(&self, service: &ServiceId, user: &UserId, bytes: i64) -> Result<(), ControlError> {
        let share = Share { bytes, computers: None };
        let new = NewAllocation { service, user, share: &share, vault: None };
        self.control.set_allocation(&self.scope, &actor(), &new, NOW).await.map(|_| ())
    }

    async fn state(&self, id: &ServiceId) -> ServiceState {
        self.control.service(&self.scope, id).await.unwrap().state
    }
}

async fn a_licence_ends_at_the_latest_a_year_behind_its_booking(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let change = TenantChange { time_zone: Some("Europe/Warsaw".into()), ..TenantChange::default() };
    world.control.edit_tenant(&world.scope, &actor(), &acme, &change, NOW).await.unwrap();
    let made = world.order(&world.new_service(acme, Licence::Paid, 100), NOW).await.unwrap();
    assert_eq!((made.state, made.quantity), (ServiceState::Ordered, 100));
    assert_eq!((made.expires_on.as_str(), made.latest_expires_on.as_str()), ("2027-11-21", "2027-11-21"));
    // To the end of that day in Warsaw, an hour before midnight in London.
    assert_eq!(made.expires_ns, NOW + 365 * DAY_NS + 9 * 3600 * 1_000_000_000);

    let day = |day: &str| LicenceChange { expires_on: Some(day.into()), ..LicenceChange::default() };
    let set = async |day: LicenceChange| {
        world.control.change_licence(&world.scope, &actor(), &made.id, "licence.manage", &day, NOW).await
    };
    assert_eq!(set(day("2027-06-30")).await.unwrap().expires_on, "2027-06-30");
    assert_eq!(set(day("2027-11-21")).await.unwrap().expires_on, "2027-11-21");
    let late = set(day("2027-11-22")).await.unwrap_err();
    assert!(matches!(late, ControlError::LicenceExceeded(_)), "{late:?}");
    assert!(
        late.to_string().contains("one year") && late.to_string().contains("the latest date is 2027-11-21"),
        "{late}"
    );
    let early = set(day("2026-11-20")).await.unwrap_err();
    assert!(early.to_string().contains("2026-11-21"), "{early}");
    assert!(matches!(set(day("soon")).await, Err(ControlError::Invalid { what: "day", .. })));
    // What was refused changed nothing.
    assert_eq!(world.control.service(&world.scope, &made.id).await.unwrap().expires_on, "2027-11-21");

    let late = NewService { expires_on: Some("2026-12-22".into()), ..world.new_service(acme, Licence::Trial, 10) };
    let late = world.order(&late, NOW).await.unwrap_err();
    assert!(late.to_string().contains("30 days") && late.to_string().contains("2026-12-21"), "{late}");
    for quantity in [0, -1, 1_000_000_001] {
        let made = world.order(&world.new_service(acme, Licence::Paid, quantity), NOW).await;
        assert!(matches!(made, Err(ControlError::Invalid { what: "quantity", .. })), "{made:?}");
    }
    let platform = world.order(&world.new_service(TenantId::PLATFORM, Licence::Paid, 1), NOW).await;
    assert!(matches!(platform, Err(ControlError::Invalid { what: "tenant", .. })), "{platform:?}");
    world.control.verify_audit_log().await.unwrap();
}

/// Every action on every state: which succeed, and where they lead.
async fn only_the_named_transitions_exist(control: Control) {
    use ServiceState::{Active, Cancelled, Expired, Ordered, Restricted, Suspended, Terminated, Trial};
    let world = World::new(control).await;
    let all = ServiceState::ALL;
    let actions = ["cancel", "pay", "restrict", "suspend", "buy", "renew", "terminate"];
    let allowed = BTreeMap::from([
        (("ordered", "cancel"), Cancelled),
        (("ordered", "pay"), Active),
        (("trial", "buy"), Active),
        (("active", "restrict"), Restricted),
        (("restricted", "pay"), Active),
        (("restricted", "suspend"), Suspended),
        (("suspended", "pay"), Active),
        (("suspended", "terminate"), Terminated),
        (("expired", "buy"), Expired),
        (("expired", "renew"), Expired),
        (("expired", "terminate"), Terminated),
    ]);
    for state in all {
        for action in actions {
            let customer = world.customer(&format!("{}-{action}", state.as_str())).await;
            let licence = if state == Trial || state == Expired { Licence::Trial } else { Licence::Paid };
            let id = world.order(&world.new_service(customer, licence, 10), NOW).await.unwrap().id;
            let (control, scope, actor) = (&world.control, &world.scope, &actor());
            if matches!(state, Active | Restricted | Suspended | Terminated) {
                control.pay_service(scope, actor, &id, NOW).await.unwrap();
            }
            if matches!(state, Restricted | Suspended | Terminated) {
                control.restrict_service(scope, actor, &id, NOW).await.unwrap();
            }
            if matches!(state, Suspended | Terminated) {
                control.suspend_service(scope, actor, &id, NOW).await.unwrap();
            }
            match state {
                Terminated => drop(control.terminate_service(scope, actor, &id, NOW).await.unwrap()),
                Cancelled => drop(control.cancel_service(scope, actor, &id, NOW).await.unwrap()),
                Expired => drop(control.advance_services(scope, actor, false, NOW + 31 * DAY_NS).await.unwrap()),
                Ordered | Trial | Active | Restricted | Suspended => {}
            }
            assert_eq!(world.state(&id).await, state);
            let later = NOW + 31 * DAY_NS;
            let done = match action {
                "cancel" => control.cancel_service(scope, actor, &id, later).await,
                "pay" => control.pay_service(scope, actor, &id, later).await,
                "restrict" => control.restrict_service(scope, actor, &id, later).await,
                "suspend" => control.suspend_service(scope, actor, &id, later).await,
                "buy" => control.buy_service(scope, actor, &id, 20, later).await,
                "renew" => control.renew_service(scope, actor, &id, later).await,
                _ => control.terminate_service(scope, actor, &id, later).await,
            };
            match (allowed.get(&(state.as_str(), action)), done) {
                (Some(to), Ok(service)) => assert_eq!(service.state, *to, "{state:?} {action}"),
                // Its time to renew has not come, which is another rule than its state.
                (None, Err(ControlError::LicenceExceeded(_))) if state == Active && action == "renew" => {}
                (None, Err(ControlError::WrongState { state: found, .. })) => assert_eq!(found, state.as_str()),
                (expected, done) => panic!("{state:?} {action}: {expected:?} {done:?}"),
            }
            // An expired one that was ordered again is paid for then, with a fresh year.
            if state == Expired && matches!(action, "buy" | "renew") {
                let paid = control.pay_service(scope, actor, &id, later).await.unwrap();
                assert_eq!((paid.state, paid.licence), (Active, Licence::Paid));
                assert_eq!(paid.expires_on, "2027-12-22");
                assert_eq!((paid.quantity, paid.renewal_ordered_ns), (if action == "buy" { 20 } else { 10 }, None));
            }
        }
    }
    world.control.verify_audit_log().await.unwrap();
}

async fn time_moves_services(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let unpaid = world.order(&world.new_service(acme, Licence::Paid, 1), NOW).await.unwrap().id;
    let trial = world.order(&world.new_service(acme, Licence::Trial, 1), NOW).await.unwrap();
    let paid = world.active(acme, 1).await;
    let renewing = NewService { auto_renew: true, ..world.new_service(acme, Licence::Paid, 1) };
    let renewing = world.order(&renewing, NOW).await.unwrap().id;
    world.control.pay_service(&world.scope, &actor(), &renewing, NOW).await.unwrap();
    let advance = async |may_destroy: bool, now_ns: i64| {
        let moved = world.control.advance_services(&world.scope, &actor(), may_destroy, now_ns).await.unwrap();
        let mut moved: Vec<_> = moved.into_iter().map(|service| (service.id, service.state)).collect();
        moved.sort();
        moved
    };
    assert_eq!(advance(true, NOW + 14 * DAY_NS - 1).await, []);
    assert_eq!(advance(true, NOW + 14 * DAY_NS).await, [(unpaid, ServiceState::Cancelled)]);
    assert_eq!(advance(true, trial.expires_ns - 1).await, []);
    assert_eq!(advance(true, trial.expires_ns).await, [(trial.id, ServiceState::Expired)]);
    // Its data stays for 60 days more, and nothing is destroyed on a clock that is not believed.
    let gone_ns = trial.expires_ns + 60 * DAY_NS;
    assert_eq!(advance(true, gone_ns - 1).await, []);
    assert_eq!(advance(false, gone_ns).await, []);
    assert_eq!(advance(true, gone_ns).await, [(trial.id, ServiceState::Terminated)]);
    let end = world.control.service(&world.scope, &paid).await.unwrap().expires_ns;
    let mut expected = vec![(paid, ServiceState::Expired), (renewing, ServiceState::Active)];
    expected.sort();
    assert_eq!(advance(true, end).await, expected);
    assert_eq!(world.control.service(&world.scope, &renewing).await.unwrap().expires_on, "2028-11-21");
    // One that waits for the payment of its renewal is not destroyed.
    world.control.renew_service(&world.scope, &actor(), &paid, end).await.unwrap();
    assert_eq!(advance(true, end + 61 * DAY_NS).await, []);
    world.control.verify_audit_log().await.unwrap();
}

async fn a_renewed_term_follows_the_one_that_runs(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let id = world.active(acme, 1).await;
    let renew = async |now_ns: i64| world.control.renew_service(&world.scope, &actor(), &id, now_ns).await;
    let early = renew(NOW).await.unwrap_err();
    assert!(early.to_string().contains("2027-11-21") && early.to_string().contains("from 2027-08-24 on"), "{early}");
    let renewed = renew(NOW + 300 * DAY_NS).await.unwrap();
    assert_eq!((renewed.state, renewed.expires_on.as_str()), (ServiceState::Active, "2028-11-21"));
    assert_eq!(renewed.latest_expires_on, "2028-11-21");
    assert!(renew(NOW + 300 * DAY_NS).await.is_err(), "a second year ahead");
}

async fn never_more_than_there_is_is_given_away(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let id = world.active(acme, 100).await;
    let (anna, _) = world.user("acme", "anna").await;
    let (bert, _) = world.user("acme", "bert").await;
    let (stranger, _) = world.user("other", "stranger").await;
    world.give(&id, &anna, 60 * GIB).await.unwrap();
    let refused = world.give(&id, &bert, 40 * GIB + 1).await.unwrap_err();
    let ControlError::AllocationExceedsFree(refusal) = &refused else { panic!("{refused:?}") };
    assert_eq!((refusal.others.allocated, refusal.others.free()), (60 * GIB, 40 * GIB));
    assert_eq!((refusal.others.capacity, refusal.requested), (100 * GIB, 40 * GIB + 1));
    let text = refused.to_string();
    for figure in [60 * GIB, 40 * GIB, 40 * GIB + 1, 100 * GIB] {
        assert!(text.contains(&figure.to_string()), "{text}");
    }
    world.give(&id, &bert, 40 * GIB).await.unwrap();
    // In place of what it had, so its own is free for it.
    world.give(&id, &anna, 60 * GIB).await.unwrap();
    assert!(world.give(&id, &anna, 60 * GIB + 1).await.is_err());
    world.give(&id, &anna, 10 * GIB).await.unwrap();
    let (list, figures) = world.control.allocations(&world.scope, &id).await.unwrap();
    assert_eq!(
        list.iter().map(|one| (one.user_name.as_str(), one.bytes)).collect::<Vec<_>>(),
        [("anna", 10 * GIB), ("bert", 40 * GIB)]
    );
    assert_eq!((figures.allocated, figures.free()), (50 * GIB, 50 * GIB));

    assert!(matches!(world.give(&id, &stranger, GIB).await, Err(ControlError::NotFound { what: "user", .. })));
    assert!(matches!(world.give(&id, &anna, 0).await, Err(ControlError::Invalid { what: "bytes", .. })));
    let shrink = |quantity| LicenceChange { quantity: Some(quantity), ..LicenceChange::default() };
    let change = async |change: LicenceChange| {
        world.control.change_licence(&world.scope, &actor(), &id, "licence.manage", &change, NOW).await
    };
    let refused = change(shrink(49)).await.unwrap_err();
    assert!(refused.to_string().contains("the least is 50 gib"), "{refused}");
    change(shrink(50)).await.unwrap();
    world.control.remove_allocation(&world.scope, &actor(), &id, &bert, NOW).await.unwrap();
    let again = world.control.remove_allocation(&world.scope, &actor(), &id, &bert, NOW).await;
    assert!(matches!(again, Err(ControlError::NotFound { .. })), "{again:?}");
    change(shrink(10)).await.unwrap();
}

async fn many_at_once_get_no_more_than_there_is(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let id = world.active(acme, 100).await;
    let trial = world.order(&world.new_service(acme, Licence::Trial, 100), NOW).await.unwrap().id;
    let mut users = Vec::new();
    for number in 0..24 {
        users.push(world.user("acme", &format!("user {number:02}")).await.0);
    }
    let mut tasks = Vec::new();
    for (service, bytes) in [(id, 9 * GIB), (trial, GIB)] {
        for user in &users {
            let (control, scope, user) = (world.control.clone(), world.scope.clone(), *user);
            tasks.push(tokio::spawn(async move {
                let share = Share { bytes, computers: None };
                let new = NewAllocation { service: &service, user: &user, share: &share, vault: None };
                control.set_allocation(&scope, &actor(), &new, NOW).await.map(|_| service)
            }));
        }
    }
    let (mut given, mut tried) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(service) if service == id => given += 1,
            Ok(_) => tried += 1,
            Err(ControlError::AllocationExceedsFree(_) | ControlError::LicenceExceeded(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((given, tried), (11, 5));
    let (list, figures) = world.control.allocations(&world.scope, &id).await.unwrap();
    assert_eq!((list.len(), figures.free()), (11, GIB));
    world.control.verify_audit_log().await.unwrap();
}

async fn a_trial_protects_five_users_once(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let trial = world.order(&world.new_service(acme, Licence::Trial, 100), NOW).await.unwrap();
    assert_eq!((trial.state, trial.expires_on.as_str()), (ServiceState::Trial, "2026-12-21"));
    for number in 0..5 {
        let (user, _) = world.user("acme", &format!("user {number}")).await;
        world.give(&trial.id, &user, GIB).await.unwrap();
        world.give(&trial.id, &user, 2 * GIB).await.unwrap();
    }
    let (sixth, _) = world.user("acme", "sixth").await;
    let refused = world.give(&trial.id, &sixth, GIB).await.unwrap_err();
    assert!(matches!(refused, ControlError::LicenceExceeded(_)), "{refused:?}");
    assert!(refused.to_string().contains("at most 5 users"), "{refused}");
    let again = world.order(&world.new_service(acme, Licence::Trial, 100), NOW).await.unwrap_err();
    assert!(again.to_string().contains("once") && again.to_string().contains(&trial.id.to_string()), "{again}");
    world.control.buy_service(&world.scope, &actor(), &trial.id, 100, NOW).await.unwrap();
    world.give(&trial.id, &sixth, GIB).await.unwrap();
    let less = world.control.buy_service(&world.scope, &actor(), &trial.id, 100, NOW).await;
    assert!(matches!(less, Err(ControlError::WrongState { .. })), "{less:?}");
}

async fn products_sold_by_users_and_computers_are_counted_so(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let product = async |name: &str, unit: Unit| {
        let terms = ProductTerms {
            name: name.into(),
            unit,
            price_minor: 100,
            currency: "PLN".into(),
            trial_users: 1,
            trial_days: 1,
            term_months: 1,
            overage_percent: 0,
            kept_days: 0,
            exports: ExportTerms::default(),
            features: vec![],
        };
        world.control.create_product(&actor(), &terms, NOW).await.unwrap().id
    };
    let (seats, machines) = (product("seats", Unit::User).await, product("machines", Unit::Computer).await);
    let order = async |product: ProductId, quantity: i64| {
        let new = NewService { product, ..world.new_service(acme, Licence::Paid, quantity) };
        world.order(&new, NOW).await.unwrap()
    };
    let (seats, machines) = (order(seats, 2).await, order(machines, 3).await);
    assert_eq!(seats.expires_on, "2026-12-21");
    let mut users = Vec::new();
    for name in ["anna", "bert", "cora"] {
        users.push(world.user("acme", name).await.0);
    }
    let give = async |service: &ServiceId, user: &UserId, bytes: i64, computers: Option<i64>| {
        let share = Share { bytes, computers };
        let new = NewAllocation { service, user, share: &share, vault: None };
        world.control.set_allocation(&world.scope, &actor(), &new, NOW).await
    };
    give(&seats.id, &users[0], 0, None).await.unwrap();
    assert!(matches!(give(&seats.id, &users[0], 5, None).await, Err(ControlError::Invalid { what: "bytes", .. })));
    give(&seats.id, &users[1], 0, Some(4)).await.unwrap();
    let third = give(&seats.id, &users[2], 0, None).await;
    assert!(matches!(third, Err(ControlError::AllocationExceedsFree(_))), "{third:?}");
    assert!(matches!(give(&machines.id, &users[2], 0, None).await, Err(ControlError::Invalid { .. })));
    give(&machines.id, &users[2], 0, Some(2)).await.unwrap();
    let fourth = give(&machines.id, &users[1], 0, Some(2)).await;
    assert!(matches!(fourth, Err(ControlError::AllocationExceedsFree(_))), "{fourth:?}");
    give(&machines.id, &users[1], 0, Some(1)).await.unwrap();
    assert_eq!(world.control.computers_allowed(&users[0]).await.unwrap(), None);
    assert_eq!(world.control.computers_allowed(&users[1]).await.unwrap(), Some(5));
    assert_eq!(world.control.computers_allowed(&users[2]).await.unwrap(), Some(2));
    // And so many can be enrolled.
    let enrol = async |name: &str| {
        let made = world.control.create_enrolment(&world.scope, &actor(), &users[2], None, NOW + 1, NOW).await.unwrap();
        world.control.enrol(&made.secret.digest(), name, None, SystemWords::default(), "agent", NOW).await
    };
    let (first, _) = enrol("first").await.unwrap();
    enrol("second").await.unwrap();
    let third = enrol("third").await;
    assert!(matches!(&third, Err(ControlError::WrongState { state, .. }) if state.contains("gives 2")), "{third:?}");
    world.control.retire_computer(&world.scope, &actor(), &first.id, NOW).await.unwrap();
    enrol("third").await.unwrap();
    // Not sold by space: no quota of space.
    for (scope, limits) in world.control.licence_quotas(&acme, None).await.unwrap() {
        assert_eq!(limits.physical_hard, None, "{scope}");
    }
}

async fn quotas_follow_what_was_bought_and_given(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let terms = ProductTerms {
        name: "elastic".into(),
        unit: Unit::Gib,
        price_minor: 0,
        currency: "EUR".into(),
        trial_users: 5,
        trial_days: 30,
        term_months: 12,
        overage_percent: 10,
        kept_days: 60,
        exports: ExportTerms::default(),
        features: vec![],
    };
    let elastic = world.control.create_product(&actor(), &terms, NOW).await.unwrap().id;
    let (anna, _) = world.user("acme", "anna").await;
    let limits = async |who: &str| {
        let all = world.control.licence_quotas(&acme, None).await.unwrap();
        let found = all.into_iter().find(|(scope, _)| scope.to_string() == who).unwrap().1;
        (found.physical_soft, found.physical_hard)
    };
    assert_eq!(limits("customer:acme").await, (None, None));
    let gib = |bytes: i64| Some(u64::try_from(bytes * GIB).unwrap());
    let first = world.active(acme, 100).await;
    assert_eq!(limits("customer:acme").await, (None, gib(100)));
    let new = NewService { product: elastic, ..world.new_service(acme, Licence::Paid, 50) };
    let second = world.order(&new, NOW).await.unwrap().id;
    assert_eq!(limits("customer:acme").await, (gib(150), gib(155)));
    assert_eq!(limits("user:acme/anna").await, (None, None));
    world.give(&first, &anna, 20 * GIB).await.unwrap();
    assert_eq!(limits("user:acme/anna").await, (None, gib(20)));
    world.give(&second, &anna, 10 * GIB).await.unwrap();
    assert_eq!(limits("user:acme/anna").await, (gib(30), gib(31)));
    // A bound that somebody set beside them stays.
    let scope: QuotaScope = "user:acme/anna".parse().unwrap();
    let set = control::QuotaLimits { logical_hard: Some(7), ..control::QuotaLimits::default() };
    world.control.set_quota(&scope, set, NOW).await.unwrap();
    world.give(&second, &anna, 20 * GIB).await.unwrap();
    let all = world.control.licence_quotas(&acme, Some(&anna)).await.unwrap();
    assert_eq!(all[1].1.logical_hard, Some(7));
    assert_eq!(limits("user:acme/anna").await, (gib(40), gib(42)));
    // What was never paid does not count; nothing is unlimited because of it.
    world.control.cancel_service(&world.scope, &actor(), &second, NOW).await.unwrap();
    assert_eq!(limits("user:acme/anna").await, (None, gib(20)));
    assert_eq!(limits("customer:acme").await, (None, gib(100)));
    world.control.remove_allocation(&world.scope, &actor(), &first, &anna, NOW).await.unwrap();
    assert_eq!(limits("user:acme/anna").await, (None, Some(0)));
}

async fn vaults_are_as_open_as_their_services(control: Control) {
    let world = World::new(control).await;
    let (_, free) = world.user("default", "anna").await;
    assert_eq!(world.control.vault_gate(&free).await.unwrap(), Gate::Open);
    assert_eq!(world.control.vault_gate(&VaultId::from_bytes([9; 16])).await.unwrap(), Gate::Open);
    let acme = world.customer("acme").await;
    let (bert, vault) = world.user("acme", "bert").await;
    let gate = async || world.control.vault_gate(&vault).await.unwrap();
    assert_eq!(gate().await, Gate::Open);
    let id = world.order(&world.new_service(acme, Licence::Paid, 10), NOW).await.unwrap().id;
    assert_eq!(gate().await, Gate::NothingGiven);
    world.give(&id, &bert, GIB).await.unwrap();
    let (control, scope, actor) = (&world.control, &world.scope, &actor());
    let check = async |state: ServiceState, backups: bool, restores: bool| {
        let gate = gate().await;
        assert_eq!(gate, Gate::Service(state));
        assert_eq!((gate.takes_backups(), gate.allows_restores()), (backups, restores), "{gate:?}");
    };
    check(ServiceState::Ordered, false, false).await;
    control.pay_service(scope, actor, &id, NOW).await.unwrap();
    check(ServiceState::Active, true, true).await;
    control.restrict_service(scope, actor, &id, NOW).await.unwrap();
    check(ServiceState::Restricted, false, true).await;
    control.suspend_service(scope, actor, &id, NOW).await.unwrap();
    check(ServiceState::Suspended, false, false).await;
    // The best of several counts.
    let trial = world.order(&world.new_service(acme, Licence::Trial, 10), NOW).await.unwrap();
    world.give(&trial.id, &bert, GIB).await.unwrap();
    check(ServiceState::Trial, true, true).await;
    control.advance_services(scope, actor, false, trial.expires_ns).await.unwrap();
    check(ServiceState::Expired, false, true).await;
}

async fn there_is_one_contact_of_each_kind(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let (control, scope) = (&world.control, &world.scope);
    let early = world.active(acme, 1).await;
    assert_eq!(control.service_contacts(scope, &early).await.unwrap(), []);
    let (anna, _) = world.user("acme", "anna").await;
    let (bert, _) = world.user("acme", "bert").await;
    let (stranger, _) = world.user("other", "stranger").await;
    // The first administrator takes what nobody has.
    let roles = [MemberRole::Admin, MemberRole::User];
    control.set_roles(scope, &actor(), &acme, &anna, &roles, NOW).await.unwrap();
    let of = async |id: &ServiceId| {
        let contacts = control.service_contacts(scope, id).await.unwrap();
        contacts.into_iter().map(|contact| (contact.kind, contact.user)).collect::<Vec<_>>()
    };
    let all =
        |user: UserId| vec![(ContactKind::Admin, user), (ContactKind::Billing, user), (ContactKind::Technical, user)];
    assert_eq!(of(&early).await, all(anna));
    control.set_roles(scope, &actor(), &acme, &bert, &roles, NOW + 1).await.unwrap();
    assert_eq!(of(&early).await, all(anna));
    // Whoever orders is all three; an order from above is the customer's.
    let new = world.new_service(acme, Licence::Paid, 1);
    let by_bert = control.order_service(scope, &actor(), &new, Some(&bert), NOW).await.unwrap().id;
    assert_eq!(of(&by_bert).await, all(bert));
    let from_above = control.order_service(scope, &actor(), &new, Some(&stranger), NOW).await.unwrap().id;
    assert_eq!(of(&from_above).await, all(anna));
    control.set_service_contact(scope, &actor(), &early, ContactKind::Technical, &bert, NOW).await.unwrap();
    let mut expected = all(anna);
    expected[2].1 = bert;
    assert_eq!(of(&early).await, expected);
    let foreign = control.set_service_contact(scope, &actor(), &early, ContactKind::Admin, &stranger, NOW).await;
    assert!(matches!(foreign, Err(ControlError::NotFound { what: "user", .. })), "{foreign:?}");
    control.verify_audit_log().await.unwrap();
}

async fn what_is_known_of_a_tenant_can_be_changed(control: Control) {
    let world = World::new(control).await;
    let acme = world.customer("acme").await;
    let data = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>())
    };
    let edit =
        async |change: TenantChange| world.control.edit_tenant(&world.scope, &actor(), &acme, &change, NOW).await;
    let change = TenantChange {
        title: Some("Acme GmbH".into()),
        locale: Some("de".into()),
        legal_data: data(&[("name", "Acme GmbH"), ("country", "DE")]),
        contact_data: data(&[("phone", "+49 30 1")]),
        ..TenantChange::default()
    };
    let edited = edit(change).await.unwrap();
    assert_eq!((edited.title.as_str(), edited.locale.as_str(), edited.time_zone.as_str()), ("Acme GmbH", "de", "UTC"));
    assert_eq!(edited.legal_data, r#"{"country":"DE","name":"Acme GmbH"}"#);
    for wrong in [
        TenantChange { title: Some(" ".into()), ..TenantChange::default() },
        TenantChange { locale: Some("xx".into()), ..TenantChange::default() },
        TenantChange { time_zone: Some("Mars/Olympus".into()), ..TenantChange::default() },
        TenantChange { legal_data: data(&[("shoe_size", "44")]), ..TenantChange::default() },
        TenantChange { contact_data: data(&[("country", "Germany")]), ..TenantChange::default() },
    ] {
        assert!(matches!(edit(wrong.clone()).await, Err(ControlError::Invalid { .. })), "{wrong:?}");
    }
    assert_eq!(edit(TenantChange::default()).await.unwrap(), edited);
    let entries = world.control.audit_entries(&world.scope, None, 2).await.unwrap();
    assert_eq!(entries[0].verb, "tenant.edit");
    assert!(entries[1].after.as_ref().unwrap().contains("Acme GmbH"));
    let switched = world.control.switch_support_access(&world.scope, &actor(), &acme, 77, NOW).await.unwrap();
    assert_eq!(switched.support_access_until_ns, 77);
    world.control.verify_audit_log().await.unwrap();
}

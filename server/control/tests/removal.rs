//! How users and tenants go and come back, and what stays as proof, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Control, ControlError, ExportPlace, GRACE_DAYS, Gate, Licence, MemberRole, NewAllocation, NewService,
    NewTenant, Rights, Scope, ScopePart, ServiceState, Share, TenantId, TenantKind, TenantState, TenantStep,
    TokenScope, UserId, UserName, UserStep,
};
use repo_format::id::VaultId;

on_each_engine! {
    a_user_goes_in_two_steps_and_comes_back_before_the_last,
    a_tenant_goes_with_everything_but_the_proof,
    what_a_terminated_service_stored_is_due,
    contacts_are_handed_on,
    an_export_holds_a_tenant_and_nothing_of_others,
}

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
const NOW: i64 = 1_795_269_600_000_000_000;

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn everything(control: &Control) -> Scope {
    Scope::new(&control.take_authority().unwrap(), vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

async fn tenant(control: &Control, scope: &Scope, parent: TenantId, kind: TenantKind, name: &str) -> TenantId {
    let new = NewTenant { parent, kind, name: Some(name), title: name };
    control.create_tenant(scope, &actor(), &new, NOW).await.unwrap().id
}

async fn user(control: &Control, customer: &str, name: &str, number: u8) -> (UserId, VaultId) {
    let vault = VaultId::from_bytes([number; 16]);
    control.create_user(&UserName::new(customer, name).unwrap(), vault, NOW).await.unwrap();
    (control.locate_vault(&vault).await.unwrap().unwrap().user.unwrap(), vault)
}

async fn a_user_goes_in_two_steps_and_comes_back_before_the_last(control: Control) {
    let scope = everything(&control);
    let acme = tenant(&control, &scope, TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, vault) = user(&control, "acme", "anna", 1).await;
    let (bert, _) = user(&control, "acme", "bert", 2).await;
    let step = async |step: UserStep, now_ns: i64| control.step_user(&actor(), &anna, step, now_ns).await;
    for early in [UserStep::Delete, UserStep::Enable, UserStep::Undelete] {
        assert!(matches!(step(early, NOW).await, Err(ControlError::WrongState { .. })), "{early:?}");
    }
    control.set_roles(&scope, &actor(), &acme, &anna, &[MemberRole::Admin, MemberRole::User], NOW).await.unwrap();
    assert!(matches!(step(UserStep::Disable, NOW).await, Err(ControlError::MustStay(_))), "the last administrator");
    control.set_roles(&scope, &actor(), &acme, &bert, &[MemberRole::Admin], NOW).await.unwrap();
    let oneself = Actor { id: anna.to_string(), ..actor() };
    let own = control.step_user(&oneself, &anna, UserStep::Disable, NOW).await;
    assert!(matches!(own, Err(ControlError::MustStay(_))), "{own:?}");
    assert_eq!(step(UserStep::Disable, NOW).await.unwrap(), "disabled");
    assert_eq!(control.vault_gate(&vault).await.unwrap(), Gate::UserDisabled);
    assert!(control.holdings(&anna).await.unwrap().is_empty());
    assert_eq!(step(UserStep::Enable, NOW).await.unwrap(), "active");
    assert_eq!(control.vault_gate(&vault).await.unwrap(), Gate::Open);
    step(UserStep::Disable, NOW).await.unwrap();
    assert_eq!(step(UserStep::Delete, NOW).await.unwrap(), "deleted");
    let over = NOW + GRACE_DAYS * DAY_NS;
    assert_eq!(control.users_to_destroy(over - 1).await.unwrap(), []);
    assert_eq!(step(UserStep::Undelete, over - 1).await.unwrap(), "disabled");
    assert_eq!(control.users_to_destroy(over).await.unwrap(), []);
    step(UserStep::Delete, NOW).await.unwrap();
    assert_eq!(control.users_to_destroy(over).await.unwrap(), [anna]);

    let doomed = control.vaults_of_user(&anna).await.unwrap();
    assert_eq!((doomed.len(), doomed[0].vault, doomed[0].tenant), (1, vault, acme));
    let held = control.erase_user(&actor(), &anna, over).await;
    assert!(matches!(held, Err(ControlError::MustStay(_))), "{held:?}");
    for _ in 0..2 {
        control.begin_receipt(&actor(), &doomed[0], "user deleted", over).await.unwrap();
    }
    assert_eq!(control.open_receipts().await.unwrap().len(), 1);
    control.delete_vault(&vault).await.unwrap();
    control.finish_receipt(&actor(), &vault, Some((3, 4096, 7)), over + 1).await.unwrap();
    control.finish_receipt(&actor(), &vault, None, over + 2).await.unwrap();
    control.erase_user(&actor(), &anna, over + 3).await.unwrap();
    control.erase_user(&actor(), &anna, over + 4).await.unwrap();
    assert!(matches!(control.member(&acme, &anna).await, Err(ControlError::NotFound { .. })));
    let receipts = control.removal_receipts(&scope).await.unwrap();
    assert_eq!((receipts.len(), receipts[0].user, receipts[0].finished_ns), (1, anna, Some(over + 1)));
    assert_eq!(
        (receipts[0].packs, receipts[0].pack_bytes, receipts[0].keyring_generation),
        (Some(3), Some(4096), Some(7))
    );
    let verbs: Vec<String> =
        control.audit_entries(&scope, None, 3).await.unwrap().into_iter().map(|entry| entry.verb).collect();
    assert_eq!(verbs, ["user.erased", "vault.destroyed", "vault.destroy"]);
    control.verify_audit_log().await.unwrap();
}

async fn a_tenant_goes_with_everything_but_the_proof(control: Control) {
    let scope = everything(&control);
    let north = tenant(&control, &scope, TenantId::PLATFORM, TenantKind::Partner, "north").await;
    let acme = tenant(&control, &scope, north, TenantKind::Customer, "acme").await;
    let (anna, vault) = user(&control, "acme", "anna", 1).await;
    let step = async |id: &TenantId, step: TenantStep, now_ns: i64| {
        control.step_tenant(&scope, &actor(), id, step, now_ns).await
    };
    assert!(matches!(step(&TenantId::PLATFORM, TenantStep::Disconnect, NOW).await, Err(ControlError::MustStay(_))));
    assert!(matches!(step(&acme, TenantStep::Delete, NOW).await, Err(ControlError::WrongState { .. })));
    assert!(matches!(step(&acme, TenantStep::Connect, NOW).await, Err(ControlError::WrongState { .. })));
    let gone = step(&acme, TenantStep::Disconnect, NOW).await.unwrap();
    assert_eq!((gone.state, gone.delete_after_ns), (TenantState::Disconnected, None));
    assert_eq!(control.vault_gate(&vault).await.unwrap(), Gate::TenantDisconnected);
    // Disconnected alone, it stays for good.
    assert_eq!(control.tenants_to_destroy(&actor(), NOW + 10_000 * DAY_NS).await.unwrap(), []);
    step(&north, TenantStep::Disconnect, NOW).await.unwrap();
    let with_customers = step(&north, TenantStep::Delete, NOW).await;
    assert!(matches!(with_customers, Err(ControlError::MustStay(_))), "{with_customers:?}");
    let over = NOW + GRACE_DAYS * DAY_NS;
    assert_eq!(step(&acme, TenantStep::Delete, NOW).await.unwrap().delete_after_ns, Some(over));
    assert_eq!(step(&acme, TenantStep::Connect, NOW).await.unwrap().delete_after_ns, None);
    step(&acme, TenantStep::Disconnect, NOW).await.unwrap();
    step(&acme, TenantStep::Delete, NOW).await.unwrap();
    assert_eq!(control.tenants_to_destroy(&actor(), over - 1).await.unwrap(), []);
    assert_eq!(control.tenants_to_destroy(&actor(), over).await.unwrap(), [acme]);
    let back = step(&acme, TenantStep::Connect, over).await;
    assert!(matches!(back, Err(ControlError::WrongState { .. })), "{back:?}");
    assert_eq!(control.users_of_tenant(&acme).await.unwrap(), [anna]);
    assert!(matches!(control.erase_tenant(&actor(), &acme, over).await, Err(ControlError::MustStay(_))));
    let doomed = control.vaults_of_user(&anna).await.unwrap();
    control.begin_receipt(&actor(), &doomed[0], "customer deleted", over).await.unwrap();
    control.delete_vault(&vault).await.unwrap();
    control.finish_receipt(&actor(), &vault, None, over).await.unwrap();
    control.erase_user(&actor(), &anna, over).await.unwrap();
    // Interrupted anywhere, the next run finds it again.
    assert_eq!(control.tenants_to_destroy(&actor(), over).await.unwrap(), [acme]);
    control.erase_tenant(&actor(), &acme, over).await.unwrap();
    control.erase_tenant(&actor(), &acme, over).await.unwrap();
    assert_eq!(control.tenants_to_destroy(&actor(), over).await.unwrap(), []);
    assert!(matches!(control.tenant(&scope, &acme).await, Err(ControlError::NotFound { .. })));
    assert_eq!(control.removal_receipts(&scope).await.unwrap()[0].cause, "customer deleted");
    step(&north, TenantStep::Delete, over).await.unwrap();
    control.verify_audit_log().await.unwrap();
}

async fn what_a_terminated_service_stored_is_due(control: Control) {
    let scope = everything(&control);
    let acme = tenant(&control, &scope, TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, vault) = user(&control, "acme", "anna", 1).await;
    let (bert, _) = user(&control, "acme", "bert", 2).await;
    let product = control.products().await.unwrap()[0].id;
    let order = async || {
        let new = NewService {
            tenant: acme,
            product,
            licence: Licence::Paid,
            quantity: 10,
            expires_on: None,
            auto_renew: false,
        };
        let id = control.order_service(&scope, &actor(), &new, None, NOW).await.unwrap().id;
        control.pay_service(&scope, &actor(), &id, NOW).await.unwrap();
        id
    };
    let (first, second) = (order().await, order().await);
    let share = Share { bytes: 1 << 30, computers: None };
    for (service, user) in [(&first, &anna), (&first, &bert), (&second, &bert)] {
        let new = NewAllocation { service, user, share: &share, vault: None };
        control.set_allocation(&scope, &actor(), &new, NOW).await.unwrap();
    }
    control.restrict_service(&scope, &actor(), &first, NOW).await.unwrap();
    control.suspend_service(&scope, &actor(), &first, NOW).await.unwrap();
    assert_eq!(control.vaults_of_terminated_services().await.unwrap(), []);
    let ended = control.terminate_service(&scope, &actor(), &first, NOW).await.unwrap();
    assert_eq!(ended.state, ServiceState::Terminated);
    let due = control.vaults_of_terminated_services().await.unwrap();
    assert_eq!(due.iter().map(|doomed| doomed.vault).collect::<Vec<_>>(), [vault], "the other one is paid for");
    control.delete_vault(&vault).await.unwrap();
    assert_eq!(control.vaults_of_terminated_services().await.unwrap(), []);
    assert_eq!(control.users_without_vault().await.unwrap(), []);
    let new = NewAllocation { service: &second, user: &anna, share: &share, vault: None };
    control.set_allocation(&scope, &actor(), &new, NOW).await.unwrap();
    assert_eq!(control.users_without_vault().await.unwrap(), [anna]);
    assert!(control.enter_first_vault(&anna, &VaultId::from_bytes([9; 16]), NOW).await.unwrap());
    assert!(!control.enter_first_vault(&anna, &VaultId::from_bytes([8; 16]), NOW).await.unwrap());
    assert_eq!(control.users_without_vault().await.unwrap(), []);
}

async fn contacts_are_handed_on(control: Control) {
    let scope = everything(&control);
    let acme = tenant(&control, &scope, TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, vault) = user(&control, "acme", "anna", 1).await;
    let (bert, _) = user(&control, "acme", "bert", 2).await;
    for one in [&anna, &bert] {
        control.set_roles(&scope, &actor(), &acme, one, &[MemberRole::Admin], NOW).await.unwrap();
    }
    let product = control.products().await.unwrap()[0].id;
    let new =
        NewService { tenant: acme, product, licence: Licence::Paid, quantity: 1, expires_on: None, auto_renew: false };
    let service = control.order_service(&scope, &actor(), &new, Some(&anna), NOW).await.unwrap().id;
    control.delete_vault(&vault).await.unwrap();
    control.erase_user(&actor(), &anna, NOW).await.unwrap();
    let contacts = control.service_contacts(&scope, &service).await.unwrap();
    assert_eq!(contacts.len(), 3);
    assert!(contacts.iter().all(|contact| contact.user == bert), "{contacts:?}");
}

async fn an_export_holds_a_tenant_and_nothing_of_others(control: Control) {
    let scope = everything(&control);
    let acme = tenant(&control, &scope, TenantId::PLATFORM, TenantKind::Customer, "acme").await;
    let (anna, vault) = user(&control, "acme", "anna", 1).await;
    for number in 0..600u16 {
        let name = UserName::new("acme", &format!("user {number}")).unwrap();
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        control.create_user(&name, VaultId::from_bytes(bytes), NOW).await.unwrap();
    }
    let (_, foreign) = user(&control, "other", "stranger", 2).await;
    let rights = Rights { backup: true, ..Rights::default() };
    let token = control.create_token("t", TokenScope::Vault { vault, rights }, None, NOW).await.unwrap();
    let (mut place, mut sections) = (ExportPlace::default(), std::collections::BTreeMap::new());
    while let Some((page, next)) = control.export_page(&scope, &acme, &place).await.unwrap() {
        assert!(page.rows.len() <= 500);
        sections.entry(page.section).or_insert_with(Vec::new).extend(page.rows);
        place = next;
    }
    assert_eq!(sections["users"].len(), 601, "several pages");
    assert_eq!(sections["tenant"][0]["id"], acme.to_string());
    assert!(sections["users"].iter().any(|row| row["id"] == anna.to_string() && row["email"].is_null()));
    assert_eq!(sections["memberships"][0]["owner"], 0);
    assert_eq!(sections["vaults"].len(), 601);
    let mut ids: Vec<_> = sections["users"].iter().map(|row| row["id"].as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 601, "each once");
    let text = serde_json::to_string(&sections).unwrap();
    assert!(!text.contains(&foreign.to_string()) && !text.contains("stranger"), "of somebody else");
    assert!(!text.contains(token.secret.expose()) && !text.contains("secret_hash"), "a secret");
}

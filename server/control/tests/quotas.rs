//! Quotas in the accounts database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{Control, ControlError, QuotaLimits, QuotaScope, UserName};
use repo_format::id::VaultId;

on_each_engine! {
    what_does_not_exist_has_no_quota,
    a_vault_counts_under_its_user_customer_and_partner,
}

async fn fresh() -> (tempfile::TempDir, Control) {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    (folder, control)
}

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 16])
}

fn scope(text: &str) -> QuotaScope {
    text.parse().unwrap()
}

fn physical(hard: u64) -> QuotaLimits {
    QuotaLimits { physical_hard: Some(hard), ..QuotaLimits::default() }
}

#[test]
fn scopes_are_told_and_read_alike() {
    let id = vault(7);
    for text in ["user:acme/anna", "customer:acme", "partner:north", &format!("vault:{id}")] {
        assert_eq!(scope(text).to_string(), text);
    }
    assert_eq!(scope("user:anna").to_string(), "user:default/anna");
    for bad in ["", "user", "user:", "vault:xyz", "group:a", "customer:a/b", "partner: x"] {
        assert!(matches!(bad.parse::<QuotaScope>(), Err(ControlError::Invalid { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn quotas_are_set_as_a_whole_and_survive_a_restart() {
    let (folder, control) = fresh().await;
    control.create_user(&UserName::parse("acme/anna").unwrap(), vault(1), 1).await.unwrap();
    let all = QuotaLimits {
        physical_soft: Some(1),
        physical_hard: Some(2),
        logical_soft: Some(3),
        logical_hard: Some(i64::MAX as u64),
    };
    let texts =
        ["user:acme/anna".to_owned(), "customer:acme".into(), "partner:north".into(), format!("vault:{}", vault(1))];
    for text in &texts {
        control.set_quota(&scope(text), all, 5).await.unwrap();
    }
    control.set_quota(&scope("customer:acme"), physical(9), 6).await.unwrap();
    control.close().await;
    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    let quotas = control.quotas().await.unwrap();
    assert_eq!(quotas.len(), 4);
    for quota in quotas {
        let is_changed = quota.scope == scope("customer:acme");
        assert_eq!(quota.limits, if is_changed { physical(9) } else { all }, "{}", quota.scope);
        assert_eq!(quota.changed_ns, if is_changed { 6 } else { 5 });
    }
    for text in &texts {
        control.set_quota(&scope(text), QuotaLimits::default(), 7).await.unwrap();
    }
    assert!(control.quotas().await.unwrap().is_empty());
}

async fn what_does_not_exist_has_no_quota(control: Control) {
    for text in ["user:acme/anna", "customer:acme", &format!("vault:{}", vault(1))] {
        let refused = control.set_quota(&scope(text), physical(1), 1).await;
        assert!(matches!(refused, Err(ControlError::NotFound { .. })), "{text}");
    }
    control.create_customer("acme", 1).await.unwrap();
    let refused = control.set_quota(&scope("customer:acme"), physical(u64::MAX), 1).await;
    assert!(matches!(refused, Err(ControlError::Invalid { .. })));
    assert!(control.quotas().await.unwrap().is_empty());
    assert!(matches!(control.set_partner("nobody", None, 1).await, Err(ControlError::NotFound { .. })));
    assert!(matches!(control.quota_chain(&vault(1)).await, Err(ControlError::NotFound { .. })));
}

async fn a_vault_counts_under_its_user_customer_and_partner(control: Control) {
    control.create_user(&UserName::parse("acme/anna").unwrap(), vault(1), 1).await.unwrap();
    control.create_user(&UserName::parse("bert").unwrap(), vault(2), 1).await.unwrap();
    control.set_partner("acme", Some("north"), 1).await.unwrap();
    let chain = |texts: &[&str]| texts.iter().map(|text| scope(text)).collect::<Vec<_>>();
    let anna = chain(&[&format!("vault:{}", vault(1)), "user:acme/anna", "customer:acme", "partner:north"]);
    let bert = chain(&[&format!("vault:{}", vault(2)), "user:default/bert", "customer:default"]);
    assert_eq!(control.quota_chain(&vault(1)).await.unwrap(), anna);
    let mut chains = control.quota_chains().await.unwrap();
    chains.sort();
    assert_eq!(chains, [(vault(1), anna), (vault(2), bert)]);
    control.set_partner("acme", None, 1).await.unwrap();
    assert_eq!(control.quota_chain(&vault(1)).await.unwrap().len(), 3);
}

//! Retention policies, undelete days and the rights that come with them, on a real SQLite file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

use control::{
    Control, ControlError, RetentionPolicy, Rights, SeriesName, TokenScope, UNDELETE_DAYS_DEFAULT, UNDELETE_DAYS_MAX,
    UserName,
};
use repo_format::id::VaultId;

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 16])
}

async fn with_vault() -> (tempfile::TempDir, Control) {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    control.create_user(&UserName::parse("anna").unwrap(), vault(1), 0).await.unwrap();
    (folder, control)
}

fn policy(keep_daily: u32) -> RetentionPolicy {
    RetentionPolicy {
        keep_daily,
        keep_within_seconds: 3600,
        keep_tags: vec!["audit, \"quoted\"".into()],
        time_zone: "Europe/Warsaw".into(),
        ..RetentionPolicy::default()
    }
}

#[tokio::test]
async fn a_policy_is_for_a_series_or_for_all_without_one() {
    let (folder, control) = with_vault().await;
    let series = SeriesName { computer: "pc".into(), series: "/home".into() };
    assert!(control.retention_policies(&vault(1)).await.unwrap().is_empty());
    assert!(control.vaults_with_retention().await.unwrap().is_empty());
    control.set_retention_policy(&vault(1), Some(&series), Some(&policy(3)), 5).await.unwrap();
    control.set_retention_policy(&vault(1), None, Some(&policy(7)), 6).await.unwrap();
    control.set_retention_policy(&vault(1), None, Some(&policy(8)), 7).await.unwrap();
    control.close().await;

    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    let stored = control.retention_policies(&vault(1)).await.unwrap();
    assert_eq!(stored.iter().map(|stored| &stored.policy).collect::<Vec<_>>(), [&policy(8), &policy(3)]);
    assert_eq!(stored.iter().map(|stored| stored.changed_ns).collect::<Vec<_>>(), [7, 5]);
    assert_eq!((&stored[0].series, &stored[1].series), (&None, &Some(series.clone())));
    assert_eq!(control.vaults_with_retention().await.unwrap(), [vault(1)]);

    control.set_retention_policy(&vault(1), None, None, 8).await.unwrap();
    control.set_retention_policy(&vault(1), Some(&series), None, 8).await.unwrap();
    assert!(control.vaults_with_retention().await.unwrap().is_empty());
    let missing = control.set_retention_policy(&vault(2), None, Some(&policy(1)), 9).await;
    assert!(matches!(missing, Err(ControlError::NotFound { .. })), "{missing:?}");
    let half = SeriesName { computer: "pc".into(), series: String::new() };
    let refused = control.set_retention_policy(&vault(1), Some(&half), Some(&policy(1)), 9).await;
    assert!(matches!(refused, Err(ControlError::Invalid { .. })), "{refused:?}");
}

#[tokio::test]
async fn undelete_days_have_a_default_and_bounds() {
    let (_folder, control) = with_vault().await;
    assert_eq!(control.undelete_days(&vault(1)).await.unwrap(), UNDELETE_DAYS_DEFAULT);
    for days in [0, UNDELETE_DAYS_MAX] {
        control.set_undelete_days(&vault(1), days).await.unwrap();
        assert_eq!(control.undelete_days(&vault(1)).await.unwrap(), days);
    }
    let beyond = control.set_undelete_days(&vault(1), UNDELETE_DAYS_MAX + 1).await;
    assert!(matches!(beyond, Err(ControlError::Invalid { .. })), "{beyond:?}");
    assert!(matches!(control.set_undelete_days(&vault(2), 1).await, Err(ControlError::NotFound { .. })));
    assert!(matches!(control.undelete_days(&vault(2)).await, Err(ControlError::NotFound { .. })));
}

#[tokio::test]
async fn each_right_is_kept_by_itself() {
    let (_folder, control) = with_vault().await;
    for bit in 0..5 {
        let rights = Rights { backup: bit == 0, restore: bit == 1, delete: bit == 2, purge: bit == 3, hold: bit == 4 };
        let scope = TokenScope::Vault { vault: vault(1), rights };
        let fresh = control.create_token("t", scope, None, bit).await.unwrap();
        assert_eq!(control.find_token(&fresh.secret.digest()).await.unwrap().unwrap().scope, scope);
    }
}

#[tokio::test]
async fn tokens_of_the_first_release_keep_their_rights() {
    use sqlx::migrate::{Migration, MigrationType, Migrator};
    use sqlx::{Executor, SqlSafeStr};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let text = include_str!("../migrations/0001_accounts.sql");
    let first = Migration::new(1, "accounts".into(), MigrationType::Simple, text.into_sql_str(), false);
    Migrator::with_migrations(vec![first]).run(&pool).await.unwrap();
    let vault = vault(1);
    for statement in [
        "INSERT INTO customers VALUES ('c', 'default', 0)".to_owned(),
        "INSERT INTO users VALUES ('u', 'c', 'anna', 0)".to_owned(),
        format!("INSERT INTO vaults VALUES ('{vault}', 'u', 'default', 0)"),
        "INSERT INTO tokens VALUES ('0000000000000001', 'op', 'a', TRUE, FALSE, FALSE, NULL, 1, NULL, NULL, NULL)"
            .to_owned(),
        format!("INSERT INTO tokens VALUES ('0000000000000002', 'pc', 'b', FALSE, TRUE, FALSE, '{vault}', 2, 9, 8, 7)"),
    ] {
        pool.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    pool.close().await;

    let control = Control::open(&path).await.unwrap();
    let tokens = control.tokens().await.unwrap();
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[0].scope, TokenScope::Operator);
    let rights = Rights { backup: true, ..Rights::default() };
    assert_eq!(tokens[1].scope, TokenScope::Vault { vault, rights });
    assert_eq!((tokens[1].expires_ns, tokens[1].revoked_ns, tokens[1].used_ns), (Some(9), Some(8), Some(7)));
    assert_eq!(control.undelete_days(&vault).await.unwrap(), UNDELETE_DAYS_DEFAULT);
}

#[tokio::test]
async fn vaults_are_audited_in_turn() {
    let (_folder, control) = with_vault().await;
    control.create_user(&UserName::parse("bert").unwrap(), vault(2), 5).await.unwrap();
    assert_eq!(control.next_audit(0, &[]).await.unwrap(), None);
    assert_eq!(control.next_audit(9, &[]).await.unwrap(), Some(vault(1)));
    assert_eq!(control.next_audit(9, &[vault(1)]).await.unwrap(), Some(vault(2)));
    control.note_audit(&vault(1), 8).await.unwrap();
    assert_eq!(control.next_audit(8, &[]).await.unwrap(), Some(vault(2)));
    control.note_audit(&vault(2), 8).await.unwrap();
    assert_eq!(control.next_audit(8, &[]).await.unwrap(), None);
}

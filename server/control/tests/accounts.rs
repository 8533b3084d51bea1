//! The accounts database on a real SQLite file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{Control, ControlError, Rights, SecretKind, TokenScope, TokenSecret, TokenState, UserName};
use repo_format::id::VaultId;

on_each_engine! {
    a_taken_name_changes_nothing,
    tokens_expire_are_revoked_and_note_their_use,
    an_operator_link_answers_once,
    a_master_key_is_confirmed_once,
}

const BOTH: Rights = Rights { backup: true, restore: true, delete: false, purge: false, hold: false };
const SECOND_NS: i64 = 1_000_000_000;

async fn fresh() -> (tempfile::TempDir, Control) {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    (folder, control)
}

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 16])
}

#[tokio::test]
async fn users_and_vaults_survive_a_restart() {
    let (folder, control) = fresh().await;
    let name = UserName::parse("anna").unwrap();
    assert_eq!(name.to_string(), "default/anna");
    let user = control.create_user(&name, vault(1), 5).await.unwrap();
    let other = UserName::parse("acme/anna").unwrap();
    control.create_user(&other, vault(2), 6).await.unwrap();
    let further = control.create_vault(vault(3), "mail", &other, 7).await.unwrap();
    control.close().await;

    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    assert_eq!(control.users().await.unwrap().len(), 2);
    assert!(control.users().await.unwrap().contains(&user));
    assert_eq!(control.vaults().await.unwrap().len(), 3);
    assert_eq!(control.vault(&vault(3)).await.unwrap(), further);
    assert_eq!(
        control.customers().await.unwrap().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["acme", "default"]
    );
}

async fn a_taken_name_changes_nothing(control: Control) {
    let name = UserName::parse("acme/bert").unwrap();
    control.check_user_is_new(&name).await.unwrap();
    control.create_user(&name, vault(1), 1).await.unwrap();
    assert!(matches!(control.check_user_is_new(&name).await, Err(ControlError::Exists { .. })));
    assert!(matches!(control.create_user(&name, vault(2), 1).await, Err(ControlError::Exists { .. })));
    assert!(matches!(control.create_customer("acme", 1).await, Err(ControlError::Exists { .. })));
    assert!(matches!(control.check_vault_is_new("default", &name).await, Err(ControlError::Exists { .. })));
    assert!(matches!(control.create_vault(vault(3), "default", &name, 1).await, Err(ControlError::Exists { .. })));
    let nobody = UserName::parse("acme/nobody").unwrap();
    assert!(matches!(control.create_vault(vault(3), "x", &nobody, 1).await, Err(ControlError::NotFound { .. })));
    assert_eq!(control.vaults().await.unwrap().len(), 1);
    for bad in ["", " a", "a\nb", "a/b/c", &"x".repeat(200)] {
        assert!(matches!(UserName::parse(bad), Err(ControlError::Invalid { .. })), "{bad:?}");
    }
}

async fn tokens_expire_are_revoked_and_note_their_use(control: Control) {
    let owner = UserName::parse("carla").unwrap();
    control.create_user(&owner, vault(1), 0).await.unwrap();
    let scope = TokenScope::Vault { vault: vault(1), rights: BOTH };
    let fresh = control.create_token("laptop", scope, Some(100 * SECOND_NS), 0).await.unwrap();
    let found = control.find_token(&fresh.secret.digest()).await.unwrap().unwrap();
    assert_eq!(found, fresh.token);
    assert_eq!(found.state(99 * SECOND_NS), TokenState::Valid);
    assert_eq!(found.state(100 * SECOND_NS), TokenState::Expired);

    control.note_use(&found, 61 * SECOND_NS).await.unwrap();
    control.note_use(&found, 30 * SECOND_NS).await.unwrap();
    let found = control.find_token(&fresh.secret.digest()).await.unwrap().unwrap();
    assert_eq!(found.used_ns, Some(60 * SECOND_NS));

    control.revoke_token(found.id, 70 * SECOND_NS).await.unwrap();
    let again = control.revoke_token(found.id, 90 * SECOND_NS).await.unwrap();
    assert_eq!(again.revoked_ns, Some(70 * SECOND_NS));
    assert_eq!(control.tokens().await.unwrap()[0].state(71 * SECOND_NS), TokenState::Revoked);

    let unknown = TokenSecret::generate(SecretKind::Token).unwrap();
    assert!(control.find_token(&unknown.digest()).await.unwrap().is_none());
    let missing = "0123456789abcdef".parse().unwrap();
    assert!(matches!(control.revoke_token(missing, 1).await, Err(ControlError::NotFound { .. })));
    let foreign = TokenScope::Vault { vault: vault(9), rights: BOTH };
    assert!(matches!(control.create_token("x", foreign, None, 0).await, Err(ControlError::NotFound { .. })));
    let useless = TokenScope::Vault { vault: vault(1), rights: Rights::default() };
    assert!(matches!(control.create_token("x", useless, None, 0).await, Err(ControlError::Invalid { .. })));
}

async fn an_operator_link_answers_once(control: Control) {
    let stale = control.create_operator_link(1).await.unwrap();
    let link = control.create_operator_link(2).await.unwrap();
    assert!(matches!(control.use_operator_link(&stale, 3).await, Err(ControlError::NotFound { .. })));
    let (one, two) = tokio::join!(control.use_operator_link(&link, 3), control.use_operator_link(&link, 3));
    let fresh = match (one, two) {
        (Ok(fresh), Err(ControlError::NotFound { .. })) | (Err(ControlError::NotFound { .. }), Ok(fresh)) => fresh,
        other => panic!("exactly one of two uses must win: {other:?}"),
    };
    assert_eq!(fresh.token.scope, TokenScope::Operator);
    assert_eq!(control.tokens().await.unwrap().len(), 1);
}

async fn a_master_key_is_confirmed_once(control: Control) {
    assert!(control.note_master_key("aa", 1).await.unwrap());
    assert!(!control.note_master_key("aa", 2).await.unwrap());
    assert_eq!(control.master_key_confirmed_ns("aa").await.unwrap(), None);
    control.confirm_master_key("aa", 3).await.unwrap();
    control.confirm_master_key("aa", 4).await.unwrap();
    assert_eq!(control.master_key_confirmed_ns("aa").await.unwrap(), Some(3));
    assert!(matches!(control.confirm_master_key("bb", 4).await, Err(ControlError::NotFound { .. })));
}

#[tokio::test]
async fn secrets_do_not_reach_the_database_files() {
    let (folder, control) = fresh().await;
    let fresh = control.create_token("operator", TokenScope::Operator, None, 0).await.unwrap();
    control.close().await;
    let mut seen = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let secret = fresh.secret.expose().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        seen += bytes.len();
    }
    assert!(seen > 0);
}

//! A deleted vault leaves nothing in the files of the accounts, whatever table knew of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test is its failure")]

use control::{Control, ControlError, Rights, TokenScope, UserName};
use repo_format::id::VaultId;
use sqlx::Connection;
use std::path::Path;

const GONE: VaultId = VaultId::from_bytes([0xd7; 16]);
const KEPT: VaultId = VaultId::from_bytes([0x11; 16]);

/// Which files of the database hold the id, raw or as text.
fn traces(folder: &Path, id: &VaultId) -> Vec<String> {
    let needles = [id.as_bytes().to_vec(), id.to_string().into_bytes(), id.to_string().to_uppercase().into_bytes()];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle)) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_deleted_vault_is_in_no_file_of_the_accounts() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("accounts.sqlite")).await.unwrap();
    let user = UserName::parse("anna").unwrap();
    control.create_user(&user, KEPT, 1).await.unwrap();
    control.create_vault(GONE, "archive", &user, 2).await.unwrap();
    let rights = Rights { backup: true, restore: true, ..Rights::default() };
    let mut secrets = Vec::new();
    for number in 0..200 {
        for vault in [GONE, KEPT] {
            let scope = TokenScope::Vault { vault, rights };
            secrets.push((vault, control.create_token(&format!("{number}"), scope, None, 3).await.unwrap().secret));
        }
    }
    assert!(!traces(folder.path(), &GONE).is_empty());
    let removed = control.delete_vault(&GONE).await.unwrap();
    assert_eq!(removed.tokens.len(), 200);
    assert_eq!(traces(folder.path(), &GONE), Vec::<String>::new());
    for (vault, secret) in &secrets {
        assert_eq!(control.find_token(&secret.digest()).await.unwrap().is_some(), *vault == KEPT);
        assert_eq!(removed.tokens.contains(&secret.digest()), *vault == GONE);
    }
    // Once more, as after an interruption.
    assert!(control.delete_vault(&GONE).await.unwrap().tokens.is_empty());
    assert!(matches!(control.vault(&GONE).await, Err(ControlError::NotFound { .. })));
    assert_eq!(control.vaults_of(&user).await.unwrap(), [KEPT]);

    // A user goes when its last vault is gone, and is listed until then, also without its first vault.
    assert!(matches!(control.delete_user(&user).await, Err(ControlError::Exists { .. })));
    control.delete_vault(&KEPT).await.unwrap();
    assert_eq!(control.users().await.unwrap()[0].vault, None);
    control.delete_user(&user).await.unwrap();
    assert!(matches!(control.delete_user(&user).await, Err(ControlError::NotFound { .. })));
    assert!(control.users().await.unwrap().is_empty());
    control.close().await;
}

/// Dropped between the deletion and what overwrites its traces, as a kill would: the next start sees to it.
#[tokio::test]
async fn traces_go_at_the_next_start_when_a_deletion_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.sqlite");
    let control = Control::open(&path).await.unwrap();
    let user = UserName::parse("anna").unwrap();
    control.create_user(&user, KEPT, 1).await.unwrap();
    control.create_vault(GONE, "archive", &user, 2).await.unwrap();
    assert!(!control.forget_interrupted().await.unwrap(), "nothing was deleted");
    // Somebody reads an old state, so that the log cannot be emptied.
    sqlx::any::install_default_drivers();
    let mut reader = sqlx::AnyConnection::connect(&format!("sqlite://{}?mode=ro", path.display())).await.unwrap();
    let mut old = reader.begin().await.unwrap();
    sqlx::query("SELECT id FROM vaults").fetch_all(&mut *old).await.unwrap();
    let is_gone = async {
        while control.vault(&GONE).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        removed = control.delete_vault(&GONE) => panic!("the log was emptied under a reader: {removed:?}"),
        () = is_gone => {}
    }
    assert!(!traces(folder.path(), &GONE).is_empty(), "there is nothing to forget");
    old.rollback().await.unwrap();
    reader.close().await.unwrap();
    control.close().await;

    let control = Control::open(&path).await.unwrap();
    assert!(control.forget_interrupted().await.unwrap());
    assert_eq!(traces(folder.path(), &GONE), Vec::<String>::new());
    assert!(!control.forget_interrupted().await.unwrap(), "once is enough");
    control.close().await;
}

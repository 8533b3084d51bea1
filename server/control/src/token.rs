//! Bearer tokens: issue, find, list, revoke; and the single-use operator link. Never logs a secret, and returns one
//! only at the moment it is made.

use crate::account::{check_name, random_id, vault_id};
use crate::database::flag;
use crate::error::exists;
use crate::{Control, ControlError, SecretDigest, SecretKind, TokenSecret};
use repo_format::id::VaultId;
use sqlx::Row;
use sqlx::any::AnyRow;
use std::fmt;
use std::str::FromStr;

const MINUTE_NS: i64 = 60_000_000_000;

/// Names a token in lists; not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let rule = ControlError::Invalid { what: "token id", rule: "must be 16 hexadecimal digits" };
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(TokenId).ok_or(rule)
    }
}

/// What a vault's token may do; at least one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Upload into the vault.
    pub backup: bool,
    /// Read the vault.
    pub restore: bool,
    /// Delete snapshots so that they can be brought back, and bring them back.
    pub delete: bool,
    /// Remove snapshots for good, now or by retention.
    pub purge: bool,
    /// Shorten and lift holds.
    pub hold: bool,
}

impl Rights {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Rights::default()
    }
}

/// What a token reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenScope {
    /// Administration of the whole server, and no vault's content.
    Operator,
    /// One vault.
    Vault {
        /// The vault.
        vault: VaultId,
        /// What it may do there.
        rights: Rights,
    },
}

/// A token as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Label.
    pub name: String,
    /// What it reaches.
    pub scope: TokenScope,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it stops working by itself.
    pub expires_ns: Option<i64>,
    /// When it was revoked.
    pub revoked_ns: Option<i64>,
    /// Last use, rounded down to the minute.
    pub used_ns: Option<i64>,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It works.
    Valid,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Token {
    /// Its state at `now_ns`. Revocation counts before expiry.
    pub fn state(&self, now_ns: i64) -> TokenState {
        if self.revoked_ns.is_some() {
            TokenState::Revoked
        } else if self.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            TokenState::Expired
        } else {
            TokenState::Valid
        }
    }
}

/// A token just made, with its secret.
#[derive(Clone, Debug)]
pub struct FreshToken {
    /// As it will be listed.
    pub token: Token,
    /// Shown this once.
    pub secret: TokenSecret,
}

fn token(row: &AnyRow) -> Result<Token, ControlError> {
    let id: String = row.try_get("id")?;
    let scope = if flag(row, "may_operate")? {
        TokenScope::Operator
    } else {
        let rights = Rights {
            backup: flag(row, "may_backup")?,
            restore: flag(row, "may_restore")?,
            delete: flag(row, "may_delete")?,
            purge: flag(row, "may_purge")?,
            hold: flag(row, "may_hold")?,
        };
        TokenScope::Vault { vault: vault_id(row, "vault_id")?, rights }
    };
    Ok(Token {
        id: id.parse().map_err(|_| ControlError::Corrupt { what: "token id" })?,
        name: row.try_get("name")?,
        scope,
        created_ns: row.try_get("created_ns")?,
        expires_ns: row.try_get("expires_ns")?,
        revoked_ns: row.try_get("revoked_ns")?,
        used_ns: row.try_get("used_ns")?,
    })
}

async fn insert(
    connection: &mut sqlx::AnyConnection,
    name: &str,
    scope: TokenScope,
    expires_ns: Option<i64>,
    now_ns: i64,
) -> Result<FreshToken, ControlError> {
    check_name("token name", name)?;
    let secret = TokenSecret::generate(SecretKind::Token)?;
    let (operate, vault, rights) = match scope {
        TokenScope::Operator => (true, None, Rights::default()),
        TokenScope::Vault { vault, rights } => (false, Some(vault.to_string()), rights),
    };
    if !operate && rights.is_none() {
        return Err(ControlError::Invalid {
            what: "rights",
            rule: "at least one of backup, restore, delete, purge and hold is needed",
        });
    }
    let id = TokenId(random_id()?);
    sqlx::query(
        "INSERT INTO tokens (id, name, secret_hash, may_operate, may_backup, may_restore, may_delete, \
         may_purge, may_hold, vault_id, created_ns, expires_ns) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(id.to_string())
    .bind(name)
    .bind(secret.digest().to_hexadecimal())
    .bind(i64::from(operate))
    .bind(i64::from(rights.backup))
    .bind(i64::from(rights.restore))
    .bind(i64::from(rights.delete))
    .bind(i64::from(rights.purge))
    .bind(i64::from(rights.hold))
    .bind(&vault)
    .bind(now_ns)
    .bind(expires_ns)
    .execute(connection)
    .await
    .map_err(|error| match &error {
        sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
            ControlError::not_found("vault", vault.as_deref().unwrap_or_default())
        }
        _ => exists("token", name, error),
    })?;
    let token =
        Token { id, name: name.to_owned(), scope, created_ns: now_ns, expires_ns, revoked_ns: None, used_ns: None };
    Ok(FreshToken { token, secret })
}

impl Control {
    /// Makes a token. [`ControlError::NotFound`] when its vault does not exist.
    pub async fn create_token(
        &self,
        name: &str,
        scope: TokenScope,
        expires_ns: Option<i64>,
        now_ns: i64,
    ) -> Result<FreshToken, ControlError> {
        let mut transaction = self.write().await?;
        let fresh = insert(&mut transaction, name, scope, expires_ns, now_ns).await?;
        transaction.commit().await?;
        Ok(fresh)
    }

    /// The token with this secret, whatever its state; `None` when there is none.
    pub async fn find_token(&self, secret: &SecretDigest) -> Result<Option<Token>, ControlError> {
        let row = sqlx::query("SELECT * FROM tokens WHERE secret_hash = $1")
            .bind(secret.to_hexadecimal())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(token).transpose()
    }

    /// Notes a use, to the minute; writes at most once a minute and token.
    pub async fn note_use(&self, used: &Token, now_ns: i64) -> Result<(), ControlError> {
        let minute_ns = now_ns - now_ns.rem_euclid(MINUTE_NS);
        if used.used_ns.is_some_and(|used_ns| used_ns >= minute_ns) {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE tokens SET used_ns = $1 WHERE id = $2 AND (used_ns IS NULL OR used_ns < $1)")
            .bind(minute_ns)
            .bind(used.id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All tokens, oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>, ControlError> {
        let rows = sqlx::query("SELECT * FROM tokens ORDER BY created_ns, id").fetch_all(&self.readers).await?;
        rows.iter().map(token).collect()
    }

    /// Revokes a token from now on; revoking again changes nothing. [`ControlError::NotFound`] when there is none.
    pub async fn revoke_token(&self, id: TokenId, now_ns: i64) -> Result<Token, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("UPDATE tokens SET revoked_ns = COALESCE(revoked_ns, $1) WHERE id = $2 RETURNING *")
            .bind(now_ns)
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::not_found("token", &id.to_string()))?;
        let revoked = token(&row)?;
        transaction.commit().await?;
        Ok(revoked)
    }

    /// Makes a single-use operator link and forgets all unused ones before it.
    pub async fn create_operator_link(&self, now_ns: i64) -> Result<TokenSecret, ControlError> {
        let secret = TokenSecret::generate(SecretKind::OperatorLink)?;
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM operator_links WHERE used_ns IS NULL").execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO operator_links (secret_hash, created_ns) VALUES ($1, $2)")
            .bind(secret.digest().to_hexadecimal())
            .bind(now_ns)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(secret)
    }

    /// Exchanges an operator link for an operator's token. Answers once; afterwards, and for a link that never was,
    /// [`ControlError::NotFound`].
    pub async fn use_operator_link(&self, link: &TokenSecret, now_ns: i64) -> Result<FreshToken, ControlError> {
        let mut transaction = self.write().await?;
        let used = sqlx::query("UPDATE operator_links SET used_ns = $1 WHERE secret_hash = $2 AND used_ns IS NULL")
            .bind(now_ns)
            .bind(link.digest().to_hexadecimal())
            .execute(&mut *transaction)
            .await?;
        if used.rows_affected() != 1 {
            return Err(ControlError::not_found("operator link", ""));
        }
        let fresh = insert(&mut transaction, "operator link", TokenScope::Operator, None, now_ns).await?;
        transaction.commit().await?;
        Ok(fresh)
    }
}

//! API tokens of people: some of their verbs, in one tenant's subtree. What its maker may is asked at every request, so
//! a token never does more than that.

use crate::account::check_name;
use crate::audit_log::record;
use crate::login::{own_actor, own_deed};
use crate::{
    Account, ApiTokenId, Control, ControlError, Network, SecretDigest, SecretKind, TenantId, TokenSecret, TokenState,
    UserId,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Most API tokens of one person that work.
pub const API_TOKENS_MAX: i64 = 100;
const MINUTE_NS: i64 = 60_000_000_000;

/// An API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: ApiTokenId,
    /// Whose.
    pub user: UserId,
    /// Nothing outside of this tenant's subtree.
    pub tenant: TenantId,
    /// Label.
    pub name: String,
    /// Verbs of the permission matrix.
    pub verbs: Vec<String>,
    /// From where it works; empty = from anywhere.
    pub networks: Vec<Network>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it stops working by itself.
    pub expires_ns: Option<i64>,
    /// When it was revoked.
    pub revoked_ns: Option<i64>,
    /// Last use, to the minute.
    pub used_ns: Option<i64>,
}

impl ApiToken {
    /// Its state. Revocation counts before expiry.
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

/// An API token to be made.
#[derive(Clone, Debug)]
pub struct NewApiToken<'a> {
    /// Nothing outside of this tenant's subtree.
    pub tenant: TenantId,
    /// Label.
    pub name: &'a str,
    /// Verbs that its maker holds there now.
    pub verbs: Vec<String>,
    /// From where it works; empty = from anywhere.
    pub networks: &'a [Network],
    /// When it stops working by itself.
    pub expires_ns: Option<i64>,
}

fn api_token(row: &AnyRow) -> Result<ApiToken, ControlError> {
    let verbs = serde_json::from_str(row.try_get("verbs")?);
    Ok(ApiToken {
        id: ApiTokenId::stored(row.try_get("id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        name: row.try_get("name")?,
        verbs: verbs.map_err(|_| ControlError::Corrupt { what: "verbs of a token" })?,
        networks: Network::stored_list(row.try_get("networks")?)?,
        created_ns: row.try_get("created_ns")?,
        expires_ns: row.try_get("expires_ns")?,
        revoked_ns: row.try_get("revoked_ns")?,
        used_ns: row.try_get("used_ns")?,
    })
}

/// Everything that a person's programs could do stops.
pub(crate) async fn revoke_all(connection: &mut AnyConnection, user: &UserId, now_ns: i64) -> Result<(), ControlError> {
    sqlx::query("UPDATE api_tokens SET revoked_ns = $1 WHERE user_id = $2 AND revoked_ns IS NULL")
        .bind(now_ns)
        .bind(user.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

impl Control {
    /// Makes an API token of a person. Its secret is in the answer and nowhere else.
    pub async fn create_api_token(
        &self,
        account: &Account,
        new: &NewApiToken<'_>,
        address: &str,
        now_ns: i64,
    ) -> Result<(ApiToken, TokenSecret), ControlError> {
        check_name("token name", new.name)?;
        if new.verbs.is_empty() {
            return Err(ControlError::Invalid { what: "verbs", rule: "at least one is needed" });
        }
        if new.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            return Err(ControlError::Invalid { what: "expiry", rule: "must lie in the future" });
        }
        let secret = TokenSecret::generate(SecretKind::ApiToken)?;
        let token = ApiToken {
            id: ApiTokenId::generate()?,
            user: account.user,
            tenant: new.tenant,
            name: new.name.to_owned(),
            verbs: new.verbs.clone(),
            networks: new.networks.to_vec(),
            created_ns: now_ns,
            expires_ns: new.expires_ns,
            revoked_ns: None,
            used_ns: None,
        };
        let mut transaction = self.write().await?;
        let working: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM api_tokens WHERE user_id = $1 AND revoked_ns IS NULL \
             AND (expires_ns IS NULL OR expires_ns > $2)",
        )
        .bind(token.user.to_string())
        .bind(now_ns)
        .fetch_one(&mut *transaction)
        .await?;
        if working >= API_TOKENS_MAX {
            return Err(ControlError::Invalid { what: "API tokens", rule: "must be at most 100; revoke some first" });
        }
        sqlx::query(
            "INSERT INTO api_tokens (id, secret_hash, user_id, tenant_id, name, verbs, networks, created_ns, expires_ns) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id.to_string())
        .bind(secret.digest().to_hexadecimal())
        .bind(token.user.to_string())
        .bind(token.tenant.to_string())
        .bind(&token.name)
        .bind(serde_json::json!(token.verbs).to_string())
        .bind(Network::list_to_store(&token.networks)?)
        .bind(now_ns)
        .bind(token.expires_ns)
        .execute(&mut *transaction)
        .await?;
        let mut deed = own_deed(account, "api_token.add", format!("API token {}", token.id));
        deed.after = Some(serde_json::json!({
            "name": token.name,
            "tenant": token.tenant.to_string(),
            "verbs": token.verbs,
            "expires_ns": token.expires_ns,
        }));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok((token, secret))
    }

    /// The API token with this secret, whatever its state.
    pub async fn find_api_token(&self, secret: &SecretDigest) -> Result<Option<ApiToken>, ControlError> {
        let row = sqlx::query("SELECT * FROM api_tokens WHERE secret_hash = $1")
            .bind(secret.to_hexadecimal())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(api_token).transpose()
    }

    /// Notes a use, to the minute.
    pub async fn note_api_token_use(&self, id: &ApiTokenId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE api_tokens SET used_ns = $1 WHERE id = $2 AND (used_ns IS NULL OR used_ns < $1)")
            .bind(now_ns - now_ns.rem_euclid(MINUTE_NS))
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A person's API tokens, oldest first; at most `limit` behind `after` (time and id of the last one before).
    pub async fn api_tokens(
        &self,
        user: &UserId,
        after: Option<(i64, ApiTokenId)>,
        limit: u32,
    ) -> Result<Vec<ApiToken>, ControlError> {
        let (after_ns, after_id) = after.map_or((i64::MIN, String::new()), |(ns, id)| (ns, id.to_string()));
        let rows = sqlx::query(
            "SELECT * FROM api_tokens WHERE user_id = $1 AND (created_ns > $2 OR (created_ns = $2 AND id > $3)) \
             ORDER BY created_ns, id LIMIT $4",
        )
        .bind(user.to_string())
        .bind(after_ns)
        .bind(after_id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(api_token).collect()
    }

    /// Revokes one of a person's API tokens at once; again changes nothing.
    pub async fn revoke_api_token(
        &self,
        account: &Account,
        id: &ApiTokenId,
        address: &str,
        now_ns: i64,
    ) -> Result<ApiToken, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE api_tokens SET revoked_ns = COALESCE(revoked_ns, $1) WHERE id = $2 AND user_id = $3 RETURNING *",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .bind(account.user.to_string())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| ControlError::not_found("API token", &id.to_string()))?;
        let revoked = api_token(&row)?;
        let deed = own_deed(account, "api_token.revoke", format!("API token {id}"));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(revoked)
    }
}

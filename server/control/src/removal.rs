//! How users and tenants go: first disabled or disconnected, then deleted with a time of grace in which they can come
//! back, then destroyed. Bytes are destroyed elsewhere; what is here says what is due, and keeps the proof.

use crate::account::vault_id;
use crate::audit_log::record;
use crate::contact::{Leaving, hand_contacts_on};
use crate::deletion::note_remains;
use crate::member::check_not_last_admin;
use crate::{Actor, Control, ControlError, Deed, Scope, TenantId, UserId};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// How long what was deleted can be brought back, days.
pub const GRACE_DAYS: i64 = 30;
const GRACE_NS: i64 = GRACE_DAYS * 24 * 3600 * 1_000_000_000;
/// Removals that are carried out in one go.
const REMOVALS_MAX: i64 = 50;

/// A named step of a user's way out, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStep {
    /// `active` or `invited` to `disabled`: no log-in, no backups, no restores.
    Disable,
    /// `disabled` to `active`.
    Enable,
    /// `disabled` to `deleted`: destroyed when the time of grace is over.
    Delete,
    /// `deleted` to `disabled`.
    Undelete,
}

/// A named step of a tenant's way out, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantStep {
    /// `active` to `disconnected`: no backups, no restores.
    Disconnect,
    /// `disconnected` to `active`; a deletion that was asked for is taken back.
    Connect,
    /// Stays `disconnected`; destroyed when the time of grace is over.
    Delete,
}

/// A vault that is to be destroyed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoomedVault {
    /// The vault.
    pub vault: VaultId,
    /// Whose.
    pub user: UserId,
    /// Where the user is at home.
    pub tenant: TenantId,
}

/// Proof that a vault was destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalReceipt {
    /// The vault that is gone.
    pub vault: VaultId,
    /// Whose it was.
    pub user: UserId,
    /// Of which tenant.
    pub tenant: TenantId,
    /// What it was destroyed for.
    pub cause: String,
    /// When that was decided, nanoseconds since 1970.
    pub decided_ns: i64,
    /// When nothing was left; `None` while it is under way.
    pub finished_ns: Option<i64>,
    /// Packs removed, when the run that finished it counted them.
    pub packs: Option<i64>,
    /// Their bytes.
    pub pack_bytes: Option<i64>,
    /// Generation of the key-encryption key behind it: copies of the keyring of older ones still hold the key.
    pub keyring_generation: Option<i64>,
}

fn doomed(row: &AnyRow) -> Result<DoomedVault, ControlError> {
    Ok(DoomedVault {
        vault: vault_id(row, "id")?,
        user: UserId::stored(&row.try_get::<String, _>("user_id")?)?,
        tenant: TenantId::stored(&row.try_get::<String, _>("tenant_id")?)?,
    })
}

fn receipt(row: &AnyRow) -> Result<RemovalReceipt, ControlError> {
    Ok(RemovalReceipt {
        vault: vault_id(row, "vault_id")?,
        user: UserId::stored(&row.try_get::<String, _>("user_id")?)?,
        tenant: TenantId::stored(&row.try_get::<String, _>("tenant_id")?)?,
        cause: row.try_get("cause")?,
        decided_ns: row.try_get("decided_ns")?,
        finished_ns: row.try_get("finished_ns")?,
        packs: row.try_get("packs")?,
        pack_bytes: row.try_get("pack_bytes")?,
        keyring_generation: row.try_get("keyring_generation")?,
    })
}

/// Somebody without whom a tenant would have no owner or no administrator stays.
async fn check_dispensable(connection: &mut AnyConnection, user: &UserId) -> Result<(), ControlError> {
    let rows = sqlx::query("SELECT tenant_id, owner FROM memberships WHERE user_id = $1 AND role = 'admin'")
        .bind(user.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        if crate::database::flag(row, "owner")? {
            return Err(ControlError::MustStay("this is the owner of a tenant: change the owner first"));
        }
        check_not_last_admin(&mut *connection, &TenantId::stored(&row.try_get::<String, _>("tenant_id")?)?, user)
            .await?;
    }
    Ok(())
}

impl Control {
    /// Moves a user on; gives the new state. Nobody goes by their own hand, no owner, and no last administrator.
    pub async fn step_user(
        &self,
        actor: &Actor,
        user: &UserId,
        step: UserStep,
        now_ns: i64,
    ) -> Result<String, ControlError> {
        if actor.id == user.to_string() {
            return Err(ControlError::MustStay("nobody does this to themselves: ask another administrator"));
        }
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT state, tenant_id FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::not_found("user", &user.to_string()))?;
        let (state, tenant): (String, String) = (row.try_get("state")?, row.try_get("tenant_id")?);
        let (verb, to, after_ns, needed) = match (step, state.as_str()) {
            (UserStep::Disable, "active" | "invited") => ("user.disable", "disabled", None, ""),
            (UserStep::Enable, "disabled") => ("user.disable", "active", None, ""),
            (UserStep::Delete, "disabled") => ("user.delete", "deleted", Some(now_ns.saturating_add(GRACE_NS)), ""),
            (UserStep::Undelete, "deleted") => ("user.delete", "disabled", None, ""),
            (UserStep::Disable, _) => ("", "", None, "only an active or invited one can be disabled"),
            (UserStep::Enable, _) => ("", "", None, "only a disabled one can be enabled"),
            (UserStep::Delete, _) => ("", "", None, "disable the user first, then delete it"),
            (UserStep::Undelete, _) => {
                ("", "", None, "only a deleted one can be brought back, until its data is destroyed")
            }
        };
        if to.is_empty() {
            return Err(ControlError::WrongState { what: "user", name: user.to_string(), state, needed });
        }
        if step == UserStep::Disable {
            check_dispensable(&mut transaction, user).await?;
        }
        let moved = sqlx::query(
            "UPDATE users SET state = $1, state_ns = $2, delete_after_ns = $3 WHERE id = $4 AND state = $5",
        )
        .bind(to)
        .bind(now_ns)
        .bind(after_ns)
        .bind(user.to_string())
        .bind(&state)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != 1 {
            let needed = "it has changed meanwhile";
            return Err(ControlError::WrongState { what: "user", name: user.to_string(), state, needed });
        }
        let deed = Deed {
            tenant: TenantId::stored(&tenant)?,
            user: Some(*user),
            verb,
            object: format!("user {user}"),
            before: Some(serde_json::json!({ "state": state })),
            after: Some(serde_json::json!({ "state": to, "delete_after_ns": after_ns })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(to.to_owned())
    }

    /// Moves a tenant on. The platform stays, and a partner with customers is not deleted.
    pub async fn step_tenant(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &TenantId,
        step: TenantStep,
        now_ns: i64,
    ) -> Result<crate::Tenant, ControlError> {
        let before = self.tenant(scope, id).await?;
        if *id == TenantId::PLATFORM {
            return Err(ControlError::MustStay("the platform stays"));
        }
        let mut transaction = self.write().await?;
        let state = before.state.as_str();
        let (verb, to, after_ns, needed) = match (step, before.state) {
            (TenantStep::Disconnect, crate::TenantState::Active) => ("tenant.disconnect", "disconnected", None, ""),
            (TenantStep::Connect, crate::TenantState::Disconnected) => ("tenant.disconnect", "active", None, ""),
            (TenantStep::Delete, crate::TenantState::Disconnected) => {
                ("tenant.delete", "disconnected", Some(now_ns.saturating_add(GRACE_NS)), "")
            }
            (TenantStep::Disconnect, _) => ("", "", None, "only an active one can be disconnected"),
            (TenantStep::Connect, _) => {
                ("", "", None, "only a disconnected one can be connected again, until its data is destroyed")
            }
            (TenantStep::Delete, _) => ("", "", None, "disconnect the tenant first, then delete it"),
        };
        if to.is_empty() {
            let (name, state) = (id.to_string(), state.to_owned());
            return Err(ControlError::WrongState { what: "tenant", name, state, needed });
        }
        if step == TenantStep::Delete {
            let below: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants WHERE parent_id = $1")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
            if below > 0 {
                return Err(ControlError::MustStay(
                    "it has customers: they are deleted, or go to somebody else, first",
                ));
            }
        }
        let moved = sqlx::query(
            "UPDATE tenants SET state = $1, state_ns = $2, delete_after_ns = $3 WHERE id = $4 AND state = $5",
        )
        .bind(to)
        .bind(now_ns)
        .bind(after_ns)
        .bind(id.to_string())
        .bind(state)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != 1 {
            let (name, state, needed) = (id.to_string(), state.to_owned(), "it has changed meanwhile");
            return Err(ControlError::WrongState { what: "tenant", name, state, needed });
        }
        let deed = Deed {
            tenant: *id,
            user: None,
            verb,
            object: format!("tenant {id}"),
            before: Some(serde_json::json!({ "state": state, "delete_after_ns": before.delete_after_ns })),
            after: Some(serde_json::json!({ "state": to, "delete_after_ns": after_ns })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        self.tenant(scope, id).await
    }

    /// Tenants whose time of grace is over, or whose destruction has begun: from now on they do not come back.
    pub async fn tenants_to_destroy(&self, actor: &Actor, now_ns: i64) -> Result<Vec<TenantId>, ControlError> {
        let mut transaction = self.write().await?;
        let due: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE state = 'disconnected' AND delete_after_ns <= $1 ORDER BY id LIMIT $2",
        )
        .bind(now_ns)
        .bind(REMOVALS_MAX)
        .fetch_all(&mut *transaction)
        .await?;
        for id in &due {
            sqlx::query(
                "UPDATE tenants SET state = 'deleting', state_ns = $1 WHERE id = $2 AND state = 'disconnected'",
            )
            .bind(now_ns)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
            let deed = Deed {
                tenant: TenantId::stored(id)?,
                user: None,
                verb: "tenant.delete",
                object: format!("tenant {id}"),
                before: Some(serde_json::json!({ "state": "disconnected" })),
                after: Some(serde_json::json!({ "state": "deleting" })),
            };
            record(&mut transaction, actor, deed, now_ns).await?;
        }
        let all: Vec<String> = sqlx::query_scalar("SELECT id FROM tenants WHERE state = 'deleting' ORDER BY id")
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        all.iter().map(|id| TenantId::stored(id)).collect()
    }

    /// Tenants that the next [`Control::tenants_to_destroy`] gives; nothing is changed.
    pub async fn tenants_being_destroyed(&self, now_ns: i64) -> Result<Vec<TenantId>, ControlError> {
        let due: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE state = 'deleting' OR (state = 'disconnected' AND delete_after_ns <= $1) \
             ORDER BY id",
        )
        .bind(now_ns)
        .fetch_all(&self.readers)
        .await?;
        due.iter().map(|id| TenantId::stored(id)).collect()
    }

    /// Users whose time of grace is over.
    pub async fn users_to_destroy(&self, now_ns: i64) -> Result<Vec<UserId>, ControlError> {
        let due: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM users WHERE state = 'deleted' AND delete_after_ns <= $1 ORDER BY id LIMIT $2",
        )
        .bind(now_ns)
        .bind(REMOVALS_MAX)
        .fetch_all(&self.readers)
        .await?;
        due.iter().map(|id| UserId::stored(id)).collect()
    }

    /// Users of a tenant.
    pub async fn users_of_tenant(&self, tenant: &TenantId) -> Result<Vec<UserId>, ControlError> {
        let all: Vec<String> = sqlx::query_scalar("SELECT id FROM users WHERE tenant_id = $1 ORDER BY id")
            .bind(tenant.to_string())
            .fetch_all(&self.readers)
            .await?;
        all.iter().map(|id| UserId::stored(id)).collect()
    }

    /// Vaults of a user.
    pub async fn vaults_of_user(&self, user: &UserId) -> Result<Vec<DoomedVault>, ControlError> {
        let rows = sqlx::query(
            "SELECT vaults.id AS id, users.id AS user_id, users.tenant_id AS tenant_id FROM vaults \
             JOIN users ON users.id = vaults.user_id WHERE users.id = $1 ORDER BY vaults.id",
        )
        .bind(user.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(doomed).collect()
    }

    /// Vaults of users that had a part of a service which is terminated, and have none of one that is not.
    pub async fn vaults_of_terminated_services(&self) -> Result<Vec<DoomedVault>, ControlError> {
        let rows = sqlx::query(
            "SELECT vaults.id AS id, users.id AS user_id, users.tenant_id AS tenant_id FROM vaults \
             JOIN users ON users.id = vaults.user_id \
             WHERE EXISTS (SELECT 1 FROM allocations JOIN services ON services.id = allocations.service_id \
                 WHERE allocations.user_id = users.id AND services.state = 'terminated') \
             AND NOT EXISTS (SELECT 1 FROM allocations JOIN services ON services.id = allocations.service_id \
                 WHERE allocations.user_id = users.id AND services.state NOT IN ('terminated', 'cancelled')) \
             ORDER BY vaults.id LIMIT $1",
        )
        .bind(REMOVALS_MAX)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(doomed).collect()
    }

    /// Notes that a vault is going to be destroyed, before anything of it is.
    pub async fn begin_receipt(
        &self,
        actor: &Actor,
        doomed: &DoomedVault,
        cause: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let begun = sqlx::query(
            "INSERT INTO removal_receipts (vault_id, user_id, tenant_id, cause, decided_ns) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (vault_id) DO NOTHING",
        )
        .bind(doomed.vault.to_string())
        .bind(doomed.user.to_string())
        .bind(doomed.tenant.to_string())
        .bind(cause)
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        if begun.rows_affected() == 1 {
            let deed = Deed {
                tenant: doomed.tenant,
                user: Some(doomed.user),
                verb: "vault.destroy",
                object: format!("vault {}", doomed.vault),
                before: None,
                after: Some(serde_json::json!({ "cause": cause })),
            };
            record(&mut transaction, actor, deed, now_ns).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Nothing is left of a vault: the proof, in the audit log as well. Nothing happens to a vault that has no receipt
    /// under way. `counted`: packs, their bytes, and the generation of the keyring.
    pub async fn finish_receipt(
        &self,
        actor: &Actor,
        vault: &VaultId,
        counted: Option<(i64, i64, i64)>,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT * FROM removal_receipts WHERE vault_id = $1 AND finished_ns IS NULL")
            .bind(vault.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let begun = receipt(&row)?;
        let packs = counted.map(|(packs, _, _)| packs);
        let pack_bytes = counted.map(|(_, pack_bytes, _)| pack_bytes);
        let keyring_generation = counted.map(|(_, _, generation)| generation);
        sqlx::query(
            "UPDATE removal_receipts SET finished_ns = $1, packs = $2, pack_bytes = $3, keyring_generation = $4 \
             WHERE vault_id = $5",
        )
        .bind(now_ns)
        .bind(packs)
        .bind(pack_bytes)
        .bind(keyring_generation)
        .bind(vault.to_string())
        .execute(&mut *transaction)
        .await?;
        let deed = Deed {
            tenant: begun.tenant,
            user: Some(begun.user),
            verb: "vault.destroyed",
            object: format!("vault {vault}"),
            before: None,
            after: Some(serde_json::json!({
                "cause": begun.cause, "packs": packs, "pack_bytes": pack_bytes,
                "keyring_generation": keyring_generation,
            })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Receipts whose end is not noted.
    pub async fn open_receipts(&self) -> Result<Vec<RemovalReceipt>, ControlError> {
        let rows = sqlx::query("SELECT * FROM removal_receipts WHERE finished_ns IS NULL ORDER BY vault_id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(receipt).collect()
    }

    /// Proofs of what was destroyed, as far as the scope reaches, oldest first.
    pub async fn removal_receipts(&self, scope: &Scope) -> Result<Vec<RemovalReceipt>, ControlError> {
        let text = format!(
            "SELECT * FROM removal_receipts WHERE {} ORDER BY decided_ns, vault_id",
            scope.condition("removal_receipts.tenant_id", Some("removal_receipts.user_id"))
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&self.readers).await?;
        rows.iter().map(receipt).collect()
    }

    /// Removes a user whose vaults are gone, with everything that is known of it but the audit log and the receipts.
    pub async fn erase_user(&self, actor: &Actor, user: &UserId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let tenant: Option<String> = sqlx::query_scalar("SELECT tenant_id FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(tenant) = tenant else { return Ok(()) };
        let vaults: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vaults WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        if vaults > 0 {
            return Err(ControlError::MustStay("the user still has a vault"));
        }
        hand_contacts_on(&mut transaction, user, Leaving::ForGood, now_ns).await?;
        // What else refers to a user goes by the rule of its own table.
        sqlx::query("DELETE FROM users WHERE id = $1").bind(user.to_string()).execute(&mut *transaction).await?;
        note_remains(&mut transaction).await?;
        let deed = Deed {
            tenant: TenantId::stored(&tenant)?,
            user: Some(*user),
            verb: "user.erased",
            object: format!("user {user}"),
            before: None,
            after: None,
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        self.forget_remains().await
    }

    /// Removes a tenant whose users are gone, with everything that is known of it but the audit log and the receipts.
    pub async fn erase_tenant(&self, actor: &Actor, tenant: &TenantId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM users WHERE tenant_id = $1) + (SELECT COUNT(*) FROM tenants WHERE parent_id = $1)",
        )
        .bind(tenant.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        if left > 0 {
            return Err(ControlError::MustStay("the tenant still has users or customers"));
        }
        let gone = sqlx::query("DELETE FROM tenants WHERE id = $1 AND state = 'deleting'")
            .bind(tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(());
        }
        note_remains(&mut transaction).await?;
        let deed = Deed {
            tenant: *tenant,
            user: None,
            verb: "tenant.erased",
            object: format!("tenant {tenant}"),
            before: None,
            after: None,
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        self.forget_remains().await
    }

    /// Users that were given something of a service that is not over, and have no vault; not those who are on their way
    /// out, and lost theirs by it.
    pub async fn users_without_vault(&self) -> Result<Vec<UserId>, ControlError> {
        let users: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT allocations.user_id FROM allocations JOIN services ON services.id = allocations.service_id \
             JOIN users ON users.id = allocations.user_id JOIN tenants ON tenants.id = users.tenant_id \
             WHERE services.state NOT IN ('terminated', 'cancelled') AND users.state IN ('invited', 'active', 'disabled') \
             AND tenants.state <> 'deleting' \
             AND NOT EXISTS (SELECT 1 FROM vaults WHERE vaults.user_id = allocations.user_id) ORDER BY 1",
        )
        .fetch_all(&self.readers)
        .await?;
        users.iter().map(|id| UserId::stored(id)).collect()
    }

    /// Enters a vault, whose keys exist, as the first one of a user that has none. `false` when it has one by now.
    pub async fn enter_first_vault(&self, user: &UserId, vault: &VaultId, now_ns: i64) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let entered = sqlx::query(
            "INSERT INTO vaults (id, user_id, name, created_ns) SELECT $1, $2, 'default', $3 \
             WHERE NOT EXISTS (SELECT 1 FROM vaults AS taken WHERE taken.user_id = $2)",
        )
        .bind(vault.to_string())
        .bind(user.to_string())
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(entered.rows_affected() == 1)
    }
}

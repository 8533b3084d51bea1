//! Security policies of tenants: idle time, second factor, trusted networks. Idle time and second factor hold for a
//! tenant and everything below it, each as strict as the strictest on the way down; trusted networks hold for those who
//! belong to the tenant itself, since a customer's people sit elsewhere than its partner's.

use crate::audit_log::record;
use crate::{Actor, Control, ControlError, Deed, Network, Scope, TENANT_DEPTH_MAX, TenantId, UserId};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::str::FromStr;

/// Shortest and longest idle time of login sessions, minutes.
pub const IDLE_MINUTES: std::ops::RangeInclusive<i64> = 5..=480;

/// Whether people have a second factor; a later one is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecondFactorRule {
    /// It is not offered.
    Off,
    /// Who wants.
    Optional,
    /// Everybody; without one nothing else can be done.
    Required,
}

impl SecondFactorRule {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            SecondFactorRule::Off => "off",
            SecondFactorRule::Optional => "optional",
            SecondFactorRule::Required => "required",
        }
    }
}

impl FromStr for SecondFactorRule {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "off" => Ok(SecondFactorRule::Off),
            "optional" => Ok(SecondFactorRule::Optional),
            "required" => Ok(SecondFactorRule::Required),
            _ => Err(ControlError::Invalid { what: "second factor", rule: "must be off, optional or required" }),
        }
    }
}

/// What a tenant asks of its people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityPolicy {
    /// A login session that is not used for so long is over, minutes.
    pub idle_minutes: i64,
    /// Second factors.
    pub second_factor: SecondFactorRule,
    /// From where those who belong to the tenant may come; empty = from anywhere.
    pub trusted_networks: Vec<Network>,
}

impl SecurityPolicy {
    /// Whether somebody who belongs to the tenant may come from there.
    pub fn trusts(&self, address: std::net::IpAddr) -> bool {
        self.trusted_networks.is_empty() || self.trusted_networks.iter().any(|network| network.contains(address))
    }
}

fn policy(row: &AnyRow) -> Result<SecurityPolicy, ControlError> {
    let corrupt = |_| ControlError::Corrupt { what: "rule for second factors" };
    Ok(SecurityPolicy {
        idle_minutes: row.try_get("idle_minutes")?,
        second_factor: row.try_get::<&str, _>("second_factor")?.parse().map_err(corrupt)?,
        trusted_networks: Network::stored_list(row.try_get("trusted_networks")?)?,
    })
}

impl Control {
    /// A tenant's own policy.
    pub async fn security_policy(&self, scope: &Scope, tenant: &TenantId) -> Result<SecurityPolicy, ControlError> {
        let text = format!(
            "SELECT idle_minutes, second_factor, trusted_networks FROM tenants WHERE id = $1 AND {}",
            scope.condition("tenants.id", None)
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(tenant.to_string()).fetch_optional(&self.readers).await?;
        policy(&row.ok_or_else(|| ControlError::not_found("tenant", &tenant.to_string()))?)
    }

    /// What holds for those at home at the end of a path: the strictest of the policies on it, and the networks of its
    /// last tenant.
    pub async fn effective_policy(&self, path: &[TenantId]) -> Result<SecurityPolicy, ControlError> {
        let home = path.last().copied().unwrap_or(TenantId::PLATFORM);
        let mut effective = SecurityPolicy {
            idle_minutes: *IDLE_MINUTES.end(),
            second_factor: SecondFactorRule::Off,
            trusted_networks: Vec::new(),
        };
        let mut query = sqlx::query(
            "SELECT id, idle_minutes, second_factor, trusted_networks FROM tenants WHERE id IN ($1, $2, $3, $4)",
        );
        for position in 0..TENANT_DEPTH_MAX {
            query = query.bind(path.get(position).unwrap_or(&home).to_string());
        }
        let rows = query.fetch_all(&self.readers).await?;
        for row in &rows {
            let of = policy(row)?;
            effective.idle_minutes = effective.idle_minutes.min(of.idle_minutes);
            effective.second_factor = effective.second_factor.max(of.second_factor);
            if TenantId::stored(row.try_get("id")?)? == home {
                effective.trusted_networks = of.trusted_networks;
            }
        }
        Ok(effective)
    }

    /// The trusted networks of every tenant that a user is a member of, where there are any.
    pub async fn networks_of_memberships(&self, user: &UserId) -> Result<Vec<(TenantId, Vec<Network>)>, ControlError> {
        let rows = sqlx::query(
            "SELECT DISTINCT tenants.id AS id, tenants.trusted_networks AS trusted_networks FROM memberships \
             JOIN tenants ON tenants.id = memberships.tenant_id \
             WHERE memberships.user_id = $1 AND tenants.trusted_networks <> '[]'",
        )
        .bind(user.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok((TenantId::stored(row.try_get("id")?)?, Network::stored_list(row.try_get("trusted_networks")?)?))
            })
            .collect()
    }

    /// Sets a tenant's policy, which may not be laxer than that of any tenant above it.
    pub async fn set_security_policy(
        &self,
        scope: &Scope,
        actor: &Actor,
        path: &[TenantId],
        new: &SecurityPolicy,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let [above @ .., tenant] = path else { return Err(ControlError::not_found("tenant", "")) };
        if !IDLE_MINUTES.contains(&new.idle_minutes) {
            return Err(ControlError::Invalid { what: "idle minutes", rule: "must be between 5 and 480" });
        }
        if !above.is_empty() {
            let limit = self.effective_policy(above).await?;
            if new.idle_minutes > limit.idle_minutes {
                let rule = "must not be more than a tenant above this one allows";
                return Err(ControlError::Invalid { what: "idle minutes", rule });
            }
            if new.second_factor < limit.second_factor {
                let rule = "must not be laxer than a tenant above this one asks for";
                return Err(ControlError::Invalid { what: "second factor", rule });
            }
        }
        let before = self.security_policy(scope, tenant).await?;
        let shown = |policy: &SecurityPolicy| {
            let networks: Vec<String> = policy.trusted_networks.iter().map(ToString::to_string).collect();
            serde_json::json!({
                "idle_minutes": policy.idle_minutes,
                "second_factor": policy.second_factor.as_str(),
                "trusted_networks": networks,
            })
        };
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE tenants SET idle_minutes = $1, second_factor = $2, trusted_networks = $3 WHERE id = $4")
            .bind(new.idle_minutes)
            .bind(new.second_factor.as_str())
            .bind(Network::list_to_store(&new.trusted_networks)?)
            .bind(tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        let deed = Deed {
            tenant: *tenant,
            user: None,
            verb: "security.edit",
            object: format!("tenant {tenant}"),
            before: Some(shown(&before)),
            after: Some(shown(new)),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}

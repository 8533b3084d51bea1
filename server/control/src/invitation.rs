//! Invitations: a single-use link that proves the mail address of whoever opens it, and makes a user, or a whole tenant
//! with its owner. Who may invite to what is decided by the caller, when it is sent and again when it is accepted.

use crate::account::check_name;
use crate::audit_log::record;
use crate::credential::{mail_values, store_password};
use crate::error::exists;
use crate::mail::{MailTemplate, NewMail, queue_mail, queue_mail_to_user};
use crate::member::insert_membership;
use crate::password::PasswordHash;
use crate::service::{NewService, insert_service};
use crate::tenant::{TITLE_BYTES_MAX, check_title, insert_tenant};
use crate::{
    Actor, Control, ControlError, Deed, Email, GroupId, InvitationId, Licence, MemberRole, NewTenant, ProductId, Scope,
    SecretDigest, SecretKind, TenantId, TenantKind, TokenSecret, UserId,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::str::FromStr;

/// A link works for so long.
pub const INVITATION_NS: i64 = INVITATION_DAYS * 24 * 3600 * 1_000_000_000;
const INVITATION_DAYS: i64 = 7;
const MEMBER_GROUPS_MAX: usize = 50;
/// Behind the letters and digits of a customer code.
const CODE_SUFFIX: &str = "-hf";
/// Letters of customer codes: none that is taken for another one.
const CODE_LETTERS: &[u8; 22] = b"abcdefghjkmnpqrstuvxyz";

/// What a customer gets with its invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOffer {
    /// What.
    pub product: ProductId,
    /// For money or as a trial.
    pub licence: Licence,
    /// How much, in the product's unit.
    pub quantity: i64,
    /// Its last day; the latest there may be when absent.
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    pub auto_renew: bool,
}

impl ServiceOffer {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "product": self.product.to_string(), "licence": self.licence.as_str(), "quantity": self.quantity,
            "expires_on": self.expires_on, "auto_renew": self.auto_renew,
        })
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        let corrupt = || ControlError::Corrupt { what: "service of an invitation" };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| corrupt())?;
        let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
        Ok(ServiceOffer {
            product: ProductId::stored(field("product").ok_or_else(corrupt)?)?,
            licence: field("licence").ok_or_else(corrupt)?.parse().map_err(|_| corrupt())?,
            quantity: value.get("quantity").and_then(serde_json::Value::as_i64).ok_or_else(corrupt)?,
            expires_on: field("expires_on").map(ToOwned::to_owned),
            auto_renew: value.get("auto_renew").and_then(serde_json::Value::as_bool).unwrap_or(false),
        })
    }
}

/// What an invitation is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvitationKind {
    /// To become a member of a tenant.
    User {
        /// As what; `None` for somebody who is only to be in groups.
        role: Option<MemberRole>,
        /// Groups of the tenant.
        groups: Vec<GroupId>,
    },
    /// To become the owner of a new tenant below one.
    Tenant {
        /// Partner or customer.
        kind: TenantKind,
        /// Its title.
        title: String,
        /// What it gets at once.
        service: Option<ServiceOffer>,
    },
}

impl InvitationKind {
    /// As stored and as on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            InvitationKind::User { .. } => "user",
            InvitationKind::Tenant { kind, .. } => kind.as_str(),
        }
    }
}

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvitationState {
    /// Its link works until its time is over.
    Sent,
    /// Somebody has come in by it.
    Accepted,
    /// Its time is over.
    Expired,
    /// Taken back.
    Revoked,
}

impl InvitationState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            InvitationState::Sent => "sent",
            InvitationState::Accepted => "accepted",
            InvitationState::Expired => "expired",
            InvitationState::Revoked => "revoked",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        Ok(match text {
            "sent" => InvitationState::Sent,
            "accepted" => InvitationState::Accepted,
            "expired" => InvitationState::Expired,
            "revoked" => InvitationState::Revoked,
            _ => return Err(ControlError::Corrupt { what: "state of an invitation" }),
        })
    }
}

/// An invitation.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Into which tenant, or below which.
    pub tenant: TenantId,
    /// To what.
    pub kind: InvitationKind,
    /// To whom.
    pub email: String,
    /// In which language.
    pub locale: String,
    /// By whom; `None`: the operator of the server.
    pub inviter: Option<UserId>,
    /// That one's name.
    pub inviter_name: String,
    /// Where it stands; one whose time is over may still be called sent.
    pub state: InvitationState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When its link stops working.
    pub expires_ns: i64,
    /// When it was made.
    pub created_ns: i64,
    /// Who came in by it.
    pub accepted_user: Option<UserId>,
}

impl Invitation {
    /// Its state at a time.
    pub fn state_at(&self, now_ns: i64) -> InvitationState {
        match self.state {
            InvitationState::Sent if self.expires_ns <= now_ns => InvitationState::Expired,
            state => state,
        }
    }
}

/// An invitation to be sent.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// Into which tenant, or below which.
    pub tenant: TenantId,
    /// To what.
    pub kind: InvitationKind,
    /// To whom.
    pub email: Email,
    /// In which language.
    pub locale: String,
    /// By whom; `None`: the operator of the server.
    pub inviter: Option<UserId>,
}

/// Who comes in.
#[derive(Clone, Debug)]
pub enum Newcomer<'a> {
    /// Somebody without an account.
    New {
        /// Name for people.
        title: &'a str,
        /// What the password must match from now on.
        password: &'a PasswordHash,
        /// Name in the IANA database.
        time_zone: &'a str,
    },
    /// Somebody with an account under that mail address, who has proven to be its owner.
    Known(UserId),
}

/// What became of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who came in.
    pub user: UserId,
    /// Where: the tenant invited to, or the new one.
    pub tenant: TenantId,
    /// The person's code.
    pub customer_code: String,
}

fn invitation(row: &AnyRow) -> Result<Invitation, ControlError> {
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let corrupt = |what| move |_| ControlError::Corrupt { what };
    let kind = match row.try_get::<&str, _>("kind")? {
        "user" => {
            let role = optional("role")?.as_deref().map(MemberRole::from_str).transpose();
            let groups: Vec<String> = serde_json::from_str(row.try_get("member_groups")?)
                .map_err(|_| ControlError::Corrupt { what: "groups of an invitation" })?;
            InvitationKind::User {
                role: role.map_err(corrupt("role"))?,
                groups: groups.iter().map(|id| GroupId::stored(id)).collect::<Result<_, _>>()?,
            }
        }
        kind => InvitationKind::Tenant {
            kind: kind.parse().map_err(corrupt("kind of an invitation"))?,
            title: optional("title")?.unwrap_or_default(),
            service: optional("service")?.as_deref().map(ServiceOffer::stored).transpose()?,
        },
    };
    Ok(Invitation {
        id: InvitationId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        kind,
        email: row.try_get("email")?,
        locale: row.try_get("locale")?,
        inviter: optional("inviter_id")?.as_deref().map(UserId::stored).transpose()?,
        inviter_name: row.try_get("inviter_name")?,
        state: InvitationState::stored(row.try_get("state")?)?,
        state_ns: row.try_get("state_ns")?,
        expires_ns: row.try_get("expires_ns")?,
        created_ns: row.try_get("created_ns")?,
        accepted_user: optional("accepted_user_id")?.as_deref().map(UserId::stored).transpose()?,
    })
}

/// Two letters, six digits, the suffix; entered so that nobody ever gets it again.
pub(crate) async fn insert_customer_code(connection: &mut AnyConnection, now_ns: i64) -> Result<String, ControlError> {
    loop {
        let random = getrandom::u64().map_err(|_| ControlError::Random)?;
        let letter = |shift: u32| char::from(CODE_LETTERS[(random >> shift) as usize % CODE_LETTERS.len()]);
        let code = format!("{}{}{:06}{CODE_SUFFIX}", letter(40), letter(50), random % 1_000_000);
        let entered =
            sqlx::query("INSERT INTO customer_codes (code, created_ns) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(&code)
                .bind(now_ns)
                .execute(&mut *connection)
                .await?;
        if entered.rows_affected() == 1 {
            return Ok(code);
        }
    }
}

/// A name within the tenant for somebody who comes in by mail address: its first part, with a number when it is taken.
async fn free_name(connection: &mut AnyConnection, tenant: &TenantId, email: &Email) -> Result<String, ControlError> {
    let plain = |c: char| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let wanted: String = email.local_part().chars().map(plain).collect();
    for number in 1_u32.. {
        let name = if number == 1 { wanted.clone() } else { format!("{wanted}-{number}") };
        check_name("user name", &name)?;
        let taken = sqlx::query("SELECT id FROM users WHERE tenant_id = $1 AND name = $2")
            .bind(tenant.to_string())
            .bind(&name)
            .fetch_optional(&mut *connection)
            .await?;
        if taken.is_none() {
            return Ok(name);
        }
    }
    Err(ControlError::Exists { what: "user", name: wanted })
}

/// Makes somebody a member. The first administrator is the owner.
async fn join(
    connection: &mut AnyConnection,
    user: &UserId,
    tenant: &TenantId,
    role: MemberRole,
    now_ns: i64,
) -> Result<(), ControlError> {
    let owned = sqlx::query("SELECT user_id FROM memberships WHERE tenant_id = $1 AND owner = 1")
        .bind(tenant.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let owner = role == MemberRole::Admin && owned.is_none();
    insert_membership(connection, tenant, user, role, owner, now_ns).await
}

async fn send(
    connection: &mut AnyConnection,
    invitation: &Invitation,
    link_base: &str,
    secret: &TokenSecret,
    now_ns: i64,
) -> Result<(), ControlError> {
    let (template, tenant) = match &invitation.kind {
        InvitationKind::User { .. } => {
            let title: String = sqlx::query_scalar("SELECT title FROM tenants WHERE id = $1")
                .bind(invitation.tenant.to_string())
                .fetch_one(&mut *connection)
                .await?;
            (MailTemplate::InviteUser, title)
        }
        InvitationKind::Tenant { title, .. } => (MailTemplate::InviteCustomer, title.clone()),
    };
    let values = mail_values([
        ("inviter", invitation.inviter_name.clone()),
        ("tenant", tenant),
        ("days", INVITATION_DAYS.to_string()),
        ("accept_link", format!("{link_base}{}", secret.expose())),
    ]);
    let mail = NewMail {
        to: &invitation.email,
        template,
        locale: &invitation.locale,
        values,
        tenant: Some(invitation.tenant),
    };
    queue_mail(connection, &mail, now_ns).await?;
    Ok(())
}

fn deed(invitation: &Invitation, verb: &'static str) -> Deed<'static> {
    Deed {
        tenant: invitation.tenant,
        user: None,
        verb,
        object: format!("invitation {}", invitation.id),
        before: None,
        after: None,
    }
}

impl Control {
    /// Sends an invitation. Its secret is in the mail, and in the answer for a caller that may hand it over.
    pub async fn create_invitation(
        &self,
        actor: &Actor,
        new: &NewInvitation,
        link_base: &str,
        now_ns: i64,
    ) -> Result<(Invitation, TokenSecret), ControlError> {
        let secret = TokenSecret::generate(SecretKind::Invitation)?;
        let invitation = Invitation {
            id: InvitationId::generate()?,
            tenant: new.tenant,
            kind: new.kind.clone(),
            email: new.email.as_str().to_owned(),
            locale: new.locale.clone(),
            inviter: new.inviter,
            inviter_name: actor.name.clone(),
            state: InvitationState::Sent,
            state_ns: now_ns,
            expires_ns: now_ns.saturating_add(INVITATION_NS),
            created_ns: now_ns,
            accepted_user: None,
        };
        let (role, groups, title, service) = match &new.kind {
            InvitationKind::User { role, groups } => (*role, groups.as_slice(), None, None),
            InvitationKind::Tenant { title, service, .. } => {
                check_title("title", title)?;
                (None, &[][..], Some(title), service.as_ref())
            }
        };
        if groups.len() > MEMBER_GROUPS_MAX {
            return Err(ControlError::Invalid { what: "groups", rule: "must be at most 50" });
        }
        let mut transaction = self.write().await?;
        let waiting = sqlx::query(
            "SELECT id FROM invitations WHERE tenant_id = $1 AND email_folded = $2 AND kind = $3 AND state = 'sent' \
             AND expires_ns > $4",
        )
        .bind(invitation.tenant.to_string())
        .bind(new.email.folded())
        .bind(invitation.kind.as_str())
        .bind(now_ns)
        .fetch_optional(&mut *transaction)
        .await?;
        if waiting.is_some() {
            return Err(ControlError::Exists { what: "invitation of", name: invitation.email });
        }
        for group in groups {
            let own = sqlx::query("SELECT id FROM member_groups WHERE id = $1 AND tenant_id = $2")
                .bind(group.to_string())
                .bind(invitation.tenant.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
            own.ok_or_else(|| ControlError::not_found("group", &group.to_string()))?;
        }
        sqlx::query(
            "INSERT INTO invitations (id, kind, tenant_id, email, email_folded, role, member_groups, title, service, \
             locale, inviter_id, inviter_name, secret_hash, state, state_ns, expires_ns, created_ns) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'sent', $14, $15, $14)",
        )
        .bind(invitation.id.to_string())
        .bind(invitation.kind.as_str())
        .bind(invitation.tenant.to_string())
        .bind(&invitation.email)
        .bind(new.email.folded())
        .bind(role.map(MemberRole::as_str).map(ToOwned::to_owned))
        .bind(serde_json::json!(groups.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string())
        .bind(title.cloned())
        .bind(service.map(|service| service.to_json().to_string()))
        .bind(&invitation.locale)
        .bind(invitation.inviter.map(|user| user.to_string()))
        .bind(&invitation.inviter_name)
        .bind(secret.digest().to_hexadecimal())
        .bind(now_ns)
        .bind(invitation.expires_ns)
        .execute(&mut *transaction)
        .await?;
        send(&mut transaction, &invitation, link_base, &secret, now_ns).await?;
        let mut deed = deed(&invitation, "invitation.send");
        deed.after = Some(serde_json::json!({
            "kind": invitation.kind.as_str(), "email": invitation.email, "role": role.map(MemberRole::as_str),
            "title": title, "service": service.map(ServiceOffer::to_json),
        }));
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok((invitation, secret))
    }

    /// An invitation.
    pub async fn invitation(&self, id: &InvitationId) -> Result<Option<Invitation>, ControlError> {
        let row = sqlx::query("SELECT * FROM invitations WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(invitation).transpose()
    }

    /// The invitation behind a link that works.
    pub async fn find_invitation(
        &self,
        secret: &SecretDigest,
        now_ns: i64,
    ) -> Result<Option<Invitation>, ControlError> {
        let row =
            sqlx::query("SELECT * FROM invitations WHERE secret_hash = $1 AND state = 'sent' AND expires_ns > $2")
                .bind(secret.to_hexadecimal())
                .bind(now_ns)
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(invitation).transpose()
    }

    /// A tenant's invitations, newest first; at most `limit` behind `after` (time and id of the last one before).
    pub async fn invitations(
        &self,
        scope: &Scope,
        tenant: &TenantId,
        after: Option<(i64, InvitationId)>,
        limit: u32,
    ) -> Result<Vec<Invitation>, ControlError> {
        let text = format!(
            "SELECT * FROM invitations WHERE tenant_id = $1 AND (created_ns < $2 OR (created_ns = $2 AND id > $3)) \
             AND {} ORDER BY created_ns DESC, id LIMIT $4",
            scope.condition("invitations.tenant_id", None)
        );
        let (after_ns, after_id) = after.map_or((i64::MAX, String::new()), |(ns, id)| (ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(tenant.to_string())
            .bind(after_ns)
            .bind(after_id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(invitation).collect()
    }

    /// Sends an invitation again with a new secret and a new time; the link before stops working.
    pub async fn resend_invitation(
        &self,
        actor: &Actor,
        id: &InvitationId,
        link_base: &str,
        now_ns: i64,
    ) -> Result<(Invitation, TokenSecret), ControlError> {
        let secret = TokenSecret::generate(SecretKind::Invitation)?;
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE invitations SET state = 'sent', state_ns = $1, secret_hash = $2, expires_ns = $3 \
             WHERE id = $4 AND state IN ('sent', 'expired') RETURNING *",
        )
        .bind(now_ns)
        .bind(secret.digest().to_hexadecimal())
        .bind(now_ns.saturating_add(INVITATION_NS))
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Err(self.wrong_state_of(&mut transaction, id).await?) };
        let invitation = invitation(&row)?;
        send(&mut transaction, &invitation, link_base, &secret, now_ns).await?;
        record(&mut transaction, actor, deed(&invitation, "invitation.resend"), now_ns).await?;
        transaction.commit().await?;
        Ok((invitation, secret))
    }

    /// Takes an invitation back.
    pub async fn revoke_invitation(
        &self,
        actor: &Actor,
        id: &InvitationId,
        now_ns: i64,
    ) -> Result<Invitation, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE invitations SET state = 'revoked', state_ns = $1 WHERE id = $2 AND state IN ('sent', 'expired') \
             RETURNING *",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Err(self.wrong_state_of(&mut transaction, id).await?) };
        let invitation = invitation(&row)?;
        record(&mut transaction, actor, deed(&invitation, "invitation.revoke"), now_ns).await?;
        transaction.commit().await?;
        Ok(invitation)
    }

    async fn wrong_state_of(
        &self,
        connection: &mut AnyConnection,
        id: &InvitationId,
    ) -> Result<ControlError, ControlError> {
        let state: Option<String> = sqlx::query_scalar("SELECT state FROM invitations WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
        Ok(match state {
            Some(state) => {
                let needed = "only one that nobody has accepted or taken back can be sent again or taken back";
                ControlError::wrong_state("invitation", &id.to_string(), &state, needed)
            }
            None => ControlError::not_found("invitation", &id.to_string()),
        })
    }

    /// Invitations whose time is over become expired. Answers how many.
    pub async fn expire_invitations(&self, actor: &Actor, now_ns: i64) -> Result<usize, ControlError> {
        let mut transaction = self.write().await?;
        let rows = sqlx::query(
            "UPDATE invitations SET state = 'expired', state_ns = $1 WHERE state = 'sent' AND expires_ns <= $1 \
             RETURNING *",
        )
        .bind(now_ns)
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            record(&mut transaction, actor, deed(&invitation(row)?, "invitation.expire"), now_ns).await?;
        }
        transaction.commit().await?;
        Ok(rows.len())
    }

    /// Somebody comes in by a link, once. A second use, and one behind its time, is [`ControlError::NotFound`]; a mail
    /// address that has an account and a newcomer that says it has none is [`ControlError::Exists`].
    pub async fn accept_invitation(
        &self,
        secret: &SecretDigest,
        newcomer: &Newcomer<'_>,
        address: &str,
        server_link: &str,
        now_ns: i64,
    ) -> Result<Accepted, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE invitations SET state = 'accepted', state_ns = $1 WHERE secret_hash = $2 AND state = 'sent' \
             AND expires_ns > $1 RETURNING *",
        )
        .bind(now_ns)
        .bind(secret.to_hexadecimal())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| ControlError::not_found("invitation", ""))?;
        let invitation = invitation(&row)?;
        let email = Email::parse(&invitation.email)?;
        let (tenant, role) = match &invitation.kind {
            InvitationKind::User { role, .. } => {
                let active = sqlx::query("SELECT id FROM tenants WHERE id = $1 AND state = 'active'")
                    .bind(invitation.tenant.to_string())
                    .fetch_optional(&mut *transaction)
                    .await?;
                active.ok_or_else(|| ControlError::not_found("invitation", ""))?;
                (invitation.tenant, *role)
            }
            InvitationKind::Tenant { kind, title, .. } => {
                let new = NewTenant { parent: invitation.tenant, kind: *kind, name: None, title };
                (insert_tenant(&mut transaction, &new, now_ns).await?, Some(MemberRole::Admin))
            }
        };
        let (user, title) = match newcomer {
            Newcomer::Known(user) => {
                let row =
                    sqlx::query("SELECT title, name, customer_code FROM users WHERE id = $1 AND email_folded = $2")
                        .bind(user.to_string())
                        .bind(email.folded())
                        .fetch_optional(&mut *transaction)
                        .await?
                        .ok_or_else(|| ControlError::not_found("user", &user.to_string()))?;
                let title: String = row.try_get("title")?;
                (*user, if title.is_empty() { row.try_get("name")? } else { title })
            }
            Newcomer::New { title, time_zone, .. } => {
                if title.trim().is_empty() || title.len() > TITLE_BYTES_MAX {
                    return Err(ControlError::Invalid { what: "name", rule: "must be between 1 and 256 bytes long" });
                }
                check_title("name", title)?;
                let user = UserId::generate()?;
                let name = free_name(&mut transaction, &tenant, &email).await?;
                sqlx::query(
                    "INSERT INTO users (id, tenant_id, name, title, email, email_folded, locale, time_zone, state, \
                     state_ns, created_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'active', $9, $9)",
                )
                .bind(user.to_string())
                .bind(tenant.to_string())
                .bind(name)
                .bind(*title)
                .bind(email.as_str())
                .bind(email.folded())
                .bind(&invitation.locale)
                .bind(*time_zone)
                .bind(now_ns)
                .execute(&mut *transaction)
                .await
                .map_err(|error| exists("account of", email.as_str(), error))?;
                (user, (*title).to_owned())
            }
        };
        if let Newcomer::New { password, .. } = newcomer {
            store_password(&mut transaction, &user, password, now_ns).await?;
        }
        let code: Option<String> = sqlx::query_scalar("SELECT customer_code FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let is_first_code = code.is_none();
        let customer_code = match code {
            Some(code) => code,
            None => {
                let code = insert_customer_code(&mut transaction, now_ns).await?;
                sqlx::query("UPDATE users SET customer_code = $1 WHERE id = $2")
                    .bind(&code)
                    .bind(user.to_string())
                    .execute(&mut *transaction)
                    .await?;
                code
            }
        };
        let actor = Actor { id: user.to_string(), name: title.clone(), behalf: None, address: address.to_owned() };
        if let Some(role) = role {
            join(&mut transaction, &user, &tenant, role, now_ns).await?;
        }
        match &invitation.kind {
            InvitationKind::User { groups, .. } => {
                for group in groups {
                    sqlx::query(
                        "INSERT INTO group_members (group_id, user_id) SELECT id, $1 FROM member_groups \
                         WHERE id = $2 AND tenant_id = $3 ON CONFLICT DO NOTHING",
                    )
                    .bind(user.to_string())
                    .bind(group.to_string())
                    .bind(tenant.to_string())
                    .execute(&mut *transaction)
                    .await?;
                }
            }
            InvitationKind::Tenant { service, .. } => {
                sqlx::query("UPDATE tenants SET locale = $1 WHERE id = $2")
                    .bind(&invitation.locale)
                    .bind(tenant.to_string())
                    .execute(&mut *transaction)
                    .await?;
                if let Some(offer) = service.clone() {
                    let ServiceOffer { product, licence, quantity, expires_on, auto_renew } = offer;
                    let new = NewService { tenant, product, licence, quantity, expires_on, auto_renew };
                    insert_service(&mut transaction, &actor, &new, Some(&user), now_ns).await?;
                }
            }
        }
        sqlx::query("UPDATE invitations SET accepted_user_id = $1 WHERE id = $2")
            .bind(user.to_string())
            .bind(invitation.id.to_string())
            .execute(&mut *transaction)
            .await?;
        if is_first_code {
            let values = mail_values([
                ("name", title),
                ("code", customer_code.clone()),
                ("server_link", server_link.to_owned()),
            ]);
            queue_mail_to_user(&mut transaction, &user, MailTemplate::Welcome, values, now_ns).await?;
        }
        let accepted = Deed {
            tenant,
            user: Some(user),
            verb: "invitation.accept",
            object: format!("invitation {}", invitation.id),
            before: None,
            after: Some(serde_json::json!({
                "role": role.map(MemberRole::as_str), "customer_code": customer_code, "invited_by": invitation.inviter_name,
            })),
        };
        record(&mut transaction, &actor, accepted, now_ns).await?;
        transaction.commit().await?;
        Ok(Accepted { user, tenant, customer_code })
    }
}

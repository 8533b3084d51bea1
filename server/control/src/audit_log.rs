//! Who did what: append-only, each entry bound to the one before by its hash, so that a change or a gap shows.

use crate::{Control, ControlError, Scope, TenantId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Hash before the first entry.
const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Entries that are read at once when the chain is verified.
const VERIFY_STEP: i64 = 1000;

/// Who acts, as it will be read later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Id of the person or computer, or a word such as `local`.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// The tenant on whose behalf somebody from above acts.
    pub behalf: Option<TenantId>,
    /// From where: a network address, or `local`.
    pub address: String,
}

/// What was done. Never holds a secret.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// Whose log it belongs into.
    pub tenant: TenantId,
    /// Whom it concerns, besides the tenant.
    pub user: Option<UserId>,
    /// A verb of the permission matrix, or a name of what the server did by itself.
    pub verb: &'a str,
    /// Kind and id.
    pub object: String,
    /// What it was.
    pub before: Option<serde_json::Value>,
    /// What it became.
    pub after: Option<serde_json::Value>,
}

/// Which entries are wanted; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Not before, nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Before, nanoseconds since 1970.
    pub until_ns: Option<i64>,
    /// Id or name of who did it.
    pub actor: Option<String>,
    /// Kind and id of what it was done to, or the id alone.
    pub object: Option<String>,
    /// What was done.
    pub verb: Option<String>,
    /// In whose log.
    pub tenant: Option<TenantId>,
}

impl AuditFilter {
    /// Conditions over an entry's columns, with texts as parameters from `$first` on.
    fn conditions(&self, first: usize) -> (Vec<String>, Vec<String>) {
        let (mut conditions, mut texts) = (Vec::new(), Vec::new());
        conditions.extend(self.since_ns.map(|since_ns| format!("at_ns >= {since_ns}")));
        conditions.extend(self.until_ns.map(|until_ns| format!("at_ns < {until_ns}")));
        conditions.extend(self.tenant.map(|tenant| format!("tenant_id = '{tenant}'")));
        let mut parameter = |text: &str| {
            texts.push(text.to_owned());
            format!("${}", first + texts.len() - 1)
        };
        if let Some(actor) = &self.actor {
            let place = parameter(actor);
            conditions.push(format!("(actor = {place} OR actor_name = {place})"));
        }
        if let Some(verb) = &self.verb {
            conditions.push(format!("verb = {}", parameter(verb)));
        }
        if let Some(object) = &self.object {
            let whole = parameter(object);
            // The kind is one word in front of the id; what the caller sends is no pattern.
            let escaped = object.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            let end = parameter(&format!("% {escaped}"));
            conditions.push(format!("(object = {whole} OR object LIKE {end} ESCAPE '\\')"));
        }
        (conditions, texts)
    }
}

/// Where a page of the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    /// The newest first, before a sequence number or from the end of the log.
    Before(Option<i64>),
    /// The oldest first, behind a sequence number; 0 for the begin of the log.
    After(i64),
}

/// An entry as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Gap-free, from 1.
    pub sequence: i64,
    /// When, nanoseconds since 1970.
    pub at_ns: i64,
    /// Who.
    pub actor: Actor,
    /// Whose log.
    pub tenant: TenantId,
    /// Whom it concerns.
    pub user: Option<UserId>,
    /// What.
    pub verb: String,
    /// On what.
    pub object: String,
    /// JSON before.
    pub before: Option<String>,
    /// JSON after.
    pub after: Option<String>,
    /// Hash of the entry before, hexadecimal.
    pub previous_hash: String,
    /// Hash over this entry and the one before, hexadecimal.
    pub hash: String,
}

impl AuditEntry {
    /// Whether the entry is as it was written.
    pub fn is_intact(&self) -> bool {
        self.hash == self.expected_hash()
    }

    /// What its hash must be: over every field, each with its length, so that no two entries read alike.
    fn expected_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast 2026-11 audit entry");
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(self.previous_hash.as_bytes());
        field(&self.sequence.to_le_bytes());
        field(&self.at_ns.to_le_bytes());
        for text in [&self.actor.id, &self.actor.name, &self.actor.address, &self.verb, &self.object] {
            field(text.as_bytes());
        }
        field(self.tenant.to_string().as_bytes());
        for optional in [
            self.actor.behalf.map(|id| id.to_string()),
            self.user.map(|id| id.to_string()),
            self.before.clone(),
            self.after.clone(),
        ] {
            field(&[u8::from(optional.is_some())]);
            field(optional.unwrap_or_default().as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn entry(row: &AnyRow) -> Result<AuditEntry, ControlError> {
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    Ok(AuditEntry {
        sequence: row.try_get("sequence")?,
        at_ns: row.try_get("at_ns")?,
        actor: Actor {
            id: row.try_get("actor")?,
            name: row.try_get("actor_name")?,
            behalf: optional("behalf_tenant_id")?.as_deref().map(TenantId::stored).transpose()?,
            address: row.try_get("address")?,
        },
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: optional("user_id")?.as_deref().map(UserId::stored).transpose()?,
        verb: row.try_get("verb")?,
        object: row.try_get("object")?,
        before: optional("before_json")?,
        after: optional("after_json")?,
        previous_hash: row.try_get("previous_hash")?,
        hash: row.try_get("hash")?,
    })
}

/// Writes an entry in the transaction of what it tells of, so that there is neither without the other.
pub(crate) async fn record(
    connection: &mut AnyConnection,
    actor: &Actor,
    deed: Deed<'_>,
    now_ns: i64,
) -> Result<(), ControlError> {
    let last = sqlx::query("SELECT sequence, hash FROM audit_entries ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let (sequence, previous_hash) = match last {
        Some(row) => (row.try_get::<i64, _>("sequence")? + 1, row.try_get("hash")?),
        None => (1, NOTHING_BEFORE.to_owned()),
    };
    let mut entry = AuditEntry {
        sequence,
        at_ns: now_ns,
        actor: actor.clone(),
        tenant: deed.tenant,
        user: deed.user,
        verb: deed.verb.to_owned(),
        object: deed.object,
        before: deed.before.map(|value| value.to_string()),
        after: deed.after.map(|value| value.to_string()),
        previous_hash,
        hash: String::new(),
    };
    entry.hash = entry.expected_hash();
    sqlx::query(
        "INSERT INTO audit_entries (sequence, at_ns, actor, actor_name, behalf_tenant_id, tenant_id, user_id, verb, \
         object, before_json, after_json, address, previous_hash, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(entry.sequence)
    .bind(entry.at_ns)
    .bind(&entry.actor.id)
    .bind(&entry.actor.name)
    .bind(entry.actor.behalf.map(|id| id.to_string()))
    .bind(entry.tenant.to_string())
    .bind(entry.user.map(|id| id.to_string()))
    .bind(&entry.verb)
    .bind(&entry.object)
    .bind(&entry.before)
    .bind(&entry.after)
    .bind(&entry.actor.address)
    .bind(&entry.previous_hash)
    .bind(&entry.hash)
    .execute(connection)
    .await?;
    Ok(())
}

impl Control {
    /// Writes an entry for something that changed no other row.
    pub async fn note_deed(&self, actor: &Actor, deed: Deed<'_>, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Entries below `before` (all when `None`), newest first, at most `limit`.
    pub async fn audit_entries(
        &self,
        scope: &Scope,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, ControlError> {
        self.find_audit_entries(scope, &AuditFilter::default(), AuditPlace::Before(before), limit).await
    }

    /// Entries that a filter lets through, at most `limit`.
    pub async fn find_audit_entries(
        &self,
        scope: &Scope,
        filter: &AuditFilter,
        place: AuditPlace,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, ControlError> {
        let (from, order) = match place {
            AuditPlace::Before(before) => (format!("sequence < {}", before.unwrap_or(i64::MAX)), "DESC"),
            AuditPlace::After(after) => (format!("sequence > {after}"), "ASC"),
        };
        let (mut conditions, texts) = filter.conditions(1);
        conditions.push(from);
        conditions.push(scope.condition("audit_entries.tenant_id", Some("audit_entries.user_id")));
        let text = format!(
            "SELECT * FROM audit_entries WHERE {} ORDER BY sequence {order} LIMIT {limit}",
            conditions.join(" AND ")
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
        for text in texts {
            query = query.bind(text);
        }
        query.fetch_all(&self.readers).await?.iter().map(entry).collect()
    }

    /// Recomputes the whole chain. Gives the number of entries, or the first one that does not fit as an error.
    pub async fn verify_audit_log(&self) -> Result<i64, ControlError> {
        let (mut previous, mut last) = (NOTHING_BEFORE.to_owned(), 0);
        loop {
            let rows = sqlx::query("SELECT * FROM audit_entries WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(last)
                .bind(VERIFY_STEP)
                .fetch_all(&self.readers)
                .await?;
            for row in &rows {
                let entry = entry(row)?;
                let fits = entry.sequence == last + 1 && entry.previous_hash == previous;
                if !fits || !entry.is_intact() {
                    return Err(ControlError::AuditBroken { sequence: entry.sequence });
                }
                (last, previous) = (entry.sequence, entry.hash);
            }
            if rows.len() < VERIFY_STEP as usize {
                return Ok(last);
            }
        }
    }
}

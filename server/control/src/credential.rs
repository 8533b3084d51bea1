//! What people prove themselves with: passwords and the links that set forgotten ones, second factors with their
//! recovery codes. Holds hashes and sealed secrets only; times and codes are judged by the caller.

use crate::audit_log::record;
use crate::login::{end_sessions_of, own_actor, own_deed};
use crate::mail::{MailTemplate, queue_mail_to_user};
use crate::password::PasswordHash;
use crate::{Account, Control, ControlError, LoginSessionId, SecretDigest, SecretKind, TokenSecret, UserId};
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A link that sets a forgotten password works for so long.
pub const PASSWORD_RESET_NS: i64 = 3600 * 1_000_000_000;
/// A link that the recovery of an account ends with works for so long.
pub const RECOVERY_RESET_NS: i64 = 48 * 3600 * 1_000_000_000;
/// How many recovery codes there are in a set.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of a recovery code: 16 letters in base 32.
const RECOVERY_CODE_BYTES: usize = 10;
const GROUP_LETTERS: usize = 4;

/// A second factor as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFactor {
    /// The secret behind the codes, as the server sealed it.
    pub sealed_secret: Vec<u8>,
    /// The last step of time whose code was used.
    pub used_step: i64,
    /// Since when it counts, nanoseconds since 1970.
    pub confirmed_ns: Option<i64>,
}

/// A code on paper that stands in for the second factor once.
#[derive(Clone)]
pub struct RecoveryCode {
    text: Zeroizing<String>,
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

impl RecoveryCode {
    fn generate() -> Result<Self, ControlError> {
        let mut random = Zeroizing::new([0u8; RECOVERY_CODE_BYTES]);
        getrandom::fill(random.as_mut_slice()).map_err(|_| ControlError::Random)?;
        let letters = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(random.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(letters.len() + letters.len() / GROUP_LETTERS));
        for (at, letter) in letters.chars().enumerate() {
            if at > 0 && at % GROUP_LETTERS == 0 {
                text.push('-');
            }
            text.push(letter);
        }
        Ok(RecoveryCode { text })
    }

    /// From what somebody typed: dashes, spaces and capitals do not matter. `None` when it cannot be one.
    pub fn typed(text: &str) -> Option<Self> {
        let letters: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect::<String>().to_uppercase());
        let decoded = Zeroizing::new(data_encoding::BASE32_NOPAD.decode(letters.as_bytes()).ok()?);
        (decoded.len() == RECOVERY_CODE_BYTES).then_some(RecoveryCode { text: letters })
    }

    /// The text to write down, once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Bound to its owner, so that equal codes of two people are not seen to be equal. 80 random bits need no slow hash.
    fn hash(&self, user: &UserId) -> String {
        let letters: Zeroizing<String> = Zeroizing::new(self.text.chars().filter(|c| *c != '-').collect());
        let mut hasher = blake3::Hasher::new_derive_key("holdfast 2026-11 stored hash of a recovery code");
        hasher.update(user.to_string().as_bytes());
        hasher.update(letters.as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

/// A time for people who read a mail.
pub(crate) fn mail_time(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{ns} ns since 1970"),
    }
}

/// Values of a mail.
pub(crate) fn mail_values<const N: usize>(values: [(&str, String); N]) -> BTreeMap<String, String> {
    values.into_iter().map(|(word, value)| (word.to_owned(), value)).collect()
}

pub(crate) async fn store_password(
    connection: &mut AnyConnection,
    user: &UserId,
    hash: &PasswordHash,
    now_ns: i64,
) -> Result<(), ControlError> {
    sqlx::query(
        "INSERT INTO passwords (user_id, hash, changed_ns) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed_ns = excluded.changed_ns",
    )
    .bind(user.to_string())
    .bind(hash.as_str())
    .bind(now_ns)
    .execute(&mut *connection)
    .await?;
    // A link that waits in a mailbox must not undo what its owner has just set.
    sqlx::query("DELETE FROM password_resets WHERE user_id = $1").bind(user.to_string()).execute(connection).await?;
    Ok(())
}

/// A fresh link to set a password; those before it stop working.
pub(crate) async fn insert_password_reset(
    connection: &mut AnyConnection,
    user: &UserId,
    valid_ns: i64,
    now_ns: i64,
) -> Result<TokenSecret, ControlError> {
    let secret = TokenSecret::generate(SecretKind::PasswordReset)?;
    sqlx::query("DELETE FROM password_resets WHERE user_id = $1")
        .bind(user.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO password_resets (secret_hash, user_id, created_ns, expires_ns) VALUES ($1, $2, $3, $4)")
        .bind(secret.digest().to_hexadecimal())
        .bind(user.to_string())
        .bind(now_ns)
        .bind(now_ns.saturating_add(valid_ns))
        .execute(connection)
        .await?;
    Ok(secret)
}

pub(crate) async fn remove_second_factor(connection: &mut AnyConnection, user: &UserId) -> Result<bool, ControlError> {
    let user = user.to_string();
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1").bind(&user).execute(&mut *connection).await?;
    let removed = sqlx::query("DELETE FROM second_factors WHERE user_id = $1").bind(&user).execute(connection).await?;
    Ok(removed.rows_affected() == 1)
}

async fn insert_recovery_codes(
    connection: &mut AnyConnection,
    user: &UserId,
) -> Result<Vec<RecoveryCode>, ControlError> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user.to_string())
        .execute(&mut *connection)
        .await?;
    let mut codes = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let code = RecoveryCode::generate()?;
        sqlx::query("INSERT INTO recovery_codes (user_id, code_hash) VALUES ($1, $2)")
            .bind(user.to_string())
            .bind(code.hash(user))
            .execute(&mut *connection)
            .await?;
        codes.push(code);
    }
    Ok(codes)
}

async fn tell_factor_changed(
    connection: &mut AnyConnection,
    account: &Account,
    address: &str,
    now_ns: i64,
) -> Result<(), ControlError> {
    let values = mail_values([("time", mail_time(now_ns)), ("address", address.to_owned())]);
    queue_mail_to_user(connection, &account.user, MailTemplate::SecondFactorChanged, values, now_ns).await?;
    Ok(())
}

impl Control {
    /// Sets a new password. Every login session ends, but for the one it was changed in, and the person is told.
    pub async fn change_password(
        &self,
        account: &Account,
        hash: &PasswordHash,
        keep: Option<LoginSessionId>,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        store_password(&mut transaction, &account.user, hash, now_ns).await?;
        end_sessions_of(&mut transaction, &account.user, keep).await?;
        let values = mail_values([("time", mail_time(now_ns)), ("address", address.to_owned())]);
        queue_mail_to_user(&mut transaction, &account.user, MailTemplate::PasswordChanged, values, now_ns).await?;
        let deed = own_deed(account, "password.change", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Mails a link to set a forgotten password. `link_base` is the URL before the secret.
    pub async fn send_password_reset(
        &self,
        account: &Account,
        link_base: &str,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let secret = insert_password_reset(&mut transaction, &account.user, PASSWORD_RESET_NS, now_ns).await?;
        let values = mail_values([
            ("minutes", (PASSWORD_RESET_NS / 60_000_000_000).to_string()),
            ("reset_link", format!("{link_base}{}", secret.expose())),
        ]);
        queue_mail_to_user(&mut transaction, &account.user, MailTemplate::PasswordReset, values, now_ns).await?;
        let deed = own_deed(account, "password.forgotten", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whose password a link sets; `None` when it is unknown, used, or its time is over.
    pub async fn find_password_reset(
        &self,
        secret: &SecretDigest,
        now_ns: i64,
    ) -> Result<Option<Account>, ControlError> {
        let user: Option<String> =
            sqlx::query_scalar("SELECT user_id FROM password_resets WHERE secret_hash = $1 AND expires_ns > $2")
                .bind(secret.to_hexadecimal())
                .bind(now_ns)
                .fetch_optional(&self.readers)
                .await?;
        match user {
            Some(user) => self.account(&UserId::stored(&user)?).await,
            None => Ok(None),
        }
    }

    /// Sets the password by a link, once. Every login session ends.
    pub async fn use_password_reset(
        &self,
        secret: &SecretDigest,
        account: &Account,
        hash: &PasswordHash,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let used =
            sqlx::query("DELETE FROM password_resets WHERE secret_hash = $1 AND user_id = $2 AND expires_ns > $3")
                .bind(secret.to_hexadecimal())
                .bind(account.user.to_string())
                .bind(now_ns)
                .execute(&mut *transaction)
                .await?;
        if used.rows_affected() != 1 {
            return Err(ControlError::not_found("password link", ""));
        }
        store_password(&mut transaction, &account.user, hash, now_ns).await?;
        end_sessions_of(&mut transaction, &account.user, None).await?;
        let values = mail_values([("time", mail_time(now_ns)), ("address", address.to_owned())]);
        queue_mail_to_user(&mut transaction, &account.user, MailTemplate::PasswordChanged, values, now_ns).await?;
        let deed = own_deed(account, "password.reset", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The second factor of a person, confirmed or not.
    pub async fn second_factor(&self, user: &UserId) -> Result<Option<StoredFactor>, ControlError> {
        let row = sqlx::query("SELECT sealed_secret, used_step, confirmed_ns FROM second_factors WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            let sealed: String = row.try_get("sealed_secret")?;
            let sealed = data_encoding::HEXLOWER.decode(sealed.as_bytes());
            Ok(StoredFactor {
                sealed_secret: sealed.map_err(|_| ControlError::Corrupt { what: "sealed secret" })?,
                used_step: row.try_get("used_step")?,
                confirmed_ns: row.try_get("confirmed_ns")?,
            })
        })
        .transpose()
    }

    /// Begins a second factor; one that was begun before and never confirmed is replaced. A confirmed one is not.
    pub async fn begin_second_factor(
        &self,
        account: &Account,
        sealed_secret: &[u8],
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let begun = sqlx::query(
            "INSERT INTO second_factors (user_id, sealed_secret, used_step, created_ns) VALUES ($1, $2, 0, $3) \
             ON CONFLICT (user_id) DO UPDATE SET sealed_secret = excluded.sealed_secret, used_step = 0, \
             created_ns = excluded.created_ns WHERE second_factors.confirmed_ns IS NULL",
        )
        .bind(account.user.to_string())
        .bind(data_encoding::HEXLOWER.encode(sealed_secret))
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        if begun.rows_affected() != 1 {
            return Err(ControlError::wrong_state(
                "second factor",
                "of this account",
                "confirmed",
                "remove it before another one is set up",
            ));
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The person has shown the code of `step`: from now on codes are asked for. Answers fresh recovery codes.
    pub async fn confirm_second_factor(
        &self,
        account: &Account,
        step: i64,
        address: &str,
        now_ns: i64,
    ) -> Result<Vec<RecoveryCode>, ControlError> {
        let mut transaction = self.write().await?;
        let confirmed = sqlx::query(
            "UPDATE second_factors SET confirmed_ns = $1, used_step = $2 WHERE user_id = $3 AND confirmed_ns IS NULL \
             AND used_step < $2",
        )
        .bind(now_ns)
        .bind(step)
        .bind(account.user.to_string())
        .execute(&mut *transaction)
        .await?;
        if confirmed.rows_affected() != 1 {
            return Err(ControlError::wrong_state(
                "second factor",
                "of this account",
                "not waiting",
                "begin one to confirm it",
            ));
        }
        let codes = insert_recovery_codes(&mut transaction, &account.user).await?;
        tell_factor_changed(&mut transaction, account, address, now_ns).await?;
        let deed = own_deed(account, "second_factor.add", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(codes)
    }

    /// Takes the code of a step of time, once: `false` when it, or a later one, was taken before.
    pub async fn use_step(&self, user: &UserId, step: i64) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let used = sqlx::query(
            "UPDATE second_factors SET used_step = $1 WHERE user_id = $2 AND used_step < $1 \
             AND confirmed_ns IS NOT NULL",
        )
        .bind(step)
        .bind(user.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(used.rows_affected() == 1)
    }

    /// Takes a recovery code, once.
    pub async fn use_recovery_code(
        &self,
        account: &Account,
        code: &RecoveryCode,
        address: &str,
        now_ns: i64,
    ) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let used = sqlx::query(
            "UPDATE recovery_codes SET used_ns = $1 WHERE user_id = $2 AND code_hash = $3 AND used_ns IS NULL",
        )
        .bind(now_ns)
        .bind(account.user.to_string())
        .bind(code.hash(&account.user))
        .execute(&mut *transaction)
        .await?;
        if used.rows_affected() != 1 {
            return Ok(false);
        }
        let deed = own_deed(account, "second_factor.recovery_code", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// How many recovery codes are left.
    pub async fn recovery_codes_left(&self, user: &UserId) -> Result<i64, ControlError> {
        let left = sqlx::query_scalar("SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1 AND used_ns IS NULL");
        Ok(left.bind(user.to_string()).fetch_one(&self.readers).await?)
    }

    /// A fresh set of recovery codes; those before stop working.
    pub async fn renew_recovery_codes(
        &self,
        account: &Account,
        address: &str,
        now_ns: i64,
    ) -> Result<Vec<RecoveryCode>, ControlError> {
        let mut transaction = self.write().await?;
        let confirmed =
            sqlx::query("SELECT user_id FROM second_factors WHERE user_id = $1 AND confirmed_ns IS NOT NULL")
                .bind(account.user.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
        if confirmed.is_none() {
            return Err(ControlError::wrong_state(
                "second factor",
                "of this account",
                "not set up",
                "set one up first",
            ));
        }
        let codes = insert_recovery_codes(&mut transaction, &account.user).await?;
        tell_factor_changed(&mut transaction, account, address, now_ns).await?;
        let deed = own_deed(account, "second_factor.renew_codes", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(codes)
    }

    /// Takes the second factor away, with its recovery codes.
    pub async fn remove_second_factor(
        &self,
        account: &Account,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        if !remove_second_factor(&mut transaction, &account.user).await? {
            return Err(ControlError::wrong_state(
                "second factor",
                "of this account",
                "not set up",
                "set one up first",
            ));
        }
        tell_factor_changed(&mut transaction, account, address, now_ns).await?;
        let deed = own_deed(account, "second_factor.remove", format!("user {}", account.user));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The sealing key wrapped by the master key with this fingerprint.
    pub async fn sealing_key(&self, master_fingerprint: &str) -> Result<Option<Vec<u8>>, ControlError> {
        let wrapped: Option<String> =
            sqlx::query_scalar("SELECT wrapped FROM sealing_keys WHERE master_fingerprint = $1")
                .bind(master_fingerprint)
                .fetch_optional(&self.readers)
                .await?;
        let corrupt = |_| ControlError::Corrupt { what: "sealing key" };
        wrapped.map(|text| data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(corrupt)).transpose()
    }

    /// Whether a sealing key is there under another master key.
    pub async fn has_sealing_key(&self) -> Result<bool, ControlError> {
        let found = sqlx::query("SELECT master_fingerprint FROM sealing_keys LIMIT 1").fetch_optional(&self.readers);
        Ok(found.await?.is_some())
    }

    /// Stores the sealing key as wrapped by a master key; what another one wrapped stays beside it.
    pub async fn add_sealing_key(
        &self,
        master_fingerprint: &str,
        wrapped: &[u8],
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO sealing_keys (master_fingerprint, wrapped, created_ns) VALUES ($1, $2, $3) \
             ON CONFLICT (master_fingerprint) DO UPDATE SET wrapped = excluded.wrapped",
        )
        .bind(master_fingerprint)
        .bind(data_encoding::HEXLOWER.encode(wrapped))
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets what other master keys wrapped: the one in use has proven itself.
    pub async fn keep_only_sealing_key(&self, master_fingerprint: &str) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM sealing_keys WHERE master_fingerprint <> $1")
            .bind(master_fingerprint)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let user = UserId::from_bytes([1; 16]);
        let code = RecoveryCode::generate().unwrap();
        assert_eq!(code.expose().len(), 19);
        let typed = |text: &str| RecoveryCode::typed(text).map(|code| code.hash(&user));
        assert_eq!(typed(code.expose()), Some(code.hash(&user)));
        assert_eq!(typed(&format!(" {} ", code.expose().to_lowercase().replace('-', " "))), Some(code.hash(&user)));
        assert_ne!(Some(code.hash(&UserId::from_bytes([2; 16]))), typed(code.expose()));
        assert!(RecoveryCode::typed("123456").is_none() && RecoveryCode::typed("AAAA-AAAA-AAAA-AAA1").is_none());
        assert_eq!(format!("{code:?}"), "RecoveryCode(..)");
    }
}

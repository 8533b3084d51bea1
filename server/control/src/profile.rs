//! What people say about themselves.

use crate::audit_log::record;
use crate::login::{own_actor, own_deed};
use crate::tenant::check_title;
use crate::{Account, Control, ControlError, Email};

const LOCALE_BYTES_MAX: usize = 35;

/// What is to change; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    /// Name for people.
    pub title: Option<String>,
    /// Language tag.
    pub locale: Option<String>,
    /// Name in the IANA database.
    pub time_zone: Option<String>,
    /// Where notices go; an empty one: to the log-in address again.
    pub notify_email: Option<String>,
}

/// Whether a text can be a language tag.
pub(crate) fn check_locale(locale: &str) -> Result<(), ControlError> {
    let fits = (2..=LOCALE_BYTES_MAX).contains(&locale.len())
        && locale.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    match fits {
        true => Ok(()),
        false => Err(ControlError::Invalid { what: "locale", rule: "must be a language tag such as en or pt-BR" }),
    }
}

impl Control {
    /// Changes a person's profile.
    pub async fn edit_profile(
        &self,
        account: &Account,
        change: &ProfileChange,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let ProfileChange { title, locale, time_zone, notify_email } = change;
        if let Some(title) = title {
            check_title("name", title)?;
        }
        if let Some(locale) = locale {
            check_locale(locale)?;
        }
        if time_zone.as_ref().is_some_and(|zone| jiff::tz::TimeZone::get(zone).is_err()) {
            return Err(ControlError::Invalid { what: "time zone", rule: "must be a name such as Europe/Warsaw" });
        }
        let notify = match notify_email.as_deref().map(str::trim) {
            None => account.notify_email.clone(),
            Some("") => None,
            Some(text) => Some(Email::parse(text)?.as_str().to_owned()),
        };
        let (title, locale) = (title.as_ref().unwrap_or(&account.title), locale.as_ref().unwrap_or(&account.locale));
        let time_zone = time_zone.as_ref().unwrap_or(&account.time_zone);
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE users SET title = $1, locale = $2, time_zone = $3, notify_email = $4 WHERE id = $5")
            .bind(title)
            .bind(locale)
            .bind(time_zone)
            .bind(&notify)
            .bind(account.user.to_string())
            .execute(&mut *transaction)
            .await?;
        let mut deed = own_deed(account, "self.edit", format!("user {}", account.user));
        deed.before = Some(serde_json::json!({
            "title": account.title, "locale": account.locale, "time_zone": account.time_zone,
            "notify_email": account.notify_email,
        }));
        deed.after = Some(serde_json::json!({
            "title": title, "locale": locale, "time_zone": time_zone, "notify_email": notify,
        }));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}

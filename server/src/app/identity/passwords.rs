//! Changing a password, and setting a forgotten one by a link in a mail.

use crate::app::auth::{Target, Verb, Via};
use crate::app::identity::limits::Guess;
use crate::app::{App, AppError, Principal};
use control::{Account, Password, SecretKind, TokenSecret};
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Page under the public URL that takes the secret of a password link behind the `#`, which no log ever sees.
pub const PASSWORD_LINK: &str = "/password#";

impl App {
    /// Sets the caller's password, who knows the present one. Other login sessions end.
    pub async fn change_password(
        &self,
        caller: &Principal,
        current: Zeroizing<String>,
        new: Zeroizing<String>,
    ) -> Result<(), AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let person = self.person(caller)?;
        let Via::Login { session, .. } = &person.via else {
            return Err(AppError::Forbidden { needed: "a login session" });
        };
        let account = self.own_account(person).await?;
        let now_ns = self.clock.now_ns();
        let login = account.email.clone().unwrap_or_else(|| account.user.to_string());
        let attempt = self.identity.limits.begin(Guess::Login, &login, person.address, now_ns);
        let attempt = attempt.map_err(|retry_after_s| AppError::TooManyAttempts { retry_after_s })?;
        let current = Password::typed(current).ok_or(AppError::WrongCredentials)?;
        if !self.identity.matches(Some(&account), current).await? {
            return Err(AppError::WrongCredentials);
        }
        attempt.was_right();
        let password = Password::chosen(new, &account.names())?;
        let hash = self.identity.hash(password).await?;
        let address = person.address.to_string();
        Ok(self.control.change_password(&account, &hash, Some(*session), &address, now_ns).await?)
    }

    /// Somebody has forgotten the password. Whether there is such an account is not told: the work is done behind the
    /// answer.
    pub fn forgot_password(self: &Arc<Self>, login: String, address: IpAddr) {
        let now_ns = self.clock.now_ns();
        // Mails that somebody else asked for are a nuisance; silence beyond a few.
        if self.identity.limits.begin(Guess::Mail, &login, address, now_ns).is_err() {
            return;
        }
        let app = self.clone();
        tokio::spawn(async move {
            let sent = async {
                let account = app.control.account_by_login(&login).await?.filter(Account::may_log_in);
                let Some(account) = account else { return Ok(()) };
                let base = format!("{}{PASSWORD_LINK}", app.public_url);
                app.control.send_password_reset(&account, &base, &address.to_canonical().to_string(), now_ns).await
            };
            if let Err(error) = sent.await {
                tracing::error!(%error, "the mail for a forgotten password could not be queued");
            }
        });
    }

    /// Sets the password by a link, once.
    pub async fn reset_password(
        &self,
        secret: &str,
        password: Zeroizing<String>,
        address: IpAddr,
    ) -> Result<(), AppError> {
        const GONE: AppError = AppError::NotFound { what: "password link (it works once, and not for long)" };
        let secret = TokenSecret::parse(SecretKind::PasswordReset, secret).ok_or(GONE)?.digest();
        let now_ns = self.clock.now_ns();
        let account = self.control.find_password_reset(&secret, now_ns).await?.filter(Account::may_log_in);
        let account = account.ok_or(GONE)?;
        let password = Password::chosen(password, &account.names())?;
        let hash = self.identity.hash(password).await?;
        let address = address.to_canonical().to_string();
        let set = self.control.use_password_reset(&secret, &account, &hash, &address, now_ns).await;
        set.map_err(|error| match error {
            control::ControlError::NotFound { .. } => GONE,
            other => other.into(),
        })
    }
}

//! Hands mails to the operator's mail server by SMTP. Knows the server and its answers, nothing of the outbox.

use crate::config::{MailSecurity, MailSettings};
use control::OutgoingMail;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use std::time::{Duration, SystemTime};

/// For each step of the conversation with the mail server.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// For all of it: a server that answers a byte at a time must not hold up the mails behind.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Why there is no mailer.
#[derive(Debug, thiserror::Error)]
#[error("mail settings: {0}")]
pub struct MailerError(String);

/// Why a mail is still here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    /// For good: the address does not take it.
    Refused(String),
    /// Not now, or the settings are wrong: try again later.
    Delayed(String),
}

/// A way to the mail server.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    domain: String,
}

impl Mailer {
    /// From checked settings. Reads the password and the certificate; connects to nothing.
    pub fn new(settings: &MailSettings) -> Result<Mailer, MailerError> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| MailerError(format!("{what}: {error}"));
        let from: Mailbox = settings.from.parse().map_err(|error| wrong("mail_from", &error))?;
        let domain = from.email.domain().to_owned();
        let tls = match settings.security {
            MailSecurity::None => Tls::None,
            MailSecurity::Tls | MailSecurity::Starttls => {
                let mut parameters = TlsParameters::builder(settings.host.clone());
                if let Some(file) = &settings.certificate {
                    let pem = std::fs::read(file).map_err(|error| wrong(&file.display().to_string(), &error))?;
                    let certificate = Certificate::from_pem(&pem);
                    parameters = parameters
                        .add_root_certificate(certificate.map_err(|error| wrong(&file.display().to_string(), &error))?);
                }
                let parameters = parameters.build_rustls().map_err(|error| wrong("TLS", &error))?;
                match settings.security {
                    MailSecurity::Tls => Tls::Wrapper(parameters),
                    _ => Tls::Required(parameters),
                }
            }
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .tls(tls)
            .hello_name(ClientId::Domain(domain.clone()))
            .timeout(Some(STEP_TIMEOUT));
        if let Some(user) = &settings.user {
            let password = match &settings.password_file {
                None => String::new(),
                Some(file) => std::fs::read_to_string(file)
                    .map_err(|error| wrong(&file.display().to_string(), &error))?
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            };
            transport = transport.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Mailer { transport: transport.build(), from, domain })
    }

    fn message(&self, mail: &OutgoingMail, now_ns: i64) -> Result<Message, NotSent> {
        let refused = |error: &dyn std::fmt::Display| NotSent::Refused(error.to_string());
        let since_1970 = Duration::from_nanos(u64::try_from(now_ns).unwrap_or(0));
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, mail.address.parse().map_err(|error| refused(&error))?))
            .subject(&mail.text.subject)
            .date(SystemTime::UNIX_EPOCH + since_1970)
            .message_id(Some(format!("<{}@{}>", mail.id, self.domain)))
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.text.body.clone());
        message.map_err(|error| refused(&error))
    }

    /// Sends one mail. The date in it is `now_ns`.
    pub async fn send(&self, mail: &OutgoingMail, now_ns: i64) -> Result<(), NotSent> {
        let message = self.message(mail, now_ns)?;
        match tokio::time::timeout(WHOLE_TIMEOUT, self.transport.send(message)).await {
            Err(_) => Err(NotSent::Delayed("the mail server took too long".into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let text = chain(&error);
                match error.status().map(u16::from) {
                    // About the address or the mail; everything else is about us, the settings or the moment.
                    Some(550..=554 | 556) => Err(NotSent::Refused(text)),
                    _ => Err(NotSent::Delayed(text)),
                }
            }
        }
    }
}

/// An error with what lies beneath it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

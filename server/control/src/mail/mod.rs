//! Mails: what they say, in which language, and the outbox in which they wait for a mail server. Sending is the server's.

mod outbox;
mod template;

pub(crate) use outbox::queue_mail;
pub use outbox::{MailState, NewMail, OutboxMail, OutgoingMail};
pub(crate) use template::word;
pub use template::{LOCALES, MailTemplate, RenderedMail};

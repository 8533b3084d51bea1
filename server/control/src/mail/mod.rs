//! Mails: what they say, in which language, and the outbox in which they wait for a mail server. Sending is the server's.

mod outbox;
mod template;

pub use outbox::{MailState, NewMail, OutboxMail, OutgoingMail};
pub(crate) use outbox::{queue_mail, queue_mail_to_user};
pub(crate) use template::word;
pub use template::{LOCALES, MailTemplate, RenderedMail};

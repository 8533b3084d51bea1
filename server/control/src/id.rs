//! Ids of things in SQL: 16 random bytes, lower-case hexadecimal as text.

use crate::ControlError;
use std::fmt;
use std::str::FromStr;

/// Bytes of an id.
pub const ID_BYTES: usize = 16;

macro_rules! ids {
    ($($(#[$doc:meta])+ $name:ident, $what:literal;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// A new one from the operating system's random source.
            pub fn generate() -> Result<Self, ControlError> {
                let mut bytes = [0; ID_BYTES];
                getrandom::fill(&mut bytes).map_err(|_| ControlError::Random)?;
                Ok($name(bytes))
            }

            /// From its bytes.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                $name(bytes)
            }

            /// The first of its random bytes, to spread what happens at the same time.
            #[allow(dead_code, reason = "not every kind of thing is spread")]
            pub(crate) const fn first_byte(&self) -> u8 {
                self.0[0]
            }

            /// From a column, which only ever holds what this build wrote.
            pub fn stored(text: &str) -> Result<Self, ControlError> {
                text.parse().map_err(|_| ControlError::Corrupt { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ControlError;
            fn from_str(text: &str) -> Result<Self, ControlError> {
                let rule = ControlError::Invalid { what: $what, rule: "must be 32 hexadecimal digits" };
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
                bytes.and_then(|bytes| bytes.try_into().ok()).map($name).ok_or(rule)
            }
        }
    )+};
}

ids! {
/// Names a tenant.
TenantId, "tenant id";
/// Names a user.
UserId, "user id";
/// Names a group of members.
GroupId, "group id";
/// Names a service.
ServiceId, "service id";
/// Names a product.
ProductId, "product id";
    /// Names a mail in the outbox.
    MailId, "mail id";
    /// Names a webhook.
    WebhookId, "webhook id";
    /// Names something sent to a webhook.
    DeliveryId, "delivery id";
    /// Names an export.
    ExportId, "export id";
    /// Names a key of an export.
    ExportKeyId, "key id";
    /// Names a download of an export.
    ExportDownloadId, "download id";
    /// Names a bucket of the index of logs.
    BucketId, "bucket id";
    /// Names a notice.
    NoticeId, "notice id";
/// Names a token of the API that belongs to a person.
ApiTokenId, "API token id";
/// Names a login session.
LoginSessionId, "login session id";
/// Names an invitation.
InvitationId, "invitation id";
/// Names the recovery of an account.
RecoveryId, "recovery id";
    /// Names a computer.
    ComputerId, "computer id";
    /// Names an enrolment.
    EnrolmentId, "enrolment id";
    /// Names a plan.
    PlanId, "plan id";
    /// Names a job.
    JobId, "job id";
    /// Names an order to an agent.
    OrderId, "order id";
}

impl TenantId {
    /// The root of the tree: the platform itself.
    pub const PLATFORM: TenantId = TenantId([0; ID_BYTES]);
}

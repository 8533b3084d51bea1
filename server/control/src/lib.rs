//! Who may: customers, users, vaults, tokens and the operator link, in SQL (SQLite or
//! PostgreSQL). Knows nothing of bytes in a vault, of HTTP, or of the current time: times are arguments, nanoseconds
//! since 1970. The only crate that names sqlx.
#![forbid(unsafe_code)]

mod account;
mod allocation;
mod audit;
mod audit_log;
mod calendar;
mod contact;
mod database;
mod deletion;
mod error;
mod export;
mod gate;
mod group;
mod holding;
mod id;
mod licence_quota;
mod mail;
mod master_key;
mod member;
mod notice;
mod product;
mod quota;
mod removal;
mod retention;
mod scope;
mod secret;
mod service;
mod service_state;
mod tenant;
mod tenant_data;
mod token;
mod webhook;

pub use account::{Customer, DEFAULT_CUSTOMER, User, UserName, Vault};
pub use allocation::{Allocation, AllocationFigures, AllocationRefusal, NewAllocation, Share};
pub use audit_log::{Actor, AuditEntry, Deed};
pub use contact::{ContactKind, ServiceContact};
pub use database::{Control, Engine};
pub use deletion::RemovedVault;
pub use error::ControlError;
pub use export::{ExportPage, ExportPlace};
pub use gate::Gate;
pub use group::{Group, GroupTerms};
pub use holding::{Holding, Location, Place, Role};
pub use id::{
    ApiTokenId, DeliveryId, GroupId, ID_BYTES, MailId, NoticeId, ProductId, ServiceId, TenantId, UserId, WebhookId,
};
pub use mail::{LOCALES, MailState, MailTemplate, NewMail, OutboxMail, OutgoingMail, RenderedMail};
pub use member::{Member, MemberRole};
pub use notice::{Notice, NoticesChanged, QuotaUse, SpaceKind};
pub use product::{Product, ProductTerms, Unit};
pub use quota::{Quota, QuotaLimits, QuotaScope};
pub use removal::{DoomedVault, GRACE_DAYS, RemovalReceipt, TenantStep, UserStep};
pub use retention::{RetentionPolicy, SeriesName, StoredPolicy, UNDELETE_DAYS_DEFAULT, UNDELETE_DAYS_MAX};
pub use scope::{Authority, Scope, ScopePart};
pub use secret::{SecretDigest, SecretKind, TokenSecret};
pub use service::{LicenceChange, NewService, RENEWAL_OPENS_DAYS, Service, UNPAID_DAYS};
pub use service_state::{Licence, ServiceState};
pub use tenant::{NewTenant, TENANT_DEPTH_MAX, Tenant, TenantKind, TenantState};
pub use tenant_data::{CONTACT_FIELDS, LEGAL_FIELDS, TenantChange};
pub use token::{FreshToken, Rights, Token, TokenId, TokenScope, TokenState};
pub use webhook::{Delivery, DeliveryState, EventKind, NewWebhook, OutgoingDelivery, Webhook, WebhookChange};

//! Who may: tenants, users and how they prove who they are, vaults, tokens, in SQL (SQLite or PostgreSQL). Knows nothing
//! of bytes in a vault, of HTTP, or of the current time: times are arguments, nanoseconds since 1970. The only crate that
//! names sqlx.
#![forbid(unsafe_code)]

mod account;
mod allocation;
mod api_token;
mod audit;
mod audit_log;
mod calendar;
mod computer;
mod contact;
mod credential;
mod database;
mod database_export;
mod deletion;
mod email;
mod error;
mod export;
mod export_account;
mod gate;
mod group;
mod holding;
mod id;
mod invitation;
mod job;
mod job_list;
mod job_log;
mod job_run;
mod licence_quota;
mod log_search;
mod login;
mod mail;
mod master_key;
mod member;
mod network;
mod notice;
mod order;
mod password;
mod plan;
mod product;
mod profile;
mod quota;
mod recovery;
mod removal;
mod retention;
mod scope;
mod secret;
mod security;
mod service;
mod service_state;
mod tenant;
mod tenant_data;
mod token;
mod webhook;

pub use account::{Customer, DEFAULT_CUSTOMER, User, UserName, Vault};
pub use allocation::{Allocation, AllocationFigures, AllocationRefusal, NewAllocation, Share};
pub use api_token::{API_TOKENS_MAX, ApiToken, NewApiToken};
pub use audit_log::{Actor, AuditEntry, AuditFilter, AuditPlace, Deed};
pub use computer::{Computer, ComputerState, FreshEnrolment, KnownComputer, SystemWords};
pub use contact::{ContactKind, ServiceContact};
pub use credential::{PASSWORD_RESET_NS, RECOVERY_CODES, RECOVERY_RESET_NS, RecoveryCode, StoredFactor};
pub use database::{Control, Engine};
pub use database_export::{Export, ExportContent, ExportFile, ExportState, NewExport};
pub use deletion::RemovedVault;
pub use email::Email;
pub use error::ControlError;
pub use export::{ExportPage, ExportPlace};
pub use export_account::{ExportDownload, ExportKey, ExportRefusal, NewExportKey};
pub use gate::Gate;
pub use group::{Group, GroupTerms};
pub use holding::{Holding, Location, Place, Role};
pub use id::{
    ApiTokenId, BucketId, ComputerId, DeliveryId, EnrolmentId, ExportDownloadId, ExportId, ExportKeyId, GroupId,
    ID_BYTES, InvitationId, JobId, LoginSessionId, MailId, NoticeId, OrderId, PlanId, ProductId, RecoveryId, ServiceId,
    TenantId, UserId, WebhookId,
};
pub use invitation::{
    Accepted, INVITATION_NS, Invitation, InvitationKind, InvitationState, NewInvitation, Newcomer, ServiceOffer,
};
pub use job::{Job, JobCause, JobCounts, JobKind, JobState, LOST, NOT_ENDED_NS};
pub use job_list::{JOB_STATE_ORDER, JobCursor, JobFilter, JobSort, ListedJob};
pub use job_log::{JOB_LOG_LINE_BYTES_MAX, JOB_LOG_LINES_MAX, LogLevel, LogLine};
pub use job_run::{BeginJob, EndJob};
pub use log_search::{FoundLog, FoundLogs, LogCursor};
pub use login::{Account, FreshLogin, LOGIN_SESSION_NS, LOGIN_SESSIONS_MAX, LoginSession, STEP_UP_NS, UserState};
pub use mail::{LOCALES, MailState, MailTemplate, NewMail, OutboxMail, OutgoingMail, RenderedMail};
pub use member::{Member, MemberRole};
pub use network::{NETWORKS_MAX, Network};
pub use notice::{Notice, NoticesChanged, QuotaUse, SpaceKind};
pub use order::{Order, OrderKind};
pub use password::{PASSWORD_BYTES_MAX, PASSWORD_CHARACTERS_MIN, Password, PasswordHash};
pub use plan::{Due, NewRevision, Plan, PlanRevision, PlanState};
pub use product::{ExportTerms, Product, ProductTerms, Unit};
pub use profile::ProfileChange;
pub use quota::{Quota, QuotaLimits, QuotaScope};
pub use recovery::{RECOVERY_DELAY_NS, Recovery, RecoveryState};
pub use removal::{DoomedVault, GRACE_DAYS, RemovalReceipt, TenantStep, UserStep};
pub use retention::{RetentionPolicy, SeriesName, StoredPolicy, UNDELETE_DAYS_DEFAULT, UNDELETE_DAYS_MAX};
pub use scope::{Authority, Scope, ScopePart};
pub use secret::{SecretDigest, SecretKind, TokenSecret};
pub use security::{IDLE_MINUTES, SecondFactorRule, SecurityPolicy};
pub use service::{LicenceChange, NewService, RENEWAL_OPENS_DAYS, Service, UNPAID_DAYS};
pub use service_state::{Licence, ServiceState};
pub use tenant::{NewTenant, TENANT_DEPTH_MAX, Tenant, TenantKind, TenantState};
pub use tenant_data::{CONTACT_FIELDS, LEGAL_FIELDS, TenantChange};
pub use token::{FreshToken, Rights, Token, TokenId, TokenScope, TokenState};
pub use webhook::{Delivery, DeliveryState, EventKind, NewWebhook, OutgoingDelivery, Webhook, WebhookChange};

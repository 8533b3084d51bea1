//! Who may: customers, users, vaults, tokens and the operator link, in SQL (SQLite or
//! PostgreSQL). Knows nothing of bytes in a vault, of HTTP, or of the current time: times are arguments, nanoseconds
//! since 1970. The only crate that names sqlx.
#![forbid(unsafe_code)]

mod account;
mod audit;
mod audit_log;
mod database;
mod deletion;
mod error;
mod holding;
mod id;
mod master_key;
mod quota;
mod retention;
mod scope;
mod secret;
mod tenant;
mod token;

pub use account::{Customer, DEFAULT_CUSTOMER, User, UserName, Vault};
pub use audit_log::{Actor, AuditEntry, Deed};
pub use database::{Control, Engine};
pub use deletion::RemovedVault;
pub use error::ControlError;
pub use holding::{Holding, Location, Place, Role};
pub use id::{ApiTokenId, GroupId, ID_BYTES, ServiceId, TenantId, UserId};
pub use quota::{Quota, QuotaLimits, QuotaScope};
pub use retention::{RetentionPolicy, SeriesName, StoredPolicy, UNDELETE_DAYS_DEFAULT, UNDELETE_DAYS_MAX};
pub use scope::{Authority, Scope, ScopePart};
pub use secret::{SecretDigest, SecretKind, TokenSecret};
pub use tenant::{NewTenant, TENANT_DEPTH_MAX, Tenant, TenantKind, TenantState};
pub use token::{FreshToken, Rights, Token, TokenId, TokenScope, TokenState};

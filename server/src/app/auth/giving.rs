//! Whether somebody who has given something away could still give it: asked when it is taken.

use super::{Person, Principal, Target, Verb, Via};
use crate::app::{App, AppError};
use control::{Location, LoginSessionId, MemberRole, Role, TenantId, TenantKind, UserId};
use std::net::{IpAddr, Ipv4Addr};

/// The role that a membership gives in a tenant of a kind.
pub(crate) const fn role_in(role: MemberRole, kind: TenantKind) -> Role {
    match (role, kind) {
        (MemberRole::Admin, TenantKind::Platform) => Role::Operator,
        (MemberRole::Admin, TenantKind::Partner) => Role::PartnerAdmin,
        (MemberRole::Admin, TenantKind::Customer) => Role::CustomerAdmin,
        (MemberRole::User, _) => Role::BackupUser,
        (MemberRole::Auditor, _) => Role::Auditor,
    }
}

impl App {
    /// Refuses unless a person holds a verb in a tenant now, and may give a role there.
    pub(crate) async fn check_could_give(
        &self,
        user: UserId,
        verb: Verb,
        tenant: TenantId,
        role: Option<Role>,
        at: &Location,
    ) -> Result<(), AppError> {
        let holdings = self.control.holdings(&user).await?;
        // The person as if logged in with a fresh factor: what counts is what is held.
        let giver = Principal::Person(Box::new(Person {
            user,
            name: String::new(),
            tenant,
            holdings,
            via: Via::Login {
                session: LoginSessionId::from_bytes([0; 16]),
                second_factor_missing: false,
                step_up_until_ns: i64::MAX,
            },
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }));
        self.allow(&giver, verb, Target::Tenant(tenant)).await?;
        match role {
            Some(role) => self.check_may_give(&giver, role, at),
            None => Ok(()),
        }
    }
}

//! What somebody may reach, as a value without which no query over tenants runs. Only the holder of the [`Authority`]
//! makes one, and there is one authority in a process.

use crate::{ServiceId, TenantId, UserId};
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes scopes. Taken once, by whoever decides about rights.
#[derive(Debug)]
pub struct Authority(());

/// Where the authority of one database is.
#[derive(Debug, Default)]
pub(crate) struct AuthorityPlace(AtomicBool);

impl AuthorityPlace {
    /// The first caller gets it.
    pub(crate) fn take(&self) -> Option<Authority> {
        (!self.0.swap(true, Ordering::AcqRel)).then_some(Authority(()))
    }
}

/// One part of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScopePart {
    /// A tenant and everything below it.
    Subtree(TenantId),
    /// Everything below a tenant, without the tenant itself.
    Below(TenantId),
    /// One tenant alone.
    Tenant(TenantId),
    /// What users have under one service.
    Service(ServiceId),
    /// What belongs to one user.
    User(UserId),
    /// Of some parts only what lies in a tenant's subtree.
    Both(Vec<ScopePart>, TenantId),
}

/// What a caller may reach with one verb: the union of its parts; nothing without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    parts: Vec<ScopePart>,
}

impl Scope {
    /// Of some parts, by whoever decides about rights.
    pub fn new(_: &Authority, parts: Vec<ScopePart>) -> Self {
        Scope { parts }
    }

    /// Its parts.
    pub fn parts(&self) -> &[ScopePart] {
        &self.parts
    }

    /// A condition for a WHERE clause. `tenant` and `user` are columns with the ids of a row's tenant and user (`user` may
    /// be NULL in a row, and absent where rows belong to tenants only). Ids are hexadecimal, so they stand in the text.
    pub(crate) fn condition(&self, tenant: &str, user: Option<&str>) -> String {
        any_of(&self.parts, tenant, user)
    }

    /// As [`Scope::condition`], for rows of services: through a service one sees that one alone, as a user those of
    /// which one was given a part.
    pub(crate) fn service_condition(&self, service: &str, tenant: &str) -> String {
        services_of(&self.parts, service, tenant)
    }
}

fn services_of(parts: &[ScopePart], service: &str, tenant: &str) -> String {
    let mut alternatives = Vec::new();
    for part in parts {
        alternatives.push(match part {
            ScopePart::Service(id) => format!("{service} = '{id}'"),
            ScopePart::User(id) => {
                format!("{service} IN (SELECT given.service_id FROM allocations AS given WHERE given.user_id = '{id}')")
            }
            ScopePart::Both(parts, id) => format!(
                "({} AND {})",
                services_of(parts, service, tenant),
                any_of(&[ScopePart::Subtree(*id)], tenant, None)
            ),
            other => any_of(std::slice::from_ref(other), tenant, None),
        });
    }
    match alternatives.is_empty() {
        true => "1 = 0".into(),
        false => format!("({})", alternatives.join(" OR ")),
    }
}

fn any_of(parts: &[ScopePart], tenant: &str, user: Option<&str>) -> String {
    {
        let mut alternatives = Vec::new();
        for part in parts {
            match (part, user) {
                (ScopePart::Subtree(id), _) if *id == TenantId::PLATFORM => return "1 = 1".into(),
                (ScopePart::Subtree(id), _) => alternatives.push(format!(
                    "{tenant} IN (SELECT below.id FROM tenants AS below WHERE below.path LIKE '%{id}/%')"
                )),
                (ScopePart::Both(parts, id), _) => alternatives.push(format!(
                    "({} AND {})",
                    any_of(parts, tenant, user),
                    any_of(&[ScopePart::Subtree(*id)], tenant, user)
                )),
                (ScopePart::Below(id), _) => alternatives.push(format!(
                    "{tenant} IN (SELECT below.id FROM tenants AS below WHERE below.path LIKE '%{id}/_%')"
                )),
                (ScopePart::Tenant(id), _) => alternatives.push(format!("{tenant} = '{id}'")),
                (ScopePart::Service(id), Some(user)) => alternatives.push(format!(
                    "{user} IN (SELECT given.user_id FROM allocations AS given WHERE given.service_id = '{id}')"
                )),
                (ScopePart::User(id), Some(user)) => alternatives.push(format!("{user} = '{id}'")),
                // Through a service or as a user one sees the tenant that it belongs to.
                (ScopePart::Service(id), None) => alternatives.push(format!(
                    "{tenant} IN (SELECT bought.tenant_id FROM services AS bought WHERE bought.id = '{id}')"
                )),
                (ScopePart::User(id), None) => alternatives.push(format!(
                    "{tenant} IN (SELECT belongs.tenant_id FROM users AS belongs WHERE belongs.id = '{id}')"
                )),
            }
        }
        match alternatives.is_empty() {
            true => "1 = 0".into(),
            false => format!("({})", alternatives.join(" OR ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reached_without_a_part_and_everything_with_the_platform() {
        let authority = AuthorityPlace::default().take().unwrap();
        assert_eq!(Scope::new(&authority, vec![]).condition("t", Some("u")), "1 = 0");
        let all = Scope::new(
            &authority,
            vec![ScopePart::User(UserId::from_bytes([1; 16])), ScopePart::Subtree(TenantId::PLATFORM)],
        );
        assert_eq!(all.condition("t", Some("u")), "1 = 1");
    }

    #[test]
    fn there_is_one_authority() {
        let place = AuthorityPlace::default();
        assert!(place.take().is_some());
        assert!(place.take().is_none());
    }
}

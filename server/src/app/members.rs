//! Who belongs to a tenant, its owner, its groups. Nobody gives more than they hold.

use crate::app::error::or_not_found;
use crate::app::{Allowed, App, AppError, Principal, Target, Verb};
use control::{
    Allocation, Group, GroupId, GroupTerms, Location, Member, MemberRole, Role, ServiceId, Share, TenantId, TenantKind,
    UserId,
};

/// What a membership makes of somebody in a tenant of a kind.
pub const fn role_of(kind: TenantKind, role: MemberRole) -> Role {
    match (role, kind) {
        (MemberRole::Admin, TenantKind::Platform) => Role::Operator,
        (MemberRole::Admin, TenantKind::Partner) => Role::PartnerAdmin,
        (MemberRole::Admin, TenantKind::Customer) => Role::CustomerAdmin,
        (MemberRole::Auditor, _) => Role::Auditor,
        (MemberRole::User, _) => Role::BackupUser,
    }
}

impl App {
    /// Members of a tenant that the caller sees, by name.
    pub async fn members(
        &self,
        caller: &Principal,
        tenant: TenantId,
        after: Option<(&str, UserId)>,
        limit: u32,
    ) -> Result<Vec<Member>, AppError> {
        self.allow(caller, Verb::USER_VIEW, Target::Tenant(tenant)).await?;
        // A user sees the tenant, and of its members only itself.
        let reach = self.reach(caller, Verb::USER_VIEW).await?;
        Ok(self.control.members(&reach.scope, &tenant, after, limit).await?)
    }

    /// Sets the roles of a member as a whole.
    pub async fn set_roles(
        &self,
        caller: &Principal,
        tenant: TenantId,
        user: UserId,
        roles: &[MemberRole],
    ) -> Result<Member, AppError> {
        let allowed = self.allow(caller, Verb::USER_INVITE, Target::Tenant(tenant)).await?;
        let kind = self.control.tenant(&allowed.scope, &tenant).await.map_err(or_not_found)?.kind;
        let before = self.control.member(&tenant, &user).await.map_err(or_not_found)?;
        // Taking a role away that one could not give is no less.
        for role in roles.iter().chain(&before.roles) {
            self.check_may_give(caller, role_of(kind, *role), &allowed.at)?;
        }
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let set = self.control.set_roles(scope, actor, &tenant, &user, roles, self.clock.now_ns()).await;
        set.map_err(or_not_found)
    }

    /// Takes a member out of a tenant where the person is not at home.
    pub async fn remove_member(&self, caller: &Principal, tenant: TenantId, user: UserId) -> Result<(), AppError> {
        let allowed = self.allow(caller, Verb::USER_DELETE, Target::Tenant(tenant)).await?;
        let kind = self.control.tenant(&allowed.scope, &tenant).await.map_err(or_not_found)?.kind;
        for role in self.control.member(&tenant, &user).await.map_err(or_not_found)?.roles {
            self.check_may_give(caller, role_of(kind, role), &allowed.at)?;
        }
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let removed = self.control.remove_member(scope, actor, &tenant, &user, self.clock.now_ns()).await;
        removed.map_err(or_not_found)
    }

    /// Offers the tenant to one of its administrators; gives when the offer ends.
    pub async fn offer_owner(&self, caller: &Principal, tenant: TenantId, user: UserId) -> Result<i64, AppError> {
        let allowed = self.allow(caller, Verb::OWNER_CHANGE, Target::Tenant(tenant)).await?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let offered = self.control.offer_owner(scope, actor, &tenant, &user, self.clock.now_ns()).await;
        offered.map_err(or_not_found)
    }

    /// The caller takes a tenant that was offered.
    pub async fn accept_owner(&self, caller: &Principal, tenant: TenantId) -> Result<Member, AppError> {
        let allowed = self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let Some(user) = caller.user() else { return Err(AppError::NotFound { what: "offer" }) };
        self.control.accept_owner(&allowed.actor, &tenant, &user, self.clock.now_ns()).await.map_err(or_not_found)
    }

    /// An administrator who wants to back up own computers: the role of a user, and a part of a service of the tenant.
    pub async fn back_up_mine(
        &self,
        caller: &Principal,
        tenant: TenantId,
        service: ServiceId,
        share: &Share,
    ) -> Result<Allocation, AppError> {
        self.allow(caller, Verb::ALLOCATION_SET, Target::Tenant(tenant)).await?;
        let Some(user) = caller.user() else {
            return Err(AppError::Invalid("only a person who has logged in has computers of its own".into()));
        };
        // A contact of one service gives nothing of the customer's others.
        let allowed = self.allow(caller, Verb::ALLOCATION_SET, Target::Service(service)).await?;
        let bought = self.control.service(&allowed.scope, &service).await.map_err(or_not_found)?;
        if bought.tenant != tenant {
            return Err(AppError::NotFound { what: "service" });
        }
        // The share first: without it the role would be of no use.
        let made = self.give(&allowed, service, user, share).await?;
        let added = self.control.add_user_role(&allowed.actor, &tenant, &user, self.clock.now_ns()).await;
        added.map_err(or_not_found)?;
        Ok(made)
    }

    async fn allow_group(&self, caller: &Principal, verb: Verb, id: GroupId) -> Result<Allowed, AppError> {
        let at = self.control.locate_group(&id).await?;
        self.allow(caller, verb, Target::Located("group", at)).await
    }

    fn check_holds_all(&self, caller: &Principal, verbs: &[String], at: &Location) -> Result<(), AppError> {
        for name in verbs {
            let verb = Verb::named(name).ok_or_else(|| AppError::Invalid(format!("verbs: there is no verb {name}")))?;
            self.check_holds(caller, verb, at)?;
        }
        Ok(())
    }

    /// The groups of a partner.
    pub async fn groups(&self, caller: &Principal, tenant: TenantId) -> Result<Vec<Group>, AppError> {
        let allowed = self.allow(caller, Verb::GROUP_VIEW, Target::Tenant(tenant)).await?;
        Ok(self.control.groups(&allowed.scope, &tenant).await?)
    }

    /// One group.
    pub async fn group(&self, caller: &Principal, id: GroupId) -> Result<Group, AppError> {
        let allowed = self.allow_group(caller, Verb::GROUP_VIEW, id).await?;
        self.control.group(&allowed.scope, &id).await.map_err(or_not_found)
    }

    /// Makes a group that gives no more than the caller holds.
    pub async fn create_group(
        &self,
        caller: &Principal,
        tenant: TenantId,
        terms: &GroupTerms,
    ) -> Result<Group, AppError> {
        let allowed = self.allow(caller, Verb::GROUP_MANAGE, Target::Tenant(tenant)).await?;
        self.check_holds_all(caller, &terms.verbs, &allowed.at)?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let made = self.control.create_group(scope, actor, &tenant, terms, self.clock.now_ns()).await;
        made.map_err(or_not_found)
    }

    /// Changes what a group gives.
    pub async fn edit_group(&self, caller: &Principal, id: GroupId, terms: &GroupTerms) -> Result<Group, AppError> {
        let allowed = self.allow_group(caller, Verb::GROUP_MANAGE, id).await?;
        self.check_holds_all(caller, &terms.verbs, &allowed.at)?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        self.control.edit_group(scope, actor, &id, terms, self.clock.now_ns()).await.map_err(or_not_found)
    }

    /// Removes a group.
    pub async fn delete_group(&self, caller: &Principal, id: GroupId) -> Result<(), AppError> {
        let allowed = self.allow_group(caller, Verb::GROUP_MANAGE, id).await?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        self.control.delete_group(scope, actor, &id, self.clock.now_ns()).await.map_err(or_not_found)
    }

    /// Puts somebody into a group, or takes somebody out.
    pub async fn set_group_member(
        &self,
        caller: &Principal,
        id: GroupId,
        user: UserId,
        is_member: bool,
    ) -> Result<Group, AppError> {
        let allowed = self.allow_group(caller, Verb::GROUP_MANAGE, id).await?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        if is_member {
            let group = self.control.group(scope, &id).await.map_err(or_not_found)?;
            self.check_holds_all(caller, &group.terms.verbs, &allowed.at)?;
        }
        let set = self.control.set_group_member(scope, actor, &id, &user, is_member, self.clock.now_ns()).await;
        set.map_err(or_not_found)
    }
}

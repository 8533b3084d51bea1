//! The permission matrix: which role may do what, read from `permissions.csv`, and the one function that decides by it.
//! Nothing here asks a database or a clock.
//!
//! Cells: `Y` allowed where the role counts; `o` for what belongs to the caller; `s` under the service whose contact the
//! caller is; `g` if the group gives the verb; `a` only with the customer's support access; nothing: no.

use control::{Holding, Location, Place, Role, ScopePart, UserId};
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// The data.
pub const PERMISSIONS: &str = include_str!("permissions.csv");

/// An action, by its name in the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Verb(&'static str);

impl Verb {
    /// By name; `None` for a word that is no verb.
    pub fn named(name: &str) -> Option<Verb> {
        MATRIX.rows.get_key_value(name).map(|(name, _)| Verb(name))
    }

    /// All of them, by name.
    pub fn all() -> Vec<Verb> {
        let mut all: Vec<Verb> = MATRIX.rows.keys().map(|name| Verb(name)).collect();
        all.sort();
        all
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether it asks for a fresh factor.
    pub fn needs_step_up(self) -> bool {
        MATRIX.rows.get(self.0).is_some_and(|row| row.step_up)
    }

    /// Whether it is about the caller's own person, which everybody may keep in order.
    pub fn is_about_oneself(self) -> bool {
        self.0.starts_with("self.")
    }

    /// Whether every role holds it without a condition.
    pub fn is_everybodys(self) -> bool {
        MATRIX.rows.get(self.0).is_some_and(|row| row.cells.iter().all(|cell| *cell == Cell::Yes))
    }

    /// The cell of a role.
    pub fn cell(self, role: Role) -> Cell {
        MATRIX.rows.get(self.0).and_then(|row| row.cells.get(role as usize)).copied().unwrap_or(Cell::No)
    }
}

impl fmt::Debug for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! verbs {
    ($($constant:ident = $name:literal;)+) => {
        impl Verb {
            $(#[doc = concat!("`", $name, "`.")] pub const $constant: Verb = Verb($name);)+
        }

        #[cfg(test)]
        const NAMED: &[Verb] = &[$(Verb::$constant),+];
    };
}

verbs! {
    TENANT_VIEW = "tenant.view";
    TENANT_EDIT = "tenant.edit";
    TENANT_INVITE_CHILD = "tenant.invite_child";
    TENANT_DISCONNECT = "tenant.disconnect";
    TENANT_DELETE = "tenant.delete";
    TENANT_EXPORT = "tenant.export";
    PRODUCT_VIEW = "product.view";
    PRODUCT_EDIT = "product.edit";
    SERVICE_VIEW = "service.view";
    SERVICE_ORDER = "service.order";
    SERVICE_RENEW = "service.renew";
    SERVICE_CANCEL = "service.cancel";
    SERVICE_TERMINATE = "service.terminate";
    LICENCE_MANAGE = "licence.manage";
    PAYMENT_CONFIRM = "payment.confirm";
    USER_VIEW = "user.view";
    USER_INVITE = "user.invite";
    USER_DISABLE = "user.disable";
    USER_DELETE = "user.delete";
    USER_RECOVER = "user.recover";
    OWNER_CHANGE = "owner.change";
    GROUP_VIEW = "group.view";
    GROUP_MANAGE = "group.manage";
    ALLOCATION_VIEW = "allocation.view";
    ALLOCATION_SET = "allocation.set";
    CONTACT_VIEW = "contact.view";
    CONTACT_SET = "contact.set";
    COMPUTER_VIEW = "computer.view";
    COMPUTER_ADD = "computer.add";
    COMPUTER_RETIRE = "computer.retire";
    COMPUTER_REPLACE = "computer.replace";
    PLAN_VIEW = "plan.view";
    PLAN_EDIT = "plan.edit";
    BACKUP_START = "backup.start";
    JOB_VIEW = "job.view";
    JOB_CANCEL = "job.cancel";
    SNAPSHOT_LIST = "snapshot.list";
    CONTENT_BROWSE = "content.browse";
    CONTENT_RESTORE = "content.restore";
    SNAPSHOT_DELETE = "snapshot.delete";
    SNAPSHOT_PURGE = "snapshot.purge";
    SNAPSHOT_HOLD = "snapshot.hold";
    SNAPSHOT_RELEASE = "snapshot.release";
    WEBHOOK_VIEW = "webhook.view";
    WEBHOOK_EDIT = "webhook.edit";
    NOTICE_VIEW = "notice.view";
    NOTICE_EDIT = "notice.edit";
    EXPORT_VIEW = "export.view";
    EXPORT_REQUEST = "export.request";
    EXPORT_DOWNLOAD = "export.download";
    EXPORT_RELEASE = "export.release";
    SECURITY_VIEW = "security.view";
    SECURITY_EDIT = "security.edit";
    SUPPORT_ACCESS_SWITCH = "support_access.switch";
    AUDIT_VIEW = "audit.view";
    OUTBOX_VIEW = "outbox.view";
    OUTBOX_EDIT = "outbox.edit";
    STORAGE_ADMIN = "storage.admin";
    SELF_VIEW = "self.view";
    SELF_EDIT = "self.edit";
    SELF_SECURE = "self.secure";
}

/// What a role may do with a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    No,
    /// Anything where the role counts.
    Yes,
    /// With what belongs to the caller.
    Own,
    /// Under the service whose contact the caller is.
    OwnService,
    /// If the group gives the verb.
    IfGiven,
    /// With the customer's support access; for a group also only if it gives the verb.
    WithSupportAccess,
}

struct Row {
    step_up: bool,
    cells: [Cell; ROLES.len()],
}

struct Matrix {
    rows: HashMap<&'static str, Row>,
}

/// In the order of the columns, which is the order of the enum.
pub const ROLES: [(Role, &str); 9] = [
    (Role::Operator, "OP"),
    (Role::PartnerAdmin, "PA"),
    (Role::PartnerGroup, "PG"),
    (Role::CustomerAdmin, "CA"),
    (Role::AdminContact, "AC"),
    (Role::TechnicalContact, "TC"),
    (Role::BillingContact, "BC"),
    (Role::BackupUser, "BU"),
    (Role::Auditor, "RO"),
];

static MATRIX: LazyLock<Matrix> = LazyLock::new(|| {
    let mut rows = HashMap::new();
    for line in PERMISSIONS.lines().skip(1) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or_default();
        let step_up = fields.next() == Some("step-up");
        let mut cells = [Cell::No; ROLES.len()];
        for (cell, text) in cells.iter_mut().zip(fields) {
            // A test holds every cell to these letters; anything else gives nothing.
            *cell = match text {
                "Y" => Cell::Yes,
                "o" => Cell::Own,
                "s" => Cell::OwnService,
                "g" => Cell::IfGiven,
                "a" => Cell::WithSupportAccess,
                _ => Cell::No,
            };
        }
        rows.insert(name, Row { step_up, cells });
    }
    Matrix { rows }
});

/// Whose rights are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Everything the person holds.
    pub holdings: &'a [Holding],
    /// The person; nobody for the operator's own credentials.
    pub user: Option<UserId>,
    /// Nanoseconds since 1970, for support access.
    pub now_ns: i64,
}

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed,
    /// The caller sees the object, but may not do this.
    Forbidden,
    /// For the caller there is no such object.
    Unseen,
}

/// Whether the place of a holding reaches an object.
fn reaches(place: &Place, at: &Location) -> bool {
    match place {
        Place::Subtree(tenant) => at.path.contains(tenant),
        Place::CustomersOf(tenant) => at.path.contains(tenant) && at.tenant() != Some(*tenant),
        Place::Customers(tenants) => tenants.iter().any(|tenant| at.path.contains(tenant)),
        Place::Service { service, .. } => at.services.contains(service),
        Place::Own { user, tenant } => match at.user {
            Some(owner) => owner == *user,
            // The tenant itself, which its users see.
            None => at.tenant() == Some(*tenant),
        },
    }
}

/// The one decision: may the asker do this to an object there?
pub fn decide(asker: Asker<'_>, verb: Verb, at: &Location) -> Decision {
    let mut seen = false;
    for holding in asker.holdings {
        if !reaches(&holding.place, at) {
            continue;
        }
        seen = true;
        let given = holding.role != Role::PartnerGroup || holding.verbs.iter().any(|name| name == verb.as_str());
        let allowed = match verb.cell(holding.role) {
            Cell::No => false,
            Cell::Yes | Cell::OwnService => true,
            Cell::Own => asker.user.is_some() && (at.user == asker.user || at.user.is_none()),
            Cell::IfGiven => given,
            Cell::WithSupportAccess => given && at.support_access_until_ns > asker.now_ns,
        };
        if allowed {
            return Decision::Allowed;
        }
    }
    if seen { Decision::Forbidden } else { Decision::Unseen }
}

/// Whether the asker holds a verb at a place in whatever form, so that it may be handed on there: what is the asker's
/// own, or needs support access, stays so for whoever it is handed to.
pub fn holds(asker: Asker<'_>, verb: Verb, at: &Location) -> bool {
    asker.holdings.iter().any(|holding| {
        let given = holding.role != Role::PartnerGroup || holding.verbs.iter().any(|name| name == verb.as_str());
        given && reaches(&holding.place, at) && verb.cell(holding.role) != Cell::No
    })
}

/// What the asker reaches with a verb, for lists. Support access, which differs from tenant to tenant, counts for
/// single objects only.
pub fn reach(asker: Asker<'_>, verb: Verb) -> Vec<ScopePart> {
    let mut parts = Vec::new();
    for holding in asker.holdings {
        let own = || asker.user.map(ScopePart::User);
        match (verb.cell(holding.role), &holding.place) {
            (Cell::No | Cell::WithSupportAccess, _) => {}
            (Cell::IfGiven, _) if !holding.verbs.iter().any(|name| name == verb.as_str()) => {}
            (Cell::Own, _) | (_, Place::Own { .. }) => parts.extend(own()),
            (_, Place::Subtree(tenant)) => parts.push(ScopePart::Subtree(*tenant)),
            (_, Place::CustomersOf(tenant)) => parts.push(ScopePart::Below(*tenant)),
            (_, Place::Customers(tenants)) => parts.extend(tenants.iter().copied().map(ScopePart::Subtree)),
            (_, Place::Service { service, .. }) => parts.push(ScopePart::Service(*service)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{ServiceId, TenantId};

    #[test]
    fn every_line_of_the_matrix_is_whole_and_has_a_constant() {
        let mut lines = PERMISSIONS.lines();
        let columns: Vec<&str> = ROLES.iter().map(|(_, name)| *name).collect();
        assert_eq!(lines.next().unwrap(), format!("verb,step_up,{}", columns.join(",")));
        for (number, (role, _)) in ROLES.iter().enumerate() {
            assert_eq!(*role as usize, number);
        }
        let mut names = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields.len(), 2 + ROLES.len(), "{line}");
            assert!(matches!(fields[1], "" | "step-up"), "{line}");
            assert!(fields[2..].iter().all(|cell| matches!(*cell, "" | "Y" | "o" | "s" | "g" | "a")), "{line}");
            names.push(fields[0]);
        }
        let mut constants: Vec<&str> = NAMED.iter().map(|verb| verb.as_str()).collect();
        let written = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), written, "a verb stands twice");
        constants.sort_unstable();
        assert_eq!(names, constants);
        assert_eq!(Verb::named("plan.edit"), Some(Verb::PLAN_EDIT));
        assert_eq!(Verb::named("no.such"), None);
    }

    fn tenant(number: u8) -> TenantId {
        TenantId::from_bytes([number; 16])
    }

    fn user(number: u8) -> UserId {
        UserId::from_bytes([number; 16])
    }

    fn held(role: Role, place: Place) -> Vec<Holding> {
        vec![Holding { role, place, verbs: vec!["plan.edit".into(), "user.invite".into()] }]
    }

    /// A user (7) of customer 3 below partner 2, with an allocation of service 9.
    fn at() -> Location {
        Location {
            path: vec![TenantId::PLATFORM, tenant(2), tenant(3)],
            user: Some(user(7)),
            services: vec![ServiceId::from_bytes([9; 16])],
            support_access_until_ns: 100,
        }
    }

    fn ask(holdings: &[Holding], who: Option<UserId>, verb: Verb, now_ns: i64) -> Decision {
        decide(Asker { holdings, user: who, now_ns }, verb, &at())
    }

    #[test]
    fn those_above_manage_and_look_inside_only_with_support_access() {
        use Decision::{Allowed, Forbidden, Unseen};
        let partner = held(Role::PartnerAdmin, Place::Subtree(tenant(2)));
        assert_eq!(ask(&partner, None, Verb::USER_INVITE, 0), Allowed);
        assert_eq!(ask(&partner, None, Verb::CONTENT_BROWSE, 99), Allowed);
        assert_eq!(ask(&partner, None, Verb::CONTENT_BROWSE, 100), Forbidden);
        let other = held(Role::PartnerAdmin, Place::Subtree(tenant(4)));
        assert_eq!(ask(&other, None, Verb::TENANT_VIEW, 0), Unseen);
        let operator = held(Role::Operator, Place::Subtree(TenantId::PLATFORM));
        assert_eq!(ask(&operator, None, Verb::CONTENT_BROWSE, 0), Forbidden);
        assert_eq!(ask(&operator, None, Verb::STORAGE_ADMIN, 0), Allowed);
        let auditor = held(Role::Auditor, Place::Subtree(tenant(3)));
        assert_eq!(ask(&auditor, Some(user(1)), Verb::JOB_VIEW, 0), Allowed);
        assert_eq!(ask(&auditor, Some(user(1)), Verb::CONTENT_BROWSE, 0), Forbidden);
    }

    #[test]
    fn a_group_gives_what_it_lists_where_it_counts() {
        use Decision::{Allowed, Forbidden, Unseen};
        let all = held(Role::PartnerGroup, Place::CustomersOf(tenant(2)));
        assert_eq!(ask(&all, None, Verb::USER_INVITE, 0), Allowed);
        assert_eq!(ask(&all, None, Verb::USER_DISABLE, 0), Forbidden);
        assert_eq!(ask(&all, None, Verb::PLAN_EDIT, 99), Allowed);
        assert_eq!(ask(&all, None, Verb::PLAN_EDIT, 100), Forbidden);
        let some = held(Role::PartnerGroup, Place::Customers(vec![tenant(5)]));
        assert_eq!(ask(&some, None, Verb::USER_INVITE, 0), Unseen);
        let partner_itself = Location { path: vec![TenantId::PLATFORM, tenant(2)], ..Location::default() };
        let asker = Asker { holdings: &all, user: None, now_ns: 0 };
        assert_eq!(decide(asker, Verb::USER_INVITE, &partner_itself), Unseen);
    }

    #[test]
    fn users_and_contacts_reach_what_is_theirs() {
        use Decision::{Allowed, Forbidden, Unseen};
        let own = held(Role::BackupUser, Place::Own { user: user(7), tenant: tenant(3) });
        assert_eq!(ask(&own, Some(user(7)), Verb::CONTENT_RESTORE, 0), Allowed);
        assert_eq!(ask(&own, Some(user(7)), Verb::USER_INVITE, 0), Forbidden);
        let colleague = held(Role::BackupUser, Place::Own { user: user(8), tenant: tenant(3) });
        assert_eq!(ask(&colleague, Some(user(8)), Verb::CONTENT_RESTORE, 0), Unseen);
        let customer = Location { user: None, services: Vec::new(), ..at() };
        let asker = Asker { holdings: &colleague, user: Some(user(8)), now_ns: 0 };
        assert_eq!(decide(asker, Verb::TENANT_VIEW, &customer), Allowed);
        assert_eq!(decide(asker, Verb::TENANT_EDIT, &customer), Forbidden);

        let administrator = held(Role::CustomerAdmin, Place::Subtree(tenant(3)));
        assert_eq!(ask(&administrator, Some(user(8)), Verb::PLAN_EDIT, 0), Allowed);
        assert_eq!(ask(&administrator, Some(user(8)), Verb::CONTENT_BROWSE, 0), Forbidden, "another person's content");
        assert_eq!(ask(&administrator, Some(user(7)), Verb::CONTENT_BROWSE, 0), Allowed, "one's own");

        let place = |number| Place::Service { service: ServiceId::from_bytes([number; 16]), tenant: tenant(3) };
        let technical = held(Role::TechnicalContact, place(9));
        assert_eq!(ask(&technical, Some(user(8)), Verb::BACKUP_START, 0), Allowed);
        assert_eq!(ask(&technical, Some(user(8)), Verb::ALLOCATION_SET, 0), Forbidden);
        let elsewhere = held(Role::TechnicalContact, place(10));
        assert_eq!(ask(&elsewhere, Some(user(8)), Verb::BACKUP_START, 0), Unseen);
    }

    #[test]
    fn lists_reach_as_far_as_the_cells_say() {
        let mut holdings = held(Role::PartnerGroup, Place::CustomersOf(tenant(2)));
        holdings.extend(held(Role::BackupUser, Place::Own { user: user(7), tenant: tenant(3) }));
        let asker = Asker { holdings: &holdings, user: Some(user(7)), now_ns: 0 };
        assert_eq!(reach(asker, Verb::USER_INVITE), [ScopePart::Below(tenant(2))]);
        assert_eq!(reach(asker, Verb::PLAN_VIEW), [ScopePart::User(user(7))]);
        assert_eq!(reach(asker, Verb::CONTENT_BROWSE), [ScopePart::User(user(7))]);
        assert!(reach(asker, Verb::STORAGE_ADMIN).is_empty());
    }
}

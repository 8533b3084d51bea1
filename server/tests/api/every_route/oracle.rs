//! What the matrix says, worked out anew from the two data files: nothing of the server's own decision is used.

use server::app::auth::ROUTES;
use server::app::auth::matrix::PERMISSIONS;
use std::collections::{BTreeMap, BTreeSet};

/// Roles by their columns in `permissions.csv`.
pub const ROLES: [&str; 9] = ["OP", "PA", "PG", "CA", "AC", "TC", "BC", "BU", "RO"];

/// Where an object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub tenant: &'static str,
    pub user: Option<&'static str>,
    pub services: Vec<&'static str>,
    pub support_access: bool,
}

/// How far a role of somebody goes.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Some tenants, by name.
    Tenants(&'static [&'static str]),
    /// What counts under a service.
    Service(&'static str),
    /// What a user has, and the tenant that the user belongs to.
    Own { user: &'static str, tenant: &'static str },
}

impl Reach {
    fn covers(&self, at: &At) -> bool {
        match self {
            Reach::Tenants(names) => names.contains(&at.tenant),
            Reach::Service(name) => at.services.contains(name),
            Reach::Own { user, tenant } => match at.user {
                Some(owner) => owner == *user,
                None => at.tenant == *tenant,
            },
        }
    }
}

/// A role of somebody. `gives`: of a member of a group, whether the group gives its verbs.
#[derive(Clone, Debug)]
pub struct Held {
    pub role: &'static str,
    pub reach: Reach,
    pub gives: bool,
}

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Allowed,
    Forbidden,
    Unseen,
}

/// A line of `permissions.csv`.
#[derive(Clone, Debug)]
pub struct Line {
    pub step_up: bool,
    cells: BTreeMap<&'static str, &'static str>,
}

/// The whole of it.
pub struct Matrix(BTreeMap<&'static str, Line>);

impl Matrix {
    pub fn read() -> Matrix {
        let mut lines = PERMISSIONS.lines();
        let columns: Vec<&str> = lines.next().unwrap().split(',').skip(2).collect();
        assert_eq!(columns, ROLES, "the columns are the roles there are");
        let line = |text: &'static str| {
            let fields: Vec<&str> = text.split(',').collect();
            let cells = ROLES.into_iter().zip(fields[2..].iter().copied()).collect();
            (fields[0], Line { step_up: fields[1] == "step-up", cells })
        };
        Matrix(lines.map(line).collect())
    }

    pub fn line(&self, verb: &str) -> &Line {
        self.0.get(verb).unwrap_or_else(|| panic!("{verb} is not in the matrix"))
    }

    /// Verbs that a group can be given.
    pub fn of_groups(&self) -> Vec<String> {
        let given = self.0.iter().filter(|(_, line)| matches!(line.cells["PG"], "g" | "a"));
        given.map(|(verb, _)| (*verb).to_owned()).collect()
    }

    /// May somebody (`user`) who holds this do that to an object there?
    pub fn decide(&self, user: Option<&str>, held: &[Held], verb: &str, at: &At) -> Expected {
        let near: Vec<&Held> = held.iter().filter(|held| held.reach.covers(at)).collect();
        let may = |held: &&Held| match self.line(verb).cells[held.role] {
            "Y" | "s" => true,
            "g" => held.gives,
            "a" => at.support_access && (held.role != "PG" || held.gives),
            "o" => user.is_some() && (at.user.is_none() || at.user == user),
            _ => false,
        };
        match (near.is_empty(), near.iter().any(may)) {
            (true, _) => Expected::Unseen,
            (false, true) => Expected::Allowed,
            (false, false) => Expected::Forbidden,
        }
    }

    /// Whether somebody reaches anything at all with a verb, for lists.
    pub fn reaches(&self, held: &[Held], verb: &str) -> bool {
        held.iter().any(|held| match self.line(verb).cells[held.role] {
            "Y" | "s" | "o" => true,
            "g" => held.gives,
            _ => false,
        })
    }
}

/// A line of `routes.csv`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub path: &'static str,
    pub method: &'static str,
    pub right: &'static str,
}

/// All routes, in the order of the file, but what ends the caller's own login sessions last.
pub fn routes() -> Vec<Route> {
    let route = |line: &'static str| {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 3, "{line}");
        Route { method: fields[0], path: fields[1], right: fields[2] }
    };
    let mut all: Vec<Route> = ROUTES.lines().skip(1).map(route).collect();
    let last = |route: &Route| match (route.method, route.path) {
        ("DELETE", "/login-sessions/{session}") => 1,
        ("DELETE", "/login-sessions") => 2,
        ("DELETE", "/login") => 3,
        _ => 0,
    };
    all.sort_by_key(last);
    all
}

/// The routes of a description of the API.
pub fn described(document: &serde_json::Value) -> BTreeSet<(String, String)> {
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix(api::PREFIX).unwrap();
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.to_owned())));
    }
    routes
}

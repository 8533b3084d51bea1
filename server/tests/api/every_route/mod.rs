//! Every route against every role: what comes of each request is what `permissions.csv` says of the role and
//! `routes.csv` of the route; ids of others and ids that nothing has get answers that cannot be told apart; and no answer
//! holds the id of something that its receiver does not see.

pub mod oracle;
mod requests;
pub mod world;

use crate::harness::Client;
use oracle::{At, Expected, Matrix, Route, described, routes};
use requests::{About, request};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use world::{Kind, Principal, TOKEN_VERB, Things, World, send};

/// Failures of one route that are shown.
const SHOWN_MAX: usize = 3;

/// What must come of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Allowed,
    /// With a fresh factor only.
    AllowedWithStepUp,
    /// 403, naming the verb.
    Forbidden(&'static str),
    /// 404, like an id that nothing has.
    Unseen,
    /// 403 or 404.
    Refused,
    Unauthorized,
}

/// An answer, without what differs between any two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    code: String,
    detail: String,
    headers: Vec<String>,
    text: String,
}

impl Answer {
    async fn read(response: Response) -> Answer {
        let status = response.status();
        let mut headers: Vec<String> = response
            .headers()
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "date" | "request-id"))
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        let bytes = response.bytes().await.unwrap();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let mut of_problem = (String::new(), String::new());
        if !status.is_success() {
            let mut problem: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            of_problem = ["code", "detail"].map(|name| problem[name].as_str().unwrap_or_default().to_owned()).into();
            if let Some(object) = problem.as_object_mut() {
                object.remove("instance");
            }
            text = problem.to_string();
        }
        Answer { status, code: of_problem.0, detail: of_problem.1, headers, text }
    }

    fn is_like(&self, status: StatusCode, code: &str) -> bool {
        self.status == status && self.code == code
    }

    fn fits(&self, want: Want, else_good: &[&str]) -> bool {
        match want {
            Want::Allowed => self.status.is_success() || else_good.contains(&self.code.as_str()),
            Want::AllowedWithStepUp => self.is_like(StatusCode::FORBIDDEN, "step_up_needed"),
            Want::Forbidden(verb) => self.is_like(StatusCode::FORBIDDEN, "forbidden") && self.detail.contains(verb),
            Want::Unseen => self.is_like(StatusCode::NOT_FOUND, "not_found"),
            Want::Refused => {
                self.is_like(StatusCode::FORBIDDEN, "forbidden") || self.is_like(StatusCode::NOT_FOUND, "not_found")
            }
            Want::Unauthorized => self.is_like(StatusCode::UNAUTHORIZED, "unauthorized"),
        }
    }
}

/// What tokens of a vault and agents may do on their own vault, and the local operator on any.
fn by_rights(kind: Kind, verb: &str) -> bool {
    match verb {
        "snapshot.list" | "snapshot.hold" => true,
        "content.restore" | "backup.start" => kind != Kind::Local,
        "snapshot.delete" | "snapshot.purge" => kind != Kind::Agent,
        other => panic!("{other} on a vault: say what a token may"),
    }
}

/// What the data says. `things` is `None` for ids that nothing has.
fn wanted(matrix: &Matrix, principal: &Principal, route: &Route, things: Option<&Things>) -> Want {
    let kind = principal.kind;
    let is_operator = principal.held.iter().any(|held| held.role == "OP");
    match (kind, route.right) {
        (Kind::Nobody, "public") => return Want::Allowed,
        (Kind::Nobody, _) => return Want::Unauthorized,
        (_, "public") => return Want::Allowed,
        (Kind::Person, "operator+step-up") if is_operator => return Want::AllowedWithStepUp,
        (_, "operator" | "operator+step-up") if is_operator => return Want::Allowed,
        (_, "operator" | "operator+step-up") => return Want::Forbidden("operator"),
        (Kind::Person, "any") => return Want::Allowed,
        (_, "any") if route.path == "/me" => return Want::Allowed,
        (_, "any") => return Want::Forbidden("login session"),
        (Kind::Agent, "computer") => {
            let is_own = things.is_some_and(|things| things.name == "anna");
            return if is_own || !route.path.contains('{') { Want::Allowed } else { Want::Unseen };
        }
        (_, "computer") => return Want::Forbidden("credential of a computer"),
        _ => {}
    }
    let verb = route.right;
    let is_token_of_vault = matches!(kind, Kind::Agent | Kind::VaultToken);
    let allowed = match matrix.line(verb).step_up && kind == Kind::Person {
        true => Want::AllowedWithStepUp,
        false => Want::Allowed,
    };
    let given = |may: bool| match may && (kind != Kind::ApiToken || verb == TOKEN_VERB) {
        true => allowed,
        false => Want::Forbidden(verb),
    };
    match route.about() {
        About::Other => panic!("{route:?} has been looked at"),
        About::Myself if kind == Kind::Person && things.is_some() => allowed,
        About::Myself if kind == Kind::Person => Want::Unseen,
        About::Myself => Want::Refused,
        About::List => given(matrix.reaches(&principal.held, verb)),
        About::Platform => given(is_operator),
        About::Object("vault") if is_token_of_vault || kind == Kind::Local => match (by_rights(kind, verb), things) {
            (false, _) => Want::Forbidden("the right"),
            (true, Some(things)) if things.name == "anna" || kind == Kind::Local => Want::Allowed,
            (true, _) => Want::Unseen,
        },
        About::Object(_) if is_token_of_vault => Want::Unseen,
        About::Object(object) => {
            let at = things.map(|things| things.at(object));
            match at.map(|at| matrix.decide(principal.user, &principal.held, verb, &at)) {
                None | Some(Expected::Unseen) => Want::Unseen,
                Some(Expected::Forbidden) => Want::Forbidden(verb),
                Some(Expected::Allowed) => given(true),
            }
        }
    }
}

/// Ids of what somebody does not see.
fn unseen_ids(matrix: &Matrix, world: &World, principal: &Principal) -> BTreeSet<String> {
    let mut unseen = BTreeSet::new();
    for things in &world.things {
        for (name, id) in &things.ids {
            let kind = match *name {
                "customer_name" | "user_name" | "root" | "incarnation" | "order" | "contact" => continue,
                "snapshot" | "upload" | "restore" | "colleague" => "vault",
                kind => kind,
            };
            // Of a customer that somebody sees, also the partner's id is seen.
            let customers: &[&str] = match (things.name, kind) {
                ("north", "tenant") => &["anna", "cleo"],
                ("south", "tenant") => &["dora"],
                _ => &[],
            };
            let sees = |at: &At| matrix.decide(principal.user, &principal.held, "tenant.view", at) != Expected::Unseen;
            if customers.iter().any(|customer| sees(&world.things(customer).at("tenant"))) {
                continue;
            }
            let mut at = things.at(kind);
            if *name == "colleague" {
                at.user = Some("a colleague");
            }
            // Any verb will do: nobody sees by one what is out of reach by another.
            if !sees(&at) {
                unseen.insert(id.clone());
            }
        }
    }
    let own: Vec<&String> = world.things("anna").ids.values().collect();
    if matches!(principal.kind, Kind::Agent | Kind::VaultToken) {
        unseen.retain(|id| !own.contains(&id));
    }
    unseen
}

/// All of it.
struct Run<'a> {
    world: &'a World,
    matrix: &'a Matrix,
    unseen: BTreeMap<&'static str, BTreeSet<String>>,
    failures: BTreeMap<String, Vec<String>>,
    requests: usize,
}

impl Run<'_> {
    async fn ask(
        &mut self,
        client: &Client,
        route: &Route,
        things: &Things,
        principal: &Principal,
        spare: bool,
    ) -> (Answer, &'static [&'static str]) {
        let mut request = request(self.world, route, things, principal);
        if let (true, Some(parameter)) = (spare, request.spends) {
            let mut spared = things.clone();
            let id = self.world.spare(things, parameter).await;
            spared.ids.insert(parameter, id);
            let undo = request.undo.take();
            request = requests::request(self.world, route, &spared, principal);
            request.undo = undo;
        }
        let answer = Answer::read(request.send(client, route.method).await).await;
        self.requests += 1;
        if let (true, Some((method, path, body))) = (answer.status.is_success(), &request.undo) {
            let undone = send(&self.world.local, method.clone(), path, body).await;
            assert!(undone.status().is_success(), "{method} {path}: {}", undone.text().await.unwrap());
        }
        (answer, request.else_good)
    }

    fn complain(
        &mut self,
        route: &Route,
        principal: &Principal,
        place: &str,
        want: impl std::fmt::Debug,
        answer: &Answer,
    ) {
        let Route { method, path, right } = route;
        let text: String = answer.text.chars().take(300).collect();
        let failure = format!("{} on {place}: {want:?}, got {} {text}", principal.name, answer.status);
        self.failures.entry(format!("{method} {path} ({right})")).or_default().push(failure);
    }

    fn check_silence(&mut self, route: &Route, principal: &Principal, place: &str, answer: &Answer) {
        let told = self.unseen[principal.name].iter().find(|id| answer.text.contains(*id)).cloned();
        // What was asked for by name may be named in the answer.
        if let Some(id) = told.filter(|id| answer.status.is_success() && !id.is_empty()) {
            self.complain(route, principal, place, format!("the answer tells of {id}, which is unseen"), answer);
        }
    }

    /// One route, somebody, one place.
    async fn check(&mut self, route: &Route, principal: &Principal, things: &Things, is_there: bool) -> Answer {
        let want = wanted(self.matrix, principal, route, is_there.then_some(things));
        let clients = match want {
            Want::AllowedWithStepUp => vec![(&principal.plain, want), (&principal.fresh, Want::Allowed)],
            _ if route.path == "/login/step-up" => vec![(&principal.fresh, want)],
            _ => vec![(&principal.plain, want)],
        };
        let mut last = None;
        for (client, want) in clients {
            let (answer, else_good) =
                self.ask(client, route, things, principal, want == Want::Allowed && is_there).await;
            let is_good = match (want, is_there, route.about()) {
                // Of what only operators look after, they hear that it is not there, or that the request is no good.
                (Want::Allowed, false, About::Other | About::Platform) => !answer.status.is_server_error(),
                _ => answer.fits(want, else_good),
            };
            if !is_good {
                self.complain(route, principal, things.name, want, &answer);
            }
            self.check_silence(route, principal, things.name, &answer);
            last = Some(answer);
        }
        last.unwrap()
    }

    async fn route(&mut self, route: &Route, principal: &Principal) {
        let mut unseen = Vec::new();
        let world = self.world;
        for place in route.places() {
            let things = world.things(place);
            let answer = self.check(route, principal, things, true).await;
            if wanted(self.matrix, principal, route, Some(things)) == Want::Unseen {
                unseen.push((*place, answer));
            }
        }
        let has_id =
            route.path.contains('{') || matches!(route.path, "/tenants" | "/webhooks") && route.method == "POST";
        if !has_id || route.right == "public" || principal.kind == Kind::Nobody {
            return;
        }
        // A caller's own things are named by the caller.
        let named_by_caller = matches!(route.about(), About::Myself);
        let absent = world.things(route.places()[0]).absent();
        let nobody = Principal {
            own: BTreeMap::new(),
            held: principal.held.clone(),
            plain: principal.plain.clone(),
            fresh: principal.fresh.clone(),
            ..*principal
        };
        let asker = if named_by_caller { &nobody } else { principal };
        let nothing = self.check(route, asker, &absent, false).await;
        unseen.push(("absent", nothing.clone()));
        if route.path.contains('{') && !named_by_caller {
            let first = route.path.split(['{', '}']).nth(1).unwrap();
            let nonsense = self.check(route, principal, &absent.nonsense(first), false).await;
            unseen.push(("nonsense", nonsense));
        }
        // To those who look after all there is, nothing is foreign.
        let is_theirs = wanted(self.matrix, asker, route, None) != Want::Unseen && nothing.code != "forbidden";
        for (place, answer) in unseen.iter().filter(|_| !is_theirs) {
            if *answer != nothing {
                self.complain(route, principal, place, format!("the same as of an absent id, {nothing:?}"), answer);
            }
        }
        self.second_id(route, principal).await;
    }

    /// Behind an object of one's own, a foreign and an absent one get the same answer.
    async fn second_id(&mut self, route: &Route, principal: &Principal) {
        let second = route.path.split(['{', '}']).skip(3).step_by(2).find_map(|name| match name {
            "snapshot" => Some("snapshot"),
            "session" => Some("upload"),
            "restore" => Some("restore"),
            "user" => Some("colleague"),
            _ => None,
        });
        let place = route.places()[0];
        let world = self.world;
        let things = world.things(place);
        let want = wanted(self.matrix, principal, route, Some(things));
        let (Some(second), Want::Allowed | Want::AllowedWithStepUp) = (second, want) else { return };
        let foreign = if place == "north" { "anna" } else { "dora" };
        let mut answers = Vec::new();
        for id in [world.things(foreign).ids[second].clone(), "f".repeat(world.things(foreign).ids[second].len())] {
            let mut mixed = things.clone();
            mixed.ids.insert(second, id.clone());
            let (mut answer, _) = self.ask(&principal.fresh, route, &mixed, principal, false).await;
            answer.text = answer.text.replace(&id, "ID");
            answer.detail = answer.detail.replace(&id, "ID");
            answers.push(answer);
        }
        if answers[0] != answers[1] {
            self.complain(
                route,
                principal,
                "own with a foreign part",
                format!("the same as with an absent one, {:?}", answers[1]),
                &answers[0],
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_every_role_as_the_matrix_says() {
    let began = Instant::now();
    let matrix = Matrix::read();
    let world = World::build(&matrix).await;
    let built = began.elapsed();
    let document: Value = crate::harness::ok(world.local.get("/api/v1/openapi.json").await).await;
    let listed: BTreeSet<(String, String)> =
        routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described(&document), listed, "routes of openapi.json (left) and of routes.csv (right)");

    let unseen = world.principals.iter().map(|principal| (principal.name, unseen_ids(&matrix, &world, principal)));
    let unseen = unseen.collect();
    let mut run = Run { world: &world, matrix: &matrix, unseen, failures: BTreeMap::new(), requests: 0 };
    for route in routes() {
        for principal in &world.principals {
            if (route.right == "public") == (principal.kind == Kind::Nobody) || route.right != "public" {
                run.route(&route, principal).await;
            }
        }
    }
    println!(
        "{} routes, {} principals, {} requests; {} ms to set up, {} ms to ask",
        listed.len(),
        world.principals.len(),
        run.requests,
        built.as_millis(),
        (began.elapsed() - built).as_millis()
    );
    let log = world.server.log();
    let defects = log.lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(defects, 0, "the log of the server: {log}");
    let mut shown = String::new();
    for (route, failures) in &run.failures {
        shown.push_str(&format!("{route}: {} answers, of them\n", failures.len()));
        for failure in failures.iter().take(SHOWN_MAX) {
            shown.push_str(&format!("    {failure}\n"));
        }
    }
    assert!(shown.is_empty(), "answers that are not what the matrix says:\n{shown}");
}

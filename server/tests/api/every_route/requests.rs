//! One request for every route: its path, a body that is understood, and what besides success is a good answer to
//! somebody who may.

use super::oracle::Route;
use super::world::{PLAN, Principal, SHARE_BYTES, Things, World, now_ns};
use crate::harness::{Client, body};
use crate::identity::PASSWORD;
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// What a route's right is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// An object, by the name of its path parameter; `partner` for a tenant that has groups or customers.
    Object(&'static str),
    /// Everything that the caller reaches.
    List,
    /// What there is once, such as products.
    Platform,
    /// The caller.
    Myself,
    /// Something that is no verb of the matrix.
    Other,
}

impl Route {
    pub fn about(&self) -> About {
        if matches!(self.right, "operator" | "operator+step-up" | "any" | "computer" | "public") {
            return About::Other;
        }
        if self.right.starts_with("self.") {
            return About::Myself;
        }
        let first = self.path.split(['{', '}']).nth(1);
        match (first, self.path) {
            (Some("tenant"), path) if path.ends_with("/groups") => About::Object("partner"),
            (Some("mail" | "product"), _) | (None, "/outbox/test") => About::Platform,
            (Some(_), _) => {
                let known = [
                    "tenant",
                    "service",
                    "user",
                    "computer",
                    "plan",
                    "job",
                    "vault",
                    "invitation",
                    "recovery",
                    "group",
                    "webhook",
                    "export",
                ];
                let kind = known.into_iter().find(|known| Some(*known) == first);
                About::Object(kind.unwrap_or_else(|| panic!("{self:?}: say in About what its right is asked about")))
            }
            (None, "/tenants") if self.method == "POST" => About::Object("partner"),
            (None, "/webhooks") if self.method == "POST" => About::Object("user"),
            (None, "/exports") if self.method == "POST" => About::Object("plan"),
            (None, _) if self.method == "GET" => About::List,
            (None, _) => About::Platform,
        }
    }

    /// Places at which there are objects for it.
    pub fn places(&self) -> &'static [&'static str] {
        match self.about() {
            About::Object("partner" | "group") => &["north", "south"],
            About::Object("tenant" | "invitation") => &["anna", "cleo", "dora"],
            About::Object(_) => &["anna", "bert", "cleo", "dora"],
            _ if self.right == "computer" && self.path.contains("{job}") => &["anna", "bert", "cleo", "dora"],
            _ => &["anna"],
        }
    }
}

pub enum Body {
    Json(Value),
    Binary(Vec<u8>),
}

/// One request.
pub struct Request {
    pub path: String,
    pub body: Body,
    /// Codes of refusals that have nothing to do with rights.
    pub else_good: &'static [&'static str],
    /// The parameter whose object is gone behind a success.
    pub spends: Option<&'static str>,
    /// What the operator does behind a success, so that the next one finds things as they were.
    pub undo: Option<(Method, String, Value)>,
}

impl Request {
    pub async fn send(&self, client: &Client, method: &str) -> Response {
        let method: Method = method.parse().unwrap();
        let request = client.request(method, &format!("/api/v1{}", self.path));
        let request = match &self.body {
            Body::Json(value) => request.json(value),
            Body::Binary(bytes) => request.header("content-type", api::BINARY).body(bytes.clone()),
        };
        request.send().await.unwrap()
    }
}

/// Path parameters by things, `session` and `token` by what is the caller's own.
fn path(route: &Route, things: &Things, principal: &Principal) -> String {
    let of = |name: &'static str| things.ids.get(name).cloned().unwrap_or_else(|| "f".repeat(32));
    let mut path = route.path.to_owned();
    if path == "/users/{user}/{name}" {
        return format!("/users/{}/{}?confirm=wrong", of("customer_name"), of("user_name"));
    }
    let secondary = path.starts_with("/tenants/") || path.starts_with("/services/") || path.starts_with("/groups/");
    let user = if secondary { "colleague" } else { "user" };
    let own = |name: &str| principal.own.get(name).cloned().unwrap_or_else(|| "f".repeat(32));
    let session = if path.starts_with("/vaults/") { of("upload") } else { own("session") };
    let token = if path.starts_with("/tokens/") { of("vault_token") } else { own("token") };
    let limit = "partner:north".to_owned();
    let values = [
        ("session", session),
        ("token", token),
        ("user", of(user)),
        ("limit", limit),
        ("kind", "technical".into()),
        ("mail", "f".repeat(32)),
        ("product", "f".repeat(32)),
        ("secret", "hfo_nonsense".into()),
        ("customer", of("customer_name")),
    ];
    for (name, value) in values {
        path = path.replace(&format!("{{{name}}}"), &value);
    }
    for (name, value) in &things.ids {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    match (route.method, route.path) {
        ("DELETE", "/vaults/{vault}") => path.push_str("?confirm=wrong"),
        ("GET", "/vaults/{vault}/snapshots/{snapshot}/content") => path.push_str("?path=/docs/small"),
        ("GET", "/job-logs") => path.push_str("?words=backup"),
        _ => {}
    }
    path
}

/// The request of a route about some things, by somebody.
pub fn request(world: &World, route: &Route, things: &Things, principal: &Principal) -> Request {
    let number = world.number();
    let of = |name: &'static str| things.ids.get(name).cloned().unwrap_or_else(|| "f".repeat(32));
    let tenant = of("tenant");
    let empty = || Body::Json(json!({}));
    let json = Body::Json;
    let plan: Value = serde_json::from_str(PLAN).unwrap();
    const WRONG_STATE: &[&str] = &["wrong_state"];
    const INVALID: &[&str] = &["bad_request"];
    const NOT_THERE: &[&str] = &["not_found"];
    let (body, else_good): (Body, &'static [&'static str]) = match (route.method, route.path) {
        // Nobody listens for SFTP.
        ("GET", "/ssh-host-keys") => (empty(), WRONG_STATE),
        ("GET", _) => (empty(), &[]),
        ("POST", "/api-tokens") => (json(json!({"name": "t", "verbs": ["self.view"]})), &[]),
        ("POST", "/clock/confirm") => (empty(), &["conflict", "wrong_state"]),
        ("POST", "/computer/jobs") => {
            let id = control::JobId::generate().unwrap().to_string();
            (json(json!({"id": id, "plan": of("plan"), "revision": 1, "cause": "catch_up"})), WRONG_STATE)
        }
        ("PUT", "/computer/jobs/{job}") => {
            (json(serde_json::to_value(api::jobs::JobCounts::default()).unwrap()), WRONG_STATE)
        }
        ("POST", "/computer/jobs/{job}/end") => (json(json!({"state": "succeeded"})), WRONG_STATE),
        ("POST", "/computer/jobs/{job}/log") => (json(json!({"lines": []})), &[]),
        ("POST", "/computers/{computer}/plans") => {
            let mut body = plan;
            body["name"] = format!("p{number}").into();
            (json(body), &[])
        }
        ("POST", "/computers/{computer}/restores") => {
            (json(json!({"snapshot": of("snapshot"), "target": "/tmp/r"})), &[])
        }
        ("POST", "/customers") => (json(json!({"name": format!("c{number}")})), &[]),
        ("PUT", "/customers/{customer}/partner") => (json(json!({"partner": "north"})), &[]),
        ("PUT", "/groups/{group}") => (json(json!({"name": format!("g{number}"), "verbs": []})), &[]),
        // Nobody there is a member of the partner.
        ("PUT" | "DELETE", "/groups/{group}/members/{user}") => (empty(), NOT_THERE),
        ("POST", "/enrol") => (json(json!({"token": "hfe_nonsense", "name": "x"})), NOT_THERE),
        ("POST", "/invitations/accept") => (json(json!({"secret": "hfi_nonsense", "password": PASSWORD})), NOT_THERE),
        ("POST", "/invitations/look") => (json(json!({"secret": "hfi_nonsense"})), NOT_THERE),
        ("DELETE", "/invitations/{invitation}") => (empty(), WRONG_STATE),
        ("POST", "/invitations/{invitation}/resend") => (empty(), WRONG_STATE),
        ("POST", "/jobs/{job}/cancel") => (empty(), WRONG_STATE),
        ("POST", "/login") => {
            (json(json!({"login": "nobody@people.example", "password": "x"})), &["wrong_credentials"])
        }
        ("POST", "/login/step-up") => (json(json!({"password": PASSWORD})), &[]),
        ("POST", "/master-key/confirm") => (json(json!({"fingerprint": "nonsense"})), &["bad_request", "conflict"]),
        ("POST", "/operator-link/{secret}") => (empty(), NOT_THERE),
        ("POST", "/outbox/test") => (json(json!({"to": "x@people.example"})), &[]),
        ("POST", "/outbox/{mail}/cancel" | "/outbox/{mail}/retry") => (empty(), NOT_THERE),
        ("POST", "/password/forgotten") => (json(json!({"login": "nobody@people.example"})), &[]),
        ("POST", "/password/reset") => (json(json!({"secret": "hfp_nonsense", "password": PASSWORD})), NOT_THERE),
        ("POST", "/plans/{plan}/pause" | "/plans/{plan}/resume" | "/plans/{plan}/start") => (empty(), WRONG_STATE),
        ("PUT", "/plans/{plan}") => (json(plan), &[]),
        ("POST", "/products") => (json(json!({"name": format!("product {number}"), "unit": "gib"})), &[]),
        ("PUT", "/products/{product}") => {
            (json(json!({"name": format!("product {number}"), "unit": "gib"})), NOT_THERE)
        }
        ("PUT", "/profile") => (empty(), &[]),
        ("PUT", "/profile/weekly-summary") => (json(json!({"wanted": true})), &[]),
        ("PUT", "/profile/password") => (json(json!({"current": PASSWORD, "new": "short"})), INVALID),
        ("POST", "/profile/recovery-codes") => (empty(), WRONG_STATE),
        ("DELETE", "/profile/second-factor") => (empty(), &["not_found", "wrong_state"]),
        ("POST", "/profile/second-factor/confirm") => {
            (json(json!({"code": "000000"})), &["bad_request", "wrong_state"])
        }
        ("DELETE", "/recoveries/{recovery}") => (empty(), WRONG_STATE),
        ("POST", "/recoveries/{recovery}/approve") => (empty(), WRONG_STATE),
        ("PUT", "/services/{service}/allocations/{user}") => (json(json!({"bytes": SHARE_BYTES})), &[]),
        ("PUT", "/services/{service}/contacts/{kind}") => (json(json!({"user": of("contact")})), &[]),
        ("POST", "/services/{service}/order") => (json(json!({"quantity": 100})), WRONG_STATE),
        ("POST", "/services/{service}/renew") => (empty(), &["licence_exceeded", "wrong_state"]),
        ("POST", "/services/{service}/cancel" | "/services/{service}/pay" | "/services/{service}/terminate") => {
            (empty(), WRONG_STATE)
        }
        ("POST", "/services/{service}/restrict" | "/services/{service}/suspend") => (empty(), WRONG_STATE),
        ("POST", "/tenants") => (json(json!({"kind": "customer", "title": "Below", "parent": tenant})), &[]),
        ("DELETE", "/tenants/{tenant}") => (empty(), WRONG_STATE),
        // Who is at home elsewhere gets nothing here.
        ("POST", "/tenants/{tenant}/back-up-mine") => {
            (json(json!({"service": of("service"), "bytes": 1 << 20})), &["bad_request", "not_found"])
        }
        ("POST", "/tenants/{tenant}/connect") => (empty(), WRONG_STATE),
        ("POST", "/tenants/{tenant}/groups") => (json(json!({"name": format!("g{number}"), "verbs": []})), &[]),
        ("POST", "/tenants/{tenant}/invitations") => {
            (json(json!({"email": format!("x{number}@people.example"), "role": "user"})), &[])
        }
        ("PUT", "/tenants/{tenant}/members/{user}") => (json(json!({"roles": ["user"]})), &[]),
        ("DELETE", "/tenants/{tenant}/members/{user}") => (empty(), &["conflict"]),
        ("POST", "/tenants/{tenant}/owner") => (json(json!({"user": of("colleague")})), WRONG_STATE),
        ("POST", "/tenants/{tenant}/owner/accept") => (empty(), NOT_THERE),
        ("PUT", "/tenants/{tenant}/notice-settings") => (json(json!({"stale_days": 3})), &[]),
        ("PUT", "/tenants/{tenant}/security") => (json(json!({"idle_minutes": 30, "second_factor": "optional"})), &[]),
        ("PUT", "/tenants/{tenant}/support-access") => (json(json!({"until_ns": now_ns() + 3_600_000_000_000})), &[]),
        ("POST", "/tenants/{tenant}/trials") => (empty(), &["licence_exceeded"]),
        ("POST", "/tokens") => (json(json!({"name": "t", "rights": ["operator"]})), &[]),
        ("DELETE", "/tokens/{token}") => (empty(), NOT_THERE),
        ("POST", "/users") => (json(json!({"name": format!("u{number}"), "customer": "acme"})), &[]),
        ("DELETE", "/users/{user}") => (empty(), WRONG_STATE),
        ("POST", "/users/{user}/enable" | "/users/{user}/undelete") => (empty(), WRONG_STATE),
        ("POST", "/users/{user}/recovery") => {
            (json(json!({"new_email": format!("r{number}@people.example"), "reason": "lost"})), &["conflict"])
        }
        ("DELETE", "/users/{user}/{name}") => (empty(), INVALID),
        ("POST", "/vaults") => (json(json!({"name": format!("v{number}"), "user": "acme/bert"})), &[]),
        ("DELETE", "/vaults/{vault}") => (empty(), INVALID),
        ("POST", "/vaults/{vault}/objects") => (Body::Binary(Vec::new()), &[]),
        ("POST", "/vaults/{vault}/restores") => (json(json!({"snapshot": of("snapshot")})), &[]),
        ("PUT", "/vaults/{vault}/retention") => (json(json!({"policy": null})), NOT_THERE),
        ("POST", "/vaults/{vault}/scrub") => (json(json!({"before_ns": 0})), &[]),
        ("PUT", "/vaults/{vault}/snapshots/{snapshot}/hold") => (json(json!({"until_ns": i64::MAX})), &[]),
        ("PUT", "/vaults/{vault}/snapshots/{snapshot}/tags") => (json(json!({"tags": []})), &[]),
        ("POST", "/vaults/{vault}/snapshots/{snapshot}/undelete") => (empty(), &["conflict", "wrong_state"]),
        ("PUT", "/vaults/{vault}/undelete-days") => (json(json!({"days": 14})), &[]),
        ("POST", "/vaults/{vault}/uploads") => (json(json!({"computer": "pc", "series": "s"})), &[]),
        ("POST", "/vaults/{vault}/uploads/{session}/chunks" | "/vaults/{vault}/uploads/{session}/nodes") => {
            (Body::Binary(body(&[]).to_vec()), &[])
        }
        ("POST", "/vaults/{vault}/uploads/{session}/commit") => {
            let summary = serde_json::to_value(api::upload::RunSummary::default()).unwrap();
            (json(json!({"root": of("root"), "summary": summary})), &[])
        }
        ("POST", "/vaults/{vault}/uploads/{session}/flush") => {
            let incarnation: u64 = of("incarnation").parse().unwrap_or(0);
            (json(json!({"incarnation": incarnation})), &["incarnation_changed"])
        }
        ("POST", "/vaults/{vault}/uploads/{session}/have") => (Body::Binary(Vec::new()), &[]),
        // The plans there are back folders up, exports are ready, and nobody listens for SFTP.
        ("POST", "/exports") => (json(json!({"plan": of("plan")})), INVALID),
        ("POST", "/exports/{export}/release") => (empty(), WRONG_STATE),
        ("POST", "/exports/{export}/refuse") => (json(json!({"reason": "no"})), WRONG_STATE),
        ("POST", "/exports/{export}/keys") => {
            (json(json!({"terms_version": server::app::exports::TERMS_VERSION})), WRONG_STATE)
        }
        ("POST", "/webhooks") => {
            (json(json!({"user": of("user"), "url": "https://webhook.invalid/", "events": ["quota"]})), &[])
        }
        _ => (empty(), &[]),
    };
    let service = of("service");
    let (spends, undo) = match (route.method, route.path) {
        ("DELETE", "/computers/{computer}") => (Some("computer"), None),
        ("DELETE", "/plans/{plan}") => (Some("plan"), None),
        ("DELETE", "/webhooks/{webhook}") => (Some("webhook"), None),
        ("DELETE", "/groups/{group}") => (Some("group"), None),
        ("DELETE", "/vaults/{vault}/uploads/{session}") => (Some("upload"), None),
        ("POST", "/vaults/{vault}/uploads/{session}/commit") => (Some("upload"), None),
        ("DELETE", "/vaults/{vault}/snapshots/{snapshot}") => (Some("snapshot"), None),
        ("POST", "/vaults/{vault}/snapshots/{snapshot}/purge") => (Some("snapshot"), None),
        ("POST", "/users/{user}/disable") => {
            (Some("user"), Some((Method::POST, format!("/users/{}/enable", of("colleague")), json!({}))))
        }
        ("POST", "/tenants/{tenant}/disconnect") => {
            (None, Some((Method::POST, format!("/tenants/{tenant}/connect"), json!({}))))
        }
        ("POST", "/services/{service}/restrict" | "/services/{service}/suspend") => {
            (None, Some((Method::POST, format!("/services/{service}/pay"), json!({}))))
        }
        ("DELETE", "/services/{service}/allocations/{user}") => {
            let path = format!("/services/{service}/allocations/{}", of("colleague"));
            (None, Some((Method::PUT, path, json!({"bytes": SHARE_BYTES}))))
        }
        _ => (None, None),
    };
    Request { path: path(route, things, principal), body, else_good, spends, undo }
}

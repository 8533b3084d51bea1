//! Invitations, log-in, step-up, second factors, API tokens, trusted networks and recovery, over HTTP.

use crate::harness::{Client, Server, ok, refused};
use api::identity::{LoggedIn, LoginSessions, NewApiToken, NewSecondFactor, Profile, RecoveryCodes, SteppedUp};
use api::invitations::{AcceptedInvitation, Invitation, Security, SeenInvitation, SentInvitation};
use api::page::Page;
use api::problem::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const PLATFORM: &str = "00000000000000000000000000000000";
pub const PASSWORD: &str = "plum gravel otter 91";

/// The operator on the server's own machine.
fn local(server: &Server) -> Client {
    server.client(&server.run_file("local-token"))
}

fn secret_of(sent: &SentInvitation) -> String {
    sent.link.as_ref().unwrap().0.rsplit_once('#').unwrap().1.to_owned()
}

async fn invite(client: &Client, tenant: &str, body: Value) -> SentInvitation {
    ok(client.post(&format!("/api/v1/tenants/{tenant}/invitations"), &body).await).await
}

async fn accept(server: &Server, secret: &str, name: &str) -> AcceptedInvitation {
    let body = json!({"secret": secret, "name": name, "password": PASSWORD});
    ok(server.client("").post("/api/v1/invitations/accept", &body).await).await
}

async fn log_in(server: &Server, login: &str) -> Client {
    let body = json!({"login": login, "password": PASSWORD, "program": "test"});
    let done: LoggedIn = ok(server.client("").post("/api/v1/login", &body).await).await;
    assert!(done.secret.0.starts_with("hfs_"));
    server.client(&done.secret.0)
}

async fn step_up(client: &Client) {
    let _: SteppedUp = ok(client.post("/api/v1/login/step-up", &json!({"password": PASSWORD})).await).await;
}

async fn put(client: &Client, path: &str, body: &Value) -> reqwest::Response {
    client.request(Method::PUT, path).json(body).send().await.unwrap()
}

async fn delete(client: &Client, path: &str) -> reqwest::Response {
    client.request(Method::DELETE, path).send().await.unwrap()
}

/// A customer below the platform with its owner.
async fn customer(server: &Server, title: &str, email: &str) -> (String, Client) {
    let sent = invite(&local(server), PLATFORM, json!({"kind": "customer", "email": email, "title": title})).await;
    let done = accept(server, &secret_of(&sent), "Owner").await;
    (done.tenant, log_in(server, email).await)
}

/// A member of a tenant.
async fn member(server: &Server, tenant: &str, role: &str, email: &str) -> (String, Client) {
    let sent = invite(&local(server), tenant, json!({"email": email, "role": role})).await;
    let done = accept(server, &secret_of(&sent), "Member").await;
    (done.user, log_in(server, email).await)
}

/// The code that an authenticator app shows at this moment, `steps` further on.
fn totp(secret: &str, steps: i64) -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let step = seconds as i64 / 30 + steps;
    let secret = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
    let tag = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 0xf);
    let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[tokio::test]
async fn from_an_invitation_to_a_login_session_and_out_again() {
    let server = Server::start();
    let operator = local(&server);
    let body = json!({"kind": "customer", "email": "Anna@Example.org", "title": "Acme", "locale": "pl"});
    let sent = invite(&operator, PLATFORM, body).await;
    let secret = secret_of(&sent);
    let seen: SeenInvitation =
        ok(server.client("").post("/api/v1/invitations/look", &json!({"secret": secret})).await).await;
    assert_eq!((seen.tenant_title.as_str(), seen.has_account), ("Acme", false));
    for weak in ["short", "password1234", "anna@example.org"] {
        let body = json!({"secret": secret, "name": "Anna", "password": weak});
        let answer = server.client("").post("/api/v1/invitations/accept", &body).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    let accepted = accept(&server, &secret, "Anna").await;
    let again = json!({"secret": secret, "name": "Anna", "password": PASSWORD});
    refused(server.client("").post("/api/v1/invitations/accept", &again).await, StatusCode::NOT_FOUND, Code::NotFound)
        .await;

    let anna = log_in(&server, &accepted.customer_code).await;
    let profile: Profile = ok(anna.get("/api/v1/profile").await).await;
    assert_eq!((profile.id.as_str(), profile.email.as_deref()), (accepted.user.as_str(), Some("Anna@Example.org")));
    assert_eq!((profile.roles.len(), profile.roles[0].role.as_str()), (1, "customer_admin"));
    let changed: Profile = ok(put(&anna, "/api/v1/profile", &json!({"time_zone": "Europe/Warsaw"})).await).await;
    assert_eq!((changed.time_zone.as_str(), changed.locale.as_str()), ("Europe/Warsaw", "pl"));
    let wrong = put(&anna, "/api/v1/profile", &json!({"time_zone": "Europe/Nowhere"})).await;
    refused(wrong, StatusCode::BAD_REQUEST, Code::BadRequest).await;

    // What destroys or reveals asks for a fresh factor.
    let path = format!("/api/v1/tenants/{}/security", accepted.tenant);
    let policy = json!({"idle_minutes": 10, "second_factor": "optional"});
    refused(put(&anna, &path, &policy).await, StatusCode::FORBIDDEN, Code::StepUpNeeded).await;
    let wrong = anna.post("/api/v1/login/step-up", &json!({"password": "not this one at all"})).await;
    refused(wrong, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    step_up(&anna).await;
    let _: Security = ok(put(&anna, &path, &policy).await).await;

    let other = log_in(&server, "anna@example.org").await;
    let listed: LoginSessions = ok(anna.get("/api/v1/login-sessions").await).await;
    assert_eq!(listed.items.len(), 2);
    assert!(listed.items.iter().all(|one| one.address == "127.0.0.1" && one.program == "test"), "{listed:?}");
    let foreign = listed.items.iter().find(|one| !one.is_own).unwrap();
    assert_eq!(delete(&anna, &format!("/api/v1/login-sessions/{}", foreign.id)).await.status(), StatusCode::NO_CONTENT);
    refused(other.get("/api/v1/profile").await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    assert_eq!(delete(&anna, "/api/v1/login").await.status(), StatusCode::NO_CONTENT);
    refused(anna.get("/api/v1/profile").await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;

    let (log, secrets) = (server.log(), [secret.as_str(), PASSWORD, anna.secret.as_str()]);
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "a secret is in the log");
}

#[tokio::test]
async fn nothing_tells_which_accounts_there_are() {
    let server = Server::start();
    let (_, _) = customer(&server, "Acme", "anna@example.org").await;
    let client = server.client("");
    let mut answers = Vec::new();
    for login in ["anna@example.org", "nobody@example.org", "aa000000-hf", ""] {
        let answer = client.post("/api/v1/login", &json!({"login": login, "password": "not this one"})).await;
        let problem = refused(answer, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
        answers.push((problem.title, problem.detail));
        let answer = client.post("/api/v1/password/forgotten", &json!({"login": login})).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_does_not_lock_others_out() {
    let server = Server::start();
    let (_, _) = customer(&server, "Acme", "anna@example.org").await;
    let client = server.client("");
    for _ in 0..5 {
        let answer = client.post("/api/v1/login", &json!({"login": "anna@example.org", "password": "wrong"})).await;
        refused(answer, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    }
    let right = json!({"login": "ANNA@example.org", "password": PASSWORD});
    let answer = client.post("/api/v1/login", &right).await;
    let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&after), "{after}");
    refused(answer, StatusCode::TOO_MANY_REQUESTS, Code::TooManyAttempts).await;
    let other = json!({"login": "bert@example.org", "password": "wrong"});
    refused(client.post("/api/v1/login", &other).await, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_its_codes_work_once() {
    let server = Server::start();
    let (acme, anna) = customer(&server, "Acme", "anna@example.org").await;
    let begin = async || anna.post("/api/v1/profile/second-factor", &json!({})).await;
    refused(begin().await, StatusCode::FORBIDDEN, Code::StepUpNeeded).await;
    step_up(&anna).await;
    let factor: NewSecondFactor = ok(begin().await).await;
    assert!(factor.url.0.contains(&factor.secret.0));
    let confirm = async |code: &str| anna.post("/api/v1/profile/second-factor/confirm", &json!({"code": code})).await;
    refused(confirm("12345").await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let first = totp(&factor.secret.0, 0);
    let codes: RecoveryCodes = ok(confirm(&first).await).await;
    assert_eq!(codes.codes.len(), 10);

    let client = server.client("");
    let login = |code: Option<&str>| {
        let body = json!({"login": "anna@example.org", "password": PASSWORD, "code": code});
        let client = client.clone();
        async move { client.post("/api/v1/login", &body).await }
    };
    refused(login(None).await, StatusCode::UNAUTHORIZED, Code::SecondFactorNeeded).await;
    refused(login(Some(&first)).await, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let next = totp(&factor.secret.0, 1);
    let done: LoggedIn = ok(login(Some(&next)).await).await;
    assert_eq!(done.recovery_codes_left, Some(10));
    refused(login(Some(&next)).await, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let code = codes.codes[2].0.to_lowercase();
    let done: LoggedIn = ok(login(Some(&code)).await).await;
    assert_eq!(done.recovery_codes_left, Some(9));
    refused(login(Some(&code)).await, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;

    // The tenant asks everybody for one: who has none can only set one up.
    let path = format!("/api/v1/tenants/{acme}/security");
    let _: Security = ok(put(&anna, &path, &json!({"idle_minutes": 30, "second_factor": "required"})).await).await;
    let (_, bert) = member(&server, &acme, "admin", "bert@example.org").await;
    refused(bert.get(&path).await, StatusCode::FORBIDDEN, Code::SecondFactorMissing).await;
    let _: Profile = ok(bert.get("/api/v1/profile").await).await;
    step_up(&bert).await;
    let factor: NewSecondFactor = ok(bert.post("/api/v1/profile/second-factor", &json!({})).await).await;
    let body = json!({"code": totp(&factor.secret.0, 0)});
    let _: RecoveryCodes = ok(bert.post("/api/v1/profile/second-factor/confirm", &body).await).await;
    let _: Security = ok(bert.get(&path).await).await;
    let removed = delete(&bert, "/api/v1/profile/second-factor").await;
    refused(removed, StatusCode::CONFLICT, Code::WrongState).await;
}

#[tokio::test]
async fn an_api_token_does_what_its_maker_may_and_it_was_made_for() {
    let server = Server::start();
    let (acme, anna) = customer(&server, "Acme", "anna@example.org").await;
    let (south, _) = customer(&server, "South", "sam@example.org").await;
    let (_, bert) = member(&server, &acme, "user", "bert@example.org").await;
    let make = |client: &Client, body: Value| {
        let client = client.clone();
        async move { client.post("/api/v1/api-tokens", &body).await }
    };
    let wanted = json!({"name": "ci", "verbs": ["user.invite", "security.view"]});
    refused(make(&anna, wanted.clone()).await, StatusCode::FORBIDDEN, Code::StepUpNeeded).await;
    step_up(&anna).await;
    step_up(&bert).await;
    let fresh: NewApiToken = ok(make(&anna, wanted.clone()).await).await;
    refused(make(&bert, wanted).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    for (verbs, tenant) in [(json!(["storage.admin"]), &acme), (json!(["user.invite"]), &south)] {
        let body = json!({"name": "x", "verbs": verbs, "tenant": tenant});
        refused(make(&anna, body).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    }
    let token = server.client(&fresh.secret.0);
    let security = |tenant: &str| format!("/api/v1/tenants/{tenant}/security");
    let _: Security = ok(token.get(&security(&acme)).await).await;
    refused(token.get(&security(&south)).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    refused(token.get("/api/v1/profile").await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let body = json!({"password": PASSWORD});
    refused(token.post("/api/v1/login/step-up", &body).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    // A token that may invite does not make an administrator; a user rules over nobody.
    let path = format!("/api/v1/tenants/{acme}/invitations");
    let admin = json!({"email": "mallory@example.org", "role": "admin"});
    refused(token.post(&path, &admin).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let sent: SentInvitation = ok(token.post(&path, &json!({"email": "u@example.org", "role": "user"})).await).await;
    assert!(sent.link.is_none(), "the mail proves the address");

    // No token makes tokens, whatever it was made for.
    let maker: NewApiToken =
        ok(make(&anna, json!({"name": "m", "verbs": ["self.secure", "security.view"]})).await).await;
    let child = json!({"name": "x", "verbs": ["security.view"]});
    refused(make(&server.client(&maker.secret.0), child).await, StatusCode::FORBIDDEN, Code::Forbidden).await;

    let elsewhere = json!({"name": "x", "verbs": ["security.view"], "networks": ["192.0.2.0/24"]});
    let fresh_elsewhere: NewApiToken = ok(make(&anna, elsewhere).await).await;
    let answer = server.client(&fresh_elsewhere.secret.0).get(&security(&acme)).await;
    refused(answer, StatusCode::FORBIDDEN, Code::UntrustedNetwork).await;
    let listed: Page<api::identity::ApiToken> = ok(anna.get("/api/v1/api-tokens?limit=1").await).await;
    let rest = format!("/api/v1/api-tokens?after={}", listed.next.unwrap());
    let rest: Page<api::identity::ApiToken> = ok(anna.get(&rest).await).await;
    assert_eq!((listed.items.len(), rest.items.len()), (1, 2));
    let path = format!("/api/v1/api-tokens/{}", fresh.token.id);
    refused(delete(&bert, &path).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let _: api::identity::ApiToken = ok(delete(&anna, &path).await).await;
    refused(token.get(&security(&acme)).await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
}

#[tokio::test]
async fn nobody_locks_the_own_address_out_and_the_operator_on_the_server_comes_in() {
    let server = Server::start();
    let (acme, anna) = customer(&server, "Acme", "anna@example.org").await;
    step_up(&anna).await;
    let path = format!("/api/v1/tenants/{acme}/security");
    let policy =
        |networks: Value| json!({"idle_minutes": 30, "second_factor": "optional", "trusted_networks": networks});
    refused(put(&anna, &path, &policy(json!(["192.0.2.0/24"]))).await, StatusCode::CONFLICT, Code::Conflict).await;
    refused(put(&anna, &path, &policy(json!(["nonsense"]))).await, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let _: Security = ok(put(&anna, &path, &policy(json!(["192.0.2.0/24", "127.0.0.0/8"]))).await).await;
    let _: Profile = ok(anna.get("/api/v1/profile").await).await;
    let _: Security = ok(put(&local(&server), &path, &policy(json!(["192.0.2.0/24"]))).await).await;
    refused(anna.get("/api/v1/profile").await, StatusCode::FORBIDDEN, Code::UntrustedNetwork).await;
    let body = json!({"login": "anna@example.org", "password": PASSWORD});
    let client = server.client("");
    refused(client.post("/api/v1/login", &body).await, StatusCode::FORBIDDEN, Code::UntrustedNetwork).await;
    let wrong = json!({"login": "anna@example.org", "password": "wrong"});
    refused(client.post("/api/v1/login", &wrong).await, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let _: Security = ok(put(&local(&server), &path, &policy(json!([]))).await).await;
    let _: Profile = ok(anna.get("/api/v1/profile").await).await;
}

#[tokio::test]
async fn an_invitation_is_no_way_up_and_none_across() {
    let server = Server::start();
    let (acme, anna) = customer(&server, "Acme", "anna@example.org").await;
    let (south, sam) = customer(&server, "South", "sam@example.org").await;
    let (_, bert) = member(&server, &acme, "user", "bert@example.org").await;
    let (_, auditor) = member(&server, &acme, "auditor", "rita@example.org").await;
    let path = |tenant: &str| format!("/api/v1/tenants/{tenant}/invitations");
    let body = json!({"email": "x@example.org", "role": "user"});
    refused(bert.post(&path(&acme), &body).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    refused(auditor.post(&path(&acme), &body).await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    let foreign = refused(anna.post(&path(&south), &body).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    let nowhere = "ffffffffffffffffffffffffffffffff";
    let absent = refused(anna.post(&path(nowhere), &body).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    assert_eq!(foreign.detail, absent.detail);
    let child = json!({"kind": "customer", "email": "x@example.org", "title": "Below"});
    refused(anna.post(&path(&acme), &child).await, StatusCode::FORBIDDEN, Code::Forbidden).await;

    let sent: SentInvitation = ok(anna.post(&path(&acme), &body).await).await;
    assert!(sent.link.is_none());
    let one = format!("/api/v1/invitations/{}", sent.invitation.id);
    refused(delete(&sam, &one).await, StatusCode::NOT_FOUND, Code::NotFound).await;
    refused(anna.post(&path(&acme), &body).await, StatusCode::CONFLICT, Code::Conflict).await;
    // The operator on the server hands the link over; when the inviter has lost the right, it is good for nothing.
    let again: SentInvitation = ok(local(&server).post(&format!("{one}/resend"), &json!({})).await).await;
    let listed: Page<Invitation> = ok(anna.get(&format!("{}?limit=2", path(&acme))).await).await;
    assert_eq!(listed.items.len(), 2);
    let _: Invitation = ok(delete(&anna, &one).await).await;
    refused(delete(&anna, &one).await, StatusCode::CONFLICT, Code::WrongState).await;
    let body = json!({"secret": secret_of(&again), "name": "X", "password": PASSWORD});
    refused(server.client("").post("/api/v1/invitations/accept", &body).await, StatusCode::NOT_FOUND, Code::NotFound)
        .await;

    // Somebody with an account comes in with its password.
    let sent = invite(&local(&server), &south, json!({"email": "BERT@example.org", "role": "auditor"})).await;
    let wrong = json!({"secret": secret_of(&sent), "password": "not this one at all"});
    let answer = server.client("").post("/api/v1/invitations/accept", &wrong).await;
    refused(answer, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let _ = accept(&server, &secret_of(&sent), "").await;
    let _: Security = ok(bert.get(&format!("/api/v1/tenants/{south}/security")).await).await;
}

#[tokio::test]
async fn passwords_are_changed_by_who_knows_them() {
    let server = Server::start();
    let (_, anna) = customer(&server, "Acme", "anna@example.org").await;
    let other = log_in(&server, "anna@example.org").await;
    let change = |current: &str, new: &str| json!({"current": current, "new": new});
    let path = "/api/v1/profile/password";
    let answer = put(&anna, path, &change("wrong", "fresh gravel otter 7")).await;
    refused(answer, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let answer = put(&anna, path, &change(PASSWORD, "Acme-Acme-2026")).await;
    refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let answer = put(&anna, path, &change(PASSWORD, "fresh gravel otter 7")).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let _: Profile = ok(anna.get("/api/v1/profile").await).await;
    refused(other.get("/api/v1/profile").await, StatusCode::UNAUTHORIZED, Code::Unauthorized).await;
    let old = json!({"login": "anna@example.org", "password": PASSWORD});
    let answer = server.client("").post("/api/v1/login", &old).await;
    refused(answer, StatusCode::UNAUTHORIZED, Code::WrongCredentials).await;
    let useless = json!({"secret": "hfp_nonsense", "password": PASSWORD});
    let answer = server.client("").post("/api/v1/password/reset", &useless).await;
    refused(answer, StatusCode::NOT_FOUND, Code::NotFound).await;
}

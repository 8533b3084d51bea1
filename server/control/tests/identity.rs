//! Passwords, second factors, login sessions, API tokens, invitations and recoveries, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Accepted, Account, Actor, Authority, Control, ControlError, Email, INVITATION_NS, InvitationKind, InvitationState,
    LOGIN_SESSION_NS, LOGIN_SESSIONS_MAX, MemberRole, Network, NewApiToken, NewInvitation, NewTenant, Newcomer,
    PASSWORD_RESET_NS, Password, PasswordHash, Place, ProfileChange, RECOVERY_CODES, RECOVERY_DELAY_NS, RecoveryCode,
    RecoveryState, Role, Scope, ScopePart, SecondFactorRule, SecretDigest, SecretKind, SecurityPolicy, Tenant,
    TenantId, TenantKind, TokenSecret, TokenState,
};
use zeroize::Zeroizing;

on_each_engine! {
    an_invitation_works_once_and_makes_an_owner_and_a_user,
    invitations_are_sent_again_taken_back_and_expire,
    somebody_with_an_account_comes_in_elsewhere_too,
    login_sessions_are_listed_ended_and_bounded,
    passwords_are_changed_and_set_by_a_link_once,
    codes_are_taken_once,
    policies_are_as_strict_as_the_strictest_above,
    api_tokens_are_found_listed_and_revoked,
    a_recovery_needs_a_second_operator_and_time,
    a_recovery_ends_when_its_person_logs_in,
}

const SECOND_NS: i64 = 1_000_000_000;
const BASE: &str = "https://backup.example/invitation#";

fn operator() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn all(authority: &Authority) -> Scope {
    Scope::new(authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

fn hash(text: &str) -> PasswordHash {
    Password::chosen(Zeroizing::new(text.to_owned()), &[]).unwrap().hash().unwrap()
}

fn typed(text: &str) -> Password {
    Password::typed(Zeroizing::new(text.to_owned())).unwrap()
}

async fn tenant(control: &Control, scope: &Scope, kind: TenantKind, title: &str) -> Tenant {
    let new = NewTenant { parent: TenantId::PLATFORM, kind, name: None, title };
    control.create_tenant(scope, &operator(), &new, 1).await.unwrap()
}

fn as_user(tenant: TenantId, role: MemberRole, email: &str) -> NewInvitation {
    NewInvitation {
        tenant,
        kind: InvitationKind::User { role: Some(role), groups: Vec::new() },
        email: Email::parse(email).unwrap(),
        locale: "pl".into(),
        inviter: None,
    }
}

async fn accept(control: &Control, secret: &TokenSecret, name: &str, now_ns: i64) -> Result<Accepted, ControlError> {
    let password = hash("plum gravel otter 91");
    let newcomer = Newcomer::New { title: name, password: &password, time_zone: "Europe/Warsaw" };
    control.accept_invitation(&secret.digest(), &newcomer, "192.0.2.1", "https://backup.example", now_ns).await
}

/// Somebody in a tenant.
async fn member(control: &Control, tenant: TenantId, role: MemberRole, email: &str) -> Account {
    let invited = control.create_invitation(&operator(), &as_user(tenant, role, email), BASE, 1).await.unwrap();
    let accepted = accept(control, &invited.1, email, 2).await.unwrap();
    control.account(&accepted.user).await.unwrap().unwrap()
}

async fn an_invitation_works_once_and_makes_an_owner_and_a_user(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let north = tenant(&control, &scope, TenantKind::Partner, "North").await;
    let new = NewInvitation {
        tenant: north.id,
        kind: InvitationKind::Tenant { kind: TenantKind::Customer, title: "Acme".into(), service: None },
        email: Email::parse("Anna@Example.org").unwrap(),
        locale: "pl".into(),
        inviter: None,
    };
    let (invitation, secret) = control.create_invitation(&operator(), &new, BASE, 10).await.unwrap();
    let again = control.create_invitation(&operator(), &new, BASE, 11).await;
    assert!(matches!(again, Err(ControlError::Exists { .. })), "{again:?}");
    let found = control.find_invitation(&secret.digest(), 12).await.unwrap().unwrap();
    assert_eq!((found.id, &found.kind), (invitation.id, &new.kind));

    // Two at the same moment: one of them comes in.
    let (one, two) = tokio::join!(accept(&control, &secret, "Anna", 20), accept(&control, &secret, "Anna", 20));
    let accepted = match (one, two) {
        (Ok(accepted), Err(ControlError::NotFound { .. })) | (Err(ControlError::NotFound { .. }), Ok(accepted)) => {
            accepted
        }
        other => panic!("exactly one of two must win: {other:?}"),
    };
    assert!(control.find_invitation(&secret.digest(), 21).await.unwrap().is_none());
    let acme = control.tenant(&scope, &accepted.tenant).await.unwrap();
    assert_eq!((acme.title.as_str(), acme.kind, acme.parent), ("Acme", TenantKind::Customer, Some(north.id)));
    let held = control.holdings(&accepted.user).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].role, &held[0].place), (Role::CustomerAdmin, &Place::Subtree(acme.id)));

    let code = &accepted.customer_code;
    let letters = code.strip_suffix("-hf").unwrap();
    assert!(letters.len() == 8 && letters[..2].bytes().all(|b| b.is_ascii_lowercase()), "{code}");
    assert!(letters[2..].bytes().all(|b| b.is_ascii_digit()), "{code}");
    for login in ["anna@example.org", " ANNA@example.ORG ", code, &code.to_uppercase()] {
        let account = control.account_by_login(login).await.unwrap().unwrap();
        assert_eq!((account.user, account.tenant, account.locale.as_str()), (accepted.user, acme.id, "pl"));
        assert!(account.may_log_in() && !account.has_second_factor);
        assert!(account.password.unwrap().matches(&typed("plum gravel otter 91")).unwrap());
    }
    assert!(control.account_by_login("bert@example.org").await.unwrap().is_none());

    let bert = member(&control, acme.id, MemberRole::User, "anna@example.com").await;
    assert_eq!((bert.name.as_str(), bert.path.len()), ("anna", 3));
    assert_ne!(bert.customer_code.as_deref(), Some(code.as_str()));
    let held = control.holdings(&bert.user).await.unwrap();
    assert_eq!((held[0].role, &held[0].place), (Role::BackupUser, &Place::Own { user: bert.user, tenant: acme.id }));
    let (_, secret) = control
        .create_invitation(&operator(), &as_user(acme.id, MemberRole::User, "ANNA@example.net"), BASE, 30)
        .await
        .unwrap();
    let third = accept(&control, &secret, "Third", 31).await.unwrap();
    assert_eq!(control.account(&third.user).await.unwrap().unwrap().name, "ANNA");
    // A mail address has one account.
    let taken = as_user(acme.id, MemberRole::Auditor, "anna@EXAMPLE.org");
    let (_, secret) = control.create_invitation(&operator(), &taken, BASE, 40).await.unwrap();
    let refused = accept(&control, &secret, "Impostor", 41).await;
    assert!(matches!(refused, Err(ControlError::Exists { .. })), "{refused:?}");
    assert!(control.find_invitation(&secret.digest(), 42).await.unwrap().is_some(), "a refusal uses nothing up");
    control.verify_audit_log().await.unwrap();
}

async fn invitations_are_sent_again_taken_back_and_expire(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = tenant(&control, &scope, TenantKind::Customer, "Acme").await;
    let new = as_user(acme.id, MemberRole::User, "anna@example.org");
    let (first, stale) = control.create_invitation(&operator(), &new, BASE, 10).await.unwrap();
    let (_, fresh) = control.resend_invitation(&operator(), &first.id, BASE, 20).await.unwrap();
    assert!(control.find_invitation(&stale.digest(), 21).await.unwrap().is_none());
    assert!(control.find_invitation(&fresh.digest(), 20 + INVITATION_NS - 1).await.unwrap().is_some());
    assert!(control.find_invitation(&fresh.digest(), 20 + INVITATION_NS).await.unwrap().is_none());
    let late = accept(&control, &fresh, "Anna", 20 + INVITATION_NS).await;
    assert!(matches!(late, Err(ControlError::NotFound { .. })), "{late:?}");
    let now_ns = 20 + INVITATION_NS;
    assert_eq!(control.invitation(&first.id).await.unwrap().unwrap().state_at(now_ns), InvitationState::Expired);
    assert_eq!(control.expire_invitations(&operator(), now_ns).await.unwrap(), 1);
    assert_eq!(control.expire_invitations(&operator(), now_ns).await.unwrap(), 0);
    assert_eq!(control.invitation(&first.id).await.unwrap().unwrap().state, InvitationState::Expired);
    let (_, fresh) = control.resend_invitation(&operator(), &first.id, BASE, now_ns).await.unwrap();
    let revoked = control.revoke_invitation(&operator(), &first.id, now_ns + 1).await.unwrap();
    assert_eq!(revoked.state, InvitationState::Revoked);
    assert!(control.find_invitation(&fresh.digest(), now_ns + 2).await.unwrap().is_none());
    for refused in [
        control.resend_invitation(&operator(), &first.id, BASE, now_ns + 3).await.map(|_| ()),
        control.revoke_invitation(&operator(), &first.id, now_ns + 3).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(ControlError::WrongState { .. })), "{refused:?}");
    }
    for number in 0..3 {
        let new = as_user(acme.id, MemberRole::User, &format!("user{number}@example.org"));
        control.create_invitation(&operator(), &new, BASE, 50 + number).await.unwrap();
    }
    let page = control.invitations(&scope, &acme.id, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|one| one.created_ns).collect::<Vec<_>>(), [52, 51]);
    let rest = control.invitations(&scope, &acme.id, Some((51, page[1].id)), 9).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.created_ns).collect::<Vec<_>>(), [50, 10]);
    let nothing = Scope::new(&authority, Vec::new());
    assert!(control.invitations(&nothing, &acme.id, None, 9).await.unwrap().is_empty());
}

async fn somebody_with_an_account_comes_in_elsewhere_too(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = tenant(&control, &scope, TenantKind::Customer, "Acme").await;
    let south = tenant(&control, &scope, TenantKind::Customer, "South").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let new = as_user(south.id, MemberRole::Auditor, "anna@example.org");
    let (_, secret) = control.create_invitation(&operator(), &new, BASE, 10).await.unwrap();
    let stranger = member(&control, acme.id, MemberRole::User, "bert@example.org").await;
    let accept = |user| {
        let (control, digest) = (control.clone(), secret.digest());
        async move { control.accept_invitation(&digest, &Newcomer::Known(user), "192.0.2.1", "https://x", 11).await }
    };
    assert!(matches!(accept(stranger.user).await, Err(ControlError::NotFound { .. })), "the link is for one address");
    let accepted = accept(anna.user).await.unwrap();
    assert_eq!((accepted.user, accepted.tenant), (anna.user, south.id));
    assert_eq!(Some(accepted.customer_code), anna.customer_code);
    let roles: Vec<Role> = control.holdings(&anna.user).await.unwrap().iter().map(|holding| holding.role).collect();
    assert!(roles.len() == 2 && roles.contains(&Role::BackupUser) && roles.contains(&Role::Auditor), "{roles:?}");
    let now = control.account(&anna.user).await.unwrap().unwrap();
    assert_eq!(now.tenant, acme.id, "at home where the account was made");
}

async fn login_sessions_are_listed_ended_and_bounded(control: Control) {
    let authority = control.take_authority().unwrap();
    let acme = tenant(&control, &all(&authority), TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let bert = member(&control, acme.id, MemberRole::User, "bert@example.org").await;
    let first = control.begin_login(&anna, "192.0.2.1", "browser\n", 100).await.unwrap();
    let (session, account) = control.find_login(&first.secret.digest()).await.unwrap().unwrap();
    assert_eq!((session.id, account.user, account.last_login_ns), (first.session.id, anna.user, Some(100)));
    assert_eq!((session.program.as_str(), session.ends_ns), ("browser", 100 + LOGIN_SESSION_NS));
    let unknown = TokenSecret::generate(SecretKind::LoginSession).unwrap();
    assert!(control.find_login(&unknown.digest()).await.unwrap().is_none());

    let until_ns = control.step_up(&anna, &session.id, "192.0.2.1", 200).await.unwrap();
    assert_eq!(control.find_login(&first.secret.digest()).await.unwrap().unwrap().0.step_up_until_ns, until_ns);
    assert!(matches!(control.step_up(&bert, &session.id, "x", 200).await, Err(ControlError::NotFound { .. })));
    control.note_login_use(&session.id, 300).await.unwrap();
    control.note_login_use(&session.id, 250).await.unwrap();
    assert_eq!(control.login_sessions(&anna.user, 301).await.unwrap()[0].seen_ns, 300);

    let mut last = first.clone();
    for number in 0..LOGIN_SESSIONS_MAX {
        last = control.begin_login(&anna, "192.0.2.1", "x", 1000 + number).await.unwrap();
    }
    let sessions = control.login_sessions(&anna.user, 2000).await.unwrap();
    assert_eq!(sessions.len() as i64, LOGIN_SESSIONS_MAX);
    assert_eq!(sessions[0].id, last.session.id);
    assert!(control.find_login(&first.secret.digest()).await.unwrap().is_none(), "the one unused for longest has gone");

    assert!(matches!(control.end_login(&bert, &last.session.id, "x", 2001).await, Err(ControlError::NotFound { .. })));
    control.end_login(&anna, &sessions[1].id, "x", 2001).await.unwrap();
    assert_eq!(
        control.end_logins(&anna, Some(last.session.id), "x", 2002).await.unwrap() as i64,
        LOGIN_SESSIONS_MAX - 2
    );
    assert_eq!(control.login_sessions(&anna.user, 2003).await.unwrap().len(), 1);
    let end_ns = last.session.ends_ns;
    assert!(control.login_sessions(&anna.user, end_ns).await.unwrap().is_empty());
    control.begin_login(&bert, "192.0.2.1", "x", end_ns).await.unwrap();
    assert!(control.find_login(&last.secret.digest()).await.unwrap().is_none(), "what has ended is forgotten");
}

async fn passwords_are_changed_and_set_by_a_link_once(control: Control) {
    let authority = control.take_authority().unwrap();
    let acme = tenant(&control, &all(&authority), TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let own = control.begin_login(&anna, "192.0.2.1", "x", 100).await.unwrap();
    let other = control.begin_login(&anna, "192.0.2.2", "x", 101).await.unwrap();
    control.change_password(&anna, &hash("second gravel otter"), Some(own.session.id), "192.0.2.1", 110).await.unwrap();
    assert!(control.find_login(&own.secret.digest()).await.unwrap().is_some());
    assert!(control.find_login(&other.secret.digest()).await.unwrap().is_none());
    let stored = |control: Control| async move {
        control.account_by_login("anna@example.org").await.unwrap().unwrap().password.unwrap()
    };
    assert!(stored(control.clone()).await.matches(&typed("second gravel otter")).unwrap());

    control.send_password_reset(&anna, "https://x/password#", "192.0.2.9", 120).await.unwrap();
    control.send_password_reset(&anna, "https://x/password#", "192.0.2.9", 130).await.unwrap();
    let secrets = mailed(&control, SecretKind::PasswordReset).await;
    let [stale, fresh] = secrets.as_slice() else { panic!("two mails: {}", secrets.len()) };
    assert!(control.find_password_reset(stale, 131).await.unwrap().is_none());
    let found = control.find_password_reset(fresh, 130 + PASSWORD_RESET_NS - 1).await.unwrap().unwrap();
    assert_eq!(found.user, anna.user);
    assert!(control.find_password_reset(fresh, 130 + PASSWORD_RESET_NS).await.unwrap().is_none());
    let third = hash("third gravel otter");
    control.use_password_reset(fresh, &anna, &third, "192.0.2.9", 140).await.unwrap();
    let again = control.use_password_reset(fresh, &anna, &third, "192.0.2.9", 141).await;
    assert!(matches!(again, Err(ControlError::NotFound { .. })), "{again:?}");
    assert!(stored(control.clone()).await.matches(&typed("third gravel otter")).unwrap());
    assert!(control.find_login(&own.secret.digest()).await.unwrap().is_none(), "a link ends every login session");

    // A change of the password makes a link in a mailbox useless.
    control.send_password_reset(&anna, "https://x/password#", "192.0.2.9", 150).await.unwrap();
    let fresh = mailed(&control, SecretKind::PasswordReset).await.pop().unwrap();
    control.change_password(&anna, &hash("fourth gravel otter"), None, "192.0.2.1", 160).await.unwrap();
    assert!(control.find_password_reset(&fresh, 161).await.unwrap().is_none());
}

/// Digests of the secrets of a kind in waiting mails, oldest first.
async fn mailed(control: &Control, kind: SecretKind) -> Vec<SecretDigest> {
    let mut found = Vec::new();
    for mail in control.due_mails(i64::MAX, 1000).await.unwrap() {
        let words = mail.text.body.split(|c: char| c.is_whitespace() || c == '#');
        found.extend(words.filter_map(|word| TokenSecret::parse(kind, word)).map(|secret| secret.digest()));
    }
    found
}

async fn codes_are_taken_once(control: Control) {
    let authority = control.take_authority().unwrap();
    let acme = tenant(&control, &all(&authority), TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let bert = member(&control, acme.id, MemberRole::User, "bert@example.org").await;
    control.begin_second_factor(&anna, b"sealed once", 10).await.unwrap();
    control.begin_second_factor(&anna, b"sealed", 11).await.unwrap();
    let factor = control.second_factor(&anna.user).await.unwrap().unwrap();
    assert_eq!((factor.sealed_secret.as_slice(), factor.confirmed_ns), (b"sealed".as_slice(), None));
    assert!(!control.account(&anna.user).await.unwrap().unwrap().has_second_factor, "it waits for its first code");
    assert!(!control.use_step(&anna.user, 5).await.unwrap());
    let codes = control.confirm_second_factor(&anna, 100, "192.0.2.1", 12).await.unwrap();
    assert_eq!(codes.len(), RECOVERY_CODES);
    assert!(control.account(&anna.user).await.unwrap().unwrap().has_second_factor);
    for refused in [
        control.confirm_second_factor(&anna, 101, "x", 13).await.map(|_| ()),
        control.begin_second_factor(&anna, b"another", 13).await,
        control.renew_recovery_codes(&bert, "x", 13).await.map(|_| ()),
        control.remove_second_factor(&bert, "x", 13).await,
    ] {
        assert!(matches!(refused, Err(ControlError::WrongState { .. })), "{refused:?}");
    }
    let mut taken = Vec::new();
    for step in [100, 99, 101, 101, 100, 102] {
        taken.push(control.use_step(&anna.user, step).await.unwrap());
    }
    assert_eq!(taken, [false, false, true, false, false, true]);

    let code = RecoveryCode::typed(&codes[3].expose().to_lowercase()).unwrap();
    assert!(!control.use_recovery_code(&bert, &code, "x", 20).await.unwrap(), "another person's code");
    let (one, two) = tokio::join!(
        control.use_recovery_code(&anna, &code, "x", 20),
        control.use_recovery_code(&anna, &codes[3], "x", 20)
    );
    assert!(one.unwrap() ^ two.unwrap());
    assert_eq!(control.recovery_codes_left(&anna.user).await.unwrap(), 9);
    let fresh = control.renew_recovery_codes(&anna, "x", 21).await.unwrap();
    assert_eq!(control.recovery_codes_left(&anna.user).await.unwrap(), 10);
    assert!(!control.use_recovery_code(&anna, &codes[4], "x", 22).await.unwrap());
    assert!(control.use_recovery_code(&anna, &fresh[0], "x", 22).await.unwrap());
    control.remove_second_factor(&anna, "x", 23).await.unwrap();
    assert!(control.second_factor(&anna.user).await.unwrap().is_none());
    assert!(!control.use_recovery_code(&anna, &fresh[1], "x", 24).await.unwrap());
}

async fn policies_are_as_strict_as_the_strictest_above(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let north = tenant(&control, &scope, TenantKind::Partner, "North").await;
    let new = NewTenant { parent: north.id, kind: TenantKind::Customer, name: None, title: "Acme" };
    let acme = control.create_tenant(&scope, &operator(), &new, 1).await.unwrap();
    let path = vec![TenantId::PLATFORM, north.id, acme.id];
    let network = |text: &str| text.parse::<Network>().unwrap();
    let policy = |idle_minutes, second_factor, networks: &[&str]| SecurityPolicy {
        idle_minutes,
        second_factor,
        trusted_networks: networks.iter().map(|text| network(text)).collect(),
    };
    let set = |length: usize, policy: SecurityPolicy| {
        let (control, scope, path) = (control.clone(), scope.clone(), path[..length].to_vec());
        async move { control.set_security_policy(&scope, &operator(), &path, &policy, 5).await }
    };
    set(2, policy(20, SecondFactorRule::Required, &["192.0.2.0/24"])).await.unwrap();
    let effective = control.effective_policy(&path).await.unwrap();
    assert_eq!(effective, policy(20, SecondFactorRule::Required, &[]), "networks are each tenant's own");
    for lax in [policy(21, SecondFactorRule::Required, &[]), policy(20, SecondFactorRule::Optional, &[])] {
        let refused = set(3, lax).await;
        assert!(matches!(refused, Err(ControlError::Invalid { .. })), "{refused:?}");
    }
    assert!(matches!(set(3, policy(4, SecondFactorRule::Required, &[])).await, Err(ControlError::Invalid { .. })));
    set(3, policy(10, SecondFactorRule::Required, &["198.51.100.7", "2001:db8::/32"])).await.unwrap();
    let own = control.security_policy(&scope, &acme.id).await.unwrap();
    assert_eq!(own, policy(10, SecondFactorRule::Required, &["198.51.100.7/32", "2001:db8::/32"]));
    // Those above become stricter later: it counts at once below.
    set(1, policy(7, SecondFactorRule::Required, &[])).await.unwrap();
    assert_eq!(control.effective_policy(&path).await.unwrap().idle_minutes, 7);
    assert_eq!(control.effective_policy(&path[..2]).await.unwrap().trusted_networks, [network("192.0.2.0/24")]);
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let found = control.networks_of_memberships(&anna.user).await.unwrap();
    assert_eq!(found, [(acme.id, own.trusted_networks)]);
    let nothing = Scope::new(&authority, Vec::new());
    assert!(matches!(control.security_policy(&nothing, &acme.id).await, Err(ControlError::NotFound { .. })));
}

async fn api_tokens_are_found_listed_and_revoked(control: Control) {
    let authority = control.take_authority().unwrap();
    let acme = tenant(&control, &all(&authority), TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::Admin, "anna@example.org").await;
    let bert = member(&control, acme.id, MemberRole::User, "bert@example.org").await;
    let networks = ["192.0.2.0/24".parse().unwrap()];
    let new = NewApiToken {
        tenant: acme.id,
        name: "ci",
        verbs: vec!["job.view".into(), "plan.view".into()],
        networks: &networks,
        expires_ns: Some(1000),
    };
    let (token, secret) = control.create_api_token(&anna, &new, "192.0.2.1", 10).await.unwrap();
    let found = control.find_api_token(&secret.digest()).await.unwrap().unwrap();
    assert_eq!(found, token);
    assert_eq!((found.state(999), found.state(1000)), (TokenState::Valid, TokenState::Expired));
    for wrong in [
        NewApiToken { verbs: Vec::new(), ..new.clone() },
        NewApiToken { expires_ns: Some(10), ..new.clone() },
        NewApiToken { name: "", ..new.clone() },
    ] {
        let refused = control.create_api_token(&anna, &wrong, "x", 10).await;
        assert!(matches!(refused, Err(ControlError::Invalid { .. })), "{refused:?}");
    }
    control.note_api_token_use(&token.id, 61 * SECOND_NS).await.unwrap();
    assert_eq!(control.find_api_token(&secret.digest()).await.unwrap().unwrap().used_ns, Some(60 * SECOND_NS));
    for number in 0..2 {
        control
            .create_api_token(&anna, &NewApiToken { expires_ns: None, ..new.clone() }, "x", 20 + number)
            .await
            .unwrap();
    }
    let page = control.api_tokens(&anna.user, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|token| token.created_ns).collect::<Vec<_>>(), [10, 20]);
    let rest = control.api_tokens(&anna.user, Some((20, page[1].id)), 9).await.unwrap();
    assert_eq!(rest.iter().map(|token| token.created_ns).collect::<Vec<_>>(), [21]);
    assert!(control.api_tokens(&bert.user, None, 9).await.unwrap().is_empty());
    let foreign = control.revoke_api_token(&bert, &token.id, "x", 30).await;
    assert!(matches!(foreign, Err(ControlError::NotFound { .. })), "{foreign:?}");
    control.revoke_api_token(&anna, &token.id, "x", 30).await.unwrap();
    assert_eq!(control.revoke_api_token(&anna, &token.id, "x", 40).await.unwrap().revoked_ns, Some(30));
    assert_eq!(control.find_api_token(&secret.digest()).await.unwrap().unwrap().state(31), TokenState::Revoked);
}

async fn a_recovery_needs_a_second_operator_and_time(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let acme = tenant(&control, &scope, TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let change = ProfileChange { notify_email: Some("notices@example.org".into()), ..ProfileChange::default() };
    control.edit_profile(&anna, &change, "x", 3).await.unwrap();
    let anna = control.account(&anna.user).await.unwrap().unwrap();
    let new_email = Email::parse("anna@new.example").unwrap();
    // The operator on the server is the only one: the time runs at once.
    let asked = control.ask_recovery(&operator(), &anna, &new_email, "phone call", 10).await.unwrap();
    assert_eq!((asked.state, asked.due_ns), (RecoveryState::Waiting, Some(10 + RECOVERY_DELAY_NS)));
    let twice = control.ask_recovery(&operator(), &anna, &new_email, "again", 11).await;
    assert!(matches!(twice, Err(ControlError::Exists { .. })), "{twice:?}");
    control.cancel_recovery(&operator(), &anna, &asked.id, 12).await.unwrap();

    let one = member(&control, TenantId::PLATFORM, MemberRole::Admin, "op1@example.org").await;
    let two = member(&control, TenantId::PLATFORM, MemberRole::Admin, "op2@example.org").await;
    let actor = |account: &Account| Actor { id: account.user.to_string(), name: account.name.clone(), ..operator() };
    let taken = Email::parse("OP1@example.org").unwrap();
    let refused = control.ask_recovery(&actor(&one), &anna, &taken, "x", 20).await;
    assert!(matches!(refused, Err(ControlError::Exists { .. })), "{refused:?}");
    let asked = control.ask_recovery(&actor(&one), &anna, &new_email, "phone call", 20).await.unwrap();
    assert_eq!((asked.state, asked.due_ns), (RecoveryState::Asked, None));
    let alone = control.approve_recovery(&actor(&one), &anna, &asked.id, 21).await;
    assert!(matches!(alone, Err(ControlError::WrongState { .. })), "{alone:?}");
    let approved = control.approve_recovery(&actor(&two), &anna, &asked.id, 22).await.unwrap();
    let due_ns = 22 + RECOVERY_DELAY_NS;
    assert_eq!((approved.state, approved.due_ns), (RecoveryState::Waiting, Some(due_ns)));

    control.begin_second_factor(&anna, b"sealed", 23).await.unwrap();
    control.confirm_second_factor(&anna, 1, "x", 24).await.unwrap();
    assert!(control.due_recoveries(due_ns - 1).await.unwrap().is_empty());
    let early = control.finish_recovery(&operator(), &anna, &asked.id, "https://x/password#", due_ns - 1).await;
    assert!(matches!(early, Err(ControlError::WrongState { .. })), "{early:?}");
    assert_eq!(control.due_recoveries(due_ns).await.unwrap(), [approved]);
    control.finish_recovery(&operator(), &anna, &asked.id, "https://x/password#", due_ns).await.unwrap();
    let recovered = control.account_by_login("anna@new.example").await.unwrap().unwrap();
    assert_eq!(recovered.user, anna.user);
    assert!(recovered.password.is_none() && !recovered.has_second_factor && recovered.notify_email.is_none());
    assert!(control.account_by_login("anna@example.org").await.unwrap().is_none());
    let mails = control.due_mails(i64::MAX, 1000).await.unwrap();
    let to = |address: &str| mails.iter().filter(|mail| mail.address == address).count();
    // Asked for twice, agreed to once, carried out: four notices to each of the old addresses.
    assert_eq!(to("notices@example.org"), 4 + 1, "and one of the second factor");
    assert!(to("anna@example.org") >= 4);
    let link = mailed(&control, SecretKind::PasswordReset).await.pop().unwrap();
    let found = control.find_password_reset(&link, due_ns + 1).await.unwrap().unwrap();
    control.use_password_reset(&link, &found, &hash("fresh gravel otter"), "x", due_ns + 2).await.unwrap();
    assert_eq!(control.recoveries(&scope, None, 9).await.unwrap().len(), 2);
    let newest = control.recoveries(&scope, None, 1).await.unwrap();
    assert_eq!((newest[0].id, newest[0].state), (asked.id, RecoveryState::Done));
    assert!(control.recoveries(&Scope::new(&authority, Vec::new()), None, 9).await.unwrap().is_empty());
}

async fn a_recovery_ends_when_its_person_logs_in(control: Control) {
    let authority = control.take_authority().unwrap();
    let acme = tenant(&control, &all(&authority), TenantKind::Customer, "Acme").await;
    let anna = member(&control, acme.id, MemberRole::User, "anna@example.org").await;
    let new_email = Email::parse("thief@example.net").unwrap();
    let asked = control.ask_recovery(&operator(), &anna, &new_email, "a convincing story", 10).await.unwrap();
    control.begin_login(&anna, "192.0.2.1", "x", 11).await.unwrap();
    assert_eq!(control.recovery(&asked.id).await.unwrap().unwrap().state, RecoveryState::Cancelled);
    assert!(control.due_recoveries(i64::MAX).await.unwrap().is_empty());
}

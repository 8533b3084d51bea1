//! Exports through all their states, their dates, their keys and what is written of downloads, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;

use control::{
    Actor, Control, ControlError, Export, ExportContent, ExportDownload, ExportDownloadId, ExportFile, ExportRefusal,
    ExportState, ExportTerms, Licence, NewAllocation, NewExport, NewExportKey, NewRevision, NewService, Plan,
    ProductTerms, Scope, ScopePart, Share, SystemWords, TenantId, UserName,
};
use repo_format::id::VaultId;

on_each_engine! {
    an_export_goes_through_its_states_by_its_dates,
    what_failed_lifts_the_wait,
    keys_open_what_is_ready_from_where_they_may_until_they_end,
    a_product_releases_by_itself_and_sets_the_days,
    nothing_of_others_is_reached,
}

const DAY: i64 = 24 * 3600 * 1_000_000_000;
const NOON: i64 = 12 * 3600 * 1_000_000_000;
const VAULT: VaultId = VaultId::from_bytes([7; 16]);

fn actor() -> Actor {
    Actor { id: "u".into(), name: "anna".into(), behalf: None, address: "192.0.2.1".into() }
}

fn all(control: &Control) -> Scope {
    Scope::new(&control.take_authority().unwrap(), vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

async fn plan(control: &Control, scope: &Scope, user: &str, vault: VaultId) -> Plan {
    control.create_user(&UserName::parse(user).unwrap(), vault, 1).await.unwrap();
    let user = control.locate_vault(&vault).await.unwrap().unwrap().user.unwrap();
    let made = control.create_enrolment(scope, &actor(), &user, None, DAY, 1).await.unwrap();
    let words = SystemWords { os: "Debian", agent_version: "0.1.0" };
    let (computer, _) = control.enrol(&made.secret.digest(), "db", None, words, "agent", 2).await.unwrap();
    let revision = NewRevision { body: "{}", due: None, retention: None };
    control.create_plan(scope, &actor(), &computer.id, "nightly", &revision, 3).await.unwrap()
}

fn content() -> ExportContent {
    let file = ExportFile {
        name: "shop.sql".into(),
        path: "/postgresql/shop.sql".into(),
        size_bytes: 1 << 40,
        sha256: "00".repeat(32),
        sha1: "11".repeat(20),
        md5: "22".repeat(16),
    };
    ExportContent { vault: VAULT, snapshot: "ab".repeat(16), dumped_ns: 5, files: vec![file] }
}

async fn request(control: &Control, scope: &Scope, plan: &Plan, now_ns: i64) -> Result<Export, ControlError> {
    control.request_export(scope, &actor(), &NewExport { plan: plan.id, newest_will_do: false }, now_ns).await
}

async fn ready(control: &Control, scope: &Scope, plan: &Plan, now_ns: i64) -> Export {
    let asked = request(control, scope, plan, now_ns).await.unwrap();
    control.release_export(scope, &actor(), &asked.id, now_ns).await.unwrap();
    control.publish_export(scope, &actor(), &asked.id, &content(), now_ns).await.unwrap()
}

fn is_wrong_state<T>(result: &Result<T, ControlError>) -> bool {
    matches!(result, Err(ControlError::WrongState { .. }))
}

fn next_ns<T>(result: Result<T, ControlError>) -> i64 {
    match result {
        Err(ControlError::TooEarly { what: "export", next_ns }) => next_ns,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn an_export_goes_through_its_states_by_its_dates(control: Control) {
    let scope = all(&control);
    let plan = plan(&control, &scope, "acme/anna", VAULT).await;
    assert_eq!(control.next_export_ns(&plan.id, NOON).await.unwrap(), None);
    let asked = request(&control, &scope, &plan, NOON).await.unwrap();
    assert_eq!((asked.state, asked.requested_ns), (ExportState::AwaitingRelease, NOON));
    assert_eq!(asked.next_allowed_ns, NOON + 28 * DAY);
    // Not before its 28 days are over, to the nanosecond, whatever becomes of this one.
    assert_eq!(next_ns(request(&control, &scope, &plan, NOON + 1).await), NOON + 28 * DAY);
    assert!(is_wrong_state(&control.publish_export(&scope, &actor(), &asked.id, &content(), NOON).await));
    assert!(control.exports_in_progress(&scope).await.unwrap().is_empty());

    let released = control.release_export(&scope, &actor(), &asked.id, NOON + 2).await.unwrap();
    assert_eq!((released.state, released.state_ns), (ExportState::InProgress, NOON + 2));
    assert!(is_wrong_state(&control.release_export(&scope, &actor(), &asked.id, NOON + 2).await));
    assert_eq!(control.exports_in_progress(&scope).await.unwrap(), [released]);
    control.export_progress(&asked.id, 10, 30).await.unwrap();
    let seen = control.export(&scope, &asked.id).await.unwrap();
    assert_eq!((seen.bytes_done, seen.bytes_total), (10, Some(30)));

    let ready = control.publish_export(&scope, &actor(), &asked.id, &content(), NOON + DAY).await.unwrap();
    assert_eq!(
        (ready.state, ready.content, ready.expires_ns),
        (ExportState::Ready, Some(content()), Some(NOON + 11 * DAY))
    );
    assert!(ready.account.is_some_and(|account| account.starts_with("export-") && account.len() == 23));
    assert!(is_wrong_state(&control.fail_export(&scope, &actor(), &asked.id, "late", NOON + DAY).await));
    assert!(control.expire_exports(&scope, &actor(), NOON + 11 * DAY - 1).await.unwrap().is_empty());
    let expired = control.expire_exports(&scope, &actor(), NOON + 11 * DAY).await.unwrap();
    assert_eq!(expired.iter().map(|export| export.id).collect::<Vec<_>>(), [asked.id]);
    assert_eq!(control.export(&scope, &asked.id).await.unwrap().state, ExportState::Expired);
    assert!(control.expire_exports(&scope, &actor(), NOON + 12 * DAY).await.unwrap().is_empty());

    assert_eq!(next_ns(request(&control, &scope, &plan, NOON + 28 * DAY - 1).await), NOON + 28 * DAY);
    let again = request(&control, &scope, &plan, NOON + 28 * DAY).await.unwrap();
    let page = control.exports(&scope, None, None, 1).await.unwrap();
    assert_eq!(page.iter().map(|export| export.id).collect::<Vec<_>>(), [again.id]);
    let rest = control.exports(&scope, Some(&plan.tenant), Some((page[0].requested_ns, page[0].id)), 9).await.unwrap();
    assert_eq!(rest.iter().map(|export| export.id).collect::<Vec<_>>(), [asked.id]);
    control.verify_audit_log().await.unwrap();
    let verbs: Vec<String> =
        control.audit_entries(&scope, None, 100).await.unwrap().into_iter().map(|entry| entry.verb).collect();
    for verb in ["export.request", "export.release", "export.publish", "export.expire"] {
        assert!(verbs.iter().any(|found| found == verb), "{verb} is not in {verbs:?}");
    }
}

async fn what_failed_lifts_the_wait(control: Control) {
    let scope = all(&control);
    let plan = plan(&control, &scope, "acme/anna", VAULT).await;
    let asked = request(&control, &scope, &plan, NOON).await.unwrap();
    let failed = control.fail_export(&scope, &actor(), &asked.id, "the database said no", NOON + 1).await.unwrap();
    assert_eq!((failed.state, failed.error.as_deref()), (ExportState::ServerError, Some("the database said no")));
    assert!(failed.reference.is_some_and(|reference| asked.id.to_string().starts_with(&reference)));
    let asked = request(&control, &scope, &plan, NOON + 2).await.unwrap();
    let refused = control.refuse_export(&scope, &actor(), &asked.id, "ask for less", NOON + 3).await.unwrap();
    assert_eq!(refused.state, ExportState::ServerError);
    let asked = request(&control, &scope, &plan, NOON + 4).await.unwrap();
    assert_eq!(control.exports_of_unknown_state(&scope).await.unwrap(), 0);
    assert_eq!(next_ns(request(&control, &scope, &plan, NOON + 5).await), asked.next_allowed_ns);
}

fn key<'a>(fingerprint: &'a str, networks: &'a [control::Network], expires_ns: Option<i64>) -> NewExportKey<'a> {
    let public_key = "ssh-ed25519 AAAA";
    NewExportKey { fingerprint, public_key, is_own: false, networks, expires_ns, terms_version: "2026-01" }
}

async fn keys_open_what_is_ready_from_where_they_may_until_they_end(control: Control) {
    let scope = all(&control);
    let plan = plan(&control, &scope, "acme/anna", VAULT).await;
    let asked = request(&control, &scope, &plan, NOON).await.unwrap();
    let early = control.add_export_key(&scope, &actor(), &asked.id, &key("SHA256:a", &[], None), NOON).await;
    assert!(is_wrong_state(&early));
    control.release_export(&scope, &actor(), &asked.id, NOON).await.unwrap();
    let export = control.publish_export(&scope, &actor(), &asked.id, &content(), NOON).await.unwrap();
    let account = export.account.clone().unwrap();
    let networks = ["192.0.2.0/24".parse().unwrap()];
    let add = async |new: NewExportKey<'_>| control.add_export_key(&scope, &actor(), &export.id, &new, NOON + 1).await;
    let made = add(key("SHA256:a", &networks, None)).await.unwrap();
    assert_eq!((made.expires_ns, made.terms_version.as_str()), (NOON + 10 * DAY, "2026-01"));
    assert!(matches!(add(key("SHA256:a", &[], None)).await, Err(ControlError::Exists { what: "key", .. })));
    let short = add(key("SHA256:b", &[], Some(NOON + DAY))).await.unwrap();
    assert_eq!(add(key("SHA256:c", &[], Some(NOON + 99 * DAY))).await.unwrap().expires_ns, NOON + 10 * DAY);
    assert!(matches!(add(key("SHA256:d", &[], Some(NOON))).await, Err(ControlError::Invalid { .. })));

    let login = async |account: &str, fingerprint: &str, address: &str, at_ns: i64| {
        let done = control.export_login(&scope, account, fingerprint, address.parse().unwrap(), at_ns).await.unwrap();
        done.map(|(found, key)| (found.id, key.id))
    };
    assert_eq!(login(&account, "SHA256:a", "192.0.2.9", NOON + 2).await, Ok((export.id, made.id)));
    assert_eq!(login(&account, "SHA256:a", "::ffff:192.0.2.9", NOON + 2).await, Ok((export.id, made.id)));
    assert_eq!(login(&account, "SHA256:a", "198.51.100.1", NOON + 2).await, Err(ExportRefusal::Address));
    assert_eq!(login(&account, "SHA256:x", "192.0.2.9", NOON + 2).await, Err(ExportRefusal::Key));
    assert_eq!(login("root", "SHA256:a", "192.0.2.9", NOON + 2).await, Err(ExportRefusal::Account));
    assert_eq!(login(&account, "SHA256:b", "2001:db8::1", NOON + DAY - 1).await, Ok((export.id, short.id)));
    assert_eq!(login(&account, "SHA256:b", "2001:db8::1", NOON + DAY).await, Err(ExportRefusal::Ended));
    control.export_key_used(&made.id, "192.0.2.9", NOON + 3).await.unwrap();
    let keys = control.export_keys(&scope, &export.id).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.fingerprint.as_str()).collect::<Vec<_>>().len(), 3);
    let used = keys.iter().find(|key| key.id == made.id).unwrap();
    assert_eq!((used.used_ns, used.used_address.as_deref()), (Some(NOON + 3), Some("192.0.2.9")));

    let download = ExportDownload {
        id: ExportDownloadId::generate().unwrap(),
        export: export.id,
        key: made.id,
        address: "192.0.2.9".into(),
        program: "OpenSSH".into(),
        path: "/shop.sql".into(),
        bytes: 1 << 40,
        is_complete: true,
        began_ns: NOON + 3,
        ended_ns: NOON + 4,
    };
    control.record_download(&scope, &download, "SHA256:a").await.unwrap();
    assert_eq!(control.export_downloads(&scope, &export.id, 9).await.unwrap(), [download]);

    let revoked = control.revoke_export_key(&scope, &actor(), &export.id, &made.id, NOON + 5).await.unwrap();
    assert_eq!(revoked.revoked_ns, Some(NOON + 5));
    let again = control.revoke_export_key(&scope, &actor(), &export.id, &made.id, NOON + 6).await.unwrap();
    assert_eq!(again.revoked_ns, Some(NOON + 5));
    assert_eq!(login(&account, "SHA256:a", "192.0.2.9", NOON + 6).await, Err(ExportRefusal::Ended));
    // With the export everything that opens it ends, also between the moment and the job that notices it.
    assert!(login(&account, "SHA256:c", "192.0.2.9", NOON + 10 * DAY - 1).await.is_ok());
    assert_eq!(login(&account, "SHA256:c", "192.0.2.9", NOON + 10 * DAY).await, Err(ExportRefusal::Account));
    control.expire_exports(&scope, &actor(), NOON + 10 * DAY).await.unwrap();
    assert!(control.export_keys(&scope, &export.id).await.unwrap().iter().all(|key| key.revoked_ns.is_some()));
    let late = control.add_export_key(&scope, &actor(), &export.id, &key("SHA256:e", &[], None), NOON + 10 * DAY).await;
    assert!(is_wrong_state(&late));
    control.verify_audit_log().await.unwrap();
}

async fn a_product_releases_by_itself_and_sets_the_days(control: Control) {
    let scope = all(&control);
    let plan = plan(&control, &scope, "acme/anna", VAULT).await;
    let product = control.products().await.unwrap().into_iter().find(|product| product.terms.name == "backup").unwrap();
    let exports = ExportTerms { wait_days: 1, kept_days: 2, is_automatic: true };
    let terms = ProductTerms { exports, ..product.terms };
    let edited = control.edit_product(&actor(), &product.id, &terms, false, 4).await.unwrap();
    assert_eq!((edited.terms.exports, control.products().await.unwrap()[0].terms.exports), (exports, exports));
    let (tenant, licence) = (plan.tenant, Licence::Paid);
    let order = NewService { tenant, product: product.id, licence, quantity: 10, expires_on: None, auto_renew: false };
    let service = control.order_service(&scope, &actor(), &order, None, 5).await.unwrap();
    control.pay_service(&scope, &actor(), &service.id, 6).await.unwrap();
    let share = Share { bytes: 1 << 30, computers: None };
    let new = NewAllocation { service: &service.id, user: &plan.user, share: &share, vault: None };
    control.set_allocation(&scope, &actor(), &new, 7).await.unwrap();
    let asked = request(&control, &scope, &plan, NOON).await.unwrap();
    assert_eq!((asked.state, asked.next_allowed_ns), (ExportState::InProgress, NOON + DAY));
    let ready = control.publish_export(&scope, &actor(), &asked.id, &content(), NOON).await.unwrap();
    assert_eq!(ready.expires_ns, Some(NOON + 2 * DAY));
}

async fn nothing_of_others_is_reached(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
    let mine = plan(&control, &scope, "acme/anna", VAULT).await;
    let other = plan(&control, &scope, "other/bert", VaultId::from_bytes([8; 16])).await;
    let export = ready(&control, &scope, &mine, NOON).await;
    let theirs = Scope::new(&authority, vec![ScopePart::Subtree(other.tenant)]);
    let not_found = |result: Result<Export, ControlError>| matches!(result, Err(ControlError::NotFound { .. }));
    assert!(not_found(control.export(&theirs, &export.id).await));
    assert!(not_found(request(&control, &theirs, &mine, NOON).await));
    assert!(not_found(control.release_export(&theirs, &actor(), &export.id, NOON).await));
    assert!(control.exports(&theirs, None, None, 9).await.unwrap().is_empty());
    assert!(control.exports(&theirs, Some(&mine.tenant), None, 9).await.unwrap().is_empty());
    assert!(control.export_keys(&theirs, &export.id).await.is_err());
    assert!(control.expire_exports(&theirs, &actor(), NOON + 99 * DAY).await.unwrap().is_empty());
    let location = control.locate_export(&export.id).await.unwrap().unwrap();
    assert_eq!((location.tenant(), location.user), (Some(mine.tenant), Some(mine.user)));
}

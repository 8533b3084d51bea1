//! The outbox, on both engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod engines;
mod people;

use control::{
    Actor, Authority, Control, ControlError, MailState, MailTemplate, NewMail, ProfileChange, Scope, ScopePart,
    TenantId, UserName,
};
use people::person;
use repo_format::id::VaultId;
use std::collections::BTreeMap;

on_each_engine! {
    a_mail_waits_is_sent_and_forgets_what_it_said,
    what_cannot_be_sent_now_comes_back_later_and_later_and_is_given_up,
    an_address_that_refuses_is_noted_at_its_user_until_it_takes_one,
    a_waiting_mail_can_be_tried_at_once_or_taken_back,
    the_outbox_is_listed_in_pages_and_as_far_as_the_scope_reaches,
}

const MINUTE_NS: i64 = 60_000_000_000;
const DAY_NS: i64 = 24 * 60 * MINUTE_NS;

fn actor() -> Actor {
    Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() }
}

fn all(authority: &Authority) -> Scope {
    Scope::new(authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])
}

fn mail<'a>(to: &'a str, locale: &'a str, tenant: Option<TenantId>) -> NewMail<'a> {
    let values = [("minutes", "30"), ("reset_link", "https://backup.example/reset/hfi_secret")];
    let values: BTreeMap<String, String> = values.map(|(word, value)| (word.to_owned(), value.to_owned())).into();
    NewMail { to, template: MailTemplate::PasswordReset, locale, values, tenant }
}

async fn a_mail_waits_is_sent_and_forgets_what_it_said(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    for wrong in ["", "anna", "@example.org", "anna@", "anna@example.org\r\nBcc: x@example.org", "a,b@example.org"] {
        let queued = control.queue_mail(&mail(wrong, "en", None), 1).await;
        assert!(matches!(queued, Err(ControlError::Invalid { what: "e-mail address", .. })), "{wrong}");
    }
    let mut incomplete = mail("anna@example.org", "en", None);
    incomplete.values.remove("minutes");
    assert!(control.queue_mail(&incomplete, 1).await.is_err());

    let id = control.queue_mail(&mail("anna@example.org", "de-AT", None), 5).await.unwrap();
    assert!(control.due_mails(4, 10).await.unwrap().is_empty());
    let due = control.due_mails(5, 10).await.unwrap();
    assert_eq!((due.len(), due[0].id, due[0].address.as_str()), (1, id, "anna@example.org"));
    assert_eq!(due[0].text.subject, "Neues Passwort für Holdfast wählen");
    assert!(due[0].text.body.contains("https://backup.example/reset/hfi_secret\n"));

    control.mail_sent(&due[0], 6).await.unwrap();
    assert!(control.due_mails(i64::MAX, 10).await.unwrap().is_empty());
    let listed = control.outbox(&scope, None, None, 10).await.unwrap();
    assert_eq!((listed[0].state, listed[0].tries, listed[0].done_ns), (MailState::Sent, 1, Some(6)));
    assert_eq!(control.outbox_counts().await.unwrap()["sent"], 1);
    // What was sent cannot be sent again, whoever asks.
    control.mail_sent(&due[0], 7).await.unwrap();
    control.mail_delayed(&due[0], "late", 8).await.unwrap();
    assert_eq!(control.outbox(&scope, None, None, 10).await.unwrap(), listed);
    assert_eq!(control.forget_mails(6, 10).await.unwrap(), 0);
    assert_eq!(control.forget_mails(7, 10).await.unwrap(), 1);
    assert!(control.outbox(&scope, None, None, 10).await.unwrap().is_empty());
}

async fn what_cannot_be_sent_now_comes_back_later_and_later_and_is_given_up(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    control.queue_mail(&mail("busy@example.org", "en", None), 0).await.unwrap();
    let (mut now_ns, mut pauses) = (0, Vec::new());
    loop {
        let due = control.due_mails(now_ns, 10).await.unwrap();
        let Some(due) = due.first() else { break };
        match control.mail_delayed(due, "451 come\r\nback later", now_ns).await.unwrap() {
            Some(next_ns) => {
                assert!(control.due_mails(next_ns - 1, 10).await.unwrap().is_empty());
                assert_eq!(control.next_mail_ns().await.unwrap(), Some(next_ns));
                pauses.push(next_ns - now_ns);
                now_ns = next_ns;
            }
            None => break,
        }
    }
    assert!((MINUTE_NS..=MINUTE_NS * 5 / 4).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert!((4 * 60 * MINUTE_NS..=5 * 60 * MINUTE_NS).contains(pauses.last().unwrap()), "{pauses:?}");
    assert!((3 * DAY_NS..4 * DAY_NS).contains(&now_ns), "{now_ns}");
    let listed = control.outbox(&scope, Some(MailState::Failed), None, 10).await.unwrap();
    assert_eq!(listed[0].last_error.as_deref(), Some("451 come  back later"));
    assert_eq!(listed[0].tries as usize, pauses.len() + 1);
    assert_eq!(control.next_mail_ns().await.unwrap(), None);
}

async fn an_address_that_refuses_is_noted_at_its_user_until_it_takes_one(control: Control) {
    let scope = all(&control.take_authority().unwrap());
    let (user, _) = person(&control, &scope, "acme", "Anna@Example.org", VaultId::from_bytes([1; 16]), 5).await;
    let account = control.account(&user).await.unwrap().unwrap();
    let change = ProfileChange { notify_email: Some("backups@example.org".into()), ..ProfileChange::default() };
    control.edit_profile(&account, &change, "192.0.2.1", 6).await.unwrap();

    for (address, at_ns) in [("Anna@Example.org", 10), ("backups@example.org", 20)] {
        control.queue_mail(&mail(address, "en", None), at_ns).await.unwrap();
        let due = control.due_mails(at_ns, 1).await.unwrap();
        control.mail_refused(&due[0], "550 there is no such mailbox", at_ns).await.unwrap();
        assert_eq!(control.mail_bounced_ns(&user).await.unwrap(), Some(at_ns), "{address}");
        assert!(control.due_mails(i64::MAX, 1).await.unwrap().is_empty());

        control.queue_mail(&mail(address, "en", None), at_ns + 1).await.unwrap();
        let due = control.due_mails(at_ns + 1, 1).await.unwrap();
        control.mail_sent(&due[0], at_ns + 2).await.unwrap();
        assert_eq!(control.mail_bounced_ns(&user).await.unwrap(), None, "{address}");
    }
    let code = [("name", "Anna"), ("code", "aa123456-hf"), ("server_link", "https://backup.example")];
    let code: BTreeMap<String, String> = code.map(|(word, value)| (word.to_owned(), value.to_owned())).into();
    assert!(control.queue_mail_to_user(&user, MailTemplate::Welcome, code, 25).await.unwrap());
    let due = control.due_mails(25, 1).await.unwrap();
    assert_eq!(due[0].address, "backups@example.org");
    control.mail_sent(&due[0], 26).await.unwrap();
    control.queue_mail(&mail("other@example.org", "en", None), 30).await.unwrap();
    let due = control.due_mails(30, 1).await.unwrap();
    control.mail_refused(&due[0], "550", 30).await.unwrap();
    assert_eq!(control.mail_bounced_ns(&user).await.unwrap(), None);
}

async fn a_waiting_mail_can_be_tried_at_once_or_taken_back(control: Control) {
    let authority = control.take_authority().unwrap();
    let scope = all(&authority);
    let id = control.queue_mail(&mail("busy@example.org", "en", None), 0).await.unwrap();
    let due = control.due_mails(0, 1).await.unwrap();
    control.mail_delayed(&due[0], "451", 0).await.unwrap();
    assert!(control.due_mails(1, 1).await.unwrap().is_empty());
    let retried = control.retry_mail(&scope, &actor(), &id, 1).await.unwrap();
    assert_eq!(retried.next_try_ns, Some(1));
    assert_eq!(control.due_mails(1, 1).await.unwrap().len(), 1);
    let cancelled = control.cancel_mail(&scope, &actor(), &id, 2).await.unwrap();
    assert_eq!((cancelled.state, cancelled.done_ns), (MailState::Cancelled, Some(2)));
    assert!(control.due_mails(i64::MAX, 1).await.unwrap().is_empty());
    for again in
        [control.cancel_mail(&scope, &actor(), &id, 3).await, control.retry_mail(&scope, &actor(), &id, 3).await]
    {
        assert!(matches!(again, Err(ControlError::WrongState { what: "mail", .. })), "{again:?}");
    }
    let nothing = Scope::new(&authority, Vec::new());
    let unseen = control.retry_mail(&nothing, &actor(), &id, 3).await;
    assert!(matches!(unseen, Err(ControlError::NotFound { .. })));
    assert_eq!(control.verify_audit_log().await.unwrap(), 2);
}

async fn the_outbox_is_listed_in_pages_and_as_far_as_the_scope_reaches(control: Control) {
    let authority = control.take_authority().unwrap();
    let name = UserName::parse("acme/anna").unwrap();
    let vault = VaultId::from_bytes([1; 16]);
    control.create_user(&name, vault, 5).await.unwrap();
    let acme = control.locate_vault(&vault).await.unwrap().unwrap().tenant().unwrap();
    for number in 0..5 {
        let tenant = (number % 2 == 0).then_some(acme);
        // Two of them at the same moment.
        control.queue_mail(&mail(&format!("u{number}@example.org"), "en", tenant), number / 2).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = control.outbox(&all(&authority), None, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_ns, last.id));
        seen.extend(page.into_iter().map(|mail| mail.address));
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[0], "u4@example.org");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    let of_acme = Scope::new(&authority, vec![ScopePart::Subtree(acme)]);
    assert_eq!(control.outbox(&of_acme, None, None, 10).await.unwrap().len(), 3);
    assert!(control.outbox(&of_acme, Some(MailState::Sent), None, 10).await.unwrap().is_empty());
}

//! What the server tells people, to real receivers on loopback.

use crate::harness::{Server, ok, refused};
use crate::receivers::{Connection, Encrypt, SmtpReceiver, SmtpSettings};
use api::outbox::{MailState, OutboxMail, QueuedMail};
use api::page::Page;
use api::problem::Code;
use reqwest::{Method, StatusCode};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// TLS under a certificate of its own for `localhost`, and that certificate.
fn encrypt() -> (Encrypt, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let encrypt = move |connection: TcpStream| -> Box<dyn Connection> {
        Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), connection))
    };
    (Arc::new(encrypt), made.cert.pem())
}

/// A server that sends its mails to `receiver` without encryption.
fn plain(receiver: &SmtpReceiver) -> Vec<String> {
    let words = ["--smtp-security", "none", "--mail-from", "Holdfast <backup@sender.example>", "--smtp-server"];
    words.into_iter().map(ToOwned::to_owned).chain([receiver.address.to_string()]).collect()
}

fn start(arguments: &[String]) -> Server {
    Server::start_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The mail once its state is another one than queued, or it was tried so often.
async fn settled(server: &Server, id: &str, tries: i64) -> OutboxMail {
    loop {
        let page: Page<OutboxMail> = server.json(&["mail", "list", "--json"]);
        let mail = page.items.into_iter().find(|mail| mail.id == id).unwrap();
        if mail.state != MailState::Queued || mail.tries >= tries {
            return mail;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn mails_go_out_encrypted_and_under_a_password() {
    let login = ("holdfast".to_owned(), "pass word".to_owned());
    let (encrypt, certificate) = encrypt();
    let folder = tempfile::tempdir().unwrap();
    let (password, pem) = (folder.path().join("password"), folder.path().join("certificate.pem"));
    std::fs::write(&password, "pass word\n").unwrap();
    std::fs::write(&pem, certificate).unwrap();
    for at_once in [true, false] {
        let settings = match at_once {
            true => SmtpSettings { login: Some(login.clone()), tls: Some(encrypt.clone()), starttls: None },
            false => SmtpSettings { login: Some(login.clone()), tls: None, starttls: Some(encrypt.clone()) },
        };
        let receiver = SmtpReceiver::start(settings);
        let address = format!("localhost:{}", receiver.address.port());
        let server = Server::start_with(&[
            "--smtp-server",
            &address,
            "--smtp-security",
            if at_once { "tls" } else { "starttls" },
            "--smtp-user",
            "holdfast",
            "--smtp-password-file",
            password.to_str().unwrap(),
            "--smtp-certificate",
            pem.to_str().unwrap(),
            "--mail-from",
            "Holdfast <backup@sender.example>",
        ]);
        let queued: QueuedMail = server.json(&["mail", "test", "Zoë@empfänger.example", "--locale", "de", "--json"]);
        let failed = settled(&server, &queued.id, 1).await;
        // The receiver does not say that it takes addresses which are not ASCII, so this one is refused.
        assert_ne!(failed.state, MailState::Sent, "{failed:?}");

        let queued: QueuedMail = server.json(&["mail", "test", "anna@receiver.example", "--locale", "de", "--json"]);
        let mail = receiver.mails.wait_for(SOON, |mail| mail.to == ["anna@receiver.example"]);
        assert!(mail.is_encrypted);
        assert_eq!((mail.login.as_ref(), mail.from.as_str()), (Some(&login), "backup@sender.example"));
        assert_eq!(mail.header("subject").unwrap(), "Holdfast: Mail funktioniert");
        assert_eq!(mail.header("from").unwrap(), "Holdfast <backup@sender.example>");
        assert_eq!(mail.header("message-id").unwrap(), format!("<{}@sender.example>", queued.id));
        assert_eq!(mail.header("auto-submitted").unwrap(), "auto-generated");
        assert!(mail.header("date").is_some());
        assert!(mail.body().contains(&server.run_file("public-url")), "{}", mail.body());
        assert!(mail.body().contains("Antworten darauf liest niemand"), "{}", mail.body());
        let sent = settled(&server, &queued.id, 99).await;
        assert_eq!((sent.state, sent.tries, sent.template.as_str()), (MailState::Sent, 1, "test"));
        assert!(!server.log().contains("pass word"));
    }
}

#[tokio::test]
async fn what_a_mail_server_answers_decides_what_becomes_of_a_mail() {
    let receiver = SmtpReceiver::start(SmtpSettings::default());
    let server = start(&plain(&receiver));
    let queue = |to: &str| -> QueuedMail { server.json(&["mail", "test", to, "--json"]) };

    let refused_mail = settled(&server, &queue("refuse@receiver.example").id, 99).await;
    assert_eq!((refused_mail.state, refused_mail.tries), (MailState::Failed, 1));
    assert!(refused_mail.last_error.unwrap().contains("there is no such mailbox"));

    let id = queue("later@receiver.example").id;
    let waiting = settled(&server, &id, 1).await;
    assert_eq!((waiting.state, waiting.tries), (MailState::Queued, 1));
    assert!(waiting.last_error.unwrap().contains("come back later"));
    assert!(waiting.next_try_ns.unwrap() - waiting.created_ns >= 60_000_000_000);
    assert!(server.command(&["mail", "retry", &id]).status.success());
    receiver.mails.wait_for(SOON, |mail| mail.to == ["later@receiver.example"]);
    assert_eq!(settled(&server, &id, 99).await.tries, 2);

    let id = queue("busy@receiver.example").id;
    settled(&server, &id, 1).await;
    assert!(server.command(&["mail", "cancel", &id]).status.success());
    assert_eq!(settled(&server, &id, 99).await.state, MailState::Cancelled);
    let local = server.client(&server.run_file("local-token"));
    for action in ["retry", "cancel"] {
        let again = local.request(Method::POST, &format!("/api/v1/outbox/{id}/{action}")).send().await.unwrap();
        refused(again, StatusCode::CONFLICT, Code::WrongState).await;
    }
    let metrics = server.metrics().await;
    for line in [
        "holdfast_mails{state=\"sent\"} 1",
        "holdfast_mails{state=\"failed\"} 1",
        "holdfast_mails{state=\"cancelled\"} 1",
        "holdfast_mail_tries_total{result=\"refused\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

#[tokio::test]
async fn the_outbox_is_the_operators_alone_and_comes_in_pages() {
    // Without a mail server everything waits.
    let server = Server::start();
    let local = server.client(&server.run_file("local-token"));
    for number in 0..5 {
        let body = json!({"to": format!("u{number}@receiver.example")});
        let made = local.post("/api/v1/outbox/test", &body).await;
        assert_eq!(made.status(), StatusCode::CREATED);
    }
    let wrong = local.post("/api/v1/outbox/test", &json!({"to": "nobody"})).await;
    refused(wrong, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    let mut seen = Vec::new();
    let mut path = "/api/v1/outbox?limit=2&state=queued".to_owned();
    loop {
        let page: Page<OutboxMail> = ok(local.get(&path).await).await;
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|mail| mail.address));
        let Some(next) = page.next else { break };
        path = format!("/api/v1/outbox?limit=2&state=queued&after={next}");
    }
    assert_eq!(seen, ["u4", "u3", "u2", "u1", "u0"].map(|name| format!("{name}@receiver.example")));
    let sent: Value = ok(local.get("/api/v1/outbox?state=sent").await).await;
    assert_eq!(sent, json!({"items": []}));
    for wrong in ["limit=0", "limit=201", "limit=x", "after=x", "state=lost"] {
        let answer = local.get(&format!("/api/v1/outbox?{wrong}")).await;
        refused(answer, StatusCode::BAD_REQUEST, Code::BadRequest).await;
    }
    let anna = server.user("anna").client;
    refused(anna.get("/api/v1/outbox").await, StatusCode::FORBIDDEN, Code::Forbidden).await;
    for id in ["00000000000000000000000000000000", "nonsense"] {
        let path = format!("/api/v1/outbox/{id}/retry");
        let absent = local.request(Method::POST, &path).send().await.unwrap();
        refused(absent, StatusCode::NOT_FOUND, Code::NotFound).await;
    }
}

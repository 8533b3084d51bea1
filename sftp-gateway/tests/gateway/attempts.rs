//! Attempts to log in and to do what is not offered, by a client of our own.

use crate::served::{Served, USER, key, secret, succeed};
use russh::client::{AuthResult, Config, Handle, Handler};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use sftp_gateway::keys::CustomerKey;
use sftp_gateway::{EndReason, Event, LoginRefused, Refusal};
use std::sync::Arc;

pub struct Trusting;

impl Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub async fn connect(served: &Served) -> Handle<Trusting> {
    russh::client::connect(Arc::new(Config::default()), ("127.0.0.1", served.port), Trusting).await.unwrap()
}

pub async fn log_in(handle: &mut Handle<Trusting>, user: &str, key: &CustomerKey, hash: Option<HashAlg>) -> AuthResult {
    let private = PrivateKey::from_openssh(key.openssh.as_str()).unwrap();
    handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(private), hash)).await.unwrap()
}

/// Somebody who is logged in.
pub async fn logged_in(served: &Served) -> Handle<Trusting> {
    let mut handle = connect(served).await;
    assert!(log_in(&mut handle, USER, key(), Some(HashAlg::Sha256)).await.success());
    handle
}

fn refused(served: &Served, reason: LoginRefused) {
    served.events.wait(&format!("refused: {reason:?}"), |event| match event {
        Event::LoginRefused { reason: found, .. } if *found == reason => Some(()),
        _ => None,
    });
}

#[test]
fn only_sound_signatures_of_known_keys_are_let_in() {
    let served = Served::new();
    served.block_on(async {
        let sha1 = log_in(&mut connect(&served).await, USER, key(), None).await;
        assert!(!sha1.success());
        for hash in [HashAlg::Sha256, HashAlg::Sha512] {
            assert!(log_in(&mut connect(&served).await, USER, key(), Some(hash)).await.success());
        }
        let password = connect(&served).await.authenticate_password(USER, "secret").await.unwrap();
        let none = connect(&served).await.authenticate_none(USER).await.unwrap();
        let user = log_in(&mut connect(&served).await, "nobody\nx", key(), Some(HashAlg::Sha256)).await;
        let other = CustomerKey::generate("").unwrap();
        let unknown = log_in(&mut connect(&served).await, USER, &other, Some(HashAlg::Sha256)).await;
        assert!(!password.success() && !user.success());
        assert_eq!(format!("{user:?}"), format!("{unknown:?}"), "one answer for unknown users and unknown keys");
        assert_eq!(format!("{user:?}"), format!("{none:?}"));
        assert!(format!("{none:?}").contains("PublicKey") && !format!("{none:?}").contains("Password"), "{none:?}");
        for refusal in [Refusal::Revoked, Refusal::Expired, Refusal::Network, Refusal::Unavailable] {
            served.accounts.set(&other.public, Err(refusal));
            let refused = log_in(&mut connect(&served).await, USER, &other, Some(HashAlg::Sha256)).await;
            assert_eq!(format!("{refused:?}"), format!("{unknown:?}"));
        }
    });
    refused(&served, LoginRefused::Algorithm);
    for refusal in [Refusal::Unknown, Refusal::Revoked, Refusal::Expired, Refusal::Network, Refusal::Unavailable] {
        refused(&served, LoginRefused::Account(refusal));
    }
    served.events.wait("the user's name on one line", |event| match event {
        Event::LoginRefused { user, .. } if user == "nobody\\nx" => Some(()),
        _ => None,
    });
}

#[test]
fn a_key_has_so_many_connections_and_a_connection_so_many_channels() {
    let served = Served::with(|config| config.connections_per_key_max = 2);
    served.block_on(async {
        let first = logged_in(&served).await;
        let second = logged_in(&served).await;
        assert!(!log_in(&mut connect(&served).await, USER, key(), Some(HashAlg::Sha256)).await.success());
        second.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
        let mut channels = Vec::new();
        for _ in 0..4 {
            channels.push(first.channel_open_session().await.unwrap());
        }
        assert!(first.channel_open_session().await.is_err());
        channels.pop().unwrap().close().await.unwrap();
        // The close is on its way in front of the next open.
        channels.push(first.channel_open_session().await.unwrap());
        assert!(first.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    });
    refused(&served, LoginRefused::Connections);
    served.events.wait("the second gone", |event| match event {
        Event::Ended { session: Some(_), reason: EndReason::Client, .. } => Some(()),
        _ => None,
    });
    served.block_on(async { drop(logged_in(&served).await) });
}

#[test]
fn commands_answer_or_are_refused() {
    let served = Served::new();
    served.put("/a b/shop.dump", 1000);
    let sum = succeed(&served.ssh(&[], "sha256sum '/a b/shop.dump'"));
    assert!(sum.ends_with("  /a b/shop.dump\n") && sum.len() == 64 + 17, "{sum}");
    assert_eq!(succeed(&served.ssh(&[], "md5sum")), "d41d8cd98f00b204e9800998ecf8427e  -\n");
    assert_eq!(succeed(&served.ssh(&[], "sha1sum")), "da39a3ee5e6b4b0d3255bfef95601890afd80709  -\n");
    let missing = served.ssh(&[], "sha1sum /absent");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("sha1sum: /absent: No such file or directory"));
    for (options, command) in
        [(&[][..], "id"), (&["-tt"], "id"), (&[], "sha256sum x; id"), (&[], "scp -t /"), (&["-s"], "shell")]
    {
        let refused = served.ssh(options, command);
        assert_eq!(refused.status.code(), Some(255), "{command}: {refused:?}");
    }
    assert!(!served.ssh(&["-R", "0:localhost:1", "-o", "ExitOnForwardFailure=yes"], "md5sum").status.success());
    served.events.wait("what was tried", |event| match event {
        Event::Command { command, known: false, .. } if command == "sha256sum x; id" => Some(()),
        _ => None,
    });
}

#[test]
fn every_cipher_mac_and_exchange_offered_works_and_keys_are_exchanged_in_mid_transfer() {
    let served = Served::with(|config| config.rekey_bytes = 512 << 10);
    let dump = served.put("/shop.dump", 3_000_000);
    let get = |options: &[&str]| {
        succeed(&served.sftp(options, "get shop.dump got\n"));
        assert!(std::fs::read(served.path("got")).unwrap() == dump, "{options:?}");
    };
    for cipher in ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        get(&["-c", cipher]);
        get(&["-c", cipher, "-o", "RekeyLimit=16k"]);
    }
    for (cipher, mac) in [
        ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
        ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
        ("aes256-ctr", "hmac-sha2-256"),
        ("aes128-ctr", "hmac-sha2-256"),
    ] {
        get(&["-c", cipher, "-o", &format!("MACs={mac}"), "-o", "RekeyLimit=64k"]);
    }
    let known = succeed(&crate::served::run(std::process::Command::new("ssh").args(["-Q", "kex"])));
    for exchange in [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
    ] {
        if known.lines().any(|line| line == exchange) {
            get(&["-o", &format!("KexAlgorithms={exchange}")]);
        }
    }
    for refused in ["KexAlgorithms=diffie-hellman-group14-sha1", "MACs=hmac-sha1", "HostKeyAlgorithms=ssh-rsa"] {
        assert!(!served.sftp(&["-c", "aes128-ctr", "-o", refused], "ls\n").status.success(), "{refused}");
    }
    let said = served.ssh(&["-vv"], "md5sum");
    let said = String::from_utf8_lossy(&said.stderr);
    for wanted in [
        "kex-strict-s-v00@openssh.com",
        "server-sig-algs=<ssh-ed25519,",
        "compression stoc: none\n",
        "SSH-2.0-Holdfast",
    ] {
        assert!(
            said.replace("\r", "").contains(wanted) || said.contains(&wanted.replace("SSH-2.0-", "")),
            "{wanted}: {said}"
        );
    }
    let signatures = said.split("server-sig-algs=<").nth(1).unwrap().split('>').next().unwrap();
    assert!(!signatures.split(',').any(|name| name == "ssh-rsa"), "{signatures}");
}

#[test]
fn customers_bring_their_own_keys() {
    let served = Served::new();
    served.put("/x", 10);
    for (kind, bits) in [("rsa", "2048"), ("rsa", "4096"), ("ecdsa", "256"), ("ecdsa", "384"), ("ed25519", "256")] {
        let file = served.text(&format!("{kind}{bits}"));
        let mut command = std::process::Command::new("ssh-keygen");
        succeed(&crate::served::run(command.args(["-q", "-t", kind, "-b", bits, "-N", "", "-f", &file])));
        let line = std::fs::read_to_string(format!("{file}.pub")).unwrap();
        let public = sftp_gateway::keys::PublicKey::parse(&line).unwrap();
        served.accounts.set(&public, Ok(served.fs.clone()));
        secret(&served.path("key.pem"), &std::fs::read_to_string(&file).unwrap());
        succeed(&served.sftp(&[], "ls\n"));
        assert!(line.starts_with(&public.line()));
    }
}

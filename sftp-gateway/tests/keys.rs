//! Keys as other people's programs read them: OpenSSL, OpenSSH, PuTTY, and what parsers make of anything at all.

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use sftp_gateway::keys::{CustomerKey, HostKeys, KeyError, KeyKind, PublicKey, known_hosts_line};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    fn secret(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What a program says, or `None` when it is not installed.
    fn said(program: &str, arguments: &[&str]) -> Option<String> {
        let output = match Command::new(program).args(arguments).output() {
            Ok(output) => output,
            Err(_) => {
                println!("not tested: {program} is not installed");
                return None;
            }
        };
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    #[test]
    fn customers_keys_are_read_by_openssh_openssl_and_putty() {
        let key = CustomerKey::generate("export of Häuser & Söhne\n2026").unwrap();
        assert_eq!(key.public.kind(), KeyKind::Rsa(3072));
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert!(key.pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        for text in [&key.pem, &key.openssh, &key.ppk] {
            assert!(!text.contains('\r') && !text.contains("\n\n") && text.ends_with('\n'));
            assert!(text.lines().all(|line| line.len() <= 80));
        }
        secret(&folder.path().join("key.pem"), &key.pem);
        secret(&folder.path().join("key"), &key.openssh);
        secret(&folder.path().join("key.ppk"), &key.ppk);
        for name in ["key.pem", "key"] {
            if let Some(line) = said("ssh-keygen", &["-y", "-P", "", "-f", &path(name)]) {
                assert!(line.starts_with(&key.public.line()), "{name}: {line}");
            }
        }
        if let Some(shown) = said("ssh-keygen", &["-l", "-E", "sha256", "-f", &path("key")]) {
            assert!(shown.starts_with(&format!("3072 {} export of", key.public.fingerprint())), "{shown}");
        }
        said("openssl", &["rsa", "-in", &path("key.pem"), "-check", "-noout"]);
        if let Some(line) = said("puttygen", &[&path("key.ppk"), "-O", "public-openssh"]) {
            assert!(line.starts_with(&key.public.line()), "{line}");
        }
        // PuTTY's own conversion of the .pem has the same lines, but for the comment and what depends on it.
        if said("puttygen", &[&path("key.pem"), "-O", "private", "-o", &path("other.ppk")]).is_some() {
            let theirs = fs::read_to_string(path("other.ppk")).unwrap();
            let lines = |text: &str| {
                text.lines()
                    .filter(|line| !line.starts_with("Comment:") && !line.starts_with("Private-MAC:"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(lines(&key.ppk), lines(&theirs));
        }
        if let Some(text) = said("puttygen", &[&path("key.ppk"), "-O", "public"]) {
            assert_eq!(PublicKey::parse(&text).unwrap(), key.public, "RFC 4716");
        }
        if said("puttygen", &[&path("key.ppk"), "-O", "private-openssh", "-o", &path("back.pem")]).is_some() {
            assert_eq!(fs::read_to_string(path("back.pem")).unwrap().trim(), key.pem.trim());
        }
    }

    #[test]
    fn host_keys_are_kept_as_text_and_published() {
        let keys = HostKeys::generate().unwrap();
        let again = HostKeys::from_text(keys.text()).unwrap();
        assert_eq!(keys.public(), again.public());
        let kinds: Vec<_> = keys.public().iter().map(PublicKey::kind).collect();
        assert_eq!(kinds, [KeyKind::Ed25519, KeyKind::EcdsaP256]);
        let folder = tempfile::tempdir().unwrap();
        for (number, key) in keys.public().iter().enumerate() {
            let text = keys.text().split_inclusive("-----END OPENSSH PRIVATE KEY-----\n").nth(number).unwrap();
            let file = folder.path().join("host");
            secret(&file, text);
            if let Some(line) = said("ssh-keygen", &["-y", "-f", &file.display().to_string()]) {
                assert!(line.starts_with(&key.line()), "{line}");
            }
        }
        let known = known_hosts_line("sftp.example.org", 2222, &keys.public()[0]);
        assert!(known.starts_with("[sftp.example.org]:2222 ssh-ed25519 AAAA"));
        assert!(known_hosts_line("sftp.example.org", 22, &keys.public()[1]).starts_with("sftp.example.org ecdsa-"));
        let file = folder.path().join("known_hosts");
        fs::write(&file, known + "\n").unwrap();
        if let Some(shown) = said("ssh-keygen", &["-l", "-f", &file.display().to_string()]) {
            assert!(shown.contains(&keys.public()[0].fingerprint()), "{shown}");
        }
        for text in ["", "nothing", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"] {
            assert!(matches!(HostKeys::from_text(text), Err(KeyError::Host(_))), "{text}");
        }
    }

    #[test]
    fn keys_of_customers_are_taken_or_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, bits, expected) in [
            ("rsa", "1024", Err(KeyError::RsaBits(1024))),
            ("rsa", "2048", Ok(KeyKind::Rsa(2048))),
            ("ecdsa", "256", Ok(KeyKind::EcdsaP256)),
            ("ecdsa", "384", Ok(KeyKind::EcdsaP384)),
            ("ecdsa", "521", Err(KeyError::Kind("ecdsa-sha2-nistp521".into()))),
            ("ed25519", "256", Ok(KeyKind::Ed25519)),
        ] {
            let file = folder.path().join(format!("{kind}{bits}"));
            let name = file.display().to_string();
            if said("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-f", &name]).is_none() {
                return;
            }
            let line = fs::read_to_string(format!("{name}.pub")).unwrap();
            assert_eq!(PublicKey::parse(&line).map(|key| key.kind()), expected, "{kind} {bits}");
            if let (Ok(key), Some(shown)) = (PublicKey::parse(&line), said("ssh-keygen", &["-l", "-f", &name])) {
                assert!(shown.contains(&key.fingerprint()));
                let rfc = said("ssh-keygen", &["-e", "-f", &name]).unwrap();
                assert_eq!(PublicKey::parse(&rfc), Ok(key));
            }
            assert_eq!(PublicKey::parse(&fs::read_to_string(&file).unwrap()), Err(KeyError::Private));
        }
        for text in ["", "ssh-rsa", "ssh-rsa AAAA", "ssh-ed25519 !!!", "command=\"x\" ssh-ed25519 AAAA", "a\nb"] {
            assert_eq!(PublicKey::parse(text), Err(KeyError::NotAPublicKey), "{text}");
        }
        let dsa = data_encoding::BASE64.encode(b"\0\0\0\x07ssh-dss\0\0\0\x01\x01");
        assert_eq!(PublicKey::parse(&format!("ssh-dss {dsa}")), Err(KeyError::Kind("ssh-dss".into())));
    }

    proptest! {
        #[test]
        fn anything_may_be_said_to_be_a_key(
            text in any::<String>(),
            blob in prop::collection::vec(any::<u8>(), 0..200),
            kind in prop::sample::select(vec!["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"]),
        ) {
            let _ = PublicKey::parse(&text);
            let _ = HostKeys::from_text(&text);
            let _ = PublicKey::from_blob(&blob);
            let named = [&(kind.len() as u32).to_be_bytes()[..], kind.as_bytes(), &blob].concat();
            if let Ok(key) = PublicKey::from_blob(&named) {
                assert_eq!(PublicKey::parse(&key.line()), Ok(key));
            }
            let _ = CustomerKey::from_pkcs1(&blob, &text, 1);
            let inside = [&[0x30, blob.len().min(127) as u8][..], &blob].concat();
            let _ = CustomerKey::from_pkcs1(&inside, &text, 1);
        }
    }
}

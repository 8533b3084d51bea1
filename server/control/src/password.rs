//! Passwords: which ones are taken, and how they are hashed. Argon2id with the parameters of OWASP's minimum (19 MiB, two
//! passes); the parameters stand in each hash, so that they can be raised.

use crate::ControlError;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;
use zxcvbn::Score;

/// Shortest password, characters.
pub const PASSWORD_CHARACTERS_MIN: usize = 12;
/// Longest password, bytes: hashing must not become work that a caller chooses.
pub const PASSWORD_BYTES_MAX: usize = 512;
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Parts of names shorter than this are in too many words to be looked for.
const NAME_CHARACTERS_MIN: usize = 4;

/// A password in the clear. Its `Debug` form shows nothing of it.
#[derive(Clone)]
pub struct Password {
    text: Zeroizing<String>,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    /// One that was typed to log in: whatever it is, it is compared. `None` when it is longer than any can be.
    pub fn typed(text: Zeroizing<String>) -> Option<Password> {
        (text.len() <= PASSWORD_BYTES_MAX).then_some(Password { text })
    }

    /// One that somebody wants to have from now on. `names`: of the person and the tenant, also mail addresses; a
    /// password may not be made of them.
    pub fn chosen(text: Zeroizing<String>, names: &[&str]) -> Result<Password, ControlError> {
        let refuse = |rule| Err(ControlError::Invalid { what: "password", rule });
        if text.chars().count() < PASSWORD_CHARACTERS_MIN {
            return refuse("must have at least 12 characters");
        }
        if text.len() > PASSWORD_BYTES_MAX {
            return refuse("must be at most 512 bytes long");
        }
        let folded = Zeroizing::new(text.to_lowercase());
        let parts = parts(names);
        // What is left without the names must be a password by itself, or nearly.
        let mut rest = Zeroizing::new(folded.to_string());
        for part in &parts {
            *rest = rest.replace(part.as_str(), "");
        }
        if rest.len() < folded.len() && rest.chars().count() < PASSWORD_CHARACTERS_MIN - NAME_CHARACTERS_MIN {
            return refuse("must not be made of your name, mail address or the name of the tenant");
        }
        let known: Vec<&str> = parts.iter().map(String::as_str).collect();
        if zxcvbn::zxcvbn(&text, &known).score() < Score::Three {
            return refuse(
                "is among those that are tried first; take several unrelated words, or let a program make one",
            );
        }
        Ok(Password { text })
    }

    /// Hashes with a fresh salt. Takes tens of milliseconds of a core and 19 MiB.
    pub fn hash(&self) -> Result<PasswordHash, ControlError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| ControlError::Random)?;
        let hash = derive(&self.text, &salt, (MEMORY_KIB, PASSES, LANES))?;
        Ok(PasswordHash {
            text: format!(
                "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}",
                BASE64_NOPAD.encode(&salt),
                BASE64_NOPAD.encode(hash.as_slice())
            ),
        })
    }
}

/// Words of names in lower case, and whole mail addresses' parts.
fn parts(names: &[&str]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for name in names {
        let name = name.to_lowercase();
        parts.extend(name.split(|c: char| !c.is_alphanumeric()).map(ToOwned::to_owned));
        parts.push(name.chars().filter(|c| c.is_alphanumeric()).collect());
        parts.push(name);
    }
    parts.retain(|part| part.chars().count() >= NAME_CHARACTERS_MIN);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts
}

fn derive(
    text: &str,
    salt: &[u8],
    (memory, passes, lanes): (u32, u32, u32),
) -> Result<Zeroizing<[u8; HASH_BYTES]>, ControlError> {
    let unusable = |_| ControlError::Corrupt { what: "parameters of a password hash" };
    let parameters = Params::new(memory, passes, lanes, Some(HASH_BYTES)).map_err(unusable)?;
    let mut blocks = vec![Block::new(); parameters.block_count()];
    let mut hash = Zeroizing::new([0; HASH_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into_with_memory(text.as_bytes(), salt, hash.as_mut_slice(), &mut blocks)
        .map_err(unusable)?;
    Ok(hash)
}

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: String,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl PasswordHash {
    /// What an unknown account is compared with: as much work, and nothing matches it.
    pub fn of_nobody() -> Self {
        let (salt, hash) = (BASE64_NOPAD.encode(&[0; SALT_BYTES]), BASE64_NOPAD.encode(&[0; HASH_BYTES]));
        PasswordHash { text: format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}") }
    }

    /// From a column.
    pub(crate) fn stored(text: String) -> Self {
        PasswordHash { text }
    }

    /// For a column.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the password. Takes as long as hashing, whatever comes out.
    pub fn matches(&self, password: &Password) -> Result<bool, ControlError> {
        let corrupt = || ControlError::Corrupt { what: "password hash" };
        let mut fields = self.text.strip_prefix("$argon2id$v=19$").ok_or_else(corrupt)?.split('$');
        let (Some(parameters), Some(salt), Some(hash), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(corrupt());
        };
        let mut numbers = parameters.split(',').map(|field| field.split_once('=').and_then(|(_, n)| n.parse().ok()));
        let (Some(Some(memory)), Some(Some(passes)), Some(Some(lanes)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(corrupt());
        };
        let salt = BASE64_NOPAD.decode(salt.as_bytes()).map_err(|_| corrupt())?;
        let expected = BASE64_NOPAD.decode(hash.as_bytes()).map_err(|_| corrupt())?;
        let found = derive(&password.text, &salt, (memory, passes, lanes))?;
        Ok(found.as_slice().ct_eq(&expected).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, names: &[&str]) -> Result<Password, ControlError> {
        Password::chosen(Zeroizing::new(text.to_owned()), names)
    }

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let password = chosen("plum gravel otter 91", &[]).unwrap();
        let (one, two) = (password.hash().unwrap(), password.hash().unwrap());
        assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(one != two, "every hash has a salt of its own");
        assert!(one.matches(&password).unwrap() && two.matches(&password).unwrap());
        let other = Password::typed(Zeroizing::new("plum gravel otter 92".into())).unwrap();
        assert!(!one.matches(&other).unwrap());
        assert!(Password::typed(Zeroizing::new("x".repeat(PASSWORD_BYTES_MAX + 1))).is_none());
        assert_eq!(format!("{password:?} {one:?}"), "Password(..) PasswordHash(..)");
        for broken in ["", "$argon2id$v=19$m=1,t=1,p=1$", "$argon2id$v=19$m=19456,t=2$AAAA$AAAA", "$2b$10$x"] {
            assert!(PasswordHash::stored(broken.into()).matches(&password).is_err(), "{broken}");
        }
    }

    /// Made by OpenSSL's implementation, so that a stored hash means the same to every other one.
    #[test]
    fn a_stored_hash_stays_readable() {
        let stored = PasswordHash::stored(STORED.into());
        let password = Password::typed(Zeroizing::new("correct horse battery staple".into())).unwrap();
        assert!(stored.matches(&password).unwrap());
    }

    const STORED: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$ISO7kkvFzh19GM8qB7patN3C3Y9HHsjlVTfEZ9T600Y";

    #[test]
    fn what_is_tried_first_is_refused() {
        for good in ["plum gravel otter 91", "9fK2-qLx7-Tz0e", "zażółć gęślą jaźń", "correct horse battery staple"]
        {
            chosen(good, &["Anna Example", "anna@example.org", "Acme"])
                .unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for (wrong, names) in [
            ("elevenchars", &[][..]),
            ("password1234", &[]),
            ("P@ssw0rd2026!", &[]),
            ("aaaaaaaaaaaaaaaa", &[]),
            ("123456789012", &[]),
            ("qwertyuiop123", &[]),
            ("abcdefghijklmn", &[]),
            ("passwordpassword", &[]),
            ("iloveyou2026!", &[]),
            ("AnnaExample1!", &["Anna Example"]),
            ("anna@example.org", &["anna@example.org"]),
            ("Acme-Acme-2026", &["Acme"]),
        ] {
            let refused = chosen(wrong, names);
            assert!(matches!(refused, Err(ControlError::Invalid { what: "password", .. })), "{wrong}");
        }
    }
}

//! Mail addresses, as typed and as compared.

use crate::ControlError;

const BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// A mail address that can stand in a header: nothing in it ends a line or a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Email {
    text: String,
}

impl Email {
    /// From what somebody typed. Whether mail arrives is found out by sending some.
    pub fn parse(text: &str) -> Result<Email, ControlError> {
        let text = text.trim();
        let rule =
            ControlError::Invalid { what: "mail address", rule: "must be a mail address such as anna@example.org" };
        let Some((local, domain)) = text.rsplit_once('@') else { return Err(rule) };
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"<>()[]\\,;:\"@".contains(c);
        let local_fits = !local.is_empty()
            && local.len() <= LOCAL_BYTES_MAX
            && local.chars().all(plain)
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..");
        let label_fits = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c == '-' || c.is_alphanumeric())
        };
        if text.len() > BYTES_MAX || !local_fits || !domain.contains('.') || !domain.split('.').all(label_fits) {
            return Err(rule);
        }
        Ok(Email { text: text.to_owned() })
    }

    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As compared: nobody has two accounts that differ in capitals only.
    pub fn folded(&self) -> String {
        self.text.to_lowercase()
    }

    /// What stands before the @.
    pub fn local_part(&self) -> &str {
        self.text.rsplit_once('@').map_or("", |(local, _)| local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_and_compared_without_capitals() {
        let email = Email::parse(" Anna.Example+backup@Example.ORG ").unwrap();
        assert_eq!(email.as_str(), "Anna.Example+backup@Example.ORG");
        assert_eq!(email.folded(), "anna.example+backup@example.org");
        assert_eq!(email.local_part(), "Anna.Example+backup");
        for wrong in [
            "",
            "a",
            "@b.c",
            "a@",
            "a@b",
            "a b@c.d",
            "a@b..c",
            "a\n@b.c",
            "a@b.c\r\nBcc: d@e.f",
            "a@b@c.d",
            "<a@b.c>",
            "a,b@c.d",
            ".a@b.c",
            "a@-b.c",
        ] {
            assert!(Email::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

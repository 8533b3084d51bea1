//! The texts of mails. One file per language, each with every template: a line `== name`, the subject, an empty line, the
//! body. `{{word}}` stands for a value; which words a template knows is written here, and nothing else is replaced.
//! Values come from people: they are one line, bounded, and never become a link unless they are one of ours.

use crate::ControlError;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::LazyLock;

/// Languages there are texts in; the first one stands in for every other.
pub const LOCALES: [&str; 4] = ["en", "de", "pl", "pt"];

const FILES: [&str; 4] = [
    include_str!("templates/en.txt"),
    include_str!("templates/de.txt"),
    include_str!("templates/pl.txt"),
    include_str!("templates/pt.txt"),
];

/// Longest value of one line, characters.
const VALUE_CHARACTERS_MAX: usize = 300;
/// Longest value of several lines, characters.
const LINES_CHARACTERS_MAX: usize = 20_000;
/// Ends every body.
const FOOTER: &str = "footer";
/// Words for states and kinds inside values.
const WORDS: &str = "words";

macro_rules! templates {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal [$($word:literal),*];)+) => {
        /// A mail that the server knows how to write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MailTemplate {
            $($(#[$doc])+ $variant,)+
        }

        impl MailTemplate {
            /// All of them.
            pub const ALL: &'static [MailTemplate] = &[$(MailTemplate::$variant),+];

            /// As stored, and in the files.
            pub const fn as_str(self) -> &'static str {
                match self { $(MailTemplate::$variant => $name,)+ }
            }

            /// The values it needs, all of them. One that ends in `_link` is a URL of this server; `lines` and `log` may
            /// have several lines.
            pub const fn words(self) -> &'static [&'static str] {
                match self { $(MailTemplate::$variant => &[$($word),*],)+ }
            }
        }
    };
}

templates! {
    /// The operator tries whether mail works.
    Test = "test" ["server_link"];
    /// Somebody is to become a member of a tenant.
    InviteUser = "invite_user" ["inviter", "tenant", "days", "accept_link"];
    /// Somebody is to become a customer.
    InviteCustomer = "invite_customer" ["inviter", "tenant", "days", "accept_link"];
    /// An account was made.
    Welcome = "welcome" ["name", "code", "server_link"];
    /// Somebody has forgotten the password.
    PasswordReset = "password_reset" ["minutes", "reset_link"];
    /// The password was changed.
    PasswordChanged = "password_changed" ["time", "address"];
    /// A second factor was added or taken away.
    SecondFactorChanged = "second_factor_changed" ["time", "address"];
    /// To a new address: is it yours?
    EmailConfirm = "email_confirm" ["minutes", "confirm_link"];
    /// To the old address: there is a new one.
    EmailChanged = "email_changed" ["time", "address"];
    /// The operator has begun to give the account back to its owner.
    RecoveryStarted = "recovery_started" ["time", "effective"];
    /// The account can be taken back.
    RecoveryReady = "recovery_ready" ["hours", "reset_link"];
    /// A tenant has another owner.
    OwnerChanged = "owner_changed" ["tenant", "name"];
    /// Somebody has become a contact of a service.
    ContactNamed = "contact_named" ["tenant", "service", "kind"];
    /// Somebody is no longer a contact of a service.
    ContactReplaced = "contact_replaced" ["tenant", "service", "kind"];
    /// Somebody from above has looked into a customer's content.
    SupportAccess = "support_access" ["tenant", "name", "time"];
    /// A user's or customer's data will go.
    DeletionPlanned = "deletion_planned" ["what", "date"];
    /// It is gone.
    DeletionDone = "deletion_done" ["what", "date"];
    /// A backup has failed.
    BackupFailed = "backup_failed" ["computer", "plan", "time", "reason", "log", "server_link"];
    /// A backup did not start.
    BackupMissed = "backup_missed" ["computer", "plan", "time", "server_link"];
    /// No backup has succeeded for days.
    BackupStale = "backup_stale" ["computer", "plan", "days", "last", "server_link"];
    /// Space runs out.
    Quota = "quota" ["what", "percent", "used", "limit", "server_link"];
    /// A service ends soon.
    ServiceExpiring = "service_expiring" ["tenant", "service", "days", "date", "server_link"];
    /// A service does not do everything any more.
    ServiceState = "service_state" ["tenant", "service", "state", "server_link"];
    /// What happened in a week.
    WeeklySummary = "weekly_summary"
        ["from", "to", "computers", "succeeded", "warning", "failed", "missed", "lines", "server_link"];
}

impl FromStr for MailTemplate {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = MailTemplate::ALL.iter().find(|template| template.as_str() == text);
        found.copied().ok_or(ControlError::Invalid { what: "template", rule: "must be one the server knows" })
    }
}

/// A mail as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedMail {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
}

#[derive(Clone, Copy)]
struct Text {
    subject: &'static str,
    body: &'static str,
}

struct Language {
    texts: HashMap<&'static str, Text>,
    words: HashMap<&'static str, &'static str>,
}

static LANGUAGES: LazyLock<Vec<Language>> = LazyLock::new(|| FILES.iter().map(|file| parse(file)).collect());

fn parse(file: &'static str) -> Language {
    let mut language = Language { texts: HashMap::new(), words: HashMap::new() };
    for part in file.split("\n== ").skip(1) {
        let (name, rest) = part.split_once('\n').unwrap_or((part, ""));
        match name {
            WORDS => language.words.extend(rest.lines().filter_map(|line| line.split_once(" = "))),
            _ => {
                let (subject, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
                language.texts.insert(name, Text { subject, body: body.trim_end() });
            }
        }
    }
    language
}

/// The language for a tag such as `de-AT`: its own, or the first.
pub(crate) fn locale(tag: &str) -> &'static str {
    let language = tag.split(['-', '_']).next().unwrap_or_default();
    LOCALES.into_iter().find(|known| known.eq_ignore_ascii_case(language)).unwrap_or(LOCALES[0])
}

fn language(tag: &str) -> Option<&'static Language> {
    let known = locale(tag);
    LOCALES.iter().position(|locale| *locale == known).and_then(|at| LANGUAGES.get(at))
}

/// A word such as the name of a state, in a language; itself when there is none.
pub(crate) fn word<'a>(tag: &str, word: &'a str) -> &'a str {
    language(tag).and_then(|language| language.words.get(word)).copied().unwrap_or(word)
}

/// Whether a value may have several lines.
fn has_lines(word: &str) -> bool {
    matches!(word, "lines" | "log")
}

/// What of a value stands in a mail.
fn clean(word: &str, value: &str) -> String {
    if has_lines(word) {
        let kept = value.chars().filter(|character| *character == '\n' || !character.is_control());
        return kept.take(LINES_CHARACTERS_MAX).collect();
    }
    let line: String = value.split(char::is_control).collect::<Vec<_>>().join(" ");
    let line: String = line.trim().chars().take(VALUE_CHARACTERS_MAX).collect();
    match word.ends_with("_link") {
        true => line,
        // A name that somebody chose must not become a link in a mail that we send.
        false => line.replace("://", ":/ /"),
    }
}

fn replace(text: &str, values: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, behind)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((word, behind)) = behind.split_once("}}") else { break };
        out.push_str(&values.get(word).map(|value| clean(word, value)).unwrap_or_default());
        rest = behind;
    }
    out.push_str(rest);
    out
}

impl MailTemplate {
    /// Refuses values that are not exactly those it needs.
    pub(crate) fn check(self, values: &BTreeMap<String, String>) -> Result<(), ControlError> {
        let whole = values.len() == self.words().len() && self.words().iter().all(|word| values.contains_key(*word));
        match whole {
            true => Ok(()),
            false => Err(ControlError::Invalid { what: "values of a mail", rule: "must be those of its template" }),
        }
    }

    /// The mail in a language.
    pub fn render(self, tag: &str, values: &BTreeMap<String, String>) -> Result<RenderedMail, ControlError> {
        self.check(values)?;
        let missing = ControlError::Corrupt { what: "text of a mail" };
        let language = language(tag).ok_or(ControlError::Corrupt { what: "language of a mail" })?;
        let (Some(text), Some(footer)) = (language.texts.get(self.as_str()), language.texts.get(FOOTER)) else {
            return Err(missing);
        };
        Ok(RenderedMail {
            subject: replace(text.subject, values),
            body: format!("{}\n\n-- \n{}\n", replace(text.body, values), footer.body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn words_in(text: &str) -> BTreeSet<&str> {
        text.split("{{").skip(1).map(|part| part.split_once("}}").unwrap().0).collect()
    }

    fn values(template: MailTemplate) -> BTreeMap<String, String> {
        template.words().iter().map(|word| ((*word).to_owned(), format!("<{word}>"))).collect()
    }

    #[test]
    fn every_language_has_every_text_and_each_uses_the_values_it_needs() {
        let words: BTreeSet<_> = LANGUAGES[0].words.keys().collect();
        for (locale, language) in LOCALES.iter().zip(LANGUAGES.iter()) {
            assert_eq!(language.texts.len(), MailTemplate::ALL.len() + 1, "{locale}");
            assert_eq!(language.words.keys().collect::<BTreeSet<_>>(), words, "{locale}");
            for template in MailTemplate::ALL {
                let text = language.texts.get(template.as_str()).unwrap_or_else(|| panic!("{locale}: {template:?}"));
                assert!(!text.subject.is_empty() && !text.body.is_empty(), "{locale}: {template:?}");
                assert!(!text.subject.contains('\n'), "{locale}: {template:?}");
                let mut used = words_in(text.subject);
                used.extend(words_in(text.body));
                assert_eq!(used, template.words().iter().copied().collect(), "{locale}: {template:?}");
                assert!(words_in(text.subject).iter().all(|word| !has_lines(word)), "{locale}: {template:?}");
                let mail = template.render(locale, &values(*template)).unwrap();
                assert!(!mail.subject.contains("{{") && !mail.body.contains("{{"), "{mail:?}");
                assert_eq!(template.as_str().parse::<MailTemplate>().unwrap(), *template);
            }
        }
    }

    #[test]
    fn values_that_people_chose_stay_one_line_and_become_no_link() {
        let mut chosen = values(MailTemplate::InviteUser);
        chosen.insert("inviter".into(), "Eve\r\nBcc: all@example.org see https://evil.example {{accept_link}}".into());
        chosen.insert("accept_link".into(), "https://backup.example/i".into());
        let mail = MailTemplate::InviteUser.render("en", &chosen).unwrap();
        assert!(
            mail.subject.contains("Eve  Bcc: all@example.org see https:/ /evil.example {{accept_link}}"),
            "{mail:?}"
        );
        assert!(!mail.subject.contains(['\r', '\n']));
        assert!(mail.body.contains("https://backup.example/i\n"), "{mail:?}");
        chosen.insert("tenant".into(), "x".repeat(100_000));
        assert!(MailTemplate::InviteUser.render("en", &chosen).unwrap().body.len() < 2000);
        chosen.remove("tenant");
        assert!(MailTemplate::InviteUser.render("en", &chosen).is_err());
        chosen.insert("other".into(), String::new());
        assert!(MailTemplate::InviteUser.render("en", &chosen).is_err());
    }

    #[test]
    fn an_unknown_language_gets_the_first() {
        assert_eq!(["de-AT", "PT_br", "pl", "fr", ""].map(locale), ["de", "pt", "pl", "en", "en"]);
        assert_eq!(word("de", "succeeded"), "erfolgreich");
        assert_eq!(word("de", "no such word"), "no such word");
    }
}

//! How often somebody may guess: per account from one place, per account from everywhere, per place whatever the
//! account. Each attempt counts before it is looked at, so that many at once count as many, and stops counting when it
//! was right. Behind the free ones the pause doubles. In memory: a restart forgets, and nobody can make one happen.

use control::Network;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;

const SECOND_NS: i64 = 1_000_000_000;
/// What lies back longer is forgotten.
const FORGET_NS: i64 = 3600 * SECOND_NS;
/// Most things that are counted; beyond, those that nothing was said against yet go first.
const COUNTED_MAX: usize = 200_000;

/// What is guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Guess {
    /// Password or code of an account.
    Login,
    /// Asking for mails to an account.
    Mail,
}

/// Free attempts, and the longest pause behind them.
struct Rule {
    free: u32,
    pause_max_ns: i64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    AccountFrom(Guess, [u8; 16], Network),
    Account(Guess, [u8; 16]),
    From(Guess, Network),
}

impl Key {
    /// An owner who is guessed at from elsewhere is slowed down, not locked out, so the pause of an account stays short.
    const fn rule(&self) -> Rule {
        match self {
            Key::AccountFrom(Guess::Login, ..) => Rule { free: 5, pause_max_ns: 900 * SECOND_NS },
            Key::Account(Guess::Login, _) => Rule { free: 30, pause_max_ns: 30 * SECOND_NS },
            Key::From(Guess::Login, _) => Rule { free: 60, pause_max_ns: 300 * SECOND_NS },
            Key::AccountFrom(Guess::Mail, ..) | Key::Account(Guess::Mail, _) => {
                Rule { free: 3, pause_max_ns: 900 * SECOND_NS }
            }
            Key::From(Guess::Mail, _) => Rule { free: 20, pause_max_ns: 900 * SECOND_NS },
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Count {
    attempts: u32,
    last_ns: i64,
    until_ns: i64,
}

/// Counts attempts.
#[derive(Default)]
pub(crate) struct GuessLimits {
    counts: Mutex<HashMap<Key, Count>>,
}

/// An attempt that was let through; it counts unless it is said to have been right.
pub(crate) struct Attempt<'a> {
    limits: &'a GuessLimits,
    keys: [Key; 3],
}

fn account_key(account: &str) -> [u8; 16] {
    let hash = blake3::hash(account.trim().to_lowercase().as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

impl GuessLimits {
    /// Lets an attempt through, or says after how many seconds there may be another one.
    pub(crate) fn begin(&self, guess: Guess, account: &str, from: IpAddr, now_ns: i64) -> Result<Attempt<'_>, u64> {
        let (account, from) = (account_key(account), Network::around(from));
        let keys = [Key::AccountFrom(guess, account, from), Key::Account(guess, account), Key::From(guess, from)];
        let mut counts = self.counts.lock();
        if counts.len() + keys.len() > COUNTED_MAX {
            counts.retain(|_, count| now_ns.saturating_sub(count.last_ns) < FORGET_NS);
            if counts.len() + keys.len() > COUNTED_MAX {
                counts.retain(|key, count| count.attempts > key.rule().free);
            }
        }
        let wait_ns = keys.iter().filter_map(|key| counts.get(key)).map(|count| count.until_ns - now_ns).max();
        if let Some(wait_ns) = wait_ns.filter(|wait_ns| *wait_ns > 0) {
            return Err(u64::try_from(wait_ns.div_euclid(SECOND_NS) + 1).unwrap_or(1));
        }
        for key in &keys {
            let count = counts.entry(key.clone()).or_default();
            if now_ns.saturating_sub(count.last_ns) >= FORGET_NS {
                *count = Count::default();
            }
            count.attempts = count.attempts.saturating_add(1);
            count.last_ns = now_ns;
            let rule = key.rule();
            if let Some(beyond) = count.attempts.checked_sub(rule.free) {
                let pause_ns = SECOND_NS.saturating_mul(1 << beyond.min(20));
                count.until_ns = now_ns.saturating_add(pause_ns.min(rule.pause_max_ns));
            }
        }
        Ok(Attempt { limits: self, keys })
    }
}

impl Attempt<'_> {
    /// It was no guess: it does not count.
    pub(crate) fn does_not_count(self) {
        let mut counts = self.limits.counts.lock();
        for key in &self.keys {
            if let Some(count) = counts.get_mut(key) {
                count.attempts = count.attempts.saturating_sub(1);
                if count.attempts < key.rule().free {
                    count.until_ns = 0;
                }
            }
        }
    }

    /// It was right: what was wrong before at this account from this place is forgiven too.
    pub(crate) fn was_right(self) {
        let place = self.keys[0].clone();
        let limits = self.limits;
        self.does_not_count();
        limits.counts.lock().remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn pauses_double_for_the_place_and_the_account() {
        let limits = GuessLimits::default();
        let mut now_ns = 0;
        for _ in 0..5 {
            assert!(limits.begin(Guess::Login, "anna@example.org", at(1), now_ns).is_ok());
        }
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let seconds = limits.begin(Guess::Login, " Anna@example.org", at(2), now_ns).err().unwrap();
            pauses.push(seconds);
            now_ns += i64::try_from(seconds).unwrap() * SECOND_NS;
            assert!(limits.begin(Guess::Login, "anna@example.org", at(1), now_ns).is_ok());
        }
        assert_eq!(pauses[..4], [2, 3, 5, 9]);
        assert_eq!(*pauses.last().unwrap(), 901, "the pause has a longest");
        // Somebody else from there, and the owner from elsewhere, are let through.
        assert!(limits.begin(Guess::Login, "bert@example.org", at(1), now_ns).is_ok());
        assert!(limits.begin(Guess::Login, "anna@example.org", IpAddr::from([198, 51, 100, 1]), now_ns).is_ok());
        assert!(limits.begin(Guess::Mail, "anna@example.org", at(1), now_ns).is_ok());
        now_ns += FORGET_NS;
        assert!(limits.begin(Guess::Login, "anna@example.org", at(1), now_ns).is_ok(), "an hour forgets");
    }

    #[test]
    fn right_attempts_do_not_count_and_many_at_once_do() {
        let limits = GuessLimits::default();
        for _ in 0..1000 {
            limits.begin(Guess::Login, "anna", at(1), 0).ok().unwrap().was_right();
            limits.begin(Guess::Login, "anna", at(1), 0).ok().unwrap().does_not_count();
        }
        // None of them has ended when the next begins.
        let running: Vec<_> = (0..100).filter_map(|_| limits.begin(Guess::Login, "anna", at(1), 0).ok()).collect();
        assert_eq!(running.len(), 5);
        for attempt in running {
            attempt.does_not_count();
        }
        assert!(limits.begin(Guess::Login, "anna", at(1), 0).is_ok());
    }

    #[test]
    fn one_place_cannot_try_all_accounts() {
        let limits = GuessLimits::default();
        let through = (0..1000).filter(|n| limits.begin(Guess::Login, &format!("user{n}"), at(1), 0).is_ok()).count();
        assert_eq!(through, 60);
        let everywhere = GuessLimits::default();
        let from = |n: u32| IpAddr::from([10, (n >> 8) as u8, n as u8, 1]);
        let through = (0..1000).filter(|n| everywhere.begin(Guess::Login, "anna", from(*n), 0).is_ok()).count();
        assert_eq!(through, 30);
    }
}

//! Who may connect: connections that are not logged in are few, in all and per network, and sources that fail often wait.
//! After OpenSSH's MaxStartups and PerSourcePenalties. Pure: time is given to it.

use crate::limits::PENALTY_SOURCES_MAX;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Penalties below this are remembered, not enforced.
const ENFORCED_FROM: Duration = Duration::from_secs(15);
const PENALTY_MAX: Duration = Duration::from_secs(600);

/// What somebody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offence {
    /// A log-in was refused.
    LoginRefused,
    /// Gone without having tried to log in.
    NoLogin,
    /// Not logged in in time.
    LoginGrace,
    /// The protocol was broken.
    Protocol,
    /// Something of ours broke.
    Crash,
}

impl Offence {
    fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Offence::LoginRefused => 5,
            Offence::NoLogin => 1,
            Offence::LoginGrace | Offence::Protocol => 10,
            Offence::Crash => 90,
        })
    }
}

/// One source: an IPv4 address, or a /64.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// One network: a /24, or a /56.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(std::net::Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 72))),
    }
}

/// Penalties that go down as time goes by.
#[derive(Debug)]
pub(crate) struct Penalties {
    until: HashMap<IpAddr, Instant>,
    ends: BTreeSet<(Instant, IpAddr)>,
    sources_max: usize,
}

impl Default for Penalties {
    fn default() -> Penalties {
        Penalties { until: HashMap::new(), ends: BTreeSet::new(), sources_max: PENALTY_SOURCES_MAX }
    }
}

impl Penalties {
    /// Whether this source may connect.
    pub(crate) fn allows(&self, address: IpAddr, now: Instant) -> bool {
        self.until.get(&source(address)).is_none_or(|until| until.saturating_duration_since(now) < ENFORCED_FROM)
    }

    /// Adds to a source's penalty.
    pub(crate) fn add(&mut self, address: IpAddr, offence: Offence, now: Instant) {
        while let Some(first) = self.ends.first().copied()
            && (first.0 <= now || self.ends.len() >= self.sources_max)
        {
            self.ends.remove(&first);
            self.until.remove(&first.1);
        }
        let source = source(address);
        let old = self.until.get(&source).copied();
        let until = (old.unwrap_or(now).max(now) + offence.penalty()).min(now + PENALTY_MAX);
        if let Some(old) = old {
            self.ends.remove(&(old, source));
        }
        self.until.insert(source, until);
        self.ends.insert((until, source));
    }

    /// Sources remembered.
    pub(crate) fn sources(&self) -> usize {
        self.until.len()
    }
}

/// How fast one source may begin connections: so many at once, and then one after the other. Each costs us a key exchange,
/// while it costs an attacker nothing (DHEat, CVE-2002-20001).
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the next connection of a source would be due if none were let in early.
    due: HashMap<IpAddr, Instant>,
}

impl Pace {
    const AT_ONCE: u32 = 12;
    const INTERVAL: Duration = Duration::from_millis(125);

    /// How long a connection that begins now has to wait before it is answered.
    pub(crate) fn wait(&mut self, address: IpAddr, now: Instant) -> Duration {
        if self.due.len() >= PENALTY_SOURCES_MAX {
            self.due.retain(|_, due| *due > now);
            if self.due.len() >= PENALTY_SOURCES_MAX {
                self.due.clear();
            }
        }
        let due = self.due.entry(source(address)).or_insert(now);
        let wait = due.saturating_duration_since(now + Self::INTERVAL * (Self::AT_ONCE - 1));
        *due = (*due).max(now) + Self::INTERVAL;
        wait
    }
}

/// What becomes of a connection that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Let it in.
    Admit,
    /// Let it in, and end this older one, of the network that has most.
    Displace(u64),
    /// Close it.
    Refuse,
}

/// Connections that are not logged in.
#[derive(Debug)]
pub(crate) struct Starts {
    by_network: BTreeMap<IpAddr, BTreeSet<u64>>,
    count: usize,
    max: usize,
    per_network_max: usize,
}

impl Starts {
    /// At most `max` in all, `per_network_max` of one network.
    pub(crate) fn new(max: usize, per_network_max: usize) -> Starts {
        Starts { by_network: BTreeMap::new(), count: 0, max, per_network_max }
    }

    /// Connection `id` begins; ids rise. Whoever fills all places from one network loses them to others.
    pub(crate) fn begin(&mut self, id: u64, address: IpAddr) -> Admission {
        let network = network(address);
        let own = self.by_network.get(&network).map_or(0, BTreeSet::len);
        if own >= self.per_network_max {
            return Admission::Refuse;
        }
        let mut admission = Admission::Admit;
        if self.count >= self.max {
            let most = self.by_network.values().max_by_key(|ids| ids.len()).filter(|ids| ids.len() > own + 1);
            match most.and_then(|ids| ids.first().copied()) {
                Some(oldest) => admission = Admission::Displace(oldest),
                None => return Admission::Refuse,
            }
        }
        if let Admission::Displace(oldest) = admission {
            self.end(oldest);
        }
        self.by_network.entry(network).or_default().insert(id);
        self.count += 1;
        admission
    }

    /// Connection `id` is logged in or gone.
    pub(crate) fn end(&mut self, id: u64) {
        let mut removed = false;
        self.by_network.retain(|_, ids| {
            removed |= ids.remove(&id);
            !ids.is_empty()
        });
        self.count -= usize::from(removed);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, Offence, Pace, Penalties, Starts};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn penalties_rise_hold_off_and_decay() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        let bad = address("192.0.2.7");
        for _ in 0..2 {
            penalties.add(bad, Offence::LoginRefused, now);
            assert!(penalties.allows(bad, now), "a typing mistake costs nothing");
        }
        penalties.add(bad, Offence::LoginRefused, now);
        assert!(!penalties.allows(bad, now));
        assert!(penalties.allows(address("192.0.2.8"), now));
        assert!(penalties.allows(bad, now + Duration::from_secs(1)));
        for _ in 0..1000 {
            penalties.add(bad, Offence::Crash, now);
        }
        assert!(!penalties.allows(bad, now + Duration::from_secs(580)));
        assert!(penalties.allows(bad, now + Duration::from_secs(600)));
        for _ in 0..3 {
            penalties.add(address("2001:db8::1"), Offence::LoginGrace, now);
        }
        assert!(!penalties.allows(address("2001:db8::ffff:0:1"), now), "one /64 is one source");
    }

    #[test]
    fn one_source_begins_connections_at_a_pace() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let waits: Vec<_> = (0..30).map(|_| pace.wait(address("192.0.2.1"), now).as_millis()).collect();
        assert!(waits[..12].iter().all(|wait| *wait == 0), "{waits:?}");
        assert_eq!((waits[12], waits[13], waits[29]), (125, 250, 18 * 125));
        assert_eq!(pace.wait(address("192.0.2.2"), now), Duration::ZERO);
        assert_eq!(pace.wait(address("192.0.2.1"), now + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_least_first() {
        let (mut penalties, now) = (Penalties { sources_max: 100, ..Penalties::default() }, Instant::now());
        let worst = address("198.51.100.1");
        penalties.add(worst, Offence::Crash, now);
        for number in 0..10_000u32 {
            penalties.add(IpAddr::V4(Ipv4Addr::from_bits(number)), Offence::NoLogin, now);
        }
        assert!(penalties.sources() <= 100);
        assert!(!penalties.allows(worst, now));
        penalties.add(address("203.0.113.1"), Offence::NoLogin, now + Duration::from_secs(700));
        assert_eq!(penalties.sources(), 1);
    }

    #[test]
    fn whoever_takes_all_places_loses_them_to_others() {
        let mut starts = Starts::new(8, 4);
        for id in 0..4 {
            assert_eq!(starts.begin(id, address("192.0.2.1")), Admission::Admit);
        }
        assert_eq!(starts.begin(4, address("192.0.2.200")), Admission::Refuse, "one /24");
        for id in 5..9 {
            assert_eq!(starts.begin(id, address("2001:db8::1")), Admission::Admit);
        }
        assert_eq!(starts.begin(9, address("2001:db8:0:ff::1")), Admission::Refuse, "one /56");
        let displaced = starts.begin(10, address("203.0.113.1"));
        assert!(matches!(displaced, Admission::Displace(0 | 5)), "{displaced:?}");
        assert_eq!(starts.count(), 8);
        for id in 0..20 {
            starts.end(id);
        }
        assert_eq!((starts.count(), starts.by_network.len()), (0, 0));
    }
}

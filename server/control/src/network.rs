//! Networks from which somebody may come, and the prefixes under which addresses are counted.

use crate::ControlError;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most networks in a list.
pub const NETWORKS_MAX: usize = 200;

/// Addresses with a common beginning, such as `192.0.2.0/24` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let keep = |width: u32| u128::MAX.checked_shl(width - u32::from(prefix)).unwrap_or(0);
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & keep(32) as u32).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & keep(128)).into()),
    }
}

impl Network {
    /// The network that an attacker's neighbours share: /24 of IPv4, /56 of IPv6.
    pub fn around(address: IpAddr) -> Network {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { 24 } else { 56 };
        Network { address: masked(address, prefix), prefix }
    }

    /// Whether an address lies in it. IPv4 in IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// From a column.
    pub(crate) fn stored_list(text: &str) -> Result<Vec<Network>, ControlError> {
        let corrupt = ControlError::Corrupt { what: "list of networks" };
        let texts: Vec<String> = serde_json::from_str(text).map_err(|_| corrupt)?;
        texts.iter().map(|text| text.parse().map_err(|_| ControlError::Corrupt { what: "network" })).collect()
    }

    /// For a column.
    pub(crate) fn list_to_store(networks: &[Network]) -> Result<String, ControlError> {
        if networks.len() > NETWORKS_MAX {
            return Err(ControlError::Invalid { what: "networks", rule: "must be at most 200" });
        }
        Ok(serde_json::json!(networks.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let rule = ControlError::Invalid {
            what: "network",
            rule: "must be an address or a network such as 192.0.2.0/24 or 2001:db8::/32",
        };
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.trim(), None),
        };
        let Ok(address) = address.parse::<IpAddr>() else { return Err(rule) };
        let mapped = address.is_ipv6() && address.to_canonical().is_ipv4();
        let address = address.to_canonical();
        let (_, width) = bits(address);
        let prefix = match prefix {
            None => width,
            // What was meant by a prefix over the mapped form is not guessed.
            Some(_) if mapped => return Err(rule),
            Some(text) => match text.parse::<u8>() {
                Ok(prefix) if prefix <= width => prefix,
                _ => return Err(rule),
            },
        };
        Ok(Network { address: masked(address, prefix), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_begins_like_them() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(holds("192.0.2.0/24", "192.0.2.255"));
        assert!(holds("192.0.2.77/24", "::ffff:192.0.2.1"));
        assert!(!holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.6"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1") && !holds("::/0", "192.0.2.1"));
        for wrong in ["", "192.0.2.0/33", "2001:db8::/129", "192.0.2/24", "::ffff:192.0.2.0/120", "a/8", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!("192.0.2.77/24".parse::<Network>().unwrap().to_string(), "192.0.2.0/24");
    }

    #[test]
    fn neighbours_share_a_prefix() {
        let around = |address: &str| Network::around(address.parse().unwrap()).to_string();
        assert_eq!(around("192.0.2.9"), "192.0.2.0/24");
        assert_eq!(around("::ffff:192.0.2.9"), "192.0.2.0/24");
        assert_eq!(around("2001:db8:1:2ff::9"), "2001:db8:1:200::/56");
    }
}

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use reqwest::Url;

use super::{FetchFailure, FetchReason};

/// Which addresses are asked.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressRule {
    allow_private: bool,
    allowed: Vec<IpNet>,
}

impl AddressRule {
    /// Those of everybody, and of some networks besides.
    pub(super) fn new(allow_private: bool, allowed: Vec<IpNet>) -> Self {
        Self { allow_private, allowed }
    }

    pub(super) fn allows(&self, address: IpAddr) -> bool {
        self.allow_private || is_public(address) || self.allowed.iter().any(|net| net.contains(&address))
    }

    /// Refuses an address that stands in the URL itself, which is never resolved.
    pub(super) fn check_literal(&self, url: &Url) -> Result<(), FetchFailure> {
        let address: IpAddr = match url.host() {
            Some(url::Host::Ipv4(address)) => address.into(),
            Some(url::Host::Ipv6(address)) => address.into(),
            Some(url::Host::Domain(_)) => return Ok(()),
            None => return Err(FetchFailure::new(FetchReason::InvalidUrl, "it names no host")),
        };
        if self.allows(address) {
            return Ok(());
        }
        Err(FetchFailure::new(FetchReason::PrivateAddress, format!("{address} is private")))
    }
}

/// Whether an address is one that anybody on the Internet may reach (the registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = (a, b, c) == (192, 0, 0);
    let is_relay = (a, b, c) == (192, 88, 99);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 240
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_relay
        || is_benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let inner = match segments {
        // Addresses of the older protocol in new clothes: mapped, translated (RFC 6052), 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = inner {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3 and nothing else; of that, documentation and Teredo are not asked.
    segments[0] & 0xe000 == 0x2000
        && !matches!(segments, [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] | [0x2001, 0..0x200, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_everybodys_are_private() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "64:ff9b:1::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn literal_addresses_are_checked_however_they_are_written() {
        for url in
            ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]:80/", "http://0/"]
        {
            let failure = AddressRule::default().check_literal(&Url::parse(url).unwrap()).unwrap_err();
            assert_eq!(failure.reason, FetchReason::PrivateAddress, "{url}");
        }
        for url in ["http://example.org/", "http://1.1.1.1/"] {
            AddressRule::default().check_literal(&Url::parse(url).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_network_may_be_allowed_without_its_neighbours() {
        let rule = AddressRule::new(false, vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(rule.allows("10.1.2.3".parse().unwrap()));
        assert!(rule.allows("1.1.1.1".parse().unwrap()));
        assert!(!rule.allows("10.2.0.1".parse().unwrap()));
        assert!(!rule.allows("::ffff:10.1.2.3".parse().unwrap()), "it is another address to the system");
    }
}

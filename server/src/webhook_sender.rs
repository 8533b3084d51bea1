//! Sends signed requests to URLs that customers have chosen, and to nothing behind the operator's own walls: an address
//! is looked at when it is connected to, after the name was resolved, and a redirection is an answer like any other.

use aws_lc_rs::hmac;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For everything until the answer's head.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(10);
const SECOND_NS: i64 = 1_000_000_000;

/// Header with the time and the signature: `t=SECONDS,v1=HEX`, HEX = HMAC-SHA-256 over `SECONDS.BODY`.
pub const SIGNATURE_HEADER: &str = "holdfast-signature";
/// Header with the delivery's id, the same at every try.
pub const DELIVERY_HEADER: &str = "holdfast-delivery";
/// Header with the event's name.
pub const EVENT_HEADER: &str = "holdfast-event";

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
#[error("webhooks: {0}")]
pub struct SenderError(String);

/// Why a delivery did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// What the other side answered, if it did.
    pub status: Option<u16>,
    /// For the owner of the webhook.
    pub reason: String,
}

/// A delivery to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Where to.
    pub url: &'a str,
    /// Its id.
    pub delivery: &'a str,
    /// Its event.
    pub event: &'a str,
    /// JSON.
    pub body: &'a str,
    /// What signs it.
    pub secret: &'a [u8],
    /// The time in the signature.
    pub now_ns: i64,
}

/// Which addresses may be reached.
#[derive(Debug)]
struct Walls {
    /// Networks of the operator's that may be reached although they are not public, also without TLS.
    allowed: Vec<IpNet>,
}

impl Walls {
    fn is_allowed(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address))
    }

    fn lets_through(&self, address: IpAddr, is_encrypted: bool) -> bool {
        self.is_allowed(address) || is_encrypted && is_public(address)
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Shared between a provider and its customers; of the protocols themselves; for measurements.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && (18..20).contains(&b)))
}

/// Whether an address is anybody's on the Internet, and nobody's in particular on a network of ours.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
            match (a, b) {
                // Translated to IPv4, which is what counts.
                (0x64, 0xff9b) => [c, d, e, f] == [0; 4] && v4(g, h),
                (0x2002, _) => v4(b, c),
                // Teredo, documentation, and whatever else is no plain address.
                (0x2001, 0 | 0xdb8) => false,
                // Everything global lies in 2000::/3.
                _ => (0x2000..0x4000).contains(&a),
            }
        }
    }
}

/// Resolves names to what lies outside of the walls.
struct Outside {
    walls: Arc<Walls>,
    is_encrypted: bool,
}

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        let (walls, is_encrypted, name) = (self.walls.clone(), self.is_encrypted, name.as_str().to_owned());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let outside: Vec<SocketAddr> =
                found.into_iter().filter(|address| walls.lets_through(address.ip(), is_encrypted)).collect();
            if outside.is_empty() {
                return Err(format!("{name} has no address that may be reached from here").into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}

/// Sends deliveries.
#[derive(Clone)]
pub struct WebhookSender {
    encrypted: Client,
    plain: Client,
    walls: Arc<Walls>,
}

impl WebhookSender {
    /// `allowed`: networks of the operator's that may be reached, also without TLS.
    pub fn new(allowed: Vec<IpNet>) -> Result<Self, SenderError> {
        let walls = Arc::new(Walls { allowed });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SenderError(error.to_string()))?;
        let mut roots = rustls::RootCertStore::empty();
        // A machine without any makes every delivery fail, which is told there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let client = |is_encrypted: bool| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Outside { walls: walls.clone(), is_encrypted })
                .no_proxy()
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(WHOLE_TIMEOUT)
                .pool_max_idle_per_host(0)
                .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| SenderError(chain(&error)))
        };
        Ok(WebhookSender { encrypted: client(true)?, plain: client(false)?, walls: walls.clone() })
    }

    /// Whether a URL can be right. A name is looked at only when something is sent.
    pub fn check(&self, url: &str) -> Result<(), String> {
        self.client_for(url).map(|_| ())
    }

    fn client_for(&self, url: &str) -> Result<(&Client, Url), String> {
        let parsed = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
        let is_encrypted = match parsed.scheme() {
            "https" => true,
            "http" if !self.walls.allowed.is_empty() => false,
            _ => return Err("must begin with https://".into()),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("must hold no name or password".into());
        }
        // A literal address never meets the resolver.
        let host = parsed.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if literal.is_ok_and(|address| !self.walls.lets_through(address, is_encrypted)) {
            return Err(format!("{host} is not an address that may be reached from here"));
        }
        Ok((if is_encrypted { &self.encrypted } else { &self.plain }, parsed))
    }

    /// Sends one delivery; answers the status of success.
    pub async fn send(&self, parcel: Parcel<'_>) -> Result<u16, NotTaken> {
        let (client, url) = self
            .client_for(parcel.url)
            .map_err(|reason| NotTaken { status: None, reason: format!("the URL {reason}") })?;
        let answer = client
            .post(url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(DELIVERY_HEADER, parcel.delivery)
            .header(EVENT_HEADER, parcel.event)
            .header(SIGNATURE_HEADER, signature(parcel.secret, parcel.now_ns / SECOND_NS, parcel.body))
            .body(parcel.body.to_owned())
            .send()
            .await
            .map_err(|error| NotTaken { status: None, reason: chain(&error.without_url()) })?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(status.as_u16()),
            false => Err(NotTaken { status: Some(status.as_u16()), reason: format!("the answer was {status}") }),
        }
    }
}

/// The value of [`SIGNATURE_HEADER`].
pub fn signature(secret: &[u8], seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
}

fn chain(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::10.0.0.1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1", "64:ff9b::101:101", "2002:101:101::"]
        {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn urls_are_refused_before_anything_is_sent() {
        let closed = WebhookSender::new(Vec::new()).unwrap();
        for wrong in [
            "",
            "example.org",
            "ftp://example.org",
            "http://example.org",
            "https://",
            "https://127.0.0.1/",
            "https://[::1]:8440/",
            "https://10.1.2.3",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://017700000001/",
            "https://[::ffff:10.0.0.1]/",
            "https://user@example.org/",
            "https://user:secret@example.org/",
        ] {
            assert!(closed.check(wrong).is_err(), "{wrong}");
        }
        closed.check("https://example.org/hook?x=1").unwrap();
        closed.check("https://1.1.1.1/hook").unwrap();
        let open = WebhookSender::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
        open.check("http://127.0.0.1:1/").unwrap();
        open.check("https://[::ffff:127.0.0.1]:1/").unwrap();
        assert!(open.check("http://10.0.0.1/").is_err());
        assert!(open.check("http://1.1.1.1/").is_err(), "what leaves the house is encrypted");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed() {
        let parcel =
            Parcel { url: "https://localhost:1/", delivery: "d", event: "test", body: "{}", secret: b"s", now_ns: 0 };
        let refused = WebhookSender::new(Vec::new()).unwrap().send(parcel).await.unwrap_err();
        assert!(refused.reason.contains("no address that may be reached"), "{refused:?}");
    }

    #[test]
    fn a_signature_is_over_time_and_body() {
        // As any other implementation computes it: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1700000000,v1=";
        let signed = signature(b"secret", 1_700_000_000, "{\"a\":1}");
        assert!(signed.starts_with(expected), "{signed}");
        assert_ne!(signed, signature(b"secret", 1_700_000_001, "{\"a\":1}"));
        assert_ne!(signed, signature(b"other", 1_700_000_000, "{\"a\":1}"));
        assert_eq!(signed, format!("{expected}49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"));
    }
}

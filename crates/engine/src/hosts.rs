//! Which hosts a request may make this task speak to: those of the internet, and what the operator
//! allows besides. A task runs beside an instance's metadata, other tasks and the operator's own
//! services, and fetches whatever URL a request names.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use stepwes_core::task::env;
use url::{Host, Url};

/// Variables that name a proxy, by which names are looked up elsewhere.
const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// The hosts that a request may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    allowed: Arc<Allowed>,
    /// Whether a proxy looks up names, and is to refuse what it does not want to be reached.
    proxied: bool,
}

/// What the operator allows beside the internet's.
#[derive(Debug, Default)]
struct Allowed {
    /// Whole names, in lower case.
    names: Vec<String>,
    /// The ends of names, with the dot that they begin with.
    suffixes: Vec<String>,
    networks: Vec<IpNet>,
}

/// Why a host is not spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

impl Refused {
    /// The refusal that an error has among its causes.
    pub(crate) fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }

    fn host(host: &str, kind: &str) -> Self {
        Self(format!(
            "{host} is {kind}, which a request may not name; an operator can allow it ({})",
            env::ALLOWED_HOSTS
        ))
    }
}

impl Hosts {
    /// Those of the internet and the operator's, one a comma: names (`data.example.org`), all names
    /// below one (`*.example.org`), addresses and networks (`10.1.0.0/16`).
    ///
    /// # Errors
    /// A phrase naming the one that is none of these.
    pub(crate) fn allowing(list: &str) -> Result<Self, String> {
        let mut allowed = Allowed::default();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if let Ok(network) = IpNet::from_str(item) {
                allowed.networks.push(network);
            } else if let Ok(address) = IpAddr::from_str(item.trim_matches(['[', ']'])) {
                allowed.networks.push(address.into());
            } else if let Some(name) = item.strip_prefix("*.").and_then(as_name) {
                allowed.suffixes.push(format!(".{name}"));
            } else if let Some(name) = as_name(item) {
                allowed.names.push(name);
            } else {
                return Err(format!(
                    "{item:?} is no host: give names, *.NAME, addresses or networks such as 10.1.0.0/16"
                ));
            }
        }
        Ok(Self { allowed: Arc::new(allowed), proxied: false })
    }

    /// The same, where the environment may name proxies.
    pub(crate) fn behind_proxies(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let proxied = PROXIES.iter().any(|name| variable(name).is_some_and(|url| !url.is_empty()));
        Self { proxied, ..self }
    }

    /// Whether a request may name that URL, as far as can be said without looking its host up:
    /// that is done for the connection ([`Resolve`]).
    ///
    /// # Errors
    /// [`Refused`], for a person.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(Refused(format!("it leads to a {scheme}:// URL, which is not followed")));
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into(), None),
            Some(Host::Ipv6(address)) => self.check_address(address.into(), None),
            // A proxy would take it for its own.
            Some(Host::Domain(name)) if self.proxied && is_local(name) && !self.allows(name) => {
                Err(Refused::host(name, "a name of this machine"))
            }
            Some(Host::Domain(_)) => Ok(()),
            None => Err(Refused("it names no host".to_owned())),
        }
    }

    fn check_address(&self, address: IpAddr, name: Option<&str>) -> Result<(), Refused> {
        let address = address.to_canonical();
        let Some(kind) = inside(address) else { return Ok(()) };
        let by_network = self.allowed.networks.iter().any(|network| network.contains(&address));
        // Whoever owns a name decides where it leads: not to the credentials of an instance.
        let by_name = !is_link_local(address) && name.is_some_and(|name| self.allows(name));
        if by_network || by_name {
            return Ok(());
        }
        let address = match name {
            Some(name) => format!("{name} ({address})"),
            None => address.to_string(),
        };
        Err(Refused::host(&address, kind))
    }

    fn allows(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.allowed.names.contains(&name)
            || self.allowed.suffixes.iter().any(|suffix| name.ends_with(suffix))
    }

    /// Those of a name's addresses that may be connected to.
    fn pick(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = None;
        let picked: Vec<_> = found
            .into_iter()
            .filter(|address| match self.check_address(address.ip(), Some(name)) {
                Ok(()) => true,
                Err(why) => {
                    refused.get_or_insert(why);
                    false
                }
            })
            .collect();
        match refused {
            Some(why) if picked.is_empty() => Err(why),
            _ => Ok(picked),
        }
    }
}

/// Looks a name up once for a connection, which goes to an address that has been checked: a name
/// that leads elsewhere the next moment leads nowhere else.
impl Resolve for Hosts {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let picked = if hosts.proxied { found } else { hosts.pick(name.as_str(), found)? };
            Ok(Box::new(picked.into_iter()) as Addrs)
        })
    }
}

/// A name as it is compared, when it can be one.
fn as_name(text: &str) -> Option<String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !name.contains('*') => {
            Some(name.trim_end_matches('.').to_ascii_lowercase())
        }
        _ => None,
    }
}

/// Whether a name is this machine's own by convention (RFC 6761, ICANN's `internal`).
fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "localhost" | "local" | "internal" | "localdomain")
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            // Where EC2 has its metadata (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>).
            address.segments()[0] & 0xffc0 == 0xfe80
                || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)
        }
    }
}

/// What an address is that is not the internet's (IANA's registries of special-purpose addresses,
/// <https://www.iana.org/assignments/iana-ipv4-special-registry> and its sibling for IPv6).
fn inside(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => inside_v4(address),
        IpAddr::V6(address) => inside_v6(address),
    }
}

fn inside_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("an unspecified address"),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("an address of a carrier's own network"),
        [127, ..] => Some("a loopback address"),
        [169, 254, ..] => Some("a link-local address"),
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] => Some("a reserved address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Some("an address for documentation")
        }
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn inside_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        inside_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // What NAT64 and 6to4 lead to.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0xfc00..=0xfdff, ..] => Some("a unique local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Teredo and other protocols' own, and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            Some("a reserved address")
        }
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &str) -> Hosts {
        Hosts::allowing(list).expect(list)
    }

    fn check(hosts: &Hosts, url: &str) -> Result<(), Refused> {
        hosts.check(&Url::parse(url).expect(url))
    }

    #[test]
    fn the_internet_is_open_and_everything_else_is_not() {
        let none = Hosts::default();
        for url in [
            "https://example.org/a",
            "http://1.1.1.1/",
            "http://172.32.0.1/",
            "http://[2606:4700::1111]/",
            "http://[64:ff9b::101:101]/",
        ] {
            assert_eq!(check(&none, url), Ok(()), "{url}");
        }
        for (url, kind) in [
            ("http://127.0.0.1/", "a loopback address"),
            ("http://127.9.9.9:8080/", "a loopback address"),
            ("http://2130706433/", "a loopback address"),
            ("http://0x7f.1/", "a loopback address"),
            ("http://0/", "an unspecified address"),
            ("http://10.0.0.1/", "a private address"),
            ("http://172.16.0.1/", "a private address"),
            ("http://172.31.255.255/", "a private address"),
            ("http://192.168.1.1/", "a private address"),
            ("http://100.64.0.1/", "an address of a carrier's own network"),
            ("http://169.254.169.254/latest/meta-data/", "a link-local address"),
            ("http://169.254.170.2/v2/credentials", "a link-local address"),
            ("http://192.0.0.192/", "a reserved address"),
            ("http://192.0.2.1/", "an address for documentation"),
            ("http://198.19.0.1/", "a reserved address"),
            ("http://224.0.0.1/", "a multicast address"),
            ("http://255.255.255.255/", "a reserved address"),
            ("http://[::]/", "an unspecified address"),
            ("http://[::1]/", "a loopback address"),
            ("http://[::7f00:1]/", "a reserved address"),
            ("http://[::ffff:127.0.0.1]/", "a loopback address"),
            ("http://[::ffff:a9fe:a9fe]/", "a link-local address"),
            ("http://[64:ff9b::7f00:1]/", "a loopback address"),
            ("http://[64:ff9b:1::1]/", "a reserved address"),
            ("http://[2002:a9fe:a9fe::]/", "a link-local address"),
            ("http://[2001:0:1::]/", "a reserved address"),
            ("http://[fd00:ec2::254]/", "a unique local address"),
            ("http://[fe80::1]/", "a link-local address"),
            ("http://[fec0::1]/", "a site-local address"),
            ("http://[ff02::1]/", "a multicast address"),
            ("http://[2001:db8::1]/", "a reserved address"),
            ("http://[100::1]/", "a reserved address"),
        ] {
            let Refused(told) = check(&none, url).expect_err(url);
            assert!(told.contains(kind) && told.contains("STEPWES_ALLOWED_HOSTS"), "{url}: {told}");
        }
        let Refused(told) = check(&none, "ftp://example.org/").expect_err("a scheme");
        assert!(told.contains("ftp://"), "{told}");
    }

    #[test]
    fn an_operator_allows_networks_addresses_and_names() {
        let some = hosts("10.1.0.0/16, ::1,192.168.1.7,data.example.org, *.lab.example.org,");
        for url in ["http://10.1.2.3/", "http://[::1]/", "http://192.168.1.7/"] {
            assert_eq!(check(&some, url), Ok(()), "{url}");
        }
        for url in ["http://10.2.0.1/", "http://127.0.0.1/", "http://192.168.1.8/"] {
            assert!(check(&some, url).is_err(), "{url}");
        }
        let private: Vec<SocketAddr> = vec!["10.9.0.1:0".parse().expect("an address")];
        for name in ["data.example.org", "DATA.example.org.", "a.b.lab.example.org"] {
            assert_eq!(some.pick(name, private.clone()), Ok(private.clone()), "{name}");
        }
        for name in ["x.data.example.org", "lab.example.org", "evillab.example.org"] {
            let Refused(told) = some.pick(name, private.clone()).expect_err(name);
            assert!(told.contains(name) && told.contains("10.9.0.1"), "{told}");
        }
        for wrong in ["*", "a b", "http://x", "10.0.0.0/33", "*.1.2.3.4", "a*.org"] {
            assert!(Hosts::allowing(wrong).expect_err(wrong).contains(wrong));
        }
    }

    #[test]
    fn an_allowed_name_does_not_lead_to_an_instance_s_metadata() {
        let some = hosts("data.example.org");
        let network = hosts("169.254.0.0/16");
        for address in ["169.254.169.254:0", "[fd00:ec2::254]:0", "[fe80::1]:0"] {
            let found = vec![address.parse().expect("an address")];
            assert!(some.pick("data.example.org", found).is_err(), "{address}");
        }
        assert_eq!(check(&network, "http://169.254.169.254/"), Ok(()), "whoever means it");
    }

    #[test]
    fn of_a_name_s_addresses_those_that_are_open_are_taken() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let found = vec![address("10.0.0.1:0"), address("1.1.1.1:0")];
        let picked = Hosts::default().pick("both.example.org", found);
        assert_eq!(picked, Ok(vec![address("1.1.1.1:0")]));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_when_it_is_connected_to() {
        let client = |hosts: Hosts| {
            crate::http::builder().no_proxy().dns_resolver(hosts).build().expect("a client")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url =
            format!("http://localhost:{}/", listener.local_addr().expect("an address").port());
        let error = client(Hosts::default()).get(&url).send().await.expect_err("refused");
        let Refused(told) = Refused::within(&error).expect("a refusal");
        assert!(told.contains("localhost"), "{told}");
        let asked = tokio::spawn(async move {
            let _ = client(hosts("localhost")).get(&url).send().await;
        });
        listener.accept().await.expect("allowed");
        asked.abort();
    }

    #[test]
    fn behind_a_proxy_names_are_the_proxy_s_and_addresses_are_not() {
        let proxied = Hosts::default()
            .behind_proxies(|name| (name == "https_proxy").then(|| "http://proxy:1".to_owned()));
        assert_eq!(check(&proxied, "http://example.org/"), Ok(()));
        for url in ["http://localhost/", "http://x.internal/", "http://127.0.0.1/"] {
            assert!(check(&proxied, url).is_err(), "{url}");
        }
        assert!(!Hosts::default().behind_proxies(|_| Some(String::new())).proxied);
    }
}

//! What must hold of requests to the embedded AWS, and to the public port.

use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, Request, header, request::Parts};
use url::{Host, Url};

use crate::{public::Guard, s3::fuzz as s3, sigv4::Presented};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] =
    &[("s3_key", s3::key), ("s3_policy", s3::policy), ("sigv4", sigv4), ("host", host)];

/// Lines of a request's head: path and query, then headers. Whatever its signature is, nobody can
/// have made it without the secret.
fn sigv4(input: &[u8]) {
    let Some(parts) = head(input) else { return };
    let Ok(presented) = Presented::read(&parts.headers) else { return };
    let now = DateTime::<Utc>::from_timestamp(1_440_938_220, 0).expect("a time");
    assert!(!presented.access_key.contains(','), "{presented:?}");
    for service in ["iam", "s3"] {
        let secret = "a secret that no input has";
        assert!(presented.verify(&parts, b"", service, secret, now).is_err(), "{presented:?}");
    }
}

fn head(input: &[u8]) -> Option<Parts> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut request = Request::builder().uri(lines.next()?);
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// A `Host` header: a server on loopback answers none that a browser would have looked up.
fn host(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let mut headers = http::HeaderMap::new();
    headers.insert(header::HOST, value);
    if !Guard::new("127.0.0.1", None).answers(&headers) {
        return;
    }
    let text = std::str::from_utf8(input).expect("a host that was read");
    // What is no URL's host is none that a browser sends.
    let Ok(url) = Url::parse(&format!("http://{text}/")) else { return };
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    assert!(is_here, "{text:?} is {:?}", url.host());
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}

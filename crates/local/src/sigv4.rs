//! Verifies AWS Signature Version 4 in `Authorization` headers, for every service but S3 (which
//! s3s verifies).
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// How far the time of a request may be from ours (as AWS).
const MAX_SKEW: TimeDelta = TimeDelta::minutes(5);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Why a request's signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// There is no `Authorization` header.
    #[error("the request carries no Authorization header; sign it")]
    Missing,
    /// The header, or what it refers to, cannot be read.
    #[error("the request's signature is incomplete: {0}")]
    Incomplete(&'static str),
    /// Signed for another service.
    #[error("the credential's scope names another service")]
    Scope,
    /// Too old, or from the future.
    #[error("Signature expired: it is too old or from the future; check the clock")]
    Expired,
    /// The signature is not the one that the secret makes.
    #[error("the request's signature does not match; check the secret access key")]
    Mismatch,
}

/// A signature as a request presents it, not verified yet.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Who claims to have signed.
    pub access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Presented<'a> {
    /// Reads the `Authorization` header.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn read(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let value = headers
            .get(header::AUTHORIZATION)
            .ok_or(SignatureError::Missing)?
            .to_str()
            .map_err(|_| SignatureError::Incomplete("the Authorization header is not text"))?;
        let fields = value
            .strip_prefix(ALGORITHM)
            .ok_or(SignatureError::Incomplete("its algorithm is not AWS4-HMAC-SHA256"))?;
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential =
            field("Credential").ok_or(SignatureError::Incomplete("it has no Credential"))?;
        let mut scope = credential.rsplitn(5, '/');
        let mut part = || scope.next().ok_or(SignatureError::Incomplete("its Credential is short"));
        let (end, service, region, date, access_key) =
            (part()?, part()?, part()?, part()?, part()?);
        if end != "aws4_request" {
            return Err(SignatureError::Incomplete("its Credential does not end in aws4_request"));
        }
        Ok(Self {
            access_key,
            date,
            region,
            service,
            signed_headers: field("SignedHeaders")
                .ok_or(SignatureError::Incomplete("it has no SignedHeaders"))?,
            signature: field("Signature")
                .ok_or(SignatureError::Incomplete("it has no Signature"))?,
        })
    }

    /// Verifies the signature of a request to `service` with the secret of
    /// [`Presented::access_key`].
    ///
    /// # Errors
    /// When it is not that of this request, or is too old.
    pub fn verify(
        &self,
        request: &Parts,
        body: &[u8],
        service: &str,
        secret: &str,
        now: DateTime<Utc>,
    ) -> Result<(), SignatureError> {
        if self.service != service {
            return Err(SignatureError::Scope);
        }
        let time = single(&request.headers, "x-amz-date")?;
        let signed_at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ")
            .map_err(|_| SignatureError::Incomplete("X-Amz-Date is not a time"))?
            .and_utc();
        if !time.starts_with(self.date) {
            return Err(SignatureError::Incomplete("its scope and X-Amz-Date are of two days"));
        }
        if (now - signed_at).abs() > MAX_SKEW {
            return Err(SignatureError::Expired);
        }
        let canonical = self.canonical_request(request, body)?;
        let to_sign = format!(
            "{ALGORITHM}\n{time}\n{}/{}/{}/aws4_request\n{}",
            self.date,
            self.region,
            self.service,
            hex::encode(Sha256::digest(canonical)),
        );
        let mut key = mac(format!("AWS4{secret}").as_bytes(), self.date.as_bytes());
        for part in [self.region, self.service, "aws4_request"] {
            key = mac(&key, part.as_bytes());
        }
        let signature = hex::decode(self.signature)
            .map_err(|_| SignatureError::Incomplete("its Signature is not hexadecimal"))?;
        let matches = mac(&key, to_sign.as_bytes()).as_slice().ct_eq(&signature);
        if matches.into() { Ok(()) } else { Err(SignatureError::Mismatch) }
    }

    fn canonical_request(&self, request: &Parts, body: &[u8]) -> Result<String, SignatureError> {
        let names: Vec<_> = self.signed_headers.split(';').collect();
        let must_be_signed = |name: &str| name == "host" || name.starts_with("x-amz-");
        let unsigned = request
            .headers
            .keys()
            .any(|name| must_be_signed(name.as_str()) && !names.contains(&name.as_str()));
        if unsigned || !names.contains(&"host") {
            return Err(SignatureError::Incomplete("it leaves out host or an x-amz- header"));
        }
        let mut canonical = format!(
            "{}\n{}\n{}\n",
            request.method,
            canonical_path(request.uri.path()),
            canonical_query(request.uri.query().unwrap_or_default()),
        );
        for name in &names {
            canonical.push_str(name);
            canonical.push(':');
            for (index, value) in request.headers.get_all(*name).iter().enumerate() {
                if index > 0 {
                    canonical.push(',');
                }
                let value = value
                    .to_str()
                    .map_err(|_| SignatureError::Incomplete("a signed header is not text"))?;
                for (index, word) in value.split_ascii_whitespace().enumerate() {
                    if index > 0 {
                        canonical.push(' ');
                    }
                    canonical.push_str(word);
                }
            }
            canonical.push('\n');
        }
        canonical.push('\n');
        canonical.push_str(self.signed_headers);
        canonical.push('\n');
        canonical.push_str(&hex::encode(Sha256::digest(body)));
        Ok(canonical)
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, SignatureError> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .ok_or(SignatureError::Incomplete("X-Amz-Date is missing"))
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// The path, encoded once more than it came (every service but S3).
fn canonical_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The query's parameters, as they are encoded, in order.
fn canonical_query(query: &str) -> String {
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .collect();
    parameters.sort_unstable();
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// The example of AWS's own documentation of Signature Version 4 (ListUsers of IAM).
    fn example() -> (Parts, DateTime<Utc>) {
        let request =
            Request::get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
                .header("host", "iam.amazonaws.com")
                .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
                .header("x-amz-date", "20150830T123600Z")
                .header(
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855\
                 cfba6789a8edb4c82c400e06b5924a6f2b5d7",
                )
                .body(())
                .expect("a request");
        let now = NaiveDateTime::parse_from_str("20150830T123700Z", "%Y%m%dT%H%M%SZ")
            .expect("a time")
            .and_utc();
        (request.into_parts().0, now)
    }

    fn verify(
        parts: &Parts,
        body: &[u8],
        secret: &str,
        now: DateTime<Utc>,
    ) -> Result<(), SignatureError> {
        Presented::read(&parts.headers)?.verify(parts, body, "iam", secret, now)
    }

    #[test]
    fn the_signature_of_the_documentation_is_accepted() {
        let (parts, now) = example();
        assert_eq!(verify(&parts, b"", SECRET, now), Ok(()));
    }

    #[test]
    fn anything_changed_is_refused() {
        let (parts, now) = example();
        assert_eq!(verify(&parts, b"x", SECRET, now), Err(SignatureError::Mismatch));
        assert_eq!(verify(&parts, b"", "other", now), Err(SignatureError::Mismatch));
        assert_eq!(
            verify(&parts, b"", SECRET, now + TimeDelta::minutes(6)),
            Err(SignatureError::Expired)
        );
        let presented = Presented::read(&parts.headers).expect("a signature");
        assert_eq!(presented.verify(&parts, b"", "ecs", SECRET, now), Err(SignatureError::Scope));
        let mut other = example().0;
        other.headers.insert("host", "elsewhere".parse().expect("a value"));
        assert_eq!(verify(&other, b"", SECRET, now), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_header_of_amazons_must_be_signed() {
        let (mut parts, now) = example();
        parts.headers.insert("x-amz-target", "X.Y".parse().expect("a value"));
        assert!(matches!(verify(&parts, b"", SECRET, now), Err(SignatureError::Incomplete(_))));
    }

    #[test]
    fn a_request_without_or_with_half_a_signature_is_told_so() {
        let (mut parts, now) = example();
        parts
            .headers
            .insert("authorization", "AWS4-HMAC-SHA256 Credential=A/B".parse().expect("a value"));
        assert!(matches!(verify(&parts, b"", SECRET, now), Err(SignatureError::Incomplete(_))));
        parts.headers.remove("authorization");
        assert_eq!(verify(&parts, b"", SECRET, now), Err(SignatureError::Missing));
    }
}

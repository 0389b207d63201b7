//! Flexible checksums: the ones a request announces, in a header or behind the body, are computed
//! while the body comes in, and compared.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::dto::Checksum;
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// A checksum algorithm of S3's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As in `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    pub(super) fn from_name(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                s3_error!(
                    NotImplemented,
                    "The checksum algorithm {name} is not supported. Use CRC32, CRC32C, CRC64NVME, SHA1 or SHA256."
                )
            })
    }

    pub(super) fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Self::Crc32 => hasher.crc32 = Some(s3s::crypto::Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(s3s::crypto::Crc32c::new()),
            Self::Crc64Nvme => hasher.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(s3s::crypto::Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(s3s::crypto::Sha256::new()),
        }
        hasher
    }

    /// The value of a hasher made by [`Algorithm::hasher`], in base64.
    pub(super) fn finish(self, hasher: ChecksumHasher) -> String {
        self.value_of(hasher.finalize()).unwrap_or_default()
    }

    /// This algorithm's value out of a set of them.
    pub(super) fn value_of(self, checksums: Checksum) -> Option<String> {
        match self {
            Self::Crc32 => checksums.checksum_crc32,
            Self::Crc32c => checksums.checksum_crc32c,
            Self::Crc64Nvme => checksums.checksum_crc64nvme,
            Self::Sha1 => checksums.checksum_sha1,
            Self::Sha256 => checksums.checksum_sha256,
        }
    }
}

/// A checksum kept with an object or a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredChecksum {
    pub(super) algorithm: Algorithm,
    /// Base64; of a composite one, with `-` and the count of parts.
    pub(super) value: String,
    /// Whether it is the checksum of the parts' checksums.
    #[serde(default)]
    pub(super) composite: bool,
}

impl StoredChecksum {
    /// As in `x-amz-checksum-type`.
    pub(super) fn kind(&self) -> &'static str {
        if self.composite { "COMPOSITE" } else { "FULL_OBJECT" }
    }

    /// The checksum of the parts' checksums.
    pub(super) fn composite<'a>(
        algorithm: Algorithm,
        parts: impl ExactSizeIterator<Item = &'a str>,
    ) -> Option<Self> {
        let count = parts.len();
        let mut hasher = algorithm.hasher();
        for part in parts {
            hasher.update(&BASE64.decode(part).ok()?);
        }
        Some(Self {
            algorithm,
            value: format!("{}-{count}", algorithm.finish(hasher)),
            composite: true,
        })
    }
}

/// Puts a stored checksum into the fields that every output type repeats.
macro_rules! set_checksum {
    ($output:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                Algorithm::Crc32 => $output.checksum_crc32 = value,
                Algorithm::Crc32c => $output.checksum_crc32c = value,
                Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
                Algorithm::Sha1 => $output.checksum_sha1 = value,
                Algorithm::Sha256 => $output.checksum_sha256 = value,
            }
        }
    };
}
pub(super) use set_checksum;

/// Collects the checksum fields that every input type repeats.
macro_rules! given_checksums {
    ($input:expr) => {{
        let mut given = s3s::dto::Checksum::default();
        given.checksum_crc32.clone_from(&$input.checksum_crc32);
        given.checksum_crc32c.clone_from(&$input.checksum_crc32c);
        given.checksum_crc64nvme.clone_from(&$input.checksum_crc64nvme);
        given.checksum_sha1.clone_from(&$input.checksum_sha1);
        given.checksum_sha256.clone_from(&$input.checksum_sha256);
        given
    }};
}
pub(super) use given_checksums;

/// The checksum that an upload announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) algorithm: Algorithm,
    /// Its value, or `None` when it comes behind the body.
    value: Option<String>,
}

impl Announced {
    /// Reads the headers of an upload.
    pub(super) fn read(headers: &HeaderMap) -> S3Result<Option<Self>> {
        let mut found = Vec::new();
        for (name, value) in headers {
            let Some(algorithm) = name.as_str().strip_prefix("x-amz-checksum-") else {
                continue;
            };
            if matches!(algorithm, "algorithm" | "type" | "mode") {
                continue;
            }
            found.push(Self {
                algorithm: Algorithm::from_name(algorithm)?,
                value: Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            });
        }
        for trailer in headers.get_all("x-amz-trailer") {
            for name in String::from_utf8_lossy(trailer.as_bytes()).split(',') {
                let name = name.trim().to_ascii_lowercase();
                let Some(algorithm) = name.strip_prefix("x-amz-checksum-") else {
                    return Err(s3_error!(
                        InvalidRequest,
                        "x-amz-trailer names {name}, which is not a checksum"
                    ));
                };
                found.push(Self { algorithm: Algorithm::from_name(algorithm)?, value: None });
            }
        }
        if found.len() > 1 {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum types are not allowed."
            ));
        }
        if found.is_empty() && headers.contains_key("x-amz-sdk-checksum-algorithm") {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
            ));
        }
        Ok(found.pop())
    }

    /// Compares what was announced with what was computed over the whole body.
    pub(super) fn verify(
        self,
        computed: Checksum,
        trailers: Option<&TrailingHeaders>,
    ) -> S3Result<StoredChecksum> {
        let algorithm = self.algorithm;
        let expected = match self.value {
            Some(value) => value,
            None => {
                let name = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
                trailers
                    .and_then(|trailers| {
                        trailers.read(|map| {
                            map.get(&name)
                                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                        })
                    })
                    .flatten()
                    .ok_or_else(|| {
                        s3_error!(
                            InvalidRequest,
                            "x-amz-trailer announces {name}, but it did not come behind the body"
                        )
                    })?
            }
        };
        if algorithm.value_of(computed).as_deref() != Some(expected.trim()) {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            ));
        }
        Ok(StoredChecksum { algorithm, value: expected.trim().to_owned(), composite: false })
    }
}

/// Reads a `Content-MD5` header into 16 bytes.
pub(super) fn content_md5(value: &str) -> S3Result<[u8; 16]> {
    BASE64.decode(value.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        s3_error!(InvalidDigest, "The Content-MD5 you specified is not the base64 of 16 bytes.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn every_algorithm_is_compared_with_its_own_value() {
        // Known values of "123456789", from the CRC catalogue and RFC 6234.
        let cases = [
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            ("x-amz-checksum-crc32c", "4waSgw=="),
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
        ];
        for (name, value) in cases {
            let announced = Announced::read(&headers(&[(name, value)]))
                .expect("valid headers")
                .expect("a checksum");
            let compute = |data: &[u8]| {
                let mut hasher = announced.algorithm.hasher();
                hasher.update(data);
                hasher.finalize()
            };
            let right = announced.clone().verify(compute(b"123456789"), None);
            assert_eq!(right.expect("equal").value, value);
            let wrong = announced.clone().verify(compute(b"other"), None);
            assert_eq!(wrong.expect_err("differs").code(), &s3s::S3ErrorCode::BadDigest);
        }
    }

    #[test]
    fn unknown_several_or_missing_checksums_are_refused() {
        let cases: [&[(&str, &str)]; 5] = [
            &[("x-amz-checksum-sha512", "x")],
            &[("x-amz-checksum-sha1", "x"), ("x-amz-checksum-crc32", "x")],
            &[("x-amz-checksum-sha1", "x"), ("x-amz-trailer", "x-amz-checksum-crc32")],
            &[("x-amz-trailer", "x-other")],
            &[("x-amz-sdk-checksum-algorithm", "CRC32")],
        ];
        for case in cases {
            assert!(Announced::read(&headers(case)).is_err(), "{case:?}");
        }
        assert_eq!(Announced::read(&HeaderMap::new()).expect("none"), None);
        let trailing = Announced::read(&headers(&[("x-amz-trailer", "x-amz-checksum-crc32")]))
            .expect("valid")
            .expect("announced");
        assert!(trailing.verify(Checksum::default(), None).is_err());
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_parts_and_counts_them() {
        let part = |data: &[u8]| {
            let mut hasher = Algorithm::Sha256.hasher();
            hasher.update(data);
            Algorithm::Sha256.finish(hasher)
        };
        let parts = [part(b"a"), part(b"b")];
        let composite =
            StoredChecksum::composite(Algorithm::Sha256, parts.iter().map(String::as_str))
                .expect("valid base64");
        assert!(composite.value.ends_with("-2"));
        assert_eq!(composite.kind(), "COMPOSITE");
        let broken = StoredChecksum::composite(Algorithm::Sha256, ["!"].into_iter());
        assert_eq!(broken, None);
    }

    #[test]
    fn content_md5_must_be_sixteen_bytes() {
        assert!(content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").is_ok());
        for wrong in ["", "abc", "AAAA", "d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(content_md5(wrong).is_err(), "{wrong}");
        }
    }
}

//! Where the environment says that AWS is: `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>).

use std::ffi::OsStr;

/// What the environment says of the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Nothing: they are AWS's own.
    Aws,
    /// All of them are one, and that has no TLS.
    Plain,
    /// Anything else.
    Custom,
}

impl Endpoints {
    /// Reads the environment's variables.
    pub fn of<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let bytes = |text: &OsStr| text.as_encoded_bytes().to_owned();
        let mut named = variables
            .into_iter()
            .map(|(name, url)| (bytes(name.as_ref()), bytes(url.as_ref())))
            .filter(|(name, _)| name.starts_with(b"AWS_ENDPOINT_URL"));
        match (named.next(), named.next()) {
            (None, _) => Self::Aws,
            (Some((name, url)), None) if name == b"AWS_ENDPOINT_URL" && is_plain(&url) => {
                Self::Plain
            }
            _ => Self::Custom,
        }
    }
}

/// Whether a URL is without TLS.
pub fn is_plain(url: impl AsRef<[u8]>) -> bool {
    url.as_ref().starts_with(b"http://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_endpoint_for_every_service_is_told_from_all_else() {
        for (variables, expected) in [
            (&[][..], Endpoints::Aws),
            (&[("PATH", "/bin")], Endpoints::Aws),
            (&[("PATH", "/bin"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], Endpoints::Plain),
            (&[("AWS_ENDPOINT_URL", "https://example.org")], Endpoints::Custom),
            (&[("AWS_ENDPOINT_URL", "")], Endpoints::Custom),
            (&[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")], Endpoints::Custom),
            (
                &[("AWS_ENDPOINT_URL", "http://x"), ("AWS_ENDPOINT_URL_S3", "https://y")],
                Endpoints::Custom,
            ),
        ] {
            assert_eq!(Endpoints::of(variables.iter().copied()), expected, "{variables:?}");
        }
    }
}

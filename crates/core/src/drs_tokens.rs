//! What an operator's servers of GA4GH's Data Repository Service want to see: a bearer token each
//! (<https://ga4gh.github.io/data-repository-service-schemas/preview/release/drs-1.2.0/docs/>,
//! "Authorization & Authentication"). They are secrets: nothing here shows one.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;
use url::Url;

/// Bearer tokens by the server that each is for: `drs.example.org`, or with a port that is not
/// HTTPS's.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DrsTokens(BTreeMap<String, String>);

/// Why a text has no tokens, without any of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoDrsTokens {
    /// It is something else.
    #[error(
        "it must be a JSON object of servers and tokens, such as {{\"drs.example.org\": \"TOKEN\"}}"
    )]
    Form,
    /// A server is named by something else.
    #[error(
        "{0:?} is no server: name its host alone, in small letters, and its port if it has one"
    )]
    Server(String),
    /// A token that cannot be sent.
    #[error("the token for {0:?} is empty, or has characters that no token has")]
    Token(String),
}

impl DrsTokens {
    /// Reads a JSON object of servers and tokens.
    ///
    /// # Errors
    /// [`NoDrsTokens`].
    pub fn parse(text: &str) -> Result<Self, NoDrsTokens> {
        // What serde_json says has the value that it met in it.
        let tokens: BTreeMap<String, String> =
            serde_json::from_str(text).map_err(|_| NoDrsTokens::Form)?;
        for (server, token) in &tokens {
            let url = Url::parse(&format!("https://{server}/"));
            if !url.is_ok_and(|url| url.path() == "/" && server_of(&url).as_ref() == Some(server)) {
                return Err(NoDrsTokens::Server(server.clone()));
            }
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(NoDrsTokens::Token(server.clone()));
            }
        }
        Ok(Self(tokens))
    }

    /// The token of the server that a URL is of, whatever its scheme.
    #[must_use]
    pub fn of(&self, url: &Url) -> Option<&str> {
        self.0.get(&server_of(url)?).map(String::as_str)
    }

    /// What [`DrsTokens::parse`] reads. To be handed on, and never shown.
    #[must_use]
    pub fn reveal(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Host, and port if it is not the scheme's own.
fn server_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

impl fmt::Debug for DrsTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_server_and_is_not_shown() {
        let text = r#"{"drs.example.org": "secret-1", "drs.example.org:8443": "secret-2"}"#;
        let tokens = DrsTokens::parse(text).expect("tokens");
        let of = |url: &str| tokens.of(&Url::parse(url).expect("a URL")).map(str::to_owned);
        assert_eq!(of("https://drs.example.org/x").as_deref(), Some("secret-1"));
        assert_eq!(of("https://drs.example.org:443/x").as_deref(), Some("secret-1"));
        assert_eq!(of("https://drs.example.org:8443/x").as_deref(), Some("secret-2"));
        for other in
            ["https://example.org", "https://a.drs.example.org", "https://drs.example.org:1"]
        {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(!format!("{tokens:?}").contains("secret"));
        assert_eq!(DrsTokens::parse(&tokens.reveal()), Ok(tokens));
    }

    #[test]
    fn what_is_no_token_is_refused_without_showing_it() {
        for text in [
            "secret",
            "\"secret\"",
            r#"["secret"]"#,
            r#"{"drs.example.org": {"token": "secret"}}"#,
            r#"{"https://drs.example.org": "secret"}"#,
            r#"{"drs.example.org/x": "secret"}"#,
            r#"{"me@drs.example.org": "secret"}"#,
            r#"{"DRS.example.org": "secret"}"#,
            r#"{"drs.example.org:443": "secret"}"#,
            r#"{"": "secret"}"#,
            r#"{"drs.example.org": ""}"#,
            r#"{"drs.example.org": "secret\nx"}"#,
            r#"{"drs.example.org": "Bearer secret"}"#,
        ] {
            let error = DrsTokens::parse(text).expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

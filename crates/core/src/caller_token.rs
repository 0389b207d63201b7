//! The tokens by which callers of the API say who they are: `<name>.<secret>`.
//!
//! The table keeps a salted digest of the secret, never the secret. One round of SHA-256 is enough
//! for it: a secret is 256 random bits, and nobody's choice, so there is nothing to guess.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// The longest name of a token, and of an owner's group, in bytes.
const MAX_NAME: usize = 63;

/// The longest owner, in bytes: an owner is part of a DynamoDB key.
pub const MAX_OWNER: usize = 1024;

/// The length of a secret as text: 32 bytes in base64url.
const SECRET_LENGTH: usize = 43;

/// What clients send as base64 (RFC 7617 does not say whether it ends in `=`).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is wrong with a token's name, an owner or a group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// A token's name. It is not repeated: it may be a whole token, given by mistake.
    #[error(
        "this cannot name a token: names are 1 to 63 lower-case letters, digits and hyphens, and do not begin with a hyphen"
    )]
    Token,
    /// An owner.
    #[error(
        "{0:?} cannot be an owner: owners are 1 to 1024 bytes of text without control characters"
    )]
    Owner(String),
    /// A group.
    #[error("{0:?} cannot be a group: groups are 1 to 63 visible ASCII characters without a comma")]
    Group(String),
}

/// A token's name, which is no secret: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenName(String);

impl TokenName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-');
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Token) }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can own runs.
///
/// # Errors
/// [`NameError::Owner`] when it is empty, too long for a key, or could not be shown.
pub fn check_owner(owner: &str) -> Result<(), NameError> {
    let good = (1..=MAX_OWNER).contains(&owner.len()) && !owner.contains(char::is_control);
    if good { Ok(()) } else { Err(NameError::Owner(owner.to_owned())) }
}

/// Whether a text can be a group: groups travel in lists with commas between them.
///
/// # Errors
/// [`NameError::Group`] when it cannot.
pub fn check_group(group: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    let good = (1..=MAX_NAME).contains(&group.len()) && group.bytes().all(allowed);
    if good { Ok(()) } else { Err(NameError::Group(group.to_owned())) }
}

/// A token as a caller has it. `Debug` shows its name alone.
#[derive(Clone)]
pub struct CallerToken {
    name: TokenName,
    secret: String,
}

impl CallerToken {
    /// A new token of this name, its secret from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(name: TokenName) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self { name, secret: general_purpose::URL_SAFE_NO_PAD.encode(bytes) })
    }

    /// Which token it says it is.
    #[must_use]
    pub const fn name(&self) -> &TokenName {
        &self.name
    }

    /// The whole token, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.name, self.secret)
    }

    /// Reads `<name>.<secret>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, secret) = text.split_once('.')?;
        Self::of(name, secret)
    }

    /// Reads an `Authorization` header: `Bearer <token>`, or `Basic` with the token's name and, as
    /// the password, its secret or the whole token. `None` for anything else.
    #[must_use]
    pub fn from_authorization(header: &str) -> Option<Self> {
        let (scheme, credentials) = header.trim().split_once(' ')?;
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::parse(credentials);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(BASE64.decode(credentials).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        match Self::parse(password) {
            Some(token) => (token.name.0 == name).then_some(token),
            None => Self::of(name, password),
        }
    }

    fn of(name: &str, secret: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let good = secret.len() == SECRET_LENGTH && secret.bytes().all(allowed);
        Some(Self { name: name.parse().ok()?, secret: secret.to_owned() }).filter(|_| good)
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallerToken({}…)", self.name)
    }
}

/// What is kept of a secret: SHA-256 of a salt and the secret, both with it in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretDigest {
    /// 128 random bits, so that equal secrets have different digests.
    pub salt: String,
    /// The digest.
    pub hash: String,
}

impl SecretDigest {
    /// Digests a token's secret with a new salt.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn of(token: &CallerToken) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let salt = hex::encode(bytes);
        Ok(Self { hash: digest(&salt, token), salt })
    }

    /// What a token of an unknown name is held against: its check takes as long, and never holds.
    #[must_use]
    pub fn nobodys() -> Self {
        Self { salt: "0".repeat(32), hash: "-".repeat(64) }
    }

    /// Whether the digest is of that token's secret, in a time that does not tell how much of it
    /// was right.
    #[must_use]
    pub fn is_of(&self, token: &CallerToken) -> bool {
        digest(&self.salt, token).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }
}

fn digest(salt: &str, token: &CallerToken) -> String {
    let mut digest = Sha256::new();
    digest.update(salt);
    digest.update(&token.secret);
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> CallerToken {
        CallerToken::generate(name.parse().expect("a name")).expect("the system has randomness")
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", general_purpose::STANDARD.encode(text))
    }

    #[test]
    fn a_token_is_256_bits_behind_its_name_and_is_not_printed() {
        let mine = token("ada-laptop");
        let text = mine.reveal();
        let secret = text.strip_prefix("ada-laptop.").expect("the name comes first");
        let bytes = general_purpose::URL_SAFE_NO_PAD.decode(secret).expect("base64url");
        assert_eq!(bytes.len(), 32);
        assert!(!format!("{mine:?}").contains(secret));
        assert_ne!(text, token("ada-laptop").reveal());
    }

    #[test]
    fn names_owners_and_groups_have_their_alphabets() {
        for good in ["a", "0", "a-b-", &"x".repeat(63)] {
            assert!(good.parse::<TokenName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a.b", "a_b", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad}");
        }
        assert!(check_owner("auth0|ä 1").is_ok());
        assert!(check_owner("").is_err() && check_owner("a\nb").is_err());
        assert!(check_owner(&"x".repeat(MAX_OWNER + 1)).is_err());
        assert!(check_group("lab:admins").is_ok());
        for bad in ["", "a,b", "a b", "ä", &"x".repeat(64)] {
            assert!(check_group(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_holds_for_its_secret_alone() {
        let (mine, other) = (token("a"), token("a"));
        let digest = SecretDigest::of(&mine).expect("the system has randomness");
        assert!(digest.is_of(&mine) && !digest.is_of(&other));
        let again = SecretDigest::of(&mine).expect("the system has randomness");
        assert!(again.is_of(&mine) && again.hash != digest.hash, "the salt is another");
        assert!(!SecretDigest::nobodys().is_of(&mine));
        let secret = mine.reveal().split_once('.').expect("a dot").1.to_owned();
        assert!(!digest.hash.contains(&secret) && !digest.salt.contains(&secret));
        assert_eq!(digest.hash.len(), SecretDigest::nobodys().hash.len(), "the same work");
        assert_eq!(digest.salt.len(), SecretDigest::nobodys().salt.len(), "the same work");
    }

    #[test]
    fn a_header_is_read_as_bearer_and_as_basic() {
        let token = token("ada");
        let text = token.reveal();
        let secret = text.strip_prefix("ada.").expect("the name comes first");
        let digest = SecretDigest::of(&token).expect("the system has randomness");
        for header in [
            format!("Bearer {text}"),
            format!("bearer   {text} "),
            basic(&format!("ada:{text}")),
            basic(&format!("ada:{secret}")).replace("Basic", "BASIC"),
            basic(&format!("ada:{secret}")).trim_end_matches('=').to_owned(),
        ] {
            let read = CallerToken::from_authorization(&header).expect(&header);
            assert!(digest.is_of(&read) && read.name() == token.name(), "{header}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        let text = token("ada").reveal();
        let secret = text.strip_prefix("ada.").expect("the name comes first");
        for header in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            text.clone(),
            format!("Bearer {secret}"),
            format!("Bearer {text}x"),
            format!("Bearer {text}, Bearer {text}"),
            format!("Bearer ADA.{secret}"),
            format!("Token {text}"),
            format!("Basic {text}"),
            "Basic !!!".to_owned(),
            basic("ada"),
            basic("ada:"),
            basic(&format!("eve:{text}")),
            basic(&format!(":{secret}")),
            format!("Basic {}", general_purpose::STANDARD.encode(b"ada:\xff")),
        ] {
            assert!(CallerToken::from_authorization(&header).is_none(), "{header}");
        }
    }
}

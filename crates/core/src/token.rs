//! The secret by which an engine task proves which attempt it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// 256 random bits, in hexadecimal; never shown by `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptToken(String);

impl AttemptToken {
    /// A new token from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The token as it was given to the task.
    #[must_use]
    pub const fn from_secret(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the table and the task's environment alone.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl PartialEq for AttemptToken {
    /// In a time that does not tell how much of the token was right.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for AttemptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_256_bits_and_is_not_printed() {
        let token = AttemptToken::generate().expect("the system has randomness");
        assert_eq!(token.secret().len(), 64);
        assert!(!format!("{token:?}").contains(token.secret()));
        assert_ne!(token, AttemptToken::generate().expect("the system has randomness"));
        assert_eq!(token, AttemptToken::from_secret(token.secret().to_owned()));
    }
}

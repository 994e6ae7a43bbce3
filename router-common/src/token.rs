//! Bearer tokens: what a service may show instead of a shared secret or a certificate, over TLS alone (SPEC 4, 8).
//!
//! A gateway keeps none: it knows the ones it takes by their digests. Where tokens come from is not known here.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::identity::KeyId;
use crate::limits;

/// A bearer token: 1 to 4096 bytes of visible ASCII. It never shows itself, but to the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// Why a text is not a bearer token. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token has 1 to {max} bytes, this one has {0}", max = limits::TOKEN_BYTES)]
    Length(usize),
    #[error("a token is made of visible ASCII characters, and has no spaces")]
    Character,
}

impl Token {
    /// # Errors
    /// When it is empty, too long, or has other characters than 0x21 to 0x7e.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, TokenError> {
        let text = text.into();
        if !(1..=limits::TOKEN_BYTES).contains(&text.len()) {
            return Err(TokenError::Length(text.len()));
        }
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text)),
            false => Err(TokenError::Character),
        }
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The tokens that a gateway's listener takes, each under the name of its bearer; several of one name while one is being
/// replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<(KeyId, [u8; 32])>);

impl Tokens {
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is. How long that takes tells nothing of the tokens there are, but their number.
    #[must_use]
    pub fn bearer(&self, token: &Token) -> Option<&KeyId> {
        let shown = token.digest();
        let mut found = u64::MAX;
        for (place, (_, digest)) in (0..).zip(&self.0) {
            found.conditional_assign(&place, digest.ct_eq(&shown));
        }
        self.0.get(usize::try_from(found).ok()?).map(|(name, _)| name)
    }
}

impl FromIterator<(KeyId, Token)> for Tokens {
    fn from_iter<I: IntoIterator<Item = (KeyId, Token)>>(tokens: I) -> Self {
        Self(tokens.into_iter().map(|(name, token)| (name, token.digest())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bounded_text_that_never_shows_itself() {
        assert_eq!(Token::new(""), Err(TokenError::Length(0)));
        assert_eq!(Token::new("a".repeat(4097)), Err(TokenError::Length(4097)));
        for bad in ["a b", "a\n", "é", "\u{7f}"] {
            assert_eq!(Token::new(bad), Err(TokenError::Character));
        }
        let token = Token::new("a.b-c_d~e+f/g=").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_leads_to_its_bearer_alone() {
        let token = |text: &str| Token::new(text).unwrap();
        let (a, b): (KeyId, KeyId) = ("team-a".parse().unwrap(), "team-b".parse().unwrap());
        let tokens: Tokens =
            [(a.clone(), token("new")), (a.clone(), token("old")), (b.clone(), token("b"))].into_iter().collect();
        assert_eq!(tokens.bearer(&token("new")), Some(&a));
        assert_eq!(tokens.bearer(&token("old")), Some(&a));
        assert_eq!(tokens.bearer(&token("b")), Some(&b));
        assert_eq!(tokens.bearer(&token("c")), None);
        assert_eq!(Tokens::default().bearer(&token("b")), None);
        assert!(!format!("{tokens:?}").contains("new"));
    }
}

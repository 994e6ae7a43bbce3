//! The admin token: compared without telling by time where it differs, and never shown.
//!
//! It does not know where it is kept, nor what it opens.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

/// What whoever operates the gateway proves to be by (SPEC 13). `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdminToken(Arc<[u8]>);

impl AdminToken {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Whether `given` is it. Takes the same time wherever the two differ; only the length is not hidden.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let differs = |so_far: u8, (a, b): (&u8, &u8)| black_box(so_far | (a ^ b));
        given.len() == self.0.len() && given.iter().zip(&*self.0).fold(0, differs) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_it() {
        let token = AdminToken::new(b"letmein");
        assert!(token.is(b"letmein"));
        for wrong in [&b""[..], b"letmeim", b"letmei", b"letmeinn", b"LETMEIN"] {
            assert!(!token.is(wrong));
        }
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
    }
}

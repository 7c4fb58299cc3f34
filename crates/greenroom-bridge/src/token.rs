//! The shared secret of a service. The bridge compares it with the token of a `hello` or a header; the HTTP host compares
//! it with the bearer header of every request.

use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;

/// A secret text that is never printed and is compared in constant time. Clones share it, so that a replaced secret holds
/// for all of them.
#[derive(Clone)]
pub struct Token(Arc<RwLock<Arc<str>>>);

impl Token {
    /// Returns a token; none for a blank text, which is not a secret.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Arc::new(RwLock::new(Arc::from(text)))))
    }

    /// Replaces the secret. Returns false if the text is blank or the same: then nothing changes.
    pub fn replace(&self, text: &str) -> bool {
        let text = text.trim();
        if text.is_empty() || self.matches(text) {
            return false;
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::from(text);
        true
    }

    /// Returns true if `given` is the secret. Takes constant time for texts of the same length.
    pub fn matches(&self, given: &str) -> bool {
        self.reveal().as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// Returns true if the value of an `Authorization` header has the secret as a bearer token.
    pub fn matches_header(&self, value: &str) -> bool {
        let mut words = value.trim().splitn(2, ' ');
        let scheme = words.next().unwrap_or_default();
        let given = words.next().unwrap_or_default().trim();
        scheme.eq_ignore_ascii_case("bearer") && self.matches(given)
    }

    /// Returns the secret, for a client that sends it.
    pub fn reveal(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_matches() {
        let token = Token::new(" s3cret\n").unwrap();
        assert!(token.matches("s3cret"));
        assert!(!token.matches("s3cre"));
        assert!(!token.matches(""));
        assert!(token.matches_header("Bearer s3cret"));
        assert!(token.matches_header("bearer  s3cret "));
        assert!(!token.matches_header("Basic s3cret"));
        assert!(!token.matches_header("s3cret"));
    }

    #[test]
    fn replaced_secret_holds_for_all_clones() {
        let token = Token::new("old").unwrap();
        let clone = token.clone();
        assert!(!token.replace("old") && !token.replace(" "));
        assert!(token.replace("new\n"));
        assert!(clone.matches("new") && !clone.matches("old"));
    }

    #[test]
    fn blank_text_is_not_a_secret() {
        assert!(Token::new(" \n").is_none());
    }

    #[test]
    fn secret_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("s3cret").unwrap()), "Token(…)");
    }
}

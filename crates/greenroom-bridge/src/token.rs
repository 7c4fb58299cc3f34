//! The shared secret of a service. The bridge compares it with the token of a `hello` or a header; the HTTP host compares
//! it with the bearer header of every request.

use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A secret text that is never printed and is compared in constant time.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Returns a token; none for a blank text, which is not a secret.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Arc::from(text)))
    }

    /// Returns true if `given` is the secret. Takes constant time for texts of the same length.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// Returns true if the value of an `Authorization` header has the secret as a bearer token.
    pub fn matches_header(&self, value: &str) -> bool {
        let mut words = value.trim().splitn(2, ' ');
        let scheme = words.next().unwrap_or_default();
        let given = words.next().unwrap_or_default().trim();
        scheme.eq_ignore_ascii_case("bearer") && self.matches(given)
    }

    /// Returns the secret, for a client that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
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
    fn blank_text_is_not_a_secret() {
        assert!(Token::new(" \n").is_none());
    }

    #[test]
    fn secret_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("s3cret").unwrap()), "Token(…)");
    }
}

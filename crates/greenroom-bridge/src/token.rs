//! The shared secret of a service. The bridge compares it with what a `hello` or a header brings, the HTTP host with
//! the bearer header of every request.

use std::sync::Arc;

use subtle::ConstantTimeEq;

/// A secret text that is never printed and is compared in constant time.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// None for a blank text: a blank token would be no secret.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Arc::from(text)))
    }

    /// True if `given` is the secret. Takes as long for a near miss as for a far one; only the length shows.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// True if the value of an `Authorization` header brings the secret as a bearer token.
    pub fn matches_header(&self, value: &str) -> bool {
        let mut words = value.trim().splitn(2, ' ');
        let scheme = words.next().unwrap_or_default();
        let given = words.next().unwrap_or_default().trim();
        scheme.eq_ignore_ascii_case("bearer") && self.matches(given)
    }

    /// The secret itself, for a client that has to send it.
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
    fn a_blank_text_is_no_secret() {
        assert!(Token::new(" \n").is_none());
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("s3cret").unwrap()), "Token(…)");
    }
}

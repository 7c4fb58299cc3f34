//! Error texts that list the available models.

use super::lifecycle::End;

/// The number of models that a text lists.
const MAX_LISTED: usize = 20;

/// Returns true for the server's error text about an unknown model.
pub fn is_unknown_model(text: &str) -> bool {
    text.starts_with("Model not found")
}

/// Appends the available models to the error text of an end.
pub fn with_models(mut end: End, models: &[String]) -> End {
    if let Some(text) = &mut end.error
        && !models.is_empty()
    {
        let listed = models[..models.len().min(MAX_LISTED)].join(", ");
        let more = models.len().saturating_sub(MAX_LISTED);
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let sentence = text.trim_end().trim_end_matches('.').to_owned();
        *text = format!("{sentence}. Available models: {listed}{rest}");
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_appended_to_error() {
        let models: Vec<String> = (0..22).map(|n| format!("acme/{n}")).collect();
        let end = with_models(End::error("Model not found: acme/big."), &models);
        let text = end.error.unwrap();
        assert!(
            text.starts_with("Model not found: acme/big. Available models: acme/0, acme/1"),
            "{text}"
        );
        assert!(text.ends_with("acme/19 and 2 more"), "{text}");
    }

    #[test]
    fn no_models_leave_error_unchanged() {
        let end = with_models(End::error("Model not found: acme/big."), &[]);
        assert_eq!(end.error.as_deref(), Some("Model not found: acme/big."));
    }
}

//! Errors that say what exists instead of what does not.

use super::lifecycle::End;

/// How many names a text lists.
const LISTED: usize = 20;

/// True for the server's text about a model it does not know.
pub fn is_unknown_model(text: &str) -> bool {
    text.starts_with("Model not found")
}

/// The same end, its text followed by the models there are.
pub fn with_models(mut end: End, models: &[String]) -> End {
    if let (Some(text), false) = (&mut end.error, models.is_empty()) {
        let shown = models[..models.len().min(LISTED)].join(", ");
        let more = models.len().saturating_sub(LISTED);
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let sentence = text.trim_end().trim_end_matches('.').to_owned();
        *text = format!("{sentence}. Available models: {shown}{rest}");
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_there_are_follow_the_text() {
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
    fn nothing_is_added_where_nothing_is_known() {
        let end = with_models(End::error("Model not found: acme/big."), &[]);
        assert_eq!(end.error.as_deref(), Some("Model not found: acme/big."));
    }
}

//! The fields of log events. Each value is printed on one line without control characters: values come from clients, bridges
//! and agent servers too, which must not write lines of their own.

use std::fmt::{self, Debug};

use greenroom::domain::foreign_text::one_line;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Maximum length of one value, in bytes.
const MAX_VALUE_BYTES: usize = 8 << 10;

/// Returns the format of the fields: the message, then `name=value` for each field.
pub(super) fn one_line_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field, value: &dyn Debug| {
        let value = shown(value);
        match field.name() {
            "message" => write!(writer, "{value}"),
            name if writer.has_ansi_escapes() => write!(writer, "\u{1b}[3m{name}\u{1b}[0m={value}"),
            name => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

/// A text that ends at its maximum length.
#[derive(Default)]
struct BoundedText(String);

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = MAX_VALUE_BYTES.saturating_sub(self.0.len());
        let end = text.floor_char_boundary(free.min(text.len()));
        self.0.push_str(&text[..end]);
        if end < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// Returns a value on one line, truncated at its maximum length.
fn shown(value: &dyn Debug) -> String {
    let mut text = BoundedText::default();
    let is_cut = fmt::write(&mut text, format_args!("{value:?}")).is_err();
    let mut line = one_line(&text.0).into_owned();
    if is_cut {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_on_one_line_and_bounded() {
        let forged = format_args!("/a\u{1b}[2J\n2026 INFO forged").to_string();
        assert_eq!(shown(&format_args!("{forged}")), "/a [2J 2026 INFO forged");
        assert_eq!(shown(&"a\nb"), r#""a\nb""#);
        let long = shown(&format_args!("{}", "ü".repeat(MAX_VALUE_BYTES)));
        assert!(long.len() <= MAX_VALUE_BYTES + 3 && long.ends_with('…'));
    }
}

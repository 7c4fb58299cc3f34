//! Foreign text: text that Greenroom did not write, such as errors of children, descriptions, and names from clients. One
//! place decides how such text is printed in messages to parents, toasts, terminals and logs.

use std::borrow::Cow;

/// Replaces `<` where it would begin a tag.
const QUOTED_LESS: char = '\u{2039}';
/// Replaces `>` where it would end the wrapper of a message.
const QUOTED_GREATER: char = '\u{203a}';
/// The name of the wrapper that marks a message as machine-written, without its hyphen.
const WRAPPER: &str = "systemreminder";

/// Returns the text on one line: runs of blanks, line breaks and control characters become one blank, invisible
/// characters are removed, and tags are no tags any more.
///
/// ```
/// use greenroom::domain::foreign_text::one_line;
/// assert_eq!(one_line("a\u{1b}[2J\nb\u{200b}c"), "a [2J bc");
/// assert_eq!(one_line("done </ System-Reminder >"), "done \u{2039}/ System-Reminder \u{203a}");
/// assert_eq!(one_line("1 < 2 -> true"), "1 < 2 -> true");
/// ```
pub fn one_line(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = true;
        } else if !is_invisible(c) {
            if gap && !line.is_empty() {
                line.push(' ');
            }
            gap = false;
            line.push(c);
        }
    }
    Cow::Owned(defuse(&line))
}

/// Returns the text without control and invisible characters; line ends and tabs stay, and so do tags.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| !is_unsafe(c) || matches!(c, '\n' | '\t');
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| is_kept(*c)).collect())
}

/// Returns a JSON document in which each control or invisible character is an escape sequence. Its value is unchanged.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    let is_kept = |c: char| !is_unsafe(c) || matches!(c, '\n' | '\t');
    if json.chars().all(is_kept) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_kept(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(escaped)
}

/// Returns true if no character of the text is visible.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_unsafe(c))
}

/// Returns true for characters that a reader does not see, or that change the display of other characters.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns true for format characters (Unicode's category Cf), variation selectors and fillers without a glyph.
fn is_invisible(c: char) -> bool {
    // Most text is ASCII.
    if c < '\u{ad}' {
        return false;
    }
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Fast path: most texts are short and plain.
fn is_plain(text: &str) -> bool {
    let mut before = b' ';
    let is_simple = text.bytes().all(|byte| {
        let doubled = byte == b' ' && before == b' ';
        before = byte;
        matches!(byte, b' '..=b'~') && !matches!(byte, b'<' | b'>') && !doubled
    });
    if is_simple {
        return text.is_empty() || before != b' ';
    }
    let mut before = ' ';
    let is_plain = text.chars().all(|c| {
        let doubled = c == ' ' && before == ' ';
        before = c;
        !doubled && (c == ' ' || (!c.is_whitespace() && !is_unsafe(c))) && !is_angle(c)
    });
    is_plain && (text.is_empty() || before != ' ')
}

/// Returns true for angle brackets, also for the full-width and small forms that Unicode normalises to them.
fn is_angle(c: char) -> bool {
    is_less(c) || is_greater(c)
}

fn is_less(c: char) -> bool {
    matches!(c, '<' | '\u{ff1c}' | '\u{fe64}')
}

fn is_greater(c: char) -> bool {
    matches!(c, '>' | '\u{ff1e}' | '\u{fe65}')
}

/// Replaces angle brackets that would begin a tag, and each `>` behind the wrapper's name.
fn defuse(line: &str) -> String {
    let mut defused = String::with_capacity(line.len());
    let mut name = WrapperName::default();
    for (at, c) in line.char_indices() {
        let after = &line[at + c.len_utf8()..];
        defused.push(if is_less(c) && begins_tag(after) {
            QUOTED_LESS
        } else if is_greater(c) && name.was_seen {
            QUOTED_GREATER
        } else {
            c
        });
        name.read(c);
    }
    defused
}

/// Finds the wrapper's name in any case and spacing.
#[derive(Default)]
struct WrapperName {
    /// The last letters, as many as the name has.
    letters: String,
    was_seen: bool,
}

impl WrapperName {
    fn read(&mut self, c: char) {
        if !c.is_alphanumeric() {
            return;
        }
        for letter in c.to_lowercase().map(narrow) {
            if self.letters.chars().count() == WRAPPER.len() {
                self.letters.remove(0);
            }
            self.letters.push(letter);
        }
        self.was_seen |= self.letters == WRAPPER;
    }
}

/// Returns true unless a comparison or an arrow follows.
fn begins_tag(after: &str) -> bool {
    match after.chars().find(|c| !c.is_whitespace()) {
        Some(c) => !(c.is_ascii_digit() || c == '='),
        // The next character is Greenroom's.
        None => true,
    }
}

/// Returns the ASCII form of a full-width character.
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Unsafe characters, pieces of tags, and plain text.
    fn piece() -> impl Strategy<Value = String> {
        let fixed = [
            "<",
            "</",
            "< /",
            ">",
            " >",
            "\u{ff1c}",
            "\u{ff1e}",
            "system",
            "SYSTEM",
            "-",
            "\u{2011}",
            "reminder",
            "Reminder",
            "system-reminder",
            "</system-reminder>",
            "< / System-Reminder >",
            "<system-reminder foo=\"1\">",
            "\n",
            "\r\n",
            "\t",
            "\u{b}",
            "\u{85}",
            "\u{2028}",
            "\u{0}",
            "\u{1b}[31m",
            "\u{7f}",
            "\u{9b}",
            "\u{200b}",
            "\u{200d}",
            "\u{202e}",
            "\u{2066}",
            "\u{feff}",
            "\u{e0041}",
            "\u{ad}",
            "1 < 2",
            "=>",
            " ",
            "  ",
            "ü",
            "日本",
        ];
        prop_oneof![
            proptest::sample::select(fixed.to_vec()).prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ]
    }

    fn foreign() -> impl Strategy<Value = String> {
        proptest::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
    }

    /// Returns the text as a lenient reader of tags sees it.
    fn normalised(text: &str) -> String {
        let visible = text
            .chars()
            .filter(|c| !c.is_whitespace() && !is_unsafe(*c));
        visible.flat_map(char::to_lowercase).map(narrow).collect()
    }

    proptest! {
        #[test]
        fn line_holds_no_control_character_and_no_tag(text in foreign()) {
            let line = one_line(&text);
            prop_assert!(!line.chars().any(is_unsafe), "{line:?}");
            prop_assert!(!line.contains(['\n', '\r', '\t']), "{line:?}");
            prop_assert!(!line.chars().any(|c| c != ' ' && c.is_whitespace()), "{line:?}");
            let normal = normalised(&line);
            for tag in ["<system-reminder", "</system-reminder", "system-reminder>", "<systemreminder"] {
                prop_assert!(!normal.contains(tag), "{line:?} holds {tag}");
            }
            prop_assert_eq!(one_line(&line), line.as_ref(), "a second call changes nothing");
        }

        #[test]
        fn escaped_json_has_the_same_value(text in foreign()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escaped_json(&json);
            prop_assert!(!escaped.chars().any(is_unsafe), "{escaped:?}");
            let read: String = serde_json::from_str(&escaped).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn visible_lines_keep_line_ends_only(text in foreign()) {
            let visible = visible_lines(&text);
            prop_assert!(!visible.chars().any(|c| is_unsafe(c) && c != '\n' && c != '\t'), "{visible:?}");
        }
    }

    #[test]
    fn tags_are_defused_in_any_case_and_spacing() {
        for tag in [
            "</system-reminder>",
            "</ System-Reminder >",
            "<\tSYSTEM-REMINDER\n>",
            "</sys\u{200b}tem-reminder>",
            "\u{ff1c}/system-reminder\u{ff1e}",
            "</system_reminder a=\"b\">",
        ] {
            let line = one_line(tag);
            assert!(!line.chars().any(is_angle), "{tag:?} became {line:?}");
        }
    }

    #[test]
    fn ordinary_text_is_unchanged() {
        for text in [
            "",
            "boom",
            "a < 5 and b <= c -> d",
            "naïve 日本語 🦀",
            "C:\\x \"y\"",
        ] {
            assert_eq!(one_line(text), text);
        }
        assert_eq!(one_line("  two\n\nlines "), "two lines");
    }

    #[test]
    fn invisible_text_is_blank() {
        for text in ["", " \n", "\u{200b}", "\u{3164}\u{2800}", "\u{0}"] {
            assert!(is_blank(text), "{text:?}");
        }
        assert!(!is_blank("\u{200b}a"));
    }
}

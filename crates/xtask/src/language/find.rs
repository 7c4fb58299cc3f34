//! Finds the words of the table in a passage.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::source::{Category, Passage};
use super::words::{FROZEN, ORDINARY, QUOTED, RULES, Reason, Rule};

/// A counted word in a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its line, from the first of the file, which is 1.
    pub line: usize,
    /// The word or phrase as it is written; for a name, the whole identifier.
    pub word: String,
    /// Why it is counted.
    pub reason: Reason,
}

/// Returns the counted words of a passage of a crate.
pub fn find(crate_name: &str, passage: &Passage) -> Vec<Found> {
    if passage.category == Category::Names {
        if is_frozen(None, &passage.text) {
            return Vec::new();
        }
        return in_identifier(crate_name, &passage.text, passage.line);
    }
    let is_text = passage.category == Category::Texts;
    if is_text && QUOTED.contains(&passage.text.trim_matches('"')) {
        return Vec::new();
    }
    let text = if is_text {
        Cow::Borrowed(passage.text.as_str())
    } else {
        Cow::Owned(without_quotations(&passage.text))
    };
    let words = words(&text, passage.line);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        if word.is_code && is_frozen(Some(crate_name), word.text) {
            at += 1;
            continue;
        } else if word.is_code {
            found.extend(in_identifier(crate_name, word.text, word.line));
        } else if let Some(length) = longest(&PATTERNS.ordinary, &words[at..]) {
            at += length;
            continue;
        } else if !(is_text && is_frozen(Some(crate_name), &word.lower))
            && let Some((reason, length)) = in_prose(crate_name, &words[at..])
        {
            let written: Vec<&str> = words[at..at + length]
                .iter()
                .map(|word| word.text)
                .collect();
            found.push(Found {
                line: word.line,
                word: written.join(" "),
                reason,
            });
            at += length;
            continue;
        }
        at += 1;
    }
    found
}

/// Returns whether programs read the word: in any crate, or also in one.
fn is_frozen(crate_name: Option<&str>, word: &str) -> bool {
    FROZEN.iter().any(|(crates, words)| {
        let applies = crates.is_empty() || crate_name.is_some_and(|name| crates.contains(&name));
        applies && words.contains(&word)
    })
}

/// Removes quotations in backquotes; each is on one line.
fn without_quotations(text: &str) -> String {
    QUOTED.iter().fold(text.to_owned(), |text, quoted| {
        text.replace(&format!("`{quoted}`"), "")
    })
}

struct Word<'a> {
    text: &'a str,
    lower: String,
    line: usize,
    /// In backquotes, in a fenced block, or written as an identifier.
    is_code: bool,
    /// Only space is between it and the next word.
    is_joined: bool,
}

fn words(text: &str, first_line: usize) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut in_fence = false;
    for (index, line) in text.split('\n').enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            if let Some(last) = words.last_mut() {
                last.is_joined = false;
            }
            continue;
        }
        let mut in_backquotes = false;
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            let length = word_length(rest);
            if length == 0 {
                in_backquotes ^= next == '`';
                if !next.is_whitespace()
                    && let Some(last) = words.last_mut()
                {
                    last.is_joined = false;
                }
                rest = &rest[next.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(length);
            words.push(Word {
                text: word,
                lower: word.to_lowercase(),
                line: first_line + index,
                is_code: in_fence || in_backquotes || is_written_as_identifier(word),
                is_joined: true,
            });
            rest = after;
        }
        if line.trim().is_empty()
            && let Some(last) = words.last_mut()
        {
            last.is_joined = false;
        }
    }
    if let Some(last) = words.last_mut() {
        last.is_joined = false;
    }
    words
}

/// Returns the length of the word at the beginning: letters, digits, underscores, and apostrophes between letters.
fn word_length(text: &str) -> usize {
    let mut length = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, next)) = chars.next() {
        let is_inside = at > 0 && chars.peek().is_some_and(|(_, after)| after.is_alphabetic());
        if next.is_alphanumeric() || next == '_' || (next == '\'' && is_inside) {
            length = at + next.len_utf8();
        } else {
            break;
        }
    }
    length
}

fn is_written_as_identifier(word: &str) -> bool {
    let has_inner_capital = word
        .chars()
        .zip(word.chars().skip(1))
        .any(|(left, right)| left.is_lowercase() && right.is_uppercase());
    has_inner_capital || (word.contains('_') && word.chars().any(char::is_alphabetic))
}

/// One place of a pattern: any of these words; any word at all if empty.
type Choice = Vec<&'static str>;

struct ProsePattern {
    words: Vec<Choice>,
    is_last: bool,
}

enum NamePattern {
    Segments(Vec<Choice>),
    Whole(&'static str),
    TypePrefix(String),
}

struct RulePatterns {
    rule: &'static Rule,
    prose: Vec<ProsePattern>,
    names: Vec<NamePattern>,
}

struct Patterns {
    ordinary: Vec<ProsePattern>,
    rules: Vec<RulePatterns>,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| Patterns {
    ordinary: ORDINARY.iter().map(|text| prose_pattern(text)).collect(),
    rules: RULES
        .iter()
        .map(|rule| RulePatterns {
            rule,
            prose: rule.prose.iter().map(|text| prose_pattern(text)).collect(),
            names: rule.names.iter().map(|text| name_pattern(text)).collect(),
        })
        .collect(),
});

fn choice(text: &'static str) -> Choice {
    if text == "_" {
        Vec::new()
    } else {
        text.split('|').collect()
    }
}

fn prose_pattern(text: &'static str) -> ProsePattern {
    let words = text.strip_suffix(" .");
    ProsePattern {
        words: words.unwrap_or(text).split(' ').map(choice).collect(),
        is_last: words.is_some(),
    }
}

fn name_pattern(text: &'static str) -> NamePattern {
    if let Some(whole) = text.strip_prefix('=') {
        NamePattern::Whole(whole)
    } else if let Some(prefix) = text.strip_suffix('*') {
        NamePattern::TypePrefix(prefix.to_lowercase())
    } else {
        NamePattern::Segments(text.split(' ').map(choice).collect())
    }
}

fn is_any_of(word: &str, choice: &Choice) -> bool {
    choice.is_empty() || choice.contains(&word)
}

fn matches(pattern: &ProsePattern, words: &[Word<'_>]) -> bool {
    let length = pattern.words.len();
    let Some(words) = words.get(..length) else {
        return false;
    };
    let (last, others) = match words.split_last() {
        Some(parts) => parts,
        None => return false,
    };
    others.iter().all(|word| word.is_joined)
        && !(pattern.is_last && last.is_joined)
        && words
            .iter()
            .zip(&pattern.words)
            .all(|(word, choice)| !word.is_code && is_any_of(&word.lower, choice))
}

fn longest(patterns: &[ProsePattern], words: &[Word<'_>]) -> Option<usize> {
    patterns
        .iter()
        .filter(|pattern| matches(pattern, words))
        .map(|pattern| pattern.words.len())
        .max()
}

fn of_crate(crate_name: &str) -> impl Iterator<Item = &'static RulePatterns> {
    PATTERNS.rules.iter().filter(move |patterns| {
        let crates = patterns.rule.crates;
        crates.is_empty() || crates.contains(&crate_name)
    })
}

fn in_prose(crate_name: &str, words: &[Word<'_>]) -> Option<(Reason, usize)> {
    of_crate(crate_name).find_map(|patterns| {
        let length = longest(&patterns.prose, words)?;
        Some((patterns.rule.reason, length))
    })
}

fn in_identifier(crate_name: &str, identifier: &str, line: usize) -> Vec<Found> {
    let segments = segments(identifier);
    let mut found = Vec::new();
    for patterns in of_crate(crate_name) {
        for pattern in &patterns.names {
            let count = match pattern {
                NamePattern::Whole(whole) => usize::from(identifier == *whole),
                NamePattern::TypePrefix(prefix) => usize::from(
                    identifier.starts_with(char::is_uppercase)
                        && identifier.contains(char::is_lowercase)
                        && segments.len() > 1
                        && segments.first() == Some(prefix),
                ),
                NamePattern::Segments(choices) => segments
                    .windows(choices.len())
                    .filter(|window| {
                        window
                            .iter()
                            .zip(choices)
                            .all(|(segment, choice)| is_any_of(segment, choice))
                    })
                    .count(),
            };
            for _ in 0..count {
                found.push(Found {
                    line,
                    word: identifier.to_owned(),
                    reason: patterns.rule.reason,
                });
            }
        }
    }
    // A type of one segment may match as a whole and as a segment; it is one old name.
    found.dedup_by(|later, earlier| segments.len() == 1 && later.reason == earlier.reason);
    found
}

/// Splits an identifier at underscores and at the capitals of camel case, in lower case.
pub fn segments(identifier: &str) -> Vec<String> {
    let chars: Vec<char> = identifier.chars().collect();
    let mut segments = vec![String::new()];
    for (at, &next) in chars.iter().enumerate() {
        let after_lower = at > 0 && (chars[at - 1].is_lowercase() || chars[at - 1].is_numeric());
        let before_lower = chars.get(at + 1).is_some_and(|after| after.is_lowercase());
        let after_upper = at > 0 && chars[at - 1].is_uppercase();
        let begins = next.is_uppercase() && (after_lower || (after_upper && before_lower));
        if next == '_' || begins {
            segments.push(String::new());
        }
        if next != '_'
            && let Some(last) = segments.last_mut()
        {
            last.extend(next.to_lowercase());
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

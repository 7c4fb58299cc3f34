//! Cuts a Rust source into what people read: documentation, other comments, string literals, identifiers.

use ra_ap_rustc_lexer::{FrontmatterAllowed, LiteralKind, TokenKind, strip_shebang, tokenize};

/// Where in a source words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// `//!` and `///`.
    Docs,
    /// String literals.
    Texts,
    /// Comments that are not documentation.
    Comments,
    /// Identifiers.
    Names,
}

impl Category {
    /// All of them, in the order of the committed table.
    pub const ALL: [Self; 4] = [Self::Docs, Self::Texts, Self::Comments, Self::Names];

    /// Returns the name that the committed table uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docs => "docs",
            Self::Texts => "texts",
            Self::Comments => "comments",
            Self::Names => "names",
        }
    }
}

/// Text of one category. Line comments that follow one another are one passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Which category.
    pub category: Category,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// The text: comment markers and escapes are spaces, line ends are kept.
    pub text: String,
}

/// Returns the passages of a source in their order.
pub fn passages(source: &str) -> Vec<Passage> {
    let mut found: Vec<Passage> = Vec::new();
    let mut at = strip_shebang(source).unwrap_or(0);
    let mut line = 1 + line_ends(&source[..at]);
    // The last two tokens that are neither space nor comment, to recognise `alias = "…"`.
    let mut before = [""; 2];
    // Whether the passage found last is line comments that may go on.
    let mut open = false;
    for token in tokenize(&source[at..], FrontmatterAllowed::No) {
        let end = at + token.len as usize;
        let text = &source[at..end];
        at = end;
        let mut goes_on = false;
        match token.kind {
            TokenKind::Whitespace => goes_on = open && line_ends(text) < 2,
            TokenKind::LineComment { doc_style } => {
                let category = comment(doc_style.is_some());
                let plain = without_marker(text);
                match found.last_mut() {
                    Some(last) if open && last.category == category => {
                        let lines = line - last.line - line_ends(&last.text);
                        last.text.push_str(&"\n".repeat(lines));
                        last.text.push_str(&plain);
                    }
                    _ => found.push(Passage {
                        category,
                        line,
                        text: plain,
                    }),
                }
                goes_on = true;
            }
            TokenKind::BlockComment { doc_style, .. } => found.push(Passage {
                category: comment(doc_style.is_some()),
                line,
                text: block(text),
            }),
            TokenKind::Ident | TokenKind::RawIdent => found.push(Passage {
                category: Category::Names,
                line,
                text: text.trim_start_matches("r#").to_owned(),
            }),
            TokenKind::Literal { kind, .. } if !is_other_name(before) => {
                if let Some(text) = literal(kind, text) {
                    found.push(Passage {
                        category: Category::Texts,
                        line,
                        text,
                    });
                }
            }
            _ => {}
        }
        if !matches!(
            token.kind,
            TokenKind::Whitespace | TokenKind::LineComment { .. } | TokenKind::BlockComment { .. }
        ) {
            before = [before[1], text];
        }
        open = goes_on;
        line += line_ends(text);
    }
    found
}

fn comment(is_doc: bool) -> Category {
    if is_doc {
        Category::Docs
    } else {
        Category::Comments
    }
}

/// Returns whether the literal after these tokens is a name for serde: programs read it.
fn is_other_name(before: [&str; 2]) -> bool {
    matches!(before, ["alias" | "rename", "="])
}

fn line_ends(text: &str) -> usize {
    text.matches('\n').count()
}

fn without_marker(text: &str) -> String {
    text.trim_start_matches('/')
        .trim_start_matches('!')
        .to_owned()
}

fn block(text: &str) -> String {
    let inner = text.strip_prefix("/*").unwrap_or(text);
    let inner = inner.strip_suffix("*/").unwrap_or(inner);
    let lines: Vec<&str> = inner
        .split('\n')
        .map(|line| line.trim_start().trim_start_matches(['*', '!']))
        .collect();
    lines.join("\n")
}

/// Returns the text of a string literal; none for numbers and characters.
fn literal(kind: LiteralKind, text: &str) -> Option<String> {
    match kind {
        LiteralKind::Str { .. } | LiteralKind::ByteStr { .. } | LiteralKind::CStr { .. } => {
            Some(without_escapes(text))
        }
        LiteralKind::RawStr { .. }
        | LiteralKind::RawByteStr { .. }
        | LiteralKind::RawCStr { .. } => Some(text.trim_start_matches(['b', 'c', 'r']).to_owned()),
        _ => None,
    }
}

fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.trim_start_matches(['b', 'c']).chars();
    while let Some(next) = chars.next() {
        if next != '\\' {
            plain.push(next);
            continue;
        }
        match chars.next() {
            Some('\n') => plain.push('\n'),
            _ => plain.push(' '),
        }
    }
    plain
}

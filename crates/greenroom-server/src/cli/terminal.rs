//! Terminal output: colours, one progress line, and text without control characters.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use greenroom::domain::foreign_text;
use greenroom::domain::task::TaskStatus;

use super::doctor::Verdict;
use unicode_width::UnicodeWidthChar;

use crate::logging::write_stderr;

/// Writes to stdout. Exits without an error if the reader has closed the pipe (`| head`).
pub fn print_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Writes one line, or several, to stderr without control characters.
pub(super) fn print_err(line: &str) {
    write_stderr(&format!("{}\n", foreign_text::visible_lines(line)));
}

/// Returns true if colours are enabled.
fn wants_colour(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The colours of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colours.
    pub const PLAIN: Self = Self { colour: false };

    /// Returns the style of stdout.
    pub fn for_stdout() -> Self {
        Self {
            colour: wants_colour(std::io::stdout().is_terminal()),
        }
    }

    /// Returns the style of stderr.
    pub fn for_stderr() -> Self {
        Self {
            colour: wants_colour(std::io::stderr().is_terminal()),
        }
    }

    /// Returns a state in its colour: green completed, red failed, yellow cancelled, cyan running, grey pending.
    pub fn status(self, status: TaskStatus) -> String {
        self.paint(status, status.as_str())
    }

    /// Returns a text in the colour of a verdict.
    pub fn verdict(self, verdict: Verdict, text: &str) -> String {
        self.paint(
            match verdict {
                Verdict::Ok => TaskStatus::Completed,
                Verdict::Warn => TaskStatus::Cancelled,
                Verdict::Fail => TaskStatus::Error,
            },
            text,
        )
    }

    /// Returns a text in the colour of a state.
    pub fn paint(self, status: TaskStatus, text: &str) -> String {
        let code = match status {
            TaskStatus::Completed => 32,
            TaskStatus::Error | TaskStatus::Interrupt => 31,
            TaskStatus::Cancelled => 33,
            TaskStatus::Running => 36,
            TaskStatus::Pending => 90,
        };
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Returns foreign text on one line.
pub fn one_line(text: &str) -> String {
    foreign_text::one_line(text).into_owned()
}

/// Returns a text without control characters except line ends and tabs, if it is for a terminal. Other output is
/// unchanged.
pub fn printable(text: &str, is_terminal: bool) -> Cow<'_, str> {
    if is_terminal {
        foreign_text::visible_lines(text)
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns the text truncated to a number of columns, with `…` at the cut.
pub fn truncate(text: &str, display_width: usize) -> String {
    let width = |c: char| c.width().unwrap_or(0);
    if text.chars().map(width).sum::<usize>() <= display_width {
        return text.to_owned();
    }
    let mut used = 0;
    let mut fitted: String = text
        .chars()
        .take_while(|c| {
            used += width(*c);
            used < display_width
        })
        .collect();
    fitted.push('…');
    fitted
}

/// Returns the number of columns of a text.
pub fn display_width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Returns the width of the terminal of stdout; none without a terminal.
pub fn stdout_columns() -> Option<usize> {
    std::io::stdout()
        .is_terminal()
        .then(|| match terminal_size::terminal_size() {
            Some((terminal_size::Width(width), _)) => usize::from(width),
            None => 80,
        })
}

/// True while a progress line is drawn. Read by the panic hook.
static LINE_IS_DRAWN: AtomicBool = AtomicBool::new(false);

/// Installs a panic hook that clears the progress line before the panic message.
pub fn clear_line_on_panic() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if LINE_IS_DRAWN.swap(false, Ordering::Relaxed) {
            let _ = write!(std::io::stderr(), "\r\u{1b}[2K");
        }
        default_hook(panic);
    }));
}

/// A line on stderr that is redrawn in place; hidden without a terminal. It changes no terminal mode, so there is
/// nothing to restore on exit.
#[derive(Debug)]
pub struct ProgressLine {
    is_terminal: bool,
    /// The drawn text, and the terminal's width at that time.
    drawn: Option<(String, usize)>,
}

impl ProgressLine {
    /// Creates a line that is not drawn.
    pub fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// Returns true if stderr is a terminal.
    pub fn is_visible(&self) -> bool {
        self.is_terminal
    }

    /// Draws `text` in place of the previous text.
    pub fn draw(&mut self, text: &str) {
        if !self.is_terminal {
            return;
        }
        let width = stderr_columns();
        // The terminal echoes `^C` behind the text, which must not wrap.
        let text = truncate(text, width.saturating_sub(3));
        if self.drawn.as_ref() == Some(&(text.clone(), width)) {
            return;
        }
        let _ = write!(std::io::stderr(), "{}{text}", self.erase_sequence(width));
        self.drawn = Some((text, width));
        LINE_IS_DRAWN.store(true, Ordering::Relaxed);
    }

    /// Erases the line.
    pub fn clear(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(
                std::io::stderr(),
                "{}",
                self.erase_sequence(stderr_columns())
            );
            self.drawn = None;
            LINE_IS_DRAWN.store(false, Ordering::Relaxed);
        }
    }

    /// Returns the escape sequence that erases the line. A terminal that became narrower has wrapped it.
    fn erase_sequence(&self, width: usize) -> String {
        let rows = match &self.drawn {
            Some((text, before)) if width < *before && width > 0 => {
                display_width(text).div_ceil(width)
            }
            _ => 1,
        };
        let up = "\u{1b}[1A".repeat(rows.saturating_sub(1));
        format!("\r{up}\u{1b}[J")
    }
}

/// Returns the width of the terminal of stderr; none without a terminal.
pub fn stderr_width() -> Option<usize> {
    std::io::stderr().is_terminal().then(stderr_columns)
}

fn stderr_columns() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_removed() {
        assert_eq!(one_line("a\u{1b}[2Jb\n\tc\u{7}"), "a [2Jb c");
        assert_eq!(printable("a\u{1b}[31mb\nc\td", true), "a[31mb\nc\td");
        assert_eq!(
            printable("a\u{1b}[31mb", false),
            "a\u{1b}[31mb",
            "data stays as it is"
        );
    }

    #[test]
    fn text_is_truncated_by_columns() {
        assert_eq!(truncate("hello", 5), "hello");
        assert_eq!(truncate("hello!", 5), "hell…");
        assert_eq!(truncate("日本語", 6), "日本語");
        assert_eq!(display_width(&truncate("日本語", 5)), 5);
        assert_eq!(truncate("x", 0), "…");
    }
}

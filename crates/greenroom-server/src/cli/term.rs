//! What a terminal can show: colours that each mean one thing, one live line, and text that is safe to print whatever
//! an agent wrote into it.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use greenroom::domain::task::TaskStatus;
use unicode_width::UnicodeWidthChar;

/// Writes data to stdout. A reader that has gone (`| head`) ends the command without a word, as it should.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// True if colours are wanted there.
fn wants_colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether and how to colour one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colour at all.
    pub const PLAIN: Self = Self { colour: false };

    /// That of stdout.
    pub fn of_stdout() -> Self {
        Self {
            colour: wants_colour(std::io::stdout().is_terminal()),
        }
    }

    /// That of stderr.
    pub fn of_stderr() -> Self {
        Self {
            colour: wants_colour(std::io::stderr().is_terminal()),
        }
    }

    /// A state in its colour: green did it, red failed, yellow was stopped, cyan works, grey waits.
    pub fn status(self, status: TaskStatus) -> String {
        self.paint(status, status.as_str())
    }

    /// A text in the colour of a state.
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

/// A text on one line without anything a terminal would act on.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// A text of several lines for a terminal: control characters but line ends and tabs are left out. Elsewhere it is
/// data, and stays as it is.
pub fn printable(text: &str, terminal: bool) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if !terminal || text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| harmless(*c)).collect())
}

/// The text cut to so many columns, with `…` where something is missing.
pub fn fit(text: &str, columns: usize) -> String {
    let width = |c: char| c.width().unwrap_or(0);
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut used = 0;
    let mut fitted: String = text
        .chars()
        .take_while(|c| {
            used += width(*c);
            used < columns
        })
        .collect();
    fitted.push('…');
    fitted
}

/// How many columns a text takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The columns of the terminal behind stdout, if there is one.
pub fn stdout_columns() -> Option<usize> {
    std::io::stdout()
        .is_terminal()
        .then(|| match terminal_size::terminal_size() {
            Some((terminal_size::Width(width), _)) => usize::from(width),
            None => 80,
        })
}

/// One line on stderr that is drawn over and over; nothing at all if stderr is no terminal.
#[derive(Debug)]
pub struct LiveLine {
    terminal: bool,
    drawn: bool,
}

impl LiveLine {
    /// A line that is not drawn yet.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            drawn: false,
        }
    }

    /// True if it can be seen.
    pub fn is_visible(&self) -> bool {
        self.terminal
    }

    /// Draws `text` in place of what was there.
    pub fn draw(&mut self, text: &str) {
        if self.terminal {
            let width = terminal_size::terminal_size_of(std::io::stderr())
                .map_or(80, |(width, _)| usize::from(width.0));
            let _ = write!(
                std::io::stderr(),
                "\r\u{1b}[2K{}",
                fit(text, width.saturating_sub(1))
            );
            self.drawn = true;
        }
    }

    /// Takes it away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\u{1b}[2K");
        }
    }
}

impl Default for LiveLine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_wrote_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\n\tc\u{7}"), "a [2Jb c");
        assert_eq!(printable("a\u{1b}[31mb\nc\td", true), "a[31mb\nc\td");
        assert_eq!(
            printable("a\u{1b}[31mb", false),
            "a\u{1b}[31mb",
            "data stays as it is"
        );
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!(fit("hello", 5), "hello");
        assert_eq!(fit("hello!", 5), "hell…");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(columns(&fit("日本語", 5)), 5);
        assert_eq!(fit("x", 0), "…");
    }
}

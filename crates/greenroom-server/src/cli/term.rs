//! What a terminal can show: colours that each mean one thing, one live line, and text that is safe to print whatever
//! an agent wrote into it.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use greenroom::domain::task::TaskStatus;

use super::doctor::Verdict;
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

    /// A text in the colour of what is in order, odd (yellow) or in the way (red).
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
        .split(|c: char| c.is_whitespace() || drives(c))
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// True for what a terminal acts on instead of showing it: control characters, and those that turn the direction of
/// what follows, so that it reads as something else.
fn drives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of several lines for a terminal: control characters but line ends and tabs are left out. Elsewhere it is
/// data, and stays as it is.
pub fn printable(text: &str, terminal: bool) -> Cow<'_, str> {
    let harmless = |c: char| !drives(c) || matches!(c, '\n' | '\t');
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

/// Whether a live line stands on the terminal, for whoever must write there without knowing it.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Makes room for the words of a panic: they come before anything is unwound.
pub fn make_room_for_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if DRAWN.swap(false, Ordering::Relaxed) {
            let _ = write!(std::io::stderr(), "\r\u{1b}[2K");
        }
        usual(panic);
    }));
}

/// One line on stderr that is drawn over and over; nothing at all if stderr is no terminal. The cursor is never hidden
/// and no mode is changed, so that there is nothing to put back, however the command ends.
#[derive(Debug)]
pub struct LiveLine {
    terminal: bool,
    /// What stands there, and how wide the terminal was then.
    drawn: Option<(String, usize)>,
}

impl LiveLine {
    /// A line that is not drawn yet.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// True if it can be seen.
    pub fn is_visible(&self) -> bool {
        self.terminal
    }

    /// Draws `text` in place of what was there.
    pub fn draw(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        let width = stderr_columns();
        // The terminal writes `^C` behind it when that is pressed, which must not begin another row.
        let text = fit(text, width.saturating_sub(3));
        if self.drawn.as_ref() == Some(&(text.clone(), width)) {
            return;
        }
        let _ = write!(std::io::stderr(), "{}{text}", self.erasure(width));
        self.drawn = Some((text, width));
        DRAWN.store(true, Ordering::Relaxed);
    }

    /// Takes it away.
    pub fn clear(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "{}", self.erasure(stderr_columns()));
            self.drawn = None;
            DRAWN.store(false, Ordering::Relaxed);
        }
    }

    /// What erases what stands there. A terminal that became narrower has broken the line into several.
    fn erasure(&self, width: usize) -> String {
        let rows = match &self.drawn {
            Some((text, before)) if width < *before && width > 0 => columns(text).div_ceil(width),
            _ => 1,
        };
        let up = "\u{1b}[1A".repeat(rows.saturating_sub(1));
        format!("\r{up}\u{1b}[J")
    }
}

/// The columns of the terminal behind stderr, if there is one.
pub fn stderr_width() -> Option<usize> {
    std::io::stderr().is_terminal().then(stderr_columns)
}

fn stderr_columns() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
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

//! Sets up the log on stderr: one line per state change at level info. On a terminal the default level is warn, because
//! the command prints its own lines there. All output of a running service to stderr goes through one [`LogWriter`].

mod fields;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

pub use writer::LogWriter;

/// Time limit for the last lines of a process that ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The writer of a running service. Unset in other commands, which write to stderr themselves.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Writes a text to stderr. Never blocks in a running service; ignores errors.
pub fn write_stderr(text: &str) {
    match WRITER.get() {
        Some(writer) => writer.push(text.as_bytes()),
        // Nothing to do if stderr is closed.
        None => drop(std::io::stderr().write_all(text.as_bytes())),
    }
}

/// Writes the queued lines, in bounded time. Called before the process ends.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_LIMIT);
    }
}

/// Returns the number of lines that were dropped because stderr was not read.
pub fn dropped_lines() -> u64 {
    WRITER.get().map_or(0, LogWriter::dropped)
}

/// Starts the log. The filter comes from `GREENROOM_LOG`, else `RUST_LOG`, for example `info` or `greenroom=debug`. An
/// invalid filter is ignored with a warning.
pub fn init() {
    let configured = ["GREENROOM_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        Some((
            name,
            std::env::var(name)
                .ok()
                .filter(|filter| !filter.is_empty())?,
        ))
    });
    // The HTTP library reports each malformed request as an error of its own.
    let default = if std::io::stderr().is_terminal() {
        "warn,actix_http=off"
    } else {
        "info,actix_server=warn,actix_http=off,rmcp=warn"
    };
    let (filter, problem) = match configured {
        None => (EnvFilter::new(default), None),
        Some((name, text)) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (
                EnvFilter::new(default),
                Some(format!(
                    "{name}={text:?} is not a valid log filter: {error}"
                )),
            ),
        },
    };
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .fmt_fields(fields::one_line_fields());
    // A second call, in tests, has no effect.
    let _ = match start_writer() {
        Some(writer) => subscriber.with_writer(move || writer.clone()).try_init(),
        None => subscriber.with_writer(std::io::stderr).try_init(),
    };
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
}

/// Starts the writer and redirects the messages of panics to it. None if no thread can be started.
fn start_writer() -> Option<LogWriter> {
    if WRITER.get().is_none() {
        let writer = LogWriter::start(std::io::stderr()).ok()?;
        // Only the first of two concurrent calls, in tests, sets the writer.
        if WRITER.set(writer).is_ok() {
            std::panic::set_hook(Box::new(|panic| write_stderr(&panic_text(panic))));
        }
    }
    WRITER.get().cloned()
}

/// Returns the message of a panic in the format of the standard library.
fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    let mut text = format!("thread '{name}' {panic}\n");
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("{backtrace}\n"));
    }
    text
}

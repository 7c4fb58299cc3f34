//! The log: to stderr, one line per change of state at info. On a terminal only warnings unless asked for more, since
//! people read the command's own lines there.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts the log. `GREENROOM_LOG`, else `RUST_LOG`, says what is written, for instance `info` or `greenroom=debug`.
/// A filter that cannot be read is ignored with a line that says so.
pub fn init() {
    let wanted = ["GREENROOM_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        Some((
            name,
            std::env::var(name)
                .ok()
                .filter(|filter| !filter.is_empty())?,
        ))
    });
    let usual = if std::io::stderr().is_terminal() {
        "warn"
    } else {
        "info,actix_server=warn,rmcp=warn"
    };
    let (filter, problem) = match wanted {
        None => (EnvFilter::new(usual), None),
        Some((name, text)) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (
                EnvFilter::new(usual),
                Some(format!("{name}={text:?} is no log filter: {error}")),
            ),
        },
    };
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .try_init();
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
}

//! Sets up the log on stderr: one line per state change at level info. On a terminal the default level is warn, because
//! the command prints its own lines there.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    let default = if std::io::stderr().is_terminal() {
        "warn"
    } else {
        "info,actix_server=warn,rmcp=warn"
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
    // A second call, in tests, has no effect.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .try_init();
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
}

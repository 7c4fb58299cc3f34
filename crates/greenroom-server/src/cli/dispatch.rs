//! Runs the command: one actix system for all commands, and one place that turns a failure into an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command};
use super::failure::Failure;
use super::signals::survive_file_size_limit;
use super::terminal::{one_line, print_err, truncate};
use super::{
    asks, configure, doctor, journal, limits, manage, mcp, plugin, run, serve, token, up, why,
};
use crate::logging;

/// Maximum length of a usage error, in bytes. A longer one repeats too much of the command line.
const MAX_USAGE_ERROR_BYTES: usize = 2000;
/// Maximum width of the lines of a longer one.
const MAX_LINE_COLUMNS: usize = 300;

/// Runs the command line.
pub fn main() -> ExitCode {
    super::terminal::clear_line_on_panic();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => exit_with_usage_error(&error),
    };
    let code = match actix_rt::System::new().block_on(dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::write_stderr(&failure.text());
            ExitCode::from(failure.code)
        }
    };
    logging::flush();
    code
}

/// Prints a usage error, or the requested `--help`, and exits with the matching code. Long and unprintable arguments
/// are truncated.
fn exit_with_usage_error(error: &clap::Error) -> ! {
    let text = error.to_string();
    let is_safe = |c: char| !c.is_control() || c == '\n';
    if !error.use_stderr() || (text.len() <= MAX_USAGE_ERROR_BYTES && text.chars().all(is_safe)) {
        error.exit();
    }
    let lines: Vec<String> = text
        .lines()
        .map(|line| truncate(&one_line(line), MAX_LINE_COLUMNS))
        .collect();
    print_err(&lines.join("\n"));
    std::process::exit(error.exit_code());
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    if let Err(error) = survive_file_size_limit() {
        tracing::warn!(%error, "SIGXFSZ cannot be handled; a full file ends the process");
    }
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Run(args) => run::run(args).await,
        Command::List(args) => manage::list(args).await,
        Command::Show(args) => manage::show(args).await,
        Command::Why(args) => why::why(args).await,
        Command::Output(args) => manage::output(args).await,
        Command::Cancel(args) => manage::cancel(args).await,
        Command::Resume(args) => run::resume(args).await,
        Command::Send(args) => manage::send(args).await,
        Command::Limits(args) => limits::limits(args).await,
        Command::Asks(args) => asks::asks(args).await,
        Command::Answer(args) => asks::answer(args).await,
        Command::Mcp(args) => mcp::mcp(args).await,
        Command::Token(args) => token::token(&args),
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Journal(args) => journal::journal(args),
        Command::Plugin(args) => plugin::plugin(args),
        Command::Config(args) => configure::config(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "greenroom", &mut script);
            super::terminal::print_out(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

//! Carries the command line out: one actix system for everything, one place where a failure becomes an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command};
use super::failure::Failure;
use super::serve::say;
use super::term::{fit, one_line};
use super::{asks, configure, doctor, journal, limits, manage, mcp, plugin, run, serve, up, why};

/// A refusal longer than this, in bytes, repeats more of the command line than anybody reads.
const LONGEST_REFUSAL: usize = 2000;
/// Columns of its lines then.
const LONGEST_LINE: usize = 300;

/// The whole command.
pub fn main() -> ExitCode {
    super::term::make_room_for_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => refuse(&error),
    };
    match actix_rt::System::new().block_on(dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write;
            // With stderr closed the exit code still says it.
            let _ = std::io::stderr().write_all(failure.text().as_bytes());
            ExitCode::from(failure.code)
        }
    }
}

/// Says what is wrong with the words, or what was asked for (`--help`), and ends with the fitting exit code. A word that
/// would flood or drive the terminal is not repeated as it is.
fn refuse(error: &clap::Error) -> ! {
    let text = error.to_string();
    let harmless = |c: char| !c.is_control() || c == '\n';
    if !error.use_stderr() || (text.len() <= LONGEST_REFUSAL && text.chars().all(harmless)) {
        error.exit();
    }
    let lines: Vec<String> = text
        .lines()
        .map(|line| fit(&one_line(line), LONGEST_LINE))
        .collect();
    say(&lines.join("\n"));
    std::process::exit(error.exit_code());
}

async fn dispatch(command: Command) -> Result<(), Failure> {
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
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Journal(args) => journal::journal(args),
        Command::Plugin(args) => plugin::plugin(args),
        Command::Config(args) => configure::config(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "greenroom", &mut script);
            super::term::out(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

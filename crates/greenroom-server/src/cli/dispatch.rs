//! Carries the command line out: one actix system for everything, one place where a failure becomes an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command};
use super::failure::Failure;
use super::{manage, run, serve, up};

/// The whole command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
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

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Run(args) => run::run(args).await,
        Command::List(args) => manage::list(args).await,
        Command::Show(args) => manage::show(args).await,
        Command::Output(args) => manage::output(args).await,
        Command::Cancel(args) => manage::cancel(args).await,
        Command::Resume(args) => run::resume(args).await,
        Command::Send(args) => manage::send(args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "greenroom", &mut script);
            super::term::out(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

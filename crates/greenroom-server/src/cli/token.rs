//! `greenroom token`: prints the secret of the user's service, or replaces it.

use super::args::{TokenArgs, TokenCommand};
use super::failure::{Failure, USAGE};
use super::terminal::{print_err, print_out};
use crate::config::Environment;
use crate::config::token::{TokenError, create, rotate};

/// Runs the command.
pub fn token(args: &TokenArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let path = environment.token_file();
    let path = path.ok_or_else(|| failure(&TokenError::NoHome))?;
    match args.command {
        None => {
            let token = create(&path).map_err(|error| failure(&error))?;
            print_out(&format!("{}\n", token.reveal()));
        }
        Some(TokenCommand::Path) => print_out(&format!("{}\n", path.display())),
        Some(TokenCommand::Rotate) => {
            let path = rotate(&environment).map_err(|error| failure(&error))?;
            print_err(&format!(
                "{} holds a new token; a running service uses it within two seconds",
                path.display()
            ));
        }
    }
    Ok(())
}

fn failure(error: &TokenError) -> Failure {
    Failure::new(USAGE, format!("token: {error}"), error.hint())
}

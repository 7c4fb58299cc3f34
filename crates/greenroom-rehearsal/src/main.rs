//! Runs the scripted model provider as a separate process: `greenroom-rehearsal --listen 127.0.0.1:7718`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use greenroom_rehearsal::Rehearsal;

/// A model provider that plays the script in the prompt, over the OpenAI protocol.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7718")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = Rehearsal::start(args.listen)
        .map_err(|error| error.to_string())
        .and_then(|rehearsal| {
            eprintln!("listening on {}", rehearsal.base_url());
            rehearsal.wait().map_err(|error| error.to_string())
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("greenroom-rehearsal: {problem}");
            ExitCode::from(3)
        }
    }
}

//! The grammar of the command line. The texts here are what `--help` shows.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Sources;

/// Runs background tasks for AI agents on opencode, and wakes whoever asked when they are done.
#[derive(Debug, Parser)]
#[command(
    name = "greenroom",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(after_help = "Start with `greenroom up`.\n\
    Exit codes: 0 done, 1 the task or operation failed, 2 usage or configuration,\n\
    3 the service or the agent server cannot be reached.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start opencode and the service on it, and say where they are
    Up(UpArgs),
    /// Run the service on an opencode that runs already
    Serve(ServeArgs),
    /// Launch a task, watch it, print its result
    Run(RunArgs),
    /// List tasks, newest first
    List(ListArgs),
    /// Show a task
    Show(OneArgs),
    /// Print the result of a task, or what it has written so far
    Output(OutputArgs),
    /// Cancel tasks
    Cancel(CancelArgs),
    /// Go on with an ended task in its session
    Resume(ResumeArgs),
    /// Give a running task a further instruction
    Send(SendArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What `serve` and `up` have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArgs {
    /// Address and port of the service; port 0 takes a free one [default: 127.0.0.1:7717]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where tasks work if neither the launch nor its parent says [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// Where tasks are kept over a restart; "" keeps nothing
    #[arg(long, value_name = "FILE")]
    pub journal: Option<String>,
    /// A file with the secret that callers must bring
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// Read this file instead of ~/.config/greenroom/config.toml and ./greenroom.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any key of the configuration, for instance limits.default=3; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ServiceArgs {
    /// As the loader of the configuration wants it.
    pub fn sources(&self) -> Sources {
        let flags = [
            ("listen", &self.listen, "--listen"),
            ("opencode.directory", &self.directory, "--directory"),
            ("journal", &self.journal, "--journal"),
            ("token_file", &self.token_file, "--token-file"),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(key, value, flag)| Some((key, value.clone()?, flag)))
            .collect();
        Sources {
            file: self.config.clone(),
            flags,
            set: self.set.clone(),
        }
    }
}

/// `up`
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Use a built-in scripted model and an opencode of its own: no key, no cost, your setup stays untouched
    #[arg(long)]
    pub rehearsal: bool,
    /// The opencode to start [default: the one on PATH, else the pinned version is installed]
    #[arg(long, value_name = "FILE")]
    pub opencode_bin: Option<PathBuf>,
    /// What `serve` has too.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where opencode listens [default: http://127.0.0.1:4096]
    #[arg(long, value_name = "URL")]
    pub opencode: Option<String>,
    /// What `up` has too.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// How to reach the service.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Where the service listens [default: as configured, else http://127.0.0.1:7717]
    #[arg(
        long,
        value_name = "URL",
        env = "GREENROOM_URL",
        hide_env_values = true
    )]
    pub url: Option<String>,
    /// A file with the service's secret; the variable GREENROOM_TOKEN may hold it instead
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What the agent is told
    pub prompt: String,
    /// Who does it
    #[arg(long, default_value = "general")]
    pub agent: String,
    /// With which model, as PROVIDER/MODEL [default: the agent's own]
    #[arg(long, value_name = "P/M")]
    pub model: Option<String>,
    /// The variant of the model, for instance a reasoning effort
    #[arg(long, requires = "model")]
    pub variant: Option<String>,
    /// The session that is told of the end
    #[arg(long, value_name = "SES")]
    pub parent: Option<String>,
    /// A few words for people [default: the beginning of the prompt]
    #[arg(long)]
    pub description: Option<String>,
    /// Where the task works [default: its parent's folder, else the service's]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Print the task's id and leave
    #[arg(long)]
    pub detach: bool,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only these states, with commas between them: pending, running, completed, error, cancelled, interrupt
    #[arg(long)]
    pub status: Option<String>,
    /// Only tasks of this session
    #[arg(long, value_name = "SES")]
    pub parent: Option<String>,
    /// Only tasks of this agent
    #[arg(long)]
    pub agent: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A command about one task.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// A task id, a beginning of one, or a session id
    pub id: String,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `output`
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A task id, a beginning of one, or a session id
    pub id: String,
    /// Print what it writes, as it comes, until its end
    #[arg(long)]
    pub follow: bool,
    /// Print the whole session, not only the last answer
    #[arg(long)]
    pub full: bool,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `cancel`
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["ids", "parent", "all"])]
pub struct CancelArgs {
    /// Task ids, beginnings of them, or session ids
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All tasks below this session
    #[arg(long, value_name = "SES")]
    pub parent: Option<String>,
    /// All tasks
    #[arg(long)]
    pub all: bool,
    /// Why; told to the parent
    #[arg(long)]
    pub reason: Option<String>,
    /// The tasks below them too
    #[arg(long, requires = "ids")]
    pub descendants: bool,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// A task id, a beginning of one, or a session id
    pub id: String,
    /// What the agent is told
    pub prompt: String,
    /// The session that is told of the end [default: as before]
    #[arg(long, value_name = "SES")]
    pub parent: Option<String>,
    /// Print the task's id and leave
    #[arg(long)]
    pub detach: bool,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `send`
#[derive(Debug, Args)]
pub struct SendArgs {
    /// A task id, a beginning of one, or a session id
    pub id: String,
    /// What the agent is told
    pub prompt: String,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

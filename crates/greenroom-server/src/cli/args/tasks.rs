//! The arguments of the commands about tasks.

use std::path::PathBuf;

use clap::Args;

use super::parsers;
use super::service::ClientArgs;

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The prompt for the agent
    #[arg(value_parser = parsers::prompt)]
    pub prompt: String,
    /// Who does it
    #[arg(long, default_value = "general", value_parser = parsers::line)]
    pub agent: String,
    /// With which model, as PROVIDER/MODEL [default: the agent's own]
    #[arg(long, value_name = "P/M", value_parser = parsers::model)]
    pub model: Option<(String, String)>,
    /// The variant of the model, for instance a reasoning effort
    #[arg(long, requires = "model", value_parser = parsers::line)]
    pub variant: Option<String>,
    /// The session to notify of the end
    #[arg(long, value_name = "SES", value_parser = parsers::line)]
    pub parent: Option<String>,
    /// A few words for people [default: the beginning of the prompt]
    #[arg(long, value_parser = parsers::line)]
    pub description: Option<String>,
    /// Where the task works [default: its parent's folder, else the service's]
    #[arg(long, value_name = "DIR", value_parser = parsers::path)]
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
    #[arg(long, value_parser = parsers::statuses)]
    pub status: Option<String>,
    /// Only tasks of this session
    #[arg(long, value_name = "SES", value_parser = parsers::line)]
    pub parent: Option<String>,
    /// Only tasks of this agent
    #[arg(long, value_parser = parsers::line)]
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
pub struct TaskArgs {
    /// A task id, a beginning of one, or a session id
    #[arg(value_parser = parsers::line)]
    pub id: String,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `output`
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// A task id, a beginning of one, or a session id
    #[arg(value_parser = parsers::line)]
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
    #[arg(value_name = "ID", value_parser = parsers::line)]
    pub ids: Vec<String>,
    /// All tasks below this session
    #[arg(long, value_name = "SES", value_parser = parsers::line)]
    pub parent: Option<String>,
    /// All tasks
    #[arg(long)]
    pub all: bool,
    /// The reason; sent to the parent
    #[arg(long, value_parser = parsers::line)]
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
    #[arg(value_parser = parsers::line)]
    pub id: String,
    /// The prompt for the agent
    #[arg(value_parser = parsers::prompt)]
    pub prompt: String,
    /// The session to notify of the end [default: as before]
    #[arg(long, value_name = "SES", value_parser = parsers::line)]
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
    #[arg(value_parser = parsers::line)]
    pub id: String,
    /// The prompt for the agent
    #[arg(value_parser = parsers::prompt)]
    pub prompt: String,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

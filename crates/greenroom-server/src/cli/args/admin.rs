//! The arguments of the commands about the service: limits, asks, plugin, journal, configuration and doctor.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::parsers::{self, LimitValue};
use super::service::{ClientArgs, ServiceArgs};
use crate::config::{FlagValue, Sources};

/// `limits`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LimitsArgs {
    /// What to do; showing, without it.
    #[command(subcommand)]
    pub command: Option<LimitsCommand>,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The subcommands of `limits`.
#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// Show the slots by key
    Show(ClientArgs),
    /// Change a limit at once; it holds until the service ends
    Set(LimitArgs),
}

/// `limits set`
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// `default` (each key without a rule), `max` (all keys together), a PROVIDER or agent, or a PROVIDER/MODEL
    #[arg(value_parser = parsers::line)]
    pub key: String,
    /// Tasks at once; 0 is unlimited, `unset` goes back to what holds without it
    #[arg(value_name = "N", value_parser = parsers::limit_value)]
    pub limit: LimitValue,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `asks`
#[derive(Debug, Args)]
pub struct AsksArgs {
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `answer`
#[derive(Debug, Args)]
#[group(id = "reply", required = true, multiple = false, args = ["answer", "say"])]
pub struct AnswerArgs {
    /// The request, or a beginning of its id that fits no other
    #[arg(value_parser = parsers::line)]
    pub ask: String,
    /// Allow it this time, allow it from now on, or reject it
    #[arg(value_enum)]
    pub answer: Option<Answer>,
    /// The answer to a question; once for each of its questions, in their order
    #[arg(long, value_name = "TEXT", value_parser = parsers::line)]
    pub say: Vec<String>,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The answers in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    /// This time.
    Once,
    /// From now on.
    Always,
    /// Not at all.
    Reject,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The opencode to check [default: the opencode that `up` would start]
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub opencode_bin: Option<PathBuf>,
    /// Check this file instead of ~/.config/greenroom/config.toml and ./greenroom.toml
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub config: Option<PathBuf>,
    /// The service.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `plugin`
#[derive(Debug, Args)]
pub struct PluginArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// The subcommands of `plugin`.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Put it in place, or bring the one there up to date
    Install(PluginTargetArgs),
    /// Take it away
    Uninstall(PluginTargetArgs),
}

/// Where the plugin is.
#[derive(Debug, Args)]
pub struct PluginTargetArgs {
    /// In opencode's own configuration, for all projects; this is the default
    #[arg(long, conflicts_with = "project")]
    pub global: bool,
    /// In the project in this folder
    #[arg(long, value_name = "DIR", value_parser = parsers::path)]
    pub project: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `journal`
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: JournalCommand,
}

/// The subcommands of `journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Print what the file holds; works beside a service
    Stats {
        /// Which.
        #[command(flatten)]
        file: JournalFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Shrink the file to the size of its content
    Vacuum {
        /// Which.
        #[command(flatten)]
        file: JournalFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write every task with its story, a line of JSON each; works beside a service
    Export {
        /// A file that is not there yet [default: stdout]
        #[arg(value_name = "FILE", value_parser = parsers::path)]
        to: Option<PathBuf>,
        /// Which.
        #[command(flatten)]
        file: JournalFile,
    },
    /// Remove tasks that are over, and all that belongs to them
    Purge(PurgeArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub struct JournalFile {
    /// The file [default: the configured one]
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub journal: Option<PathBuf>,
    /// Read this file instead of ~/.config/greenroom/config.toml and ./greenroom.toml
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub config: Option<PathBuf>,
}

/// `journal purge`
#[derive(Debug, Args)]
#[group(id = "over", required = true, multiple = false, args = ["older_than", "all_ended"])]
pub struct PurgeArgs {
    /// Those that left the service's memory that long ago, for instance 7d
    #[arg(long, value_name = "AGE", value_parser = parsers::duration)]
    pub older_than: Option<Duration>,
    /// All that have ended, except where a parent waits for a task
    #[arg(long)]
    pub all_ended: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Which.
    #[command(flatten)]
    pub file: JournalFile,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say every problem there is, with its place
    Check(LayersArgs),
    /// Print what holds and where each value comes from, as a configuration file
    Show(LayersArgs),
    /// Print the JSON schema of the configuration file
    Schema,
    /// Accept the project's file as it is now, with keys that it may not set otherwise
    Trust(TrustArgs),
    /// Print the `background_task` block of an oh-my-opencode.json(c) as a configuration file
    Import(ImportArgs),
}

/// The layers of a configuration.
#[derive(Debug, Args)]
pub struct LayersArgs {
    /// Where opencode listens [default: http://127.0.0.1:4096]
    #[arg(long, value_name = "URL", value_parser = parsers::optional_line)]
    pub opencode: Option<String>,
    /// The flags of a service.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl LayersArgs {
    /// Returns the arguments as configuration sources.
    pub fn sources(&self) -> Sources {
        let mut sources = self.service.sources();
        if let Some(url) = &self.opencode {
            sources.flags.push(FlagValue {
                key: "opencode.url",
                value: url.clone(),
                flag: "--opencode",
            });
        }
        sources
    }
}

/// `config import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    #[arg(value_parser = parsers::path)]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `config trust`
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// The file [default: ./greenroom.toml]
    #[arg(value_name = "FILE", value_parser = parsers::path)]
    pub file: Option<PathBuf>,
    /// Withdraw the acceptance
    #[arg(long)]
    pub revoke: bool,
}

/// `token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do instead of printing the token.
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
}

/// The commands below `token`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum TokenCommand {
    /// Print where the token is kept
    Path,
    /// Replace the token; a running service uses the new one at once
    Rotate,
}

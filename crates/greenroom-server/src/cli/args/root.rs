//! The command and its subcommands.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::{
    AnswerArgs, AsksArgs, CancelArgs, ClientArgs, ConfigArgs, DoctorArgs, JournalArgs, LimitsArgs,
    ListArgs, OutputArgs, PluginArgs, ResumeArgs, RunArgs, SendArgs, ServeArgs, TaskArgs,
    TokenArgs, UpArgs,
};

/// Runs background tasks for AI agents on opencode, and wakes the agents when tasks are done.
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

/// The commands.
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
    Show(TaskArgs),
    /// Say what a task waits for or why it ended, with what happened to it
    Why(TaskArgs),
    /// Print the result of a task, or what it has written so far
    Output(OutputArgs),
    /// Cancel tasks
    Cancel(CancelArgs),
    /// Go on with an ended task in its session
    Resume(ResumeArgs),
    /// Give a running task a further instruction
    Send(SendArgs),
    /// Show the slots by key, or change a limit at once
    Limits(LimitsArgs),
    /// List what children ask for
    Asks(AsksArgs),
    /// Answer what a child asks for
    Answer(AnswerArgs),
    /// Give agents of any host their tools: MCP on stdin and stdout
    Mcp(ClientArgs),
    /// Print the token that callers of the service need, or replace it
    Token(TokenArgs),
    /// Find problems, and print how to solve them
    Doctor(DoctorArgs),
    /// Put opencode's plugin in place, so that its agents have the tools, or take it away
    Plugin(PluginArgs),
    /// Look after the file in which tasks are kept
    Journal(JournalArgs),
    /// Check, show, describe or import the configuration
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

//! The grammar of the command line: [`service`], [`tasks`] and [`admin`] by subject, [`parsers`] for single values.
//! `--help` shows the doc comments of the arguments.

pub mod admin;
pub mod parsers;
mod root;
pub mod service;
pub mod tasks;

pub use admin::{
    AnswerArgs, AsksArgs, ConfigArgs, ConfigCommand, DoctorArgs, JournalArgs, LimitsArgs,
    LimitsCommand, PluginArgs, PluginCommand, PluginTargetArgs, TokenArgs, TokenCommand,
};
pub use root::{Cli, Command};
pub use service::{ClientArgs, ServeArgs, ServiceArgs, UpArgs};
pub use tasks::{CancelArgs, ListArgs, OutputArgs, ResumeArgs, RunArgs, SendArgs, TaskArgs};

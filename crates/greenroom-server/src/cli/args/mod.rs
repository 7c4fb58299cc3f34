//! The grammar of the command line, by what the commands are about: [`service`], [`tasks`], [`upkeep`]; [`words`] says
//! what a single word may be. The texts here are what `--help` shows.

mod root;
pub mod service;
pub mod tasks;
pub mod upkeep;
pub mod words;

pub use root::{Cli, Command};
pub use service::{ClientArgs, ServeArgs, ServiceArgs, UpArgs};
pub use tasks::{CancelArgs, ListArgs, OneArgs, OutputArgs, ResumeArgs, RunArgs, SendArgs};
pub use upkeep::{
    AnswerArgs, AsksArgs, ConfigArgs, ConfigCommand, DoctorArgs, JournalArgs, LimitsArgs,
    LimitsCommand, PlaceArgs, PluginArgs, PluginCommand,
};

//! The `greenroom` command: [`args`] is the grammar, [`dispatch`] runs the subcommands. [`serve`] and [`up`] start a
//! service; the other commands call one through [`client`] and print with [`show`], [`watch`] and [`terminal`].

pub mod args;
pub mod asks;
pub mod checks;
pub mod client;
pub mod configure;
pub mod dispatch;
pub mod doctor;
pub mod failure;
pub mod follow;
mod idle_shutdown;
pub mod journal;
pub mod limits;
pub mod manage;
pub mod mcp;
mod open_files;
pub mod plugin;
pub mod rehearsal_folder;
pub mod retry;
pub mod run;
pub mod serve;
pub mod show;
pub mod shutdown_summary;
pub mod signals;
pub mod terminal;
pub mod token;
pub mod up;
pub mod watch;
pub mod why;

pub use dispatch::main;
pub use failure::Failure;

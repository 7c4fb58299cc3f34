//! The `greenroom` command: [`args`] is its grammar, [`dispatch`] carries it out. Commands that start a service are in
//! [`serve`] and [`up`]; the others talk to one through [`client`] and show what it says with [`show`], [`live`] and
//! [`term`].

pub mod args;
pub mod asks;
pub mod checks;
pub mod client;
pub mod configure;
pub mod dispatch;
pub mod doctor;
pub mod failure;
pub mod farewell;
pub mod follow;
pub mod journal;
pub mod limits;
pub mod live;
pub mod manage;
pub mod mcp;
pub mod patience;
pub mod plugin;
pub mod run;
pub mod serve;
pub mod show;
pub mod signals;
pub mod stage_folder;
pub mod term;
mod unused;
pub mod up;
pub mod why;

pub use dispatch::main;
pub use failure::Failure;

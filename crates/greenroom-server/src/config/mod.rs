//! The configuration. [`layers`], [`mod@file`] and `loader` read it; [`keys`], [`value_type`] and `readers` define the
//! keys; [`value`] parses one value; [`error`] holds the errors and [`settings`] the result. [`project`] limits what the file
//! of a project may set; [`token`] is the secret of the service. The [`schema`] and the
//! effective configuration ([`effective`]) come from the same key table; [`import`] reads the settings of another
//! program.

pub mod effective;
pub mod error;
pub mod file;
pub mod import;
pub mod keys;
pub mod layers;
mod loader;
pub mod project;
mod readers;
pub mod schema;
pub mod settings;
pub mod token;
pub mod value;
pub mod value_type;

pub use error::{ConfigError, Origin};
pub use layers::{Environment, FlagValue, Loaded, Sources, check, load};
pub use settings::{Auth, Events, Listen, OpencodeSettings, Settings};

//! The configuration: where its values come from ([`layers`], [`file`], `loader`), which keys there are ([`keys`], [`kinds`],
//! `readers`), how a value is read ([`value`]), what can be wrong ([`error`]) and what comes out ([`settings`]). From the
//! same table of keys come the [`schema`] and what holds in the end ([`effective`]); [`import`] reads another's settings.

pub mod effective;
pub mod error;
pub mod file;
pub mod import;
pub mod keys;
pub mod kinds;
pub mod layers;
mod loader;
mod readers;
pub mod schema;
pub mod settings;
pub mod value;

pub use error::{ConfigError, Origin};
pub use layers::{Environment, Loaded, Sources, check, load};
pub use settings::{Events, Listen, OpencodeSettings, Settings};

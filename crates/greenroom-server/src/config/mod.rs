//! The configuration: where its values come from ([`layers`]), which keys there are ([`keys`]), how a value is read
//! ([`value`], `readers`), what can be wrong ([`error`]) and what comes out ([`settings`]).

pub mod error;
pub mod keys;
pub mod layers;
mod readers;
pub mod settings;
pub mod value;

pub use error::{ConfigError, Origin};
pub use layers::{Environment, Sources, load};
pub use settings::{Events, Listen, OpencodeSettings, Settings};

//! The journal on disk: one SQLite file, no server, safe over a crash of the process or the machine.
//!
//! What was decided is folded in memory by the rules of the crate `greenroom`; SQL only stores it. [`SqliteJournal`] is
//! what the system appends to, one thread of its own writes (`writer.rs`), and [`upkeep`] looks after the file while a
//! service uses it or none does.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc, time::Duration};
//! use greenroom_sqlite::SqliteJournal;
//!
//! let retention = Duration::from_secs(14 * 24 * 3600);
//! let journal = SqliteJournal::open(Path::new("journal.db"), retention)?;
//! // Greenroom::start(config, agent_server, Arc::new(journal));
//! # Ok::<(), greenroom_sqlite::OpenError>(())
//! ```

#![deny(missing_docs)]

mod error;
mod file;
mod journal;
mod lock;
mod lookup;
mod reading;
mod retention;
mod schema;
mod state;
mod store;
pub mod upkeep;
mod writer;

pub use error::{OpenError, RowError};
pub use journal::SqliteJournal;

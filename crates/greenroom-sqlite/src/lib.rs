//! The journal on disk: one SQLite file without a server, safe over a crash of the process or the machine.
//!
//! Entries are folded in memory by the rules of the crate `greenroom`; SQL only stores them. The system appends to
//! [`SqliteJournal`]; a separate thread writes the file. [`maintenance`] inspects and shrinks journals from outside.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc, time::Duration};
//! use greenroom_sqlite::SqliteJournal;
//!
//! let retention = Duration::from_secs(14 * 24 * 3600);
//! let journal = SqliteJournal::open(Path::new("journal.db"), retention)?;
//! // Greenroom::builder(config).server(agent_server).journal(Arc::new(journal)).start();
//! # Ok::<(), greenroom_sqlite::OpenError>(())
//! ```

#![deny(missing_docs)]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod error;
mod file;
mod journal;
mod lookup;
pub mod maintenance;
mod process_lock;
mod queries;
mod retention;
mod schema;
mod state;
mod store;
mod writer;

pub use error::{OpenError, RowError};
pub use journal::SqliteJournal;

/// Locks a mutex. A panic of another holder is ignored: no code of this crate panics in the middle of a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

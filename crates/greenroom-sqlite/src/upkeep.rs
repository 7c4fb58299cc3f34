//! Looking after a journal from outside: what is in it, making it smaller, writing it out, letting go of what is over.
//! Looking works beside a service; changing wants the file for itself and says who has it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::domain::ids::TaskId;
use greenroom::domain::story;
use greenroom::domain::time::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::json;

use crate::error::OpenError;
use crate::file;
use crate::journal::now;
use crate::lock::{self, Lock};
use crate::reading;
use crate::retention::{self, Cut};
use crate::schema;

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The file.
    pub path: PathBuf,
    /// The version of its tables.
    pub version: i64,
    /// The size of its files together.
    pub bytes: u64,
    /// Of these, what a `vacuum` would give back, about.
    pub free_bytes: u64,
    /// Tasks that have not ended.
    pub open: u64,
    /// Tasks that have ended.
    pub ended: u64,
    /// Of these, the ones that have left the service's memory.
    pub left: u64,
    /// When the oldest of those left it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_left: Option<Timestamp>,
    /// Parents that are owed something or have a task open.
    pub parents_owed: u64,
    /// Changes that can be read again.
    pub changes: u64,
    /// Keys of launches that are remembered.
    pub keys: u64,
    /// The process that uses it, if one does and has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_by: Option<u32>,
    /// True if a process uses it.
    pub in_use: bool,
}

/// A connection that only looks at a journal that is there.
fn look(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing {
            path: path.to_owned(),
        });
    }
    let db = file::reading(path)?;
    schema::must_be_current(&db, path)?;
    Ok(db)
}

/// Who uses it now, if anybody does; none within if its id is not known.
pub fn holder(path: &Path) -> Option<Option<u32>> {
    lock::holder(path)
}

/// What is in it.
///
/// # Errors
/// It is not there, is none, or cannot be read.
pub fn stats(path: &Path) -> Result<Stats, OpenError> {
    let mut db = look(path)?;
    let failed = |source| OpenError::of(path, source);
    // As of one moment.
    let moment = db.transaction().map_err(failed)?;
    let count = |what: &str| {
        let sql = format!("SELECT count(*) FROM {what}");
        moment.query_row(&sql, [], |row| row.get::<_, u64>(0))
    };
    let pragma = |name: &str| moment.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let holder = lock::holder(path);
    let read = || -> rusqlite::Result<Stats> {
        let open = count("tasks WHERE status IN ('pending', 'running')")?;
        let oldest: Option<i64> = moment.query_row(
            "SELECT min(left_at) FROM tasks WHERE left_at IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(Stats {
            path: path.to_owned(),
            version: schema::VERSION,
            bytes: file::bytes(path),
            free_bytes: pragma("freelist_count")? * pragma("page_size")?,
            open,
            ended: count("tasks")? - open,
            left: count("tasks WHERE left_at IS NOT NULL")?,
            oldest_left: oldest.map(Timestamp::from_millis),
            parents_owed: count("parents WHERE settled = 0")?,
            changes: count("changes")?,
            keys: count("keys")?,
            used_by: holder.flatten(),
            in_use: holder.is_some(),
        })
    };
    read().map_err(failed)
}

/// A journal that nobody else may use meanwhile, checked and up to date.
fn take(path: &Path) -> Result<(Lock, Connection), OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing {
            path: path.to_owned(),
        });
    }
    let lock = Lock::take(path)?;
    let mut db = file::writing(path)?;
    file::check(&db, path)?;
    schema::bring_up_to_date(&mut db, path)?;
    Ok((lock, db))
}

/// Makes the file as small as what is in it. Returns its size before and after, in bytes.
///
/// # Errors
/// Another process uses it, it cannot be written, or there is no room for the copy that this makes.
pub fn vacuum(path: &Path) -> Result<(u64, u64), OpenError> {
    let (_lock, db) = take(path)?;
    let before = file::bytes(path);
    let run = || -> rusqlite::Result<()> {
        db.execute_batch("VACUUM")?;
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    run().map_err(|source| OpenError::of(path, source))?;
    Ok((before, file::bytes(path)))
}

/// Which tasks are let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Those that left the service's memory that long ago.
    OlderThan(Duration),
    /// All that have ended and that nobody waits for.
    AllEnded,
}

/// Lets go of tasks and all that belongs to them. Returns how many they were.
///
/// # Errors
/// Another process uses it, or it cannot be written.
pub fn purge(path: &Path, what: Purge) -> Result<usize, OpenError> {
    let (_lock, mut db) = take(path)?;
    let now = now();
    let cut = match what {
        Purge::OlderThan(age) => Cut::by_age(now, age),
        Purge::AllEnded => Cut {
            // The newest of all may carry a time of this millisecond.
            over_before: now + Duration::from_millis(1),
            ended: true,
            ..Cut::by_age(now, Duration::ZERO)
        },
    };
    let mut run = || -> rusqlite::Result<usize> {
        let mut tasks = 0;
        loop {
            let done = retention::step(&mut db, cut)?;
            tasks += done.tasks;
            if !done.more {
                retention::changes_of_nobody(&mut db)?;
                return Ok(tasks);
            }
        }
    };
    run().map_err(|source| OpenError::of(path, source))
}

/// Why a journal is not written out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// What is written to does not take it.
    #[error("the export cannot be written: {0}")]
    Out(#[from] std::io::Error),
}

/// Writes every task as a line of JSON, in the order of their launch: `{"task", "leftAt"?, "story": [{"at", "what",
/// "detail"}]}`. Returns how many.
///
/// # Errors
/// The journal cannot be read, or `out` not be written.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<usize, ExportError> {
    let mut db = look(path)?;
    let failed = |source| OpenError::of(path, source);
    let moment = db.transaction().map_err(failed)?;
    let mut count = 0;
    let mut after = None;
    loop {
        // A handful at a time: the whole may be larger than memory.
        let page = reading::page(&moment, after, 100)
            .map_err(failed)?
            .map_err(|error| OpenError::row(path, &error))?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some(last.place);
        for row in &page {
            let id: &TaskId = &row.task.id;
            let read = |subject: &str| reading::lines(&moment, subject).unwrap_or_default();
            let story = story::told(id, read).into_iter();
            let story: Vec<_> = story
                .map(|(at, line)| json!({ "at": at, "what": line.what, "detail": line.detail }))
                .collect();
            let mut line = json!({ "task": row.task, "story": story });
            if let Some(left) = row.left_at {
                line["leftAt"] = json!(left);
            }
            writeln!(out, "{line}")?;
            count += 1;
        }
    }
}

//! Maintenance of a journal from outside a service: statistics, export, purge, vacuum. Statistics and export work while a
//! service uses the journal; purge and vacuum need exclusive use, and otherwise fail with the process that uses it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::domain::ids::TaskId;
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::json;

use crate::error::OpenError;
use crate::file;
use crate::journal::now;
use crate::process_lock::{self, ProcessLock};
use crate::queries;
use crate::retention::{self, Cutoff};
use crate::schema;

/// Statistics of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The file.
    pub path: PathBuf,
    /// The version of its tables.
    pub version: i64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
    /// The bytes that a `vacuum` would free, approximately.
    pub free_bytes: u64,
    /// Tasks that have not ended.
    pub open: u64,
    /// Tasks that have ended.
    pub ended: u64,
    /// The ended tasks that were evicted from the service's memory.
    pub left: u64,
    /// The time when the oldest of those was evicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_left: Option<Timestamp>,
    /// Parents with pending messages or open tasks.
    #[serde(rename = "parentsOwed")]
    pub waiting_parents: u64,
    /// Changes of tasks' states that can be read again.
    pub changes: u64,
    /// Remembered launch keys.
    pub keys: u64,
    /// The id of the process that uses it, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_by: Option<u32>,
    /// True if a process uses it.
    pub in_use: bool,
    /// The durable appends that it has lost, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingAppends>,
}

/// Appends that were durable and are missing in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingAppends {
    /// Their number.
    pub count: u64,
    /// The time of the start that found them missing; none if no process has opened the file since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_at: Option<Timestamp>,
}

/// Returns the missing appends, given the number that was recorded beside the file.
fn missing(db: &Connection, recorded: Option<u64>) -> rusqlite::Result<Option<MissingAppends>> {
    let unreported = recorded.map_or(Ok(0), |recorded| {
        queries::counter(db, "place").map(|found| recorded.saturating_sub(found))
    })?;
    if unreported > 0 {
        return Ok(Some(MissingAppends {
            count: unreported,
            found_at: None,
        }));
    }
    let count = queries::counter(db, "missing")?;
    let found_at = queries::counter(db, "missing_at")?.cast_signed();
    Ok((count > 0).then_some(MissingAppends {
        count,
        found_at: Some(Timestamp::from_millis(found_at)),
    }))
}

/// Opens an existing journal of the current version for reading.
fn open_existing(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing {
            path: path.to_owned(),
        });
    }
    // SQLite would wait for the other end of a FIFO.
    file::open_to_read(path).map_err(|source| OpenError::Unusable {
        path: path.to_owned(),
        source,
    })?;
    let db = file::open_reader(path)?;
    schema::require_current(&db, path)?;
    Ok(db)
}

/// Returns the process that uses the journal: none if no process does, none within if its id is not known.
pub fn holder(path: &Path) -> Option<Option<u32>> {
    process_lock::holder(path)
}

/// Returns the statistics of a journal.
///
/// # Errors
/// Fails if the file does not exist, is not a journal, or cannot be read.
pub fn stats(path: &Path) -> Result<Stats, OpenError> {
    // Read first: a service may write the journal meanwhile.
    let recorded = process_lock::record(path).written;
    let mut db = open_existing(path)?;
    let failed = |source| OpenError::of(path, source);
    // All counts are of one snapshot.
    let snapshot = db.transaction().map_err(failed)?;
    let count = |what: &str| {
        let sql = format!("SELECT count(*) FROM {what}");
        snapshot.query_row(&sql, [], |row| row.get::<_, u64>(0))
    };
    let pragma = |name: &str| snapshot.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let holder = process_lock::holder(path);
    let read = || -> rusqlite::Result<Stats> {
        let open = count("tasks WHERE status IN ('pending', 'running')")?;
        let oldest: Option<i64> = snapshot.query_row(
            "SELECT min(left_at) FROM tasks WHERE left_at IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(Stats {
            path: path.to_owned(),
            version: schema::VERSION,
            bytes: file::total_bytes(path),
            free_bytes: pragma("freelist_count")? * pragma("page_size")?,
            open,
            ended: count("tasks")? - open,
            left: count("tasks WHERE left_at IS NOT NULL")?,
            oldest_left: oldest.map(Timestamp::from_millis),
            waiting_parents: count("parents WHERE settled = 0")?,
            changes: count("changes")?,
            keys: count("keys")?,
            used_by: holder.flatten(),
            in_use: holder.is_some(),
            missing: missing(&snapshot, recorded)?,
        })
    };
    read().map_err(failed)
}

/// Opens a journal for exclusive use, checked and migrated.
fn open_exclusive(path: &Path) -> Result<(ProcessLock, Connection), OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing {
            path: path.to_owned(),
        });
    }
    file::check_access(path)?;
    let lock = ProcessLock::acquire(path)?;
    let mut db = file::open_writer(path)?;
    file::check(&db, path)?;
    schema::migrate(&mut db, path)?;
    Ok((lock, db))
}

/// Shrinks the file to its content. Returns its size before and after, in bytes.
///
/// # Errors
/// Fails if another process uses the journal, it cannot be written, or the disk has no room for the temporary copy.
pub fn vacuum(path: &Path) -> Result<(u64, u64), OpenError> {
    let (_lock, db) = open_exclusive(path)?;
    let before = file::total_bytes(path);
    let run = || -> rusqlite::Result<()> {
        db.execute_batch("VACUUM")?;
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    run().map_err(|source| OpenError::of(path, source))?;
    Ok((before, file::total_bytes(path)))
}

/// Which tasks are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Tasks that were evicted from the service's memory that long ago.
    OlderThan(Duration),
    /// All ended tasks that no other task or parent waits for.
    AllEnded,
}

/// Deletes tasks with all their rows. Returns the number of deleted tasks.
///
/// # Errors
/// Fails if another process uses the journal, or it cannot be written.
pub fn purge(path: &Path, what: Purge) -> Result<usize, OpenError> {
    let (_lock, mut db) = open_exclusive(path)?;
    let now = now();
    let cutoff = match what {
        Purge::OlderThan(age) => Cutoff::by_age(now, age),
        Purge::AllEnded => Cutoff {
            // The newest rows may have a time of this millisecond.
            expired_before: now + Duration::from_millis(1),
            ended: true,
            ..Cutoff::by_age(now, Duration::ZERO)
        },
    };
    let mut run = || -> rusqlite::Result<usize> {
        let mut tasks = 0;
        loop {
            let result = retention::step(&mut db, cutoff)?;
            tasks += result.tasks;
            if !result.more {
                retention::delete_orphaned_changes(&mut db)?;
                return Ok(tasks);
            }
        }
    };
    run().map_err(|source| OpenError::of(path, source))
}

/// Why a journal is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The output cannot be written.
    #[error("the export cannot be written: {0}")]
    Out(#[from] std::io::Error),
}

/// Writes every task as a line of JSON, in the order of their launch: `{"task", "leftAt"?, "story": [{"at", "what",
/// "detail"}]}`. Returns the number of tasks.
///
/// # Errors
/// Fails if the journal cannot be read or `out` cannot be written.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<usize, ExportError> {
    let mut db = open_existing(path)?;
    let failed = |source| OpenError::of(path, source);
    let snapshot = db.transaction().map_err(failed)?;
    let mut count = 0;
    let mut after = None;
    loop {
        // In pages: the journal may be larger than memory.
        let page = queries::page(&snapshot, after, 100)
            .map_err(failed)?
            .map_err(|error| OpenError::row(path, &error))?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some(last.rowid);
        for row in &page {
            let id: &TaskId = &row.task.id;
            let read =
                |subject: &str| queries::timeline_entries(&snapshot, subject).unwrap_or_default();
            let entries = timeline::of_task(id, read).into_iter();
            let timeline: Vec<_> = entries
                .map(|(at, line)| json!({ "at": at, "what": line.what, "detail": line.detail }))
                .collect();
            let mut line = json!({ "task": row.task, "story": timeline });
            if let Some(left) = row.left_at {
                line["leftAt"] = json!(left);
            }
            writeln!(out, "{line}")?;
            count += 1;
        }
    }
}

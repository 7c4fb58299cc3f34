//! Reads rows. An error of SQLite is distinguished from a row that cannot be parsed, which is named by its table and key. The
//! rows are written by [`crate::store`].

use std::fmt::Display;
use std::sync::Arc;

use greenroom::domain::idempotency::{LaunchKey, MAX_KEYS};
use greenroom::domain::ids::{Run, SessionId};
use greenroom::domain::outbox::Outbox;
use greenroom::domain::session_owner::SessionOwner;
use greenroom::domain::task::{Task, TaskStatus};
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline::TimelineEntry;
use greenroom::ports::journal::{
    Changed, ChangesFrom, JournalEntry, RecordedChange, RecoveredTask,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::de::DeserializeOwned;

use crate::error::RowError;
use crate::store::KIND_OUTBOX;

/// The result of a query. The inner error is a row that cannot be read.
pub(crate) type RowResult<T> = rusqlite::Result<Result<T, RowError>>;

/// The columns of a task with its texts.
const TASK: &str = "tasks.id, tasks.record, texts.prompt, texts.skill_content, accepted, age, granted, prompted, aborted
     FROM tasks LEFT JOIN texts ON texts.task = tasks.id AND texts.run = tasks.run";

fn parse<T: DeserializeOwned>(
    table: &'static str,
    row: impl Display,
    text: &str,
) -> Result<T, RowError> {
    serde_json::from_str(text).map_err(|error| RowError {
        table,
        row: row.to_string(),
        problem: error.to_string(),
    })
}

/// Parses a record and adds the texts of its run, if they are still kept.
fn task(
    table: &'static str,
    key: impl Display,
    record: &str,
    prompt: Option<String>,
    skill_content: Option<String>,
) -> Result<Task, RowError> {
    let mut task: Task = parse(table, key, record)?;
    // The parser leaves spare capacity.
    task.attempts.shrink_to_fit();
    task.prompt = prompt.unwrap_or_default().into();
    task.skill_content = skill_content.map(Into::into);
    Ok(task)
}

fn task_row(row: &Row<'_>) -> RowResult<RecoveredTask> {
    let id: String = row.get(0)?;
    let record = row.get_ref(1)?.as_str()?;
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let run = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<u32>>(column)?.map(Run));
    let (accepted, queue_seq) = (number(4)?, number(5)?);
    let (granted, prompted, aborted) = (run(6)?, run(7)?, run(8)?);
    let task = task("tasks", id, record, row.get(2)?, row.get(3)?);
    Ok(task.map(|task| RecoveredTask {
        accepted,
        queue_seq,
        granted,
        prompted,
        aborted,
        task: Arc::new(task),
    }))
}

/// Reads every row, or returns the first one that cannot be read.
fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> RowResult<T>,
) -> RowResult<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row)? {
            Ok(value) => found.push(value),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(found))
}

/// Returns the sessions whose abort is not judged, and when the abort was received.
pub(crate) fn aborts(db: &Connection) -> rusqlite::Result<Vec<(SessionId, Timestamp)>> {
    let mut statement = db.prepare_cached("SELECT session, at FROM aborts ORDER BY session")?;
    let rows = statement.query_map([], |row| {
        let session: String = row.get(0)?;
        Ok((
            SessionId::from(session.as_str()),
            Timestamp::from_millis(row.get(1)?),
        ))
    })?;
    rows.collect()
}

/// Returns the processes that own sessions, the longest unchanged first.
pub(crate) fn owners(db: &Connection) -> rusqlite::Result<Vec<(SessionId, SessionOwner)>> {
    let mut statement =
        db.prepare_cached("SELECT session, pid, directory FROM owners ORDER BY seq")?;
    let rows = statement.query_map([], |row| {
        let (session, directory): (String, String) = (row.get(0)?, row.get(2)?);
        let owner = SessionOwner {
            pid: row.get(1)?,
            directory: directory.into(),
        };
        Ok((SessionId::from(session.as_str()), owner))
    })?;
    rows.collect()
}

/// Returns every task that was not evicted from memory.
pub(crate) fn live_tasks(db: &Connection) -> RowResult<Vec<RecoveredTask>> {
    let sql = format!("SELECT {TASK} WHERE left_at IS NULL ORDER BY accepted");
    all(db, &sql, [], task_row)
}

/// Returns the tasks that were evicted since then, newest first, without their texts.
pub(crate) fn evicted(db: &Connection, since: Timestamp, most: usize) -> RowResult<Vec<Arc<Task>>> {
    let sql = "SELECT id, record FROM tasks WHERE left_at >= ?1 ORDER BY left_at DESC, rowid DESC LIMIT ?2";
    all(db, sql, params![since.as_millis(), most], |row| {
        let record = row.get_ref(1)?.as_str()?;
        let id: String = row.get(0)?;
        Ok(task("tasks", id, record, None, None).map(Arc::new))
    })
}

/// A task to be exported.
pub(crate) struct Exported {
    /// The row id, from which the next page continues.
    pub(crate) rowid: i64,
    pub(crate) task: Task,
    pub(crate) left_at: Option<Timestamp>,
}

/// Returns the next tasks in the order of their launch.
pub(crate) fn page(db: &Connection, after: Option<i64>, most: usize) -> RowResult<Vec<Exported>> {
    let sql = "SELECT tasks.rowid, id, record, prompt, skill_content, left_at
         FROM tasks LEFT JOIN texts ON texts.task = tasks.id AND texts.run = tasks.run
         WHERE tasks.rowid > ?1 ORDER BY tasks.rowid LIMIT ?2";
    all(db, sql, params![after.unwrap_or(i64::MIN), most], |row| {
        let id: String = row.get(1)?;
        let record = row.get_ref(2)?.as_str()?;
        let left_at: Option<i64> = row.get(5)?;
        let rowid = row.get(0)?;
        let task = task("tasks", id, record, row.get(3)?, row.get(4)?);
        Ok(task.map(|task| Exported {
            rowid,
            task,
            left_at: left_at.map(Timestamp::from_millis),
        }))
    })
}

/// Returns the evicted task of that id, or the newest of that session, if it was evicted since then.
pub(crate) fn named(db: &Connection, name: &str, since: Timestamp) -> RowResult<Option<Task>> {
    let sql = format!(
        "SELECT {TASK} WHERE (tasks.id = ?1 OR session = ?1) AND left_at >= ?2
         ORDER BY left_at DESC, tasks.rowid DESC LIMIT 1"
    );
    first(db, &sql, params![name, since.as_millis()])
}

fn first(db: &Connection, sql: &str, params: impl Params) -> RowResult<Option<Task>> {
    let found = all(db, sql, params, task_row)?;
    Ok(found.map(|tasks| {
        let task = tasks.into_iter().next().map(|row| row.task);
        task.map(|task| Arc::try_unwrap(task).unwrap_or_else(|task| Task::clone(&task)))
    }))
}

/// Returns true if the task of that id was evicted since then.
pub(crate) fn contains(db: &Connection, id: &str, since: Timestamp) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM tasks WHERE id = ?1 AND left_at >= ?2")?
        .exists(params![id, since.as_millis()])
}

/// Returns the ids of at most two tasks that were evicted since then and have that prefix.
pub(crate) fn ids_with_prefix(
    db: &Connection,
    name: &str,
    since: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    let mut after = name.to_owned();
    after.push(char::MAX);
    db.prepare_cached("SELECT id FROM tasks WHERE id >= ?1 AND id < ?2 AND left_at >= ?3 LIMIT 2")?
        .query_map(params![name, after, since.as_millis()], |row| row.get(0))?
        .collect()
}

/// Applies a row of the table `ledger` to its outbox.
fn apply(outbox: &mut Outbox, row: &Row<'_>) -> RowResult<()> {
    let (seq, kind): (i64, i64) = (row.get(0)?, row.get(1)?);
    let body = row.get_ref(2)?.as_str()?;
    Ok(if kind == KIND_OUTBOX {
        parse("ledger", seq, body).map(|whole| *outbox = whole)
    } else {
        parse::<JournalEntry>("ledger", seq, body).map(|entry| outbox.apply(entry))
    })
}

/// Returns the outbox of a parent.
pub(crate) fn outbox(db: &Connection, parent: &str) -> RowResult<Option<Outbox>> {
    let mut outbox = None;
    let sql = "SELECT seq, kind, body FROM ledger WHERE parent = ?1 ORDER BY seq";
    let read = all(db, sql, [parent], |row| {
        apply(outbox.get_or_insert_default(), row)
    })?;
    Ok(read.map(|_| outbox))
}

/// Returns every outbox with open tasks or pending messages, and every silenced one.
pub(crate) fn open_outboxes(db: &Connection) -> RowResult<Vec<(SessionId, Outbox)>> {
    let mut outboxes: Vec<(SessionId, Outbox)> = Vec::new();
    let sql = "SELECT ledger.seq, kind, body, ledger.parent FROM parents JOIN ledger ON ledger.parent = parents.parent
         WHERE settled = 0 OR silenced = 1 ORDER BY ledger.parent, ledger.seq";
    let read = all(db, sql, [], |row| {
        let parent = row.get_ref(3)?.as_str()?;
        if outboxes
            .last()
            .is_none_or(|(last, _)| last.as_str() != parent)
        {
            outboxes.push((SessionId::new(parent), Outbox::default()));
        }
        match outboxes.last_mut() {
            Some((_, outbox)) => apply(outbox, row),
            None => Ok(Ok(())),
        }
    })?;
    Ok(read.map(|_| outboxes))
}

/// Returns the launch keys since then, oldest first.
pub(crate) fn keys(db: &Connection, since: Timestamp) -> RowResult<Vec<LaunchKey>> {
    let sql = "SELECT seq, record FROM keys WHERE at > ?1 ORDER BY seq DESC LIMIT ?2";
    let found = all(db, sql, params![since.as_millis(), MAX_KEYS], |row| {
        let seq: i64 = row.get(0)?;
        Ok(parse("keys", seq, row.get_ref(1)?.as_str()?))
    })?;
    Ok(found.map(|mut keys: Vec<LaunchKey>| {
        keys.reverse();
        keys
    }))
}

/// Returns a number of the table `marks`.
pub(crate) fn counter(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM marks WHERE name = ?1";
    let value: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0).cast_unsigned())
}

/// Returns the number of the newest change, deleted ones included.
pub(crate) fn newest_change(db: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> =
        db.query_row("SELECT max(number) FROM changes", [], |row| row.get(0))?;
    Ok(newest
        .unwrap_or(0)
        .cast_unsigned()
        .max(counter(db, "changes_gone")?))
}

/// Returns at most `most` changes; none if some changes after that number were deleted.
pub(crate) fn changes(
    db: &Connection,
    from: ChangesFrom,
    most: usize,
) -> RowResult<Option<Vec<RecordedChange>>> {
    let first = match from {
        ChangesFrom::After(number) => {
            if number < counter(db, "changes_gone")? {
                return Ok(Ok(None));
            }
            // A reader may ask for a number that was never assigned.
            i64::try_from(number)
                .ok()
                .and_then(|number| number.checked_add(1))
        }
        ChangesFrom::Since(at) => db
            .prepare_cached("SELECT number FROM changes WHERE at > ?1 ORDER BY at, number LIMIT 1")?
            .query_row([at.as_millis()], |row| row.get(0))
            .optional()?,
    };
    let Some(first) = first else {
        return Ok(Ok(Some(Vec::new())));
    };
    let sql = "SELECT number, at, from_status, record, prompt, skill_content FROM changes
         LEFT JOIN texts ON texts.task = changes.task AND texts.run = changes.run
         WHERE number >= ?1 ORDER BY number LIMIT ?2";
    let found = all(db, sql, params![first, most], |row| {
        let number: i64 = row.get(0)?;
        let from: Option<String> = row.get(2)?;
        let from = from.map(|name| status(number, &name)).transpose();
        let record = row.get_ref(3)?.as_str()?;
        let task = task("changes", number, record, row.get(4)?, row.get(5)?);
        let at = Timestamp::from_millis(row.get(1)?);
        Ok(from.and_then(|from| {
            Ok(RecordedChange {
                at,
                changed: Changed {
                    number: number.cast_unsigned(),
                    from,
                },
                task: Arc::new(task?),
            })
        }))
    })?;
    Ok(found.map(Some))
}

fn status(number: i64, name: &str) -> Result<TaskStatus, RowError> {
    let known = TaskStatus::ALL
        .into_iter()
        .find(|known| known.as_str() == name);
    known.ok_or_else(|| RowError {
        table: "changes",
        row: number.to_string(),
        problem: format!("{name:?} is not a state of a task"),
    })
}

/// Returns the timeline entries of a task or a message.
pub(crate) fn timeline_entries(
    db: &Connection,
    subject: &str,
) -> rusqlite::Result<Vec<(Timestamp, TimelineEntry)>> {
    db.prepare_cached("SELECT at, what, detail FROM stories WHERE subject = ?1 ORDER BY line")?
        .query_map([subject], |row| {
            let line = TimelineEntry {
                what: row.get(1)?,
                detail: row.get(2)?,
            };
            Ok((Timestamp::from_millis(row.get(0)?), line))
        })?
        .collect()
}

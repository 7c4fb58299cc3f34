//! Rows as what they stand for. An error of SQLite's and a row that cannot be read are kept apart: the second names its
//! table and key. What is read here was written by [`crate::store`].

use std::fmt::Display;
use std::sync::Arc;

use greenroom::domain::idempotency::{Kept as KeptKey, MOST};
use greenroom::domain::ids::{Run, SessionId};
use greenroom::domain::ledger::Account;
use greenroom::domain::story::Line;
use greenroom::domain::task::{Task, TaskStatus};
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{Changed, ChangesFrom, Entry, KeptChange, KeptTask};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::de::DeserializeOwned;

use crate::error::RowError;
use crate::store::WHOLE;

/// What was read; a row that cannot be read is an error of its own.
pub(crate) type Read<T> = rusqlite::Result<Result<T, RowError>>;

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

/// A record, with the texts of its run where they are still kept.
fn task(
    table: &'static str,
    key: impl Display,
    record: &str,
    prompt: Option<String>,
    skill_content: Option<String>,
) -> Result<Task, RowError> {
    let mut task: Task = parse(table, key, record)?;
    // Read with room for more.
    task.attempts.shrink_to_fit();
    task.prompt = prompt.unwrap_or_default().into();
    task.skill_content = skill_content.map(Into::into);
    Ok(task)
}

fn kept_task(row: &Row<'_>) -> Read<KeptTask> {
    let id: String = row.get(0)?;
    let record = row.get_ref(1)?.as_str()?;
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let run = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<u32>>(column)?.map(Run));
    let (accepted, age) = (number(4)?, number(5)?);
    let (granted, prompted, aborted) = (run(6)?, run(7)?, run(8)?);
    let task = task("tasks", id, record, row.get(2)?, row.get(3)?);
    Ok(task.map(|task| KeptTask {
        accepted,
        age,
        granted,
        prompted,
        aborted,
        task: Arc::new(task),
    }))
}

/// Each row as what it stands for, or the first that cannot be read.
fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Read<T>,
) -> Read<Vec<T>> {
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

/// Every task that has not left memory.
pub(crate) fn live(db: &Connection) -> Read<Vec<KeptTask>> {
    let sql = format!("SELECT {TASK} WHERE left_at IS NULL ORDER BY accepted");
    all(db, &sql, [], kept_task)
}

/// The newest tasks that have left memory since then, newest first, without their texts.
pub(crate) fn left(db: &Connection, since: Timestamp, most: usize) -> Read<Vec<Arc<Task>>> {
    let sql = "SELECT id, record FROM tasks WHERE left_at >= ?1 ORDER BY left_at DESC, rowid DESC LIMIT ?2";
    all(db, sql, params![since.as_millis(), most], |row| {
        let record = row.get_ref(1)?.as_str()?;
        let id: String = row.get(0)?;
        Ok(task("tasks", id, record, None, None).map(Arc::new))
    })
}

/// A task as it is written out.
pub(crate) struct Exported {
    /// Its place, to go on after.
    pub(crate) place: i64,
    pub(crate) task: Task,
    pub(crate) left_at: Option<Timestamp>,
}

/// The next tasks in the order of their launch.
pub(crate) fn page(db: &Connection, after: Option<i64>, most: usize) -> Read<Vec<Exported>> {
    let sql = "SELECT tasks.rowid, id, record, prompt, skill_content, left_at
         FROM tasks LEFT JOIN texts ON texts.task = tasks.id AND texts.run = tasks.run
         WHERE tasks.rowid > ?1 ORDER BY tasks.rowid LIMIT ?2";
    all(db, sql, params![after.unwrap_or(i64::MIN), most], |row| {
        let id: String = row.get(1)?;
        let record = row.get_ref(2)?.as_str()?;
        let left_at: Option<i64> = row.get(5)?;
        let place = row.get(0)?;
        let task = task("tasks", id, record, row.get(3)?, row.get(4)?);
        Ok(task.map(|task| Exported {
            place,
            task,
            left_at: left_at.map(Timestamp::from_millis),
        }))
    })
}

/// The task of that id, or the newest of that session, that has left memory since then.
pub(crate) fn named(db: &Connection, name: &str, since: Timestamp) -> Read<Option<Task>> {
    let sql = format!(
        "SELECT {TASK} WHERE (tasks.id = ?1 OR session = ?1) AND left_at >= ?2
         ORDER BY left_at DESC, tasks.rowid DESC LIMIT 1"
    );
    first(db, &sql, params![name, since.as_millis()])
}

fn first(db: &Connection, sql: &str, params: impl Params) -> Read<Option<Task>> {
    let found = all(db, sql, params, kept_task)?;
    Ok(found.map(|tasks| {
        let task = tasks.into_iter().next().map(|kept| kept.task);
        task.map(|task| Arc::try_unwrap(task).unwrap_or_else(|task| Task::clone(&task)))
    }))
}

/// True if the task of that id has left memory since then.
pub(crate) fn knows(db: &Connection, id: &str, since: Timestamp) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM tasks WHERE id = ?1 AND left_at >= ?2")?
        .exists(params![id, since.as_millis()])
}

/// The ids of at most two tasks that have left memory since then and begin so.
pub(crate) fn beginning(
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

/// Adds a row of the ledger to the account it belongs to.
fn apply(account: &mut Account, row: &Row<'_>) -> Read<()> {
    let (seq, kind): (i64, i64) = (row.get(0)?, row.get(1)?);
    let body = row.get_ref(2)?.as_str()?;
    Ok(if kind == WHOLE {
        parse("ledger", seq, body).map(|whole| *account = whole)
    } else {
        parse::<Entry>("ledger", seq, body).map(|entry| account.apply(entry))
    })
}

/// What is kept of a parent.
pub(crate) fn account(db: &Connection, parent: &str) -> Read<Option<Account>> {
    let mut account = None;
    let sql = "SELECT seq, kind, body FROM ledger WHERE parent = ?1 ORDER BY seq";
    let read = all(db, sql, [parent], |row| {
        apply(account.get_or_insert_default(), row)
    })?;
    Ok(read.map(|_| account))
}

/// Every account with something open or owed, or silenced.
pub(crate) fn open_accounts(db: &Connection) -> Read<Vec<(SessionId, Account)>> {
    let mut accounts: Vec<(SessionId, Account)> = Vec::new();
    let sql = "SELECT ledger.seq, kind, body, ledger.parent FROM parents JOIN ledger ON ledger.parent = parents.parent
         WHERE settled = 0 OR silenced = 1 ORDER BY ledger.parent, ledger.seq";
    let read = all(db, sql, [], |row| {
        let parent = row.get_ref(3)?.as_str()?;
        if accounts
            .last()
            .is_none_or(|(last, _)| last.as_str() != parent)
        {
            accounts.push((SessionId::new(parent), Account::default()));
        }
        match accounts.last_mut() {
            Some((_, account)) => apply(account, row),
            None => Ok(Ok(())),
        }
    })?;
    Ok(read.map(|_| accounts))
}

/// The keys since then, oldest first.
pub(crate) fn keys(db: &Connection, since: Timestamp) -> Read<Vec<KeptKey>> {
    let sql = "SELECT seq, record FROM keys WHERE at > ?1 ORDER BY seq DESC LIMIT ?2";
    let found = all(db, sql, params![since.as_millis(), MOST], |row| {
        let seq: i64 = row.get(0)?;
        Ok(parse("keys", seq, row.get_ref(1)?.as_str()?))
    })?;
    Ok(found.map(|mut keys: Vec<KeptKey>| {
        keys.reverse();
        keys
    }))
}

/// A number that the writer keeps.
pub(crate) fn mark(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM marks WHERE name = ?1";
    let value: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0).cast_unsigned())
}

/// The number of the newest change there ever was.
pub(crate) fn newest_change(db: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> =
        db.query_row("SELECT max(number) FROM changes", [], |row| row.get(0))?;
    Ok(newest
        .unwrap_or(0)
        .cast_unsigned()
        .max(mark(db, "changes_gone")?))
}

/// At most so many changes; none if those after that number are not all kept.
pub(crate) fn changes(
    db: &Connection,
    from: ChangesFrom,
    most: usize,
) -> Read<Option<Vec<KeptChange>>> {
    let first = match from {
        ChangesFrom::After(number) => {
            if number < mark(db, "changes_gone")? {
                return Ok(Ok(None));
            }
            // Anybody may ask for a number that was never given.
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
            Ok(KeptChange {
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
        problem: format!("{name:?} is no state of a task"),
    })
}

/// What is kept of a story.
pub(crate) fn lines(db: &Connection, subject: &str) -> rusqlite::Result<Vec<(Timestamp, Line)>> {
    db.prepare_cached("SELECT at, what, detail FROM stories WHERE subject = ?1 ORDER BY line")?
        .query_map([subject], |row| {
            let line = Line {
                what: row.get(1)?,
                detail: row.get(2)?,
            };
            Ok((Timestamp::from_millis(row.get(0)?), line))
        })?
        .collect()
}

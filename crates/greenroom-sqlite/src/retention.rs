//! Deletes expired rows in small steps, so that appends are not delayed: tasks that were evicted from memory longer ago than
//! the retention with their timelines, changes of that age, parents without pending messages for that time, keys older than
//! a day.

use std::time::Duration;

use greenroom::domain::idempotency::KEY_LIFETIME;
use greenroom::domain::time::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

/// The approximate number of rows of one transaction.
const MAX_ROWS: usize = 500;
/// A task has about ten rows, and a timeline at most a hundred.
const MAX_TASKS: usize = MAX_ROWS / 10;
/// A parent may have a hundred rows before they are written as one.
const MAX_PARENTS: usize = MAX_ROWS / 100;

/// The rows to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cutoff {
    /// Tasks that were evicted, changes, and parents without pending messages from before then.
    pub(crate) expired_before: Timestamp,
    /// Launch keys from before then.
    pub(crate) keys_before: Timestamp,
    /// Also ended tasks that were not evicted, if neither parent nor child waits for them.
    pub(crate) ended: bool,
}

impl Cutoff {
    /// Returns the cut-off for rows older than the retention.
    pub(crate) fn by_age(now: Timestamp, retention: Duration) -> Self {
        Self {
            expired_before: earlier(now, retention),
            keys_before: earlier(now, KEY_LIFETIME),
            ended: false,
        }
    }
}

/// Returns the time that is `time` before `now`.
pub(crate) fn earlier(now: Timestamp, time: Duration) -> Timestamp {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(time))
}

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StepResult {
    /// The number of deleted tasks.
    pub(crate) tasks: usize,
    /// True if there may be more to delete.
    pub(crate) more: bool,
}

/// Deletes a bounded number of rows.
pub(crate) fn step(db: &mut Connection, cutoff: Cutoff) -> rusqlite::Result<StepResult> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tasks = tasks(&rows, cutoff)?;
    let more = tasks == MAX_TASKS
        || changes(&rows, cutoff)? >= MAX_ROWS
        || parents(&rows, cutoff)? == MAX_PARENTS
        || keys(&rows, cutoff)? == MAX_ROWS
        || messages(&rows, cutoff)? == MAX_ROWS;
    rows.commit()?;
    Ok(StepResult { tasks, more })
}

fn tasks(rows: &Transaction<'_>, cutoff: Cutoff) -> rusqlite::Result<usize> {
    let mut expired: Vec<String> = rows
        .prepare_cached("SELECT id FROM tasks WHERE left_at < ?1 LIMIT ?2")?
        .query_map(
            params![cutoff.expired_before.as_millis(), MAX_TASKS],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    if cutoff.ended {
        expired.extend(ended(rows, MAX_TASKS - expired.len())?);
    }
    for task in &expired {
        for sql in [
            "DELETE FROM stories WHERE subject = ?1",
            "DELETE FROM texts WHERE task = ?1",
            "DELETE FROM keys WHERE task = ?1",
            "DELETE FROM tasks WHERE id = ?1",
        ] {
            rows.prepare_cached(sql)?.execute([task])?;
        }
    }
    Ok(expired.len())
}

/// Returns ended tasks whose parent has no pending message and whose descendants are not open.
fn ended(rows: &Transaction<'_>, most: usize) -> rusqlite::Result<Vec<String>> {
    rows.prepare_cached(
        "SELECT id FROM tasks WHERE left_at IS NULL AND status NOT IN ('pending', 'running')
            AND coalesce(json_extract(record, '$.parentSessionID') NOT IN
                (SELECT parent FROM parents WHERE settled = 0), TRUE)
            AND coalesce(session NOT IN (SELECT parent FROM parents WHERE settled = 0), TRUE)
         LIMIT ?1",
    )?
    .query_map([most], |row| row.get(0))?
    .collect()
}

/// Deletes the oldest changes. The newest deleted number is recorded, so that a reader that asks for changes after an older
/// number gets an error.
fn changes(rows: &Transaction<'_>, cutoff: Cutoff) -> rusqlite::Result<usize> {
    let newest: Option<i64> = rows
        .prepare_cached(
            "SELECT max(number) FROM (SELECT number FROM changes WHERE at < ?1 ORDER BY at, number LIMIT ?2)",
        )?
        .query_row(params![cutoff.expired_before.as_millis(), MAX_ROWS], |row| row.get(0))?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    record_deleted_changes(rows, newest)?;
    rows.prepare_cached("DELETE FROM changes WHERE number <= ?1")?
        .execute([newest])
}

fn record_deleted_changes(rows: &Transaction<'_>, number: i64) -> rusqlite::Result<()> {
    rows.prepare_cached("UPDATE marks SET value = max(value, ?1) WHERE name = 'changes_gone'")?
        .execute([number])?;
    Ok(())
}

/// Deletes all changes of deleted tasks at once. Only used on a journal that no service uses.
pub(crate) fn delete_orphaned_changes(db: &mut Connection) -> rusqlite::Result<()> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest: Option<i64> = rows.query_row(
        "SELECT max(number) FROM changes WHERE task NOT IN (SELECT id FROM tasks)",
        [],
        |row| row.get(0),
    )?;
    if let Some(newest) = newest {
        record_deleted_changes(&rows, newest)?;
        rows.execute(
            "DELETE FROM changes WHERE task NOT IN (SELECT id FROM tasks)",
            [],
        )?;
    }
    rows.commit()
}

fn parents(rows: &Transaction<'_>, cutoff: Cutoff) -> rusqlite::Result<usize> {
    let expired: Vec<String> = rows
        .prepare_cached(
            "SELECT parent FROM parents WHERE settled = 1 AND changed_at < ?1 LIMIT ?2",
        )?
        .query_map(
            params![cutoff.expired_before.as_millis(), MAX_PARENTS],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    for parent in &expired {
        for sql in [
            "DELETE FROM ledger WHERE parent = ?1",
            "DELETE FROM parents WHERE parent = ?1",
        ] {
            rows.prepare_cached(sql)?.execute([parent])?;
        }
    }
    Ok(expired.len())
}

fn keys(rows: &Transaction<'_>, cutoff: Cutoff) -> rusqlite::Result<usize> {
    rows.prepare_cached(
        "DELETE FROM keys WHERE seq IN (SELECT seq FROM keys WHERE at <= ?1 ORDER BY seq LIMIT ?2)",
    )?
    .execute(params![cutoff.keys_before.as_millis(), MAX_ROWS])
}

/// Deletes the timelines of messages, whose ids begin with `ntc_`. The timelines of tasks with such an id stay.
fn messages(rows: &Transaction<'_>, cutoff: Cutoff) -> rusqlite::Result<usize> {
    rows.prepare_cached(
        "DELETE FROM stories WHERE (subject, line) IN (
            SELECT subject, line FROM stories
            WHERE subject >= 'ntc_' AND subject < 'ntc`' AND at < ?1
                AND subject NOT IN (SELECT id FROM tasks) LIMIT ?2)",
    )?
    .execute(params![cutoff.expired_before.as_millis(), MAX_ROWS])
}

//! What is let go of, in small steps, so that nobody who appends waits long: tasks that left memory longer ago than the
//! retention with their stories, changes of that age, parents that nothing was owed to for as long, keys older than a day.

use std::time::Duration;

use greenroom::domain::idempotency::REMEMBERED;
use greenroom::domain::time::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

/// Rows of one transaction, as far as a task's own can be counted beforehand.
const ROWS: usize = 500;
/// A task has about ten rows, and a story at most a hundred.
const TASKS: usize = ROWS / 10;
/// A parent has a hundred rows and more before they are written as one.
const PARENTS: usize = ROWS / 100;

/// What is let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Everything that was over before then.
    pub(crate) over_before: Timestamp,
    /// Keys from before then.
    pub(crate) keys_before: Timestamp,
    /// Also tasks that have ended and are still in the memory of a service, if nobody waits for them.
    pub(crate) ended: bool,
}

impl Cut {
    /// What nobody may ask for any more.
    pub(crate) fn by_age(now: Timestamp, retention: Duration) -> Self {
        Self {
            over_before: before(now, retention),
            keys_before: before(now, REMEMBERED),
            ended: false,
        }
    }
}

/// So long before that time.
pub(crate) fn before(now: Timestamp, time: Duration) -> Timestamp {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(time))
}

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Done {
    /// Tasks that are gone.
    pub(crate) tasks: usize,
    /// True if there may be more.
    pub(crate) more: bool,
}

/// Lets go of some of it.
pub(crate) fn step(db: &mut Connection, cut: Cut) -> rusqlite::Result<Done> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tasks = tasks(&rows, cut)?;
    let more = tasks == TASKS
        || changes(&rows, cut)? >= ROWS
        || parents(&rows, cut)? == PARENTS
        || keys(&rows, cut)? == ROWS
        || messages(&rows, cut)? == ROWS;
    rows.commit()?;
    Ok(Done { tasks, more })
}

fn tasks(rows: &Transaction<'_>, cut: Cut) -> rusqlite::Result<usize> {
    let mut over: Vec<String> = rows
        .prepare_cached("SELECT id FROM tasks WHERE left_at < ?1 LIMIT ?2")?
        .query_map(params![cut.over_before.as_millis(), TASKS], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    if cut.ended {
        over.extend(ended(rows, TASKS - over.len())?);
    }
    for task in &over {
        for sql in [
            "DELETE FROM stories WHERE subject = ?1",
            "DELETE FROM texts WHERE task = ?1",
            "DELETE FROM keys WHERE task = ?1",
            "DELETE FROM tasks WHERE id = ?1",
        ] {
            rows.prepare_cached(sql)?.execute([task])?;
        }
    }
    Ok(over.len())
}

/// Tasks that have ended, whose parent is owed nothing, and below which nothing is open.
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

/// The oldest changes. That they are gone is remembered: who asks for what followed them is told.
fn changes(rows: &Transaction<'_>, cut: Cut) -> rusqlite::Result<usize> {
    let newest: Option<i64> = rows
        .prepare_cached(
            "SELECT max(number) FROM (SELECT number FROM changes WHERE at < ?1 ORDER BY at, number LIMIT ?2)",
        )?
        .query_row(params![cut.over_before.as_millis(), ROWS], |row| row.get(0))?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    gone(rows, newest)?;
    rows.prepare_cached("DELETE FROM changes WHERE number <= ?1")?
        .execute([newest])
}

fn gone(rows: &Transaction<'_>, number: i64) -> rusqlite::Result<()> {
    rows.prepare_cached("UPDATE marks SET value = max(value, ?1) WHERE name = 'changes_gone'")?
        .execute([number])?;
    Ok(())
}

/// Changes of tasks that are gone, all at once: only where nobody appends.
pub(crate) fn changes_of_nobody(db: &mut Connection) -> rusqlite::Result<()> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest: Option<i64> = rows.query_row(
        "SELECT max(number) FROM changes WHERE task NOT IN (SELECT id FROM tasks)",
        [],
        |row| row.get(0),
    )?;
    if let Some(newest) = newest {
        gone(&rows, newest)?;
        rows.execute(
            "DELETE FROM changes WHERE task NOT IN (SELECT id FROM tasks)",
            [],
        )?;
    }
    rows.commit()
}

fn parents(rows: &Transaction<'_>, cut: Cut) -> rusqlite::Result<usize> {
    let over: Vec<String> = rows
        .prepare_cached(
            "SELECT parent FROM parents WHERE settled = 1 AND changed_at < ?1 LIMIT ?2",
        )?
        .query_map(params![cut.over_before.as_millis(), PARENTS], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    for parent in &over {
        for sql in [
            "DELETE FROM ledger WHERE parent = ?1",
            "DELETE FROM parents WHERE parent = ?1",
        ] {
            rows.prepare_cached(sql)?.execute([parent])?;
        }
    }
    Ok(over.len())
}

fn keys(rows: &Transaction<'_>, cut: Cut) -> rusqlite::Result<usize> {
    rows.prepare_cached(
        "DELETE FROM keys WHERE seq IN (SELECT seq FROM keys WHERE at <= ?1 ORDER BY seq LIMIT ?2)",
    )?
    .execute(params![cut.keys_before.as_millis(), ROWS])
}

/// What happened to messages; they are named `ntc_…`, and no task's own story is taken for one.
fn messages(rows: &Transaction<'_>, cut: Cut) -> rusqlite::Result<usize> {
    rows.prepare_cached(
        "DELETE FROM stories WHERE (subject, line) IN (
            SELECT subject, line FROM stories
            WHERE subject >= 'ntc_' AND subject < 'ntc`' AND at < ?1
                AND subject NOT IN (SELECT id FROM tasks) LIMIT ?2)",
    )?
    .execute(params![cut.over_before.as_millis(), ROWS])
}

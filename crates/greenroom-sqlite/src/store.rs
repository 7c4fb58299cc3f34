//! What was appended, as rows: one transaction for all that waits. It decides nothing: what the rows mean is for the fold
//! and the ledger of the crate `greenroom`.

use std::sync::Arc;

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::ledger::Account;
use greenroom::domain::story::{self, LINES, Line};
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{Changed, Entry};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::reading;

/// A parent's entries are written as one account after so many; a large account is not written anew for few of them.
const MOST_ENTRIES: usize = 100;

/// The kinds of rows in the ledger.
pub(crate) const ENTRY: i64 = 0;
pub(crate) const WHOLE: i64 = 1;

/// One append on its way to the disk.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) place: u64,
    pub(crate) at: Timestamp,
    pub(crate) entries: Vec<Entry>,
    /// The parents whose accounts it changes, as they stand after it.
    pub(crate) touched: Vec<Touched>,
}

/// How a parent's account stands.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) parent: SessionId,
    pub(crate) settled: bool,
    pub(crate) silenced: bool,
}

/// Numbers of ours are far below the half that SQLite does not have.
pub(crate) fn stored(number: u64) -> i64 {
    number.cast_signed()
}

/// Writes them in their order, all or none.
pub(crate) fn write(db: &mut Connection, batch: &[Arc<Appended>]) -> rusqlite::Result<()> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for appended in batch {
        for entry in &appended.entries {
            write_entry(&rows, appended.at, entry)?;
        }
        for touched in &appended.touched {
            write_touched(&rows, appended.at, touched)?;
        }
    }
    if let Some(last) = batch.last() {
        rows.prepare_cached("UPDATE marks SET value = ?1 WHERE name = 'place'")?
            .execute([stored(last.place)])?;
    }
    rows.commit()
}

fn write_entry(rows: &Transaction<'_>, at: Timestamp, entry: &Entry) -> rusqlite::Result<()> {
    match entry {
        Entry::Task {
            accepted,
            age,
            task,
            changed,
        } => write_task(rows, at, (*accepted, *age), task, *changed)?,
        Entry::Granted(task, run) => mark(
            rows,
            "UPDATE tasks SET granted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        Entry::Prompted(task, run) => mark(
            rows,
            "UPDATE tasks SET prompted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        Entry::Aborted(task, run) => mark(
            rows,
            "UPDATE tasks SET aborted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        Entry::Forgotten(task, left_at) => {
            rows.prepare_cached("UPDATE tasks SET left_at = ?2 WHERE id = ?1 AND left_at IS NULL")?
                .execute(params![task.as_str(), left_at.as_millis()])?;
        }
        Entry::Key(key) => {
            rows.prepare_cached("INSERT INTO keys (at, task, record) VALUES (?1, ?2, ?3)")?
                .execute(params![key.at.as_millis(), key.task.as_str(), json(key)?])?;
        }
        Entry::Unaccepted(task) => {
            rows.prepare_cached("DELETE FROM keys WHERE task = ?1")?
                .execute([task.as_str()])?;
        }
        entry => {
            if let Some(parent) = entry.parent() {
                rows.prepare_cached("INSERT INTO ledger (parent, kind, body) VALUES (?1, ?2, ?3)")?
                    .execute(params![parent.as_str(), ENTRY, json(entry)?])?;
            }
        }
    }
    for (subject, line) in story::lines(entry) {
        write_line(rows, at, subject, &line)?;
    }
    Ok(())
}

fn mark(rows: &Transaction<'_>, sql: &str, task: &TaskId, run: Run) -> rusqlite::Result<()> {
    rows.prepare_cached(sql)?
        .execute(params![task.as_str(), run.0])?;
    Ok(())
}

fn write_task(
    rows: &Transaction<'_>,
    at: Timestamp,
    (accepted, age): (u64, u64),
    task: &Task,
    changed: Option<Changed>,
) -> rusqlite::Result<()> {
    let mut short = task.clone();
    let prompt = std::mem::take(&mut short.prompt);
    let skill_content = short.skill_content.take();
    let record = json(&short)?;
    // Mostly the same as before: then nothing is written.
    rows.prepare_cached(
        "INSERT INTO texts (task, run, prompt, skill_content) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (task, run) DO UPDATE SET prompt = excluded.prompt, skill_content = excluded.skill_content
         WHERE prompt <> excluded.prompt OR skill_content IS NOT excluded.skill_content",
    )?
    .execute(params![task.id.as_str(), task.run.0, prompt, skill_content])?;
    // One that comes back after it had left begins with no run granted, as in the fold.
    rows.prepare_cached(
        "INSERT INTO tasks (id, accepted, age, session, status, run, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET
            granted = CASE WHEN left_at IS NULL THEN granted END,
            prompted = CASE WHEN left_at IS NULL THEN prompted END,
            aborted = CASE WHEN left_at IS NULL THEN aborted END,
            accepted = excluded.accepted, age = excluded.age, session = excluded.session,
            status = excluded.status, run = excluded.run, left_at = NULL, record = excluded.record",
    )?
    .execute(params![
        task.id.as_str(),
        stored(accepted),
        stored(age),
        task.session.as_ref().map(SessionId::as_str),
        task.status().as_str(),
        task.run.0,
        record,
    ])?;
    if let Some(changed) = changed {
        rows.prepare_cached(
            "INSERT OR REPLACE INTO changes (number, at, task, run, from_status, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            stored(changed.number),
            at.as_millis(),
            task.id.as_str(),
            task.run.0,
            changed.from.map(|from| from.as_str()),
            record,
        ])?;
    }
    Ok(())
}

/// The rule of [`story::keep`]: the newest line takes the place of the last one that there is room for.
fn write_line(
    rows: &Transaction<'_>,
    at: Timestamp,
    subject: &str,
    line: &Line,
) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "INSERT OR REPLACE INTO stories (subject, line, at, what, detail)
         SELECT ?1, min(coalesce(max(line) + 1, 0), ?2), ?3, ?4, ?5 FROM stories WHERE subject = ?1",
    )?
    .execute(params![
        subject,
        LINES - 1,
        at.as_millis(),
        line.what,
        line.detail,
    ])?;
    Ok(())
}

fn write_touched(rows: &Transaction<'_>, at: Timestamp, touched: &Touched) -> rusqlite::Result<()> {
    let parent = touched.parent.as_str();
    let (entries, most): (usize, usize) = rows
        .prepare_cached(
            "INSERT INTO parents (parent, settled, silenced, changed_at, entries, most_entries)
             VALUES (?1, ?2, ?3, ?4, 1, ?5)
             ON CONFLICT (parent) DO UPDATE SET settled = excluded.settled, silenced = excluded.silenced,
                changed_at = excluded.changed_at, entries = entries + 1
             RETURNING entries, most_entries",
        )?
        .query_row(
            params![parent, touched.settled, touched.silenced, at.as_millis(), MOST_ENTRIES],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    if entries < most {
        return Ok(());
    }
    match reading::account(rows, parent)? {
        Ok(Some(account)) => write_whole(rows, parent, &account),
        Ok(None) => Ok(()),
        Err(error) => {
            // It stays as it is, for people to look at.
            tracing::error!(parent, %error, "an account in the journal cannot be read");
            Ok(())
        }
    }
}

fn write_whole(rows: &Transaction<'_>, parent: &str, account: &Account) -> rusqlite::Result<()> {
    let size = account.members().count() + account.posted.len();
    rows.prepare_cached("DELETE FROM ledger WHERE parent = ?1")?
        .execute([parent])?;
    rows.prepare_cached("INSERT INTO ledger (parent, kind, body) VALUES (?1, ?2, ?3)")?
        .execute(params![parent, WHOLE, json(account)?])?;
    rows.prepare_cached("UPDATE parents SET entries = 0, most_entries = ?2 WHERE parent = ?1")?
        .execute(params![parent, MOST_ENTRIES.max(size)])?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

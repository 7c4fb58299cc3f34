//! Writes appends as rows, many in one transaction. The meaning of the rows is defined by the fold and the outboxes of the
//! crate `greenroom`.

use std::sync::Arc;

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::outbox::Outbox;
use greenroom::domain::session_owner::SessionOwner;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline::{self, MAX_ENTRIES, TimelineEntry};
use greenroom::ports::journal::{Changed, JournalEntry};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::queries;

/// After this many entries the outbox of a parent is written as one row. The limit of a large outbox is larger, so that
/// it is not rewritten for a few entries.
const MIN_ENTRY_LIMIT: usize = 100;

/// The newest changes of owners that are kept.
pub(crate) const MAX_OWNERS: i64 = 10_000;

/// The kinds of rows in the table `ledger`.
pub(crate) const KIND_ENTRY: i64 = 0;
pub(crate) const KIND_OUTBOX: i64 = 1;

/// One append to be written.
#[derive(Debug)]
pub(crate) struct PendingAppend {
    pub(crate) lsn: u64,
    pub(crate) at: Timestamp,
    pub(crate) entries: Vec<JournalEntry>,
    /// The outboxes that it changes, in their state after it.
    pub(crate) changed_outboxes: Vec<ChangedOutbox>,
}

/// The state of a changed outbox.
#[derive(Debug)]
pub(crate) struct ChangedOutbox {
    pub(crate) parent: SessionId,
    pub(crate) settled: bool,
    pub(crate) silenced: bool,
}

/// Converts a number to SQLite's signed form; numbers are far below its limit.
pub(crate) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

/// Writes the appends in order, all or none.
pub(crate) fn write(db: &mut Connection, batch: &[Arc<PendingAppend>]) -> rusqlite::Result<()> {
    let rows = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for append in batch {
        for entry in &append.entries {
            write_entry(&rows, append.at, entry)?;
        }
        for changed_outboxes in &append.changed_outboxes {
            write_changed_outbox(&rows, append.at, changed_outboxes)?;
        }
    }
    if let Some(last) = batch.last() {
        rows.prepare_cached("UPDATE marks SET value = ?1 WHERE name = 'place'")?
            .execute([to_sql(last.lsn)])?;
    }
    rows.commit()
}

fn write_entry(
    rows: &Transaction<'_>,
    at: Timestamp,
    entry: &JournalEntry,
) -> rusqlite::Result<()> {
    match entry {
        JournalEntry::Task {
            accepted,
            queue_seq,
            task,
            changed,
        } => write_task(rows, at, (*accepted, *queue_seq), task, *changed)?,
        JournalEntry::Granted(task, run) => set_run(
            rows,
            "UPDATE tasks SET granted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        JournalEntry::Prompted(task, run) => set_run(
            rows,
            "UPDATE tasks SET prompted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        JournalEntry::Aborted(task, run) => set_run(
            rows,
            "UPDATE tasks SET aborted = ?2 WHERE id = ?1 AND left_at IS NULL",
            task,
            *run,
        )?,
        JournalEntry::Forgotten(task, left_at) => {
            rows.prepare_cached("UPDATE tasks SET left_at = ?2 WHERE id = ?1 AND left_at IS NULL")?
                .execute(params![task.as_str(), left_at.as_millis()])?;
        }
        JournalEntry::Key(key) => {
            rows.prepare_cached("INSERT INTO keys (at, task, record) VALUES (?1, ?2, ?3)")?
                .execute(params![key.at.as_millis(), key.task.as_str(), json(key)?])?;
        }
        JournalEntry::Unaccepted(task) => {
            rows.prepare_cached("DELETE FROM keys WHERE task = ?1")?
                .execute([task.as_str()])?;
        }
        JournalEntry::AbortReceived(session, received) => {
            rows.prepare_cached("INSERT OR REPLACE INTO aborts (session, at) VALUES (?1, ?2)")?
                .execute(params![session.as_str(), received.as_millis()])?;
        }
        JournalEntry::AbortJudged(session) => {
            rows.prepare_cached("DELETE FROM aborts WHERE session = ?1")?
                .execute([session.as_str()])?;
        }
        JournalEntry::Owner(session, owner) => write_owner(rows, session, owner.as_ref())?,
        entry => {
            if let Some(parent) = entry.parent() {
                rows.prepare_cached("INSERT INTO ledger (parent, kind, body) VALUES (?1, ?2, ?3)")?
                    .execute(params![parent.as_str(), KIND_ENTRY, json(entry)?])?;
            }
        }
    }
    for (subject, line) in timeline::entries_of(entry) {
        write_timeline_entry(rows, at, subject, &line)?;
    }
    Ok(())
}

fn write_owner(
    rows: &Transaction<'_>,
    session: &SessionId,
    owner: Option<&SessionOwner>,
) -> rusqlite::Result<()> {
    let Some(owner) = owner else {
        rows.prepare_cached("DELETE FROM owners WHERE session = ?1")?
            .execute([session.as_str()])?;
        return Ok(());
    };
    rows.prepare_cached(
        "INSERT OR REPLACE INTO owners (seq, session, pid, directory)
         SELECT coalesce(max(seq), 0) + 1, ?1, ?2, ?3 FROM owners",
    )?
    .execute(params![session.as_str(), owner.pid, owner.directory])?;
    rows.prepare_cached("DELETE FROM owners WHERE seq <= (SELECT max(seq) FROM owners) - ?1")?
        .execute([MAX_OWNERS])?;
    Ok(())
}

fn set_run(rows: &Transaction<'_>, sql: &str, task: &TaskId, run: Run) -> rusqlite::Result<()> {
    rows.prepare_cached(sql)?
        .execute(params![task.as_str(), run.0])?;
    Ok(())
}

fn write_task(
    rows: &Transaction<'_>,
    at: Timestamp,
    (accepted, queue_seq): (u64, u64),
    task: &Task,
    changed: Option<Changed>,
) -> rusqlite::Result<()> {
    let mut short = task.clone();
    let prompt = std::mem::take(&mut short.prompt);
    let skill_content = short.skill_content.take();
    let record = json(&short)?;
    // Usually unchanged; then nothing is written.
    rows.prepare_cached(
        "INSERT INTO texts (task, run, prompt, skill_content) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (task, run) DO UPDATE SET prompt = excluded.prompt, skill_content = excluded.skill_content
         WHERE prompt <> excluded.prompt OR skill_content IS NOT excluded.skill_content",
    )?
    .execute(params![task.id.as_str(), task.run.0, prompt, skill_content])?;
    // A resumed task that had been evicted starts without a granted run, and a waiting run without a prompt, as in the
    // fold.
    rows.prepare_cached(
        "INSERT INTO tasks (id, accepted, age, session, status, run, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET
            granted = CASE WHEN left_at IS NULL THEN granted END,
            prompted = CASE WHEN left_at IS NULL AND excluded.status <> 'pending' THEN prompted END,
            aborted = CASE WHEN left_at IS NULL THEN aborted END,
            accepted = excluded.accepted, age = excluded.age, session = excluded.session,
            status = excluded.status, run = excluded.run, left_at = NULL, record = excluded.record",
    )?
    .execute(params![
        task.id.as_str(),
        to_sql(accepted),
        to_sql(queue_seq),
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
            to_sql(changed.number),
            at.as_millis(),
            task.id.as_str(),
            task.run.0,
            changed.from.map(|from| from.as_str()),
            record,
        ])?;
    }
    Ok(())
}

/// Adds a timeline entry by the rule of [`timeline::push`]: once a timeline is full, the newest entry replaces the last one.
fn write_timeline_entry(
    rows: &Transaction<'_>,
    at: Timestamp,
    subject: &str,
    line: &TimelineEntry,
) -> rusqlite::Result<()> {
    rows.prepare_cached(
        "INSERT OR REPLACE INTO stories (subject, line, at, what, detail)
         SELECT ?1, min(coalesce(max(line) + 1, 0), ?2), ?3, ?4, ?5 FROM stories WHERE subject = ?1",
    )?
    .execute(params![
        subject,
        MAX_ENTRIES - 1,
        at.as_millis(),
        line.what,
        line.detail,
    ])?;
    Ok(())
}

fn write_changed_outbox(
    rows: &Transaction<'_>,
    at: Timestamp,
    changed_outboxes: &ChangedOutbox,
) -> rusqlite::Result<()> {
    let parent = changed_outboxes.parent.as_str();
    let (entries, most): (usize, usize) = rows
        .prepare_cached(
            "INSERT INTO parents (parent, settled, silenced, changed_at, entries, most_entries)
             VALUES (?1, ?2, ?3, ?4, 1, ?5)
             ON CONFLICT (parent) DO UPDATE SET settled = excluded.settled, silenced = excluded.silenced,
                changed_at = excluded.changed_at, entries = entries + 1
             RETURNING entries, most_entries",
        )?
        .query_row(
            params![parent, changed_outboxes.settled, changed_outboxes.silenced, at.as_millis(), MIN_ENTRY_LIMIT],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
    if entries < most {
        return Ok(());
    }
    match queries::outbox(rows, parent)? {
        Ok(Some(outbox)) => write_outbox(rows, parent, &outbox),
        Ok(None) => Ok(()),
        Err(error) => {
            // The rows stay as they are, for inspection.
            tracing::error!(parent, %error, "could not read an outbox of the journal");
            Ok(())
        }
    }
}

fn write_outbox(rows: &Transaction<'_>, parent: &str, outbox: &Outbox) -> rusqlite::Result<()> {
    let size = outbox.members().count() + outbox.messages.len();
    rows.prepare_cached("DELETE FROM ledger WHERE parent = ?1")?
        .execute([parent])?;
    rows.prepare_cached("INSERT INTO ledger (parent, kind, body) VALUES (?1, ?2, ?3)")?
        .execute(params![parent, KIND_OUTBOX, json(outbox)?])?;
    rows.prepare_cached("UPDATE parents SET entries = 0, most_entries = ?2 WHERE parent = ?1")?
        .execute(params![parent, MIN_ENTRY_LIMIT.max(size)])?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

//! Promise 1, **Ends**, in time: limits that end a run are neither pushed on nor early. "After `retryTimeout` of nothing else
//! the attempt ends": the server backing off again and again is nothing else. "Idle or absent for 30 s with no assistant
//! message of this run": the time counts from the moment the server has the prompt.

use std::collections::BTreeMap;

use greenroom::TaskChange;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, What};
use crate::explore::observed::{Ledger, Mark, Origin};

/// What a call may take between an end that is due and its record, in milliseconds.
const SLACK: i64 = 5000;

/// Since when the system is told of nothing else than the server backing off.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    backing_off: BTreeMap<SessionId, Mark>,
}

impl Deadlines {
    fn follow(&mut self, mark: Mark, entry: &Entry, ledger: &Ledger) {
        match &entry.what {
            What::Event { session, kind, .. } if kind == "session.status retry" => {
                let runs = ledger
                    .open()
                    .any(|run| run.session.as_ref() == Some(session) && run.running.is_some());
                if runs {
                    self.backing_off.entry(session.clone()).or_insert(mark);
                }
            }
            What::Event { kind, .. } if kind == "session.status busy" => {}
            What::Event { session, .. } => {
                self.backing_off.remove(session);
            }
            // A further prompt is something else.
            What::Effect(number) | What::Returned { number, .. } => match ledger.call(*number) {
                Some(Call::Prompt { session, .. }) => {
                    self.backing_off.remove(session);
                }
                Some(Call::Notify { parent, .. }) => {
                    self.backing_off.remove(parent);
                }
                _ => {}
            },
            What::Changed(change) if change.to != TaskStatus::Pending => {
                if let Some(session) = &change.task.session {
                    self.backing_off.remove(session);
                }
            }
            What::Sabotaged(_) | What::Crashed(_) => self.backing_off.clear(),
            _ => {}
        }
    }

    fn overdue(&self, at: i64, ledger: &Ledger) -> Option<String> {
        // One that died too often is built again only half a minute later, and the end is recorded then.
        if ledger.registry_died.is_some() {
            return None;
        }
        let limit = i64::try_from(ledger.config.lifecycle.retry_timeout.as_millis()).ok()?;
        self.backing_off.iter().find_map(|(session, since)| {
            if at <= since.at.saturating_add(limit + SLACK) {
                return None;
            }
            let run = ledger
                .open()
                .find(|run| run.session.as_ref() == Some(session) && run.running.is_some())?;
            Some(format!(
                "{} run {} goes on, and is told of nothing but the server backing off since {}",
                run.task, run.run, since.at
            ))
        })
    }
}

/// True if that long has passed since the server had the first prompt of the run.
fn taken_up_in_vain(at: i64, change: &TaskChange, ledger: &Ledger) -> Option<String> {
    if change.task.error() != Some("the prompt was not taken up") {
        return None;
    }
    let limit = ledger.config.lifecycle.not_taken_up?;
    let run = ledger.run(&change.task.id, change.task.run)?;
    let waited = run.prompted.map(|prompted| at - prompted.at);
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let long = waited.is_some_and(|waited| waited >= limit);
    (!long && run.origin != Origin::Track && !run.sabotaged).then(|| {
        format!(
            "{} run {} is given up, \"the prompt was not taken up\", {waited:?} ms after the server had it",
            run.task, run.run
        )
    })
}

impl Promise for Deadlines {
    fn name(&self) -> &'static str {
        "1 Ends (time limits)"
    }

    fn see(&mut self, place: usize, entry: &Entry, ledger: &Ledger) -> Option<String> {
        let mark = Mark {
            place,
            at: entry.at,
        };
        if let What::Changed(change) = &entry.what
            && change.to == TaskStatus::Interrupt
            && let Some(wrong) = taken_up_in_vain(entry.at, change, ledger)
        {
            return Some(wrong);
        }
        self.follow(mark, entry, ledger);
        self.overdue(entry.at, ledger)
    }
}

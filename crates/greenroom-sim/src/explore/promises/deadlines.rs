//! Promise 1, **Ends**, time limits: a limit that ends a run is neither postponed nor early. "After
//! `retryTimeout` of nothing else the attempt ends": repeated backing off of the server does not restart the
//! limit. "Idle or absent for 30 s with no assistant message of this run": the time counts from the moment
//! the server has the prompt.

use std::collections::BTreeMap;

use greenroom::TaskChange;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState, Origin};

/// The tolerated delay between a deadline and the recorded end, in milliseconds.
const SLACK: i64 = 5000;

/// Sessions of which only backing off was reported, with the position of the first report.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    backing_off: BTreeMap<SessionId, LogPosition>,
}

impl Deadlines {
    fn track(&mut self, position: LogPosition, entry: &Entry, observed: &ObservedState) {
        match &entry.event {
            LogEvent::EventDelivered { session, kind, .. } if kind == "session.status retry" => {
                let is_running = observed
                    .open()
                    .any(|run| run.session.as_ref() == Some(session) && run.running.is_some());
                if is_running {
                    self.backing_off.entry(session.clone()).or_insert(position);
                }
            }
            LogEvent::EventDelivered { kind, .. } if kind == "session.status busy" => {}
            LogEvent::EventDelivered { session, .. } => {
                self.backing_off.remove(session);
            }
            // A further prompt ends the backing off.
            LogEvent::CallApplied(number) | LogEvent::CallReturned { number, .. } => {
                match observed.call(*number) {
                    Some(Call::Prompt { session, .. }) => {
                        self.backing_off.remove(session);
                    }
                    Some(Call::Notify { parent, .. }) => {
                        self.backing_off.remove(parent);
                    }
                    _ => {}
                }
            }
            LogEvent::TaskChanged(change) if change.to != TaskStatus::Pending => {
                if let Some(session) = &change.task.session {
                    self.backing_off.remove(session);
                }
            }
            LogEvent::FailpointHit(_) | LogEvent::ProcessCrashed(_) => self.backing_off.clear(),
            _ => {}
        }
    }

    fn overdue(&self, at: i64, observed: &ObservedState) -> Option<String> {
        // A registry that panicked too often is rebuilt half a minute later, and records the end then.
        if observed.registry_panicked.is_some() {
            return None;
        }
        let limit = i64::try_from(observed.config.lifecycle.retry_timeout.as_millis()).ok()?;
        self.backing_off.iter().find_map(|(session, since)| {
            if at <= since.at.saturating_add(limit + SLACK) {
                return None;
            }
            let run = observed
                .open()
                .find(|run| run.session.as_ref() == Some(session) && run.running.is_some())?;
            Some(format!(
                "{} run {} continues, although only backing off was reported since {}",
                run.task, run.run, since.at
            ))
        })
    }
}

/// Returns a violation if a run ended as not taken up before its limit had passed since the first prompt.
fn not_taken_up_early(at: i64, change: &TaskChange, observed: &ObservedState) -> Option<String> {
    if change.task.error() != Some("the prompt was not taken up") {
        return None;
    }
    let limit = observed.config.lifecycle.not_taken_up?;
    let run = observed.run(&change.task.id, change.task.run)?;
    let waited = run.prompted.map(|prompted| at - prompted.at);
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let long = waited.is_some_and(|waited| waited >= limit);
    (!long && run.origin != Origin::Track && !run.actor_panicked).then(|| {
        format!(
            "{} run {} ended with \"the prompt was not taken up\" {waited:?} ms after the server had the prompt",
            run.task, run.run
        )
    })
}

impl Promise for Deadlines {
    fn name(&self) -> &'static str {
        "1 Ends (time limits)"
    }

    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String> {
        let position = LogPosition {
            index,
            at: entry.at,
        };
        if let LogEvent::TaskChanged(change) = &entry.event
            && change.to == TaskStatus::Interrupt
            && let Some(violation) = not_taken_up_early(entry.at, change, observed)
        {
            return Some(violation);
        }
        self.track(position, entry, observed);
        self.overdue(entry.at, observed)
    }
}

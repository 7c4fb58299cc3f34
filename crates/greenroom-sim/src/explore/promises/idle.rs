//! Promise 5, **Truth**, of completed runs: a run completes only if its session was seen idle after its last
//! sign of life. "Any sign of life in between drops it"; a check's answer "is dropped if the run has shown a
//! sign of life since the check began"; an absent session counts only after two polls in a row; polls of the
//! first 5 s and polls before a sign of life are not counted, and a failed status call counts for no session.
//! Judged by the events delivered to the system, not by the state of the server, so it applies with unreliable
//! events and calls as well.

use std::collections::BTreeMap;
use std::time::Duration;

use greenroom::domain::ids::SessionId;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState, RunFacts};

/// The reports to the system about each session with a run.
#[derive(Debug, Default)]
pub(super) struct Idle {
    activity: BTreeMap<SessionId, SessionActivity>,
    /// Status calls in flight: when they were made, and the sessions missing from their answers.
    called: BTreeMap<u64, (LogPosition, Vec<SessionId>)>,
    /// The time of the last failed or slow status call.
    failed: Option<i64>,
}

/// The activity of a session since its run started.
#[derive(Debug, Default)]
struct SessionActivity {
    sign: Option<LogPosition>,
    /// The newest idle event since the last sign of life.
    idle: Option<LogPosition>,
    /// The number of status answers without the session, since the last sign of life and after the guard.
    absent: u32,
    /// The latest time at which the session was certainly listed.
    listed: Option<i64>,
}

impl Idle {
    fn event(&mut self, position: LogPosition, session: &SessionId, kind: &str, sign: bool) {
        let Some(activity) = self.activity.get_mut(session) else {
            return;
        };
        // A reply is a sign of life only if its question was known.
        let reliable = sign && kind != "permission.replied" && kind != "question.rejected";
        if reliable {
            (activity.sign, activity.idle, activity.absent) = (Some(position), None, 0);
        } else if matches!(kind, "session.idle" | "session.status idle") {
            activity.idle = Some(position);
        }
    }

    /// Applies the answer of a status call, as of the time of the call.
    fn apply_statuses(
        &mut self,
        called: LogPosition,
        absent: &[SessionId],
        observed: &ObservedState,
    ) {
        let guard = millis(observed.config.lifecycle.min_idle);
        // Notifiers and aborts read statuses too, and the run does not see those answers. Its own poll is at
        // most one interval older, unless it failed.
        let poll = millis(observed.config.lifecycle.poll_interval);
        let window = poll + millis(observed.config.calls.other);
        let reliable = self.failed.is_none_or(|failed| failed + window < called.at);
        for run in observed.open() {
            let (Some(session), Some(running)) = (&run.session, run.running) else {
                continue;
            };
            let Some(activity) = self.activity.get_mut(session) else {
                continue;
            };
            if !absent.contains(session) {
                let known = reliable.then_some(called.at - poll);
                activity.listed = activity.listed.max(known);
            } else if called.at >= running.at + guard
                && activity.sign.is_none_or(|sign| sign.at <= called.at)
            {
                activity.absent += 1;
            }
        }
    }

    fn completed(&self, at: i64, run: &RunFacts, observed: &ObservedState) -> Option<String> {
        let activity = self.activity.get(run.session.as_ref()?)?;
        let running = run.running?;
        let sign = activity.sign.map(|sign| sign.at);
        let silent_since = sign.max(activity.listed).unwrap_or(running.at);
        let lifecycle = &observed.config.lifecycle;
        // A stale run ends at the first status answer that does not list it.
        let stale = activity.absent > 0
            && running.at + millis(lifecycle.stale_min_runtime) <= at
            && silent_since + millis(lifecycle.stale_timeout) < at;
        let crossed = activity.sign.is_some_and(|sign| sign.at >= at);
        if activity.idle.is_some() || activity.absent > 1 || stale || crossed || run.actor_panicked
        {
            return None;
        }
        Some(format!(
            "{} run {} is completed, but was seen idle {} since its start or last sign of life, {:?}",
            run.task,
            run.run,
            if activity.absent == 0 {
                "never"
            } else {
                "by one poll"
            },
            activity.sign
        ))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(0)
}

impl Promise for Idle {
    fn name(&self) -> &'static str {
        "5 Truth (idle)"
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
        match &entry.event {
            LogEvent::EventDelivered {
                session,
                kind,
                sign,
            } => self.event(position, session, kind, *sign),
            LogEvent::CallStarted {
                number,
                call: Call::Statuses,
            } => {
                self.called.insert(*number, (position, Vec::new()));
            }
            LogEvent::CallApplied(number) => {
                if let Some((_, absent)) = self.called.get_mut(number) {
                    let idle = |session: &&SessionId| {
                        observed.session(session).is_none_or(|known| !known.busy)
                    };
                    *absent = self.activity.keys().filter(idle).cloned().collect();
                }
            }
            LogEvent::CallReturned { number, answer } => {
                let (called, absent) = self.called.remove(number)?;
                let slow = entry.at - called.at > millis(observed.config.lifecycle.poll_interval);
                if slow || answer != "ok" {
                    self.failed = Some(entry.at);
                }
                if answer == "ok" {
                    self.apply_statuses(called, &absent, observed);
                }
            }
            LogEvent::TaskChanged(change) => {
                let run = observed.run(&change.task.id, change.task.run)?;
                match change.to {
                    TaskStatus::Running => {
                        // Earlier activity does not belong to this run.
                        let session = run.session.clone()?;
                        let since = change.at.as_millis();
                        // If the start is published late, activity since its decision counts.
                        let activity = self.activity.get(&session);
                        let newest = activity.and_then(|activity| activity.idle.max(activity.sign));
                        if newest.is_none_or(|newest| newest.at < since || since == entry.at) {
                            self.activity.insert(session, SessionActivity::default());
                        }
                    }
                    TaskStatus::Completed => {
                        return self.completed(change.at.as_millis(), run, observed);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        None
    }
}

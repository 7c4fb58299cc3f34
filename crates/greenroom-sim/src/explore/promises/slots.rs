//! Promise 2, **Slots**: "No run is started while a limit it counts against is full". The check counts what
//! the server sees: runs with a create or a prompt that have not ended. It implements the rules of limits
//! independently of the system.
//!
//! A grant is not visible; the first call after it may be much later (the parent is looked up first, a resume
//! waits for an abort). So a start is a violation only if there was no room for all holders at any moment
//! since the youngest of them was accepted, or cut off and put in line again: the last grant among them lies in that time, and all held their
//! slots then. If the limits were changed in that time, the holders may also have got their slots in order of their age.

use std::collections::BTreeMap;

use greenroom::config::Limits;
use greenroom::domain::ids::ConcurrencyKey;

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent, Request};
use crate::explore::observed::{LogPosition, ObservedState, RunFacts};

/// The limits, with the range of log indices in which each may have been in force.
#[derive(Debug)]
pub(super) struct Slots {
    limits: Vec<InForce>,
}

#[derive(Debug)]
struct InForce {
    until: usize,
    requested: usize,
    limits: Limits,
}

impl Slots {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits: vec![InForce {
                until: usize::MAX,
                requested: 0,
                limits,
            }],
        }
    }

    fn started(&self, index: usize, run: &RunFacts, observed: &ObservedState) -> Option<String> {
        let violation = self.violation(index, run, observed, |_| true)?;
        let mut holders: Vec<&RunFacts> = observed.runs.iter().collect();
        holders.retain(|other| other.occupies() && !other.is_adopted());
        // Runs that were accepted at the same time are listed in their order.
        holders.sort_by_key(|holder| holder.queued());
        let is_granted_by_age = (0..holders.len()).all(|newest| {
            let older = &holders[..=newest];
            let counts = |other: &RunFacts| {
                other.is_adopted() || older.iter().any(|it| std::ptr::eq(*it, other))
            };
            self.violation(index, holders[newest], observed, counts)
                .is_none()
        });
        (!is_granted_by_age).then_some(violation)
    }

    /// Returns a violation if under no limits that may have been in force there was room for the run and the other holders.
    fn violation(
        &self,
        index: usize,
        run: &RunFacts,
        observed: &ObservedState,
        counts: impl Fn(&RunFacts) -> bool,
    ) -> Option<String> {
        let mut violation = None;
        for rule in &self.limits {
            let (name, limit) = bucket(&rule.limits, &run.key);
            let one = over(index, run, observed, limit, rule, |other| {
                counts(other) && bucket(&rule.limits, &other.key).0 == name
            });
            let all = over(index, run, observed, rule.limits.max, rule, &counts);
            match (one, all) {
                (Verdict::NotThen, Verdict::NotThen) => {}
                (Verdict::Over(count), _) => {
                    violation = Some(format!("{count} run, but {name} has {limit}"))
                }
                (_, Verdict::Over(count)) => {
                    violation = Some(format!(
                        "{count} run, but all keys together have {}",
                        rule.limits.max
                    ))
                }
                // The start was valid under these limits, which may have been in force.
                _ => return None,
            }
        }
        violation.map(|violation| {
            format!(
                "{} run {} is started on {}: {violation}",
                run.task, run.run, run.key
            )
        })
    }
}

/// The verdict of one set of limits about a start.
enum Verdict {
    NotThen,
    Fine,
    Over(usize),
}

fn over(
    index: usize,
    run: &RunFacts,
    observed: &ObservedState,
    limit: u32,
    rule: &InForce,
    same: impl Fn(&RunFacts) -> bool,
) -> Verdict {
    if rule.until < run.accepted.index || rule.requested > index {
        return Verdict::NotThen;
    }
    // A run that was accepted after the end of the rule had no part in a grant under the rule.
    let holders: Vec<&RunFacts> = observed
        .runs
        .iter()
        .filter(|other| other.occupies() && same(other) && other.accepted.index <= rule.until)
        .collect();
    let youngest = holders
        .iter()
        .filter(|other| !other.is_adopted())
        .map(|other| other.queued())
        .max();
    let youngest = youngest.unwrap_or(run.queued());
    let count = holders
        .iter()
        .filter(|other| {
            held_for_sure(other, youngest) && !observed.may_wait_for_unpublished_child(other)
        })
        .count();
    if limit > 0 && count > limit as usize {
        Verdict::Over(count)
    } else {
        Verdict::Fine
    }
}

/// Returns true if the run certainly held its slot from that position on.
fn held_for_sure(run: &RunFacts, since: LogPosition) -> bool {
    let adopted = run.is_adopted() && run.accepted.at >= since.at;
    let released = run
        .may_be_released_until
        .is_some_and(|until| until.at >= since.at);
    !adopted && !released && !run.actor_panicked
}

/// Returns the name and the value of the limit of a key; zero is unlimited.
fn bucket(limits: &Limits, key: &ConcurrencyKey) -> (String, u32) {
    let key = key.as_str();
    let of = |table: &BTreeMap<String, u32>, name: &str| table.get(name).copied();
    if let Some(limit) = of(&limits.models, key) {
        return (format!("key {key}"), limit);
    }
    match key.find('/').map(|slash| &key[..slash]) {
        Some(provider) => match of(&limits.providers, provider) {
            Some(limit) => (format!("provider {provider}"), limit),
            None => (format!("key {key}"), limits.default),
        },
        None => (
            format!("key {key}"),
            of(&limits.providers, key).unwrap_or(limits.default),
        ),
    }
}

impl Promise for Slots {
    fn name(&self) -> &'static str {
        "2 Slots"
    }

    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String> {
        match &entry.event {
            LogEvent::Requested(Request::SetLimits(limits)) => {
                self.limits.push(InForce {
                    until: usize::MAX,
                    requested: index,
                    limits: (**limits).clone(),
                });
                None
            }
            LogEvent::ProcessCrashed(_) => {
                // Limits that were set do not survive a restart.
                let configured = self.limits[0].limits.clone();
                for rule in &mut self.limits {
                    rule.until = rule.until.min(index);
                }
                self.limits.push(InForce {
                    until: usize::MAX,
                    requested: index,
                    limits: configured,
                });
                None
            }
            LogEvent::Answered {
                request,
                answer: Err(_),
            } => {
                // Limits that could not be set are in force at most until the error is returned.
                let name = self
                    .limits
                    .iter_mut()
                    .filter(|rule| rule.requested == *request);
                if matches!(observed.request(*request), Some(Request::SetLimits(_))) {
                    name.for_each(|rule| rule.until = rule.until.min(index));
                }
                None
            }
            LogEvent::Answered { request, .. } => {
                // After the answer to a change the previous limits are no longer in force.
                let mut before = self
                    .limits
                    .iter_mut()
                    .filter(|rule| rule.requested < *request);
                if matches!(observed.request(*request), Some(Request::SetLimits(_))) {
                    before
                        .by_ref()
                        .for_each(|rule| rule.until = rule.until.min(index));
                }
                None
            }
            LogEvent::CallStarted {
                call: Call::Create { task, run, .. } | Call::Prompt { task, run, .. },
                ..
            } => {
                let run = observed.run(task, *run)?;
                let begins =
                    run.started.is_some_and(|started| started.index == index) && run.is_open();
                (begins && run.counts && !run.is_adopted())
                    .then(|| self.started(index, run, observed))
                    .flatten()
            }
            _ => None,
        }
    }
}

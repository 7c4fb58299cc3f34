//! Promise 3, **Wakes**: for every batch the parent gets exactly one final message, which asks it to go on.
//! Besides it, only a failure may wake the parent. No message is lost or doubled, and each message that counts
//! open tasks is followed by a later one. The content of each message must be true: statuses, errors and counts equal the values of the
//! runs.

mod silence;

use std::collections::{BTreeMap, BTreeSet};

use greenroom::domain::ids::{NoticeId, Run, SessionId, TaskId};
use greenroom::domain::notice::{NoticeKind, SettledFact};
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::Notice;

use super::Promise;
use crate::explore::log::{Call, Entry, Fact, LogEvent, Request};
use crate::explore::observed::{LogPosition, ObservedState, RunFacts};

/// The wait for an accepted message to be stored, in milliseconds.
pub(super) const CONFIRM_WAIT: i64 = 10_000;

type RunName = (TaskId, Run);

/// The messages sent to each parent.
#[derive(Debug)]
pub(super) struct Wakes {
    reliable: bool,
    /// The maximum time between decision and publication, in milliseconds.
    latency: i64,
    /// True if the server may store a message late. [`super::resent`] checks then whether it may be doubled.
    stores_late: bool,
    notices: BTreeMap<NoticeId, SentNotice>,
    /// The number of open children of each parent, by log index.
    open: BTreeMap<SessionId, Vec<(usize, usize)>>,
    parents: BTreeSet<SessionId>,
    /// The panics of notifiers and the crashes.
    panics: Vec<LogPosition>,
}

#[derive(Debug)]
struct SentNotice {
    parent: SessionId,
    kind: NoticeKind,
    runs: Vec<RunName>,
    effects: u32,
    at: LogPosition,
    /// The last time at which it was stored.
    stored: Option<LogPosition>,
    /// True if its user has reverted and deleted it.
    is_removed: bool,
    /// True if it repeats a message whose turn failed.
    is_repeat: bool,
}

impl SentNotice {
    /// Returns true if it was stored after the wait for it, or after a crash: the next message may repeat its reports.
    fn was_stored_late(&self, observed: &ObservedState) -> bool {
        self.stored.is_some_and(|stored| {
            let mut crashes = observed.crashes.iter();
            stored.at > self.at.at + CONFIRM_WAIT
                || crashes.any(|crash| (self.at..stored).contains(crash))
        })
    }
}

impl Wakes {
    pub(super) fn new(reliable: bool, latency: i64, stores_late: bool) -> Self {
        Self {
            reliable,
            latency,
            stores_late,
            notices: BTreeMap::new(),
            open: BTreeMap::new(),
            parents: BTreeSet::new(),
            panics: Vec::new(),
        }
    }

    fn check_notice(
        &mut self,
        position: LogPosition,
        parent: &SessionId,
        notice: &Notice,
        observed: &ObservedState,
    ) -> Option<String> {
        if observed.registry_panicked.is_some() {
            return None;
        }
        if let Some(violation) = self.check_wake(position, parent, notice, observed) {
            return Some(format!("{parent} {} {violation}", notice.id));
        }
        if self.notices.contains_key(&notice.id) {
            return None;
        }
        if notice.facts.kind == NoticeKind::Continue {
            return self.check_continue(position, parent, notice, observed);
        }
        let mut sent = SentNotice {
            parent: parent.clone(),
            kind: notice.facts.kind,
            runs: Vec::new(),
            effects: 0,
            at: position,
            stored: None,
            is_removed: false,
            is_repeat: false,
        };
        for fact in &notice.facts.tasks {
            let Some(run) = self.reported_run(parent, notice.facts.kind, fact, observed) else {
                return Some(format!(
                    "{parent} is notified of {}, which has no end to report to it",
                    fact.task
                ));
            };
            let status = run.ended.map(|(_, status)| status);
            if status != Some(fact.status) || run.error.as_deref() != fact.error.as_deref() {
                return Some(format!(
                    "{parent} is notified that {} is {} ({:?}), but its run {} is {status:?} ({:?})",
                    fact.task,
                    fact.status.as_str(),
                    fact.error,
                    run.run,
                    run.error
                ));
            }
            if run.silent_cancel_requested.is_some()
                && fact.status == TaskStatus::Cancelled
                && run.error.as_deref() == Some("notification skipped")
            {
                return Some(format!(
                    "{parent} is notified of {}, whose notification was skipped",
                    fact.task
                ));
            }
            sent.runs.push((run.task.clone(), run.run));
        }
        let violation = match notice.facts.kind {
            // The repetition describes the moment at which the batch was closed.
            NoticeKind::Final if notice.retry_of.is_some() => {
                self.check_repeated(notice, &mut sent)
            }
            NoticeKind::Final => self.check_final(position, parent, notice, &sent, observed),
            NoticeKind::Individual => {
                self.check_individual(position, parent, notice, &sent, observed)
            }
            NoticeKind::Continue => None,
        };
        self.notices.insert(notice.id.clone(), sent);
        violation.map(|violation| format!("{parent} {} {violation}", notice.id))
    }

    /// Checks a final message that repeats another: it reports the same tasks, and the other does not repeat a third.
    fn check_repeated(&self, notice: &Notice, sent: &mut SentNotice) -> Option<String> {
        let repeated = self.notices.get(notice.retry_of.as_ref()?);
        let Some(repeated) = repeated.filter(|repeated| !repeated.is_repeat) else {
            return Some("repeats a message that was not sent, or a repetition".to_owned());
        };
        let tasks = |runs: &[RunName]| -> Vec<TaskId> {
            runs.iter().map(|(task, _)| task.clone()).collect()
        };
        if tasks(&sent.runs) != tasks(&repeated.runs) {
            return Some("repeats a message about other tasks".to_owned());
        }
        sent.runs.clone_from(&repeated.runs);
        sent.is_repeat = true;
        None
    }

    /// Checks a message that prompts a parent to continue: its last turn was cut off, and it is prompted once after each
    /// message.
    fn check_continue(
        &mut self,
        position: LogPosition,
        parent: &SessionId,
        notice: &Notice,
        observed: &ObservedState,
    ) -> Option<String> {
        let newest = self
            .notices
            .values()
            .filter(|sent| sent.parent == *parent && sent.effects > 0)
            .filter(|sent| sent.kind != NoticeKind::Continue || !sent.was_stored_late(observed))
            .max_by_key(|sent| sent.stored);
        // A prompt to continue whose turn failed on its model may be repeated.
        let repeated = newest.is_some_and(|sent| sent.kind == NoticeKind::Continue)
            && notice.retry_of.is_none();
        let sent = SentNotice {
            parent: parent.clone(),
            kind: NoticeKind::Continue,
            runs: Vec::new(),
            effects: 0,
            at: position,
            stored: None,
            is_removed: false,
            is_repeat: false,
        };
        self.notices.insert(notice.id.clone(), sent);
        let certain = self.reliable && observed.last_fault.is_none();
        let lost = observed.session(parent).and_then(|known| {
            let failed = known.turn_failed.filter(|_| !certain);
            known.turn_lost.or(failed)
        });
        if repeated && !self.may_be_delayed() {
            return Some(format!(
                "{parent} {} prompts it to continue again",
                notice.id
            ));
        }
        lost.is_none().then(|| {
            format!(
                "{parent} {} prompts it to continue, but no turn was cut off",
                notice.id
            )
        })
    }

    /// Returns the run that a message refers to: a run of that task which ended with this parent in that way.
    /// A message describes the moment at which the task settled, and the task may have been resumed since. An
    /// individual message refers to the oldest run without a message, a final message to the newest run.
    fn reported_run<'a>(
        &self,
        parent: &SessionId,
        kind: NoticeKind,
        fact: &SettledFact,
        observed: &'a ObservedState,
    ) -> Option<&'a RunFacts> {
        let ended = || {
            observed.runs.iter().rev().filter(|run| {
                let with = run.parent.as_ref() == Some(parent)
                    || run.batch_parent.as_ref() == Some(parent);
                run.task == fact.task && with && !run.is_open()
            })
        };
        let matching: Vec<&RunFacts> = ended()
            .filter(|run| {
                run.ended.map(|(_, status)| status) == Some(fact.status)
                    && run.error == fact.error.as_deref().map(str::to_owned)
            })
            .collect();
        let oldest = matching
            .iter()
            .rev()
            .find(|run| !self.was_notified(parent, run, observed));
        let chosen = match kind {
            // A message decided earlier may refer to the previous run with the same text: each run is in one
            // final.
            NoticeKind::Final if self.may_be_delayed() => {
                let mut finals = matching.iter();
                finals
                    .find(|run| !self.was_in_a_final(parent, run))
                    .or(matching.first())
            }
            NoticeKind::Final => matching.first(),
            NoticeKind::Individual | NoticeKind::Continue => oldest.or(matching.first()),
        };
        chosen.copied().or_else(|| ended().next())
    }

    /// Returns true if a message may have been decided earlier: the disk is slow, or its notifier panicked.
    fn may_be_delayed(&self) -> bool {
        self.latency > 0 || !self.panics.is_empty()
    }

    fn was_in_a_final(&self, parent: &SessionId, run: &RunFacts) -> bool {
        let name = (run.task.clone(), run.run);
        self.notices.values().any(|sent| {
            sent.kind == NoticeKind::Final && sent.parent == *parent && sent.runs.contains(&name)
        })
    }

    /// Returns true if a final that seems to be about the run may be about the run before, which ended in the same way: a final
    /// that waits counts as sent some time after its last task settled, and a later run is in the next one.
    fn may_be_of_earlier_run(
        &self,
        parent: &SessionId,
        (task, run): &RunName,
        observed: &ObservedState,
    ) -> bool {
        let ceiling = observed.config.notifications.wake_ceiling.as_millis();
        let ceiling = i64::try_from(ceiling).unwrap_or(i64::MAX);
        let Some(newest) = observed.run(task, *run) else {
            return false;
        };
        let mut earlier = observed.runs.iter();
        earlier.any(|earlier| {
            let ended = earlier
                .ended
                .map(|(ended, _)| ended.at.saturating_add(ceiling));
            earlier.task == *task
                && earlier.run < *run
                && earlier.parent.as_ref() == Some(parent)
                && ended.is_some_and(|ended| ended <= newest.accepted.at)
                && !self.was_in_a_final(parent, earlier)
        })
    }

    fn was_notified(&self, parent: &SessionId, run: &RunFacts, observed: &ObservedState) -> bool {
        let name = (run.task.clone(), run.run);
        self.notices.values().any(|sent| {
            sent.parent == *parent
                && sent.effects > 0
                && !sent.was_stored_late(observed)
                && sent.runs.contains(&name)
        })
    }

    fn check_final(
        &self,
        position: LogPosition,
        parent: &SessionId,
        notice: &Notice,
        sent: &SentNotice,
        observed: &ObservedState,
    ) -> Option<String> {
        let earlier = self
            .notices
            .values()
            .filter(|earlier| earlier.kind == NoticeKind::Final && earlier.parent == *parent);
        for earlier in earlier {
            // A message in flight at a crash may refer to the previous run with the same text.
            let certain = |name: &&RunName| !self.may_be_delayed() || name.1 == Run::FIRST;
            let certain = |name: &&RunName| {
                certain(name) && !self.may_be_of_earlier_run(parent, name, observed)
            };
            let repeated = sent.runs.iter().filter(certain);
            if let Some((task, run)) = repeated.into_iter().find(|run| earlier.runs.contains(run)) {
                return Some(format!("is a second final message about {task} run {run}"));
            }
        }
        if notice.facts.remaining != 0 {
            return Some(format!(
                "closes a batch, but reports {} remaining",
                notice.facts.remaining
            ));
        }
        let ceiling = i64::try_from(observed.config.notifications.wake_ceiling.as_millis())
            .unwrap_or(i64::MAX);
        let settled = self.ends(sent, observed).max()?;
        // A message in flight at the crash may refer to the previous runs, which ended in the same way.
        let before = observed.process_crashed.and_then(|crashed| {
            let ends = notice.facts.tasks.iter().map(|fact| {
                let matching = observed.runs.iter().find(|run| {
                    run.task == fact.task
                        && run.batch_parent.as_ref() == Some(parent)
                        && run.error == fact.error.as_deref().map(str::to_owned)
                        && run.ended.map(|(_, status)| status) == Some(fact.status)
                });
                matching?.ended.map(|(ended, _)| ended)
            });
            let newest = ends
                .collect::<Option<Vec<LogPosition>>>()?
                .into_iter()
                .max()?;
            (newest < crashed).then_some(newest)
        });
        let settled = before.unwrap_or(settled);
        // The next notifier sends what its predecessor had started to send.
        let begun = self.panics.iter().find(|died| **died >= settled);
        let closed_at = (position.at - self.latency).min(settled.at.saturating_add(ceiling));
        let closed_at = begun.map_or(closed_at, |begun| closed_at.min(begun.at - self.latency));
        let open = observed.open_children(parent).find(|run| {
            run.reparented
                .unwrap_or(run.accepted)
                .at
                .max(run.accepted.at)
                < closed_at
        });
        // A parent deleted just before the crash may have been forgotten without its children.
        let deleted = observed.session(parent).and_then(|known| known.deleted);
        let cut_off =
            deleted.is_some_and(|deleted| observed.process_crashed.is_some_and(|c| c > deleted));
        let open = open.filter(|_| observed.reparenting.is_empty() && !cut_off);
        open.map(|run| {
            format!(
                "closes the batch, but {} run {} is open in it since {}",
                run.task, run.run, run.accepted.at
            )
        })
    }

    fn check_individual(
        &self,
        position: LogPosition,
        parent: &SessionId,
        notice: &Notice,
        sent: &SentNotice,
        observed: &ObservedState,
    ) -> Option<String> {
        for earlier in self
            .notices
            .values()
            .filter(|earlier| earlier.parent == *parent && earlier.effects > 0)
            .filter(|earlier| !earlier.was_stored_late(observed) && !earlier.is_removed)
        {
            if let Some((task, run)) = sent.runs.iter().find(|run| earlier.runs.contains(run)) {
                return Some(format!(
                    "reports {task} run {run}, which was reported before"
                ));
            }
        }
        let newest = self.ends(sent, observed).max()?;
        let counts = self.open.get(parent)?;
        let before = counts
            .iter()
            .rev()
            .find(|(index, _)| *index <= newest.index)
            .into_iter();
        let since = counts
            .iter()
            .filter(|(index, _)| *index > newest.index && *index <= position.index);
        let seen: BTreeSet<usize> = before.chain(since).map(|(_, open)| *open).collect();
        let (low, high) = (seen.first().copied()?, seen.last().copied()?);
        let reported = notice.facts.remaining;
        // A run whose end is decided and not published is no longer counted.
        let low = low.saturating_sub(if observed.delayed_publication {
            sent.runs.len()
        } else {
            0
        });
        // After a crash the tasks of a deleted parent may be cancelled, or continue.
        let deleted = observed.session(parent).and_then(|known| known.deleted);
        let is_unknown = deleted.is_some() && observed.process_crashed > deleted;
        let violation =
            (reported < low || reported > high) && observed.reparenting.is_empty() && !is_unknown;
        violation.then(|| format!("reports {reported} remaining, but there were {low} to {high}"))
    }

    fn ends(
        &self,
        sent: &SentNotice,
        observed: &ObservedState,
    ) -> impl Iterator<Item = LogPosition> {
        let ends: Vec<LogPosition> = sent
            .runs
            .iter()
            .filter_map(|(task, run)| Some(observed.run(task, *run)?.ended?.0))
            .collect();
        ends.into_iter()
    }

    fn check_final_sent(&self, run: &RunFacts, observed: &ObservedState) -> Option<String> {
        let parent = run.parent.as_ref()?;
        let (ended, status) = run.ended?;
        let unreachable = observed.is_deleted(parent)
            || observed.is_orphaned(run)
            || parent.as_str().contains("ghost");
        // A later run of the task in the same batch, or of the moved task, is reported instead.
        let repeated = observed.runs.iter().any(|next| {
            next.task == run.task
                && next.run > run.run
                && (next.batch_parent.as_ref() == Some(parent)
                    || next.parent.as_ref() == Some(parent)
                    || next.reparented.is_some())
        });
        // A session of the deletion cascade is not notified.
        let owned = observed
            .session(parent)
            .is_some_and(|known| known.owner.is_some());
        let cascade = owned && run.error.as_deref() == Some("Session deleted");
        if unreachable
            || cascade
            || run.silent_cancel_requested.is_some()
            || repeated
            || run.reparented.is_some()
            || !observed.config.notifications.enabled
        {
            return None;
        }
        let name = (run.task.clone(), run.run);
        let reported = self.notices.values().any(|sent| {
            sent.kind == NoticeKind::Final
                && sent.effects > 0
                && sent.parent == *parent
                && sent.runs.contains(&name)
        });
        (!reported).then(|| {
            format!(
                "{parent} never got a final message about {} run {}, which is {} since {}",
                run.task,
                run.run,
                status.as_str(),
                ended.at
            )
        })
    }
}

impl Promise for Wakes {
    fn name(&self) -> &'static str {
        "3 Wakes"
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
            LogEvent::TaskChanged(change) => {
                self.parents.extend(change.task.parent_session.clone());
            }
            LogEvent::Answered { request, .. } => {
                if let Some(Request::Track { parent, .. }) = observed.request(*request) {
                    self.parents.insert(parent.clone());
                }
            }
            LogEvent::CallStarted {
                call: Call::Notify { parent, notice },
                ..
            } => return self.check_notice(position, parent, notice, observed),
            LogEvent::NoticeStored { parent, notice, .. } => {
                if let Some(sent) = self.notices.get_mut(notice) {
                    sent.effects += 1;
                    // The late copy of a message that was sent again is no newer message.
                    sent.stored.get_or_insert(position);
                    if sent.effects > 1 && !self.stores_late && observed.registry_panicked.is_none()
                    {
                        return Some(format!(
                            "{parent} got {notice} twice, first sent at {}",
                            sent.at.at
                        ));
                    }
                }
                return None;
            }
            LogEvent::SessionFact {
                session,
                fact: Fact::RevertedDeleted,
            } => {
                let sent = self.notices.values_mut();
                for removed in sent.filter(|sent| sent.parent == *session && sent.stored.is_some())
                {
                    removed.is_removed = true;
                }
            }
            LogEvent::ReportedDelivered { parent, notice } => {
                let stored = observed.stored_notices.contains(notice);
                return (!stored).then(|| {
                    format!("{parent} {notice} is reported as delivered, but is not stored")
                });
            }
            LogEvent::ProcessCrashed(_) => {
                self.panics.push(position);
                return None;
            }
            LogEvent::FailpointHit(name) => {
                if name.starts_with("notifier") {
                    self.panics.push(position);
                }
                return None;
            }
            _ => return None,
        }
        for parent in &self.parents {
            let open = observed.open_children(parent).count();
            let counts = self.open.entry(parent.clone()).or_default();
            if counts.last().is_none_or(|(_, known)| *known != open) {
                counts.push((index, open));
            }
        }
        None
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        if observed.shutdown_requested.is_some() || observed.registry_panicked.is_some() {
            return None;
        }
        observed
            .runs
            .iter()
            .find_map(|run| self.check_final_sent(run, observed))
    }
}

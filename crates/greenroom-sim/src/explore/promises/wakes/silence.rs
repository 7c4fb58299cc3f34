//! Promise 3, **Wakes**, of each message: whether it may, must or must not wake its parent. "Messages to it
//! are silent from then on until its next user message"; a message to the session of an ended task is silent.

use greenroom::domain::ids::SessionId;
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::Notice;

use super::Wakes;
use crate::explore::observed::{LogPosition, ObservedState};

/// The time until a notifier that panicked too often is rebuilt, with a margin, in milliseconds.
const REBUILD_TIME: i64 = 31_000;

impl Wakes {
    pub(super) fn check_wake(
        &self,
        position: LogPosition,
        parent: &SessionId,
        notice: &Notice,
        observed: &ObservedState,
    ) -> Option<String> {
        let failure = notice
            .facts
            .tasks
            .iter()
            .any(|fact| matches!(fact.status, TaskStatus::Error | TaskStatus::Interrupt));
        let should_wake = match notice.facts.kind {
            NoticeKind::Final | NoticeKind::Continue => true,
            NoticeKind::Individual => failure && observed.config.notifications.wake_on_failure,
        };
        let (may, must) = silence_bounds(position, parent, observed, self.reliable, self.latency);
        // A notifier that panics on the abort event of its user loses that event. A notifier that panicked
        // too often is rebuilt half a minute later and receives no events until then.
        let delivered = observed
            .session(parent)
            .and_then(|known| known.abort_delivered);
        let lost_before = |at: i64| (at - REBUILD_TIME)..=at + self.latency;
        let lost = |delivered: LogPosition| {
            let mut panics = self
                .panics
                .iter()
                .filter(|panic| !observed.crashes.contains(panic));
            panics.any(|lost| lost_before(delivered.at).contains(&lost.at))
        };
        let must = must && !delivered.is_some_and(lost);
        match (should_wake, notice.silent) {
            (false, false) => {
                Some("wakes its parent, but is neither final nor a failure".to_owned())
            }
            (true, false) if must => {
                Some("wakes a parent that has ended or that its user has aborted".to_owned())
            }
            (true, true) if !may => Some("does not wake its parent".to_owned()),
            _ => None,
        }
    }
}

/// Returns whether a message to that parent may be silent though it would wake, and whether it must be.
///
/// A message that waits for the disk is in flight: it may wake a session whose task ends, or that is aborted,
/// meanwhile.
fn silence_bounds(
    position: LogPosition,
    parent: &SessionId,
    observed: &ObservedState,
    reliable: bool,
    latency: i64,
) -> (bool, bool) {
    let Some(known) = observed.session(parent) else {
        return (false, false);
    };
    if known.deleted.is_some() {
        return (true, false);
    }
    if let Some(run) = known
        .owner
        .as_ref()
        .and_then(|owner| observed.newest(owner))
    {
        return match run.ended {
            Some((ended, _)) => (
                true,
                ended.at < position.at - latency && !observed.deletions,
            ),
            // The task may just have been resumed, or wait in the queue.
            None => (
                run.running
                    .is_none_or(|running| position.at - running.at <= latency)
                    || known.user_aborted.is_some(),
                false,
            ),
        };
    }
    let Some(aborted) = known
        .user_aborted
        .filter(|_| observed.config.notifications.silence_after_parent_abort)
    else {
        // An abort by the server counts as a user's if the system cannot know better.
        return (observed.may_be_taken_for_stopped(known), false);
    };
    let prompted_since = known.user_prompted.is_some_and(|user_prompted| {
        user_prompted.at > aborted.at + 5000 && user_prompted.at + 1000 < position.at
    });
    let may = !(reliable && observed.last_fault.is_none() && prompted_since);
    // Only the newest abort counts. An abort of a turn that had not started sends no event.
    let delivered = known
        .abort_delivered
        .filter(|delivered| *delivered > aborted);
    let must = delivered.is_some_and(|delivered| {
        let affected = observed.runs.iter().any(|run| {
            run.parent.as_ref() == Some(parent)
                && run.accepted.at < delivered.at
                && run.reparented.is_none()
                && run.ended.is_none_or(|(ended, _)| ended.at >= delivered.at)
        });
        delivered.at < position.at - latency
            // The loss of the stream looks like the end of the server, which aborts its sessions itself.
            && observed.surely_shows_person(delivered)
            && affected
            && known
                .user_prompted
                .is_none_or(|user_prompted| user_prompted < aborted)
    });
    (may, must)
}

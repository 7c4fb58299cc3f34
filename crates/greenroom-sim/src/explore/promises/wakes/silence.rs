//! Promise 3, **Wakes**, of each message: whether it may wake its parent, whether it must, and whether it must not. "Messages
//! to it are silent from then on until its next user message"; "a parent that is the session of a task that has ended is told
//! silently".

use greenroom::domain::ids::SessionId;
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::Notice;

use super::Wakes;
use crate::explore::observed::{LogPosition, ObservedState};

/// For so long a notifier that died too often is not built again, in milliseconds, and a moment.
const DEAF: i64 = 31_000;

impl Wakes {
    pub(super) fn wakes_rightly(
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
        let ought = match notice.facts.kind {
            NoticeKind::Final => true,
            NoticeKind::Individual => failure && observed.config.notifications.wake_on_failure,
        };
        let (may, must) = silence(position, parent, observed, (self.calm, self.lag));
        // A notifier that dies of the event that its user has stopped it takes that along; one that died too often is built
        // again half a minute later, and hears nothing until then.
        let heard = observed
            .session(parent)
            .and_then(|known| known.abort_delivered);
        // What was heard just before the process ended may not have been written.
        let deaf = |at: i64| (at - DEAF)..=at + self.lag;
        let died = |heard: LogPosition| {
            let mut deaths = self.deaths.iter();
            deaths.any(|died| deaf(heard.at).contains(&died.at))
        };
        let must = must && !heard.is_some_and(died);
        match (ought, notice.silent) {
            (false, false) => {
                Some("wakes its parent, and is neither final nor a failure".to_owned())
            }
            (true, false) if must => {
                Some("wakes a parent that has ended or that its user has stopped".to_owned())
            }
            (true, true) if !may => Some("does not wake its parent".to_owned()),
            _ => None,
        }
    }
}

/// Whether a message to that parent may be silent though it would wake, and whether it must be.
///
/// A message that waits for the disk is on its way: it may wake a session whose task ends, or that is stopped, meanwhile.
fn silence(
    position: LogPosition,
    parent: &SessionId,
    observed: &ObservedState,
    (calm, lag): (bool, i64),
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
            Some((ended, _)) => (true, ended.at < position.at - lag && !observed.deletions),
            // It may just go on again, or wait in line for that.
            None => (
                run.running
                    .is_none_or(|running| position.at - running.at <= lag)
                    || known.user_aborted.is_some(),
                false,
            ),
        };
    }
    let Some(stopped) = known
        .user_aborted
        .filter(|_| observed.config.notifications.silence_after_parent_abort)
    else {
        return (false, false);
    };
    let spoken_since = known.user_prompted.is_some_and(|user_prompted| {
        user_prompted.at > stopped.at + 5000 && user_prompted.at + 1000 < position.at
    });
    let may = !(calm && observed.last_fault.is_none() && spoken_since);
    // Only the newest stop counts: one of a turn that had not begun is heard of by nobody.
    let heard = known.abort_delivered.filter(|heard| *heard > stopped);
    let must = heard.is_some_and(|heard| {
        let owed = observed.runs.iter().any(|run| {
            run.parent.as_ref() == Some(parent)
                && run.accepted.at < heard.at
                && run.reparented.is_none()
                && run.ended.is_none_or(|(ended, _)| ended.at >= heard.at)
        });
        heard.at < position.at - lag
            && owed
            && known
                .user_prompted
                .is_none_or(|user_prompted| user_prompted < stopped)
    });
    (may, must)
}

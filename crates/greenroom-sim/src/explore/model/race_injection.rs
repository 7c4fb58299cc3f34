//! Injects races: at the instant at which a call is answered, an action cancels its task, or aborts, deletes,
//! resumes or prompts its session. The answer is delivered a few polls of other tasks later, so either may
//! come first. Scenario steps run only while the system is idle and cannot cause these races.

use greenroom::domain::ids::{SessionId, TaskId};

use super::Model;
use crate::explore::log::Call;
use crate::explore::scenario::Action;
use crate::story::CancelOverrides;

/// One more than the maximum number of polls by which an answer is delayed.
const POLLS: i64 = 8;

impl Model {
    /// Returns the task of a call, and its session if it has one.
    pub(super) fn task_of_call(&self, number: u64) -> Option<(TaskId, Option<SessionId>)> {
        self.log.read(|observed| match observed.call(number)? {
            Call::Create { task, .. } => Some((task.clone(), None)),
            Call::Prompt { task, session, .. } => Some((task.clone(), Some(session.clone()))),
            Call::Abort(session)
            | Call::Get(session)
            | Call::Messages(session)
            | Call::Todos(session)
            | Call::Notify {
                parent: session, ..
            } => {
                let owner = observed.session(session)?.owner.clone()?;
                Some((owner, Some(session.clone())))
            }
            _ => None,
        })
    }

    /// Decides about a race with the answer of this call. Returns the number of polls by which the answer is
    /// delayed.
    pub(super) fn inject_race(&self, call: &str, task: &TaskId, session: Option<SessionId>) -> i64 {
        let mut state = self.state();
        // An abort is followed by its error event, and a resume may wait for it.
        let (odds, default_action) = if call.starts_with("call abort") {
            (state.odds.race_injection * 4, 4)
        } else {
            (state.odds.race_injection, 0)
        };
        let nth = state.count(&format!("{call} answered"));
        let decision = state.rng.decide(format!("{call} {nth} race"), 0, |rng| {
            if rng.chance(odds) {
                rng.between(1, POLLS * 8)
            } else {
                0
            }
        });
        if decision <= 0 {
            return 0;
        }
        let cancel = || Action::Cancel {
            task: task.to_string(),
            options: CancelOverrides::default(),
        };
        let what = match (decision - 1) / POLLS {
            0..=3 => default_action,
            other => other,
        };
        let action = match (what, session) {
            (4, Some(session)) => Action::Resume {
                session: session.to_string(),
                prompt: "go on".to_owned(),
                parent_session: None,
            },
            (5, _) => Action::Send {
                task: task.to_string(),
                prompt: "and this".to_owned(),
            },
            (6, Some(session)) => Action::UserAbort {
                session: session.to_string(),
            },
            (7, Some(session)) => Action::Delete {
                session: session.to_string(),
            },
            _ => cancel(),
        };
        if let Some(race_actions) = &state.race_actions {
            // The receiver is gone after the end of the scenario.
            let _ = race_actions.send(action);
        }
        (decision - 1) % POLLS
    }
}

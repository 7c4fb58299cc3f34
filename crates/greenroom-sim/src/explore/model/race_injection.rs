//! What is done at the very instant at which a call is answered: somebody cancels the task it was made for, stops, deletes,
//! resumes or prompts its session, and the answer is heard a few polls of other tasks later, so that either may be first. Steps
//! are taken when all is quiet; only so do orders cross what an answer leads to.

use greenroom::domain::ids::{SessionId, TaskId};

use super::Model;
use crate::explore::log::Call;
use crate::explore::scenario::Deed;
use crate::story::CancelHow;

/// How many polls of other tasks the answer may come later, and one more.
const POLLS: i64 = 8;

impl Model {
    /// Whose call that is: the task, and its session if it has one.
    pub(super) fn concerned(&self, number: u64) -> Option<(TaskId, Option<SessionId>)> {
        self.log.read(|ledger| match ledger.call(number)? {
            Call::Create { task, .. } => Some((task.clone(), None)),
            Call::Prompt { task, session, .. } => Some((task.clone(), Some(session.clone()))),
            Call::Abort(session)
            | Call::Get(session)
            | Call::Messages(session)
            | Call::Todos(session)
            | Call::Notify {
                parent: session, ..
            } => {
                let owner = ledger.session(session)?.owner.clone()?;
                Some((owner, Some(session.clone())))
            }
            _ => None,
        })
    }

    /// A call is about to be answered. Gives how many polls of other tasks later.
    pub(super) fn ambush(&self, call: &str, task: &TaskId, session: Option<SessionId>) -> i64 {
        let mut world = self.world();
        // An abort leaves an echo behind it, and what waits for it goes on.
        let (odds, usual) = match call.starts_with("call abort") {
            true => (world.odds.ambush * 4, 4),
            false => (world.odds.ambush, 0),
        };
        let nth = world.count(&format!("{call} answered"));
        let fallen = world
            .dice
            .decide(format!("{call} {nth} ambush"), 0, |source| {
                match source.chance(odds) {
                    true => source.between(1, POLLS * 8),
                    false => 0,
                }
            });
        if fallen <= 0 {
            return 0;
        }
        let cancel = || Deed::Cancel {
            task: task.to_string(),
            options: CancelHow::default(),
        };
        let what = match (fallen - 1) / POLLS {
            0..=3 => usual,
            other => other,
        };
        let deed = match (what, session) {
            (4, Some(session)) => Deed::Resume {
                session: session.to_string(),
                prompt: "go on".to_owned(),
                parent_session: None,
            },
            (5, _) => Deed::Send {
                task: task.to_string(),
                prompt: "and this".to_owned(),
            },
            (6, Some(session)) => Deed::UserAbort {
                session: session.to_string(),
            },
            (7, Some(session)) => Deed::Delete {
                session: session.to_string(),
            },
            _ => cancel(),
        };
        if let Some(ambushes) = &world.ambushes {
            // Once the story is over nobody listens any more.
            let _ = ambushes.send(deed);
        }
        (fallen - 1) % POLLS
    }
}

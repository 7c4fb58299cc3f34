//! The stages of a task, and how a task of `P` is brought to each. All other tasks belong to `Q` or are
//! children of the task. There are two slots.

use greenroom::domain::ids::TaskId;

use crate::harness::{Harness, job, job_of};
use crate::server::{CallKind, CallOutcome};

/// A stage of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleStage {
    QueuedHead,
    QueuedBehind,
    Granted,
    Creating,
    Created,
    Prompting,
    Running,
    IdleDeferred,
    Checking,
    WaitingForChildren,
    Settling,
    Ended,
}

impl LifecycleStage {
    pub const ALL: [LifecycleStage; 12] = [
        LifecycleStage::QueuedHead,
        LifecycleStage::QueuedBehind,
        LifecycleStage::Granted,
        LifecycleStage::Creating,
        LifecycleStage::Created,
        LifecycleStage::Prompting,
        LifecycleStage::Running,
        LifecycleStage::IdleDeferred,
        LifecycleStage::Checking,
        LifecycleStage::WaitingForChildren,
        LifecycleStage::Settling,
        LifecycleStage::Ended,
    ];

    /// Returns the name for the page, and the description.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            LifecycleStage::QueuedHead => (
                "queued, first",
                "no slot is free and it is first in the queue",
            ),
            LifecycleStage::QueuedBehind => (
                "queued, behind",
                "no slot is free and another task is before it in the queue",
            ),
            LifecycleStage::Granted => (
                "granted",
                "resumed; it has its slot, and the abort of the previous run is not answered",
            ),
            LifecycleStage::Creating => {
                ("creating", "the call that creates its session is in flight")
            }
            LifecycleStage::Created => (
                "created",
                "the call was answered at this instant; the session is not recorded yet",
            ),
            LifecycleStage::Prompting => ("prompting", "the call with its prompt is in flight"),
            LifecycleStage::Running => ("running", "its session is busy and has answered"),
            LifecycleStage::IdleDeferred => (
                "idle deferred",
                "its session has answered and was idle in the first 5 s",
            ),
            LifecycleStage::Checking => ("checking", "idle; messages and todos are being read"),
            LifecycleStage::WaitingForChildren => (
                "waiting for children",
                "idle, without a slot, and its child `c` runs",
            ),
            LifecycleStage::Settling => {
                ("settling", "completed, the abort of its session in flight")
            }
            LifecycleStage::Ended => ("ended", "completed a minute ago, and still in memory"),
        }
    }

    /// Returns true if the task has no session yet.
    pub fn is_before_session(self) -> bool {
        matches!(
            self,
            LifecycleStage::QueuedHead | LifecycleStage::QueuedBehind | LifecycleStage::Creating
        )
    }
}

/// Brings a task to a stage and lets a moment pass. At `Created` the create is about to be answered; the
/// event is applied at the instant of the answer.
pub async fn bring_to_stage(s: &Harness, stage: LifecycleStage) -> TaskId {
    if matches!(
        stage,
        LifecycleStage::QueuedHead | LifecycleStage::QueuedBehind
    ) {
        s.launch(job_of("Q", "holds a slot")).await;
        s.launch(job_of("Q", "holds the other")).await;
    }
    match stage {
        LifecycleStage::QueuedBehind => {
            s.launch(job_of("Q", "stands before it")).await;
        }
        LifecycleStage::Creating | LifecycleStage::Created => s
            .server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(5000)),
        LifecycleStage::Prompting => s
            .server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(5000)),
        _ => {}
    }
    let a = s.launch(job("a")).await;
    match stage {
        LifecycleStage::QueuedHead
        | LifecycleStage::QueuedBehind
        | LifecycleStage::Creating
        | LifecycleStage::Prompting => {
            s.advance_to(1000).await;
        }
        LifecycleStage::Created => s.advance_to(3999).await,
        LifecycleStage::IdleDeferred => {
            s.advance_to(2000).await;
            s.answer_without_event(&a, "done");
            s.idle(&a).await;
        }
        LifecycleStage::Running => {
            s.advance_to(6000).await;
            s.busy(&a).await;
            s.answer(&a, "so far").await;
        }
        LifecycleStage::Checking => {
            s.advance_to(6000).await;
            s.server
                .set_next_outcome(CallKind::Todos, CallOutcome::Late(5000));
            s.finish_turn(&a).await;
        }
        LifecycleStage::WaitingForChildren => {
            let session = s.server.session_of(&a).expect("it runs");
            s.launch(job_of(session, "c")).await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
        }
        LifecycleStage::Granted | LifecycleStage::Settling => {
            s.advance_to(6000).await;
            s.server
                .set_next_outcome(CallKind::Abort, CallOutcome::Late(5000));
            s.finish_turn(&a).await;
            if stage == LifecycleStage::Granted {
                s.resume(&a).await;
            }
        }
        LifecycleStage::Ended => {
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            s.advance_to(60_000).await;
        }
    }
    s.advance(1000).await;
    a
}

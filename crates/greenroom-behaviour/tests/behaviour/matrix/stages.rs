//! The stages of a task's life, and how a task of `P` is brought to each. Whatever else there is belongs to `Q`, or is a
//! task of the task itself. Two slots.

use greenroom::domain::ids::TaskId;

use crate::harness::{Stage, job, job_of};
use crate::server::{Fate, On};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStage {
    QueuedHead,
    QueuedBehind,
    Granted,
    Creating,
    Created,
    Prompting,
    Running,
    IdleDeferred,
    Checking,
    WaitingForOwn,
    Settling,
    Ended,
}

impl AtStage {
    pub const ALL: [AtStage; 12] = [
        AtStage::QueuedHead,
        AtStage::QueuedBehind,
        AtStage::Granted,
        AtStage::Creating,
        AtStage::Created,
        AtStage::Prompting,
        AtStage::Running,
        AtStage::IdleDeferred,
        AtStage::Checking,
        AtStage::WaitingForOwn,
        AtStage::Settling,
        AtStage::Ended,
    ];

    /// As a reader knows it, and what it is exactly.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            AtStage::QueuedHead => (
                "queued, first",
                "no slot is free and nobody waits before it",
            ),
            AtStage::QueuedBehind => (
                "queued, behind",
                "no slot is free and another waits before it",
            ),
            AtStage::Granted => (
                "granted",
                "resumed; it has its slot, and the abort of the run before is not answered",
            ),
            AtStage::Creating => ("creating", "the call that makes its session is under way"),
            AtStage::Created => (
                "created",
                "the call was answered in this very instant; nobody has recorded the session",
            ),
            AtStage::Prompting => ("prompting", "the call with its prompt is under way"),
            AtStage::Running => ("running", "its session works and has answered something"),
            AtStage::IdleDeferred => (
                "idle deferred",
                "its session has answered and was idle in the first 5 s",
            ),
            AtStage::Checking => ("checking", "idle; messages and todos are being read"),
            AtStage::WaitingForOwn => (
                "waiting for its own",
                "idle, without a slot, and a task of its own runs (`c`)",
            ),
            AtStage::Settling => ("settling", "completed, the abort of its session under way"),
            AtStage::Ended => ("ended", "completed a minute ago, and still in memory"),
        }
    }

    /// Whether the task has no session yet that anything could happen to.
    pub fn is_before_session(self) -> bool {
        matches!(
            self,
            AtStage::QueuedHead | AtStage::QueuedBehind | AtStage::Creating
        )
    }
}

/// Brings a task to that stage, and lets a moment pass in it. At `Created` the session is about to be made: the story
/// makes its event happen in the instant of the answer.
pub async fn brought_to(s: &Stage, stage: AtStage) -> TaskId {
    if matches!(stage, AtStage::QueuedHead | AtStage::QueuedBehind) {
        s.launch(job_of("Q", "holds a slot")).await;
        s.launch(job_of("Q", "holds the other")).await;
    }
    match stage {
        AtStage::QueuedBehind => {
            s.launch(job_of("Q", "stands before it")).await;
        }
        AtStage::Creating | AtStage::Created => s.server.next(On::Create, Fate::Late(5000)),
        AtStage::Prompting => s.server.next(On::Prompt, Fate::Late(5000)),
        _ => {}
    }
    let a = s.launch(job("a")).await;
    match stage {
        AtStage::QueuedHead | AtStage::QueuedBehind | AtStage::Creating | AtStage::Prompting => {
            s.at(1000).await;
        }
        AtStage::Created => s.at(3999).await,
        AtStage::IdleDeferred => {
            s.at(2000).await;
            s.quiet_answer(&a, "done");
            s.idle(&a).await;
        }
        AtStage::Running => {
            s.at(6000).await;
            s.busy(&a).await;
            s.answer(&a, "so far").await;
        }
        AtStage::Checking => {
            s.at(6000).await;
            s.server.next(On::Todos, Fate::Late(5000));
            s.finish(&a).await;
        }
        AtStage::WaitingForOwn => {
            let session = s.server.session_of(&a).expect("it runs");
            s.launch(job_of(session, "c")).await;
            s.at(6000).await;
            s.finish(&a).await;
        }
        AtStage::Granted | AtStage::Settling => {
            s.at(6000).await;
            s.server.next(On::Abort, Fate::Late(5000));
            s.finish(&a).await;
            if stage == AtStage::Granted {
                s.resume(&a).await;
            }
        }
        AtStage::Ended => {
            s.at(6000).await;
            s.finish(&a).await;
            s.at(60_000).await;
        }
    }
    s.pass(1000).await;
    a
}

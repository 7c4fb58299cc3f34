//! The table of outcomes: what `behaviour.md` requires of each event at each stage. Compared by the tests and
//! shown by the page in `docs/`.

use super::events::Event;
use super::stages::LifecycleStage::{self, *};

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer to the caller.
    pub answer: String,
    /// The state of the task at once, `gone` if it has left memory.
    pub state: String,
    /// All slots in use at once.
    pub slots: usize,
    /// The end of the run.
    pub end: String,
    /// The later calls that create, prompt or abort a session of the task.
    pub calls: String,
    /// The later notifications of parents.
    pub notifications: String,
}

impl Outcome {
    fn new(state: &str, slots: usize, end: &str, calls: &str, notifications: &str) -> Self {
        Self {
            answer: "–".to_owned(),
            state: state.to_owned(),
            slots,
            end: end.to_owned(),
            calls: calls.to_owned(),
            notifications: notifications.to_owned(),
        }
    }

    fn answered(mut self, answer: &str) -> Self {
        answer.clone_into(&mut self.answer);
        self
    }

    fn calls(mut self, calls: &str) -> Self {
        calls.clone_into(&mut self.calls);
        self
    }

    fn notifications(mut self, notifications: &str) -> Self {
        notifications.clone_into(&mut self.notifications);
        self
    }

    fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    fn state(mut self, state: &str) -> Self {
        state.clone_into(&mut self.state);
        self
    }

    fn replacing(mut self, from: &str, to: &str) -> Self {
        self.notifications = self.notifications.replace(from, to);
        self
    }
}

const NONE: &str = "–";

/// Returns the outcome of an event at a stage; `None` if it cannot happen because there is no session yet.
pub fn expected(event: Event, stage: LifecycleStage) -> Option<Outcome> {
    let of_session = matches!(
        event,
        Event::SessionDeleted
            | Event::SessionError
            | Event::SessionAborted
            | Event::Idle
            | Event::Resume
            | Event::ResumeTwice
            | Event::TakeOver
    );
    if of_session && stage.is_before_session() {
        return None;
    }
    Some(match event {
        Event::Nothing | Event::LimitLowered => continues(stage),
        Event::Unreachable => match stage {
            // The check is answered, but the abort does not reach the server.
            Checking => continues(stage).calls("–"),
            _ => continues(stage),
        },
        Event::Cancel => cancelled(stage),
        Event::CancelFromAbove => cancelled_from_above(stage),
        Event::CancelPending => match stage {
            QueuedHead | QueuedBehind => cancelled(stage),
            _ => continues(stage).answered("not cancellable"),
        },
        Event::SessionDeleted => session_deleted(stage),
        Event::ParentDeleted => parent_deleted(stage),
        Event::SessionError => failed(stage, "error", ": boom"),
        Event::SessionAborted => {
            failed(stage, "interrupt", ": the session was aborted from outside")
        }
        Event::Idle => match stage {
            // The session has answered, so the task is done.
            Running => continues(stage).state("completed").slots(0),
            _ => continues(stage),
        },
        Event::Resume => resumed(stage).0,
        Event::ResumeTwice => {
            let (outcome, again) = resumed(stage);
            let answer = format!("{}; {again}", outcome.answer);
            outcome.answered(&answer)
        }
        Event::Send => sent(stage),
        Event::TrackKnown => {
            let state = status_at(stage);
            continues(stage)
                .answered(&format!("{state} of P"))
                .replacing(
                    "P: final wakes: a completed",
                    "P: final wakes: a completed as lead",
                )
        }
        Event::Reparent => {
            let state = status_at(stage);
            continues(stage)
                .answered(&format!("{state} of R"))
                .replacing("P: ", "R: ")
        }
        Event::TakeOver => taken_over(stage),
        Event::LimitRaised => match stage {
            QueuedHead => continues(stage).state("running").slots(3),
            QueuedBehind => continues(stage).state("running").slots(4),
            _ => continues(stage),
        },
        // A wake never overrides the user.
        Event::ParentAborted => continues(stage).replacing("P: final wakes", "P: final silent"),
        Event::ParentAbortedWithTasks => parent_aborted_with_tasks(stage),
        Event::Shutdown => shut_down(stage),
    })
}

/// Returns the outcome of a task without an event.
fn continues(stage: LifecycleStage) -> Outcome {
    let notifications = "P: final wakes: a completed";
    let completes =
        |state, slots, calls| Outcome::new(state, slots, "completed", calls, notifications);
    match stage {
        QueuedHead | QueuedBehind => completes("pending", 2, "create, prompt, abort"),
        Granted | Creating => completes("pending", 1, "prompt, abort"),
        // The prompt follows the session at the same instant.
        Created => completes("running", 1, "prompt, abort"),
        Prompting | Running | IdleDeferred | Checking => completes("running", 1, "abort"),
        // The slot belongs to its child.
        WaitingForChildren => completes("running", 1, "abort")
            .notifications("P: final wakes: a completed; a: final wakes: c completed"),
        Settling | Ended => Outcome::new("completed", 0, "–", "–", NONE),
    }
}

/// Returns the status at this stage.
fn status_at(stage: LifecycleStage) -> String {
    match stage {
        Created => "pending".to_owned(),
        _ => continues(stage).state,
    }
}

/// Returns the outcome of a run that ends at once with this status and reason. Its session is aborted if it
/// exists, and once more if a call in flight makes it busy again.
fn ends(stage: LifecycleStage, outcome: &str, reason: &str) -> Outcome {
    let end = format!("{outcome}{reason}");
    let ended = |slots, calls| {
        let notifications = format!("P: final wakes: a {outcome}");
        Outcome::new(&end, slots, &end, calls, &notifications)
    };
    match stage {
        QueuedHead | QueuedBehind => ended(2, "–"),
        // The abort of the previous run is in flight; this run has made no call.
        Granted => ended(0, "–"),
        // The created session is aborted and not prompted.
        Creating | Created => ended(0, "abort"),
        // The prompt takes effect after the first abort.
        Prompting => ended(0, "abort, abort"),
        Running | IdleDeferred | Checking => ended(0, "abort"),
        // Its child continues without a running parent.
        WaitingForChildren => {
            let notifications =
                format!("P: final wakes: a {outcome}; a: final silent: c completed");
            ended(1, "abort").notifications(&notifications)
        }
        Settling | Ended => continues(stage),
    }
}

fn cancelled(stage: LifecycleStage) -> Outcome {
    let answer = match stage {
        Settling | Ended => "not cancellable",
        _ => "cancelled",
    };
    ends(stage, "cancelled", "").answered(answer)
}

fn cancelled_from_above(stage: LifecycleStage) -> Outcome {
    match stage {
        Settling | Ended => continues(stage).answered("none"),
        WaitingForChildren => ends(stage, "cancelled", "")
            .answered("a, c")
            .slots(0)
            .replacing("c completed", "c cancelled"),
        // The tasks are looked up first and cancelled one by one; the prompt is sent in between.
        Created => ends(stage, "cancelled", "")
            .answered("a")
            .calls("prompt, abort"),
        _ => ends(stage, "cancelled", "").answered("a"),
    }
}

fn session_deleted(stage: LifecycleStage) -> Outcome {
    let gone = ends(stage, "cancelled", ": Session deleted").state("gone");
    match stage {
        // The session was not known yet, so its prompt is refused.
        Created => ends(stage, "interrupt", ": no such session").calls("prompt, abort"),
        // The prompt is refused, so no turn starts in the deleted session.
        Prompting => gone.calls("abort"),
        // All tasks below are cancelled too, and a deleted session is not notified.
        WaitingForChildren => gone.slots(0).notifications("P: final wakes: a cancelled"),
        _ => gone,
    }
}

fn parent_deleted(stage: LifecycleStage) -> Outcome {
    let gone = ends(stage, "cancelled", ": Session deleted")
        .state("gone")
        .notifications(NONE);
    match stage {
        WaitingForChildren => gone.slots(0),
        _ => gone,
    }
}

fn failed(stage: LifecycleStage, outcome: &str, reason: &str) -> Outcome {
    match stage {
        // No run of the task is active in that session.
        Granted | Created | Settling | Ended => continues(stage),
        _ => ends(stage, outcome, reason),
    }
}

/// Returns the outcome of a resume, and the answer to a second caller at the same instant.
fn resumed(stage: LifecycleStage) -> (Outcome, &'static str) {
    let again = |state, slots| {
        Outcome::new(
            state,
            slots,
            "completed",
            "prompt, abort",
            "P: final wakes: a completed",
        )
        .answered("accepted")
    };
    match stage {
        // The run is granted and waits for the abort of the previous run.
        Settling => (again("pending", 1), "already being resumed"),
        Ended => (again("running", 1), "already being resumed"),
        Granted => (
            continues(stage).answered("already being resumed"),
            "already being resumed",
        ),
        Created => (
            continues(stage).answered("unknown session"),
            "unknown session",
        ),
        _ => (
            continues(stage).answered("already running"),
            "already running",
        ),
    }
}

fn sent(stage: LifecycleStage) -> Outcome {
    match stage {
        Prompting | Running | IdleDeferred | Checking => {
            continues(stage).answered("accepted").calls("prompt, abort")
        }
        // The session is read before the prompt is sent; by then its first prompt is sent too.
        Created => continues(stage)
            .answered("accepted")
            .calls("prompt, prompt, abort"),
        // The run continues and counts again, even above the limit.
        WaitingForChildren => continues(stage)
            .answered("accepted")
            .calls("prompt, abort")
            .slots(2),
        _ => continues(stage).answered("not running"),
    }
}

fn taken_over(stage: LifecycleStage) -> Outcome {
    let answer = "running of Q";
    match stage {
        Settling | Ended => continues(stage).answered(answer),
        // The session belongs to the newer task and is not aborted.
        _ => ends(stage, "cancelled", ": Session taken over by t")
            .answered(answer)
            .calls("–"),
    }
}

fn parent_aborted_with_tasks(stage: LifecycleStage) -> Outcome {
    let stopped = ends(stage, "cancelled", ": the parent was stopped by its user")
        .replacing("P: final wakes", "P: final silent");
    match stage {
        WaitingForChildren => stopped.slots(0).replacing("c completed", "c cancelled"),
        // The abort is judged two seconds later: the prompt is sent by then, and an idle run is complete.
        Created => stopped.calls("prompt, abort"),
        IdleDeferred => continues(stage)
            .replacing("P: final wakes", "P: final silent")
            .state("completed")
            .slots(0),
        _ => stopped,
    }
}

fn shut_down(stage: LifecycleStage) -> Outcome {
    let stopped = ends(stage, "cancelled", ": Shutdown")
        .notifications(NONE)
        .slots(0);
    match stage {
        // Calls in flight are awaited: the abort of the previous run, the create, the prompt.
        Granted | Creating | Prompting | Settling => stopped,
        _ => stopped.state("gone"),
    }
}

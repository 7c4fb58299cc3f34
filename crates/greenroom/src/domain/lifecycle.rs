//! The transitions of a task's status. Every transition is a method that either happens once, completely, or returns an
//! error; no other code writes the state.
//!
//! The effects of an end are listed in the documentation of [`End`]. The registry's finaliser carries them out.

use std::sync::Arc;

use super::ids::{ConcurrencyKey, ModelRef, Run, SessionId, TaskId};
use super::task::{Attempt, Launch, Progress, Resume, Task, TaskStatus, Track, cut};
use super::time::Timestamp;

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The run completed.
    Completed,
    /// The session or the start failed, the session vanished, a timeout passed, or a limit of the system stopped the
    /// run.
    Error,
    /// Cancelled on request, stale, or the session or parent was deleted.
    Cancelled,
    /// The prompt was refused, or the session was aborted from outside.
    Interrupt,
}

impl Outcome {
    /// Returns the status of a task with this outcome.
    pub fn status(self) -> TaskStatus {
        match self {
            Self::Completed => TaskStatus::Completed,
            Self::Error => TaskStatus::Error,
            Self::Cancelled => TaskStatus::Cancelled,
            Self::Interrupt => TaskStatus::Interrupt,
        }
    }
}

/// The end of a run, as decided by its owner.
///
/// The registry's finaliser carries out its effects in this order: it releases the slot, stops timers, writes record,
/// history and journal, notifies the parent's notifier, sends toasts and metrics, schedules the removal, and aborts the
/// child session if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason for people, at most 2,000 characters.
    pub error: Option<String>,
    /// A note for readers.
    pub note: Option<String>,
    /// Whether the child session is aborted.
    pub abort_session: bool,
    /// Whether the parent's messages leave this task out.
    pub skip_notification: bool,
    /// Whether the task leaves memory at once, because its session was deleted.
    pub forget: bool,
}

impl End {
    /// Creates an end that aborts the session and notifies the parent.
    pub fn new(outcome: Outcome, error: impl Into<Option<String>>) -> Self {
        let error = error.into();
        Self {
            outcome,
            error,
            note: None,
            abort_session: true,
            skip_notification: false,
            forget: false,
        }
    }

    /// Creates the end of a completed run.
    pub fn completed() -> Self {
        Self::new(Outcome::Completed, None)
    }

    /// Creates the end of a failed run.
    pub fn error(text: impl Into<String>) -> Self {
        Self::new(Outcome::Error, Some(text.into()))
    }

    /// Creates the end of a cancelled run.
    pub fn cancelled(reason: Option<String>) -> Self {
        Self::new(Outcome::Cancelled, reason)
    }

    /// Creates the end of an interrupted run.
    pub fn interrupt(text: impl Into<String>) -> Self {
        Self::new(Outcome::Interrupt, Some(text.into()))
    }

    /// Adds a note for readers.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// A transition that is not allowed. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task}, run {run}, cannot go from {} to {}", .from.as_str(), .to.as_str())]
pub struct IllegalTransition {
    /// The task.
    pub task: TaskId,
    /// The current run.
    pub run: Run,
    /// The current state.
    pub from: TaskStatus,
    /// The requested state.
    pub to: TaskStatus,
}

impl Task {
    /// Creates the pending task of a launch, in its first run.
    pub(crate) fn accept(id: TaskId, launch: Launch, depth: u32, now: Timestamp) -> Task {
        let group = match &launch.model {
            Some(model) => model.key(),
            None => ConcurrencyKey::new(&launch.agent),
        };
        Task {
            id,
            session: None,
            parent_session: launch.parent_session,
            parent_message: launch.parent_message,
            root_session: None,
            spawn_depth: depth,
            description: launch.description.into(),
            prompt: launch.prompt.into(),
            agent: launch.agent.into(),
            status: TaskStatus::Pending,
            queued_at: now,
            started_at: None,
            completed_at: None,
            error: None,
            note: None,
            progress: Progress::none(now),
            parent_model: launch.parent_model.map(Arc::new),
            parent_agent: launch.parent_agent.map(Arc::from),
            model: launch.model.map(Arc::new),
            concurrency_key: None,
            concurrency_group: group,
            category: launch.category.map(Arc::from),
            skills: launch.skills,
            skill_content: launch.skill_content.map(Arc::from),
            directory: launch.directory.map(Arc::from),
            permission: launch.permission,
            run: Run::FIRST,
            attempts: Vec::new(),
            retrying: None,
            asking: Vec::new(),
            former_parents: Vec::new(),
            tracked: false,
            cut_offs: 0,
        }
    }

    /// Creates the running task of a track.
    pub(crate) fn adopt(track: Track, now: Timestamp) -> Task {
        let agent = track.agent.unwrap_or_else(|| "task".to_owned());
        let group = track
            .concurrency_key
            .clone()
            .unwrap_or_else(|| ConcurrencyKey::new(&agent));
        let launch = Launch {
            agent,
            description: track.description,
            ..Launch::default()
        };
        let mut task = Self::accept(track.task, launch, 1, now);
        task.concurrency_group = group;
        task.parent_session = Some(track.parent_session);
        task.parent_agent = track.parent_agent.map(Arc::from);
        task.tracked = true;
        task.enter_running(track.session, None, now);
        task
    }

    /// Starts the run in its session: pending becomes running.
    pub(crate) fn start(
        &mut self,
        session: SessionId,
        directory: Option<Arc<str>>,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.require(self.status == TaskStatus::Pending, TaskStatus::Running)?;
        self.enter_running(session, directory, now);
        Ok(())
    }

    /// Ends the attempt, not the run, because its process is gone: running becomes pending. The session stays, and the
    /// next attempt continues it. `answered` is true if an assistant message was finished in this attempt.
    pub(crate) fn cut_off(
        &mut self,
        answered: bool,
        reason: &str,
    ) -> Result<(), IllegalTransition> {
        self.require(self.status == TaskStatus::Running, TaskStatus::Pending)?;
        self.status = TaskStatus::Pending;
        self.started_at = None;
        self.concurrency_key = None;
        self.retrying = None;
        self.asking.clear();
        self.cut_offs = if answered { 1 } else { self.cut_offs + 1 };
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.error = Some(Arc::from(reason));
        }
        Ok(())
    }

    /// Ends the run and returns the state before. A second end of the same run is an error and changes nothing.
    pub(crate) fn end(
        &mut self,
        end: &End,
        now: Timestamp,
    ) -> Result<TaskStatus, IllegalTransition> {
        let from = self.status;
        self.require(!from.is_terminal(), end.outcome.status())?;
        self.status = end.outcome.status();
        self.completed_at = Some(now);
        self.error = end
            .error
            .as_deref()
            .map(|error| Arc::from(cut(error, 2000)));
        self.note = end
            .note
            .as_deref()
            .map(Arc::from)
            .or_else(|| self.note.take());
        self.concurrency_key = None;
        self.retrying = None;
        self.asking.clear();
        if end.outcome.status().is_failure()
            && let Some(attempt) = self.attempts.last_mut()
        {
            attempt.error.clone_from(&self.error);
        }
        Ok(from)
    }

    /// Starts a new run in the same session: terminal becomes pending. The tool count and the time of acceptance stay.
    pub(crate) fn resume(
        &mut self,
        resume: Resume,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.require(self.status.is_terminal(), TaskStatus::Pending)?;
        self.run = self.run.next();
        self.status = TaskStatus::Pending;
        self.prompt = resume.prompt.into();
        if let Some(parent) = resume.parent_session {
            self.move_to(parent);
        }
        if let Some(message) = resume.parent_message {
            self.parent_message = Some(message);
        }
        if let Some(agent) = resume.parent_agent {
            self.parent_agent = Some(agent.into());
        }
        self.started_at = None;
        self.completed_at = None;
        self.error = None;
        self.note = None;
        self.cut_offs = 0;
        self.progress = Progress {
            tool_calls: self.progress.tool_calls,
            ..Progress::none(now)
        };
        Ok(())
    }

    /// Moves the task to another parent. The history of the old parent keeps the task. The root session of the new lineage
    /// is not known.
    pub(crate) fn move_to(&mut self, parent: SessionId) {
        if self.parent_session.as_ref() == Some(&parent) {
            return;
        }
        self.root_session = None;
        if let Some(old) = self.parent_session.replace(parent)
            && !self.former_parents.contains(&old)
        {
            self.former_parents.push(old);
            if self.former_parents.len() > 16 {
                self.former_parents.remove(0);
            }
        }
    }

    /// Sets a note for readers while the run continues.
    pub(crate) fn set_note(&mut self, note: Arc<str>) {
        if !self.status.is_terminal() {
            self.note = Some(note);
        }
    }

    fn enter_running(&mut self, session: SessionId, directory: Option<Arc<str>>, now: Timestamp) {
        self.status = TaskStatus::Running;
        self.started_at = Some(now);
        self.progress.last_update = now;
        if directory.is_some() {
            self.directory = directory;
        }
        let model: Option<Arc<ModelRef>> = self.model.clone();
        let attempt = self.attempt() + 1;
        // Most tasks have few attempts.
        self.attempts.reserve_exact(1);
        self.attempts.push(Attempt {
            run: self.run,
            attempt,
            session: Some(session.clone()),
            model,
            started_at: Some(now),
            error: None,
        });
        // A task that is resumed for months must not grow: the newest hundred attempts are kept.
        if self.attempts.len() > 100 {
            self.attempts.remove(0);
        }
        self.session = Some(session);
    }

    fn require(&self, allowed: bool, to: TaskStatus) -> Result<(), IllegalTransition> {
        if allowed {
            return Ok(());
        }
        Err(IllegalTransition {
            task: self.id.clone(),
            run: self.run,
            from: self.status,
            to,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ModelRef;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp::from_millis(0);

    fn launch() -> Launch {
        Launch {
            description: "d".into(),
            prompt: "p".into(),
            agent: "worker".into(),
            ..Launch::default()
        }
    }

    fn pending() -> Task {
        Task::accept(TaskId::from_random(1), launch(), 1, T0)
    }

    #[test]
    fn group_is_model_or_agent() {
        assert_eq!(pending().concurrency_group.as_str(), "worker");
        let model = ModelRef {
            provider_id: "acme".into(),
            model_id: "big/er".into(),
            variant: None,
        };
        let task = Task::accept(
            TaskId::from_random(1),
            Launch {
                model: Some(model),
                ..launch()
            },
            1,
            T0,
        );
        assert_eq!(task.concurrency_group.as_str(), "acme/big/er");
    }

    #[test]
    fn run_ends_once() {
        let mut task = pending();
        task.end(&End::error("first"), T0).unwrap();
        let second = task.end(&End::completed(), T0 + std::time::Duration::from_secs(1));
        assert_eq!(second.unwrap_err().from, TaskStatus::Error);
        assert_eq!(
            (task.status(), task.error(), task.completed_at()),
            (TaskStatus::Error, Some("first"), Some(T0))
        );
    }

    #[test]
    fn resume_clears_run_and_keeps_tool_count() {
        let mut task = pending();
        task.start("ses_1".into(), None, T0).unwrap();
        task.progress.tool_calls = 2;
        task.end(&End::error("boom"), T0).unwrap();
        task.resume(
            Resume {
                prompt: "go on".into(),
                ..Resume::default()
            },
            Timestamp::from_millis(9),
        )
        .unwrap();
        assert_eq!(
            (task.status(), task.run, task.error(), task.started_at()),
            (TaskStatus::Pending, Run(2), None, None)
        );
        assert_eq!((task.progress.tool_calls, task.queued_at), (2, T0));
        assert_eq!(task.session, Some("ses_1".into()));
    }

    #[test]
    fn running_task_is_not_resumed() {
        let mut task = pending();
        task.start("ses_1".into(), None, T0).unwrap();
        assert!(task.resume(Resume::default(), T0).is_err());
    }

    #[test]
    fn cut_off_run_continues_its_session_in_the_next_attempt() {
        let mut task = pending();
        assert_eq!(task.session_to_continue(), None);
        assert!(task.cut_off(false, "cut off").is_err());
        task.start("ses_1".into(), None, T0).unwrap();
        task.cut_off(false, "cut off").unwrap();
        assert_eq!(
            (task.status(), task.run, task.started_at(), task.cut_offs()),
            (TaskStatus::Pending, Run(1), None, 1)
        );
        assert_eq!(task.session_to_continue(), Some(&"ses_1".into()));
        task.start("ses_1".into(), None, T0).unwrap();
        assert_eq!((task.attempt(), task.attempts.len()), (2, 2));
        task.cut_off(false, "cut off").unwrap();
        assert_eq!(task.cut_offs(), 2);
        task.start("ses_1".into(), None, T0).unwrap();
        // A finished message begins the count again.
        task.cut_off(true, "cut off").unwrap();
        assert_eq!(task.cut_offs(), 1);
        task.end(&End::cancelled(None), T0).unwrap();
        task.resume(Resume::default(), T0).unwrap();
        assert_eq!((task.session_to_continue(), task.cut_offs()), (None, 0));
    }

    proptest! {
        /// After any sequence of operations the status has changed only by allowed transitions.
        #[test]
        fn only_legal_transitions_succeed(moves in proptest::collection::vec(0u8..7, 0..60)) {
            let mut task = pending();
            for (step, choice) in moves.into_iter().enumerate() {
                let before = task.clone();
                let now = Timestamp::from_millis(step as i64);
                let changed = match choice {
                    0 => task.start("ses".into(), None, now).is_ok(),
                    1 => task.end(&End::completed(), now).is_ok(),
                    2 => task.end(&End::error("e"), now).is_ok(),
                    3 => task.end(&End::cancelled(None), now).is_ok(),
                    4 => task.end(&End::interrupt("i"), now).is_ok(),
                    6 => task.cut_off(step % 2 == 0, "c").is_ok(),
                    _ => task.resume(Resume::default(), now).is_ok(),
                };
                let legal = match choice {
                    0 => before.status() == TaskStatus::Pending,
                    5 => before.status().is_terminal(),
                    6 => before.status() == TaskStatus::Running,
                    _ => !before.status().is_terminal(),
                };
                prop_assert_eq!(changed, legal);
                if !changed {
                    prop_assert_eq!(&task, &before);
                }
                prop_assert_eq!(task.run == before.run, choice != 5 || !changed);
            }
        }
    }
}

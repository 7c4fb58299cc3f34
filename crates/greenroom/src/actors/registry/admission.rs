//! The acceptance of tasks: launch, resume, track.

use std::sync::Arc;

use actix::{Context, Handler, Message};

use super::{Query, TaskRegistry};
use crate::actors::task::lineage::Lineage;
use crate::actors::task::{RecordChanged, StartMode};
use crate::domain::idempotency::{KeyConflict, LaunchKey};
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use crate::domain::validation;
use crate::handle::{LaunchError, ResumeError, TrackError};
use crate::maps::Set;
use crate::ports::journal::JournalEntry;

/// Revokes the acceptance of a run that could not be made durable: its caller has received a refusal.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RevokeAcceptance {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) why: Arc<str>,
}

impl Query for Launch {
    type Answer = Result<Task, LaunchError>;
    const DECIDES: bool = true;

    fn on_journal_failure(
        answer: Self::Answer,
        why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        match answer {
            Ok(task) => (
                Err(LaunchError::Journal(why.to_owned())),
                Some((task.id, task.run)),
            ),
            refused => (refused, None),
        }
    }

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.launch(self, None, ctx)
    }
}

/// A launch with an idempotency key.
#[derive(Clone)]
pub(crate) struct LaunchOnce {
    pub(crate) key: String,
    pub(crate) launch: Launch,
}

impl Query for LaunchOnce {
    /// The task, and true if it was launched before.
    type Answer = Result<(Task, bool), LaunchError>;
    const DECIDES: bool = true;

    fn on_journal_failure(
        answer: Self::Answer,
        why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        match answer {
            Ok((task, false)) => (
                Err(LaunchError::Journal(why.to_owned())),
                Some((task.id, task.run)),
            ),
            // The earlier launch may not be durable either; its own caller receives that error.
            Ok((_, true)) => (Err(LaunchError::Journal(why.to_owned())), None),
            refused => (refused, None),
        }
    }

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        let now = registry.env.now();
        let known = registry.launch_keys.find(&self.key, &self.launch, now);
        let known = known.map_err(|KeyConflict| LaunchError::KeyReused {
            key: self.key.clone(),
        })?;
        if let Some(task) = known.and_then(|id| registry.load_task(&id)) {
            return Ok((task, true));
        }
        let task = registry.launch(self.launch, Some(self.key), ctx)?;
        Ok((task, false))
    }
}

impl Query for Resume {
    type Answer = Result<Task, ResumeError>;
    const DECIDES: bool = true;

    fn on_journal_failure(
        answer: Self::Answer,
        why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        match answer {
            Ok(task) => (
                Err(ResumeError::Journal(why.to_owned())),
                Some((task.id, task.run)),
            ),
            refused => (refused, None),
        }
    }

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.resume(self, ctx)
    }
}

impl Query for Track {
    type Answer = Result<Task, TrackError>;
    const DECIDES: bool = true;

    fn on_journal_failure(
        answer: Self::Answer,
        why: &str,
    ) -> (Self::Answer, Option<(TaskId, Run)>) {
        match answer {
            // The session was started by another client and goes on, and so does its task: it may be tracked again.
            Ok(_) => (Err(TrackError::Journal(why.to_owned())), None),
            refused => (refused, None),
        }
    }

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.track(self, ctx)
    }
}

impl TaskRegistry {
    /// Reloads the ended task of a session from the journal into memory.
    fn reload_session(&mut self, session: &SessionId) -> Option<TaskId> {
        let task = self.env.journal.find(session.as_str())?;
        if task.session.as_ref() != Some(session) {
            return None;
        }
        self.reload_task(task)
    }

    /// Reloads an ended task into memory. Returns none if the task is open or in memory already.
    fn reload_task(&mut self, task: Task) -> Option<TaskId> {
        if !task.status().is_terminal() || self.tasks.contains_key(&task.id) {
            return None;
        }
        let (session, record) = (task.session.clone(), Arc::new(task.clone()));
        let id = self.new_entry(task);
        if let Some(entry) = self.tasks.get_mut(&id) {
            // The record that readers see until a newer one is durable.
            entry.record = Some(record);
        }
        if let Some(session) = session {
            self.by_session.entry(session).or_insert_with(|| id.clone());
        }
        Some(id)
    }

    /// Returns a task from memory, or else from the journal.
    pub(super) fn load_task(&self, id: &TaskId) -> Option<Task> {
        let in_memory = self.tasks.get(id).map(|entry| Task::clone(&entry.task));
        in_memory.or_else(|| self.env.journal.find(id.as_str()))
    }

    fn launch(
        &mut self,
        launch: Launch,
        key: Option<String>,
        ctx: &mut Context<Self>,
    ) -> Result<Task, LaunchError> {
        if self.is_closing() {
            return Err(LaunchError::ShuttingDown);
        }
        if let Some(why) = self.env.journal_failing() {
            return Err(LaunchError::Journal(why.to_string()));
        }
        validation::launch(&launch)
            .map_err(|(field, problem)| LaunchError::Invalid { field, problem })?;
        if self.waiting >= self.limits.max_waiting {
            return Err(LaunchError::QueueFull {
                waiting: self.waiting,
            });
        }
        let size =
            (launch.prompt.len() + launch.skill_content.as_ref().map_or(0, String::len)) as u64;
        if let Some((waiting, limit)) = self.exceeded_queue_size(size) {
            return Err(LaunchError::QueueTooLarge { waiting, limit });
        }
        let known = self.known_lineage(launch.parent_session.as_ref());
        let limit = self.env.config.safety.max_depth;
        if let Some(lineage) = &known
            && lineage.depth > limit
        {
            return Err(LaunchError::TooDeep {
                depth: lineage.depth,
                limit,
            });
        }
        let depth = known.as_ref().map_or(1, |lineage| lineage.depth);
        let (id, now) = (self.new_id(), self.env.now());
        let key = key.map(|key| LaunchKey::new(key, &launch, id.clone(), now));
        let mut task = Task::accept(id, launch, depth, now);
        task.root_session = known.and_then(|lineage| lineage.root);
        let id = self.new_entry(task);
        let with = self.joining(&id).into_iter();
        self.recorded(&id, None, with.chain(key.clone().map(JournalEntry::Key)));
        if let Some(key) = key {
            self.launch_keys.remember(key);
        }
        self.join_batch(&id);
        self.enqueue(&id, ctx);
        self.toast_queued(&id);
        Ok(Task::clone(&self.tasks[&id].task))
    }

    fn resume(&mut self, resume: Resume, ctx: &mut Context<Self>) -> Result<Task, ResumeError> {
        if self.is_closing() {
            return Err(ResumeError::ShuttingDown);
        }
        if let Some(why) = self.env.journal_failing() {
            return Err(ResumeError::Journal(why.to_string()));
        }
        validation::resume(&resume)
            .map_err(|(field, problem)| ResumeError::Invalid { field, problem })?;
        let session = resume
            .session
            .clone()
            .unwrap_or_else(|| SessionId::from(""));
        let unknown = || ResumeError::UnknownSession(session.clone());
        let id = match self.by_session.get(&session) {
            Some(id) => id.clone(),
            None => {
                let id = self.reload_session(&session).ok_or_else(unknown)?;
                // The task is removed again, unless the resume is accepted.
                self.remove_later(&id, ctx);
                id
            }
        };
        let task = &self.tasks.get(&id).ok_or_else(unknown)?.task;
        let (status, parent) = (task.status(), task.parent_session.clone());
        match status {
            TaskStatus::Pending => {
                return Err(ResumeError::AlreadyRunning(session, "being resumed"));
            }
            TaskStatus::Running => return Err(ResumeError::AlreadyRunning(session, "running")),
            _ => {}
        }
        // Without a parent in the request, the task keeps its parent.
        let parent = resume.parent_session.as_ref().or(parent.as_ref());
        self.refuse_cycle(Some(&session), parent)
            .map_err(|(field, problem)| ResumeError::Invalid { field, problem })?;
        if self.waiting >= self.limits.max_waiting {
            return Err(ResumeError::QueueFull {
                waiting: self.waiting,
            });
        }
        let size = resume.prompt.len() as u64;
        if let Some((waiting, limit)) = self.exceeded_queue_size(size) {
            return Err(ResumeError::QueueTooLarge { waiting, limit });
        }
        let (now, queue_seq) = (self.env.now(), self.next_queue_seq());
        let Some(entry) = self.tasks.get_mut(&id) else {
            return Err(unknown());
        };
        let (old_parent, accepted) = (entry.task.parent_session.clone(), entry.accepted);
        entry.task_mut().resume(resume, now).map_err(|illegal| {
            ResumeError::AlreadyRunning(session.clone(), illegal.from.as_str())
        })?;
        entry.queue_seq = queue_seq;
        let removal = entry.removal.take();
        let new_parent = entry.task.parent_session.clone();
        if let Some(key) = removal {
            self.deadlines.remove(&key);
            self.arm(ctx);
        }
        self.count_open(new_parent.as_ref());
        if new_parent != old_parent {
            if let Some(old) = &old_parent {
                self.unindex_parent(old, accepted);
            }
            self.set_root(&id);
            self.index(&id);
        }
        let joining = self.joining(&id);
        self.recorded(&id, Some(status), joining);
        self.join_batch(&id);
        self.enqueue(&id, ctx);
        Ok(Task::clone(&self.tasks[&id].task))
    }

    fn track(&mut self, track: Track, ctx: &mut Context<Self>) -> Result<Task, TrackError> {
        if self.is_closing() {
            return Err(TrackError::ShuttingDown);
        }
        if let Some(why) = self.env.journal_failing() {
            return Err(TrackError::Journal(why.to_string()));
        }
        validation::track(&track)
            .map_err(|(field, problem)| TrackError::Invalid { field, problem })?;
        // A task that was removed from memory is known too: its id must not be used again.
        let left = self.env.journal.find(track.task.as_str());
        if let Some(id) = left
            .filter(|task| task.id == track.task)
            .and_then(|task| self.reload_task(task))
        {
            self.remove_later(&id, ctx);
        }
        let known = self.tasks.get(&track.task);
        let session = known.map_or(Some(&track.session), |entry| entry.task.session.as_ref());
        self.refuse_cycle(session, Some(&track.parent_session))
            .map_err(|(field, problem)| TrackError::Invalid { field, problem })?;
        if known.is_some() {
            return Ok(self.track_known(track));
        }
        let (session, now) = (track.session.clone(), self.env.now());
        let has_key = track.concurrency_key.clone();
        let mut task = Task::adopt(track, now);
        task.concurrency_key = has_key;
        task.root_session = None;
        let id = self.new_entry(task);
        self.supersede_older(&session, &id);
        self.by_session.insert(session.clone(), id.clone());
        self.parent_session_ended(&session, false);
        let joining = self.joining(&id);
        self.recorded(&id, None, joining);
        self.join_batch(&id);
        self.run_task(&id, StartMode::Watch(session.clone(), now), None);
        self.watch_session(&id);
        self.look_for_directory(&id, session);
        Ok(Task::clone(&self.tasks[&id].task))
    }

    /// Sets another parent or parent agent of a known task. For an ended task only the record changes.
    fn track_known(&mut self, track: Track) -> Task {
        let id = track.task;
        let open = self
            .tasks
            .get(&id)
            .is_some_and(|entry| !entry.task.status().is_terminal());
        let moved = self
            .tasks
            .get(&id)
            .is_some_and(|entry| entry.task.parent_session.as_ref() != Some(&track.parent_session));
        let mut with = Vec::new();
        if moved && open {
            let batch = self.tasks.get(&id).and_then(|entry| entry.batch.clone());
            with.extend(batch.map(|parent| JournalEntry::Left(parent, id.clone())));
            self.leave_batch(&id);
        }
        let Some(entry) = self.tasks.get_mut(&id) else {
            unreachable!("the caller has looked")
        };
        if track.parent_agent.is_some() {
            entry.task_mut().parent_agent = track.parent_agent.map(Arc::from);
        }
        let (old_parent, accepted) = (entry.task.parent_session.clone(), entry.accepted);
        if moved {
            let new_parent = track.parent_session;
            // The old parent's history keeps the task, also an ended one, and records its later runs.
            entry.task_mut().move_to(new_parent.clone());
            if open {
                self.count_closed(old_parent.as_ref());
                self.count_open(Some(&new_parent));
            }
            if let Some(old) = &old_parent {
                self.unindex_parent(old, accepted);
            }
            self.set_root(&id);
            self.index(&id);
        }
        if moved && open {
            with.extend(self.joining(&id));
            self.append_task(&id, with);
            let task = Arc::clone(&self.tasks[&id].task);
            self.record_history(&task);
            if let Some(actor) = &self.tasks[&id].actor {
                actor.do_send(RecordChanged(task));
            }
            self.join_batch(&id);
            if let Some(old) = &old_parent {
                self.send_dependents(old);
            }
        } else {
            self.append_task(&id, []);
        }
        Task::clone(&self.tasks[&id].task)
    }

    /// Sets the root session of a task that was moved, if its parent is the session of a task.
    fn set_root(&mut self, id: &TaskId) {
        let parent = self.tasks.get(id).map(|entry| &entry.task.parent_session);
        let lineage = self.known_lineage(parent.and_then(Option::as_ref));
        if let (Some(entry), Some(lineage)) = (self.tasks.get_mut(id), lineage) {
            entry.task_mut().root_session = lineage.root;
        }
    }

    /// Checks that a session is not below itself: a task that waits for its own end would never end.
    fn refuse_cycle(
        &self,
        session: Option<&SessionId>,
        parent: Option<&SessionId>,
    ) -> Result<(), validation::Problem> {
        let (Some(session), Some(parent)) = (session, parent) else {
            return Ok(());
        };
        let mut seen = Set::default();
        let mut above = Some(parent.clone());
        while let Some(current) = above.filter(|current| seen.insert(current.clone())) {
            if current == *session {
                let problem = "is the session of the task itself, or below it; name one above it";
                return Err(("parentSessionID", problem.to_owned()));
            }
            above = self.parent_of(&current);
        }
        Ok(())
    }

    /// Returns the parent of a session by its newest task, also one removed from memory, since it may be resumed.
    fn parent_of(&self, session: &SessionId) -> Option<SessionId> {
        let id = self.by_session.get(session);
        if let Some(entry) = id.and_then(|id| self.tasks.get(id)) {
            return entry.task.parent_session.clone();
        }
        let left = self.env.journal.find(session.as_str())?;
        left.parent_session
            .filter(|_| left.session.as_ref() == Some(session))
    }

    /// Returns the lineage of a new task without a call: known if the parent is the session of a task, or if there is no
    /// parent.
    pub(super) fn known_lineage(&self, parent: Option<&SessionId>) -> Option<Lineage> {
        let Some(parent) = parent else {
            return Some(Lineage::unknown());
        };
        let above = &self.tasks.get(self.by_session.get(parent)?)?.task;
        Some(Lineage {
            depth: above.spawn_depth + 1,
            directory: above.directory.clone(),
            root: above
                .root_session
                .clone()
                .or_else(|| above.parent_session.clone()),
        })
    }
}

impl Handler<RevokeAcceptance> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, revoked: RevokeAcceptance, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: TakeBack");
        let current = self.tasks.get(&revoked.task).is_some_and(|entry| {
            entry.task.run == revoked.run && !entry.task.status().is_terminal()
        });
        if !current {
            return;
        }
        if revoked.run == Run::FIRST {
            // A revoked resume keeps the launch key of its task: a repeated launch still finds the task.
            self.launch_keys.forget(&revoked.task);
            self.env
                .append(vec![JournalEntry::Unaccepted(revoked.task.clone())]);
        }
        let reason = format!("the journal could not be written: {}", revoked.why);
        let mut end = End::cancelled(Some(reason));
        end.skip_notification = true;
        self.request_end(&revoked.task, end, ctx);
    }
}

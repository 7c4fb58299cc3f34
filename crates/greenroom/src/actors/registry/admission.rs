//! How tasks come in and get their slot: launch, resume, track, and the grant.

use actix::{Addr, Context, Handler};

use super::orders::taken_over_by;
use super::{
    AbortDone, Deadline, Granted, Line, Query, RunChanged, RunPrompted, RunStarted, TaskRegistry,
};
use crate::actors::env::{answer, within};
use crate::actors::key_queue::{Enqueue, KeyQueue, Withdraw};
use crate::actors::poller;
use crate::actors::slot_manager::SlotPermit;
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::task::lineage::Lineage;
use crate::actors::task::{Beginning, Go, TaskActor};
use crate::domain::idempotency::{Kept as KeptKey, Reused};
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use crate::domain::time::duration_text;
use crate::domain::validation;
use crate::handle::{LaunchError, ResumeError, TrackError};
use crate::ports::journal::Entry;

impl Query for Launch {
    type Answer = Result<Task, LaunchError>;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.launch(self, None, ctx)
    }
}

/// A launch that may be repeated under its key.
#[derive(Clone)]
pub(crate) struct LaunchOnce {
    pub(crate) key: String,
    pub(crate) launch: Launch,
}

impl Query for LaunchOnce {
    /// The task, and whether it was launched before.
    type Answer = Result<(Task, bool), LaunchError>;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        let now = registry.env.now();
        let known = registry.launch_keys.look(&self.key, &self.launch, now);
        let known = known.map_err(|Reused| LaunchError::KeyReused {
            key: self.key.clone(),
        })?;
        if let Some(task) = known.and_then(|id| registry.remembered(&id)) {
            return Ok((task, true));
        }
        let task = registry.launch(self.launch, Some(self.key), ctx)?;
        Ok((task, false))
    }
}

impl Query for Resume {
    type Answer = Result<Task, ResumeError>;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.resume(self, ctx)
    }
}

impl Query for Track {
    type Answer = Result<Task, TrackError>;

    fn answer(self, registry: &mut TaskRegistry, ctx: &mut Context<TaskRegistry>) -> Self::Answer {
        registry.track(self, ctx)
    }
}

impl TaskRegistry {
    /// Takes the ended task of a session that has left memory into it again.
    fn recall(&mut self, session: &SessionId) -> Option<TaskId> {
        let task = self.env.journal.find(session.as_str())?;
        if task.session.as_ref() != Some(session) {
            return None;
        }
        self.take_back(task)
    }

    /// Takes an ended task that has left memory into it again, if it is one.
    fn take_back(&mut self, task: Task) -> Option<TaskId> {
        if !task.status().is_terminal() || self.tasks.contains_key(&task.id) {
            return None;
        }
        let session = task.session.clone();
        let id = self.new_entry(task);
        if let Some(session) = session {
            self.by_session.entry(session).or_insert_with(|| id.clone());
        }
        Some(id)
    }

    /// A task in memory, or one that has left it and that the journal remembers.
    fn remembered(&self, id: &TaskId) -> Option<Task> {
        let kept = self.tasks.get(id).map(|entry| entry.task.clone());
        kept.or_else(|| self.env.journal.find(id.as_str()))
    }

    fn launch(
        &mut self,
        launch: Launch,
        key: Option<String>,
        ctx: &mut Context<Self>,
    ) -> Result<Task, LaunchError> {
        if self.closing.is_some() {
            return Err(LaunchError::ShuttingDown);
        }
        validation::launch(&launch)
            .map_err(|(field, problem)| LaunchError::Invalid { field, problem })?;
        if self.waiting >= self.limits.max_waiting {
            return Err(LaunchError::QueueFull {
                waiting: self.waiting,
            });
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
        let key = key.map(|key| KeptKey::new(key, &launch, id.clone(), now));
        let mut task = Task::accept(id, launch, depth, now);
        task.root_session = known.and_then(|lineage| lineage.root);
        let id = self.new_entry(task);
        let with = self.joining(&id).into_iter();
        self.recorded(&id, None, with.chain(key.clone().map(Entry::Key)));
        if let Some(key) = key {
            self.launch_keys.remember(key);
        }
        self.join_batch(&id, ctx);
        self.enqueue_again(&id, ctx);
        self.toast_queued(&id);
        Ok(self.tasks[&id].task.clone())
    }

    fn resume(&mut self, resume: Resume, ctx: &mut Context<Self>) -> Result<Task, ResumeError> {
        if self.closing.is_some() {
            return Err(ResumeError::ShuttingDown);
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
                let id = self.recall(&session).ok_or_else(unknown)?;
                // It leaves again, unless the resume is accepted.
                self.remove_later(&id, ctx);
                id
            }
        };
        let status = self.tasks.get(&id).ok_or_else(unknown)?.task.status();
        match status {
            TaskStatus::Pending => {
                return Err(ResumeError::AlreadyRunning(session, "being resumed"));
            }
            TaskStatus::Running => return Err(ResumeError::AlreadyRunning(session, "running")),
            _ => {}
        }
        self.refuse_cycle(Some(&session), resume.parent_session.as_ref())
            .map_err(|(field, problem)| ResumeError::Invalid { field, problem })?;
        if self.waiting >= self.limits.max_waiting {
            return Err(ResumeError::QueueFull {
                waiting: self.waiting,
            });
        }
        let (now, age) = (self.env.now(), self.age());
        let Some(entry) = self.tasks.get_mut(&id) else {
            return Err(unknown());
        };
        let (old_parent, accepted) = (entry.task.parent_session.clone(), entry.accepted);
        entry.task.resume(resume, now).map_err(|illegal| {
            ResumeError::AlreadyRunning(session.clone(), illegal.from.as_str())
        })?;
        entry.age = age;
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
            self.index(&id);
        }
        let joining = self.joining(&id);
        self.recorded(&id, Some(status), joining);
        self.parent_session_ended(&session, false);
        self.join_batch(&id, ctx);
        self.enqueue_again(&id, ctx);
        Ok(self.tasks[&id].task.clone())
    }

    fn track(&mut self, track: Track, ctx: &mut Context<Self>) -> Result<Task, TrackError> {
        if self.closing.is_some() {
            return Err(TrackError::ShuttingDown);
        }
        validation::track(&track)
            .map_err(|(field, problem)| TrackError::Invalid { field, problem })?;
        // Also one that has left memory is known: it must not begin a second life under its id.
        let left = self.env.journal.find(track.task.as_str());
        if let Some(id) = left
            .filter(|task| task.id == track.task)
            .and_then(|task| self.take_back(task))
        {
            self.remove_later(&id, ctx);
        }
        let known = self.tasks.get(&track.task);
        let session = known.map_or(Some(&track.session), |entry| entry.task.session.as_ref());
        self.refuse_cycle(session, Some(&track.parent_session))
            .map_err(|(field, problem)| TrackError::Invalid { field, problem })?;
        if known.is_some() {
            return Ok(self.track_known(track, ctx));
        }
        let (session, now) = (track.session.clone(), self.env.now());
        let has_key = track.concurrency_key.clone();
        let mut task = Task::adopt(track, now);
        task.concurrency_key = has_key;
        task.root_session = None;
        let id = self.new_entry(task);
        self.take_over(&session, &id);
        self.by_session.insert(session.clone(), id.clone());
        self.parent_session_ended(&session, false);
        let joining = self.joining(&id);
        self.recorded(&id, None, joining);
        self.join_batch(&id, ctx);
        self.run_task(&id, Beginning::Watch(session.clone(), now), None);
        self.watch_session(&id);
        self.look_for_directory(&id, session);
        Ok(self.tasks[&id].task.clone())
    }

    /// A known task gets another parent or parent agent; the rest stays. Of a settled one only the record changes.
    fn track_known(&mut self, track: Track, ctx: &mut Context<Self>) -> Task {
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
            with.extend(batch.map(|parent| Entry::Left(parent, id.clone())));
            self.leave_batch(&id);
        }
        let Some(entry) = self.tasks.get_mut(&id) else {
            unreachable!("the caller has looked")
        };
        if track.parent_agent.is_some() {
            entry.task.parent_agent = track.parent_agent;
        }
        let (old_parent, accepted) = (entry.task.parent_session.clone(), entry.accepted);
        if moved {
            let new_parent = track.parent_session;
            if open {
                entry.task.move_to(new_parent.clone());
                self.count_closed(old_parent.as_ref());
                self.count_open(Some(&new_parent));
            } else {
                entry.task.parent_session = Some(new_parent);
            }
            if let Some(old) = &old_parent {
                self.unindex_parent(old, accepted);
            }
            self.index(&id);
        }
        if moved && open {
            with.extend(self.joining(&id));
            self.append_task(&id, with);
            let task = self.tasks[&id].task.clone();
            self.record_history(&task);
            self.join_batch(&id, ctx);
            if let Some(old) = &old_parent {
                self.tell_dependents(old);
            }
        } else {
            self.append_task(&id, []);
        }
        self.tasks[&id].task.clone()
    }

    /// A session cannot be below itself: a task that waits for its own end would never end.
    fn refuse_cycle(
        &self,
        session: Option<&SessionId>,
        parent: Option<&SessionId>,
    ) -> Result<(), validation::Problem> {
        let (Some(session), Some(parent)) = (session, parent) else {
            return Ok(());
        };
        let mut seen = std::collections::HashSet::new();
        let mut above = Some(parent.clone());
        while let Some(current) = above.filter(|current| seen.insert(current.clone())) {
            if current == *session {
                let problem = "is the session of the task itself, or below it; name one above it";
                return Err(("parentSessionID", problem.to_owned()));
            }
            let task = self
                .by_session
                .get(&current)
                .and_then(|id| self.tasks.get(id));
            above = task.and_then(|entry| entry.task.parent_session.clone());
        }
        Ok(())
    }

    /// What is known at once of the sessions above a new task: everything if the parent is a session of ours, or there
    /// is none.
    fn known_lineage(&self, parent: Option<&SessionId>) -> Option<Lineage> {
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

    /// Takes the place in line that the run's age gives it.
    pub(super) fn enqueue_again(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let age = entry.age;
        entry.queued = Some(age);
        let (key, run) = (entry.task.concurrency_group.clone(), entry.task.run);
        if !self.lines.contains_key(&key) {
            let line = Line {
                queue: self.new_queue(&key),
                waiting: Default::default(),
            };
            self.lines.insert(key.clone(), line);
        }
        if let Some(line) = self.lines.get_mut(&key) {
            line.waiting.insert(age, id.clone());
            self.waiting += 1;
            line.queue.do_send(Enqueue {
                age,
                task: id.clone(),
                run,
            });
        }
        if let Some(limit) = self.env.config.lifecycle.queue_ttl {
            let key = self.set_deadline(
                self.env.now() + limit,
                Deadline::QueueTtl(id.clone(), run),
                ctx,
            );
            if let Some(entry) = self.tasks.get_mut(id) {
                entry.expiry = Some(key);
            }
        }
    }

    fn new_queue(&mut self, key: &ConcurrencyKey) -> Addr<KeyQueue> {
        let generation = self.number();
        let (slots, registry) = (self.desks.slots.clone(), self.desks.registry.clone());
        let (told, places) = (registry.clone(), self.env.places.clone());
        let (name, key) = (key.clone(), key.clone());
        spawn_supervised(
            move |_| KeyQueue::new(key, generation, slots, registry, places),
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    told.send(super::finaliser::QueueDied {
                        key: name,
                        generation,
                        panic,
                    });
                }
            },
        )
    }

    /// A key's queue has died: the next one is told who waits. Whoever joins the line meanwhile waits with it.
    pub(super) fn rebuild_queue(&mut self, key: &ConcurrencyKey) {
        if !self.lines.contains_key(key) {
            return;
        }
        let queue = self.new_queue(key);
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        line.queue = queue;
        for (age, id) in &line.waiting {
            if let Some(entry) = self.tasks.get(id) {
                line.queue.do_send(Enqueue {
                    age: *age,
                    task: id.clone(),
                    run: entry.task.run,
                });
            }
        }
    }

    /// The run waits no more, granted or not. Its queue goes with its last waiter.
    pub(super) fn withdraw(&mut self, id: &TaskId, granted: bool, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        if let Some(key) = entry.expiry.take() {
            self.deadlines.remove(&key);
        }
        if let Some(age) = entry.queued.take() {
            let key = entry.task.concurrency_group.clone();
            if let Some(line) = self.lines.get_mut(&key)
                && line.waiting.remove(&age).is_some()
            {
                self.waiting -= 1;
                if !granted {
                    line.queue.do_send(Withdraw(age));
                }
                if line.waiting.is_empty() {
                    self.lines.remove(&key);
                }
            }
        }
        self.arm(ctx);
    }

    pub(super) fn expire_waiting(&mut self, id: &TaskId, run: Run, ctx: &mut Context<Self>) {
        let waits = self
            .tasks
            .get(id)
            .is_some_and(|entry| entry.task.run == run && entry.queued.is_some());
        if waits {
            let limit = self.env.config.lifecycle.queue_ttl.unwrap_or_default();
            let end = End::error(format!("it waited {} for a slot", duration_text(limit)));
            self.finalise(id, run, &end, None, ctx);
        }
    }

    /// The slot is there: the task actor is made in this very step, and decides from now on.
    pub(super) fn start_run(&mut self, id: &TaskId, permit: SlotPermit) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let beginning = match (&task.session, task.run) {
            (Some(session), run) if run > Run::FIRST => {
                entry
                    .superseded
                    .store(true, std::sync::atomic::Ordering::Release);
                Beginning::Resume(session.clone())
            }
            _ if entry.started_once == Some(task.run) => {
                Beginning::Relaunch(self.known_lineage(task.parent_session.as_ref()))
            }
            _ => Beginning::Launch(self.known_lineage(task.parent_session.as_ref())),
        };
        if let Some(entry) = self.tasks.get_mut(id) {
            let run = entry.task.run;
            // Said before anything is made: whoever takes over must look for it.
            if entry.started_once.replace(run) != Some(run) {
                self.env.append(vec![Entry::Granted(id.clone(), run)]);
            }
        }
        self.run_task(id, beginning, Some(permit));
    }

    pub(super) fn run_task(
        &mut self,
        id: &TaskId,
        beginning: Beginning,
        permit: Option<SlotPermit>,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let (env, desks, task) = (self.env.clone(), self.desks.clone(), entry.task.clone());
        let (told, name, run) = (desks.registry.clone(), id.clone(), task.run);
        let actor = spawn_supervised(
            move |_| TaskActor::new(env, desks.registry, desks.slots, task, beginning, permit),
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    told.send(super::finaliser::TaskDied {
                        task: name,
                        run,
                        panic,
                    });
                }
            },
        );
        self.desks
            .tasks
            .put(id.clone(), u64::from(run.0), actor.clone());
        entry.actor = Some(actor);
        entry.told_dependents = (0, false);
        if let Some(session) = entry.task.session.clone() {
            self.tell_dependents(&session);
        }
    }

    /// A run without an actor is attached to its session again; its slot is adopted.
    pub(super) fn attach(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let (Some(session), Some(started)) = (task.session.clone(), task.started_at()) else {
            return;
        };
        let prompted = entry.prompted == Some(task.run) || (task.tracked && task.run == Run::FIRST);
        let beginning = match prompted {
            true => Beginning::Watch(session, started),
            false => Beginning::Reattach(session, started),
        };
        self.run_task(id, beginning, None);
        self.watch_session(id);
    }

    /// The poller watches the session of a running task.
    pub(super) fn watch_session(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let (Some(session), Some(actor)) = (entry.task.session.clone(), entry.actor.clone()) else {
            return;
        };
        let directory = entry
            .task
            .directory
            .clone()
            .unwrap_or_else(|| self.env.config.directory.clone());
        self.desks.poller.send(poller::Watch {
            task: id.clone(),
            run: entry.task.run,
            session,
            directory: directory.into(),
            actor,
        });
    }

    fn look_for_directory(&self, id: &TaskId, session: SessionId) {
        let (env, registry, task) = (self.env.clone(), self.desks.registry.clone(), id.clone());
        answer(
            &self.env,
            "registry: directory is read",
            async move {
                let record = within(env.config.calls.other, env.server.session(&session)).await;
                record.ok().and_then(|record| record.directory)
            },
            |_| None,
            move |directory| {
                if let Some(directory) = directory {
                    registry.send(super::DirectoryKnown {
                        task,
                        run: Run::FIRST,
                        directory,
                    });
                }
            },
        );
    }
}

impl Handler<super::DirectoryKnown> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, known: super::DirectoryKnown, _: &mut Context<Self>) {
        self.env.places.pass("registry: DirectoryKnown");
        let Some(entry) = self.tasks.get_mut(&known.task) else {
            return;
        };
        if entry.task.run == known.run && entry.task.status() == TaskStatus::Running {
            entry.task.directory = Some(known.directory);
            self.watch_session(&known.task);
        }
    }
}

impl Handler<Granted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, granted: Granted, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: Granted");
        let current = self.tasks.get(&granted.task).is_some_and(|entry| {
            entry.queued == Some(granted.age)
                && entry.task.run == granted.run
                && !entry.task.status().is_terminal()
        });
        if !current || self.closing.is_some() {
            // A grant to someone who has left comes back by being dropped.
            return;
        }
        self.withdraw(&granted.task, true, ctx);
        let aborting = self.desks.aborts.of(&granted.task).is_some();
        match self.tasks.get_mut(&granted.task) {
            // A resume waits for the abort of the run before, and for nothing else of it.
            Some(entry) if aborting => entry.granted = Some(granted.permit),
            Some(_) => self.start_run(&granted.task, granted.permit),
            None => {}
        }
    }
}

impl Handler<AbortDone> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, done: AbortDone, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: AbortDone");
        if self.desks.aborts.of(&done.task).is_none()
            && let Some(permit) = self
                .tasks
                .get_mut(&done.task)
                .and_then(|entry| entry.granted.take())
            && self.closing.is_none()
        {
            self.start_run(&done.task, permit);
        }
        self.consider_closed(ctx);
    }
}

impl Handler<RunStarted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, started: RunStarted, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: RunStarted");
        let Some(entry) = self
            .tasks
            .get_mut(&started.task)
            .filter(|entry| entry.task.run == started.run)
        else {
            return;
        };
        let from = entry.task.status();
        if from == TaskStatus::Running && entry.task.session.as_ref() == Some(&started.session) {
            // Said again to a registry that has been rebuilt, and knows: the actor may not have heard so.
            if let Some(actor) = &entry.actor {
                actor.do_send(Go);
            }
            return;
        }
        entry.task.spawn_depth = started.depth;
        if started.root.is_some() {
            entry.task.root_session = started.root;
        }
        if let Err(illegal) =
            entry
                .task
                .start(started.session.clone(), started.directory, started.at)
        {
            tracing::debug!(%illegal, "a start came too late");
            return;
        }
        entry.task.concurrency_key = started.slot;
        let actor = entry.actor.clone();
        if let Some(newest) = self.claimant_after(&started.task, &started.session) {
            // Claimed in the moment between the server's answer and this record of it: nothing is prompted.
            self.order_end(&started.task, taken_over_by(&newest), ctx);
            return;
        }
        self.by_session
            .insert(started.session.clone(), started.task.clone());
        self.recorded(&started.task, Some(from), []);
        self.watch_session(&started.task);
        self.answer_waiters(&started.task);
        if let Some(actor) = actor {
            actor.do_send(Go);
        }
        self.tell_dependents(&started.session);
    }
}

impl Handler<RunChanged> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, changed: RunChanged, _: &mut Context<Self>) {
        self.env.places.pass("registry: RunChanged");
        if let Some(entry) = self.tasks.get_mut(&changed.task)
            && entry.task.run == changed.run
            && entry.task.status() == TaskStatus::Running
        {
            super::finaliser::take_snapshot(&mut entry.task, changed.snapshot);
        }
    }
}

impl Handler<RunPrompted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, prompted: RunPrompted, _: &mut Context<Self>) {
        self.env.places.pass("registry: RunPrompted");
        if let Some(entry) = self.tasks.get_mut(&prompted.task)
            && entry.task.run == prompted.run
            && entry.prompted.replace(prompted.run) != Some(prompted.run)
        {
            let entry = Entry::Prompted(prompted.task, prompted.run);
            self.env.append(vec![entry]);
        }
    }
}

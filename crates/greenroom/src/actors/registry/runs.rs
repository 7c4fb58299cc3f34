//! Runs with a task actor: started when their slot is granted, attached to their session again, and their reports.

use std::sync::Arc;

use actix::{Context, Handler};

use super::commands::superseded_by;
use super::{RunChanged, RunPrompted, RunStarted, TaskRegistry};
use crate::actors::env::{spawn_call, within};
use crate::actors::poller;
use crate::actors::slot_manager::{Adopt, SlotPermit};
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::task::{
    Dependents, StartMode, StartRecorded, TaskActor, TaskActorRefs, concurrency_key_of,
};
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::task::TaskStatus;
use crate::ports::journal::JournalEntry;

impl TaskRegistry {
    /// Starts the task actor of a run whose slot was granted. The actor decides about the run from here on.
    pub(super) fn start_run(&mut self, id: &TaskId, permit: SlotPermit) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let start_mode = match (&task.session, task.run) {
            (Some(session), _) if task.session_to_continue().is_some() => {
                StartMode::Continue(session.clone())
            }
            (Some(session), run) if run > Run::FIRST => {
                entry
                    .superseded
                    .store(true, std::sync::atomic::Ordering::Release);
                StartMode::Resume(session.clone())
            }
            _ if entry.granted_run == Some(task.run) => {
                StartMode::Relaunch(self.known_lineage(task.parent_session.as_ref()))
            }
            _ => StartMode::Launch(self.known_lineage(task.parent_session.as_ref())),
        };
        if let Some(entry) = self.tasks.get_mut(id) {
            let run = entry.task.run;
            // Recorded before the session is created: after a crash the session must be looked up.
            if entry.granted_run.replace(run) != Some(run) {
                self.env
                    .append(vec![JournalEntry::Granted(id.clone(), run)]);
            }
        }
        self.run_task(id, start_mode, Some(permit));
    }

    pub(super) fn run_task(
        &mut self,
        id: &TaskId,
        start_mode: StartMode,
        permit: Option<SlotPermit>,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let (env, refs, task) = (self.env.clone(), self.refs.clone(), entry.task.clone());
        let (slots, key) = (self.refs.slots.clone(), concurrency_key_of(&task));
        // The slot is requested here, so that it is adopted before a waiting run gets one.
        let adopts = permit.is_none()
            && matches!(&start_mode, StartMode::Watch(..) | StartMode::Reattach(..));
        let (exit_ref, name, run) = (refs.registry.clone(), id.clone(), task.run);
        let actor = spawn_supervised(
            move |_| {
                let refs = TaskActorRefs {
                    registry: refs.registry,
                    slots: refs.slots,
                    poller: refs.poller,
                };
                TaskActor::new(env, refs, task, start_mode, permit)
            },
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    exit_ref.send(super::finaliser::TaskDied {
                        task: name,
                        run,
                        panic,
                    });
                }
            },
        );
        if let Some(key) = key.filter(|_| adopts) {
            let to = actor.clone().recipient();
            slots.send(Adopt { key, to });
        }
        self.refs
            .tasks
            .put(id.clone(), u64::from(run.0), actor.clone());
        entry.actor = Some(actor);
        entry.sent_dependents = Dependents::default();
        self.hold_for_abort(id);
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        if let Some(session) = entry.task.session.clone() {
            self.send_dependents(&session);
        }
    }

    /// Starts a new actor for a run and attaches it to the existing session; its slot is adopted.
    pub(super) fn attach(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let (Some(session), Some(started)) = (task.session.clone(), task.started_at()) else {
            return;
        };
        let prompted = entry.prompted == Some(task.run)
            || (task.tracked && task.run == Run::FIRST && task.attempt() == 1);
        let start_mode = if prompted {
            StartMode::Watch(session, started)
        } else {
            StartMode::Reattach(session, started)
        };
        self.run_task(id, start_mode, None);
        self.watch_session(id);
    }

    /// Starts the polling of a running task's session.
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
        self.refs.poller.send(poller::Watch {
            task: id.clone(),
            run: entry.task.run,
            session,
            directory,
            actor,
        });
    }

    pub(super) fn look_for_directory(&self, id: &TaskId, session: SessionId) {
        let (env, registry, task) = (self.env.clone(), self.refs.registry.clone(), id.clone());
        spawn_call(
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
        self.env.failpoints.hit("registry: DirectoryKnown");
        let Some(entry) = self.tasks.get_mut(&known.task) else {
            return;
        };
        if entry.task.run == known.run && entry.task.status() == TaskStatus::Running {
            entry.task_mut().directory = Some(known.directory);
            self.watch_session(&known.task);
        }
    }
}

impl Handler<RunStarted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, started: RunStarted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunStarted");
        let Some(entry) = self
            .tasks
            .get_mut(&started.task)
            .filter(|entry| entry.task.run == started.run)
        else {
            return;
        };
        let from = entry.task.status();
        if from == TaskStatus::Running && entry.task.session.as_ref() == Some(&started.session) {
            // Reported again after a restart of the registry. The answer to the first report may have been lost.
            if let Some(actor) = &entry.actor {
                actor.do_send(StartRecorded(Arc::clone(&entry.task)));
            }
            return;
        }
        entry.task_mut().spawn_depth = started.depth;
        if started.root.is_some() {
            entry.task_mut().root_session = started.root;
        }
        if let Err(illegal) =
            entry
                .task_mut()
                .start(started.session.clone(), started.directory, started.at)
        {
            tracing::debug!(%illegal, "start ignored: it came too late");
            return;
        }
        entry.task_mut().concurrency_key = started.slot;
        let actor = entry.actor.clone();
        if let Some(newest) = self.claimant_after(&started.task, &started.session) {
            // The session was claimed between the server's answer and this record: nothing is prompted.
            self.request_end(&started.task, superseded_by(&newest), ctx);
            return;
        }
        self.by_session
            .insert(started.session.clone(), started.task.clone());
        self.recorded(&started.task, Some(from), []);
        self.parent_session_ended(&started.session, false);
        self.watch_session(&started.task);
        if let (Some(actor), Some(entry)) = (actor, self.tasks.get(&started.task)) {
            actor.do_send(StartRecorded(Arc::clone(&entry.task)));
        }
        self.send_dependents(&started.session);
    }
}

impl Handler<RunChanged> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, changed: RunChanged, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunChanged");
        if let Some(entry) = self.tasks.get_mut(&changed.task)
            && entry.task.run == changed.run
            && entry.task.status() == TaskStatus::Running
        {
            super::finaliser::take_snapshot(entry.task_mut(), changed.snapshot);
        }
    }
}

impl Handler<RunPrompted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, prompted: RunPrompted, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunPrompted");
        if let Some(entry) = self.tasks.get_mut(&prompted.task)
            && entry.task.run == prompted.run
            && entry.prompted.replace(prompted.run) != Some(prompted.run)
        {
            let entry = JournalEntry::Prompted(prompted.task, prompted.run);
            self.env.append(vec![entry]);
        }
    }
}

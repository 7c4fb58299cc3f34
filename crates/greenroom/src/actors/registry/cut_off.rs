//! Sessions aborted from outside and runs that were cut off. The registry journals an abort when it is received, judges it
//! by the ends of instances ([`AbortGrace`]), and notifies the run or the parent's notifier. A run that was cut off waits
//! here until a server serves its directory; then it returns to its place in the queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{Context, Handler, Message};

use super::{Deadline, InstanceEnded, RunAborted, RunCutOff, TaskRegistry};
use crate::actors::env::{connect_backoff, spawn_call, within};
use crate::actors::parent_notifier::{ParentAbortHeld, ParentAbortJudged, ParentInstanceEnded};
use crate::actors::poller;
use crate::actors::task::{AbortHeld, AbortJudged, CutOffAccepted};
use crate::config::OnParentAbort;
use crate::domain::abort_grace::{AbortGrace, Verdict};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::instance::Instance;
use crate::domain::lifecycle::End;
use crate::domain::task::TaskStatus;
use crate::domain::time::{Timestamp, duration_text};
use crate::domain::timeline::TimelineEntry;
use crate::ports::agent_server::ServerError;
use crate::ports::journal::JournalEntry;

/// The tasks that wait for a server of one directory.
#[derive(Debug)]
pub(super) struct ServerWait {
    tasks: BTreeSet<TaskId>,
    /// The time since which the oldest of them waits in this process.
    since: Timestamp,
    tries: u32,
    /// True while a call is in flight.
    probing: bool,
    deadline: Option<super::DeadlineKey>,
}

/// Whether a server serves a directory in which runs wait.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DirectoryProbed {
    directory: Arc<str>,
    answer: Result<(), ServerError>,
}

/// Whether a server serves the directory of a restored abort.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RestoredAbortProbed {
    session: SessionId,
    is_served: bool,
}

/// An abort in the journal whose judgement is not recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceivedAbort {
    at: Timestamp,
    /// Whether the session was cut off; none until it is judged. The notifier of a parent records the judgement.
    cut_off: Option<bool>,
}

/// A notifier has received an abort in its parent's session that the system did not request.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentAborted {
    pub(crate) parent: SessionId,
    /// When the abort was received.
    pub(crate) at: Timestamp,
    /// When the aborted turn began, if it is known.
    pub(crate) turn_began: Option<Timestamp>,
}

/// A notifier has recorded the judgement of an abort in its parent's session, or the user has prompted the session since.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentAbortRecorded {
    pub(crate) parent: SessionId,
    /// When the abort was received.
    pub(crate) at: Timestamp,
}

/// The directory of an aborted parent's session; none if it could not be read.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentDirectoryRead {
    session: SessionId,
    directory: Option<Arc<str>>,
    at: Timestamp,
    turn_began: Option<Timestamp>,
}

impl TaskRegistry {
    /// Reads the directory of a parent whose session was aborted.
    fn read_parent_directory(&self, aborted: ParentAborted) {
        let ParentAborted {
            parent: session,
            at,
            turn_began,
        } = aborted;
        let (env, registry, parent) = (
            self.env.clone(),
            self.refs.registry.clone(),
            session.clone(),
        );
        // Longer than the grace, the notifier would wait for the judgement in vain.
        let limit = (self.env.config.lifecycle.abort_grace)
            .unwrap_or_default()
            .min(self.env.config.calls.other);
        spawn_call(
            &self.env,
            "registry: parent's directory is read",
            async move {
                let record = within(limit, env.server.session(&parent)).await;
                (parent, record.ok().and_then(|record| record.directory))
            },
            {
                let session = session.clone();
                |_| (session, None)
            },
            move |(session, directory)| {
                registry.send(ParentDirectoryRead {
                    session,
                    directory,
                    at,
                    turn_began,
                });
            },
        );
    }

    fn journal_abort(&mut self, session: &SessionId, at: Timestamp) {
        let received = ReceivedAbort { at, cut_off: None };
        if self.unjudged.insert(session.clone(), received).is_none() {
            self.env
                .append(vec![JournalEntry::AbortReceived(session.clone(), at)]);
        }
    }

    /// Records an abort, and judges it if its instance has ended already.
    fn judge_abort(
        &mut self,
        session: &SessionId,
        directory: Option<Arc<str>>,
        at: Timestamp,
        turn_began: Option<Timestamp>,
        ctx: &mut Context<Self>,
    ) {
        let Some(grace) = &mut self.abort_grace else {
            return;
        };
        let instance = Instance {
            directory,
            process: self.env.server.process_of(session),
        };
        if grace.aborted(session, instance, at, turn_began) {
            self.abort_judged(session, true, ctx);
        }
        self.arm_abort_grace(ctx);
    }

    /// Sends the judgement of an abort to the run in the session or to the notifier of the parent.
    fn abort_judged(&mut self, session: &SessionId, cut_off: bool, ctx: &mut Context<Self>) {
        tracing::info!(session = %session, cut_off, "abort judged");
        // The journal keeps the abort until the end or the cut-off of the run, or the judgement of the notifier, is recorded.
        let received = self.unjudged.get_mut(session);
        let at = received.map(|received| {
            received.cut_off = Some(cut_off);
            received.at
        });
        if cut_off && at.is_some() {
            // After a restart the stored messages show the same.
            self.env
                .append(vec![JournalEntry::AbortJudged(session.clone())]);
        }
        let parent = self.parents.get(session);
        if let Some((at, parent)) = at.zip(parent) {
            parent.notifier.do_send(ParentAbortJudged { at, cut_off });
        }
        let entry = (self.by_session.get(session)).and_then(|id| self.tasks.get(id));
        if let Some(actor) = entry.and_then(|entry| entry.actor.as_ref()) {
            actor.do_send(AbortJudged { cut_off });
        } else if parent.is_some() {
            if !cut_off {
                self.parent_aborted(session, ctx);
            }
        } else {
            self.forget_abort(session);
        }
    }

    /// Cancels the descendants of a parent that was stopped by its user, if they are to be.
    pub(super) fn parent_aborted(&mut self, session: &SessionId, ctx: &mut Context<Self>) {
        if self.env.config.notifications.on_parent_abort == OnParentAbort::Cancel
            && self.parents.contains_key(session)
        {
            for id in self.below(session) {
                let reason = "the parent was stopped by its user".to_owned();
                self.request_end(&id, End::cancelled(Some(reason)), ctx);
            }
        }
    }

    /// Removes an abort that needs no judgement any more.
    pub(super) fn forget_abort(&mut self, session: &SessionId) {
        if let Some(grace) = &mut self.abort_grace {
            grace.remove(session);
        }
        if self.unjudged.remove(session).is_some() {
            self.env
                .append(vec![JournalEntry::AbortJudged(session.clone())]);
        }
    }

    fn arm_abort_grace(&mut self, ctx: &mut Context<Self>) {
        let due = (self.abort_grace.as_ref()).and_then(AbortGrace::next_deadline);
        if due == self.abort_deadline.map(|(at, _)| at) {
            return;
        }
        if let Some(old) = self.abort_deadline.take() {
            self.deadlines.remove(&old);
        }
        match due {
            Some(at) => {
                self.abort_deadline = Some(self.set_deadline(at, Deadline::AbortGrace, ctx))
            }
            None => self.arm(ctx),
        }
    }

    /// Judges the aborts whose grace has passed.
    pub(super) fn abort_grace_over(&mut self, ctx: &mut Context<Self>) {
        self.abort_deadline = None;
        let now = self.env.now();
        let Some(grace) = &mut self.abort_grace else {
            return;
        };
        for (session, verdict) in grace.due(now) {
            match verdict {
                Verdict::CutOff => self.abort_judged(&session, true, ctx),
                Verdict::Person => self.abort_judged(&session, false, ctx),
                Verdict::PersonIfServed(directory) => self.probe_restored(session, directory),
            }
        }
        self.arm_abort_grace(ctx);
    }

    fn probe_restored(&self, session: SessionId, directory: Option<Arc<str>>) {
        let (env, registry) = (self.env.clone(), self.refs.registry.clone());
        let probed = session.clone();
        let parent = session.clone();
        spawn_call(
            &self.env,
            "registry: server of a restored abort is probed",
            async move {
                let limit = env.config.calls.other;
                let directory = match directory {
                    Some(directory) => directory,
                    None => match within(limit, env.server.session(&parent)).await {
                        Ok(record) => {
                            (record.directory).unwrap_or_else(|| env.config.directory.clone())
                        }
                        Err(_) => return false,
                    },
                };
                within(limit, env.server.serves(&directory)).await.is_ok()
            },
            |_| false,
            move |is_served| {
                registry.send(RestoredAbortProbed {
                    session: probed,
                    is_served,
                });
            },
        );
    }

    /// Restores the aborts that were not judged before a restart.
    pub(super) fn restore_aborts(
        &mut self,
        aborts: Vec<(SessionId, Timestamp)>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.env.now();
        for (session, at) in aborts {
            let received = ReceivedAbort { at, cut_off: None };
            self.unjudged.insert(session.clone(), received);
            let entry = (self.by_session.get(&session)).and_then(|id| self.tasks.get(id));
            let runs = entry.is_some_and(|entry| entry.task.status() == TaskStatus::Running);
            let is_parent = entry.is_none() && self.parents.contains_key(&session);
            if self.abort_grace.is_none() || !(runs || is_parent) {
                self.forget_abort(&session);
                continue;
            }
            let directory = entry.and_then(|entry| entry.task.directory.clone());
            if let Some(actor) = entry.and_then(|entry| entry.actor.as_ref()) {
                actor.do_send(AbortHeld);
            }
            self.hold_parent_for_abort(&session);
            let process = self.env.server.process_of(&session);
            if let Some(grace) = &mut self.abort_grace {
                let instance = Instance { directory, process };
                grace.restored(&session, instance, at, now);
            }
        }
        self.arm_abort_grace(ctx);
    }

    /// Notifies a new notifier of a parent that an abort of its session waits for its judgement, and of the judgement if it
    /// was not recorded.
    pub(super) fn hold_parent_for_abort(&self, session: &SessionId) {
        // The abort of a task's session concerns its run.
        if self.by_session.contains_key(session) {
            return;
        }
        let received = self.unjudged.get(session);
        let Some((received, parent)) = received.zip(self.parents.get(session)) else {
            return;
        };
        let at = received.at;
        parent.notifier.do_send(ParentAbortHeld(at));
        if let Some(cut_off) = received.cut_off {
            parent.notifier.do_send(ParentAbortJudged { at, cut_off });
        }
    }

    /// Notifies a new actor of the run that an abort of its session waits for its judgement, and of the judgement if its
    /// effect was not recorded.
    pub(super) fn hold_for_abort(&self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        if let (Some(actor), Some(session)) = (&entry.actor, &entry.task.session)
            && let Some(received) = self.unjudged.get(session)
        {
            actor.do_send(AbortHeld);
            if let Some(cut_off) = received.cut_off {
                actor.do_send(AbortJudged { cut_off });
            }
        }
    }

    /// Records the end of an instance. Aborts in its directory were no person's.
    pub(super) fn record_instance_end(&mut self, ended: &Instance, ctx: &mut Context<Self>) {
        let now = self.env.now();
        let Some(grace) = &mut self.abort_grace else {
            return;
        };
        let cut_off = grace.instance_ended(ended, now);
        self.sessions_cut_off(cut_off, ctx);
        // A message that was stored just before may begin no turn, and then no abort is reported.
        for known in self.parents.values() {
            known
                .notifier
                .do_send(ParentInstanceEnded(ended.directory.clone()));
        }
    }

    /// Records the loss of the event stream. Aborts received shortly before were no person's.
    pub(super) fn record_stream_loss(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.now();
        if let Some(grace) = &mut self.abort_grace {
            let cut_off = grace.stream_lost(now);
            self.sessions_cut_off(cut_off, ctx);
        }
    }

    fn sessions_cut_off(&mut self, sessions: Vec<SessionId>, ctx: &mut Context<Self>) {
        for session in sessions {
            self.abort_judged(&session, true, ctx);
        }
        self.arm_abort_grace(ctx);
    }

    /// Makes a run that was cut off wait until a server serves its directory.
    pub(super) fn wait_for_server(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id).filter(|_| !self.is_closing()) else {
            return;
        };
        let directory = entry.task.directory.clone();
        let directory = directory.unwrap_or_else(|| self.env.config.directory.clone());
        let now = self.env.now();
        let wait = self
            .server_waits
            .entry(Arc::clone(&directory))
            .or_insert_with(|| ServerWait {
                tasks: BTreeSet::new(),
                since: now,
                tries: 0,
                probing: false,
                deadline: None,
            });
        wait.tasks.insert(id.clone());
        self.probe_directory(&directory);
    }

    /// Returns the directory whose server the run waits for, if it waits for one.
    pub(super) fn awaited_directory(&self, id: &TaskId) -> Option<Arc<str>> {
        let entry = self.tasks.get(id)?;
        entry.task.session_to_continue()?;
        let waits = (self.server_waits.iter()).find(|(_, wait)| wait.tasks.contains(id));
        waits.map(|(directory, _)| Arc::clone(directory))
    }

    /// Probes the servers of all directories in which runs wait.
    pub(super) fn probe_directories(&mut self) {
        let directories: Vec<Arc<str>> = self.server_waits.keys().cloned().collect();
        for directory in directories {
            self.probe_directory(&directory);
        }
    }

    pub(super) fn probe_directory(&mut self, directory: &Arc<str>) {
        let Some(wait) = self.server_waits.get_mut(directory) else {
            return;
        };
        if wait.probing {
            return;
        }
        wait.probing = true;
        if let Some(key) = wait.deadline.take() {
            self.deadlines.remove(&key);
        }
        let (env, registry) = (self.env.clone(), self.refs.registry.clone());
        let (probed, directory) = (Arc::clone(directory), Arc::clone(directory));
        spawn_call(
            &self.env,
            "registry: server of a directory is probed",
            async move {
                let call = env.server.serves(&probed);
                within(env.config.calls.other, call).await
            },
            |panic| Err(ServerError::OutcomeUnknown(panic)),
            move |answer| {
                registry.send(DirectoryProbed { directory, answer });
            },
        );
    }
}

impl Handler<RunAborted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, aborted: RunAborted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunAborted");
        let Some(entry) = self.tasks.get(&aborted.task).filter(|entry| {
            entry.task.run == aborted.run && entry.task.status() == TaskStatus::Running
        }) else {
            return;
        };
        let directory = entry.task.directory.clone();
        let Some(session) = entry.task.session.clone() else {
            return;
        };
        self.journal_abort(&session, aborted.at);
        self.judge_abort(&session, directory, aborted.at, aborted.turn_began, ctx);
    }
}

impl Handler<ParentAborted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, aborted: ParentAborted, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: ParentAborted");
        if self.abort_grace.is_some() && self.closing.is_none() {
            self.journal_abort(&aborted.parent, aborted.at);
            self.read_parent_directory(aborted);
        }
    }
}

impl Handler<ParentAbortRecorded> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, recorded: ParentAbortRecorded, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: ParentAbortRecorded");
        // A newer abort waits for its own judgement.
        if (self.unjudged.get(&recorded.parent)).is_some_and(|abort| abort.at == recorded.at) {
            self.forget_abort(&recorded.parent);
        }
    }
}

impl Handler<ParentDirectoryRead> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, read: ParentDirectoryRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: ParentDirectoryRead");
        if self.unjudged.contains_key(&read.session) {
            self.judge_abort(&read.session, read.directory, read.at, read.turn_began, ctx);
        }
    }
}

impl Handler<RestoredAbortProbed> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, probed: RestoredAbortProbed, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RestoredAbortProbed");
        if self.unjudged.contains_key(&probed.session) {
            self.abort_judged(&probed.session, !probed.is_served, ctx);
        }
    }
}

impl Handler<InstanceEnded> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, ended: InstanceEnded, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: InstanceEnded");
        let InstanceEnded(ended) = ended;
        tracing::info!(
            directory = ended.directory.as_deref(),
            process = ended.process,
            "instance ended"
        );
        self.record_instance_end(&ended, ctx);
    }
}

impl Handler<RunCutOff> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, cut: RunCutOff, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunCutOff");
        let Some(entry) = self
            .tasks
            .get_mut(&cut.task)
            .filter(|entry| entry.task.run == cut.run && entry.task.attempt() == cut.attempt)
        else {
            return;
        };
        let from = entry.task.status();
        if from.is_terminal() || entry.requested_end.is_some() {
            // The actor ends the run: the request is in its mailbox.
            return;
        }
        if from == TaskStatus::Running {
            super::finaliser::take_snapshot(entry.task_mut(), cut.snapshot);
            if let Err(illegal) = entry
                .task_mut()
                .cut_off(cut.answered, "the session was cut off")
            {
                tracing::debug!(%illegal, "cut-off ignored: it came too late");
                return;
            }
            entry.prompted = None;
            let session = entry.task.session.clone();
            self.recorded(&cut.task, Some(from), []);
            if let Some(session) = session {
                self.forget_abort(&session);
                self.parent_session_ended(&session, true);
            }
        }
        // Reported again after a restart of the registry, the report before may not have been answered.
        if let Some(actor) = self
            .tasks
            .get_mut(&cut.task)
            .and_then(|entry| entry.actor.take())
        {
            actor.do_send(CutOffAccepted);
        }
        self.refs.tasks.remove(&cut.task);
        self.refs.poller.send(poller::Unwatch(cut.task.clone()));
        self.wait_for_server(&cut.task);
    }
}

impl Handler<DirectoryProbed> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, probed: DirectoryProbed, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: DirectoryProbed");
        let now = self.env.now();
        let Some(mut wait) = self.server_waits.remove(&probed.directory) else {
            return;
        };
        wait.probing = false;
        wait.tasks.retain(|id| {
            self.tasks.get(id).is_some_and(|entry| {
                entry.task.session_to_continue().is_some()
                    && entry.actor.is_none()
                    && entry.queued.is_none()
                    && entry.granted.is_none()
            })
        });
        if wait.tasks.is_empty() || self.closing.is_some() {
            return;
        }
        match probed.answer {
            Ok(()) => {
                for id in wait.tasks {
                    self.enqueue(&id, ctx);
                }
            }
            Err(failure) => {
                let limit = self.env.config.lifecycle.retention;
                if now.since(wait.since) >= limit {
                    for id in wait.tasks {
                        let Some(run) = self.tasks.get(&id).map(|entry| entry.task.run) else {
                            continue;
                        };
                        let end = End::error(format!(
                            "the run was cut off, and no opencode served {} for {}: {failure}",
                            probed.directory,
                            duration_text(limit)
                        ));
                        self.finalise(&id, run, &end, None, ctx);
                    }
                    return;
                }
                if wait.tries == 0 {
                    for id in &wait.tasks {
                        let what = format!("an opencode in {}", probed.directory);
                        self.env
                            .append_timeline(id, TimelineEntry::new("waits for a server", what));
                    }
                }
                wait.tries += 1;
                let at = now + connect_backoff(wait.tries);
                let deadline = Deadline::ProbeDirectory(Arc::clone(&probed.directory));
                wait.deadline = Some(self.set_deadline(at, deadline, ctx));
                self.server_waits.insert(probed.directory, wait);
            }
        }
    }
}

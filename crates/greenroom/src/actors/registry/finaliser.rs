//! The finaliser: the only handler of the end of a run. The effects of an end are listed at `domain::lifecycle::End` and
//! performed here, once. Panics of task actors and queues are handled here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Addr, AsyncContext, Context, Handler, Message};

use super::{AbortCallEnded, Deadline, RunEnded, RunSnapshot, TaskEntry, TaskRegistry};
use crate::actors::health::ActorKind;
use crate::actors::poller;
use crate::actors::task::abort::{
    AbortAfterCrash, AbortedSession, SessionToAbort, abort_if_busy, abort_session,
};
use crate::actors::task::lineage::{earlier_scopes, new_session};
use crate::actors::task::{EndAccepted, EndRefused};
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::lifecycle::{End, Outcome};
use crate::domain::task::{Task, TaskStatus};
use crate::domain::timeline::TimelineEntry;
use crate::handle::WaitFor;
use crate::ports::journal::JournalEntry;

/// A task actor panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TaskDied {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) panic: String,
}

/// A key's queue panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct QueueDied {
    pub(crate) key: ConcurrencyKey,
    pub(crate) generation: u64,
    pub(crate) panic: String,
}

/// The number of panics of one run after which the task ends as an error.
const MAX_PANICS: u32 = 3;

/// Copies the state of a run into the task's record.
pub(super) fn take_snapshot(task: &mut Task, snapshot: RunSnapshot) {
    task.progress = snapshot.progress;
    task.spawn_depth = snapshot.depth;
    task.retrying = snapshot.retrying;
    task.asking = snapshot.asking;
    task.concurrency_key = snapshot.slot;
    if let Some(note) = snapshot.note {
        task.set_note(note.into());
    }
}

impl TaskRegistry {
    /// Ends a run. Does nothing if that run is not the current one or has ended already.
    pub(super) fn finalise(
        &mut self,
        id: &TaskId,
        run: Run,
        end: &End,
        snapshot: Option<RunSnapshot>,
        ctx: &mut Context<Self>,
    ) {
        self.withdraw_if_ending(id, run, ctx);
        let now = self.env.now();
        let Some(entry) = self.tasks.get_mut(id).filter(|entry| entry.task.run == run) else {
            return;
        };
        let from = entry.task.status();
        if let Some(snapshot) = snapshot.filter(|_| !from.is_terminal()) {
            take_snapshot(entry.task_mut(), snapshot);
        }
        if let Err(illegal) = entry.task_mut().end(end, now) {
            tracing::debug!(%illegal, "end ignored: it came too late");
            return;
        }
        entry.granted = None;
        entry.deaths = 0;
        entry.requested_end = None;
        let (session, parent) = (
            entry.task.session.clone(),
            entry.task.parent_session.clone(),
        );
        self.env.health.run_ended(end.outcome.status());
        let settlement = self.settlement(id, end);
        // A run that waits to continue has a session, which may work for another reason, such as a message to it.
        let has_session = from == TaskStatus::Running || self.waits_to_continue(id);
        let wanted = has_session && end.abort_session;
        let mut with: Vec<JournalEntry> = settlement.entry().into_iter().collect();
        if let Some(entry) = self.tasks.get_mut(id)
            && !wanted
            && entry.actor.is_none()
        {
            entry.aborted = Some(run);
            with.push(JournalEntry::Aborted(id.clone(), run));
        }
        self.recorded(id, Some(from), with);
        // The abort of a session that another task has taken over is judged for that task.
        if let Some(session) = &session
            && self.by_session.get(session) == Some(id)
        {
            self.forget_abort(session);
        }
        self.release(id, run, wanted);
        self.count_closed(parent.as_ref());
        self.settle(id, settlement);
        if let Some(session) = session.filter(|session| self.by_session.get(session) == Some(id)) {
            self.parent_session_ended(&session, true);
        }
        if let Some(parent) = &parent {
            self.send_dependents(parent);
        }
        self.toast_ended(id);
        if end.forget {
            self.forget(id, ctx);
        } else if self
            .tasks
            .get(id)
            .is_some_and(|entry| entry.batch.is_none())
        {
            self.remove_later(id, ctx);
        }
    }

    /// Returns true if the run was cut off and has not continued since.
    fn waits_to_continue(&self, id: &TaskId) -> bool {
        let entry = self.tasks.get(id);
        entry.is_some_and(|entry| entry.task.cut_offs() > 0 && entry.task.session.is_some())
    }

    /// Makes the run's actor release its slot and abort its session. If the actor has panicked, its slot is released
    /// already and the registry aborts the session itself.
    pub(super) fn release(&mut self, id: &TaskId, run: Run, wanted: bool) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        self.refs.tasks.remove(id);
        self.refs.poller.send(poller::Unwatch(id.clone()));
        // An actor that panicked after its report of the end cannot abort.
        let actor = entry.actor.take().filter(Addr::connected);
        if actor.is_none() && !wanted {
            return;
        }
        // The next prompt of this session sets the flag, so that an abort is not repeated into the next run.
        entry.superseded = Default::default();
        let (superseded, registry) = (entry.superseded.clone(), self.refs.registry.clone());
        let aborts = &self.refs.aborts;
        let ticket = aborts.begin(id.clone(), run, superseded.clone(), wanted, registry);
        match (actor, entry.task.session.clone()) {
            (Some(actor), _) => actor.do_send(EndAccepted(ticket)),
            (None, Some(session)) => {
                let aborted = SessionToAbort {
                    session,
                    directory: entry.task.directory.clone(),
                    run: (id.clone(), run),
                    superseded,
                    open: Arc::new(AtomicUsize::new(1)),
                    registry: self.refs.registry.clone(),
                };
                abort_session(&self.env, aborted, Some(Arc::new(ticket)));
            }
            (None, None) => drop(ticket),
        }
    }

    /// Records that the session of that run needs no abort any more.
    pub(super) fn record_aborted(&mut self, id: &TaskId, run: Run) {
        if let Some(entry) = self
            .tasks
            .get_mut(id)
            .filter(|entry| entry.task.run == run && entry.aborted != Some(run))
        {
            entry.aborted = Some(run);
            self.env
                .append(vec![JournalEntry::Aborted(id.clone(), run)]);
        }
    }

    /// Aborts the session of an ended run after a restart, if the abort was not recorded before: only if the session is busy
    /// and not prompted by another client since. A session that was being created is looked up.
    pub(super) fn abort_after_crash(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let (task, run) = (&entry.task, entry.task.run);
        let ended = task.completed_at();
        let is_newest = |session: &SessionId| self.by_session.get(session) == Some(id);
        let session = match &task.session {
            Some(session) if is_newest(session) => AbortedSession::Session(session.clone()),
            None if entry.granted_run == Some(run) => {
                let directory = task.directory.clone();
                let directory = directory.unwrap_or_else(|| self.env.config.directory.clone());
                let others = earlier_scopes(&self.env, task, &directory);
                let new = new_session(&self.env, task, task.spawn_depth, directory, 1);
                AbortedSession::Created(Box::new(new), others)
            }
            _ => return self.record_aborted(id, run),
        };
        let aborted = AbortAfterCrash {
            session,
            directory: task.directory.clone(),
            run: (id.clone(), run),
            superseded: Arc::clone(&entry.superseded),
            ended,
            registry: self.refs.registry.clone(),
        };
        let (superseded, registry) = (aborted.superseded.clone(), self.refs.registry.clone());
        let aborts = &self.refs.aborts;
        let ticket = aborts.begin(id.clone(), run, superseded, true, registry);
        abort_if_busy(&self.env, aborted, ticket);
    }

    /// Repeats an abort that was lost to a panic, at most [`MAX_PANICS`] times. Returns false if no abort is needed.
    pub(super) fn abort_again(&mut self, done: &AbortCallEnded) -> bool {
        let Some(entry) = self
            .tasks
            .get_mut(&done.task)
            .filter(|entry| entry.task.run == done.run && entry.task.status().is_terminal())
        else {
            return false;
        };
        let superseded = Arc::clone(&done.superseded);
        let wanted = !done.settled && !superseded.load(Ordering::Acquire);
        let Some(session) = entry.task.session.clone().filter(|_| wanted) else {
            entry.deaths = 0;
            return false;
        };
        entry.deaths += 1;
        if entry.deaths > MAX_PANICS {
            return false;
        }
        let aborted = SessionToAbort {
            session,
            directory: entry.task.directory.clone(),
            run: (done.task.clone(), done.run),
            superseded: Arc::clone(&superseded),
            open: Arc::new(AtomicUsize::new(1)),
            registry: self.refs.registry.clone(),
        };
        let (task, registry) = (done.task.clone(), self.refs.registry.clone());
        let aborts = &self.refs.aborts;
        let ticket = aborts.begin(task, done.run, superseded, true, registry);
        abort_session(&self.env, aborted, Some(Arc::new(ticket)));
        true
    }

    fn withdraw_if_ending(&mut self, id: &TaskId, run: Run, ctx: &mut Context<Self>) {
        if self
            .tasks
            .get(id)
            .is_some_and(|entry| entry.task.run == run && !entry.task.status().is_terminal())
        {
            self.withdraw(id, false, ctx);
        }
    }

    /// Schedules the removal of an ended task from memory after `keep_ended`.
    pub(super) fn remove_later(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        if let Some(old) = entry.removal.take() {
            self.deadlines.remove(&old);
        }
        let run = entry.task.run;
        let at = self.env.now() + self.env.config.lifecycle.keep_ended;
        let key = self.set_deadline(at, Deadline::Remove(id.clone(), run), ctx);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.removal = Some(key);
        }
    }

    pub(super) fn remove_ended(&mut self, id: &TaskId, run: Run, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        if entry.task.run != run || !entry.task.status().is_terminal() {
            return;
        }
        entry.removal = None;
        let session = entry.task.session.clone();
        // A removed task is not recovered after a crash: its abort would be lost.
        let aborting = self.refs.aborts.of(id).is_some();
        if aborting || session.is_some_and(|session| self.has_open_descendants(&session)) {
            // Kept until its abort is done and no task below it is open; checked again later.
            self.remove_later(id, ctx);
        } else {
            self.forget(id, ctx);
        }
    }

    fn has_open_descendants(&self, session: &SessionId) -> bool {
        self.below(session).iter().any(|id| {
            self.tasks
                .get(id)
                .is_some_and(|entry| !entry.task.status().is_terminal())
        })
    }

    pub(super) fn answer_waiters(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        if entry.waiters.is_empty() {
            return;
        }
        let Some(task) = entry.as_published().cloned() else {
            return;
        };
        let (run, status) = (task.run, task.status());
        for waiter in std::mem::take(&mut entry.waiters) {
            let over = waiter.run < run;
            let met = match waiter.until {
                WaitFor::Started => status != TaskStatus::Pending,
                WaitFor::Ended => status.is_terminal(),
            };
            if over || (waiter.run == run && met) {
                // The waiter may have been dropped.
                let _ = waiter
                    .reply
                    .send(if over { None } else { Some(task.clone()) });
            } else if !waiter.reply.is_closed() {
                entry.waiters.push(waiter);
            }
        }
    }

    /// Returns true if the session has dependents that its run did not know when it decided to complete.
    fn must_continue(&self, entry: &TaskEntry, end: &End) -> bool {
        let Some(session) = &entry.task.session else {
            return false;
        };
        end.outcome == Outcome::Completed
            && (self.open_below(session) > 0
                || self
                    .parents
                    .get(session)
                    .is_some_and(|parent| parent.has_pending))
    }
}

impl Handler<RunEnded> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, ended: RunEnded, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RunEnded");
        let Some(entry) = self
            .tasks
            .get(&ended.task)
            .filter(|entry| entry.task.run == ended.run)
        else {
            return;
        };
        if entry.task.status().is_terminal() {
            // Reported again after a restart of the registry. The answer to the first report may have been lost.
            return self.release(&ended.task, ended.run, false);
        }
        if self.must_continue(entry, &ended.end) {
            if let Some(actor) = &entry.actor {
                actor.do_send(EndRefused);
            }
            if let Some(session) = entry.task.session.clone() {
                self.send_dependents(&session);
            }
            return;
        }
        tracing::debug!(task = %ended.task, session = ?ended.session, at = %ended.at, "run ended");
        self.finalise(
            &ended.task,
            ended.run,
            &ended.end,
            Some(ended.snapshot),
            ctx,
        );
    }
}

impl Handler<TaskDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: TaskDied, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: TaskDied");
        tracing::error!(task = %died.task, run = %died.run, panic = %died.panic, "task actor panicked");
        self.env.health.died(ActorKind::Task, self.env.now());
        let Some(entry) = self
            .tasks
            .get_mut(&died.task)
            .filter(|entry| entry.task.run == died.run)
        else {
            return;
        };
        if entry.task.status().is_terminal() {
            return;
        }
        entry.deaths += 1;
        let is_live = entry.actor.as_ref().is_some_and(Addr::connected);
        if is_live || entry.queued.is_some() || entry.granted.is_some() {
            // A registry that was restarted meanwhile has handled the panic already.
            return;
        }
        entry.actor = None;
        self.refs.tasks.remove(&died.task);
        self.refs.poller.send(poller::Unwatch(died.task.clone()));
        let (deaths, status) = (entry.deaths, entry.task.status());
        if let Some(end) = entry.requested_end.take() {
            // The actor panicked before it handled the request.
            return self.finalise(&died.task, died.run, &end, None, ctx);
        }
        let running = status == TaskStatus::Running;
        let attachable =
            running && entry.task.session.is_some() && entry.task.started_at().is_some();
        let recovery = if deaths >= MAX_PANICS {
            "given up"
        } else if running {
            "attached to its session again"
        } else {
            "back in line"
        };
        self.env.append_timeline(
            &died.task,
            TimelineEntry::new("greenroom failed at it", recovery),
        );
        if deaths >= MAX_PANICS {
            let end = End::error(format!(
                "greenroom failed at it {deaths} times: {}",
                died.panic
            ));
            self.finalise(&died.task, died.run, &end, None, ctx);
        } else if attachable {
            // A new actor is attached to the session; its slot is adopted.
            self.attach(&died.task);
        } else {
            self.enqueue(&died.task, ctx);
        }
    }
}

impl Handler<QueueDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: QueueDied, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: QueueDied");
        tracing::error!(key = %died.key, generation = died.generation, panic = %died.panic, "key queue panicked");
        match self.env.health.died(ActorKind::Queue, self.env.now()) {
            Duration::ZERO => self.rebuild_queue(&died.key),
            wait => {
                ctx.notify_later(RebuildQueue(died.key), wait);
            }
        }
    }
}

/// Restarts a queue after a delay, once its restart budget is used up.
#[derive(Message)]
#[rtype(result = "()")]
struct RebuildQueue(ConcurrencyKey);

impl Handler<RebuildQueue> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, rebuild: RebuildQueue, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RebuildQueue");
        self.rebuild_queue(&rebuild.0);
    }
}

//! The recovery of a registry from the journal and from the runtime state that is kept over its restarts. Running actors are
//! adopted and report their state again; actors that ended are started anew. The first registry of a process recovers in the
//! same way, without running actors.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Addr, Context};

use super::TaskRegistry;
use super::commands::superseded_by;
use super::parents::NotifierState;
use crate::actors::health::ActorKind;
use crate::actors::parent_notifier::{ParentNotifier, Reconcile};
use crate::actors::poller;
use crate::actors::runtime_state::LiveActors;
use crate::actors::slot_manager::{ClearQueues, SetOpen};
use crate::actors::task::{
    Dependents, EventLinkLost, RecordChanged, RegistryRestarted, TaskActor, WakeSent,
};
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::outbox::Outbox;
use crate::domain::task::{Task, TaskStatus};
use crate::domain::timeline::TimelineEntry;
use crate::ports::journal::{JournalEntry, RecoveredState, RecoveredTask};

impl TaskRegistry {
    /// Recovers the state of the registry before this one. If a shutdown was requested meanwhile, it begins at once, since
    /// the request may not be repeated.
    pub(super) fn begin(&mut self, ctx: &mut Context<Self>) {
        self.restore(ctx);
        if self.refs.flags.closing() {
            self.begin_closing(None, ctx);
        }
    }

    fn restore(&mut self, ctx: &mut Context<Self>) {
        let tasks = self.refs.tasks.take_live();
        let notifiers = self.refs.notifiers.take_live();
        let recovered = self
            .env
            .journal
            .load()
            // Nothing can be decided without the journal. The supervisor restarts the registry, which reads it again.
            .unwrap_or_else(|failure| panic!("the journal cannot be read: {failure}"));
        self.changes.continue_after(recovered.newest_change);
        // Changes that the registry before this one had decided and not published.
        let newest_lsn = self.env.journal.last_lsn();
        self.env
            .pending_publications
            .settle(recovered.newest_change, newest_lsn);
        self.start_singletons();
        if !self.reachable {
            // The probe of the registry before this one is lost, and no slot is granted until the server answers.
            self.probe();
        }
        if recovered.tasks.is_empty() && recovered.left.is_empty() && recovered.outboxes.is_empty()
        {
            // There is nothing to recover: launch keys belong to tasks.
            return;
        }
        tracing::warn!(
            tasks = recovered.tasks.len(),
            live = tasks.len(),
            "recovering from the journal"
        );
        let open = self.reachable && !self.refs.flags.closing();
        self.refs.slots.send(ClearQueues);
        self.refs.slots.send(SetOpen(open));
        self.refs.poller.send(poller::UnwatchAll);
        let RecoveredState {
            tasks: records,
            left,
            outboxes,
            keys,
            aborts,
            newest_change: _,
        } = recovered;
        for key in keys {
            self.launch_keys.remember(key);
        }
        for task in &left {
            self.restore_history(task);
        }
        let mut by_queue_seq: BTreeMap<QueueSeq, TaskId> = BTreeMap::new();
        for record in records {
            by_queue_seq.insert(record.queue_seq, record.task.id.clone());
            self.restore_task(record);
        }
        self.restore_parents(outboxes, notifiers);
        self.restore_runs(by_queue_seq.into_values().collect(), tasks, ctx);
        self.restore_aborts(aborts, ctx);
        self.publish_durable();
        // Events may have been missed meanwhile.
        self.refs.poller.send(poller::Reconcile);
    }

    fn restore_task(&mut self, record: RecoveredTask) {
        let RecoveredTask {
            accepted,
            queue_seq,
            granted,
            prompted,
            aborted,
            task,
        } = record;
        self.restore_history(&task);
        self.next_seq = self.next_seq.max(accepted + 1).max(queue_seq + 1);
        let session = task.session.clone();
        let id = self.add_entry(Arc::clone(&task), accepted);
        let superseded = self.refs.aborts.of(&id);
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.queue_seq = queue_seq;
            entry.granted_run = granted;
            entry.prompted = prompted;
            entry.record = Some(task);
            entry.aborted = aborted;
            if let Some(superseded) = superseded {
                entry.superseded = superseded;
            }
        }
        // Records come in the order of acceptance: a session belongs to its newest task.
        if let Some(session) = session {
            self.by_session.insert(session, id);
        }
    }

    fn restore_history(&mut self, task: &Task) {
        for parent in task.former_parents.iter().chain(&task.parent_session) {
            self.histories.record(parent, task);
        }
    }

    fn restore_parents(
        &mut self,
        outboxes: Vec<(SessionId, Outbox)>,
        mut notifiers: LiveActors<SessionId, ParentNotifier>,
    ) {
        for (parent, mut outbox) in outboxes {
            self.restore_members(&parent, &mut outbox);
            let Some((generation, notifier)) = notifiers.remove(&parent) else {
                self.new_notifier(&parent, Some(outbox));
                continue;
            };
            self.adopt_notifier(&parent, notifier, generation, outbox);
        }
        // The remaining notifiers have no pending messages, but may watch the turn of the last one.
        for (parent, (generation, notifier)) in notifiers {
            let outbox = self.env.journal.outbox(&parent).unwrap_or_default();
            self.adopt_notifier(&parent, notifier, generation, outbox);
        }
    }

    /// Takes over a notifier of the registry before this one.
    fn adopt_notifier(
        &mut self,
        parent: &SessionId,
        notifier: Addr<ParentNotifier>,
        generation: u64,
        outbox: Outbox,
    ) {
        // A new sequence number: reports about earlier messages must not be taken for reports about this one.
        let (open, sequence) = (outbox.open(), self.next_number());
        notifier.do_send(Reconcile {
            outbox,
            ended: self.has_ended(parent),
            sequence,
        });
        let state = NotifierState {
            sequence,
            open,
            has_pending: true,
        };
        self.add_parent(parent, notifier, generation, state);
    }

    fn restore_members(&mut self, parent: &SessionId, outbox: &mut Outbox) {
        let (mut missing, mut ends) = (Vec::new(), Vec::new());
        for member in outbox.members() {
            let current = self
                .tasks
                .get_mut(&member.task)
                .filter(|entry| entry.task.run == member.run);
            match current {
                Some(entry) => {
                    entry.batch = Some(parent.clone());
                    if member.settled.is_none() && entry.task.status().is_terminal() {
                        ends.push(member.task.clone());
                    }
                }
                None if member.settled.is_none() => missing.push(member.task.clone()),
                None => {}
            }
        }
        for report in ends
            .iter()
            .filter_map(|id| Some(self.completion_report(self.tasks.get(id)?)))
        {
            outbox.settle(report);
        }
        for task in missing {
            outbox.leave(&task);
            self.env
                .append(vec![JournalEntry::Left(parent.clone(), task)]);
        }
    }

    fn restore_runs(
        &mut self,
        by_queue_seq: Vec<TaskId>,
        mut live: LiveActors<TaskId, TaskActor>,
        ctx: &mut Context<Self>,
    ) {
        for id in by_queue_seq {
            let superseded_end = self
                .newer_claimant(&id)
                .map(|newest| superseded_by(&newest));
            let Some(entry) = self.tasks.get_mut(&id) else {
                continue;
            };
            let (run, status) = (entry.task.run, entry.task.status());
            let actor = live.remove(&id);
            match actor.filter(|(number, _)| *number == u64::from(run.0)) {
                Some((number, actor)) => {
                    entry.actor = Some(actor.clone());
                    self.refs.tasks.put(id.clone(), number, actor);
                    if status.is_terminal() {
                        // The record of the end may not have been sent to the actor.
                        self.release(&id, run, false);
                    } else {
                        self.resume_live(&id);
                    }
                }
                None if superseded_end.is_some() => {}
                None if status == TaskStatus::Pending
                    && entry.task.session_to_continue().is_some() =>
                {
                    self.record_recovery(&id, "continues once a server serves its directory");
                    self.wait_for_server(&id);
                }
                None if status == TaskStatus::Pending => {
                    self.record_recovery(&id, "back in line");
                    self.enqueue(&id, ctx);
                }
                None if status == TaskStatus::Running => {
                    self.record_recovery(&id, "attached to its session again");
                    self.attach(&id);
                }
                None if self.refs.aborts.of(&id).is_none()
                    && self
                        .tasks
                        .get(&id)
                        .is_some_and(|entry| entry.aborted != Some(run)) =>
                {
                    self.abort_after_crash(&id);
                }
                None => {}
            }
            if let Some(end) = superseded_end {
                self.request_end(&id, end, ctx);
            }
            let over = self
                .tasks
                .get(&id)
                .is_some_and(|entry| entry.batch.is_none() && entry.task.status().is_terminal());
            if over {
                self.remove_later(&id, ctx);
            }
        }
        // The remaining actors belong to runs whose end is recorded: they only wait for an abort.
    }

    /// Adds a timeline entry that the process was restarted, and how the task continues.
    fn record_recovery(&self, id: &TaskId, how: &'static str) {
        // After a restart of the registry alone, queued tasks stay queued, and an actor that panicked has its own entry.
        if self.env.health.deaths(ActorKind::Registry) == 0 {
            self.env
                .append_timeline(id, TimelineEntry::new("greenroom was started again", how));
        }
    }

    /// Sends a running actor the messages that it may have missed, and requests its reports again.
    fn resume_live(&mut self, id: &TaskId) {
        self.watch_session(id);
        let session = self
            .tasks
            .get(id)
            .and_then(|entry| entry.task.session.clone());
        let open = session
            .as_ref()
            .map_or(0, |session| self.open_below(session));
        let parent = session
            .as_ref()
            .and_then(|session| self.parents.get(session));
        let is_parent = parent.is_some();
        let dependents = Dependents {
            open,
            has_pending: parent.is_some_and(|parent| parent.has_pending),
        };
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        entry.sent_dependents = dependents;
        if let Some(actor) = &entry.actor {
            actor.do_send(RecordChanged(Arc::clone(&entry.task)));
            actor.do_send(dependents);
            if is_parent {
                // A message that wakes may have been accepted meanwhile.
                actor.do_send(WakeSent);
            }
            actor.do_send(EventLinkLost);
            actor.do_send(RegistryRestarted);
        }
    }
}

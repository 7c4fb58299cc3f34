//! How a registry begins where another stopped: the journal says what was decided, the survivors say who lives. Actors that
//! live are recovered and say again what they have; what died with the registry is built anew. The first registry of a system
//! takes the same way and finds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Context;

use super::TaskRegistry;
use super::commands::superseded_by;
use crate::actors::health::ActorKind;
use crate::actors::parent_notifier::{ParentNotifier, Reconcile};
use crate::actors::poller;
use crate::actors::runtime_state::LiveActors;
use crate::actors::slot_manager::{ClearQueues, SetOpen};
use crate::actors::task::{Dependents, EventLinkLost, RegistryRestarted, TaskActor, WakeSent};
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::outbox::Outbox;
use crate::domain::task::{Task, TaskStatus};
use crate::domain::timeline::TimelineEntry;
use crate::ports::journal::{JournalEntry, RecoveredState, RecoveredTask};

impl TaskRegistry {
    /// Takes over from whoever was here before. Where a shutdown was asked for meanwhile, it begins in that very step:
    /// whoever asked may not be able to say so again.
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
            // Without it nothing can be decided; it is tried again like any death.
            .unwrap_or_else(|failure| panic!("the journal cannot be read: {failure}"));
        self.changes.continue_after(recovered.newest_change);
        // What the one before had decided and not shown.
        let newest_lsn = self.env.journal.last_lsn();
        self.env
            .pending_publications
            .settle(recovered.newest_change, newest_lsn);
        self.start_singletons();
        if !self.reachable {
            // Whoever asked before is gone, and nothing starts until somebody has an answer.
            self.probe();
        }
        if recovered.tasks.is_empty() && recovered.left.is_empty() && recovered.outboxes.is_empty()
        {
            // Nothing was decided yet; keys belong to tasks.
            return;
        }
        tracing::warn!(
            tasks = recovered.tasks.len(),
            live = tasks.len(),
            "taking over"
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
        self.publish_durable();
        // What happened meanwhile was told to nobody.
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
        // In the order of acceptance: the newest task of a session has it.
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
            // A number that nothing it was told before had: what it says of that is not what it says of this.
            let (open, sequence) = (outbox.open(), self.next_number());
            notifier.do_send(Reconcile {
                outbox,
                ended: self.has_ended(&parent),
                sequence,
            });
            self.know_parent(&parent, notifier, generation, (sequence, open, true));
        }
        // Those left over owe nothing: they end as their addresses are dropped.
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
                    match status.is_terminal() {
                        // It may not have heard that its end is recorded.
                        true => self.release(&id, run, false),
                        false => self.resume_live(&id),
                    }
                }
                None if superseded_end.is_some() => {}
                None if status == TaskStatus::Pending => {
                    self.record_recovery(&id, "back in line");
                    self.enqueue_again(&id, ctx);
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
        // Those left over are of runs that are over and recorded: they only wait for an abort.
    }

    /// The story of a task says that the process was started again, and how the task goes on.
    fn record_recovery(&self, id: &TaskId, how: &str) {
        // A registry that only died leaves those in line where they are, and those that died with it have a line of theirs.
        if self.env.health.deaths(ActorKind::Registry) == 0 {
            self.env
                .append_timeline(id, TimelineEntry::new("greenroom was started again", how));
        }
    }

    /// An actor that lives is told what it may have missed, and asked for what we may have.
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
        let (is_parent, owed) = (
            parent.is_some(),
            parent.is_some_and(|parent| parent.has_pending),
        );
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        entry.sent_dependents = (open, owed);
        if let Some(actor) = &entry.actor {
            actor.do_send(Dependents { open, owed });
            if is_parent {
                // One of the messages that wake may have been accepted meanwhile.
                actor.do_send(WakeSent);
            }
            actor.do_send(EventLinkLost);
            actor.do_send(RegistryRestarted);
        }
    }
}

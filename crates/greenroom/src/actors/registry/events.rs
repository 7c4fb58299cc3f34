//! The server's events and its reachability. Each event is looked up by its session once and sent to the actors concerned:
//! the run in that session and the notifier of that parent session. Deleted sessions are handled here.

use std::collections::BTreeSet;

use actix::{AsyncContext, Context, Handler, Message};

use super::{DepthOf, TaskRegistry, Unreachable};
use crate::actors::env::{connect_backoff, spawn_call, within};
use crate::actors::inbox::EventsReady;
use crate::actors::parent_notifier::{LinkRestored, ParentEvent};
use crate::actors::poller::Reconcile;
use crate::actors::slot_manager::SetOpen;
use crate::actors::task::{EventLinkLost, SessionEventReceived};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::instance::Instance;
use crate::domain::lifecycle::End;
use crate::domain::session_event::{SessionEvent, SessionEventKind};
use crate::domain::session_owner::SessionOwner;
use crate::domain::time::Timestamp;
use crate::handle::EventLink;
use crate::ports::journal::JournalEntry;

/// The event link to the agent server has connected or broken.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkChanged(pub(crate) EventLink);

/// An instance has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct InstanceEnded(pub(crate) Instance);

/// Another process owns a session, or none.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OwnerChanged {
    pub(crate) session: SessionId,
    pub(crate) owner: Option<SessionOwner>,
}

/// The result of a probe of the agent server.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HealthAnswered(pub(crate) bool);

#[derive(Message)]
#[rtype(result = "()")]
struct Probe;

impl TaskRegistry {
    fn session_deleted(&mut self, session: &SessionId, ctx: &mut Context<Self>) {
        let mut tasks: Vec<TaskId> = self.by_session.get(session).cloned().into_iter().collect();
        for id in self.below(session) {
            if !tasks.contains(&id) {
                tasks.push(id);
            }
        }
        let mut gone: BTreeSet<SessionId> = BTreeSet::from([session.clone()]);
        gone.extend(
            tasks
                .iter()
                .filter_map(|id| self.owned_session(id).cloned()),
        );
        // Parents that are deleted in the cascade get no messages; other parents do.
        for parent in &gone {
            self.forget_abort(parent);
            self.drop_parent(parent, ctx);
        }
        for id in tasks {
            let Some(entry) = self.tasks.get(&id) else {
                continue;
            };
            if entry.task.status().is_terminal() {
                self.forget(&id, ctx);
                continue;
            }
            let mut end = End::cancelled(Some("Session deleted".to_owned()));
            end.forget = true;
            end.skip_notification = entry
                .task
                .parent_session
                .as_ref()
                .is_some_and(|parent| gone.contains(parent));
            self.request_end(&id, end, ctx);
        }
    }

    /// Sends one event to the actors concerned.
    fn dispatch_event(&mut self, event: SessionEvent, at: Timestamp, ctx: &mut Context<Self>) {
        let SessionEvent { session, kind } = event;
        if self.closing.is_some() {
            return;
        }
        if kind == SessionEventKind::Deleted {
            return self.session_deleted(&session, ctx);
        }
        // The server reports the abort of a turn whose model has had no request yet only in the message.
        let aborted = match &kind {
            SessionEventKind::Error { aborted, .. } => *aborted,
            SessionEventKind::Message(message) => {
                self.abort_grace.is_some()
                    && message.aborted
                    && message.role.as_deref() == Some("assistant")
            }
            _ => false,
        };
        // While the server backs off, an abort shows only as a message completed without a reason.
        let may_be_abort = aborted
            || matches!(&kind, SessionEventKind::Message(message)
                if message.completed.is_some() && message.finish.is_none());
        let entry = self
            .by_session
            .get(&session)
            .and_then(|id| self.tasks.get(id));
        // The abort of a task's session concerns its run only, and is mostly made by Greenroom.
        let own_abort = may_be_abort && (entry.is_some() || self.has_ended(&session));
        let actor = entry.and_then(|entry| entry.actor.as_ref());
        let parent = self.parents.get_mut(&session).filter(|_| !own_abort);
        let Some(parent) = parent else {
            if let Some(actor) = actor {
                actor.do_send(SessionEventReceived { kind, at });
            }
            return;
        };
        if let Some(actor) = actor {
            let kind = kind.clone();
            actor.do_send(SessionEventReceived { kind, at });
        }
        // A notifier that was silenced by its user must be kept: reports from before the event no longer count.
        let sequence = may_be_abort.then(|| {
            parent.sequence += 1;
            parent.sequence
        });
        parent.notifier.do_send(ParentEvent { kind, at, sequence });
        if aborted && self.abort_grace.is_none() {
            self.parent_aborted(&session, ctx);
        }
    }

    /// Records the reachability of the server. No slot is granted while it is unreachable: the queued tasks must not fail one
    /// after the other during a restart of the server.
    fn set_reachable(&mut self, reachable: bool) {
        if self.reachable != reachable {
            self.reachable = reachable;
            self.refs.flags.set_reachable(reachable);
            tracing::warn!(reachable, "reachability of the agent server changed");
            self.refs
                .slots
                .send(SetOpen(reachable && self.closing.is_none()));
        }
    }

    /// Polls all running sessions and retries pending messages at once.
    fn link_is_up(&mut self) {
        self.probe_directories();
        self.refs.poller.send(Reconcile);
        for known in self.parents.values() {
            known.notifier.do_send(LinkRestored);
        }
    }

    pub(super) fn probe(&mut self) {
        if self.probing {
            return;
        }
        self.probing = true;
        let (env, registry) = (self.env.clone(), self.refs.registry.clone());
        spawn_call(
            &self.env,
            "registry: health is answered",
            async move {
                let answer = within(env.config.calls.other, env.server.health()).await;
                answer.is_ok()
            },
            |_| false,
            move |healthy| {
                registry.send(HealthAnswered(healthy));
            },
        );
    }
}

impl Handler<EventsReady> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, ready: EventsReady, ctx: &mut Context<Self>) {
        let now = self.env.now();
        let mut events = std::mem::take(&mut self.event_buffer);
        ready.take(&mut events);
        for event in events.drain(..) {
            self.env.failpoints.hit("registry: SessionHappened");
            self.dispatch_event(event, now, ctx);
        }
        self.event_buffer = events;
    }
}

impl Handler<DepthOf> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, ask: DepthOf, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: DepthOf");
        let task = self
            .by_session
            .get(&ask.session)
            .and_then(|id| self.tasks.get(id))
            .map(|entry| &entry.task);
        let depth = task.map(|task| (task.spawn_depth, task.root_session.clone()));
        // The caller may have been dropped.
        let _ = ask.reply.send(depth);
    }
}

impl Handler<OwnerChanged> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, OwnerChanged { session, owner }: OwnerChanged, _: &mut Context<Self>) {
        self.env.append(vec![JournalEntry::Owner(session, owner)]);
    }
}

impl Handler<LinkChanged> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, changed: LinkChanged, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: LinkChanged");
        match changed.0 {
            EventLink::Connected => {
                // Missed events are not replayed: all running sessions are polled.
                self.set_reachable(true);
                self.link_is_up();
            }
            EventLink::Broken => {
                for actor in self.tasks.values().filter_map(|entry| entry.actor.as_ref()) {
                    actor.do_send(EventLinkLost);
                }
                self.record_stream_loss(ctx);
                self.probe();
            }
        }
    }
}

impl Handler<Unreachable> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: Unreachable, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Unreachable");
        self.set_reachable(false);
        self.probe();
    }
}

impl Handler<HealthAnswered> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, answered: HealthAnswered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: HealthAnswered");
        self.set_reachable(answered.0);
        if answered.0 {
            self.probing = false;
            self.probe_tries = 0;
            self.link_is_up();
        } else if self.closing.is_none() {
            self.probe_tries += 1;
            ctx.notify_later(Probe, connect_backoff(self.probe_tries));
        }
    }
}

impl Handler<Probe> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Probe");
        self.probing = false;
        self.probe();
    }
}

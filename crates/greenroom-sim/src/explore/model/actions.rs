//! The actions of users and operators on the model: prompt, abort, answer, delete, outage, restart, broken
//! event stream. Also the final healing, after which every promise must be kept.

use greenroom::domain::ids::SessionId;
use serde_json::json;

use super::Model;
use super::state::{AcceptedPrompt, ServerState, TimedEvent};
use super::turn::Turn;
use crate::explore::log::{Fact, LogEvent};

impl Model {
    /// Adds a session that existed before.
    pub fn open_session(&self, id: &SessionId, parent: Option<SessionId>) {
        self.state().ensure_session(id, parent);
    }

    /// Returns true if the session exists.
    pub fn has(&self, id: &SessionId) -> bool {
        self.state()
            .sessions
            .get(id)
            .is_some_and(|session| !session.deleted)
    }

    /// Prompts a session, as a user does.
    pub fn user_message(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online
            && state
                .sessions
                .get(id)
                .is_some_and(|session| !session.deleted)
        {
            state.accept_prompt(AcceptedPrompt {
                session: id.clone(),
                agent: None,
                model: None,
                metadata: None,
                replies: true,
                notice: None,
            });
        }
    }

    /// Aborts a session, as its user does.
    pub fn user_abort(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online {
            state.abort(id, true);
        }
    }

    /// Answers the question of a session, as its user does.
    pub fn user_answer(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online {
            state.answer_ask(id);
        }
    }

    /// Deletes a session and its children.
    pub fn delete(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online {
            state.delete(id);
        }
    }

    /// Makes the server unreachable for some milliseconds. A killed server also loses all running turns.
    pub fn take_offline(&self, millis: u64, killed: bool) {
        self.state()
            .take_offline(i64::try_from(millis).unwrap_or(0), killed);
    }

    /// Breaks the event stream for some milliseconds.
    pub fn break_link(&self, millis: u64) {
        let mut state = self.state();
        if state.healed || !state.online {
            return;
        }
        let millis = i64::try_from(millis).unwrap_or(0);
        state.schedule(0, TimedEvent::Link(false));
        state.schedule(millis, TimedEvent::Link(true));
    }

    /// Ends all faults: the server is reachable, events are delivered, turns finish.
    pub fn heal(&self) {
        self.log.push(LogEvent::Healed);
        self.state().heal();
    }
}

impl ServerState {
    /// Aborts the turn of a session. An abort of a recently prompted session may be answered and lost.
    pub(super) fn abort(&mut self, id: &SessionId, by_user: bool) {
        let now = self.now();
        let (name, odds) = (
            format!("abort {id} {} lost", self.count(&format!("abort {id}"))),
            self.odds.abort_lost,
        );
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.deleted) else {
            return;
        };
        let Some(turn) = &session.turn else {
            return self.emit_idle(id);
        };
        let Turn {
            started_at,
            before_first_step,
            retry,
            ..
        } = turn;
        let (recent, before_first_step, retries) =
            (now - started_at < 2000, *before_first_step, retry.is_some());
        if !by_user && recent && self.rng.decide(name, 0, |rng| i64::from(rng.chance(odds))) > 0 {
            return self.record_fact(id, Fact::AbortLost);
        }
        if by_user {
            self.record_fact(id, Fact::UserAborted);
        }
        if before_first_step {
            // Before its first step a turn cannot be aborted, and no event is sent.
            if self.odds.exact_effects {
                self.record_fact(id, Fact::Aborted);
                return self.abort_before_first_step(id);
            }
            if let Some(session) = self.sessions.get_mut(id) {
                session.turn = None;
            }
            self.record_fact(id, Fact::Aborted);
            self.record_fact(id, Fact::Idle);
            return;
        }
        if retries {
            self.record_fact(id, Fact::Aborted);
            if let Some(info) = self
                .sessions
                .get_mut(id)
                .and_then(|session| session.answer())
            {
                info["time"]["completed"] = json!(now);
            }
            self.emit_assistant_message(id);
            return self.end_turn(id);
        }
        self.fail(id, "MessageAbortedError", "Aborted");
    }

    fn delete(&mut self, id: &SessionId) {
        let children: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.parent.as_ref() == Some(id) && !session.deleted)
            .map(|(child, _)| child.clone())
            .collect();
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.deleted) else {
            return;
        };
        // The turn of a deleted session continues until it ends.
        session.deleted = true;
        self.record_fact(id, Fact::Deleted);
        self.emit(id, "session.deleted", json!({"info": {"id": id}}));
        for child in children {
            self.delete(&child);
        }
    }

    pub(super) fn take_offline(&mut self, millis: i64, killed: bool) {
        if self.healed || !self.online {
            return;
        }
        self.online = false;
        self.epoch += 1;
        self.log.push(LogEvent::ServerOnline(false));
        if killed {
            self.process_ended = Some(self.now());
            let lost: Vec<SessionId> = self
                .sessions
                .iter()
                .filter(|(_, session)| session.turn.is_some())
                .map(|(id, _)| id.clone())
                .collect();
            for id in lost {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.turn = None;
                }
                self.record_fact(&id, Fact::StateLost);
                self.record_fact(&id, Fact::Idle);
            }
        }
        // A killed server closes the stream at once; an unreachable one is noticed only after a timeout.
        let noticed = if killed { 1 } else { millis.min(30_000) };
        self.link_up = false;
        self.schedule(noticed, TimedEvent::Link(false));
        self.schedule(millis, TimedEvent::ServerOnline);
    }

    pub(super) fn bring_online(&mut self) {
        if self.online {
            return;
        }
        self.online = true;
        self.process_ended = None;
        self.log.push(LogEvent::ServerOnline(true));
        let waits = self.count("reconnect");
        let wait = self.rng.decide(format!("reconnect {waits}"), 500, |rng| {
            rng.between(0, 10_000)
        });
        self.schedule(wait, TimedEvent::Link(true));
    }

    /// Sets the state of the event stream. Returns true if the change is reported to the system.
    pub(super) fn set_link(&mut self, up: bool) -> bool {
        // The break of an outage that the healing has ended is not noticed any more.
        let is_over = !up && self.healed && self.odds.exact_effects;
        if up && !self.online || is_over {
            return false;
        }
        self.link_up = up;
        true
    }

    fn heal(&mut self) {
        self.healed = true;
        self.lost_agents.retain(|_, permanent| *permanent);
        self.lost_models.retain(|_, permanent| *permanent);
        let reverted: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.reverted.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in reverted {
            self.unrevert(&id);
        }
        self.rng.use_defaults();
        if !self.online {
            self.online = true;
            self.process_ended = None;
            self.log.push(LogEvent::ServerOnline(true));
        }
        if !self.link_up {
            self.schedule(500, TimedEvent::Link(true));
        }
    }

    /// Counts an occurrence of this name and returns the number, starting at 1.
    pub(super) fn count(&mut self, name: &str) -> u32 {
        match self.calls.get_mut(name) {
            Some(count) => {
                *count += 1;
                *count
            }
            None => {
                self.calls.insert(name.to_owned(), 1);
                1
            }
        }
    }
}

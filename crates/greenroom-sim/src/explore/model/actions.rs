//! What users and operators do to the model: speak, stop, answer, delete; take the server away, kill it, cut the stream. And
//! the end of all trouble, after which promises fall due.

use greenroom::domain::ids::SessionId;
use serde_json::json;

use super::Model;
use super::state::{Due, World};
use super::turn::Turn;
use crate::explore::log::{Fact, What};

impl Model {
    /// A session that was there before.
    pub fn open_session(&self, id: &SessionId, parent: Option<SessionId>) {
        self.world().ensure(id, parent);
    }

    /// True if that session is there.
    pub fn has(&self, id: &SessionId) -> bool {
        self.world()
            .sessions
            .get(id)
            .is_some_and(|session| !session.deleted)
    }

    /// Somebody who is not us prompts a session.
    pub fn user_message(&self, id: &SessionId) {
        let mut world = self.world();
        if world.online
            && world
                .sessions
                .get(id)
                .is_some_and(|session| !session.deleted)
        {
            world.take_prompt(id, None, None, true);
        }
    }

    /// The user stops a session.
    pub fn user_abort(&self, id: &SessionId) {
        let mut world = self.world();
        if world.online {
            world.abort(id, true);
        }
    }

    /// Somebody answers what a session asks.
    pub fn user_answer(&self, id: &SessionId) {
        let mut world = self.world();
        if world.online {
            world.answered(id);
        }
    }

    /// Somebody deletes a session, and with it its children.
    pub fn delete(&self, id: &SessionId) {
        let mut world = self.world();
        if world.online {
            world.delete(id);
        }
    }

    /// The server cannot be reached for so many milliseconds; if it is killed, it forgets what it did.
    pub fn go_away(&self, millis: u64, killed: bool) {
        self.world()
            .go_away(i64::try_from(millis).unwrap_or(0), killed);
    }

    /// The event stream breaks for so many milliseconds.
    pub fn break_link(&self, millis: u64) {
        let mut world = self.world();
        if world.healed || !world.online {
            return;
        }
        let millis = i64::try_from(millis).unwrap_or(0);
        world.schedule(0, Due::Link(false));
        world.schedule(millis, Due::Link(true));
    }

    /// From now on nothing goes wrong any more: the server can be reached, events flow, turns are answered.
    pub fn heal(&self) {
        self.log.push(What::Healed);
        self.world().heal();
    }
}

impl World {
    /// Stops what a session does. An abort of somebody just prompted may be answered and lost.
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
            began,
            unseen,
            retry,
            ..
        } = turn;
        let (young, unseen, retries) = (now - began < 2000, *unseen, retry.is_some());
        if !by_user
            && young
            && self
                .dice
                .decide(name, 0, |source| i64::from(source.chance(odds)))
                > 0
        {
            return self.truth(id, Fact::AbortLost);
        }
        if by_user {
            self.truth(id, Fact::Stopped);
        }
        if unseen {
            // Before its first step there is nothing to be stopped, and nobody is told.
            if let Some(session) = self.sessions.get_mut(id) {
                session.turn = None;
            }
            self.truth(id, Fact::Aborted);
            self.truth(id, Fact::Idle);
            return;
        }
        if retries {
            self.truth(id, Fact::Aborted);
            if let Some(info) = self
                .sessions
                .get_mut(id)
                .and_then(|session| session.answer())
            {
                info["time"]["completed"] = json!(now);
            }
            self.emit_answer(id);
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
        // What it does goes on as a ghost until it has ended.
        session.deleted = true;
        self.truth(id, Fact::Deleted);
        self.emit(id, "session.deleted", json!({"info": {"id": id}}));
        for child in children {
            self.delete(&child);
        }
    }

    fn go_away(&mut self, millis: i64, killed: bool) {
        if self.healed || !self.online {
            return;
        }
        self.online = false;
        self.epoch += 1;
        self.log.push(What::Online(false));
        if killed {
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
                self.truth(&id, Fact::Forgotten);
                self.truth(&id, Fact::Idle);
            }
        }
        // A killed server closes the stream; of one that cannot be reached only the silence tells.
        let noticed = if killed { 1 } else { millis.min(30_000) };
        self.link_up = false;
        self.schedule(noticed, Due::Link(false));
        self.schedule(millis, Due::Online);
    }

    pub(super) fn come_back(&mut self) {
        if self.online {
            return;
        }
        self.online = true;
        self.log.push(What::Online(true));
        let waits = self.count("reconnect");
        let wait = self
            .dice
            .decide(format!("reconnect {waits}"), 500, |source| {
                source.between(0, 10_000)
            });
        self.schedule(wait, Due::Link(true));
    }

    /// True if that is news.
    pub(super) fn set_link(&mut self, up: bool) -> bool {
        if up && !self.online {
            return false;
        }
        self.link_up = up;
        true
    }

    fn heal(&mut self) {
        self.healed = true;
        self.dice.calm_down();
        if !self.online {
            self.online = true;
            self.log.push(What::Online(true));
        }
        if !self.link_up {
            self.schedule(500, Due::Link(true));
        }
    }

    /// How often something of that name has happened, from 1.
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

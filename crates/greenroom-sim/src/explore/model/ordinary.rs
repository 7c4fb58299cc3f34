//! The ordinary life of opencode: instances and processes that end and abort their own sessions, agents and models that
//! are lost from the configuration, accepted messages that are not stored, reverted and forked sessions.

use greenroom::domain::ids::SessionId;
use serde_json::json;

use super::Model;
use super::session::{Session, assistant_message};
use super::state::{AcceptedPrompt, ServerState, TimedEvent};
use crate::explore::log::Fact;

/// The time from the first abort of a disposed instance to the report of its end, in milliseconds.
const DISPOSED_AFTER: i64 = 120;
/// The time between the aborts of two sessions, in milliseconds.
const ABORT_INTERVAL: i64 = 30;

impl Model {
    /// Disposes the instance of the directory.
    pub fn dispose(&self) {
        self.state().dispose();
    }

    /// Ends the process in an orderly way; another serves after some milliseconds.
    pub fn end_process(&self, millis: u64) {
        let millis = i64::try_from(millis).unwrap_or(0);
        self.state().end_process(millis);
    }

    /// Ends another process of the folder, which runs no session of the scenario.
    pub fn end_second_process(&self) {
        self.state().schedule(0, TimedEvent::SecondProcessEnded);
    }

    /// Removes an agent from the configuration. The healing restores it unless the loss is permanent.
    pub fn lose_agent(&self, agent: &str, permanent: bool) {
        let mut state = self.state();
        if !state.healed {
            state.lost_agents.insert(agent.to_owned(), permanent);
        }
    }

    /// Removes a model from the configuration. The healing restores it unless the loss is permanent.
    pub fn lose_model(&self, model: &str, permanent: bool) {
        let mut state = self.state();
        if !state.healed {
            state.lost_models.insert(model.to_owned(), permanent);
        }
    }

    /// Reverts a session to its newest user message.
    pub fn revert(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online && !state.healed {
            state.revert(id);
        }
    }

    /// Restores what a revert hides.
    pub fn unrevert(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online {
            state.unrevert(id);
        }
    }

    /// Copies a session.
    pub fn fork(&self, id: &SessionId) {
        let mut state = self.state();
        if state.online {
            state.fork(id);
        }
    }
}

impl ServerState {
    /// Accepts a notification, which may be lost, be stored late, or be followed by the end of the instance.
    pub(super) fn accept_notice(&mut self, prompt: AcceptedPrompt) {
        if !self.answers_call {
            // A lookup after an unknown outcome would be too early for a message that is stored late.
            return self.accept_prompt(prompt);
        }
        let (odds, id) = (self.odds.clone(), prompt.session.clone());
        let nth = self.count(&format!("notice {id}"));
        let delay = self
            .rng
            .decide(format!("notice {id} {nth} stored after"), 0, |rng| {
                if rng.chance(odds.notice_not_stored) {
                    -1
                } else if rng.chance(odds.notice_stored_late) {
                    rng.between(1, 8000)
                } else {
                    0
                }
            });
        if delay < 0 {
            return;
        }
        let after_wait =
            self.rng
                .decide(format!("notice {id} {nth} stored after wait"), 0, |rng| {
                    if rng.chance(odds.notice_stored_after_wait) {
                        rng.between(9000, 12_000)
                    } else {
                        0
                    }
                });
        let delay = delay.max(after_wait);
        let cut_off = self
            .rng
            .decide(format!("notice {id} {nth} cut off after"), 0, |rng| {
                if rng.chance(odds.notice_cut_off) {
                    rng.between(1, 400)
                } else {
                    0
                }
            });
        if cut_off > 0 && prompt.replies {
            self.schedule(delay + cut_off, TimedEvent::Dispose);
        }
        if delay == 0 {
            return self.accept_prompt(prompt);
        }
        let epoch = self.epoch;
        self.schedule(
            delay,
            TimedEvent::Store {
                prompt: Box::new(prompt),
                epoch,
            },
        );
    }

    /// Stores a prompt that was accepted earlier, unless the server has ended since.
    pub(super) fn store_late(&mut self, prompt: AcceptedPrompt, epoch: u32) {
        let deleted = self
            .sessions
            .get(&prompt.session)
            .is_none_or(|session| session.deleted);
        if !deleted && self.online && self.epoch == epoch {
            self.accept_prompt(prompt);
        }
    }

    fn busy_turns(&self) -> Vec<(SessionId, u32)> {
        let turns = self
            .sessions
            .iter()
            .filter(|(_, session)| session.directory == super::BASE)
            .filter_map(|(id, session)| Some((id.clone(), session.turn.as_ref()?.number)));
        turns.collect()
    }

    /// Aborts the running sessions one after the other; the end of the instance is reported last.
    pub(super) fn dispose(&mut self) {
        if self.healed || !self.online {
            return;
        }
        let mut wait = 0;
        for (session, turn) in self.busy_turns() {
            self.schedule(wait, TimedEvent::CutOff { session, turn });
            wait += ABORT_INTERVAL;
        }
        self.schedule(
            wait.max(DISPOSED_AFTER),
            TimedEvent::InstanceEnded { bridge_lost: false },
        );
    }

    /// Ends the process. Its bridge is lost before the aborts, which are then only stored, or some time after them.
    fn end_process(&mut self, millis: i64) {
        if self.healed || !self.online {
            return;
        }
        let nth = self.count("process end");
        let lost_after =
            self.rng
                .decide(format!("process end {nth} bridge lost after"), 0, |rng| {
                    *rng.one_of(&[0, 0, 100, 1000, 1900])
                });
        if lost_after == 0 {
            self.link_up = false;
        }
        for (session, turn) in self.busy_turns() {
            self.cut_off_turn(&session, turn);
        }
        if lost_after == 0 {
            self.process_ends(millis);
        } else {
            self.schedule(lost_after, TimedEvent::ProcessEnds { ms: millis });
        }
    }

    pub(super) fn process_ends(&mut self, millis: i64) {
        // An end that has begun is reported in any case. After the healing the next process serves at once.
        self.schedule(0, TimedEvent::InstanceEnded { bridge_lost: true });
        self.take_offline(millis, true);
    }

    /// Aborts a turn without a request, because the instance of its session ends.
    pub(super) fn cut_off_turn(&mut self, id: &SessionId, number: u32) {
        let now = self.now();
        let turn = self
            .sessions
            .get(id)
            .and_then(|session| session.turn.as_ref())
            .filter(|turn| turn.number == number);
        let Some(turn) = turn else { return };
        let before_first_step = turn.before_first_step;
        self.record_fact(id, Fact::CutOff);
        if before_first_step {
            return self.abort_before_first_step(id);
        }
        self.emit_error(id, "MessageAbortedError", "Aborted");
        self.end_turn(id);
        self.set_aborted(id, now);
        self.emit_assistant_message(id);
        self.emit_idle(id);
    }

    /// Aborts a turn whose model was not requested yet. Only the message shows it.
    pub(super) fn abort_before_first_step(&mut self, id: &SessionId) {
        let (message, now) = (self.next_message_id(), self.now());
        if let Some(session) = self.sessions.get_mut(id) {
            let answer = assistant_message(&message, id, now, &session.agent, session.model());
            session.messages.push(answer);
        }
        self.set_aborted(id, now);
        self.emit_assistant_message(id);
        self.end_turn(id);
    }

    fn set_aborted(&mut self, id: &SessionId, now: i64) {
        let answer = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.answer());
        if let Some(info) = answer {
            info["error"] = json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}});
            info["time"]["completed"] = json!(now);
        }
    }

    fn revert(&mut self, id: &SessionId) {
        let Some(session) = self
            .sessions
            .get_mut(id)
            .filter(|session| !session.deleted && session.turn.is_none())
        else {
            return;
        };
        let newest = session
            .messages
            .iter()
            .rposition(|message| message["info"]["role"] == "user");
        let Some(from) = newest else { return };
        session.reverted = Some(from);
        let message = session.messages[from]["info"]["id"].clone();
        self.record_fact(id, Fact::Reverted);
        self.emit(
            id,
            "session.updated",
            json!({"info": {"id": id, "revert": {"messageID": message}}}),
        );
    }

    pub(super) fn unrevert(&mut self, id: &SessionId) {
        let session = self.sessions.get_mut(id);
        if session
            .and_then(|session| session.reverted.take())
            .is_some()
        {
            self.record_fact(id, Fact::Restored);
            self.emit(id, "session.updated", json!({"info": {"id": id}}));
        }
    }

    /// Copies a session. The copy has no parent, no metadata, and messages with new ids.
    fn fork(&mut self, id: &SessionId) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.deleted) else {
            return;
        };
        session.forks += 1;
        let fork = SessionId::new(format!("{id}_fork{}", session.forks));
        let (directory, agent, model) = (
            session.directory.clone(),
            session.agent.clone(),
            session.model.clone(),
        );
        let mut messages = session.messages.clone();
        for message in &mut messages {
            let new = self.next_message_id();
            message["info"]["id"] = json!(new);
            message["info"]["sessionID"] = json!(fork);
            for part in message["parts"].as_array_mut().into_iter().flatten() {
                let old = part["id"].as_str().unwrap_or_default();
                part["id"] = json!(format!("{old}_{new}"));
                part["messageID"] = json!(new);
                part["sessionID"] = json!(fork);
            }
        }
        let copy = Session {
            directory,
            agent,
            model,
            messages,
            ..Session::default()
        };
        self.sessions.insert(fork.clone(), copy);
        self.emit(&fork, "session.created", json!({"info": {"id": fork}}));
    }
}

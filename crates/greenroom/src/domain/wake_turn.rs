//! The turn that a stored waking message begins. The message has done its work once an answer follows it in the parent's
//! history. A turn that was cut off is continued once, and a final message whose turn failed on its agent or model is
//! repeated once with the server's defaults. Owned by the parent's notifier; pure.

use std::time::Duration;

use super::explanation::is_unknown_model;
use super::ids::{MessageId, ModelRef, NoticeId};
use super::notice::NoticeKind;
use super::notification::{names_agent, names_model};
use super::session_event::SessionEventKind;
use super::time::Timestamp;
use super::transcript::Message;

/// The time between the last event of a turn and the read of the history: the remaining events of the turn arrive meanwhile.
const SETTLE: Duration = Duration::from_secs(1);

/// The first wait for events of the turn. Without events the history is read then, and again after twice the time.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// The number of further reads without an event. A turn that goes on after them is watched by its events only.
const MAX_READS: u32 = 1;

/// The longest watch over a turn while its history can be read.
const LONGEST_WATCH: Duration = Duration::from_secs(3600);

/// The maximum length of an error that is kept, in bytes.
const MAX_ERRORS: usize = 4000;

/// A turn without an answer so far.
#[derive(Debug)]
pub struct WakeTurn {
    notice: NoticeId,
    kind: NoticeKind,
    is_repeated: bool,
    agent: Option<String>,
    model: Option<ModelRef>,
    /// The message in the parent's history, if an event showed it.
    message: Option<MessageId>,
    /// The errors of the session since the message was sent.
    error: Option<String>,
    /// True if the instance or the connection of the parent has ended since.
    is_interrupted: bool,
    /// None: the history is read after the next event.
    read_at: Option<Timestamp>,
    wait: Duration,
    reads: u32,
    ends_at: Timestamp,
    /// The watch ends then even if the history could not be read.
    gives_up_at: Timestamp,
}

/// The message that begins a turn.
#[derive(Debug, Clone)]
pub struct Wake {
    /// Its id.
    pub notice: NoticeId,
    /// Its kind.
    pub kind: NoticeKind,
    /// True if it repeats a message whose turn failed.
    pub is_repeated: bool,
    /// The agent that it named.
    pub agent: Option<String>,
    /// The model that it named.
    pub model: Option<ModelRef>,
    /// The message in the parent's history, if an event showed it.
    pub message: Option<MessageId>,
    /// The errors of the session since it was sent.
    pub error: Option<String>,
}

/// Returns true if the user has prompted the parent after the newest message of the system. `messages` is the history,
/// oldest first.
pub fn prompted_since(messages: &[Message]) -> bool {
    let newest_first = messages.iter().rev();
    newest_first
        .take_while(|message| !message.parts.iter().any(|part| part.notice_id().is_some()))
        .any(|message| message.role.as_deref() == Some("user"))
}

/// What follows a message in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// A finished answer, or a message of the user.
    Present,
    /// The newest answer failed.
    Failed(String),
    /// The newest answer was aborted, or is not finished.
    Unfinished,
    /// None.
    Missing,
}

/// The decision on a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnDecision {
    /// The turn goes on.
    Wait,
    /// The turn has its answer, or the parent's user has prompted the parent since.
    Done,
    /// No turn began, and nothing shows why.
    NotTakenUp,
    /// The turn was cut off: prompt the parent to continue.
    Continue,
    /// The turn failed on its agent or model: repeat the message with the server's defaults.
    Repeat,
    /// The turn failed for this reason, and nothing more is sent.
    Failed(String),
}

impl WakeTurn {
    /// Begins to watch the turn of a message that is stored. `retention` limits the watch while no server is reached.
    pub fn new(wake: Wake, retention: Duration, now: Timestamp) -> Self {
        let mut turn = Self {
            notice: wake.notice,
            kind: wake.kind,
            is_repeated: wake.is_repeated,
            agent: wake.agent,
            model: wake.model,
            message: wake.message,
            error: wake.error,
            is_interrupted: false,
            read_at: Some(now + FIRST_WAIT),
            wait: FIRST_WAIT,
            reads: 0,
            ends_at: now + LONGEST_WATCH,
            gives_up_at: now + retention,
        };
        if turn.error.is_some() {
            turn.read_soon(now);
        }
        turn
    }

    /// Returns the message.
    pub fn notice(&self) -> &NoticeId {
        &self.notice
    }

    /// Returns when the history is read next, if no event arrives before.
    pub fn read_at(&self) -> Option<Timestamp> {
        self.read_at
    }

    /// Records that the instance of the parent has ended, or that the connection to its server was lost.
    pub fn interrupted(&mut self, now: Timestamp) {
        self.is_interrupted = true;
        self.read_soon(now);
    }

    fn read_soon(&mut self, now: Timestamp) {
        let soon = now + SETTLE;
        self.read_at = Some(self.read_at.map_or(soon, |at| at.min(soon)));
    }

    /// Processes an event of the parent's session. Returns true if it is the answer.
    pub fn event(&mut self, kind: &SessionEventKind, now: Timestamp) -> bool {
        match kind {
            SessionEventKind::Message(message) if message.is_finished_turn() => {
                let follows = message.id > self.message && self.message.is_some();
                if follows && message.error.is_none() {
                    return true;
                }
                self.read_soon(now);
            }
            SessionEventKind::Error {
                aborted: false,
                text,
            } => {
                let errors = self.error.get_or_insert_default();
                if errors.len() + text.len() < MAX_ERRORS {
                    errors.push_str(text);
                    errors.push('\n');
                }
                self.read_soon(now);
            }
            SessionEventKind::Idle => self.read_soon(now),
            _ => {}
        }
        false
    }

    /// Returns when the watch ends without an answer.
    pub fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Repeats a read that failed. The time without a server does not count.
    pub fn read_failed(&mut self, now: Timestamp) {
        self.read_at = Some(now + FIRST_WAIT);
        self.ends_at = (now + LONGEST_WATCH).min(self.gives_up_at);
    }

    /// Postpones the next read: the turn goes on.
    pub fn goes_on(&mut self, now: Timestamp) {
        self.reads += 1;
        self.read_at = (self.reads <= MAX_READS).then(|| now + self.wait);
        self.wait *= 2;
    }

    /// Decides by the parent's history, oldest message first, and by whether the parent is busy.
    pub fn decide(&self, messages: &[Message], busy: bool) -> TurnDecision {
        let answer = answer(messages, &self.notice);
        match (answer, &self.error) {
            (Answer::Present, _) => TurnDecision::Done,
            _ if busy => TurnDecision::Wait,
            (Answer::Failed(error), _) => self.failed(&error),
            // An error without an answer belongs to the turn; an answer has its own error.
            (Answer::Missing, Some(error)) => self.failed(error.trim_end()),
            // Nothing shows that a turn was cut off.
            (Answer::Missing, None) if !self.is_interrupted => {
                if self.reads == MAX_READS {
                    TurnDecision::NotTakenUp
                } else {
                    TurnDecision::Wait
                }
            }
            _ if self.kind == NoticeKind::Continue => {
                TurnDecision::Failed("the turn was cut off again".to_owned())
            }
            _ => TurnDecision::Continue,
        }
    }

    fn failed(&self, error: &str) -> TurnDecision {
        let names_cause = is_unknown_model(error)
            || (self.agent.as_ref()).is_some_and(|agent| names_agent(error, agent))
            || (self.model.as_ref()).is_some_and(|model| names_model(error, model));
        if names_cause && !self.is_repeated && self.kind != NoticeKind::Individual {
            TurnDecision::Repeat
        } else {
            TurnDecision::Failed(error.to_owned())
        }
    }
}

/// Returns true if a finished answer or a message of the user follows the message in the history, oldest first.
pub fn is_answered(messages: &[Message], notice: &NoticeId) -> bool {
    answer(messages, notice) == Answer::Present
}

fn answer(messages: &[Message], notice: &NoticeId) -> Answer {
    let is_wake = |message: &Message| {
        let mut notices = message.parts.iter().filter_map(|part| part.notice_id());
        notices.any(|id| id == notice.as_str())
    };
    // A message that is not among the newest is not searched further: many others followed it.
    let Some(position) = messages.iter().position(is_wake) else {
        return Answer::Present;
    };
    let mut answer = Answer::Missing;
    for message in &messages[position + 1..] {
        let is_notice = message.parts.iter().any(|part| part.notice_id().is_some());
        let is_user = message.role.as_deref() == Some("user") && !is_notice;
        if is_user || (message.is_finished_turn() && message.error.is_none()) {
            return Answer::Present;
        }
        if message.role.as_deref() == Some("assistant") {
            let failure = message.error.clone().filter(|_| !message.aborted);
            answer = failure.map_or(Answer::Unfinished, Answer::Failed);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn time_without_a_server_does_not_end_the_watch() {
        let mut turn = turn(NoticeKind::Final);
        assert_eq!(turn.ends_at(), at(3600));
        turn.read_failed(at(3000));
        assert_eq!(turn.ends_at(), at(6600));
        let retention = i64::try_from(RETENTION.as_secs()).unwrap();
        turn.read_failed(at(retention - 60));
        assert_eq!(turn.ends_at(), at(retention));
    }

    fn wake(kind: NoticeKind) -> Wake {
        Wake {
            notice: "ntc_1".into(),
            kind,
            is_repeated: false,
            agent: Some("lead".to_owned()),
            model: Some(ModelRef {
                provider_id: "acme".to_owned(),
                model_id: "big".to_owned(),
                variant: None,
            }),
            message: Some("msg_2".into()),
            error: None,
        }
    }

    fn turn(kind: NoticeKind) -> WakeTurn {
        WakeTurn::new(wake(kind), RETENTION, at(0))
    }

    fn history(after: &[Value]) -> Vec<Message> {
        let notice = json!({"info": {"id": "msg_2", "role": "user"}, "parts": [
            {"type": "text", "metadata": {"greenroom": {"id": "ntc_1"}}}]});
        let before = json!({"info": {"id": "msg_1", "role": "assistant", "finish": "stop",
            "time": {"completed": 1}}});
        let mut all = vec![before, notice];
        all.extend(after.iter().cloned());
        all.iter().map(Message::read).collect()
    }

    fn answer(fields: Value) -> Value {
        let mut info = json!({"id": "msg_3", "role": "assistant"});
        info.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({ "info": info })
    }

    #[test]
    fn finished_answer_ends_the_watch() {
        let turn = turn(NoticeKind::Final);
        let finished = answer(json!({"finish": "stop", "time": {"completed": 9}}));
        assert_eq!(
            turn.decide(&history(&[finished]), false),
            TurnDecision::Done
        );
        let calling = answer(json!({"finish": "tool-calls", "time": {"completed": 9}}));
        let calling = history(&[calling]);
        assert_eq!(turn.decide(&calling, true), TurnDecision::Wait);
        assert_eq!(turn.decide(&calling, false), TurnDecision::Continue);
    }

    #[test]
    fn answer_of_an_earlier_turn_does_not_count() {
        let mut turn = turn(NoticeKind::Final);
        let event = |id: &str| {
            let info = json!({"id": id, "role": "assistant", "finish": "stop",
                "time": {"completed": 9}});
            SessionEventKind::Message(Box::new(Message::read_info(&info)))
        };
        assert!(!turn.event(&event("msg_1"), at(1)));
        assert!(turn.event(&event("msg_3"), at(1)));
    }

    #[test]
    fn prompt_of_the_user_replaces_the_answer() {
        let prompt = json!({"info": {"id": "msg_3", "role": "user"}, "parts": []});
        let turn = turn(NoticeKind::Final);
        assert_eq!(turn.decide(&history(&[prompt]), false), TurnDecision::Done);
    }

    #[test]
    fn turn_that_was_cut_off_continues_once() {
        let aborted = answer(json!({"error": {"name": "MessageAbortedError"},
            "time": {"completed": 9}}));
        let history = history(&[aborted]);
        let first = turn(NoticeKind::Individual);
        assert_eq!(first.decide(&history, false), TurnDecision::Continue);
        let again = turn(NoticeKind::Continue).decide(&history, false);
        assert!(matches!(again, TurnDecision::Failed(_)), "{again:?}");
    }

    #[test]
    fn error_of_another_turn_is_no_reason_of_a_turn_that_was_cut_off() {
        let aborted = answer(json!({"error": {"name": "MessageAbortedError"},
            "time": {"completed": 9}}));
        let mut turn = turn(NoticeKind::Final);
        let error = SessionEventKind::Error {
            aborted: false,
            text: "Agent not found: \"lead\"".to_owned(),
        };
        turn.event(&error, at(1));
        let decision = turn.decide(&history(&[aborted]), false);
        assert_eq!(decision, TurnDecision::Continue);
    }

    #[test]
    fn turn_that_never_began_continues_only_after_an_interruption() {
        let mut turn = turn(NoticeKind::Final);
        assert_eq!(turn.decide(&history(&[]), false), TurnDecision::Wait);
        turn.goes_on(at(60));
        let last = turn.decide(&history(&[]), false);
        assert_eq!(last, TurnDecision::NotTakenUp);
        turn.interrupted(at(5));
        assert_eq!(turn.decide(&history(&[]), false), TurnDecision::Continue);
        assert_eq!(turn.decide(&history(&[]), true), TurnDecision::Wait);
    }

    #[test]
    fn failure_of_agent_or_model_repeats_a_final_once() {
        let error = |text: &str| SessionEventKind::Error {
            aborted: false,
            text: text.to_owned(),
        };
        let mut final_turn = turn(NoticeKind::Final);
        final_turn.event(&error("Model not found: acme/big."), at(1));
        assert_eq!(final_turn.read_at(), Some(at(2)));
        assert_eq!(
            final_turn.decide(&history(&[]), false),
            TurnDecision::Repeat
        );
        let mut repeated = WakeTurn::new(
            Wake {
                is_repeated: true,
                ..wake(NoticeKind::Final)
            },
            RETENTION,
            at(0),
        );
        repeated.event(&error("Model not found: acme/big."), at(1));
        let failed = TurnDecision::Failed("Model not found: acme/big.".to_owned());
        assert_eq!(repeated.decide(&history(&[]), false), failed);
    }

    #[test]
    fn other_failure_is_not_repeated() {
        let overloaded = answer(json!({"error": {"name": "APIError",
            "data": {"message": "overloaded"}}, "time": {"completed": 9}}));
        let turn = turn(NoticeKind::Final);
        let failed = TurnDecision::Failed("overloaded".to_owned());
        assert_eq!(turn.decide(&history(&[overloaded]), false), failed);
    }

    #[test]
    fn reads_without_events_end() {
        let mut turn = turn(NoticeKind::Final);
        assert_eq!(turn.read_at(), Some(at(60)));
        turn.read_failed(at(60));
        turn.goes_on(at(120));
        assert_eq!(turn.read_at(), Some(at(180)));
        turn.goes_on(at(180));
        assert_eq!(turn.read_at(), None);
        turn.event(&SessionEventKind::Idle, at(9000));
        assert_eq!(turn.read_at(), Some(at(9001)));
    }
}

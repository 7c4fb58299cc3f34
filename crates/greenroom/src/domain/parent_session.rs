//! The state of a parent's own session: whether it is busy, whether its task has ended, and whether its user aborted
//! it. It decides whether a message is held, and whether it is silent. Owned by the parent's notifier; pure.

use std::time::Duration;

use super::ids::MessageId;
use super::session_event::SessionEventKind;
use super::time::Timestamp;
use crate::config::{Lifecycle, Notifications, OnParentAbort};

/// The decision on a due message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Send it now.
    Send,
    /// Read the status of the parent first.
    ReadStatus,
    /// The parent is busy. Decide again at this time, or when the parent is idle: messages do not enter a running turn
    /// unnecessarily.
    HoldUntil(Timestamp),
}

#[derive(Debug, Clone, Copy)]
struct Activity {
    busy: bool,
    /// Since when the session is busy or idle.
    since: Timestamp,
    /// When that was reported last.
    at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct UnjudgedAbort {
    at: Timestamp,
    /// Without a judgement until then, the abort counts as a person's.
    due: Timestamp,
}

/// The time limit of the judgement of an abort, beyond the grace. A restarted registry begins the grace again.
const JUDGEMENT_LIMIT: Duration = Duration::from_secs(60);

/// A parent's session.
#[derive(Debug, Default)]
pub struct ParentSession {
    activity: Option<Activity>,
    backing_off: bool,
    next_status_read: Option<Timestamp>,
    ended: bool,
    silenced: Option<Timestamp>,
    /// The abort that is not judged yet, if a judgement is expected.
    unjudged_abort: Option<UnjudgedAbort>,
    /// When the session was last known to be reverted; None if it is not.
    reverted: Option<Timestamp>,
    /// The newest message that shows an abort: its updates are no further aborts.
    aborted_message: Option<MessageId>,
    /// When the newest abort was received.
    last_abort: Option<Timestamp>,
    /// True if user messages in events may be messages of the system.
    messages_sent: bool,
    newest_user_message: Option<MessageId>,
    candidate: Option<MessageId>,
}

impl ParentSession {
    /// Creates the state. `ended` is true for the session of a task that has ended.
    pub fn new(ended: bool) -> Self {
        Self {
            ended,
            ..Self::default()
        }
    }

    /// Sets whether the session belongs to a task that has ended.
    pub fn set_ended(&mut self, ended: bool) {
        self.ended = ended;
    }

    /// Returns true if messages must not wake the parent: it has ended, or its user aborted it and has not written
    /// since.
    pub fn is_silent(&self) -> bool {
        self.ended || self.silenced.is_some()
    }

    /// Returns true if the user aborted the session and has not written since.
    pub fn is_silenced(&self) -> bool {
        self.silenced.is_some()
    }

    /// Restores the silence after a user's abort. An earlier notifier may have sent messages since.
    pub fn set_silenced(&mut self, now: Timestamp) {
        self.silenced.get_or_insert(now);
        self.messages_sent = true;
    }

    /// Returns the time at which the silence ends if nothing is open or pending until then, so that memory does not
    /// hold the parent forever.
    pub fn silence_ends_at(&self, policy: &Notifications) -> Option<Timestamp> {
        self.silenced.map(|since| since + policy.give_up)
    }

    /// Ends the silence.
    pub fn end_silence(&mut self) {
        self.silenced = None;
    }

    /// Processes an event of the session.
    pub fn event(
        &mut self,
        kind: &SessionEventKind,
        policy: &Notifications,
        lifecycle: &Lifecycle,
        now: Timestamp,
    ) {
        match kind {
            SessionEventKind::Updated { reverted } if policy.revert_check.is_some() => {
                self.reverted = reverted.then_some(now);
            }
            SessionEventKind::Busy => self.set_activity(true, now),
            SessionEventKind::Retry { .. } => {
                self.set_activity(true, now);
                self.backing_off = true;
            }
            SessionEventKind::Idle => self.set_activity(false, now),
            SessionEventKind::Error { aborted: true, .. } => self.aborted(policy, lifecycle, now),
            // An abort before the first request to the model appears only as a message with that error.
            SessionEventKind::Message(message)
                if message.aborted
                    && lifecycle.abort_grace.is_some()
                    && message.role.as_deref() == Some("assistant")
                    && !self.is_known_abort(message.id.as_ref(), message.created) =>
            {
                self.aborted_message.clone_from(&message.id);
                if self.unjudged_abort.is_none() && self.silenced.is_none() {
                    self.aborted(policy, lifecycle, now);
                }
            }
            // An abort during the server's backoff has no error: a message completes without a finish reason.
            SessionEventKind::Message(message)
                if self.backing_off
                    && message.role.as_deref() == Some("assistant")
                    && message.completed.is_some()
                    && message.finish.is_none()
                    && message.error.is_none() =>
            {
                self.aborted(policy, lifecycle, now);
            }
            SessionEventKind::Message(message) if message.role.as_deref() == Some("user") => {
                // A prompt of the user ends a revert.
                self.reverted = None;
                self.user_message(message.id.clone(), message.created);
            }
            // Only the part identifies the sender: notices carry their id, and the server's own messages are synthetic.
            SessionEventKind::Part { message, part }
                if message.is_some() && *message == self.candidate =>
            {
                self.candidate = None;
                if part.notice_id().is_none() && !part.synthetic {
                    self.user_wrote();
                }
            }
            _ => {}
        }
    }

    /// Holds the messages until an abort that an earlier notifier received is judged.
    pub fn hold_for_abort(&mut self, at: Timestamp, lifecycle: &Lifecycle, now: Timestamp) {
        if let Some(grace) = lifecycle.abort_grace {
            let due = now + grace + JUDGEMENT_LIMIT;
            self.unjudged_abort = Some(UnjudgedAbort { at, due });
            // An earlier notifier may have sent messages since.
            self.messages_sent = true;
        }
    }

    /// Records how the abort received at `at` is judged: a turn that was cut off was not stopped by the user. Without
    /// effect if a newer abort was received, or the user has written since.
    pub fn abort_judged(&mut self, at: Timestamp, cut_off: bool, policy: &Notifications) {
        if self.unjudged_abort() == Some(at) {
            self.unjudged_abort = None;
            if !cut_off {
                self.silence(policy, at);
            }
        }
    }

    /// Returns when the abort was received that waits for its judgement, if one does.
    pub fn unjudged_abort(&self) -> Option<Timestamp> {
        self.unjudged_abort.map(|abort| abort.at)
    }

    /// Returns until when the judgement of an abort is awaited, if one is.
    pub fn judgement_due(&self) -> Option<Timestamp> {
        self.unjudged_abort.map(|abort| abort.due)
    }

    /// Returns when the abort was received whose judgement is overdue at `now`, if there is one.
    pub fn overdue_abort(&self, now: Timestamp) -> Option<Timestamp> {
        let overdue = self.unjudged_abort.filter(|abort| abort.due <= now);
        overdue.map(|abort| abort.at)
    }

    /// Returns since when the session is busy: when its turn began, if an event or a status has reported it.
    pub fn busy_since(&self) -> Option<Timestamp> {
        let activity = self.activity.filter(|activity| activity.busy);
        activity.map(|activity| activity.since)
    }

    /// Records whether the session is reverted.
    pub fn revert_read(&mut self, reverted: bool, now: Timestamp) {
        self.reverted = reverted.then_some(now);
    }

    /// Returns true if the session is reverted: every message would delete what its user can still restore.
    pub fn is_reverted(&self) -> bool {
        self.reverted.is_some()
    }

    /// Returns true if every message is held: the session is reverted, or an abort is not judged yet.
    pub fn is_held(&self) -> bool {
        self.is_reverted() || self.unjudged_abort.is_some()
    }

    /// Processes the result of a status call. None is a failed call: it counts as idle, unless the parent was busy.
    pub fn status_read(&mut self, busy: Option<bool>, now: Timestamp) {
        match (busy, self.activity) {
            (Some(busy), _) => self.set_activity(busy, now),
            (None, Some(Activity { busy: true, .. })) => {}
            // Dated now, also after an older idle status: the older status is outdated and would be read again in the
            // same instant, forever.
            (None, _) => self.set_activity(false, now),
        }
    }

    /// Records that a message was sent.
    pub fn message_sent(&mut self) {
        self.messages_sent = true;
    }

    /// Records that a waking message was accepted: the known status is outdated.
    pub fn wake_sent(&mut self) {
        self.activity = None;
        self.next_status_read = None;
    }

    /// Decides on a message that is due since `since`. A silent message waits as long as the parent is busy, a waking
    /// one at most `wake_ceiling`.
    pub fn gate(
        &mut self,
        wakes: bool,
        since: Timestamp,
        policy: &Notifications,
        lifecycle: &Lifecycle,
        now: Timestamp,
    ) -> Gate {
        if let Some(abort) = self.unjudged_abort {
            return Gate::HoldUntil(abort.due);
        }
        if let (Some(at), Some(check)) = (self.reverted, policy.revert_check) {
            // The record is read again before a message is sent.
            return if now.since(at) < check {
                Gate::HoldUntil(at + check)
            } else {
                Gate::Send
            };
        }
        let ceiling = since + policy.wake_ceiling;
        if !policy.wait_for_busy_parent || (wakes && ceiling <= now) {
            return Gate::Send;
        }
        match self.activity {
            Some(Activity { busy: true, .. }) => {
                let read_at = *self
                    .next_status_read
                    .get_or_insert(now + lifecycle.poll_interval);
                if read_at <= now {
                    // An idle event may have been lost.
                    self.next_status_read = None;
                    return Gate::ReadStatus;
                }
                Gate::HoldUntil(if wakes { read_at.min(ceiling) } else { read_at })
            }
            Some(Activity { at, .. }) if now.since(at) < idle_validity(lifecycle) => Gate::Send,
            _ => Gate::ReadStatus,
        }
    }

    /// Returns true if the abort that a message shows was processed before: the message is older than the newest abort.
    fn is_known_abort(&self, id: Option<&MessageId>, created: Option<Timestamp>) -> bool {
        let is_update = id.is_some() && self.aborted_message.as_ref() == id;
        let aborted = created.zip(self.last_abort);
        is_update || aborted.is_some_and(|(created, aborted)| created.is_wall_before(aborted))
    }

    fn aborted(&mut self, policy: &Notifications, lifecycle: &Lifecycle, now: Timestamp) {
        self.last_abort = Some(now);
        match lifecycle.abort_grace {
            _ if !policy.silence_after_parent_abort
                && policy.on_parent_abort == OnParentAbort::Keep => {}
            Some(grace) => {
                self.candidate = None;
                self.unjudged_abort = Some(UnjudgedAbort {
                    at: now,
                    due: now + grace + JUDGEMENT_LIMIT,
                });
            }
            None => self.silence(policy, now),
        }
    }

    fn silence(&mut self, policy: &Notifications, now: Timestamp) {
        if policy.silence_after_parent_abort {
            self.silenced = Some(now);
            self.candidate = None;
        }
    }

    fn set_activity(&mut self, busy: bool, now: Timestamp) {
        self.backing_off = false;
        let before = self.activity.filter(|before| before.busy == busy);
        self.activity = Some(Activity {
            busy,
            since: before.map_or(now, |before| before.since),
            at: now,
        });
        self.next_status_read = None;
    }

    /// Ends the silence, unless the message is a notice or an update of a message from before the abort.
    fn user_message(&mut self, id: Option<MessageId>, created: Option<Timestamp>) {
        let is_new = id.is_none() || id > self.newest_user_message;
        if is_new {
            self.newest_user_message.clone_from(&id);
        }
        let unjudged = self.unjudged_abort.map(|abort| abort.at);
        let Some(since) = self.silenced.or(unjudged) else {
            return;
        };
        if !is_new || created.is_some_and(|created| created.is_wall_before(since)) {
            return;
        }
        // The event of a notice sent before the abort may arrive after it.
        if self.messages_sent {
            self.candidate = id;
        } else {
            self.user_wrote();
        }
    }

    /// Ends the silence, and the wait for the judgement of an abort.
    fn user_wrote(&mut self) {
        self.silenced = None;
        self.unjudged_abort = None;
    }
}

/// Returns the time for which an idle status is valid.
fn idle_validity(lifecycle: &Lifecycle) -> Duration {
    lifecycle.poll_interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session_event::SessionEvent;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[derive(Default)]
    struct Parent {
        session: ParentSession,
        policy: Notifications,
        lifecycle: Lifecycle,
    }

    impl Parent {
        fn event(&mut self, event: Value, now: Timestamp) {
            let event = SessionEvent::read(&event).unwrap();
            let lifecycle = Lifecycle {
                abort_grace: None,
                ..self.lifecycle.clone()
            };
            self.session
                .event(&event.kind, &self.policy, &lifecycle, now);
        }

        fn status(&mut self, status: &str, now: Timestamp) {
            self.event(
                json!({"type": "session.status", "properties": {"sessionID": "p", "status": {"type": status}}}),
                now,
            );
        }

        fn abort(&mut self, now: Timestamp) {
            self.event(
                json!({"type": "session.error", "properties": {"sessionID": "p",
                       "error": {"name": "MessageAbortedError"}}}),
                now,
            );
        }

        fn user(&mut self, id: &str, created: i64, now: Timestamp) {
            self.event(
                json!({"type": "message.updated", "properties": {"sessionID": "p",
                       "info": {"id": id, "role": "user", "time": {"created": created * 1000}}}}),
                now,
            );
        }

        fn part(&mut self, message: &str, extra: Value, now: Timestamp) {
            let mut part =
                json!({"messageID": message, "sessionID": "p", "type": "text", "text": "x"});
            part.as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            self.event(
                json!({"type": "message.part.updated", "properties": {"sessionID": "p", "part": part}}),
                now,
            );
        }

        fn gate(&mut self, wakes: bool, since: Timestamp, now: Timestamp) -> Gate {
            self.session
                .gate(wakes, since, &self.policy, &self.lifecycle, now)
        }
    }

    #[test]
    fn unknown_status_is_read_once() {
        let mut parent = Parent::default();
        assert_eq!(parent.gate(true, at(0), at(0)), Gate::ReadStatus);
        parent.session.status_read(Some(false), at(0));
        assert_eq!(parent.gate(true, at(0), at(0)), Gate::Send);
    }

    #[test]
    fn unreadable_status_counts_as_idle() {
        let mut parent = Parent::default();
        parent.session.status_read(None, at(0));
        assert_eq!(parent.gate(false, at(0), at(0)), Gate::Send);
    }

    #[test]
    fn unreadable_status_replaces_outdated_idle() {
        let mut parent = Parent::default();
        parent.session.status_read(Some(false), at(0));
        assert_eq!(parent.gate(true, at(9), at(9)), Gate::ReadStatus);
        parent.session.status_read(None, at(9));
        assert_eq!(parent.gate(true, at(9), at(9)), Gate::Send);
    }

    #[test]
    fn busy_parent_holds_message_and_is_polled() {
        let mut parent = Parent::default();
        parent.status("busy", at(0));
        assert_eq!(parent.gate(false, at(0), at(0)), Gate::HoldUntil(at(3)));
        assert_eq!(parent.gate(false, at(0), at(3)), Gate::ReadStatus);
        parent.status("idle", at(4));
        assert_eq!(parent.gate(false, at(0), at(4)), Gate::Send);
    }

    #[test]
    fn wake_is_held_to_its_ceiling_and_silent_message_forever() {
        let mut parent = Parent::default();
        parent.status("busy", at(59));
        assert_eq!(parent.gate(true, at(0), at(59)), Gate::HoldUntil(at(60)));
        assert_eq!(parent.gate(true, at(0), at(60)), Gate::Send);
        assert_eq!(parent.gate(false, at(0), at(60)), Gate::HoldUntil(at(62)));
    }

    #[test]
    fn abort_silences_until_next_user_message() {
        let mut parent = Parent::default();
        parent.user("msg_1", 1, at(1));
        parent.abort(at(5));
        assert!(parent.session.is_silent());
        parent.user("msg_1", 1, at(6));
        assert!(
            parent.session.is_silent(),
            "an update of an older message does not end the silence"
        );
        parent.user("msg_2", 9, at(9));
        assert!(!parent.session.is_silent());
    }

    #[test]
    fn empty_message_during_backoff_is_an_abort() {
        let mut parent = Parent::default();
        parent.status("retry", at(1));
        parent.event(
            json!({"type": "message.updated", "properties": {"sessionID": "p",
                   "info": {"id": "msg_1", "role": "assistant", "time": {"created": 1000, "completed": 2000}}}}),
            at(2),
        );
        assert!(parent.session.is_silent());
    }

    #[test]
    fn notice_sent_before_abort_does_not_end_silence() {
        let mut parent = Parent::default();
        parent.session.message_sent();
        parent.abort(at(5));
        parent.user("msg_2", 6, at(6));
        parent.part(
            "msg_2",
            json!({"synthetic": true, "metadata": {"greenroom": {"id": "ntc_1"}}}),
            at(6),
        );
        assert!(parent.session.is_silent());
    }

    #[test]
    fn own_notice_does_not_end_silence() {
        let mut parent = Parent::default();
        parent.abort(at(5));
        parent.session.message_sent();
        parent.user("msg_2", 9, at(9));
        parent.part(
            "msg_2",
            json!({"synthetic": true, "metadata": {"greenroom": {"id": "ntc_1"}}}),
            at(9),
        );
        assert!(parent.session.is_silent());
        parent.user("msg_3", 12, at(12));
        parent.part("msg_3", json!({}), at(12));
        assert!(!parent.session.is_silent());
    }
}

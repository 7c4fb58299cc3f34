//! A parent's outbox, folded from the journal: the tasks of its batch, their reports, and the delivery status of each
//! message. A restarted notifier continues from it, and readers see its messages. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::CompletionReport;
use super::ids::{NoticeId, Run, TaskId};
use super::notice::{NoticeFacts, NoticeKind};
use super::time::Timestamp;
use crate::maps::Map;
use crate::ports::journal::JournalEntry;

/// The number of finished messages that an outbox remembers. The oldest is evicted first.
const MAX_FINISHED: usize = 100;

/// A run in a parent's batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: Run,
    /// The report, once the run has settled.
    pub settled: Option<Box<CompletionReport>>,
    /// True if an individual message has reported it.
    #[serde(rename = "noted")]
    pub reported: bool,
}

/// The delivery status of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryStatus {
    /// A final message of a closed batch, not yet sent or refused.
    #[serde(rename = "owed")]
    Pending,
    /// In flight: its arrival is unknown.
    Sending,
    /// The server has accepted it.
    Delivered,
    /// Dropped, with the reason.
    Dropped(String),
}

/// One message to a parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxMessage {
    /// The id, by which the message is looked up.
    pub id: NoticeId,
    /// The content.
    pub facts: Arc<NoticeFacts>,
    /// The reports, which also carry the parent's identity. Empty once the message is finished.
    #[serde(rename = "told")]
    pub reports: Arc<[CompletionReport]>,
    /// The message that this one repeats, because the turn of that one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<NoticeId>,
    /// The time since which it is due.
    pub since: Timestamp,
    /// The delivery status.
    #[serde(rename = "fate")]
    pub status: DeliveryStatus,
    /// The error of the turn that the message began, once that turn failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_error: Option<String>,
    /// True while the turn that the delivered message began is watched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub turn_is_watched: bool,
    /// The time of the last change.
    pub at: Timestamp,
}

impl OutboxMessage {
    /// Sets the status. The reports of a finished message are dropped, unless its turn may have to be continued.
    fn set_status(&mut self, status: DeliveryStatus, at: Timestamp) {
        (self.status, self.at) = (status, at);
        self.drop_reports();
    }

    fn watch_turn(&mut self, watched: bool) {
        self.turn_is_watched = watched;
        self.drop_reports();
    }

    fn drop_reports(&mut self) {
        if self.is_finished() && !self.turn_is_watched {
            self.reports = Arc::default();
        }
    }

    fn is_finished(&self) -> bool {
        matches!(
            self.status,
            DeliveryStatus::Delivered | DeliveryStatus::Dropped(_)
        )
    }
}

/// The outbox of one parent. Its serialized form is [`OutboxRecord`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "OutboxRecord", into = "OutboxRecord")]
pub struct Outbox {
    /// The directory of the parent, from the first launch that joined.
    pub directory: Option<Arc<str>>,
    members: BTreeMap<u64, Member>,
    positions: Map<TaskId, u64>,
    next_position: u64,
    /// The messages, in the order of creation.
    pub messages: VecDeque<OutboxMessage>,
    /// True from the user's abort until the next user message.
    pub silenced: bool,
}

/// The serialized form of an outbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRecord {
    /// The directory of the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Arc<str>>,
    /// The batch, in the order of joining.
    pub members: Vec<Member>,
    /// The messages, in the order of creation.
    #[serde(rename = "posted")]
    pub messages: VecDeque<OutboxMessage>,
    /// True from the user's abort until the next user message.
    pub silenced: bool,
}

impl From<Outbox> for OutboxRecord {
    fn from(outbox: Outbox) -> Self {
        Self {
            directory: outbox.directory,
            members: outbox.members.into_values().collect(),
            messages: outbox.messages,
            silenced: outbox.silenced,
        }
    }
}

impl From<OutboxRecord> for Outbox {
    fn from(record: OutboxRecord) -> Self {
        let mut outbox = Outbox {
            directory: record.directory,
            messages: record.messages,
            silenced: record.silenced,
            ..Outbox::default()
        };
        for member in record.members {
            let position = outbox.next_position;
            outbox.next_position += 1;
            outbox.positions.insert(member.task.clone(), position);
            outbox.members.insert(position, member);
        }
        outbox
    }
}

impl Outbox {
    /// Applies a journal entry. Entries that do not concern an outbox are ignored.
    pub fn apply(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Joined {
                task,
                run,
                directory,
                ..
            } => self.join(task, run, directory),
            JournalEntry::Settled { report, .. } => self.settle(*report),
            JournalEntry::Left(_, task) => self.leave(&task),
            JournalEntry::Closed { message, tasks, .. } => self.close(*message, &tasks),
            JournalEntry::Sending { message, .. } => self.sending(*message),
            JournalEntry::Returned(_, id) => self.returned(&id),
            JournalEntry::Delivery {
                id,
                status,
                watched,
                at,
                ..
            } => {
                if watched {
                    self.watch_turn(&id, true);
                }
                self.set_status(&id, status, at);
            }
            JournalEntry::TurnFailed { id, error, at, .. } => self.turn_failed(&id, error, at),
            JournalEntry::TurnUnwatched(_, id) => self.watch_turn(&id, false),
            JournalEntry::ParentGone(_, at) => self.drop_all(at),
            JournalEntry::Silenced(_, silenced) => self.silenced = silenced,
            JournalEntry::Task { .. }
            | JournalEntry::Granted(..)
            | JournalEntry::Prompted(..)
            | JournalEntry::Aborted(..)
            | JournalEntry::Key(_)
            | JournalEntry::Forgotten(..)
            | JournalEntry::Noted(..)
            | JournalEntry::Unaccepted(_)
            | JournalEntry::AbortReceived(..)
            | JournalEntry::AbortJudged(_)
            | JournalEntry::Owner(..) => {}
        }
    }

    /// Adds a run to the batch, in place of an earlier run of the task.
    pub fn join(&mut self, task: TaskId, run: Run, directory: Option<Arc<str>>) {
        self.leave(&task);
        if self.directory.is_none() {
            self.directory = directory;
        }
        let position = self.next_position;
        self.next_position += 1;
        self.positions.insert(task.clone(), position);
        let member = Member {
            task,
            run,
            settled: None,
            reported: false,
        };
        self.members.insert(position, member);
    }

    /// The batch, in the order of joining.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns true if the task is in the batch.
    pub fn has(&self, task: &TaskId) -> bool {
        self.positions.contains_key(task)
    }

    /// Returns true if this run of the task is in the batch.
    pub fn has_run(&self, task: &TaskId, run: Run) -> bool {
        let member = self
            .positions
            .get(task)
            .and_then(|position| self.members.get(position));
        member.is_some_and(|member| member.run == run)
    }

    /// Returns the number of open runs.
    pub fn open(&self) -> usize {
        let open = |member: &&Member| member.settled.is_none();
        self.members.values().filter(open).count()
    }

    fn turn_failed(&mut self, id: &NoticeId, error: String, at: Timestamp) {
        if let Some(message) = self.messages.iter_mut().find(|message| message.id == *id) {
            (message.turn_error, message.at) = (Some(error), at);
            message.watch_turn(false);
        }
    }

    /// Records whether the turn of a message is watched.
    pub fn watch_turn(&mut self, id: &NoticeId, watched: bool) {
        if let Some(message) = self.messages.iter_mut().find(|message| message.id == *id) {
            message.watch_turn(watched);
        }
    }

    fn member(&mut self, task: &TaskId) -> Option<&mut Member> {
        self.members.get_mut(self.positions.get(task)?)
    }

    /// Settles a run of the batch.
    pub fn settle(&mut self, report: CompletionReport) {
        let member = self.member(&report.fact.task);
        if let Some(member) = member.filter(|member| member.settled.is_none()) {
            member.settled = Some(Box::new(report));
        }
    }

    /// Removes a run from the batch without a report.
    pub fn leave(&mut self, task: &TaskId) {
        if let Some(position) = self.positions.remove(task) {
            self.members.remove(&position);
        }
    }

    /// Closes the batch: the final message reports these tasks. A task that was resumed before the notifier received
    /// the resume stays, with the run that the final does not report.
    pub fn close(&mut self, message: OutboxMessage, tasks: &[TaskId]) {
        let reports: Map<&TaskId, &CompletionReport> = message
            .reports
            .iter()
            .map(|report| (&report.fact.task, report))
            .collect();
        let mut leaving = Vec::new();
        for task in tasks {
            let report = reports.get(task).copied();
            let settled = self
                .member(task)
                .and_then(|member| member.settled.as_deref());
            if settled.is_some_and(|settled| report.is_none_or(|report| report == settled)) {
                leaving.push(task);
            }
        }
        for task in leaving {
            self.leave(task);
        }
        self.upsert(message);
    }

    /// Records that a message is in flight. The tasks of an individual message count as reported.
    pub fn sending(&mut self, message: OutboxMessage) {
        if message.facts.kind == NoticeKind::Individual {
            self.set_reported(&message, true);
        }
        self.upsert(message);
    }

    /// Removes a refused individual message. The next message includes its reports.
    pub fn returned(&mut self, id: &NoticeId) {
        if let Some(position) = self.messages.iter().position(|message| message.id == *id)
            && let Some(message) = self.messages.remove(position)
        {
            self.set_reported(&message, false);
        }
    }

    /// Sets the status of a message.
    pub fn set_status(&mut self, id: &NoticeId, status: DeliveryStatus, at: Timestamp) {
        let again = matches!(status, DeliveryStatus::Pending | DeliveryStatus::Sending);
        let mut message = self.messages.iter_mut();
        // A message that was dropped while its answer was in flight stays dropped: its reports are gone.
        if let Some(message) =
            message.find(|message| message.id == *id && !(again && message.is_finished()))
        {
            message.set_status(status, at);
        }
        let is_finished = |message: &OutboxMessage| message.is_finished();
        while self
            .messages
            .iter()
            .filter(|message| is_finished(message))
            .count()
            > MAX_FINISHED
        {
            match self.messages.iter().position(is_finished) {
                Some(oldest) => self.messages.remove(oldest),
                None => break,
            };
        }
    }

    /// Clears the batch and drops all pending messages, because the parent was deleted.
    pub fn drop_all(&mut self, at: Timestamp) {
        self.members.clear();
        self.positions.clear();
        for message in &mut self.messages {
            message.watch_turn(false);
            if matches!(
                message.status,
                DeliveryStatus::Pending | DeliveryStatus::Sending
            ) {
                message.set_status(
                    DeliveryStatus::Dropped("the parent was deleted".to_owned()),
                    at,
                );
            }
        }
    }

    /// Returns true if the batch is empty, no message is pending and no turn is watched.
    pub fn is_settled(&self) -> bool {
        let is_pending = |message: &OutboxMessage| {
            message.turn_is_watched
                || matches!(
                    message.status,
                    DeliveryStatus::Pending | DeliveryStatus::Sending
                )
        };
        self.members.is_empty() && !self.messages.iter().any(is_pending)
    }

    fn upsert(&mut self, new: OutboxMessage) {
        match self
            .messages
            .iter_mut()
            .find(|message| message.id == new.id)
        {
            Some(message) => *message = new,
            None => self.messages.push_back(new),
        }
    }

    fn set_reported(&mut self, message: &OutboxMessage, reported: bool) {
        for report in message.reports.iter() {
            let same = |member: &&mut Member| member.settled.as_deref() == Some(report);
            if let Some(member) = self.member(&report.fact.task).filter(same) {
                member.reported = reported;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::SettledFact;
    use crate::domain::task::TaskStatus;

    const AT: Timestamp = Timestamp::from_millis(0);

    fn message(id: &str) -> OutboxMessage {
        let fact = SettledFact {
            task: "bg_1".into(),
            status: TaskStatus::Completed,
            description: "d".into(),
            duration: "1s".into(),
            error: None,
        };
        OutboxMessage {
            id: id.into(),
            facts: Arc::new(NoticeFacts {
                kind: NoticeKind::Final,
                tasks: vec![fact.clone()],
                remaining: 0,
            }),
            reports: [CompletionReport {
                fact,
                accepted: 1,
                parent_agent: None,
                parent_model: None,
            }]
            .into(),
            retry_of: None,
            since: AT,
            status: DeliveryStatus::Pending,
            turn_error: None,
            turn_is_watched: false,
            at: AT,
        }
    }

    #[test]
    fn message_keeps_reports_while_its_turn_is_watched() {
        let mut outbox = Outbox::default();
        outbox.sending(message("ntc_1"));
        outbox.watch_turn(&"ntc_1".into(), true);
        outbox.set_status(&"ntc_1".into(), DeliveryStatus::Delivered, AT);
        assert!(!outbox.is_settled());
        assert_eq!(outbox.messages[0].reports.len(), 1);
        outbox.watch_turn(&"ntc_1".into(), false);
        assert!(outbox.is_settled());
        assert!(outbox.messages[0].reports.is_empty());
    }

    #[test]
    fn message_keeps_reports_until_finished() {
        let mut outbox = Outbox::default();
        for id in ["ntc_1", "ntc_2", "ntc_3"] {
            outbox.sending(message(id));
        }
        outbox.set_status(&"ntc_1".into(), DeliveryStatus::Delivered, AT);
        outbox.set_status(&"ntc_2".into(), DeliveryStatus::Pending, AT);
        let sizes = |outbox: &Outbox| -> Vec<(usize, usize)> {
            let message = outbox.messages.iter();
            message
                .map(|message| (message.reports.len(), message.facts.tasks.len()))
                .collect()
        };
        assert_eq!(sizes(&outbox), [(0, 1), (1, 1), (1, 1)]);
        outbox.drop_all(AT);
        assert_eq!(sizes(&outbox), [(0, 1), (0, 1), (0, 1)]);
        // The answer to a message in flight comes too late.
        outbox.set_status(&"ntc_3".into(), DeliveryStatus::Pending, AT);
        assert!(
            outbox.is_settled(),
            "a deleted parent has no pending messages"
        );
    }
}

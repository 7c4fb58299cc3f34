//! What a parent is owed, as the journal's changes add up to it: who is in its batch, who of them has settled, and what
//! became of each message. A notifier that is rebuilt begins from this; readers see its messages. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::CompletionReport;
use super::ids::{NoticeId, Run, TaskId};
use super::notice::{NoticeFacts, NoticeKind};
use super::time::Timestamp;
use crate::maps::Map;
use crate::ports::journal::JournalEntry;

/// How many messages that are over an outbox remembers; the oldest goes first.
const MAX_FINISHED: usize = 100;

/// A run in a parent's batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: Run,
    /// What is to be told of it, once it has settled.
    pub settled: Option<Box<CompletionReport>>,
    /// True if an individual message has said so.
    #[serde(rename = "noted")]
    pub reported: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryStatus {
    /// A final whose batch is closed; not sent yet, or refused.
    #[serde(rename = "owed")]
    Pending,
    /// On its way; whether it has arrived is not known.
    Sending,
    /// The server has accepted it.
    Delivered,
    /// Given up, with the reason.
    Dropped(String),
}

/// One message to a parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxMessage {
    /// Its id, by which it is found again.
    pub id: NoticeId,
    /// What it says.
    pub facts: Arc<NoticeFacts>,
    /// Of whom, and who speaks for the parent; nothing any more once its fate is known.
    #[serde(rename = "told")]
    pub reports: Arc<[CompletionReport]>,
    /// Since when it is owed.
    pub since: Timestamp,
    /// What became of it.
    #[serde(rename = "fate")]
    pub status: DeliveryStatus,
    /// When that was.
    pub at: Timestamp,
}

impl OutboxMessage {
    /// That became of it. Once it is over nobody sends it again: what it takes to do that is let go of.
    fn set_status(&mut self, status: DeliveryStatus, at: Timestamp) {
        (self.status, self.at) = (status, at);
        if self.is_finished() {
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

/// What one parent is owed and was told. Written down whole, it is an [`OutboxRecord`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "OutboxRecord", into = "OutboxRecord")]
pub struct Outbox {
    /// Where the parent works, as the first to join said.
    pub directory: Option<Arc<str>>,
    members: BTreeMap<u64, Member>,
    positions: Map<TaskId, u64>,
    next_position: u64,
    /// Messages in the order of their first mention.
    pub messages: VecDeque<OutboxMessage>,
    /// True from its user's abort until its user's next word.
    pub silenced: bool,
}

/// An outbox as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRecord {
    /// Where the parent works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Arc<str>>,
    /// Its batch, in the order of joining.
    pub members: Vec<Member>,
    /// Its messages, in the order of their first mention.
    #[serde(rename = "posted")]
    pub messages: VecDeque<OutboxMessage>,
    /// True from its user's abort until its user's next word.
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
    /// A change from the journal, if it is one of an outbox.
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
            JournalEntry::Delivery { id, status, at, .. } => self.set_status(&id, status, at),
            JournalEntry::ParentGone(_, at) => self.drop_all(at),
            JournalEntry::Silenced(_, silenced) => self.silenced = silenced,
            JournalEntry::Task { .. }
            | JournalEntry::Granted(..)
            | JournalEntry::Prompted(..)
            | JournalEntry::Aborted(..)
            | JournalEntry::Key(_)
            | JournalEntry::Forgotten(..)
            | JournalEntry::Noted(..)
            | JournalEntry::Unaccepted(_) => {}
        }
    }

    /// A run joins the batch; an earlier run of the task is no longer in it.
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

    /// Its batch, in the order of joining.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// True if the task is in the batch.
    pub fn has(&self, task: &TaskId) -> bool {
        self.positions.contains_key(task)
    }

    /// True if that run of the task is in the batch.
    pub fn has_run(&self, task: &TaskId, run: Run) -> bool {
        let member = self
            .positions
            .get(task)
            .and_then(|position| self.members.get(position));
        member.is_some_and(|member| member.run == run)
    }

    /// How many of the batch have not ended.
    pub fn open(&self) -> usize {
        let open = |member: &&Member| member.settled.is_none();
        self.members.values().filter(open).count()
    }

    fn member(&mut self, task: &TaskId) -> Option<&mut Member> {
        self.members.get_mut(self.positions.get(task)?)
    }

    /// A run of the batch has ended.
    pub fn settle(&mut self, report: CompletionReport) {
        let member = self.member(&report.fact.task);
        if let Some(member) = member.filter(|member| member.settled.is_none()) {
            member.settled = Some(Box::new(report));
        }
    }

    /// A run leaves the batch without a word.
    pub fn leave(&mut self, task: &TaskId) {
        if let Some(position) = self.positions.remove(task) {
            self.members.remove(&position);
        }
    }

    /// The batch is closed: these tasks are in that final from now on. One that was resumed before whoever closed the batch
    /// heard of it stays, with the run that the final says nothing of.
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

    /// A message is on its way. What an individual one says need not be said again.
    pub fn sending(&mut self, message: OutboxMessage) {
        if message.facts.kind == NoticeKind::Individual {
            self.set_reported(&message, true);
        }
        self.upsert(message);
    }

    /// An individual message was refused: what it says goes into the next one.
    pub fn returned(&mut self, id: &NoticeId) {
        if let Some(position) = self.messages.iter().position(|message| message.id == *id)
            && let Some(message) = self.messages.remove(position)
        {
            self.set_reported(&message, false);
        }
    }

    /// A message has come to its end, or is owed again.
    pub fn set_status(&mut self, id: &NoticeId, status: DeliveryStatus, at: Timestamp) {
        let again = matches!(status, DeliveryStatus::Pending | DeliveryStatus::Sending);
        let mut message = self.messages.iter_mut();
        // What was given up while its answer was under way stays so: nothing is left that could send it again.
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

    /// The parent is no more: nothing is owed to it.
    pub fn drop_all(&mut self, at: Timestamp) {
        self.members.clear();
        self.positions.clear();
        for message in &mut self.messages {
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

    /// True if nobody is open and nothing is owed.
    pub fn is_settled(&self) -> bool {
        let is_pending = |message: &OutboxMessage| {
            matches!(
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
            since: AT,
            status: DeliveryStatus::Pending,
            at: AT,
        }
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
        // The answer to one that was under way then is heard too late.
        outbox.set_status(&"ntc_3".into(), DeliveryStatus::Pending, AT);
        assert!(
            outbox.is_settled(),
            "a deleted parent has no pending messages"
        );
    }
}

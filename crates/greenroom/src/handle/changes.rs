//! The ring of numbered task changes, from which readers continue after a disconnect. The registry publishes. Every
//! reader walks the ring by number, so it neither loses nor repeats a change. Changes that have left the ring, or
//! predate this process, are read from the journal if the journal keeps them. A reader that falls behind gets
//! [`Followed::Missed`]; the publisher never waits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::TaskChange;
use crate::domain::time::Timestamp;
use crate::lock::lock;
use crate::ports::journal::{ChangesFrom, Journal, RecordedChange};

/// The number of changes kept in the ring.
pub const MAX_CHANGES: usize = 2_000;
/// The maximum bytes of text in the ring. Tasks carry their prompts, and many long prompts would not fit into memory.
const MAX_TEXT_BYTES: usize = 32 * 1024 * 1024;
/// The number of changes that a subscriber of the channel may fall behind.
const CHANNEL: usize = 1024;
/// The number of changes that a reader copies at a time.
const READ_BATCH: usize = 64;
/// Numbers begin at the start time in milliseconds times this factor. A service that starts later begins above the
/// numbers of an earlier one, unless the earlier one made a thousand changes a millisecond.
const PER_MILLISECOND: u64 = 1000;

/// A change and its number. Numbers rise strictly, also over a restart of the process.
#[derive(Debug, Clone)]
pub struct NumberedChange {
    /// Its number.
    pub number: u64,
    /// What changed.
    pub change: Arc<TaskChange>,
}

/// The start position of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The next change.
    Now,
    /// The oldest change that is kept.
    Oldest,
    /// The first change after this number.
    Number(u64),
    /// The first change after this time.
    Time(Timestamp),
}

/// An item of a [`ChangeFeed`].
#[derive(Debug, Clone)]
pub enum Followed {
    /// The next change.
    Change(NumberedChange),
    /// Changes were missed: the reader was too slow, away for too long, or named a number that was never assigned. The
    /// reader must reload its state. The feed continues after `newest`.
    Missed {
        /// The newest published number.
        newest: u64,
    },
}

struct ChangeRing {
    /// The number of the newest published change.
    newest: u64,
    /// The newest number assigned to a change, published or not.
    last_assigned: u64,
    changes: VecDeque<NumberedChange>,
    /// The number of the newest change that has left the ring or predates this process.
    removed_up_to: u64,
    text_total: usize,
    /// True if a change has left the ring since the start.
    lost: bool,
    retention: Duration,
}

/// Publishes and reads changes. Clones share one ring.
#[derive(Clone)]
pub(crate) struct Changes {
    ring: Arc<Mutex<ChangeRing>>,
    /// The newest published number; none after [`Changes::close`].
    newest: Arc<watch::Sender<Option<u64>>>,
    channel: broadcast::Sender<Arc<TaskChange>>,
    journal: Arc<dyn Journal>,
}

impl Changes {
    /// Creates a ring that keeps changes for at most `retention`. The journal may hold earlier changes.
    pub(crate) fn new(now: Timestamp, retention: Duration, journal: Arc<dyn Journal>) -> Self {
        let newest = u64::try_from(now.as_millis())
            .unwrap_or(0)
            .saturating_mul(PER_MILLISECOND);
        let ring = ChangeRing {
            newest,
            last_assigned: newest,
            changes: VecDeque::new(),
            removed_up_to: newest,
            text_total: 0,
            lost: false,
            retention,
        };
        Self {
            ring: Arc::new(Mutex::new(ring)),
            newest: Arc::new(watch::Sender::new(Some(newest))),
            channel: broadcast::channel(CHANNEL).0,
            journal,
        }
    }

    /// Continues the numbers above `number`, the newest in the journal.
    pub(crate) fn continue_after(&self, number: u64) {
        let mut ring = self.ring();
        ring.last_assigned = ring.last_assigned.max(number);
        if ring.changes.is_empty() && ring.newest < number {
            // The clock was set back: every earlier change has a number up to this one.
            (ring.newest, ring.removed_up_to) = (number, number);
        }
    }

    /// Assigns the number of the next change.
    pub(crate) fn next_number(&self) -> u64 {
        let mut ring = self.ring();
        ring.last_assigned += 1;
        ring.last_assigned
    }

    /// Publishes a change to all readers, in the order of the numbers. A skipped number was never published.
    pub(crate) fn publish(&self, number: u64, change: TaskChange) {
        let change = Arc::new(change);
        // There may be no subscriber.
        let _ = self.channel.send(Arc::clone(&change));
        let mut ring = self.ring();
        let now = change.at;
        ring.newest = number;
        ring.last_assigned = ring.last_assigned.max(number);
        ring.text_total += text_bytes(&change);
        ring.changes.push_back(NumberedChange { number, change });
        while ring.is_over_limits(now) {
            if let Some(left) = ring.changes.pop_front() {
                ring.text_total = ring.text_total.saturating_sub(text_bytes(&left.change));
                ring.removed_up_to = left.number;
                ring.lost = true;
            }
        }
        drop(ring);
        self.newest
            .send_modify(|newest| *newest = newest.map(|newest| newest.max(number)));
    }

    /// Closes the ring: readers end when they have read all changes.
    pub(crate) fn close(&self) {
        self.newest.send_replace(None);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<TaskChange>> {
        self.channel.subscribe()
    }

    pub(crate) fn follow(&self, since: Since) -> ChangeFeed {
        let in_journal = |from| {
            let first = self.journal.changes(from, 1)?;
            first.first().map(|change| change.changed.number - 1)
        };
        let earlier = match since {
            // The change before the first one is lost once the journal has removed any.
            Since::Oldest => in_journal(ChangesFrom::Since(Timestamp::from_millis(i64::MIN))),
            Since::Time(at) => in_journal(ChangesFrom::Since(at)),
            Since::Now | Since::Number(_) => None,
        };
        let ring = self.ring();
        let (after, missed) = match (since, earlier) {
            (_, Some(before_first)) => (before_first, false),
            (Since::Now, _) => (ring.newest, false),
            (Since::Oldest, _) => (ring.removed_up_to, ring.lost),
            (Since::Number(number), _) => (number, false),
            (Since::Time(at), _) => {
                let later = ring
                    .changes
                    .partition_point(|numbered| !at.is_wall_before(numbered.change.at));
                let after = match later {
                    0 => ring.removed_up_to,
                    _ => ring.changes[later - 1].number,
                };
                (after, later == 0 && ring.lost)
            }
        };
        drop(ring);
        ChangeFeed {
            changes: self.clone(),
            seen: self.newest.subscribe(),
            after,
            missed,
            buffered: VecDeque::new(),
        }
    }

    fn ring(&self) -> MutexGuard<'_, ChangeRing> {
        lock(&self.ring)
    }
}

impl ChangeRing {
    fn is_over_limits(&self, now: Timestamp) -> bool {
        let oldest = self.changes.front();
        self.changes.len() > MAX_CHANGES
            || (self.text_total > MAX_TEXT_BYTES && self.changes.len() > 1)
            || oldest.is_some_and(|oldest| now.since(oldest.change.at) > self.retention)
    }
}

/// Returns the bytes of the texts of unbounded length in a change; the other fields are small.
fn text_bytes(change: &TaskChange) -> usize {
    let task = &change.task;
    let content = task.skill_content.as_ref().map_or(0, |text| text.len());
    task.prompt.len() + content + task.skills.iter().map(String::len).sum::<usize>()
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = self.ring();
        f.debug_struct("Changes")
            .field("newest", &ring.newest)
            .field("changes", &ring.changes.len())
            .finish_non_exhaustive()
    }
}

/// One reader's position in the changes.
#[derive(Debug)]
pub struct ChangeFeed {
    changes: Changes,
    seen: watch::Receiver<Option<u64>>,
    after: u64,
    /// True if changes after the start position are lost.
    missed: bool,
    buffered: VecDeque<NumberedChange>,
}

impl ChangeFeed {
    /// Returns the number of the newest change that was read, or of the start position.
    pub fn position(&self) -> u64 {
        let next = self.buffered.front().map(|change| change.number - 1);
        next.unwrap_or(self.after)
    }

    /// Waits for the next item and returns it. None once the system is shut down and all changes were read.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            if let Some(change) = self.buffered.pop_front() {
                return Some(Followed::Change(change));
            }
            // Marked as seen before the read, so that a change in between wakes the wait below.
            let open = self.seen.borrow_and_update().is_some();
            if let Some(missed) = self.take() {
                return Some(missed);
            }
            if !self.buffered.is_empty() {
                continue;
            }
            if !open || self.seen.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Buffers the next batch of changes, or returns [`Followed::Missed`].
    fn take(&mut self) -> Option<Followed> {
        let (removed_up_to, newest) = {
            let ring = self.changes.ring();
            (ring.removed_up_to, ring.newest)
        };
        if !self.missed && self.after < removed_up_to && !self.take_from_journal(removed_up_to) {
            self.missed = true;
        }
        if self.missed || self.after > newest {
            self.after = newest;
            self.missed = false;
            return Some(Followed::Missed { newest });
        }
        if self.buffered.is_empty() {
            let ring = self.changes.ring();
            let first = ring
                .changes
                .partition_point(|change| change.number <= self.after);
            self.buffered
                .extend(ring.changes.iter().skip(first).take(READ_BATCH).cloned());
        }
        if let Some(last) = self.buffered.back() {
            self.after = last.number;
        }
        None
    }

    /// Buffers a batch of changes from the journal. Returns false if the journal does not keep them.
    fn take_from_journal(&mut self, removed_up_to: u64) -> bool {
        let from = ChangesFrom::After(self.after);
        let Some(earlier) = self.changes.journal.changes(from, READ_BATCH) else {
            return false;
        };
        // After a number that was never assigned there are no earlier changes either.
        self.after = removed_up_to;
        // The ring holds the later changes. The newest may be durable and not yet published.
        let removed = |recorded: &RecordedChange| recorded.changed.number <= removed_up_to;
        for recorded in earlier.into_iter().take_while(removed) {
            let change = TaskChange {
                at: recorded.at,
                from: recorded.changed.from,
                to: recorded.task.status(),
                task: recorded.task,
            };
            self.buffered.push_back(NumberedChange {
                number: recorded.changed.number,
                change: Arc::new(change),
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::TaskId;
    use crate::domain::task::{Launch, Task, TaskStatus};
    use crate::ports::journal::MemoryJournal;

    fn change(number: usize, prompt: &str) -> TaskChange {
        let launch = Launch {
            description: format!("change {number}"),
            prompt: prompt.to_owned(),
            agent: "general".to_owned(),
            ..Launch::default()
        };
        let at = Timestamp::from_millis(i64::try_from(number).unwrap());
        let task = Task::accept(TaskId::from_random(1), launch, 1, at);
        TaskChange {
            at,
            task: Arc::new(task),
            from: None,
            to: TaskStatus::Pending,
        }
    }

    fn started_at(millis: i64) -> Changes {
        let journal = Arc::new(MemoryJournal::default());
        Changes::new(Timestamp::from_millis(millis), Duration::MAX, journal)
    }

    fn publish(ring: &Changes, number: usize, prompt: &str) {
        ring.publish(ring.next_number(), change(number, prompt));
    }

    fn ring(changes: usize) -> Changes {
        let ring = started_at(0);
        for number in 1..=changes {
            publish(&ring, number, "x");
        }
        ring
    }

    /// Reads until the feed ends. Returns the numbers of changes, and `None` for missed changes.
    async fn read(ring: &Changes, since: Since) -> Vec<Option<u64>> {
        let mut feed = ring.follow(since);
        ring.close();
        let mut read = Vec::new();
        while let Some(next) = feed.next().await {
            read.push(match next {
                Followed::Change(change) => {
                    let label = format!("change {}", change.number);
                    assert_eq!(change.change.task.description.as_ref(), label);
                    Some(change.number)
                }
                Followed::Missed { .. } => None,
            });
        }
        read
    }

    fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Option<u64>> {
        range.map(Some).collect()
    }

    #[tokio::test]
    async fn feed_continues_after_position() {
        assert_eq!(read(&ring(200), Since::Number(3)).await, numbers(4..=200));
        assert_eq!(read(&ring(5), Since::Oldest).await, numbers(1..=5));
        assert_eq!(read(&ring(5), Since::Number(5)).await, []);
        assert_eq!(read(&ring(5), Since::Now).await, []);
        let at = Timestamp::from_millis(2);
        assert_eq!(read(&ring(5), Since::Time(at)).await, numbers(3..=5));
    }

    #[tokio::test]
    async fn missed_changes_are_reported() {
        let too_many = MAX_CHANGES + 10;
        assert_eq!(read(&ring(too_many), Since::Number(9)).await, [None]);
        let numbers_read = read(&ring(too_many), Since::Number(10)).await;
        assert_eq!(numbers_read, numbers(11..=too_many as u64));
        assert_eq!(read(&ring(too_many), Since::Oldest).await, [None]);
        assert_eq!(read(&ring(3), Since::Number(4)).await, [None]);
        assert_eq!(read(&ring(3), Since::Number(u64::MAX)).await, [None]);
    }

    #[tokio::test]
    async fn slow_reader_gets_missed_then_continues() {
        let ring = ring(0);
        let mut feed = ring.follow(Since::Now);
        publish(&ring, 1, "x");
        assert!(matches!(feed.next().await, Some(Followed::Change(first)) if first.number == 1));
        for number in 2..=MAX_CHANGES + 2 {
            publish(&ring, number, "x");
        }
        let newest = MAX_CHANGES as u64 + 2;
        assert!(matches!(feed.next().await, Some(Followed::Missed { newest: n }) if n == newest));
        publish(&ring, MAX_CHANGES + 3, "x");
        assert!(
            matches!(feed.next().await, Some(Followed::Change(next)) if next.number == newest + 1)
        );
    }

    #[tokio::test]
    async fn concurrent_readers_get_each_change_once() {
        let ring = ring(0);
        let mut readers = Vec::new();
        for _ in 0..4 {
            let mut feed = ring.follow(Since::Now);
            readers.push(tokio::spawn(async move {
                let mut last = 0;
                while let Some(Followed::Change(change)) = feed.next().await {
                    assert_eq!(change.number, last + 1);
                    last = change.number;
                }
                last
            }));
        }
        for number in 1..=3000 {
            publish(&ring, number, "x");
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        ring.close();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), 3000);
        }
    }

    #[tokio::test]
    async fn ring_is_bounded_by_text_bytes() {
        let ring = ring(0);
        let prompt = "x".repeat(1024 * 1024);
        for number in 1..=100 {
            publish(&ring, number, &prompt);
        }
        assert_eq!(ring.ring().changes.len(), MAX_TEXT_BYTES / prompt.len());
        assert_eq!(read(&ring, Since::Number(68)).await, numbers(69..=100));
    }

    #[test]
    fn numbers_rise_after_clock_was_set_back() {
        let ring = started_at(0);
        ring.continue_after(5_000);
        assert!(ring.next_number() > 5_000);
        let feed = ring.follow(Since::Now);
        assert_eq!(feed.position(), 5_000);
    }

    #[test]
    fn later_start_begins_with_higher_number() {
        let first = started_at(1_795_327_503_283);
        publish(&first, 1, "x");
        let second = started_at(1_795_327_503_284);
        assert!(first.ring().newest < second.ring().newest);
        // A script reads numbers as doubles.
        assert!(second.ring().newest < 1 << 53);
    }
}

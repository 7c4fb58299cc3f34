//! How our own actors fare: who died how often, and who dies too often to be answered at once. It outlives each of them.
//! Written by whoever answers for an actor; read for readiness and metrics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::task::TaskStatus;
use crate::domain::time::Timestamp;
use crate::handle::Counters;

/// So many deaths of one kind within a minute are answered at once.
const RESTART_BUDGET: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// After that each is answered with this delay.
const RESTART_DELAY: Duration = Duration::from_secs(30);

/// The kinds of actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ActorKind {
    Registry,
    Slots,
    Queue,
    Task,
    Notifier,
    Poller,
    Toaster,
}

impl ActorKind {
    pub(crate) const ALL: [ActorKind; 7] = [
        ActorKind::Registry,
        ActorKind::Slots,
        ActorKind::Queue,
        ActorKind::Task,
        ActorKind::Notifier,
        ActorKind::Poller,
        ActorKind::Toaster,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            ActorKind::Registry => "registry",
            ActorKind::Slots => "slot manager",
            ActorKind::Queue => "queue",
            ActorKind::Task => "task",
            ActorKind::Notifier => "notifier",
            ActorKind::Poller => "poller",
            ActorKind::Toaster => "toaster",
        }
    }
}

#[derive(Debug, Default)]
struct Record {
    deaths: BTreeMap<ActorKind, u64>,
    // The newest few deaths of each kind: no more than the budget asks for.
    recent: BTreeMap<ActorKind, VecDeque<Timestamp>>,
    calls_panicked: u64,
    aborts_failed: u64,
    notices_delivered: u64,
    notices_dropped: u64,
    ended: BTreeMap<&'static str, u64>,
}

/// What is known of the actors' deaths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Record>>);

impl Health {
    /// Notes a death by panic; answers how long its restart waits: not at all while the budget lasts.
    pub(crate) fn died(&self, kind: ActorKind, now: Timestamp) -> Duration {
        let mut record = self.record();
        *record.deaths.entry(kind).or_default() += 1;
        let recent = record.recent.entry(kind).or_default();
        recent.push_back(now);
        if recent.len() > RESTART_BUDGET + 1 {
            recent.pop_front();
        }
        match within_budget(recent, now) {
            true => Duration::ZERO,
            false => RESTART_DELAY,
        }
    }

    /// How many of that kind have died since the start.
    pub(crate) fn deaths(&self, kind: ActorKind) -> u64 {
        self.record().deaths.get(&kind).copied().unwrap_or(0)
    }

    /// A call that an actor had under way panicked; the actor lives.
    pub(crate) fn call_panicked(&self) {
        self.record().calls_panicked += 1;
    }

    /// The kinds that die too often now.
    pub(crate) fn exhausted(&self, now: Timestamp) -> Vec<&'static str> {
        let record = self.record();
        let exhausted = record
            .recent
            .iter()
            .filter(|(_, recent)| !within_budget(recent, now));
        exhausted.map(|(kind, _)| kind.name()).collect()
    }

    /// An abort was refused, or not answered in time.
    pub(crate) fn abort_failed(&self) {
        self.record().aborts_failed += 1;
    }

    /// A message to a parent was accepted by the server.
    pub(crate) fn notice_delivered(&self) {
        self.record().notices_delivered += 1;
    }

    /// A message to a parent was given up.
    pub(crate) fn notice_dropped(&self) {
        self.record().notices_dropped += 1;
    }

    /// A run has ended in that state.
    pub(crate) fn run_ended(&self, status: TaskStatus) {
        *self.record().ended.entry(status.as_str()).or_default() += 1;
    }

    /// Everything counted since the start.
    pub(crate) fn counters(&self) -> Counters {
        let record = self.record();
        let deaths = ActorKind::ALL.into_iter().map(|kind| {
            let deaths = record.deaths.get(&kind).copied().unwrap_or(0);
            (kind.name(), deaths)
        });
        Counters {
            actor_deaths: deaths.collect(),
            calls_panicked: record.calls_panicked,
            aborts_failed: record.aborts_failed,
            notices_delivered: record.notices_delivered,
            notices_dropped: record.notices_dropped,
            runs_ended: record.ended.clone(),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn within_budget(recent: &VecDeque<Timestamp>, now: Timestamp) -> bool {
    let recent = recent.iter().filter(|at| now.since(**at) < RESTART_WINDOW);
    recent.count() <= RESTART_BUDGET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_death_within_a_minute_waits_and_the_minute_after_is_forgiven() {
        let health = Health::default();
        for second in 0..5 {
            let at = Timestamp::from_millis(second * 1000);
            assert_eq!(health.died(ActorKind::Queue, at), Duration::ZERO);
        }
        let sixth = Timestamp::from_millis(5000);
        assert_eq!(health.died(ActorKind::Queue, sixth), RESTART_DELAY);
        assert_eq!(health.exhausted(sixth), ["queue"]);
        assert_eq!(health.died(ActorKind::Poller, sixth), Duration::ZERO);
        let later = Timestamp::from_millis(70_000);
        assert!(health.exhausted(later).is_empty());
        assert_eq!(health.died(ActorKind::Queue, later), Duration::ZERO);
        assert_eq!(health.counters().actor_deaths["queue"], 7);
    }
}

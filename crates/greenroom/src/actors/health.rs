//! Panics of actors, counted by kind, and the delay before the next restart. Written by the supervisors; read for readiness
//! and metrics. Kept over restarts of every actor.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::domain::task::TaskStatus;
use crate::domain::time::Timestamp;
use crate::handle::Counters;
use crate::lock::lock;

/// The number of panics of one kind within [`RESTART_WINDOW`] after which the actor is restarted at once.
const RESTART_BUDGET: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// The delay before a restart once the budget is used up.
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
    /// The panics of each kind. Written with each reported panic; read by recovery and by the counters.
    deaths: BTreeMap<ActorKind, u64>,
    // The newest panics of each kind: at most one more than the budget.
    recent: BTreeMap<ActorKind, VecDeque<Timestamp>>,
    calls_panicked: u64,
    aborts_failed: u64,
    notices_delivered: u64,
    notices_dropped: u64,
    ended: BTreeMap<&'static str, u64>,
}

/// The counters of panics, calls and messages. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Record>>);

impl Health {
    /// Records a panic of an actor. Returns the delay before its restart: zero within the budget.
    pub(crate) fn died(&self, kind: ActorKind, now: Timestamp) -> Duration {
        let mut record = self.record();
        *record.deaths.entry(kind).or_default() += 1;
        let recent = record.recent.entry(kind).or_default();
        recent.push_back(now);
        if recent.len() > RESTART_BUDGET + 1 {
            recent.pop_front();
        }
        if within_budget(recent, now) {
            Duration::ZERO
        } else {
            RESTART_DELAY
        }
    }

    /// Returns the number of panics of that kind since the start.
    pub(crate) fn deaths(&self, kind: ActorKind) -> u64 {
        self.record().deaths.get(&kind).copied().unwrap_or(0)
    }

    /// Records the panic of a call that an actor had spawned; the actor goes on.
    pub(crate) fn call_panicked(&self) {
        self.record().calls_panicked += 1;
    }

    /// Returns the names of the kinds whose restart budget is used up.
    pub(crate) fn exhausted(&self, now: Timestamp) -> Vec<&'static str> {
        let record = self.record();
        let exhausted = record
            .recent
            .iter()
            .filter(|(_, recent)| !within_budget(recent, now));
        exhausted.map(|(kind, _)| kind.name()).collect()
    }

    /// Records an abort that was refused, or not answered in time.
    pub(crate) fn abort_failed(&self) {
        self.record().aborts_failed += 1;
    }

    /// Records a message to a parent that the server accepted.
    pub(crate) fn notice_delivered(&self) {
        self.record().notices_delivered += 1;
    }

    /// Records a message to a parent that was dropped.
    pub(crate) fn notice_dropped(&self) {
        self.record().notices_dropped += 1;
    }

    /// Records the end of a run in that state.
    pub(crate) fn run_ended(&self, status: TaskStatus) {
        *self.record().ended.entry(status.as_str()).or_default() += 1;
    }

    /// Returns all counters since the start.
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
        lock(&self.0)
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
    fn sixth_panic_within_a_minute_delays_the_restart() {
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

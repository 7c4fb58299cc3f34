//! Counts the requests to the provider: in flight, by model, by session, and the newest prompts. Written by the server at
//! each request, read by tests and at `GET /rehearsal/stats`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The number of models and of sessions kept; the oldest are removed first.
const KEPT: usize = 1_000;
/// The number of prompts kept, and of each the number of characters of its beginning and of its end, where a host adds
/// text.
const TEXTS: usize = 200;
const TEXT_CHARS: usize = 500;
const TAIL_CHARS: usize = 3_000;
/// The number of faults counted; the oldest are removed first, and would then be counted from zero.
const FAULTS: usize = 10_000;

/// A number of concurrent requests: now, and the maximum since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The number now.
    pub now: usize,
    /// The high-water mark.
    pub max: usize,
}

/// Requests of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReport {
    /// Requests in flight: from the request to the last word of its answer.
    pub in_flight: Level,
    /// All requests.
    pub requests: u64,
}

/// Requests of one session, by its `x-session-id` header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// All requests.
    pub requests: u64,
    /// The requests that were refused, cut or left hanging.
    pub faults: u64,
}

/// The counters, as `GET /rehearsal/stats` returns them. Requests for titles are counted only in `titles`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsReport {
    /// Requests in flight of all models together.
    pub in_flight: Level,
    /// Requests by model.
    pub models: IndexMap<String, ModelReport>,
    /// Requests by session.
    pub sessions: IndexMap<String, SessionReport>,
    /// Requests for titles.
    pub titles: u64,
    /// The newest user messages, oldest first, one entry per request.
    pub last_user_texts: VecDeque<String>,
}

/// The counters, shared between the requests.
#[derive(Debug, Clone, Default)]
pub struct Stats(Arc<Mutex<Counters>>);

#[derive(Debug, Default)]
struct Counters {
    report: StatsReport,
    faults: IndexMap<(String, u64), u32>,
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    stats: Stats,
    model: String,
}

/// Returns the beginning and the end of a text.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    let Some(left_out) = length.checked_sub(TEXT_CHARS + TAIL_CHARS) else {
        return text.to_owned();
    };
    let head: String = text.chars().take(TEXT_CHARS).collect();
    let tail: String = text.chars().skip(TEXT_CHARS + left_out).collect();
    format!("{head}…{tail}")
}

impl Stats {
    /// Counts a request that begins.
    pub fn begin(&self, model: &str, session: &str, text: &str) -> InFlight {
        let mut counters = self.lock();
        let report = &mut counters.report;
        report.in_flight.rise();
        evict_oldest(&mut report.models, KEPT, model, |model| {
            model.in_flight.now == 0
        });
        let of_model = report.models.entry(model.to_owned()).or_default();
        of_model.in_flight.rise();
        of_model.requests += 1;
        evict_oldest(&mut report.sessions, KEPT, session, |_| true);
        report
            .sessions
            .entry(session.to_owned())
            .or_default()
            .requests += 1;
        if report.last_user_texts.len() >= TEXTS {
            report.last_user_texts.pop_front();
        }
        report.last_user_texts.push_back(shortened(text));
        InFlight {
            stats: self.clone(),
            model: model.to_owned(),
        }
    }

    /// Counts a request for a title.
    pub fn title(&self) {
        self.lock().report.titles += 1;
    }

    /// Returns whether that fault of that session is not used up, and uses it once.
    pub fn use_fault(&self, session: &str, fault: u64, times: Option<u32>) -> bool {
        let mut counters = self.lock();
        let key = (session.to_owned(), fault);
        evict_oldest(&mut counters.faults, FAULTS, &key, |_| true);
        let used = counters.faults.entry(key).or_default();
        if times.is_some_and(|times| *used >= times) {
            return false;
        }
        *used = used.saturating_add(1);
        if let Some(session) = counters.report.sessions.get_mut(session) {
            session.faults += 1;
        }
        true
    }

    /// Returns the counters.
    pub fn report(&self) -> StatsReport {
        self.lock().report.clone()
    }

    /// Clears the counters; requests in flight stay counted as in flight.
    pub fn reset(&self) {
        let mut counters = self.lock();
        counters.faults.clear();
        let report = &mut counters.report;
        report.in_flight.max = report.in_flight.now;
        report.models.retain(|_, model| model.in_flight.now > 0);
        for model in report.models.values_mut() {
            model.in_flight.max = model.in_flight.now;
            model.requests = 0;
        }
        report.sessions.clear();
        report.titles = 0;
        report.last_user_texts.clear();
    }

    /// Locks the counters. They are consistent after every statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut counters = self.stats.lock();
        counters.report.in_flight.fall();
        if let Some(model) = counters.report.models.get_mut(&self.model) {
            model.in_flight.fall();
        }
    }
}

impl Level {
    fn rise(&mut self) {
        self.now += 1;
        self.max = self.max.max(self.now);
    }

    fn fall(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}

/// Removes the oldest removable entry if a new key would exceed `capacity`.
fn evict_oldest<K, Q, V>(
    map: &mut IndexMap<K, V>,
    capacity: usize,
    key: &Q,
    is_removable: impl Fn(&V) -> bool,
) where
    K: std::hash::Hash + Eq,
    Q: std::hash::Hash + indexmap::Equivalent<K> + ?Sized,
{
    if map.len() >= capacity
        && !map.contains_key(key)
        && let Some(oldest) = map.values().position(is_removable)
    {
        map.shift_remove_index(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_stays_when_the_level_falls() {
        let stats = Stats::default();
        let first = stats.begin("small", "ses_1", "a");
        let second = stats.begin("small", "ses_2", "b");
        drop(first);
        let third = stats.begin("large", "ses_1", "c");
        let report = stats.report();
        assert_eq!(report.models["small"].in_flight, Level { now: 1, max: 2 });
        assert_eq!(report.in_flight, Level { now: 2, max: 2 });
        assert_eq!(report.sessions["ses_1"].requests, 2);
        drop((second, third));
        assert_eq!(stats.report().in_flight, Level { now: 0, max: 2 });
    }

    #[test]
    fn counted_fault_is_used_up_per_session() {
        let stats = Stats::default();
        let used = |session| stats.use_fault(session, 7, Some(2));
        assert_eq!(
            [used("a"), used("a"), used("a"), used("b")],
            [true, true, false, true]
        );
        assert!((0..5).all(|_| stats.use_fault("a", 8, None)));
    }

    #[test]
    fn counters_are_bounded() {
        let stats = Stats::default();
        for nth in 0..(FAULTS + 10) {
            stats.use_fault(&format!("ses_{nth}"), 1, Some(1));
        }
        assert_eq!(stats.lock().faults.len(), FAULTS);
        for nth in 0..(KEPT + 10) {
            drop(stats.begin(&format!("m{nth}"), &format!("ses_{nth}"), "text"));
        }
        let report = stats.report();
        assert_eq!((report.models.len(), report.sessions.len()), (KEPT, KEPT));
        assert_eq!(report.last_user_texts.len(), TEXTS);
        assert!(report.models.contains_key(&format!("m{}", KEPT + 9)));
    }

    #[test]
    fn reset_keeps_requests_in_flight() {
        let stats = Stats::default();
        let held = stats.begin("small", "ses_1", "a");
        drop(stats.begin("small", "ses_1", "b"));
        stats.reset();
        assert_eq!(
            stats.report().models["small"].in_flight,
            Level { now: 1, max: 1 }
        );
        drop(held);
        assert_eq!(stats.report().in_flight.now, 0);
    }
}

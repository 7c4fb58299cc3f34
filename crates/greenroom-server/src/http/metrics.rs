//! `GET /metrics`: OpenMetrics text, generated on request from the state of the actor system and the counted requests.
//! The names are part of the contract; see `docs/api.md`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use actix_web::dev::ServiceResponse;
use actix_web::web::Data;
use greenroom::domain::task::TaskStatus;
use greenroom::ports::journal::Journal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::app::Api;
use super::error::ApiError;
use super::operation::{MediaResponse, OpenMetrics};

/// Maximum number of series per name with a key label. Keys come from callers; further keys are summed up under
/// [`OTHERS`].
const MAX_KEYS: usize = 200;
/// The label of all further keys.
const OTHERS: &str = "(others)";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRequest {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByActor {
    actor: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStateAndKey {
    state: &'static str,
    key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKey {
    key: String,
}

/// Counts responses by method, route and status. Only routes of the API are counted, so the number of series is bounded.
#[derive(Debug, Clone, Default)]
pub struct Requests(Family<ByRequest, Counter>);

impl Requests {
    /// Counts one response.
    pub fn count<B>(&self, response: &ServiceResponse<B>) {
        let request = response.request();
        let method = match request.method().as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => known,
            _ => "other",
        };
        let labels = ByRequest {
            method: method.to_owned(),
            route: request.match_pattern().unwrap_or_else(|| "none".to_owned()),
            status: response.status().as_u16(),
        };
        self.0.get_or_create(&labels).inc();
    }
}

/// Returns the current metrics.
pub async fn show(api: Data<Api>) -> Result<MediaResponse<OpenMetrics>, ApiError> {
    let mut registry = Registry::with_prefix("greenroom");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The service", build);
    let requests = api.requests.0.clone();
    registry.register(
        "http_requests",
        "Requests answered, by method, route and status",
        requests,
    );
    register_tasks(&mut registry, &api).await;
    register_slots(&mut registry, &api).await;
    register_counters(&mut registry, &api);
    register_journal(&mut registry, &api);

    let readiness = api.greenroom.readiness().await;
    let gauge = |value: usize| {
        let gauge = Gauge::<i64>::default();
        gauge.set(count(value));
        gauge
    };
    registry.register(
        "ready",
        "1 if tasks are started and watched",
        gauge(usize::from(readiness.ready)),
    );
    registry.register(
        "bridges",
        "Bridges connected",
        gauge(api.bridge.bridges.len()),
    );

    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| {
        ApiError::new(
            actix_web::http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("the metrics have no text: {error}"),
            "this is a bug; please report it",
        )
    })?;
    Ok(MediaResponse::new(text))
}

async fn register_tasks(registry: &mut Registry, api: &Api) {
    let counts = api.greenroom.task_counts().await;
    let mut by_state: BTreeMap<TaskStatus, BTreeMap<String, usize>> = BTreeMap::new();
    for ((state, key), tasks) in counts.tasks {
        add(by_state.entry(state).or_default(), key.as_str(), tasks);
    }
    let tasks = Family::<ByStateAndKey, Gauge>::default();
    for (state, keys) in by_state {
        for (key, number) in keys {
            let labels = ByStateAndKey {
                state: state.as_str(),
                key,
            };
            tasks.get_or_create(&labels).set(count(number));
        }
    }
    registry.register("tasks", "Tasks in memory, by state and key", tasks);
    for (name, help, value) in [
        (
            "asks",
            "Requests of children that wait for an answer",
            counts.asks,
        ),
        (
            "parents_pending",
            "Parents that are owed a message",
            counts.parents_pending,
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(count(value));
        registry.register(name, help, gauge);
    }
}

/// Registers the metrics of the journal, if it is on disk.
fn register_journal(registry: &mut Registry, api: &Api) {
    let Some(journal) = &api.journal else {
        return;
    };
    let (last_lsn, status) = (journal.last_lsn(), journal.status().borrow().clone());
    let lag = last_lsn.0.saturating_sub(status.durable.0);
    for (name, help, value) in [
        (
            "journal_lag",
            "Changes that wait to be written to the journal",
            lag,
        ),
        (
            "journal_failing",
            "1 if the journal cannot be written",
            u64::from(status.failing.is_some()),
        ),
        (
            "journal_bytes",
            "The size of the journal's files",
            journal.file_bytes(),
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

/// Registers the counters since the start.
fn register_counters(registry: &mut Registry, api: &Api) {
    let counters = api.greenroom.counters();
    let ended = Family::<ByState, Counter>::default();
    for state in TaskStatus::ALL
        .into_iter()
        .filter(|state| state.is_terminal())
    {
        let state = state.as_str();
        let runs = counters.runs_ended.get(state).copied().unwrap_or(0);
        ended.get_or_create(&ByState { state }).inc_by(runs);
    }
    registry.register("runs_ended", "Runs that have ended, by state", ended);
    let restarts = Family::<ByActor, Counter>::default();
    for (actor, number) in counters.actor_deaths {
        restarts.get_or_create(&ByActor { actor }).inc_by(number);
    }
    registry.register(
        "actor_restarts",
        "Actors of the service that panicked and were rebuilt, by kind",
        restarts,
    );
    for (name, help, value) in [
        (
            "calls_panicked",
            "Calls beside an actor that panicked",
            counters.calls_panicked,
        ),
        (
            "aborts_failed",
            "Aborts that were refused or not answered in time",
            counters.aborts_failed,
        ),
        (
            "notices_delivered",
            "Messages to parents that the agent server has accepted",
            counters.notices_delivered,
        ),
        (
            "notices_dropped",
            "Messages to parents that were given up",
            counters.notices_dropped,
        ),
        (
            "log_lines_dropped",
            "Lines of the log dropped because stderr was not read",
            crate::logging::dropped_lines(),
        ),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
}

async fn register_slots(registry: &mut Registry, api: &Api) {
    let limits = api.greenroom.limits().await;
    let mut in_use = BTreeMap::new();
    let mut waiting = BTreeMap::new();
    let mut limits_by_key: BTreeMap<String, usize> = BTreeMap::new();
    let mut oldest: BTreeMap<String, u64> = BTreeMap::new();
    for report in &limits.keys {
        let key = report.key.as_str();
        add(&mut in_use, key, report.in_use);
        add(&mut waiting, key, report.waiting);
        if limits_by_key.len() < MAX_KEYS {
            limits_by_key.insert(key.to_owned(), report.limit as usize);
        }
        let name = bounded_key(&oldest, key);
        let longest = oldest.entry(name).or_default();
        *longest = (*longest).max(report.oldest_wait_ms);
    }
    for (name, help, values) in [
        ("slots_in_use", "Slots held, by key", in_use),
        (
            "slots_limit",
            "The limit a key counts against; 0 is unlimited",
            limits_by_key,
        ),
        ("tasks_waiting", "Tasks waiting for a slot, by key", waiting),
    ] {
        let family = Family::<ByKey, Gauge>::default();
        for (key, value) in values {
            family.get_or_create(&ByKey { key }).set(count(value));
        }
        registry.register(name, help, family);
    }
    let waits = Family::<ByKey, Gauge<f64, AtomicU64>>::default();
    for (key, longest) in oldest {
        // Milliseconds as fractional seconds.
        #[expect(clippy::cast_precision_loss, reason = "seconds for people and graphs")]
        let seconds = longest as f64 / 1000.0;
        waits.get_or_create(&ByKey { key }).set(seconds);
    }
    registry.register(
        "oldest_wait_seconds",
        "How long the oldest waiting task of a key has waited",
        waits,
    );
    for (name, help, value) in [
        (
            "slots_in_use_all",
            "Slots held by all keys together",
            limits.in_use,
        ),
        (
            "slots_limit_all",
            "The cap of all keys together; 0 is unlimited",
            limits.max as usize,
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(count(value));
        registry.register(name, help, gauge);
    }
}

fn bounded_key<T>(values: &BTreeMap<String, T>, key: &str) -> String {
    let fits = values.len() < MAX_KEYS || values.contains_key(key);
    if fits { key } else { OTHERS }.to_owned()
}

fn add(values: &mut BTreeMap<String, usize>, key: &str, number: usize) {
    let name = bounded_key(values, key);
    *values.entry(name).or_default() += number;
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

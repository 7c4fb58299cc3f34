//! A model of opencode behind the `AgentServer` port. Its sessions become busy and idle as real ones do;
//! events may be lost, late, doubled and out of order; calls may fail in every way. Greenroom calls it
//! through [`port`]; the driver acts on it as users do. Everything that happens later is a timed event, which
//! [`Model::pump`] processes.
//!
//! | module | owns |
//! |---|---|
//! | [`state`] | the sessions, the timed events, whether the server is reachable |
//! | [`session`] | one session: its messages as the server lists them |
//! | [`turn`], [`turn_steps`] | the steps of a turn |
//! | [`actions`] | the actions of users and operators: prompt, abort, answer, delete, restart |
//! | [`ordinary`] | the ordinary life of opencode: ended instances and processes, lost agents and models, reverts, forks |
//! | [`port`] | the calls and their outcomes |
//! | [`race_injection`] | actions that race with the answer of a call |

mod actions;
mod ordinary;
mod port;
mod race_injection;
mod session;
mod state;
mod turn;
mod turn_steps;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::domain::instance::Instance;
use greenroom::failpoint::FaultInjector;
use greenroom::{EventLink, Greenroom};
use tokio::sync::{Notify, mpsc};

use super::log::{Log, LogEvent};
use super::rng::DecisionRng;
use super::scenario::{Action, Opencode};
use crate::lock;

use state::{ServerState, TimedEvent};
pub use turn::TurnKind;

/// The directory of sessions without a directory of their own.
pub const BASE: &str = "/base";
/// The process that runs the sessions of a scenario.
pub(crate) const PROCESS: u32 = 1;

/// The maximum number of crashes in one scenario.
const CRASHES: u32 = 4;

/// The model. A cheap clone.
#[derive(Debug, Clone)]
pub struct Model {
    clock: Clock,
    state: Arc<Mutex<ServerState>>,
    due: Arc<Notify>,
    log: Log,
    event_sink: Arc<Mutex<Option<Greenroom>>>,
}

impl FaultInjector for Model {
    fn should_fail(&self, place: &'static str) -> bool {
        self.decides_panic(place)
    }
}

impl Model {
    /// Returns a server without sessions.
    pub fn new(opencode: &Opencode, clock: Clock, log: Log) -> Self {
        let due = Arc::new(Notify::new());
        let rng = DecisionRng::new(opencode.seed, opencode.decisions.clone());
        let state = ServerState::new(
            opencode.odds.clone(),
            rng,
            clock,
            log.clone(),
            Arc::clone(&due),
        );
        Self {
            clock,
            state: Arc::new(Mutex::new(state)),
            due,
            log,
            event_sink: Arc::default(),
        }
    }

    /// Processes timed events when they are due and delivers server events to the system. Never returns.
    pub async fn pump(self) {
        loop {
            let called = self.due.notified();
            let now = self.clock.now().as_millis();
            let (next, at) = self.state().pop_due(now);
            match (next, at) {
                (Some(due), _) => self.handle(due).await,
                (None, Some(at)) => {
                    let wait = Duration::from_millis(u64::try_from(at - now).unwrap_or(0));
                    // Returns earlier if an earlier event is scheduled.
                    let _ = tokio::time::timeout(wait, called).await;
                }
                (None, None) => called.await,
            }
        }
    }

    async fn handle(&self, due: TimedEvent) {
        let greenroom = lock(&self.event_sink).clone();
        match due {
            TimedEvent::Event(event) => {
                let Some(greenroom) = greenroom else { return };
                self.log.push(LogEvent::EventDelivered {
                    session: event.session.clone(),
                    kind: event.kind,
                    sign: event.sign,
                });
                greenroom.ingest_event_json(&event.value).await;
            }
            TimedEvent::TurnStep { session, turn } => self.state().run_step(&session, turn),
            TimedEvent::Dispose => self.state().dispose(),
            TimedEvent::CutOff { session, turn } => self.state().cut_off_turn(&session, turn),
            TimedEvent::ProcessEnds { ms } => self.state().process_ends(ms),
            TimedEvent::Store { prompt, epoch } => self.state().store_late(*prompt, epoch),
            TimedEvent::InstanceEnded { bridge_lost } => {
                if let Some(greenroom) = greenroom
                    && (bridge_lost || self.link_is_up())
                {
                    self.log.push(LogEvent::InstanceEnded);
                    greenroom.instance_ended(Instance {
                        process: Some(PROCESS),
                        ..Instance::in_directory(Some(BASE))
                    });
                }
            }
            TimedEvent::SecondProcessEnded => {
                if let Some(greenroom) = greenroom {
                    self.log.push(LogEvent::SecondProcessEnded);
                    greenroom.instance_ended(Instance {
                        process: Some(PROCESS + 1),
                        ..Instance::in_directory(Some(BASE))
                    });
                }
            }
            TimedEvent::ServerOnline => self.state().bring_online(),
            TimedEvent::Link(up) => {
                if self.state().set_link(up) {
                    self.log.push(LogEvent::LinkChanged(up));
                    if let Some(greenroom) = greenroom {
                        greenroom.event_link(if up {
                            EventLink::Connected
                        } else {
                            EventLink::Broken
                        });
                    }
                }
            }
        }
    }

    /// Decides whether an actor panics at this failpoint now.
    fn decides_panic(&self, place: &str) -> bool {
        // After a shutdown only cleanup is left.
        if self
            .log
            .read(|observed| observed.shutdown_completed.is_some())
        {
            return false;
        }
        let mut state = self.state();
        if !place.starts_with(state.odds.failpoint_prefix.as_str()) {
            return false;
        }
        let odds = state.odds.failpoint;
        let nth = state.count(place);
        let name = format!("failpoint {place} {nth}");
        let struck = state.rng.decide(name, 0, |rng| {
            i64::from(rng.below(100_000) < u64::from(odds))
        });
        drop(state);
        if struck > 0 {
            self.log.push(LogEvent::FailpointHit(place.to_owned()));
        }
        struck > 0
    }

    /// Sets the system that receives events; `None` while no process runs.
    pub fn set_event_sink(&self, greenroom: Option<Greenroom>) {
        *lock(&self.event_sink) = greenroom;
    }

    /// Returns true if the event stream is connected.
    pub fn link_is_up(&self) -> bool {
        self.state().link_up
    }

    /// Decides whether the process crashes at this place now. It never does after a shutdown was requested,
    /// nor more than [`CRASHES`] times.
    pub fn decides_crash(&self, place: &str) -> bool {
        if self
            .log
            .read(|observed| observed.shutdown_requested.is_some())
        {
            return false;
        }
        let mut state = self.state();
        let odds = state.odds.crash;
        let nth = state.count(&format!("crash {place}"));
        let ended = state.calls.get("crashes").copied().unwrap_or(0);
        let name = format!("crash {place} {nth}");
        let ends = state.rng.decide(name, 0, |rng| {
            i64::from(ended < CRASHES && rng.below(10_000) < u64::from(odds))
        }) > 0;
        if ends {
            state.count("crashes");
        }
        ends
    }

    /// Returns how long no process runs after that one, in milliseconds.
    pub fn downtime_ms(&self, process: u64) -> u64 {
        let down = self
            .state()
            .rng
            .decide(format!("down {process}"), 200, |rng| {
                *rng.one_of(&[1, 200, 200, 3000, 60_000, 900_000])
            });
        u64::try_from(down).unwrap_or(0)
    }

    /// Returns the latency of a commit.
    pub fn commit_latency(&self, commit: u64) -> Duration {
        let takes = self
            .state()
            .rng
            .decide(format!("commit {commit} takes"), 1, |rng| {
                *rng.one_of(&[0, 1, 1, 2, 5, 5, 20, 20, 700])
            });
        Duration::from_millis(u64::try_from(takes).unwrap_or(0))
    }

    /// Returns the receiver of the actions that race with the answers of calls.
    pub fn race_actions(&self) -> mpsc::UnboundedReceiver<Action> {
        // Bounded by the number of calls: at most one action each.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().race_actions = Some(sender);
        receiver
    }

    /// Returns the decisions that differ from their defaults.
    pub fn decisions(&self) -> std::collections::BTreeMap<String, i64> {
        self.state().rng.decisions().clone()
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        lock(&self.state)
    }
}

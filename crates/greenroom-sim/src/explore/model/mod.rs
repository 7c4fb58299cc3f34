//! A model of opencode behind the `AgentServer` port: sessions that are busy and idle as the real ones are, with events that
//! may be lost, late, doubled and out of order, and calls that may go wrong in every way a call can. Greenroom calls it
//! through [`port`]; the driver acts on it as users do; everything that is due later waits in one agenda, which [`Model::pump`]
//! works through.
//!
//! | room | owns |
//! |---|---|
//! | [`state`] | the sessions, the agenda, the way to the server |
//! | [`session`] | one session: its messages as the server lists them |
//! | [`turn`], [`turn_steps`] | what a session does with a prompt, beat by beat |
//! | [`actions`] | what users and operators do: speak, stop, answer, delete, restart |
//! | [`port`], [`call_outcome`] | the calls, and how they go wrong |
//! | [`race_injection`] | what is done at the very instant of an answer |

mod actions;
mod port;
mod race_injection;
mod session;
mod state;
mod turn;
mod turn_steps;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::sabotage::Saboteur;
use greenroom::{EventLink, Greenroom};
use tokio::sync::{Notify, mpsc};

use super::log::{Log, LogEvent};
use super::rng::DecisionRng;
use super::scenario::{Action, Opencode};
use crate::lock;

use state::{ServerState, TimedEvent};
pub use turn::TurnKind;

/// Where every session works that nobody put elsewhere.
pub const BASE: &str = "/base";

/// How often a process ends in one scenario.
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

impl Saboteur for Model {
    fn strikes(&self, place: &'static str) -> bool {
        self.decides_panic(place)
    }
}

impl Model {
    /// A server without sessions.
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

    /// Does what is due, when it is due, and hands events to the system. Never ends by itself.
    pub async fn pump(self) {
        loop {
            let called = self.due.notified();
            let now = self.clock.now().as_millis();
            let (next, at) = self.state().pop_due(now);
            match (next, at) {
                (Some(due), _) => self.handle(due).await,
                (None, Some(at)) => {
                    let wait = Duration::from_millis(u64::try_from(at - now).unwrap_or(0));
                    // Called earlier if something is put before it.
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
                greenroom.event(&event.value).await;
            }
            TimedEvent::TurnStep { session, turn } => self.state().run_step(&session, turn),
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

    /// True if an actor of ours is to panic at this place now.
    fn decides_panic(&self, place: &str) -> bool {
        // What is left after a shutdown only cleans up.
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

    /// Who hears events from now on; nobody while no process runs.
    pub fn set_event_sink(&self, greenroom: Option<Greenroom>) {
        *lock(&self.event_sink) = greenroom;
    }

    /// True if events flow.
    pub fn link_is_up(&self) -> bool {
        self.state().link_up
    }

    /// True if the process ends at this place now. Not once it is to be shut down, nor too often.
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

    /// For how many milliseconds no process runs after that one.
    pub fn downtime_ms(&self, process: u64) -> u64 {
        let down = self
            .state()
            .rng
            .decide(format!("down {process}"), 200, |rng| {
                *rng.one_of(&[1, 200, 200, 3000, 60_000, 900_000])
            });
        u64::try_from(down).unwrap_or(0)
    }

    /// How long that commit takes.
    pub fn commit_latency(&self, commit: u64) -> Duration {
        let takes = self
            .state()
            .rng
            .decide(format!("commit {commit} takes"), 1, |rng| {
                *rng.one_of(&[0, 1, 1, 2, 5, 5, 20, 20, 700])
            });
        Duration::from_millis(u64::try_from(takes).unwrap_or(0))
    }

    /// From now on what is to be done at the answers of calls comes out here.
    pub fn race_actions(&self) -> mpsc::UnboundedReceiver<Action> {
        // Bounded by the calls: at most one each.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().race_actions = Some(sender);
        receiver
    }

    /// Decisions that were not the usual ones.
    pub fn decisions(&self) -> std::collections::BTreeMap<String, i64> {
        self.state().rng.decisions().clone()
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        lock(&self.state)
    }
}

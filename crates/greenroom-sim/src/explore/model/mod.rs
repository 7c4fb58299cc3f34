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
mod call_outcome;
mod port;
mod race_injection;
mod session;
mod state;
mod turn;
mod turn_steps;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::sabotage::Saboteur;
use greenroom::{EventLink, Greenroom};
use tokio::sync::{Notify, mpsc};

use super::log::{Log, What};
use super::rng::Dice;
use super::scenario::{Deed, Opencode};

use state::{Due, World};
pub use turn::TurnKind;

/// Where every session works that nobody put elsewhere.
pub const BASE: &str = "/base";

/// How often a process ends in one scenario.
const CRASHES: u32 = 4;

/// The model. A cheap clone.
#[derive(Debug, Clone)]
pub struct Model {
    clock: Clock,
    world: Arc<Mutex<World>>,
    due: Arc<Notify>,
    log: Log,
    ear: Arc<Mutex<Option<Greenroom>>>,
}

impl Saboteur for Model {
    fn strikes(&self, place: &'static str) -> bool {
        self.sabotages(place)
    }
}

impl Model {
    /// A server without sessions.
    pub fn new(opencode: &Opencode, clock: Clock, log: Log) -> Self {
        let due = Arc::new(Notify::new());
        let dice = Dice::new(opencode.seed, opencode.decisions.clone());
        let world = World::new(
            opencode.odds.clone(),
            dice,
            clock,
            log.clone(),
            Arc::clone(&due),
        );
        Self {
            clock,
            world: Arc::new(Mutex::new(world)),
            due,
            log,
            ear: Arc::default(),
        }
    }

    /// Does what is due, when it is due, and hands events to the system. Never ends by itself.
    pub async fn pump(self) {
        loop {
            let called = self.due.notified();
            let now = self.clock.now().as_millis();
            let (next, at) = self.world().take_due(now);
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

    async fn handle(&self, due: Due) {
        let greenroom = self
            .ear
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match due {
            Due::Event(event) => {
                let Some(greenroom) = greenroom else { return };
                self.log.push(What::Event {
                    session: event.session.clone(),
                    kind: event.kind,
                    sign: event.sign,
                });
                greenroom.event(&event.value).await;
            }
            Due::Beat { session, turn } => self.world().beat(&session, turn),
            Due::Online => self.world().come_back(),
            Due::Link(up) => {
                if self.world().set_link(up) {
                    self.log.push(What::Link(up));
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
    fn sabotages(&self, place: &str) -> bool {
        // What is left after a shutdown only cleans up.
        if self.log.read(|ledger| ledger.closed.is_some()) {
            return false;
        }
        let mut world = self.world();
        if !place.starts_with(world.odds.sabotage_of.as_str()) {
            return false;
        }
        let odds = world.odds.sabotage;
        let nth = world.count(place);
        let name = format!("sabotage {place} {nth}");
        let struck = world.dice.decide(name, 0, |source| {
            i64::from(source.below(100_000) < u64::from(odds))
        });
        drop(world);
        if struck > 0 {
            self.log.push(What::Sabotaged(place.to_owned()));
        }
        struck > 0
    }

    /// Who hears events from now on; nobody while no process runs.
    pub fn heard_by(&self, greenroom: Option<Greenroom>) {
        *self.ear.lock().unwrap_or_else(PoisonError::into_inner) = greenroom;
    }

    /// True if events flow.
    pub fn link_is_up(&self) -> bool {
        self.world().link_up
    }

    /// True if the process ends at this place now. Not once it is to be shut down, nor too often.
    pub fn crashes(&self, place: &str) -> bool {
        if self.log.read(|ledger| ledger.closing.is_some()) {
            return false;
        }
        let mut world = self.world();
        let odds = world.odds.crash;
        let nth = world.count(&format!("crash {place}"));
        let ended = world.calls.get("crashes").copied().unwrap_or(0);
        let name = format!("crash {place} {nth}");
        let ends = world.dice.decide(name, 0, |source| {
            i64::from(ended < CRASHES && source.below(10_000) < u64::from(odds))
        }) > 0;
        if ends {
            world.count("crashes");
        }
        ends
    }

    /// For how many milliseconds no process runs after that one.
    pub fn stays_down(&self, process: u64) -> u64 {
        let down = self
            .world()
            .dice
            .decide(format!("down {process}"), 200, |source| {
                *source.one_of(&[1, 200, 200, 3000, 60_000, 900_000])
            });
        u64::try_from(down).unwrap_or(0)
    }

    /// How long that commit takes.
    pub fn commit_takes(&self, commit: u64) -> Duration {
        let takes = self
            .world()
            .dice
            .decide(format!("commit {commit} takes"), 1, |source| {
                *source.one_of(&[0, 1, 1, 2, 5, 5, 20, 20, 700])
            });
        Duration::from_millis(u64::try_from(takes).unwrap_or(0))
    }

    /// From now on what is to be done at the answers of calls comes out here.
    pub fn ambushes(&self) -> mpsc::UnboundedReceiver<Deed> {
        // Bounded by the calls: at most one each.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.world().ambushes = Some(sender);
        receiver
    }

    /// Decisions that were not the usual ones.
    pub fn fallen(&self) -> std::collections::BTreeMap<String, i64> {
        self.world().dice.fallen().clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Tells one scenario to the real actors, on the current system: takes its steps at their times, mends the server at the end,
//! waits until everything has come to rest, and looks at what is left.

mod steps;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenroom::Greenroom;
use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::TaskId;
use greenroom::domain::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::leak_check;
use super::log::{Log, What};
use super::model::Model;
use super::observed::Ledger;
use super::process::{Machine, Process};
use super::promises::{self, Violation};
use super::scenario::{Deed, Scenario};
use crate::crash::Power;
use crate::names::Names;
use crate::quiescence::Quiet;

/// How a scenario went.
#[derive(Debug, Clone)]
pub struct Told {
    /// The promise that was broken first, if any was.
    pub violation: Option<Violation>,
    /// Everything that happened.
    pub log: Log,
    /// The decisions that were not the usual ones.
    pub fallen: std::collections::BTreeMap<String, i64>,
    /// How much virtual time it took, in milliseconds.
    pub took: i64,
}

/// Tells a scenario.
pub async fn tell(scenario: &Scenario, quiet: &Quiet) -> Told {
    let clock = Clock::starting_at(Timestamp::from_millis(0));
    let config = scenario.config();
    let log = Log::new(clock, Ledger::new(config.clone()), promises::all(scenario));
    let model = Model::new(&scenario.opencode, clock, log.clone());
    let mut machine = Machine::new(scenario, model.clone(), log.clone(), clock);
    let hands = Hands {
        process: Arc::new(Mutex::new(machine.start())),
        model: model.clone(),
        log: log.clone(),
        names: Names::default(),
    };
    let pump = actix_rt::spawn(model.clone().pump());
    let ambushes = actix_rt::spawn(hands.clone().ambush(model.ambushes()));
    let mut driver = Driver {
        limits: scenario.config().limits,
        scenario,
        hands,
        machine,
        started: Instant::now(),
        quiet,
        closed: false,
    };
    driver.story().await;
    ambushes.abort();
    if log.violation().is_none() {
        leak_check::after_rest(&driver.hands.greenroom(), &log, quiet, driver.closed).await;
    }
    let (greenroom, alive) = {
        let process = driver.hands.process();
        (process.greenroom.clone(), process.alive.clone())
    };
    drop(driver);
    model.heard_by(None);
    if log.violation().is_none() {
        leak_check::after_shutdown(greenroom, &log, quiet, pump, &alive).await;
    }
    let fallen = model.fallen();
    Told {
        violation: log.violation(),
        log,
        fallen,
        took: clock.now().as_millis(),
    }
}

/// What steps are taken with, by the driver and at the answers of calls.
#[derive(Clone)]
struct Hands {
    process: Arc<Mutex<Process>>,
    model: Model,
    log: Log,
    names: Names,
}

impl Hands {
    /// The process that runs, or ran last.
    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greenroom(&self) -> Greenroom {
        self.process().greenroom.clone()
    }

    fn power(&self) -> Option<Power> {
        self.process().power.clone()
    }

    /// Does at the answers of calls what the model wants done there.
    async fn ambush(self, mut wanted: mpsc::UnboundedReceiver<Deed>) {
        while let Some(deed) = wanted.recv().await {
            self.take(&deed);
        }
    }
}

struct Driver<'a> {
    scenario: &'a Scenario,
    hands: Hands,
    machine: Machine,
    limits: Limits,
    started: Instant,
    quiet: &'a Quiet,
    closed: bool,
}

impl Driver<'_> {
    async fn story(&mut self) {
        for step in &self.scenario.steps {
            let at = self.started + Duration::from_millis(step.at);
            self.until(at).await;
            if self.hands.log.violation().is_some() {
                return;
            }
            self.take(&step.deed);
        }
        let healed = self.started + Duration::from_millis(self.scenario.healed_at);
        self.until(healed).await;
        self.hands.model.heal();
        self.rest().await;
    }

    /// Waits until that moment and until nothing is ready any more; a process that ends meanwhile is followed by another.
    async fn until(&mut self, moment: Instant) {
        loop {
            match self.hands.power() {
                Some(power) => {
                    tokio::select! {
                        biased;
                        () = power.lost() => {
                            self.begin_again().await;
                            continue;
                        }
                        () = sleep_until(moment) => {}
                    }
                }
                None if moment > Instant::now() => sleep_until(moment).await,
                None => {}
            }
            self.quiet.settle().await;
            let lost = |power: &Power| !power.is_on();
            if self.hands.power().as_ref().is_some_and(lost) {
                self.begin_again().await;
                continue;
            }
            return;
        }
    }

    async fn begin_again(&mut self) {
        let lost = self.hands.greenroom();
        let next = self.machine.begin_again(lost).await;
        *self.hands.process() = next;
        self.limits = self.scenario.config().limits;
    }

    /// Waits until no run is open and nothing is owed, for as long as that may take after the server was mended.
    async fn rest(&mut self) {
        let until = Instant::now() + self.patience();
        while Instant::now() < until && self.hands.log.violation().is_none() {
            sleep(Duration::from_secs(5)).await;
            self.quiet.settle().await;
            self.look_up_unpublished().await;
            if self.hands.log.read(|ledger| ledger.open().next().is_none()) {
                break;
            }
        }
        // What is owed: at most a ceiling, a backoff of a minute, and the calls on the way.
        sleep(Duration::from_secs(200)).await;
        self.quiet.settle().await;
        if self.hands.log.violation().is_none() {
            self.hands.log.judge_end();
        }
    }

    /// After a panic of ours a change may have been published to nobody: readers are told all the same.
    async fn look_up_unpublished(&mut self) {
        let open: Vec<TaskId> = self.hands.log.read(|ledger| match ledger.sabotaged {
            true => ledger.open().map(|run| run.task.clone()).collect(),
            false => Vec::new(),
        });
        for task in open {
            let (greenroom, log) = (self.hands.greenroom(), self.hands.log.clone());
            actix_rt::spawn(async move {
                if let Some(found) = greenroom.find(task.as_str()).await {
                    log.push(What::Found(Box::new(found.task)));
                }
            });
        }
        self.quiet.settle().await;
    }

    /// Every time limit that a run can wait for, for each of those that may wait for one another.
    fn patience(&self) -> Duration {
        let config = self.scenario.config();
        let lifecycle = &config.lifecycle;
        let one = lifecycle.stale_timeout
            + lifecycle.stale_min_runtime
            + lifecycle.task_ttl
            + lifecycle.retry_timeout
            + lifecycle.ask_timeout
            + lifecycle.not_taken_up.unwrap_or_default()
            + Duration::from_secs(900);
        let runs = self.hands.log.read(|ledger| ledger.open().count());
        one * u32::try_from(runs + 1).unwrap_or(u32::MAX)
    }
}

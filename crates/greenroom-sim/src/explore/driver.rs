//! Tells one scenario to the real actors, on the current system: takes its steps at their times, mends the server at the end,
//! waits until everything has come to rest, and looks at what is left.

mod steps;

use std::time::Duration;

use greenroom::Greenroom;
use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::TaskId;
use greenroom::domain::time::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use super::ledger::Ledger;
use super::leftovers;
use super::log::{Log, What};
use super::machine::{Machine, Process};
use super::model::Model;
use super::promises::{self, Violation};
use super::scenario::Scenario;
use crate::names::Names;
use crate::power::Power;
use crate::quiet::Quiet;

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
    let process = machine.start();
    let pump = actix_rt::spawn(model.clone().pump());
    let mut driver = Driver {
        limits: scenario.config().limits,
        scenario,
        greenroom: process.greenroom.clone(),
        process,
        machine,
        model: model.clone(),
        log: log.clone(),
        names: Names::default(),
        started: Instant::now(),
        quiet,
        closed: false,
    };
    driver.story().await;
    if log.violation().is_none() {
        leftovers::after_rest(&driver.greenroom, &log, quiet, driver.closed).await;
    }
    let Driver {
        greenroom, process, ..
    } = driver;
    let alive = process.alive.clone();
    drop(process);
    model.heard_by(None);
    if log.violation().is_none() {
        leftovers::after_shutdown(greenroom, &log, quiet, pump, &alive).await;
    }
    let fallen = model.fallen();
    Told {
        violation: log.violation(),
        log,
        fallen,
        took: clock.now().as_millis(),
    }
}

struct Driver<'a> {
    scenario: &'a Scenario,
    greenroom: Greenroom,
    process: Process,
    machine: Machine,
    model: Model,
    log: Log,
    names: Names,
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
            if self.log.violation().is_some() {
                return;
            }
            self.take(&step.deed);
        }
        let healed = self.started + Duration::from_millis(self.scenario.healed_at);
        self.until(healed).await;
        self.model.heal();
        self.rest().await;
    }

    /// Waits until that moment and until nothing is ready any more; a process that ends meanwhile is followed by another.
    async fn until(&mut self, moment: Instant) {
        loop {
            match self.process.power.clone() {
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
            if self.process.power.as_ref().is_some_and(lost) {
                self.begin_again().await;
                continue;
            }
            return;
        }
    }

    async fn begin_again(&mut self) {
        self.process = self.machine.begin_again(&self.process).await;
        self.greenroom = self.process.greenroom.clone();
        self.limits = self.scenario.config().limits;
    }

    /// Waits until no run is open and nothing is owed, for as long as that may take after the server was mended.
    async fn rest(&mut self) {
        let until = Instant::now() + self.patience();
        while Instant::now() < until && self.log.violation().is_none() {
            sleep(Duration::from_secs(5)).await;
            self.quiet.settle().await;
            self.look_up_unpublished().await;
            if self.log.read(|ledger| ledger.open().next().is_none()) {
                break;
            }
        }
        // What is owed: at most a ceiling, a backoff of a minute, and the calls on the way.
        sleep(Duration::from_secs(200)).await;
        self.quiet.settle().await;
        if self.log.violation().is_none() {
            self.log.judge_end();
        }
    }

    /// After a panic of ours a change may have been published to nobody: readers are told all the same.
    async fn look_up_unpublished(&mut self) {
        let open: Vec<TaskId> = self.log.read(|ledger| match ledger.sabotaged {
            true => ledger.open().map(|run| run.task.clone()).collect(),
            false => Vec::new(),
        });
        for task in open {
            let (greenroom, log) = (self.greenroom.clone(), self.log.clone());
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
        let runs = self.log.read(|ledger| ledger.open().count());
        one * u32::try_from(runs + 1).unwrap_or(u32::MAX)
    }
}

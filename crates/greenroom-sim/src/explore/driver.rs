//! Tells one scenario to the real actors, on the current system: takes its steps at their times, mends the server at the end,
//! waits until everything has come to rest, and looks at what is left.

mod steps;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::Greenroom;
use greenroom::clock::Clock;
use greenroom::config::Limits;
use greenroom::domain::ids::TaskId;
use greenroom::domain::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::leak_check;
use super::log::{Log, LogEvent};
use super::model::Model;
use super::observed::ObservedState;
use super::process::{Process, ProcessRunner};
use super::promises::{self, Violation};
use super::scenario::{Action, Scenario};
use crate::crash::CrashSwitch;
use crate::lock;
use crate::names::Names;
use crate::quiescence::Quiescence;

/// How a scenario went.
#[derive(Debug, Clone)]
pub struct ScenarioRun {
    /// The promise that was broken first, if any was.
    pub violation: Option<Violation>,
    /// Everything that happened.
    pub log: Log,
    /// The decisions that were not the usual ones.
    pub decisions: std::collections::BTreeMap<String, i64>,
    /// How much virtual time it took, in milliseconds.
    pub duration_ms: i64,
}

/// Tells a scenario.
pub async fn run_scenario(scenario: &Scenario, quiescence: &Quiescence) -> ScenarioRun {
    let clock = Clock::starting_at(Timestamp::from_millis(0));
    let config = scenario.config();
    let log = Log::new(
        clock,
        ObservedState::new(config.clone()),
        promises::all(scenario),
    );
    let model = Model::new(&scenario.opencode, clock, log.clone());
    let mut processes = ProcessRunner::new(scenario, model.clone(), log.clone(), clock);
    let executor = StepExecutor {
        process: Arc::new(Mutex::new(processes.start())),
        model: model.clone(),
        log: log.clone(),
        names: Names::default(),
    };
    let pump = actix_rt::spawn(model.clone().pump());
    let race_actions = actix_rt::spawn(executor.clone().run_race_actions(model.race_actions()));
    let mut driver = Driver {
        limits: scenario.config().limits,
        scenario,
        executor,
        processes,
        started: Instant::now(),
        quiescence,
        closed: false,
    };
    driver.run_steps().await;
    race_actions.abort();
    if log.violation().is_none() {
        leak_check::check_idle(
            &driver.executor.greenroom(),
            &log,
            quiescence,
            driver.closed,
        )
        .await;
    }
    let (greenroom, server) = {
        let process = driver.executor.process();
        (process.greenroom.clone(), process.server.clone())
    };
    drop(driver);
    model.set_event_sink(None);
    if log.violation().is_none() {
        leak_check::check_after_shutdown(greenroom, &log, quiescence, pump, &server).await;
    }
    let decisions = model.decisions();
    ScenarioRun {
        violation: log.violation(),
        log,
        decisions,
        duration_ms: clock.now().as_millis(),
    }
}

/// What steps are taken with, by the driver and at the answers of calls.
#[derive(Clone)]
struct StepExecutor {
    process: Arc<Mutex<Process>>,
    model: Model,
    log: Log,
    names: Names,
}

impl StepExecutor {
    /// The process that runs, or ran last.
    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }

    fn greenroom(&self) -> Greenroom {
        self.process().greenroom.clone()
    }

    fn crash_switch(&self) -> Option<CrashSwitch> {
        self.process().crash_switch.clone()
    }

    /// Does at the answers of calls what the model wants done there.
    async fn run_race_actions(self, mut wanted: mpsc::UnboundedReceiver<Action>) {
        while let Some(action) = wanted.recv().await {
            self.execute(&action);
        }
    }
}

struct Driver<'a> {
    scenario: &'a Scenario,
    executor: StepExecutor,
    processes: ProcessRunner,
    limits: Limits,
    started: Instant,
    quiescence: &'a Quiescence,
    closed: bool,
}

impl Driver<'_> {
    async fn run_steps(&mut self) {
        for step in &self.scenario.steps {
            let at = self.started + Duration::from_millis(step.at);
            self.advance_to(at).await;
            if self.executor.log.violation().is_some() {
                return;
            }
            self.execute(&step.action);
        }
        let healed = self.started + Duration::from_millis(self.scenario.healed_at);
        self.advance_to(healed).await;
        self.executor.model.heal();
        self.drain().await;
    }

    /// Waits until that moment and until nothing is ready any more; a process that ends meanwhile is followed by another.
    async fn advance_to(&mut self, moment: Instant) {
        loop {
            match self.executor.crash_switch() {
                Some(crash_switch) => {
                    tokio::select! {
                        biased;
                        () = crash_switch.crashed() => {
                            self.restart_process().await;
                            continue;
                        }
                        () = sleep_until(moment) => {}
                    }
                }
                None if moment > Instant::now() => sleep_until(moment).await,
                None => {}
            }
            self.quiescence.settle().await;
            let crashed = |crash_switch: &CrashSwitch| !crash_switch.is_alive();
            if self.executor.crash_switch().as_ref().is_some_and(crashed) {
                self.restart_process().await;
                continue;
            }
            return;
        }
    }

    async fn restart_process(&mut self) {
        let crashed = self.executor.greenroom();
        let next = self.processes.restart(crashed).await;
        *self.executor.process() = next;
        self.limits = self.scenario.config().limits;
    }

    /// Waits until no run is open and nothing is owed, for as long as that may take after the server was mended.
    async fn drain(&mut self) {
        let advance_to = Instant::now() + self.drain_timeout();
        while Instant::now() < advance_to && self.executor.log.violation().is_none() {
            sleep(Duration::from_secs(5)).await;
            self.quiescence.settle().await;
            self.look_up_unpublished().await;
            if self
                .executor
                .log
                .read(|observed| observed.open().next().is_none())
            {
                break;
            }
        }
        // What is owed: at most a ceiling, a backoff of a minute, and the calls on the way.
        sleep(Duration::from_secs(200)).await;
        self.quiescence.settle().await;
        if self.executor.log.violation().is_none() {
            self.executor.log.check_end();
        }
    }

    /// After a panic of ours a change may have been published to nobody: readers are told all the same.
    async fn look_up_unpublished(&mut self) {
        let open: Vec<TaskId> = self
            .executor
            .log
            .read(|observed| match observed.actor_panicked {
                true => observed.open().map(|run| run.task.clone()).collect(),
                false => Vec::new(),
            });
        for task in open {
            let (greenroom, log) = (self.executor.greenroom(), self.executor.log.clone());
            actix_rt::spawn(async move {
                if let Some(found) = greenroom.find(task.as_str()).await {
                    log.push(LogEvent::TaskFound(Box::new(found.task)));
                }
            });
        }
        self.quiescence.settle().await;
    }

    /// Every time limit that a run can wait for, for each of those that may wait for one another.
    fn drain_timeout(&self) -> Duration {
        let config = self.scenario.config();
        let lifecycle = &config.lifecycle;
        let one = lifecycle.stale_timeout
            + lifecycle.stale_min_runtime
            + lifecycle.task_ttl
            + lifecycle.retry_timeout
            + lifecycle.ask_timeout
            + lifecycle.not_taken_up.unwrap_or_default()
            + Duration::from_secs(900);
        let runs = self.executor.log.read(|observed| observed.open().count());
        one * u32::try_from(runs + 1).unwrap_or(u32::MAX)
    }
}

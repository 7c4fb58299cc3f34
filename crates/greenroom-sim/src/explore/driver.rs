//! Runs one scenario against the real actors on the current system: executes the steps at their times, heals
//! the server at the end, waits until the system is idle, and checks for leaks.

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

/// The result of a run.
#[derive(Debug, Clone)]
pub struct ScenarioRun {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The log of the run.
    pub log: Log,
    /// The decisions that differ from their defaults.
    pub decisions: std::collections::BTreeMap<String, i64>,
    /// The virtual duration, in milliseconds.
    pub duration_ms: i64,
}

/// Runs a scenario.
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

/// Executes steps, for the driver and for injected races.
#[derive(Clone)]
struct StepExecutor {
    process: Arc<Mutex<Process>>,
    model: Model,
    log: Log,
    names: Names,
}

impl StepExecutor {
    /// The present process, or the last one after a crash.
    fn process(&self) -> MutexGuard<'_, Process> {
        lock(&self.process)
    }

    fn greenroom(&self) -> Greenroom {
        self.process().greenroom.clone()
    }

    fn crash_switch(&self) -> Option<CrashSwitch> {
        self.process().crash_switch.clone()
    }

    /// Executes the actions that the model injects while calls are answered.
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
            self.read_deliveries().await;
            self.execute(&step.action);
        }
        let healed = self.started + Duration::from_millis(self.scenario.healed_at);
        self.advance_to(healed).await;
        self.executor.model.heal();
        self.drain().await;
    }

    /// Advances to an instant and waits until the system is idle. A process that crashes meanwhile is
    /// replaced.
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

    /// Waits until no run is open and no notification is pending, for at most the drain timeout.
    async fn drain(&mut self) {
        let advance_to = Instant::now() + self.drain_timeout();
        while Instant::now() < advance_to && self.executor.log.violation().is_none() {
            sleep(Duration::from_secs(5)).await;
            self.quiescence.settle().await;
            self.look_up_unpublished().await;
            self.read_deliveries().await;
            if self
                .executor
                .log
                .read(|observed| observed.open().next().is_none())
            {
                break;
            }
        }
        // Pending notifications need at most one wake ceiling, one backoff of a minute, and the calls in
        // flight.
        sleep(Duration::from_secs(200)).await;
        self.quiescence.settle().await;
        self.read_deliveries().await;
        if self.executor.log.violation().is_none() {
            self.executor.log.check_end();
        }
    }

    /// Looks up open tasks after an injected panic, because their changes may not have been published.
    async fn look_up_unpublished(&mut self) {
        let open: Vec<TaskId> = self.executor.log.read(|observed| {
            if observed.actor_panicked {
                observed.open().map(|run| run.task.clone()).collect()
            } else {
                Vec::new()
            }
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

    /// Reads which notifications the system reports as delivered, in scenarios whose server may not store them.
    async fn read_deliveries(&self) {
        if !self.scenario.is_ordinary() || self.closed {
            return;
        }
        for parent in self.executor.log.read(ObservedState::all_parents) {
            let (greenroom, log) = (self.executor.greenroom(), self.executor.log.clone());
            let crash_switch = self.executor.crash_switch();
            actix_rt::spawn(async move {
                for record in greenroom.notifications(&parent).await {
                    // A crashed process reports nothing.
                    if crash_switch.as_ref().is_some_and(|it| !it.is_alive()) {
                        return;
                    }
                    let known =
                        log.read(|observed| observed.delivered_notices.contains(&record.id));
                    if record.fate == "delivered" && !known {
                        log.push(LogEvent::ReportedDelivered {
                            parent: parent.clone(),
                            notice: record.id,
                        });
                    }
                }
            });
        }
        self.quiescence.settle().await;
    }

    /// Returns the sum of all time limits of a run, once for each open run, because runs may wait for one
    /// another.
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

//! The process that runs the system, with a disk and a crash switch. At any append, commit or call a random
//! decision may crash it; another process starts later with the durable state. Scenarios without crashes have
//! one process and a journal in memory.

use std::sync::{Arc, Weak};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::failpoint::FaultInjector;
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{ChangesFrom, Journal, MemoryJournal};
use greenroom::{Config, EventLink, Greenroom, ShutdownMode, TaskChange};

use super::log::Log;
use super::model::Model;
use super::scenario::Scenario;
use crate::crash::{CallPhase, CrashSwitch, CrashableFaultInjector, CrashableServer};
use crate::disk::Disk;

/// Starts processes, one after the other.
pub(super) struct ProcessRunner {
    config: Config,
    injects_panics: bool,
    model: Model,
    log: Log,
    clock: Clock,
    disk: Option<Disk>,
    started: u64,
}

/// A process.
pub(super) struct Process {
    pub(super) greenroom: Greenroom,
    /// Set if the process can crash.
    pub(super) crash_switch: Option<CrashSwitch>,
    /// Upgradable as long as the system holds the server.
    pub(super) server: Weak<dyn AgentServer>,
}

impl ProcessRunner {
    pub(super) fn new(scenario: &Scenario, model: Model, log: Log, clock: Clock) -> Self {
        let config = scenario.config();
        let disk = scenario.crashes().then(|| {
            let model = model.clone();
            let latency = Arc::new(move |commit| model.commit_latency(commit));
            Disk::new(config.lifecycle.retention, latency)
        });
        Self {
            config,
            injects_panics: scenario.injects_panics(),
            model,
            log,
            clock,
            disk,
            started: 0,
        }
    }

    /// Starts the next process.
    pub(super) fn start(&mut self) -> Process {
        self.started += 1;
        let mut config = self.config.clone();
        // Each process generates different ids.
        config.seed = config.seed.map(|seed| seed ^ (self.started << 32));
        let mut fault_injector: Option<Arc<dyn FaultInjector>> = self
            .injects_panics
            .then(|| Arc::new(self.model.clone()) as Arc<dyn FaultInjector>);
        let mut server: Arc<dyn AgentServer> = Arc::new(self.model.clone());
        let mut crash_switch = None;
        let journal: Arc<dyn Journal> = match &self.disk {
            None => Arc::new(MemoryJournal::default()),
            Some(disk) => {
                let journal = disk.journal();
                let switch = CrashSwitch::new(&journal);
                let crashes_at = self.crash_decider(switch.clone());
                let crashes_at_disk = Arc::clone(&crashes_at);
                journal.set_crash_at_write(Arc::new(move |moment| crashes_at_disk(moment)));
                server = Arc::new(CrashableServer::new(
                    server,
                    switch.clone(),
                    Arc::new(move |kind, about, phase| {
                        let when = match phase {
                            CallPhase::Before => "before",
                            CallPhase::After => "after",
                        };
                        crashes_at(&format!("{when} {kind} {about}"))
                    }),
                ));
                fault_injector = fault_injector.map(|fault_injector| {
                    Arc::new(CrashableFaultInjector::new(fault_injector, switch.clone()))
                        as Arc<dyn FaultInjector>
                });
                // A reader of changes continues where the last process stopped.
                let changes = journal.changes(ChangesFrom::After(0), usize::MAX);
                let changes = changes.unwrap_or_default().into_iter();
                self.log.replay_changes(changes.map(|change| {
                    Arc::new(TaskChange::new(change.at, change.task, change.changed.from))
                }));
                crash_switch = Some(switch);
                journal
            }
        };
        let server_refs = Arc::downgrade(&server);
        let greenroom = Greenroom::builder(config)
            .server(server)
            .journal(journal)
            .clock(self.clock)
            .fault_injector(fault_injector)
            .start();
        self.log.follow_changes(greenroom.subscribe());
        self.model.set_event_sink(Some(greenroom.clone()));
        if self.started > 1 {
            greenroom.event_link(if self.model.link_is_up() {
                EventLink::Connected
            } else {
                EventLink::Broken
            });
        }
        Process {
            greenroom,
            crash_switch,
            server: server_refs,
        }
    }

    /// Shuts down the actors of the crashed process and starts the next process after a delay.
    pub(super) async fn restart(&mut self, crashed_greenroom: Greenroom) -> Process {
        actix_rt::spawn(async move { crashed_greenroom.shutdown(ShutdownMode::Abort).await });
        let down = self.model.downtime_ms(self.started);
        tokio::time::sleep(Duration::from_millis(down)).await;
        self.start()
    }

    /// Returns a callback that decides by name whether the process crashes at a place, and crashes it.
    fn crash_decider(&self, crash_switch: CrashSwitch) -> Arc<dyn Fn(&str) -> bool + Send + Sync> {
        let (model, log) = (self.model.clone(), self.log.clone());
        Arc::new(move |place: &str| {
            if !crash_switch.is_alive() {
                return true;
            }
            let crashes = model.decides_crash(place);
            if crashes {
                crash_switch.crash();
                log.record_crash(place);
                model.set_event_sink(None);
            }
            crashes
        })
    }
}

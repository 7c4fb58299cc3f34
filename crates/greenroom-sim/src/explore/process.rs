//! The process that the system runs in, told with a disk beneath it and a plug that may be pulled: at any append, commit or
//! call the dice may end it, and another begins a while later with what was durable. Scenarios without crashes have one
//! process and a journal in memory.

use std::sync::{Arc, Weak};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{ChangesFrom, Journal, MemoryJournal};
use greenroom::sabotage::Saboteur;
use greenroom::{Config, EventLink, Greenroom, ShutdownMode, Surroundings, TaskChange};

use super::log::Log;
use super::model::Model;
use super::scenario::Scenario;
use crate::crash::{Moment, Plug, PluggedSaboteur, Power};
use crate::disk::Disk;

/// Where processes run, one after the other.
pub(super) struct Machine {
    config: Config,
    sabotages: bool,
    model: Model,
    log: Log,
    clock: Clock,
    disk: Option<Disk>,
    begun: u64,
}

/// One process.
pub(super) struct Process {
    pub(super) greenroom: Greenroom,
    /// Set if it may be lost.
    pub(super) power: Option<Power>,
    /// Alive as long as anything of it holds the server.
    pub(super) alive: Weak<dyn AgentServer>,
}

impl Machine {
    pub(super) fn new(scenario: &Scenario, model: Model, log: Log, clock: Clock) -> Self {
        let config = scenario.config();
        let disk = scenario.crashes().then(|| {
            let model = model.clone();
            let lag = Arc::new(move |commit| model.commit_takes(commit));
            Disk::new(config.lifecycle.retention, lag)
        });
        Self {
            config,
            sabotages: scenario.sabotages(),
            model,
            log,
            clock,
            disk,
            begun: 0,
        }
    }

    /// The next process begins.
    pub(super) fn start(&mut self) -> Process {
        self.begun += 1;
        let mut config = self.config.clone();
        // Another process draws other ids.
        config.seed = config.seed.map(|seed| seed ^ (self.begun << 32));
        let mut saboteur: Option<Arc<dyn Saboteur>> = self
            .sabotages
            .then(|| Arc::new(self.model.clone()) as Arc<dyn Saboteur>);
        let mut server: Arc<dyn AgentServer> = Arc::new(self.model.clone());
        let mut power = None;
        let journal: Arc<dyn Journal> = match &self.disk {
            None => Arc::new(MemoryJournal::default()),
            Some(disk) => {
                let journal = disk.journal();
                let on = Power::new(Arc::clone(&journal));
                let fate = self.fate(on.clone());
                let at_disk = Arc::clone(&fate);
                journal.set_fate(Arc::new(move |moment| at_disk(moment)));
                server = Arc::new(Plug::new(
                    server,
                    on.clone(),
                    Arc::new(move |kind, about, moment| {
                        let when = match moment {
                            Moment::Before => "before",
                            Moment::After => "after",
                        };
                        fate(&format!("{when} {kind} {about}"))
                    }),
                ));
                saboteur = saboteur.map(|saboteur| {
                    Arc::new(PluggedSaboteur::new(saboteur, on.clone())) as Arc<dyn Saboteur>
                });
                // Whoever read changes goes on where the last process stopped.
                let changes = journal.changes(ChangesFrom::After(0), usize::MAX);
                let changes = changes.unwrap_or_default().into_iter();
                self.log.go_on_with(changes.map(|change| {
                    Arc::new(TaskChange::new(change.at, change.task, change.changed.from))
                }));
                power = Some(on);
                journal
            }
        };
        let alive = Arc::downgrade(&server);
        let surroundings = Surroundings {
            clock: self.clock,
            saboteur,
        };
        let greenroom = Greenroom::start_within(config, server, journal, surroundings);
        self.log.listen(greenroom.subscribe());
        self.model.heard_by(Some(greenroom.clone()));
        if self.begun > 1 {
            greenroom.event_link(match self.model.link_is_up() {
                true => EventLink::Connected,
                false => EventLink::Broken,
            });
        }
        Process {
            greenroom,
            power,
            alive,
        }
    }

    /// The process has lost its power. What is left of it in this one is shut down; the next begins after a while.
    pub(super) async fn begin_again(&mut self, left: Greenroom) -> Process {
        actix_rt::spawn(async move { left.shutdown(ShutdownMode::Abort).await });
        let down = self.model.stays_down(self.begun);
        tokio::time::sleep(Duration::from_millis(down)).await;
        self.start()
    }

    /// Decides by name whether the process ends there, and ends it.
    fn fate(&self, power: Power) -> Arc<dyn Fn(&str) -> bool + Send + Sync> {
        let (model, log) = (self.model.clone(), self.log.clone());
        Arc::new(move |place: &str| {
            if !power.is_on() {
                return true;
            }
            let ends = model.crashes(place);
            if ends {
                power.lose();
                log.crashed(place);
                model.heard_by(None);
            }
            ends
        })
    }
}

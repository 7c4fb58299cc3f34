//! Builder of a [`Greenroom`]: its configuration, its ports, its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::{Changes, Greenroom};
use crate::actors::durability::Durability;
use crate::actors::env::{Env, EnvParts};
use crate::actors::failpoint::{Failpoints, FaultInjector};
use crate::actors::health::Health;
use crate::actors::inbox::Inbox;
use crate::actors::pending_publications::PendingPublications;
use crate::actors::registry::{ActorRefs, supervise_registry};
use crate::actors::runtime_state::CallsInFlight;
use crate::clock::Clock;
use crate::config::Config;
use crate::ports::agent_server::AgentServer;
use crate::ports::journal::{Journal, MemoryJournal};

/// Collects the configuration and the ports of a system. [`Builder::start`] needs an agent server.
#[derive(Clone)]
pub struct Builder<S> {
    config: Config,
    server: S,
    journal: Option<Arc<dyn Journal>>,
    clock: Clock,
    fault_injector: Option<Arc<dyn FaultInjector>>,
}

impl Greenroom {
    /// Returns a builder with that configuration, a journal in memory and the system's clock.
    pub fn builder(config: Config) -> Builder<()> {
        Builder {
            config,
            server: (),
            journal: None,
            clock: Clock::system(),
            fault_injector: None,
        }
    }
}

impl Builder<()> {
    /// Sets the agent server that runs the tasks.
    pub fn server(self, server: Arc<dyn AgentServer>) -> Builder<Arc<dyn AgentServer>> {
        Builder {
            config: self.config,
            server,
            journal: self.journal,
            clock: self.clock,
            fault_injector: self.fault_injector,
        }
    }
}

impl<S> Builder<S> {
    /// Sets the journal. Without this call tasks are kept in memory and end with the process.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Sets the clock that the system reads. Tests start one at the epoch.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the injector of failures at failpoints, for tests.
    pub fn fault_injector(
        mut self,
        fault_injector: impl Into<Option<Arc<dyn FaultInjector>>>,
    ) -> Self {
        self.fault_injector = fault_injector.into();
        self
    }
}

impl Builder<Arc<dyn AgentServer>> {
    /// Starts the actors on the current arbiter and returns the handle. Must be called inside a running actix system.
    pub fn start(self) -> Greenroom {
        let retention = self.config.lifecycle.retention;
        let journal = self
            .journal
            .unwrap_or_else(|| Arc::new(MemoryJournal::with_retention(retention)));
        let pending_publications = PendingPublications::default();
        let env = Env::from(EnvParts {
            config: Arc::new(self.config),
            server: self.server,
            clock: self.clock,
            durability: Durability::new(Arc::clone(&journal), pending_publications.clone()),
            journal: Arc::clone(&journal),
            pending_publications,
            calls_in_flight: CallsInFlight::default(),
            shut_down: AtomicBool::new(false),
            health: Health::default(),
            failpoints: Failpoints::injected_by(self.fault_injector),
            watch_numbers: AtomicU64::new(0),
        });
        let changes = Changes::new(env.clock.now(), retention, journal);
        let refs = ActorRefs::new(env.config.limits.clone());
        let greenroom = Greenroom {
            registry: refs.registry.clone(),
            slots: refs.slots.clone(),
            env: env.clone(),
            changes: changes.clone(),
            events: Inbox::new(refs.registry.clone()),
            flags: Arc::clone(&refs.flags),
        };
        supervise_registry(env, refs, changes);
        greenroom
    }
}

impl<S> std::fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

//! A running service: the actor system on the arbiter that starts it, the HTTP server on threads of its own. `serve`
//! and `up` own one [`Service`]; tests start it on an agent server of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer};
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom::{EventLink, Greenroom, ListFilter, ShutdownMode, ShutdownReport};
use greenroom_bridge::{BridgeOptions, Bridges};
use greenroom_sqlite::{OpenError, SqliteJournal};

use crate::agents::{Patience, RoutedEvents, RoutedServer, Upstream};
use crate::config::{Events, Settings};
use crate::http::connection;
use crate::http::guard::{Guard, guard};
use crate::http::metrics::Requests;
use crate::http::{Api, configure};
use crate::mcp::Mcp;
use crate::tools::Tools;

/// Threads that answer requests.
const WORKERS: usize = 2;
/// Sockets at a time, over all threads; blocking reads hold one each.
const CONNECTIONS: usize = 10_000;
/// How long requests under way may take once everything else has ended, in seconds.
const LAST_REQUESTS_S: u64 = 3;

/// How long bridges of the time before a restart take to come back: a little more than their longest wait between tries.
const BRIDGES_BACK: Duration = Duration::from_secs(12);

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenError),
}

impl HostError {
    /// What the reader can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Listen { .. } => {
                "stop what listens there, or choose another address with --listen 127.0.0.1:0"
                    .to_owned()
            }
            Self::Journal(error) => error.hint(),
        }
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    greenroom: Greenroom,
    routed: RoutedServer,
    bridge: BridgeOptions,
    mcp: Mcp,
    http: ServerHandle,
    address: SocketAddr,
    journal: Option<Arc<SqliteJournal>>,
}

impl Service {
    /// Starts the actors here, on that agent server, and listens. Must be called inside a running actix system.
    pub fn start(settings: &Settings, agent: Arc<dyn AgentServer>) -> Result<Self, HostError> {
        let upstream = Upstream {
            server: agent,
            url: None,
        };
        Self::start_on(settings, Some(upstream))
    }

    /// The same on every agent server that connects by a bridge, and on the one at a URL if there is one.
    pub fn start_on(settings: &Settings, upstream: Option<Upstream>) -> Result<Self, HostError> {
        let patience = Patience {
            // Only what is restored can belong to a bridge that was there before.
            settle: match upstream.is_none() && settings.journal.is_some() {
                true => BRIDGES_BACK,
                false => Duration::ZERO,
            },
            ..Patience::default()
        };
        Self::start_with(settings, upstream, patience)
    }

    /// The same with that patience with bridges.
    pub fn start_with(
        settings: &Settings,
        upstream: Option<Upstream>,
        patience: Patience,
    ) -> Result<Self, HostError> {
        let wanted = settings.listen.0;
        // The port first: nothing is started for a service that nobody could reach.
        let listener = std::net::TcpListener::bind(wanted).map_err(|source| HostError::Listen {
            address: wanted,
            source,
        })?;
        let address = listener.local_addr().map_err(|source| HostError::Listen {
            address: wanted,
            source,
        })?;

        let retention = settings.core.lifecycle.retention;
        let on_disk = match &settings.journal {
            Some(path) => Some(Arc::new(SqliteJournal::open(path, retention)?)),
            None => None,
        };
        let journal: Arc<dyn Journal> = match &on_disk {
            Some(journal) => Arc::clone(journal) as Arc<dyn Journal>,
            None => Arc::new(MemoryJournal::keeping(retention)),
        };
        let bridges = Bridges::default();
        let only_source = upstream.is_none() || settings.opencode.events == Events::Bridge;
        let routed = RoutedServer::new(bridges.clone(), upstream, patience);
        let agent: Arc<dyn AgentServer> = Arc::new(routed.clone());
        let greenroom = Greenroom::start(settings.core.clone(), agent, journal);
        if !patience.settle.is_zero() {
            let (routed, greenroom) = (routed.clone(), greenroom.clone());
            actix_web::rt::spawn(async move { routed.settle(&greenroom).await });
        }
        let instance = format!("gr_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let tools = Tools::new(greenroom.clone());
        let mcp = Mcp::new(tools.clone());
        let events = RoutedEvents::new(greenroom.clone(), routed.clone());
        let mut bridge = BridgeOptions::new(Arc::new(events), instance);
        bridge.bridges = bridges;
        bridge.tools = Some(Arc::new(tools.clone()));
        bridge.token = settings.token.clone();
        bridge.only_source = only_source;
        if only_source {
            // Nobody is there yet: until the first bridge comes, tasks wait in line.
            greenroom.event_link(EventLink::Broken);
        }
        let guarded = Guard {
            token: settings.token.clone(),
            listen: address,
        };
        let api = Api {
            greenroom: greenroom.clone(),
            guard: guarded,
            bridge: bridge.clone(),
            tools,
            requests: Requests::default(),
            journal: on_disk.clone(),
        };
        let mounted = mcp.clone();
        let http = HttpServer::new(move || {
            let (api, mcp) = (api.clone(), mounted.clone());
            App::new()
                .wrap(from_fn(guard))
                .configure(move |cfg| mcp.configure(cfg))
                .configure(move |cfg| configure(cfg, api))
        })
        .on_connect(|socket, _| connection::bound(socket))
        .workers(WORKERS)
        .max_connections(CONNECTIONS / WORKERS)
        .shutdown_timeout(LAST_REQUESTS_S)
        .disable_signals()
        .listen(listener)
        .map_err(|source| HostError::Listen {
            address: wanted,
            source,
        })?
        .run();
        let handle = http.handle();
        actix_web::rt::spawn(http);
        tracing::info!(%address, "service listening");
        Ok(Self {
            greenroom,
            routed,
            bridge,
            mcp,
            http: handle,
            address,
            journal: on_disk,
        })
    }

    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the events of its agent server go.
    pub fn events(&self) -> RoutedEvents {
        RoutedEvents::new(self.greenroom.clone(), self.routed.clone())
    }

    /// The bridges that are connected.
    pub fn bridges(&self) -> &Bridges {
        &self.bridge.bridges
    }

    /// The actor system.
    pub fn greenroom(&self) -> &Greenroom {
        &self.greenroom
    }

    /// True while a bridge is connected or a task is open.
    pub async fn is_used(&self) -> bool {
        if !self.bridge.bridges.is_empty() {
            return true;
        }
        // One that is about to start neither runs nor waits, for as long as the agent server is away.
        let open = ListFilter {
            statuses: vec![TaskStatus::Pending, TaskStatus::Running],
            limit: Some(1),
            ..ListFilter::default()
        };
        !self.greenroom.list(open).await.tasks.is_empty()
    }

    /// How it is to be stopped so that the least is lost: open tasks are left to the next start if there will be a journal
    /// to find them in, else they are cancelled.
    pub fn lasting_mode(&self) -> ShutdownMode {
        match self.greenroom.outlives() {
            true => ShutdownMode::Detach,
            false => ShutdownMode::Abort,
        }
    }

    /// Ends everything, bounded: tasks first, while readers can still be told of their end, then the sockets. In mode
    /// `Detach` open tasks are left to the next start: only for a journal that outlives the process.
    pub async fn stop(self, mode: ShutdownMode) -> ShutdownReport {
        let report = self.greenroom.shutdown(mode).await;
        if !report.cancelled.is_empty() {
            tracing::info!(
                tasks = report.cancelled.len(),
                "tasks cancelled by the shutdown"
            );
        }
        if !report.detached.is_empty() {
            tracing::info!(
                tasks = report.detached.len(),
                "tasks left to the next start"
            );
        }
        for parent in &report.untold {
            if self.greenroom.outlives() {
                tracing::info!(%parent, "told at the next start");
            } else {
                tracing::warn!(%parent, "not told of its tasks' end");
            }
        }
        self.bridge.bridges.close();
        self.mcp.close();
        self.http.stop(true).await;
        if let Some(journal) = self.journal {
            // It may wait for the disk, and there is nobody left to hear that it was in vain but the log.
            let _ = actix_web::web::block(move || journal.close()).await;
        }
        tracing::info!("service stopped");
        report
    }
}

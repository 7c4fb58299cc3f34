//! A running service: the actor system on the current arbiter and the HTTP server on its own threads. `serve` and `up`
//! own one [`Service`]; tests start one on an agent server in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::task::JoinHandle;
use actix_web::web::Data;
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::AgentServer;
use greenroom::ports::journal::{Journal, MemoryJournal};
use greenroom::{EventLink, Greenroom, ListFilter, ShutdownMode, ShutdownReport};
use greenroom_bridge::{BridgeOptions, BridgeRegistry};
use greenroom_sqlite::{OpenError, SqliteJournal};
use tokio_util::sync::CancellationToken;

use crate::agents::{RoutedEvents, RoutedServer, Timeouts, Upstream};
use crate::config::settings::TokenSource;
use crate::config::{Events, Settings, token};
use crate::http::answer_budget::{AnswerBudget, bound_answers};
use crate::http::connection::{self, StreamPermits};
use crate::http::guard::{Guard, guard};
use crate::http::listener::serve;
use crate::http::metrics::Requests;
use crate::http::{Api, configure};
use crate::mcp::Mcp;
use crate::tools::Tools;

/// Time in which bridges reconnect after a restart: a little longer than the longest delay between two attempts.
const BRIDGE_RECONNECT_TIMEOUT: Duration = Duration::from_secs(12);

/// Maximum number of bytes of large answers that wait for their clients, over all connections.
const UNREAD_ANSWERS: usize = 64 << 20;

/// Time between two reads of the file with the secret.
const TOKEN_INTERVAL: Duration = Duration::from_secs(1);

/// Why a service could not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The system clock is not set: the times of tasks and HTTP answers would be wrong.
    #[error("the system clock is set to a time before 1970")]
    Clock,
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
}

impl HostError {
    /// Returns what a person can do about the error.
    pub fn hint(&self) -> String {
        match self {
            Self::Listen { .. } => {
                "stop what listens there, or choose another address with --listen 127.0.0.1:0"
                    .to_owned()
            }
            Self::Clock => "set the clock, then start again".to_owned(),
            Self::Journal(error) => error.hint(),
        }
    }
}

/// Binds the address. If it is the default one and taken, as by the service of another user, a free port will do.
fn bind(address: SocketAddr, is_default: bool) -> Result<std::net::TcpListener, HostError> {
    let failed = |source| HostError::Listen { address, source };
    match std::net::TcpListener::bind(address) {
        Err(error) if is_default && error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(%address, "the port is taken; a free one is used");
            std::net::TcpListener::bind((address.ip(), 0)).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

/// Reads the secret again and again, so that a rotated one holds without a restart. Ends with the service.
async fn follow_token(token: greenroom_bridge::Token, source: TokenSource) {
    let mut last_problem = None;
    loop {
        tokio::time::sleep(TOKEN_INTERVAL).await;
        let source = source.clone();
        let read = actix_web::web::block(move || token::read_again(&source)).await;
        let problem = match read {
            Ok(Ok(Some(text))) => {
                if token.replace(&text) {
                    tracing::info!("token replaced");
                }
                None
            }
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(problem)) => Some(problem),
        };
        if problem != last_problem
            && let Some(problem) = &problem
        {
            tracing::warn!(
                problem,
                "could not read the token again; the last one holds"
            );
        }
        last_problem = problem;
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
    /// Closes idle connections.
    closing: CancellationToken,
    address: SocketAddr,
    journal: Option<Arc<SqliteJournal>>,
    token_task: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the actors and the HTTP server on one agent server. Must be called inside a running actix system.
    pub fn start(settings: &Settings, agent: Arc<dyn AgentServer>) -> Result<Self, HostError> {
        let upstream = Upstream {
            server: agent,
            url: None,
            has_events: false,
        };
        Self::start_with_upstream(settings, Some(upstream))
    }

    /// Starts a service for all agent servers that connect by a bridge, and for one at a URL.
    pub fn start_with_upstream(
        settings: &Settings,
        upstream: Option<Upstream>,
    ) -> Result<Self, HostError> {
        let timeouts = Timeouts {
            // Only restored tasks can belong to an earlier bridge.
            settle: if upstream.is_none() && settings.journal.is_some() {
                BRIDGE_RECONNECT_TIMEOUT
            } else {
                Duration::ZERO
            },
            ..Timeouts::default()
        };
        Self::start_with_timeouts(settings, upstream, timeouts)
    }

    /// Starts a service with the given time limits for bridges.
    pub fn start_with_timeouts(
        settings: &Settings,
        upstream: Option<Upstream>,
        timeouts: Timeouts,
    ) -> Result<Self, HostError> {
        if greenroom::clock::is_before_epoch() {
            return Err(HostError::Clock);
        }
        let listen = settings.listen.0;
        // Bound first: without the port nothing is started.
        let listener = bind(listen, settings.listen_is_default)?;
        let address = listener.local_addr().map_err(|source| HostError::Listen {
            address: listen,
            source,
        })?;

        let retention = settings.core.lifecycle.retention;
        let sqlite = match &settings.journal {
            Some(path) => Some(Arc::new(SqliteJournal::open(path, retention)?)),
            None => None,
        };
        let journal: Arc<dyn Journal> = match &sqlite {
            Some(journal) => Arc::clone(journal) as Arc<dyn Journal>,
            None => Arc::new(MemoryJournal::with_retention(retention)),
        };
        let bridges = BridgeRegistry::default();
        let only_source = upstream.is_none() || settings.opencode.events == Events::Bridge;
        let routed = RoutedServer::new(bridges.clone(), upstream, timeouts);
        match journal.owners() {
            Ok(owners) => routed.restore_owners(owners),
            Err(error) => tracing::error!(%error, "could not read the owners of sessions"),
        }
        let agent: Arc<dyn AgentServer> = Arc::new(routed.clone());
        let greenroom = Greenroom::builder(settings.core.clone())
            .server(agent)
            .journal(journal)
            .start();
        actix_web::rt::spawn(routed.record_owners(&greenroom));
        {
            let (routed, greenroom) = (routed.clone(), greenroom.clone());
            actix_web::rt::spawn(async move {
                routed.restore_working(&greenroom).await;
                routed.settle(&greenroom).await;
            });
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
        bridge.uid = (settings.listen.is_loopback() && !settings.any_uid)
            .then(|| nix::unistd::geteuid().as_raw());
        if only_source {
            // Tasks wait in the queue until the first bridge connects.
            greenroom.event_link(EventLink::Broken);
        }
        let access = Guard {
            token: settings.token.clone(),
            listen: address,
            bridge_uid: bridge.uid,
        };
        let connections = connection::max_connections();
        let api = Api {
            greenroom: greenroom.clone(),
            guard: access,
            bridge: bridge.clone(),
            tools,
            streams: StreamPermits::new(connections),
            requests: Requests::default(),
            journal: sqlite.clone(),
        };
        let mcp_endpoint = mcp.clone();
        let unread = Data::new(AnswerBudget::new(UNREAD_ANSWERS));
        let closing = CancellationToken::new();
        let http = serve(listener, connections, closing.clone(), move || {
            let (api, mcp) = (api.clone(), mcp_endpoint.clone());
            App::new()
                .app_data(unread.clone())
                .wrap(from_fn(bound_answers))
                .wrap(from_fn(guard))
                .configure(move |cfg| mcp.configure(cfg))
                .configure(move |cfg| configure(cfg, api))
        })
        .map_err(|source| HostError::Listen {
            address: listen,
            source,
        })?;
        let handle = http.handle();
        actix_web::rt::spawn(http);
        let token_task = settings
            .token
            .clone()
            .map(|token| actix_web::rt::spawn(follow_token(token, settings.token_source.clone())));
        tracing::info!(%address, "service listening");
        Ok(Self {
            greenroom,
            routed,
            bridge,
            mcp,
            http: handle,
            closing,
            address,
            journal: sqlite,
            token_task,
        })
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the sink for the events of the agent server.
    pub fn events(&self) -> RoutedEvents {
        RoutedEvents::new(self.greenroom.clone(), self.routed.clone())
    }

    /// Returns the connected bridges.
    pub fn bridges(&self) -> &BridgeRegistry {
        &self.bridge.bridges
    }

    /// Returns the actor system.
    pub fn greenroom(&self) -> &Greenroom {
        &self.greenroom
    }

    /// Returns true while a bridge is connected or a task is open.
    pub async fn is_in_use(&self) -> bool {
        if !self.bridge.bridges.is_empty() {
            return true;
        }
        // A task that is about to start is neither running nor waiting while the agent server is unreachable.
        let open = ListFilter {
            statuses: vec![TaskStatus::Pending, TaskStatus::Running],
            limit: Some(1),
            ..ListFilter::default()
        };
        !self.greenroom.list(open).await.tasks.is_empty()
    }

    /// Returns the shutdown mode that loses least: detaches open tasks if a persistent journal keeps them, else cancels
    /// them.
    pub fn shutdown_mode(&self) -> ShutdownMode {
        if self.greenroom.is_persistent() {
            ShutdownMode::Detach
        } else {
            ShutdownMode::Abort
        }
    }

    /// Stops the service in bounded time: first the tasks, while readers still receive their ends, then the sockets.
    /// Mode `Detach` leaves open tasks to the next start and needs a persistent journal.
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
        for parent in &report.unnotified {
            if self.greenroom.is_persistent() {
                tracing::info!(%parent, "message to the parent left to the next start");
            } else {
                tracing::warn!(%parent, "message to the parent lost");
            }
        }
        if let Some(token_task) = &self.token_task {
            token_task.abort();
        }
        self.bridge.bridges.close();
        self.mcp.close();
        self.closing.cancel();
        self.http.stop(true).await;
        if let Some(journal) = self.journal {
            // Runs on the blocking pool because it may wait for the disk. A failure is logged by the journal.
            let _ = actix_web::web::block(move || journal.close()).await;
        }
        tracing::info!("service stopped");
        report
    }
}

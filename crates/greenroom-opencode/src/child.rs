//! `opencode serve` under supervision: started in a separate process group, restarted when it dies, ended with this process.
//! Its state can be watched; its output is kept in a bounded log. `greenroom up` and the tests own one [`OpencodeChild`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::address::ServerAddress;
use crate::backoff::Backoff;
use crate::child_log::ChildLog;
use crate::supervisor::{ProcessGroup, Supervisor};

/// The number of failed starts in a row after which [`OpencodeChild::wait_until_up`] fails.
const MAX_BOOT_FAILURES: u32 = 3;
const LOG_BOUND: u64 = 10 << 20;

/// The options of `opencode serve`.
#[derive(Clone)]
pub struct ServeOptions {
    /// The binary, from [`crate::install`].
    pub program: PathBuf,
    /// The directory of requests that name none.
    pub directory: PathBuf,
    /// The port on 127.0.0.1; by default a free one is chosen and kept across restarts.
    pub port: Option<u16>,
    /// The password for Basic auth.
    pub password: Option<String>,
    /// True if the server gets the environment of this process, overridden by `environment`; false for `environment` alone.
    pub inherit_environment: bool,
    /// Environment variables of the server.
    pub environment: BTreeMap<String, String>,
    /// The path of its log: at most 10 MiB, and as much again in the previous log (`.1`).
    pub log: PathBuf,
}

impl ServeOptions {
    /// Returns options for a server in the environment of this process, on a free port, without a password.
    pub fn new(
        program: impl Into<PathBuf>,
        directory: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            program: program.into(),
            directory: directory.into(),
            port: None,
            password: None,
            inherit_environment: true,
            environment: BTreeMap::new(),
            log: log.into(),
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the environment and the password, which may hold secrets.
        f.debug_struct("ServeOptions")
            .field("program", &self.program)
            .field("directory", &self.directory)
            .field("port", &self.port)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// The state of the supervised server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildState {
    /// It was started and is not healthy yet.
    Starting,
    /// It is healthy.
    Up {
        /// The id of its process and of its process group.
        pid: u32,
    },
    /// It died and is started again after a wait.
    Restarting {
        /// How it died, with its last lines of output.
        reason: String,
        /// The number of failed starts in a row.
        failures: u32,
    },
    /// It was stopped.
    Stopped,
}

/// Why a server is not available.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no free port.
    #[error("no port on 127.0.0.1 can be had")]
    Port(#[source] std::io::Error),
    /// Another process listens on the port.
    #[error(
        "port {0} of 127.0.0.1 is taken; choose another, or attach to what runs there with `greenroom serve --opencode http://127.0.0.1:{0}`"
    )]
    PortTaken(u16),
    /// The log cannot be written.
    #[error("cannot write the log {path}")]
    Log {
        /// The path of the log.
        path: PathBuf,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The directory does not exist or is not a directory.
    #[error("{0} is not a folder")]
    Directory(PathBuf),
    /// The server did not become healthy.
    #[error("opencode does not come up: {reason}; its log is {log}")]
    NotUp {
        /// The last known reason.
        reason: String,
        /// The path of the log.
        log: PathBuf,
    },
}

/// A supervised `opencode serve`. [`OpencodeChild::stop`] ends it with SIGTERM, a drop with SIGKILL.
#[derive(Debug)]
pub struct OpencodeChild {
    address: ServerAddress,
    log: PathBuf,
    state: watch::Receiver<ChildState>,
    group: ProcessGroup,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl OpencodeChild {
    /// Starts the server and returns before it is healthy. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Fails if the port, the log or the directory cannot be used.
    pub fn start(options: ServeOptions) -> Result<Self, ChildError> {
        if !options.directory.is_dir() {
            return Err(ChildError::Directory(options.directory));
        }
        let port = match options.port {
            // Otherwise the responses of another program would be taken for the server's.
            Some(port) if is_taken(port) => return Err(ChildError::PortTaken(port)),
            Some(port) => port,
            None => free_port().map_err(ChildError::Port)?,
        };
        let log = ChildLog::begin(&options.log, LOG_BOUND).map_err(|source| ChildError::Log {
            path: options.log.clone(),
            source,
        })?;
        let address = ServerAddress::new(
            format!("http://127.0.0.1:{port}"),
            options.directory.display().to_string(),
        )
        .with_password(options.password.clone());
        let (sender, state) = watch::channel(ChildState::Starting);
        let (stop, stopped) = oneshot::channel();
        let group = ProcessGroup::default();
        let supervisor = Supervisor {
            log: Arc::new(Mutex::new(log)),
            address: address.clone(),
            port,
            group: group.clone(),
            state: sender,
            failures: 0,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10), None),
            options,
        };
        let log = supervisor.options.log.clone();
        let task = tokio::spawn(supervisor.run(stopped));
        Ok(Self {
            address,
            log,
            state,
            group,
            stop: Some(stop),
            task,
        })
    }

    /// Returns the address of the server, with its password.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Returns the current state.
    pub fn state(&self) -> ChildState {
        self.state.borrow().clone()
    }

    /// Returns a receiver of state changes.
    pub fn watch(&self) -> watch::Receiver<ChildState> {
        self.state.clone()
    }

    /// Waits until the server is healthy, and returns its process id.
    ///
    /// # Errors
    /// Fails if it is not healthy within `limit`, or after three failed starts in a row.
    pub async fn wait_until_up(&self, limit: Duration) -> Result<u32, ChildError> {
        let mut state = self.state.clone();
        let mut last = "it was not healthy in time".to_owned();
        let wait = async {
            loop {
                match state.borrow_and_update().clone() {
                    ChildState::Up { pid } => return Ok(pid),
                    ChildState::Restarting { reason, failures }
                        if failures >= MAX_BOOT_FAILURES =>
                    {
                        return Err(reason);
                    }
                    ChildState::Restarting { reason, .. } => last = reason,
                    ChildState::Stopped => return Err("it was stopped".to_owned()),
                    ChildState::Starting => {}
                }
                if state.changed().await.is_err() {
                    return Err("its supervisor has ended".to_owned());
                }
            }
        };
        let outcome = timeout(limit, wait).await;
        let not_up = |reason| ChildError::NotUp {
            reason,
            log: self.log.clone(),
        };
        outcome.unwrap_or(Err(last)).map_err(not_up)
    }

    /// Ends the server and its process group: SIGTERM, and SIGKILL after 5 s.
    pub async fn stop(mut self) {
        self.stop.take();
        let _ = (&mut self.task).await;
    }
}

impl Drop for OpencodeChild {
    fn drop(&mut self) {
        self.task.abort();
        self.group.signal(Signal::SIGKILL);
    }
}

/// Returns a free port. Another process may take it before it is used; the supervisor then retries until it is free.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

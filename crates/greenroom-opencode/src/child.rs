//! `opencode serve` under supervision: started in a process group of its own, restarted when it dies, ended with us. Its
//! state can be watched; its output is kept in a bounded log. `greenroom up` and the tests own one [`OpencodeChild`].

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
use crate::supervisor::{Group, Supervisor};

/// Deaths in a row, none of them after it was up, at which waiting for it is given up.
const HOPELESS: u32 = 3;
const LOG_BOUND: u64 = 10 << 20;

/// How opencode is started.
#[derive(Clone)]
pub struct ServeOptions {
    /// The binary, from [`crate::install`].
    pub program: PathBuf,
    /// Where it works if a request names no directory.
    pub directory: PathBuf,
    /// The port on 127.0.0.1; without one a free one is chosen and kept over restarts.
    pub port: Option<u16>,
    /// Protects the server by Basic auth.
    pub password: Option<String>,
    /// True: our environment and `environment` over it. False: `environment` alone.
    pub inherit_environment: bool,
    /// Variables for it.
    pub environment: BTreeMap<String, String>,
    /// Where its output is kept, at most 10 MiB and as much again of the time before (`.1`).
    pub log: PathBuf,
}

impl ServeOptions {
    /// A server in our own environment on a free port without a password.
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
        // Not the environment and the password: both may hold secrets.
        f.debug_struct("ServeOptions")
            .field("program", &self.program)
            .field("directory", &self.directory)
            .field("port", &self.port)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// What the supervised server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildState {
    /// It is being started and not healthy yet.
    Starting,
    /// It is healthy.
    Up {
        /// Its process, which is also its process group.
        pid: u32,
    },
    /// It has died and is started again after a wait.
    Restarting {
        /// How it died and its last words.
        reason: String,
        /// How often in a row it died without having been up.
        failures: u32,
    },
    /// It was stopped by us, for good.
    Stopped,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No free port.
    #[error("no port on 127.0.0.1 can be had")]
    Port(#[source] std::io::Error),
    /// Somebody listens there already.
    #[error(
        "port {0} of 127.0.0.1 is taken; choose another, or attach to what runs there with `greenroom serve --opencode http://127.0.0.1:{0}`"
    )]
    PortTaken(u16),
    /// The log cannot be written.
    #[error("cannot write the log {path}")]
    Log {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder to work in is none.
    #[error("{0} is no folder for opencode to work in")]
    Directory(PathBuf),
    /// It does not come up.
    #[error("opencode does not come up: {reason}; its log is {log}")]
    NotUp {
        /// The last reason known.
        reason: String,
        /// Where to read on.
        log: PathBuf,
    },
}

/// A supervised `opencode serve`. Ended gently by [`OpencodeChild::stop`], at once when dropped.
#[derive(Debug)]
pub struct OpencodeChild {
    address: ServerAddress,
    log: PathBuf,
    state: watch::Receiver<ChildState>,
    group: Group,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl OpencodeChild {
    /// Starts the server; it is not up yet when this returns. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// No port, log or folder for it.
    pub fn start(options: ServeOptions) -> Result<Self, ChildError> {
        if !options.directory.is_dir() {
            return Err(ChildError::Directory(options.directory));
        }
        let port = match options.port {
            // Else the stranger's answers would be taken for our server's.
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
        let (says, state) = watch::channel(ChildState::Starting);
        let (stop, stopped) = oneshot::channel();
        let group = Group::default();
        let supervisor = Supervisor {
            log: Arc::new(Mutex::new(log)),
            address: address.clone(),
            port,
            group: group.clone(),
            says,
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

    /// Where the server listens, with its password.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// What it does now.
    pub fn state(&self) -> ChildState {
        self.state.borrow().clone()
    }

    /// Every change of what it does from now on.
    pub fn watch(&self) -> watch::Receiver<ChildState> {
        self.state.clone()
    }

    /// Waits until it is up, and returns its process id.
    ///
    /// # Errors
    /// It is not within `limit`, or has died three times in a row without coming up.
    pub async fn until_up(&self, limit: Duration) -> Result<u32, ChildError> {
        let mut state = self.state.clone();
        let mut last = "it was not healthy in time".to_owned();
        let wait = async {
            loop {
                match state.borrow_and_update().clone() {
                    ChildState::Up { pid } => return Ok(pid),
                    ChildState::Restarting { reason, failures } if failures >= HOPELESS => {
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

    /// Ends the server and everything it started: SIGTERM, and SIGKILL after 5 s.
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

/// A port nobody listens on now. Somebody else may take it before it is used; the supervisor tries again until it is
/// free.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

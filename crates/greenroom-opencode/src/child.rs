//! `opencode serve` under supervision: started in a process group of its own, restarted when it dies, ended with us. Its
//! state can be watched; its output is kept in a bounded log. `greenroom up` and the tests own one [`OpencodeChild`].
//!
//! The process started is `/bin/sh`, which leaves a guard in the group and becomes opencode. The guard reads a pipe we
//! hold open: when we are gone, however that came (also `kill -9`), it ends the whole group.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::child_log::ChildLog;
use crate::client::ServerAddress;
use crate::health::wait_until_healthy;

/// A server that has not become healthy in this time is started again.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// After SIGTERM; opencode has been seen to ignore it.
const GRACE: Duration = Duration::from_secs(5);
/// After so long in good health a death is no longer one of a row.
const STEADY: Duration = Duration::from_secs(60);
/// Deaths in a row, none of them after it was up, at which waiting for it is given up.
const HOPELESS: u32 = 3;
const LOG_BOUND: u64 = 10 << 20;
/// A line longer than this is broken up.
const LINE_BOUND: usize = 64 << 10;

/// Leaves the guard, then becomes the program. The guard ignores the SIGTERM of an ordinary stop, whose end it does not
/// decide; it keeps no output pipe open.
const GUARDED: &str = r#"exec 3<&0
(trap '' TERM; read -r _ <&3; kill -TERM 0; sleep 5; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-"#;

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
        outcome.unwrap_or_else(|_| Err(last)).map_err(not_up)
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

/// The process group of the server that runs now, if any. Written by the supervisor, read by whoever ends it.
#[derive(Debug, Clone, Default)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn set(&self, group: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = group;
    }

    /// The lock is held, so that no group is signalled that was given up meanwhile and may be somebody else's by now.
    fn signal(&self, signal: Signal) {
        if let Some(group) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // A group that has ended already is what was wanted.
            let _ = killpg(group, signal);
        }
    }
}

struct Supervisor {
    options: ServeOptions,
    address: ServerAddress,
    port: u16,
    log: Arc<Mutex<ChildLog>>,
    group: Group,
    says: watch::Sender<ChildState>,
    failures: u32,
    backoff: Backoff,
}

/// One life of the server.
struct Running {
    child: Child,
    pid: u32,
    /// Held open for the guard.
    _guard: Option<ChildStdin>,
    pipes: [JoinHandle<()>; 2],
}

/// How a life ended.
enum Ended {
    Died(String),
    Stopped,
}

impl Supervisor {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            self.says.send_replace(ChildState::Starting);
            let reason = match self.one_life(&mut stop).await {
                Ended::Stopped => break,
                Ended::Died(reason) => reason,
            };
            let wait = self.backoff.wait();
            warn!(%reason, failures = self.failures, wait_ms = wait.as_millis(), "opencode died");
            self.says.send_replace(ChildState::Restarting {
                reason,
                failures: self.failures,
            });
            tokio::select! {
                () = sleep(wait) => {}
                _ = &mut stop => break,
            }
        }
        info!("opencode stopped");
        self.says.send_replace(ChildState::Stopped);
    }

    async fn one_life(&mut self, stop: &mut oneshot::Receiver<()>) -> Ended {
        let mut running = match self.spawn() {
            Ok(running) => running,
            Err(error) => {
                self.failures += 1;
                return Ended::Died(format!(
                    "{} cannot be started: {error}",
                    self.options.program.display()
                ));
            }
        };
        let healthy = tokio::select! {
            exit = running.child.wait() => Err(how(exit)),
            healthy = wait_until_healthy(&self.address, BOOT_LIMIT) => healthy.map_err(|error| error.to_string()),
            _ = &mut *stop => {
                self.end(running, GRACE).await;
                return Ended::Stopped;
            }
        };
        let reason = match healthy {
            Ok(version) => {
                let up = Instant::now();
                self.failures = 0;
                info!(pid = running.pid, %version, url = %self.address.url, "opencode is up");
                self.says.send_replace(ChildState::Up { pid: running.pid });
                let reason = tokio::select! {
                    exit = running.child.wait() => how(exit),
                    _ = stop => {
                        self.end(running, GRACE).await;
                        return Ended::Stopped;
                    }
                };
                if up.elapsed() >= STEADY {
                    self.backoff.reset();
                }
                reason
            }
            Err(reason) => {
                self.failures += 1;
                reason
            }
        };
        self.end(running, Duration::ZERO).await;
        let words = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_words();
        Ended::Died(if words.is_empty() {
            reason
        } else {
            format!("{reason}: {words}")
        })
    }

    fn spawn(&self) -> std::io::Result<Running> {
        // The shell would say less clearly what is wrong with the program.
        std::fs::metadata(&self.options.program)?;
        let mut command = Command::new("/bin/sh");
        if !self.options.inherit_environment {
            command.env_clear();
        }
        command
            .args(["-c", GUARDED, "sh"])
            .arg(&self.options.program)
            .args([
                "serve",
                "--hostname",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
            ])
            .envs(&self.options.environment)
            .current_dir(&self.options.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        match &self.address.password {
            Some(password) => {
                command.env("OPENCODE_SERVER_PASSWORD", password);
                command.env("OPENCODE_SERVER_USERNAME", &self.address.username);
            }
            None => {
                // The address we hand out has no password, so the server must have none either.
                command
                    .env_remove("OPENCODE_SERVER_PASSWORD")
                    .env_remove("OPENCODE_SERVER_USERNAME");
            }
        }
        let mut child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| std::io::Error::other("it ended at once"))?;
        self.group.set(i32::try_from(pid).ok().map(Pid::from_raw));
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget();
        let pipes = [
            tokio::spawn(pour(child.stdout.take(), Arc::clone(&self.log))),
            tokio::spawn(pour(child.stderr.take(), Arc::clone(&self.log))),
        ];
        Ok(Running {
            _guard: child.stdin.take(),
            child,
            pid,
            pipes,
        })
    }

    /// Ends what is left of a life: the server after `grace`, then its group.
    async fn end(&self, mut running: Running, grace: Duration) {
        if !grace.is_zero() {
            self.group.signal(Signal::SIGTERM);
            if timeout(grace, running.child.wait()).await.is_err() {
                warn!(
                    pid = running.pid,
                    "opencode did not end on SIGTERM; killing it"
                );
            }
        }
        // Also after it has ended by itself: tools it started and the guard are still there. While the guard lives no
        // other group can have this number.
        self.group.signal(Signal::SIGKILL);
        let _ = running.child.wait().await;
        self.group.set(None);
        for mut pipe in running.pipes {
            // Somebody outside the group may hold the pipe; its words are not waited for.
            if timeout(Duration::from_secs(1), &mut pipe).await.is_err() {
                pipe.abort();
            }
        }
    }
}

fn how(exit: std::io::Result<ExitStatus>) -> String {
    match exit {
        Ok(status) => format!("it ended with {status}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}

/// Pours one of its outputs into the log, line by line, in bounded memory.
async fn pour(pipe: Option<impl AsyncRead + Unpin>, log: Arc<Mutex<ChildLog>>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = vec![0; 8 << 10];
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let read = pipe.read(&mut piece).await.unwrap_or(0);
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        for part in piece[..read].split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(part);
            if pending.ends_with(b"\n") {
                pending.pop();
                log.line(&pending);
                pending.clear();
            } else if pending.len() >= LINE_BOUND {
                log.line(&pending);
                pending.clear();
            }
        }
        if read == 0 {
            if !pending.is_empty() {
                log.line(&pending);
            }
            return;
        }
    }
}

/// A port nobody listens on now. Somebody else may take it before it is used; the supervisor tries again until it is
/// free.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

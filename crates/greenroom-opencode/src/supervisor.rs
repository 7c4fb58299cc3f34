//! The lives of a supervised opencode: starts it, waits for its health, waits for its death, starts it again. Owned by
//! [`crate::OpencodeChild`], which reads its state from a channel and ends it.
//!
//! The process started is `/bin/sh`, which leaves a guard in the group and becomes opencode. The guard reads a pipe we
//! hold open: when we are gone, however that came (also `kill -9`), it ends the whole group.

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

use crate::address::ServerAddress;
use crate::backoff::Backoff;
use crate::child::{ChildState, ServeOptions};
use crate::child_log::ChildLog;
use crate::health::wait_until_healthy;

/// A server that has not become healthy in this time is started again.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// After SIGTERM; opencode has been seen to ignore it.
const GRACE: Duration = Duration::from_secs(5);
/// After so long in good health a death is no longer one of a row.
const STEADY: Duration = Duration::from_secs(60);
/// A line longer than this is broken up.
const LINE_BOUND: usize = 64 << 10;

/// Leaves the guard, then becomes the program. The guard ignores the SIGTERM of an ordinary stop, whose end it does not
/// decide; it keeps no output pipe open.
const GUARDED: &str = r#"exec 3<&0
(trap '' TERM; read -r _ <&3; kill -TERM 0; sleep 5; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-"#;

/// The process group of the server that runs now, if any. Written by the supervisor, read by whoever ends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn set(&self, group: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = group;
    }

    /// Signals the group, if there is one. The lock is held, so that no group is signalled that was given up meanwhile and may be somebody else's by now.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // A group that has ended already is what was wanted.
            let _ = killpg(group, signal);
        }
    }
}

/// What starts and restarts one server.
pub(crate) struct Supervisor {
    pub(crate) options: ServeOptions,
    pub(crate) address: ServerAddress,
    pub(crate) port: u16,
    pub(crate) log: Arc<Mutex<ChildLog>>,
    pub(crate) group: Group,
    pub(crate) says: watch::Sender<ChildState>,
    pub(crate) failures: u32,
    pub(crate) backoff: Backoff,
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
    /// Until it is told to stop.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
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

//! The supervisor of one opencode: starts it, waits for its health, waits for its exit, restarts it. Owned by
//! [`crate::OpencodeChild`], which reads its state from a channel.
//!
//! The started process is `/bin/sh`, which starts a guard in its process group and then becomes opencode. The guard reads a
//! pipe that this process holds open: when this process ends in any way (also by `kill -9`), the guard ends the group.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
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
use crate::lock;

/// A server that is not healthy within this time is restarted.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// The time between SIGTERM and SIGKILL; opencode may ignore SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// A server that was healthy for this time resets the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// A longer line is split.
const LINE_BOUND: usize = 64 << 10;

/// Starts the guard, then becomes the program. The guard ignores SIGTERM, which is part of an ordinary stop, and keeps no
/// output pipe open.
const GUARD_SCRIPT: &str = r#"exec 3<&0
(trap '' TERM; read -r _ <&3; kill -TERM 0; sleep 5; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-"#;

/// The process group of the running server, if any. Written by the supervisor; read when the server is ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessGroup(Arc<Mutex<Option<Pid>>>);

impl ProcessGroup {
    fn set(&self, group: Option<Pid>) {
        *lock(&self.0) = group;
    }

    /// Signals the group, if there is one. The lock is held meanwhile: once the group is cleared, its number may belong to
    /// another process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = *lock(&self.0) {
            // The group may have ended already.
            let _ = killpg(group, signal);
        }
    }
}

/// Starts and restarts one server.
pub(crate) struct Supervisor {
    pub(crate) options: ServeOptions,
    pub(crate) address: ServerAddress,
    pub(crate) port: u16,
    pub(crate) log: Arc<Mutex<ChildLog>>,
    pub(crate) group: ProcessGroup,
    pub(crate) state: watch::Sender<ChildState>,
    pub(crate) failures: u32,
    pub(crate) backoff: Backoff,
}

/// A running server process.
struct RunningServer {
    child: Child,
    pid: u32,
    /// Held open for the guard.
    _guard: Option<ChildStdin>,
    pipes: [JoinHandle<()>; 2],
}

/// How a server process ended.
enum Exit {
    Died(String),
    Stopped,
}

impl Supervisor {
    /// Runs until `stop` is signalled.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            self.state.send_replace(ChildState::Starting);
            let reason = match self.run_once(&mut stop).await {
                Exit::Stopped => break,
                Exit::Died(reason) => reason,
            };
            let wait = self.backoff.wait();
            warn!(%reason, failures = self.failures, wait_ms = wait.as_millis(), "opencode died");
            self.state.send_replace(ChildState::Restarting {
                reason,
                failures: self.failures,
            });
            tokio::select! {
                () = sleep(wait) => {}
                _ = &mut stop => break,
            }
        }
        info!("opencode stopped");
        self.state.send_replace(ChildState::Stopped);
    }

    async fn run_once(&mut self, stop: &mut oneshot::Receiver<()>) -> Exit {
        let mut running = match self.spawn() {
            Ok(running) => running,
            Err(error) => {
                self.failures += 1;
                return Exit::Died(format!(
                    "{} cannot be started: {error}",
                    self.options.program.display()
                ));
            }
        };
        let healthy = tokio::select! {
            exit = running.child.wait() => Err(describe_exit(exit)),
            healthy = wait_until_healthy(&self.address, BOOT_LIMIT) => healthy.map_err(|error| error.to_string()),
            _ = &mut *stop => {
                self.end(running, GRACE).await;
                return Exit::Stopped;
            }
        };
        let reason = match healthy {
            Ok(version) => {
                let up = Instant::now();
                self.failures = 0;
                info!(pid = running.pid, %version, url = %self.address.url, "opencode is up");
                self.state.send_replace(ChildState::Up { pid: running.pid });
                let reason = tokio::select! {
                    exit = running.child.wait() => describe_exit(exit),
                    _ = stop => {
                        self.end(running, GRACE).await;
                        return Exit::Stopped;
                    }
                };
                if up.elapsed() >= STABLE_AFTER {
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
        let output = lock(&self.log).last_lines();
        Exit::Died(if output.is_empty() {
            reason
        } else {
            format!("{reason}: {output}")
        })
    }

    fn spawn(&self) -> std::io::Result<RunningServer> {
        // Fails here with a clearer error than the shell's.
        std::fs::metadata(&self.options.program)?;
        let mut command = Command::new("/bin/sh");
        if !self.options.inherit_environment {
            command.env_clear();
        }
        command
            .args(["-c", GUARD_SCRIPT, "sh"])
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
                // The published address has no password, so the server must not have one either.
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
        lock(&self.log).clear_recent();
        let pipes = [
            tokio::spawn(copy_to_log(child.stdout.take(), Arc::clone(&self.log))),
            tokio::spawn(copy_to_log(child.stderr.take(), Arc::clone(&self.log))),
        ];
        Ok(RunningServer {
            _guard: child.stdin.take(),
            child,
            pid,
            pipes,
        })
    }

    /// Ends the server after `grace`, then its process group.
    async fn end(&self, mut running: RunningServer, grace: Duration) {
        if !grace.is_zero() {
            self.group.signal(Signal::SIGTERM);
            if timeout(grace, running.child.wait()).await.is_err() {
                warn!(
                    pid = running.pid,
                    "opencode did not end on SIGTERM; killing it"
                );
            }
        }
        // Also after the server has exited: its tools and the guard may still run. While the guard runs, no other group can
        // have this number.
        self.group.signal(Signal::SIGKILL);
        let _ = running.child.wait().await;
        self.group.set(None);
        for mut pipe in running.pipes {
            // A process outside the group may hold the pipe; its output is not waited for.
            if timeout(Duration::from_secs(1), &mut pipe).await.is_err() {
                pipe.abort();
            }
        }
    }
}

fn describe_exit(exit: std::io::Result<ExitStatus>) -> String {
    match exit {
        Ok(status) => format!("it ended with {status}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}

/// Copies an output of the server into the log, line by line, in bounded memory.
async fn copy_to_log(pipe: Option<impl AsyncRead + Unpin>, log: Arc<Mutex<ChildLog>>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = vec![0; 8 << 10];
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let read = pipe.read(&mut piece).await.unwrap_or(0);
        let mut log = lock(&log);
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

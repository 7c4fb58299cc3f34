//! Runs a child process in its own process group, with its output in a file. Dropping it, also in a panic, kills the whole
//! group. Used for the agent server and the service.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A child process and its log.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with both its outputs in `log`.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> Self {
        let out = File::create(log).expect("the log can be written");
        let err = out.try_clone().expect("a file can be opened twice");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Self::spawn(name, command, log)
    }

    fn spawn(name: &'static str, command: &mut Command, log: &Path) -> Self {
        let child = command.process_group(0).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("cannot start {name} ({:?}): {error}", command.get_program())
        });
        Self {
            name,
            child,
            log: log.to_owned(),
        }
    }

    /// Returns its output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("the status of a child is readable")
    }

    /// Sends a signal to the process, not to its group.
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("the process exists");
    }

    /// Kills the process group, and waits for the process.
    pub fn kill(&mut self) {
        // It may have ended by itself; its group may live on.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                begin.elapsed() < limit,
                "{} did not end in {limit:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the exit code; the number of a signal is negative.
    pub fn code(status: ExitStatus) -> i32 {
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Returns its resident memory in KiB from `/proc`; `None` if the system has no `/proc`.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let newest = &lines[lines.len().saturating_sub(60)..];
            eprintln!(
                "---- end of the output of {}:\n{}\n----",
                self.name,
                newest.join("\n")
            );
        }
    }
}

/// Returns a port that was free just now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

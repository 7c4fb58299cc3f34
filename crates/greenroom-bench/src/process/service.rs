//! Starts and stops a `greenroom serve` process. This program contains the whole command, and runs it if its first
//! argument is `serve`, so that no other binary is needed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The time limit of a start.
const READY: Duration = Duration::from_secs(60);
/// The time limit of a stop.
const END: Duration = Duration::from_secs(30);

/// A running service; it is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// Its URL.
    pub url: String,
    /// The time from the start to the line `listening on`.
    pub ready_after: Duration,
}

impl Service {
    /// Starts a service on that agent server and journal with these configuration keys, and waits until it is ready.
    pub fn start(agent: &str, journal: &Path, set: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--opencode", agent, "--listen", "127.0.0.1:0"])
            .args(["--directory", "/", "--journal"])
            .arg(journal)
            .args(["--set", "auth=none"]);
        for pair in set {
            command.args(["--set", pair]);
        }
        // The user's own configuration does not apply here.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GREENROOM_") {
                command.env_remove(name);
            }
        }
        let folder = journal.parent().unwrap_or(Path::new("/"));
        command
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", folder)
            .current_dir(folder)
            .env("GREENROOM_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let (ready, listening) = mpsc::channel();
        // Reads to the end, so that the service is never held up by a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match line.strip_prefix("listening on ") {
                    Some(url) => {
                        // The receiver may have timed out.
                        let _ = ready.send((url.to_owned(), Instant::now()));
                    }
                    None => eprintln!("service: {line}"),
                }
            }
        });
        let mut service = Self {
            child,
            url: String::new(),
            ready_after: Duration::ZERO,
        };
        let (url, at) = listening
            .recv_timeout(READY)
            .map_err(|_| "the service does not start; see its output above".to_owned())?;
        service.url = url;
        service.ready_after = at - begin;
        Ok(service)
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub fn stop(mut self) -> Result<ExitStatus, String> {
        let pid = i32::try_from(self.pid()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| error.to_string())?;
        let end = Instant::now() + END;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!(
            "the service has not ended {} s after SIGTERM",
            END.as_secs()
        ))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

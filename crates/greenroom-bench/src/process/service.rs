//! One `greenroom serve` process. The whole command is in a library, so that this program is it, when its first word is
//! `serve`: nothing else has to be built or found.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Until it says that it can be used.
const READY: Duration = Duration::from_secs(60);
/// Until it has ended after it was told to.
const END: Duration = Duration::from_secs(30);

/// A running service; it is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// Where it listens, as a URL.
    pub url: String,
    /// How long it took until it said that it can be used.
    pub ready_after: Duration,
}

impl Service {
    /// Starts one on that agent server and journal, with these keys of the configuration, and waits until it is ready.
    pub fn start(agent: &str, journal: &Path, set: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--opencode", agent, "--listen", "127.0.0.1:0"])
            .args(["--directory", "/", "--journal"])
            .arg(journal);
        for pair in set {
            command.args(["--set", pair]);
        }
        // What a user has configured for theirs does not count here.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GREENROOM_") {
                command.env_remove(name);
            }
        }
        let folder = journal.parent().unwrap_or(Path::new("/"));
        // What it says of single tasks is not read.
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
        let said = child.stderr.take().expect("it was asked for");
        let (ready, listening) = mpsc::channel();
        // Reads to the end, so that the service is never held up by a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                match line.strip_prefix("listening on ") {
                    Some(url) => {
                        // Whoever waits may have given up.
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
            .map_err(|_| "the service does not come up; what it said is above".to_owned())?;
        service.url = url;
        service.ready_after = at - begin;
        Ok(service)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a user does, and waits for that.
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

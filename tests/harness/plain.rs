//! opencode as users run it, on a terminal or with `opencode run`: it listens on no port, and all calls go over the bridge of
//! its plugin, which also starts the service. The stories read its data afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom_opencode::hermetic::Hermetic;
use greenroom_rehearsal::Rehearsal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use super::opencode::{Opencode, prepared};
use super::plugged::install_plugin;
use super::process::Process;
use super::service::greenroom_bin;
use super::stage::{new_project, opencode_bin};
use super::state::service_state;
use super::terminal::Terminal;
use super::until_or_print;

/// A user's machine: a home folder, a model and the `greenroom` command, without a running service.
#[derive(Debug)]
pub struct Workstation {
    /// The model.
    pub rehearsal: Rehearsal,
    setup: Hermetic,
    http: Client,
    started: AtomicUsize,
    folder: TempDir,
}

impl Workstation {
    /// Prepares a workstation on which only the model runs.
    pub async fn open() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("greenroom-e2e-")
            .disable_cleanup(std::env::var_os("GREENROOM_E2E_KEEP").is_some())
            .tempdir()
            .expect("a temporary folder");
        let rehearsal = Rehearsal::start(([127, 0, 0, 1], 0).into()).expect("the model starts");
        let command = write_recording_command(folder.path());
        let variables = [
            (
                "GREENROOM_BIN",
                command.to_str().expect("the path is UTF-8"),
            ),
            ("RUST_LOG", "info,greenroom=debug"),
            ("TERM", "xterm-256color"),
        ];
        let setup = prepared(folder.path(), &rehearsal.base_url(), &variables).await;
        let http = Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        Self {
            rehearsal,
            setup,
            http,
            started: AtomicUsize::new(0),
            folder,
        }
    }

    /// Creates a project with the plugin installed.
    pub async fn project(&self) -> TempDir {
        let project = new_project(self.folder.path());
        install_plugin(self.folder.path(), project.path()).await;
        project
    }

    /// Lets opencode create its tables. Of processes that start concurrently without data, each creates them, and all but
    /// one fail.
    pub async fn with_data(self) -> Self {
        // Outside a project: a process that ends while it installs a project's packages delays the next by a minute.
        let mut command = self.opencode(self.folder.path());
        command.args(["db", "select 1"]);
        let mut process = Process::start("opencode db", &mut command, &self.log());
        let status = process.wait(super::TIMEOUT).await;
        assert!(status.success(), "{}", process.output());
        self
    }

    /// Starts `opencode` on a terminal, and waits until its plugin is connected to the service, which the plugin starts if
    /// none runs.
    pub async fn terminal(&self, project: &Path) -> Terminal {
        let terminal = Terminal::start(
            "opencode on a terminal",
            self.opencode(project),
            &self.log(),
        );
        self.waits("the plugin is connected", async || {
            let ready = self.ask("/readyz").await?;
            (ready["bridges"].as_u64()? > 0).then_some(())
        })
        .await;
        terminal
    }

    /// Starts `opencode` on a terminal, and submits a prompt once the plugin is connected: a tool call waits only some
    /// seconds for the service, which may start more slowly on a busy machine.
    pub async fn prompted_terminal(&self, project: &Path, prompt: &str) -> Terminal {
        let terminal = self.terminal(project).await;
        terminal.submits(prompt).await;
        terminal
    }

    /// Starts the service by a plugin and leaves it running, for an `opencode run` that calls its first tool at once.
    pub async fn with_service(self, project: &Path) -> Self {
        self.terminal(project).await.kill().await;
        self.waits("the bridge is gone", async || {
            let ready = self.ask("/readyz").await?;
            (ready["bridges"] == 0).then_some(())
        })
        .await;
        self
    }

    /// Starts `opencode run` with a prompt. It ends when its agent is idle.
    pub fn run(&self, project: &Path, prompt: &str) -> Process {
        let mut command = self.opencode(project);
        // It adds quotes around arguments that contain spaces.
        command.arg("run").args(prompt.split(' '));
        Process::start("opencode run", &mut command, &self.log())
    }

    /// Starts a server on the same data, to read the messages.
    pub async fn reader(&self) -> Opencode {
        Opencode::on(self.folder.path(), &self.setup).await
    }

    /// Returns the answer of the service to a GET request; `None` while no service runs. It is found as the plugin finds it.
    pub async fn ask(&self, path: &str) -> Option<Value> {
        let home = self.folder.path().join("home");
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let described = read(&home.join(".local/state/greenroom/service.json"))?;
        let described: Value = serde_json::from_str(&described).ok()?;
        let token = read(Path::new(described["tokenFile"].as_str()?))?;
        let url = described["url"].as_str()?;
        let request = self.http.get(format!("{url}{path}"));
        let answer = request.bearer_auth(token.trim()).send().await;
        answer.ok()?.json().await.ok()
    }

    /// Returns all tasks, oldest first; `None` while no service runs.
    pub async fn tasks(&self) -> Option<Vec<Value>> {
        let answer = self.ask("/v1/tasks").await?;
        let mut tasks = answer["tasks"].as_array()?.clone();
        tasks.reverse();
        Some(tasks)
    }

    /// Waits until `ask` returns a value; a failure prints the state of the service.
    pub async fn waits<T>(&self, what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
        until_or_print(what, ask, async || self.state().await).await
    }

    /// Returns the state of the service as text.
    pub async fn state(&self) -> String {
        service_state(async |path: String| self.ask(&path).await).await
    }

    /// Waits until that many tasks have ended, and returns them, oldest first.
    pub async fn ended_tasks(&self, count: usize) -> Vec<Value> {
        self.waits("the tasks have ended", async || {
            let tasks = self.tasks().await?;
            let open = |task: &Value| task["status"] == "pending" || task["status"] == "running";
            (tasks.len() == count && !tasks.iter().any(open)).then_some(tasks)
        })
        .await
    }

    /// Returns the number of services that were started.
    pub fn services(&self) -> usize {
        self.pids().len()
    }

    /// Kills the newest service.
    pub fn kill_service(&self) {
        let pid = *self.pids().last().expect("a service was started");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the service runs");
    }

    fn opencode(&self, project: &Path) -> Command {
        let mut command = Command::new(opencode_bin());
        command
            .current_dir(project)
            .env_clear()
            .envs(&self.setup.environment);
        command
    }

    fn log(&self) -> PathBuf {
        let nth = self.started.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("opencode-{nth}.log"))
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Workstation {
    fn drop(&mut self) {
        // The plugin's service is in no process group of the tests; it would run for an hour.
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            let logs = self.folder.path().join("home/.local/state/greenroom");
            for log in std::fs::read_dir(logs).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let newest = &lines[lines.len().saturating_sub(60)..];
                eprintln!("---- {}:\n{}", log.path().display(), newest.join("\n"));
            }
        }
    }
}

/// Writes a script that records its process id and runs the built command.
fn write_recording_command(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("greenroom");
    let script = format!(
        "#!/bin/sh\necho $$ >> '{}'\nexec '{}' \"$@\"\n",
        folder.join("pids").display(),
        greenroom_bin().display()
    );
    std::fs::write(&path, script).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file");
    path
}

//! The built command as a service, and its HTTP API as a foreign program uses it: JSON only, without types of the crates.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::process::Process;
use super::until;

/// A running `greenroom serve`.
#[derive(Debug)]
pub struct Service {
    /// The process: stories of the command send it signals.
    pub process: Process,
    url: String,
    http: Client,
    home: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    starts: usize,
}

/// The built command.
pub fn greenroom_bin() -> PathBuf {
    std::env::var_os("GREENROOM_BIN")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            // Next to the folder of this test binary.
            let test = std::env::current_exe().expect("a process knows its file");
            test.ancestors()
                .nth(2)
                .expect("a target folder")
                .join("greenroom")
        })
}

impl Service {
    /// Starts the service on an agent server, and waits until it prints its address.
    pub async fn start(
        opencode_url: &str,
        directory: &Path,
        settings: &[&str],
        log: &Path,
    ) -> Self {
        Self::start_on("127.0.0.1:0", opencode_url, directory, settings, log).await
    }

    /// Starts the service at a fixed address, which a restart keeps.
    pub async fn start_on(
        listen: &str,
        opencode_url: &str,
        directory: &Path,
        settings: &[&str],
        log: &Path,
    ) -> Self {
        let home = log.parent().expect("the log is in a folder");
        let mut args: Vec<OsString> = ["serve", "--listen", listen, "--opencode"]
            .map(OsString::from)
            .into();
        args.extend([opencode_url.into(), "--directory".into(), directory.into()]);
        if !settings
            .iter()
            .any(|setting| setting.starts_with("journal="))
        {
            args.extend(["--journal".into(), "".into()]);
        }
        if !settings.iter().any(|setting| setting.starts_with("token")) {
            args.extend(["--set".into(), "auth=none".into()]);
        }
        for setting in settings {
            args.extend(["--set".into(), setting.into()]);
        }
        let mut process = begin(home, &args, log);
        let url = ready(&mut process).await;
        let http = Client::builder()
            .timeout(Duration::from_secs(120))
            .build()
            .expect("a client");
        Self {
            process,
            url,
            http,
            home: home.to_owned(),
            args,
            log: log.to_owned(),
            starts: 1,
        }
    }

    /// Starts the service again with the same arguments, without waiting for it. The previous process must have ended.
    pub fn restart(&mut self) {
        let log = self.log.with_extension(format!("{}.log", self.starts));
        self.starts += 1;
        self.process = begin(&self.home, &self.args, &log);
    }

    /// Waits until the restarted service is ready. Its address may be new.
    pub async fn wait_until_ready(&mut self) {
        self.url = ready(&mut self.process).await;
    }

    /// Returns its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Launches a task that must be accepted.
    pub async fn launch(&self, launch: Value) -> Value {
        let (status, task) = self.post("/v1/tasks", launch).await;
        assert_eq!(status, 201, "{task}");
        task
    }

    /// Returns a task.
    pub async fn task(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v1/tasks/{id}")).await;
        assert_eq!(status, 200, "{answer}");
        // A pending task may be wrapped with the reason why it waits.
        answer.get("task").cloned().unwrap_or(answer)
    }

    /// Waits until a task is in that state, and returns it.
    pub async fn reaches(&self, id: &str, wanted: &str) -> Value {
        until(&format!("{id} is {wanted}"), async || {
            let task = self.task(id).await;
            let status = task["status"].as_str().expect("a task has a state");
            assert!(
                status == wanted
                    || !matches!(status, "completed" | "error" | "cancelled" | "interrupt"),
                "wanted {wanted}: {task}"
            );
            (status == wanted).then_some(task)
        })
        .await
    }

    /// Waits for the end of a task with blocking calls, and returns it. It also finds tasks that leave memory at their end.
    pub async fn ended(&self, id: &str) -> Value {
        let path = format!("/v1/tasks/{id}/output?block=true&timeoutMs=60000");
        until(&format!("{id} has ended"), async || {
            let (status, answer) = self.get(&path).await;
            assert_eq!(status, 200, "{answer}");
            (answer["timedOut"] != true).then(|| answer["task"].clone())
        })
        .await
    }

    /// Returns the result of a task.
    pub async fn result(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v1/tasks/{id}/output")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until no slot is held and no task waits.
    pub async fn slots_are_free(&self) {
        until("all slots are free", async || {
            let (_, limits) = self.get("/v1/limits").await;
            let free = limits["inUse"] == 0
                && limits["keys"]
                    .as_array()
                    .expect("keys")
                    .iter()
                    .all(|key| key["inUse"] == 0 && key["waiting"] == 0);
            free.then_some(())
        })
        .await;
    }

    /// Sends a GET request; returns the status and the body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    /// Sends a POST request; returns the status and the body.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Sends a PUT request; returns the status and the body.
    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Returns a request to the service.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a text");
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| json!({"text": text})),
        )
    }

    /// Runs the command against this service, as a user does.
    pub async fn command(&self, args: &[&str]) -> Ran {
        let mut command = greenroom(&self.home);
        command.args(args).env("GREENROOM_URL", &self.url);
        run(command).await
    }
}

fn begin(home: &Path, args: &[OsString], log: &Path) -> Process {
    let mut command = greenroom(home);
    command.args(args);
    Process::start("greenroom", &mut command, log)
}

/// The outputs of a command, and its exit code.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Runs a command to its end.
pub async fn run(command: Command) -> Ran {
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(super::TIMEOUT, command.kill_on_drop(true).output()).await;
    let ended = ended
        .expect("the command ends")
        .expect("the command can be run");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: Process::code(ended.status),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}

/// Returns the command without the configuration of the user who runs the tests.
pub fn greenroom(home: &Path) -> Command {
    let mut command = Command::new(greenroom_bin());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for name in [
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "TMPDIR",
    ] {
        command.env(name, home);
    }
    // A log that explains a failure.
    command
        .env("NO_COLOR", "1")
        .env("RUST_LOG", "info,greenroom=debug")
        .current_dir(home);
    command
}

/// Waits for the line `listening on`, and returns the address in it.
pub async fn ready(process: &mut Process) -> String {
    until("greenroom prints its address", async || {
        let output = process.output();
        assert!(
            process.ended().is_none(),
            "greenroom ended at its start: {output}"
        );
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix("listening on "))?;
        Some(line.trim().trim_end_matches('/').to_owned())
    })
    .await
}

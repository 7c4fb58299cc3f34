//! The real agent server, apart from any other on the machine: folders of its own, a scripted model, no network. Started
//! by a stage; stories play the user's part through it (sessions, prompts, aborts).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use greenroom_opencode::hermetic::Hermetic;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use super::process::{Process, free_port};
use super::until;

/// The number of models besides `small` and `large`: each story uses its own model.
pub const STORY_MODELS: usize = 80;
/// The number of attempts to boot, since a port may be taken meanwhile.
const BOOTS: usize = 3;

/// Prepares isolated folders for an agent server, and its environment with these further variables.
pub async fn prepared(home: &Path, model_url: &str, variables: &[(&str, &str)]) -> Hermetic {
    let models = ["small", "large"].map(str::to_owned).into_iter();
    let models: Vec<String> = models
        .chain((0..STORY_MODELS).map(|nth| format!("m{nth}")))
        .collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let setup = Hermetic::prepare(home, model_url, &models, &serde_json::Map::new()).await;
    let mut setup = setup.expect("the folders can be prepared");
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    setup.environment.extend(variables);
    setup
}

/// Edits the configuration file of a prepared server.
pub fn edit_config(setup: &Hermetic, edit: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(&setup.config).expect("the configuration can be read");
    let mut config = serde_json::from_str(&text).expect("the configuration is JSON");
    edit(&mut config);
    std::fs::write(&setup.config, config.to_string()).expect("the configuration can be written");
}

/// A running agent server.
#[derive(Debug)]
pub struct Opencode {
    process: Process,
    home: PathBuf,
    setup: Hermetic,
    port: u16,
    http: Client,
}

impl Opencode {
    /// Boots a server whose folders are in `home`, with the model provider at `model_url` and these further variables,
    /// some of which its plugin reads.
    pub async fn start(home: &Path, model_url: &str, variables: &[(&str, &str)]) -> Self {
        Self::on(home, &prepared(home, model_url, variables).await).await
    }

    /// Boots a server in prepared folders.
    pub async fn on(home: &Path, setup: &Hermetic) -> Self {
        for _ in 1..BOOTS {
            if let Some(server) = Self::boot(home, setup, free_port()).await {
                return server;
            }
        }
        Self::boot(home, setup, free_port())
            .await
            .expect("opencode boots")
    }

    /// Kills the server and boots it again with the same port and data.
    pub async fn kill_and_restart(&mut self, pause: Duration) {
        self.process.kill();
        tokio::time::sleep(pause).await;
        let again = Self::boot(&self.home, &self.setup, self.port).await;
        *self = again.expect("opencode boots again on its port");
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn boot(home: &Path, setup: &Hermetic, port: u16) -> Option<Self> {
        let mut command = Command::new(super::stage::opencode_bin());
        command.args([
            "serve",
            "--hostname",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command
            .current_dir(&setup.project)
            .env_clear()
            .envs(&setup.environment);
        let process = Process::start("opencode", &mut command, &home.join("opencode.log"));
        let http = Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        let mut server = Self {
            process,
            home: home.to_owned(),
            setup: setup.clone(),
            port,
            http,
        };
        let up = until("opencode is healthy", async || {
            if server.process.ended().is_some() {
                return Some(false);
            }
            // The first requests of a boot may never be answered, so each has a short time limit.
            let request = server
                .http
                .get(format!("{}/global/health", server.url()))
                .timeout(Duration::from_millis(500));
            matches!(request.send().await, Ok(answer) if answer.status().is_success())
                .then_some(true)
        });
        up.await.then_some(server)
    }

    /// Creates a session in a directory, with or without a parent.
    pub async fn create_session(&self, directory: &Path, parent: Option<&str>) -> String {
        let mut body = json!({"title": "a story"});
        if let Some(parent) = parent {
            body["parentID"] = json!(parent);
        }
        let path = format!("/session?directory={}", directory.display());
        let made = self.ask(Method::POST, &path, Some(body)).await;
        made["id"].as_str().expect("a session has an id").to_owned()
    }

    /// Sends a prompt to a session without waiting for the answer.
    pub async fn prompt(&self, session: &str, agent: &str, model: &str, text: &str) {
        let body = json!({
            "agent": agent, "parts": [{"type": "text", "text": text}],
            "model": {"providerID": "rehearsal", "modelID": model},
        });
        let sent = self
            .send(
                Method::POST,
                &format!("/session/{session}/prompt_async"),
                Some(body),
            )
            .await;
        assert_eq!(sent.status(), 204, "a prompt is accepted");
    }

    /// Returns the messages of a session, oldest first.
    pub async fn messages(&self, session: &str) -> Vec<Value> {
        let path = format!("/session/{session}/message");
        self.ask(Method::GET, &path, None)
            .await
            .as_array()
            .cloned()
            .expect("a list of messages")
    }

    /// Returns the sessions of a directory, with children.
    pub async fn sessions(&self, directory: &Path) -> Vec<Value> {
        let path = format!("/session?directory={}&limit=100000", directory.display());
        self.ask(Method::GET, &path, None)
            .await
            .as_array()
            .cloned()
            .expect("a list of sessions")
    }

    /// Returns whether a session of that directory works or waits for a retry.
    pub async fn is_busy(&self, directory: &Path, session: &str) -> bool {
        let path = format!("/session/status?directory={}", directory.display());
        self.ask(Method::GET, &path, None)
            .await
            .get(session)
            .is_some()
    }

    /// Compacts a session as the user's `/compact` does; returns when it is done.
    pub async fn compact(&self, session: &str, model: &str) {
        let body = json!({"providerID": "rehearsal", "modelID": model});
        let path = format!("/session/{session}/summarize");
        self.ask(Method::POST, &path, Some(body)).await;
    }

    /// Returns a session.
    pub async fn session(&self, session: &str) -> Value {
        self.ask(Method::GET, &format!("/session/{session}"), None)
            .await
    }

    /// Aborts a session as the user's Esc does.
    pub async fn abort(&self, session: &str) {
        self.ask(Method::POST, &format!("/session/{session}/abort"), None)
            .await;
    }

    /// Reverts a session to before one of its messages, as the user's undo does.
    pub async fn revert(&self, session: &str, message: &str) {
        let body = json!({"messageID": message});
        let path = format!("/session/{session}/revert");
        self.ask(Method::POST, &path, Some(body)).await;
    }

    /// Restores the reverted messages, as the user's redo does.
    pub async fn unrevert(&self, session: &str) {
        self.ask(Method::POST, &format!("/session/{session}/unrevert"), None)
            .await;
    }

    /// Copies a session with all its messages. Returns the id of the copy.
    pub async fn fork(&self, session: &str) -> String {
        let path = format!("/session/{session}/fork");
        let copy = self.ask(Method::POST, &path, Some(json!({}))).await;
        copy["id"].as_str().expect("a session has an id").to_owned()
    }

    /// Disposes the instance of a directory: opencode aborts its running sessions.
    pub async fn dispose(&self, directory: &Path) {
        let path = format!("/instance/dispose?directory={}", directory.display());
        self.ask(Method::POST, &path, None).await;
    }

    /// Changes the configuration of a directory, which disposes its instance too.
    pub async fn patch_config(&self, directory: &Path, change: Value) {
        let path = format!("/config?directory={}", directory.display());
        self.ask(Method::PATCH, &path, Some(change)).await;
    }

    /// Edits the configuration file. The server reads it at its next boot.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        edit_config(&self.setup, edit);
    }

    /// Deletes a session and its descendants.
    pub async fn delete(&self, session: &str) {
        self.ask(Method::DELETE, &format!("/session/{session}"), None)
            .await;
    }

    /// Deletes a session after a short delay, when concurrent calls wait for it.
    pub async fn delete_later(&self, session: &str) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.delete(session).await;
    }

    /// Returns its resident memory in KiB; `None` if the system does not report it.
    pub fn resident_kib(&self) -> Option<u64> {
        self.process.resident_kib()
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.send(method, path, body).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("opencode answers in JSON")
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.expect("opencode answers")
    }
}

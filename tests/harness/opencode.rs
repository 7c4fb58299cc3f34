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

/// Models the server knows, besides `small` and `large`: each story takes one that no other uses.
pub const STORY_MODELS: usize = 80;
/// Boots that end at once (a port taken meanwhile) are repeated so often.
const BOOTS: usize = 3;

/// Folders for an agent server that sees nothing else, and its environment with these variables besides.
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
    /// Boots a server whose folders are in `home`, with the model provider at `model_url` and these variables besides:
    /// the plugin in it reads some.
    pub async fn start(home: &Path, model_url: &str, variables: &[(&str, &str)]) -> Self {
        Self::on(home, &prepared(home, model_url, variables).await).await
    }

    /// Boots a server in folders that are prepared.
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

    /// Kills it without warning and boots it again: the same port, the same data.
    pub async fn kill_and_restart(&mut self, pause: Duration) {
        self.process.kill();
        tokio::time::sleep(pause).await;
        let again = Self::boot(&self.home, &self.setup, self.port).await;
        *self = again.expect("opencode boots again on its port");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port alone.
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
            // The first requests of a boot may never be answered: each gets little time.
            let asked = server
                .http
                .get(format!("{}/global/health", server.url()))
                .timeout(Duration::from_millis(500));
            matches!(asked.send().await, Ok(answer) if answer.status().is_success()).then_some(true)
        });
        up.await.then_some(server)
    }

    /// A session in a directory, under a parent or by itself.
    pub async fn create_session(&self, directory: &Path, parent: Option<&str>) -> String {
        let mut body = json!({"title": "a story"});
        if let Some(parent) = parent {
            body["parentID"] = json!(parent);
        }
        let path = format!("/session?directory={}", directory.display());
        let made = self.ask(Method::POST, &path, Some(body)).await;
        made["id"].as_str().expect("a session has an id").to_owned()
    }

    /// Says something to a session, and does not wait for the answer.
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

    /// What was said in a session, oldest first.
    pub async fn messages(&self, session: &str) -> Vec<Value> {
        let path = format!("/session/{session}/message");
        self.ask(Method::GET, &path, None)
            .await
            .as_array()
            .cloned()
            .expect("a list of messages")
    }

    /// The sessions of a directory, children too.
    pub async fn sessions(&self, directory: &Path) -> Vec<Value> {
        let path = format!("/session?directory={}&limit=100000", directory.display());
        self.ask(Method::GET, &path, None)
            .await
            .as_array()
            .cloned()
            .expect("a list of sessions")
    }

    /// True if a session of that directory works or waits to try again.
    pub async fn is_busy(&self, directory: &Path, session: &str) -> bool {
        let path = format!("/session/status?directory={}", directory.display());
        self.ask(Method::GET, &path, None)
            .await
            .get(session)
            .is_some()
    }

    /// The user's `/compact`; returns when it is done.
    pub async fn compact(&self, session: &str, model: &str) {
        let body = json!({"providerID": "rehearsal", "modelID": model});
        let path = format!("/session/{session}/summarize");
        self.ask(Method::POST, &path, Some(body)).await;
    }

    /// A session as it is.
    pub async fn session(&self, session: &str) -> Value {
        self.ask(Method::GET, &format!("/session/{session}"), None)
            .await
    }

    /// The user's Esc.
    pub async fn abort(&self, session: &str) {
        self.ask(Method::POST, &format!("/session/{session}/abort"), None)
            .await;
    }

    /// Deletes a session and all below it.
    pub async fn delete(&self, session: &str) {
        self.ask(Method::DELETE, &format!("/session/{session}"), None)
            .await;
    }

    /// The same a little later, when others have begun to wait for it.
    pub async fn delete_later(&self, session: &str) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.delete(session).await;
    }

    /// How much of it is in memory, in KiB; none where the system does not say.
    pub fn resident_kib(&self) -> Option<u64> {
        self.process.resident_kib()
    }

    /// Kills it without warning.
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

//! Scenes with the plugin installed in the agent server, as a user does it. Agents are scripted by the tool calls of the
//! model.

use std::path::Path;

use serde_json::{Value, json};

use super::process::free_port;
use super::service::{Service, greenroom, run};
use super::stage::{Parent, Scene, Stage, is_finished_answer, unused_model};
use super::until;

/// Settings with which events arrive only over the plugin, not from the event stream or the poll.
const BY_PLUGIN: [&str; 2] = ["opencode.events=bridge", "lifecycle.poll_interval=1h"];

impl Scene<Stage> {
    /// Starts a scene with its own stage and the plugin in its project. The plugin connects to `through`, which is the
    /// service of the scene or a proxy to it.
    pub async fn plugged(settings: &[&str], port: u16, through: &str) -> Self {
        Self::plugged_beside(true, settings, port, through).await
    }

    /// Starts a scene in which the service has no URL of the agent server: every call goes over the plugin's connection.
    pub async fn plugged_alone(settings: &[&str], port: u16, through: &str) -> Self {
        Self::plugged_beside(false, settings, port, through).await
    }

    async fn plugged_beside(url: bool, settings: &[&str], port: u16, through: &str) -> Self {
        let variables = [("GREENROOM_URL", through), ("GREENROOM_AUTOSTART", "0")];
        let stage = Stage::own_with(&variables).await;
        let project = stage.project();
        let home = stage.folder.path();
        install_plugin(home, project.path()).await;
        let settings = [&BY_PLUGIN[..], settings].concat();
        let opencode = if url {
            stage.opencode.url()
        } else {
            String::new()
        };
        let service = Service::start_on(
            &format!("127.0.0.1:{port}"),
            &opencode,
            project.path(),
            &settings,
            &home.join("service.log"),
        )
        .await;
        let scene = Self {
            service,
            stage,
            project,
            model: unused_model(),
        };
        // The plugin is loaded with the first request for its directory.
        scene.opencode().sessions(scene.project.path()).await;
        scene.bridges(1).await;
        scene
    }

    /// Starts a scene with its own stage and the plugin, without a proxy.
    pub async fn with_plugin(settings: &[&str]) -> Self {
        let port = free_port();
        Self::plugged(settings, port, &format!("http://127.0.0.1:{port}")).await
    }
}

impl<S: AsRef<Stage>> Scene<S> {
    /// Waits until that many bridges are connected.
    pub async fn bridges(&self, count: usize) {
        until("the bridges are connected", async || {
            let (_, ready) = self.service.get("/readyz").await;
            (ready["bridges"] == count).then_some(())
        })
        .await;
    }

    /// Sends a prompt to a session, waits for its whole turn, and returns the messages since.
    pub async fn turn(&self, parent: &Parent, text: &str) -> Vec<Value> {
        let before = self.opencode().messages(&parent.session).await.len();
        self.opencode()
            .prompt(&parent.session, parent.agent, "small", text)
            .await;
        until("the turn has ended", async || {
            let since = self
                .opencode()
                .messages(&parent.session)
                .await
                .split_off(before);
            let ended = since.iter().any(is_finished_answer);
            (ended && self.is_idle(&parent.session).await).then_some(since)
        })
        .await
    }

    /// Returns the tasks of a session, oldest first.
    pub async fn tasks_of(&self, session: &str) -> Vec<Value> {
        let (status, answer) = self
            .service
            .get(&format!("/v1/sessions/{session}/tasks"))
            .await;
        assert_eq!(status, 200, "{answer}");
        let mut tasks = answer["tasks"].as_array().cloned().expect("tasks");
        tasks.sort_by_key(|task| task["queuedAt"].as_str().map(str::to_owned));
        tasks
    }
}

/// Installs the plugin in a project, as a user does.
pub(super) async fn install_plugin(home: &Path, project: &Path) {
    let mut install = greenroom(home);
    install
        .args(["plugin", "install", "--project"])
        .arg(project);
    let installed = run(install).await;
    assert_eq!(installed.code, 0, "{}", installed.err);
}

/// Returns the marker with which the model launches a task with that prompt.
pub fn launching(description: &str, model: &str, prompt: &str) -> String {
    let args = json!({
        "description": description, "prompt": prompt, "agent": "general", "model": format!("rehearsal/{model}"),
    });
    format!("[[call background_task {args}]]")
}

/// Returns the states of a tool's calls in these messages.
pub fn tool_parts(messages: &[Value], tool: &str) -> Vec<Value> {
    messages
        .iter()
        .flat_map(|message| message["parts"].as_array().into_iter().flatten())
        .filter(|part| part["type"] == "tool" && part["tool"] == tool)
        .map(|part| part["state"].clone())
        .collect()
}

/// Returns the outputs of a tool in these messages.
pub fn outputs(messages: &[Value], tool: &str) -> Vec<String> {
    tool_parts(messages, tool)
        .iter()
        .map(|state| {
            assert_eq!(state["status"], "completed", "{state}");
            state["output"].as_str().expect("a text").to_owned()
        })
        .collect()
}

//! A stage is an agent server with its scripted model; stories that do not disturb others share one. A scene is the part
//! that one story does not share: a project, a model name, a service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use greenroom_rehearsal::{Level, Rehearsal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::opencode::{Opencode, STORY_MODELS};
use super::service::{Service, greenroom_bin};
use super::until;

/// The shared stage. It is stopped when the last story that uses it has ended.
static SHARED: Mutex<Weak<Stage>> = Mutex::const_new(Weak::new());
/// Held exclusively by stories that measure.
static MEASURING: RwLock<()> = RwLock::new(());
static NEXT_MODEL: AtomicUsize = AtomicUsize::new(0);

/// An agent server and its model.
#[derive(Debug)]
pub struct Stage {
    /// The server.
    pub opencode: Opencode,
    /// The model.
    pub rehearsal: Rehearsal,
    pub(super) folder: TempDir,
}

/// The parts of one story.
#[derive(Debug)]
pub struct Scene<S = Arc<Stage>> {
    /// The service under test. It is dropped before the stage.
    pub service: Service,
    /// The stage, shared or not.
    pub stage: S,
    /// A project that no other story uses.
    pub project: TempDir,
    /// A model that no other story uses.
    pub model: String,
}

/// A session that plays the user's agent.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Its id.
    pub session: String,
    /// The agent it runs as.
    pub agent: &'static str,
}

/// Checks the requirements of the stories.
///
/// # Errors
///
/// Returns a text for the user that names the missing requirement.
pub fn needs() -> Result<(), String> {
    if !opencode_bin().is_file() {
        return Err(
            "GREENROOM_E2E_OPENCODE does not name opencode's binary: run `cargo xtask test`"
                .to_owned(),
        );
    }
    if !greenroom_bin().is_file() {
        return Err(
            "the greenroom command is not built: run `cargo build -p greenroom-server` first"
                .to_owned(),
        );
    }
    Ok(())
}

/// Returns the agent server's binary, which `cargo xtask test` has installed.
pub fn opencode_bin() -> PathBuf {
    std::env::var_os("GREENROOM_E2E_OPENCODE")
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Returns the lock of a story that measures: no other story runs meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MEASURING
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Returns the lock of every other story.
pub fn together() -> RwLockReadGuard<'static, ()> {
    MEASURING
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Stage {
    /// Starts a stage for one story.
    pub async fn own() -> Self {
        Self::own_with(&[]).await
    }

    /// Starts a stage whose agent server has further environment variables.
    pub async fn own_with(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("greenroom-e2e-")
            .disable_cleanup(std::env::var_os("GREENROOM_E2E_KEEP").is_some())
            .tempdir()
            .expect("a temporary folder");
        let rehearsal = Rehearsal::start(([127, 0, 0, 1], 0).into()).expect("the model starts");
        let opencode = Opencode::start(folder.path(), &rehearsal.base_url(), variables).await;
        Self {
            opencode,
            rehearsal,
            folder,
        }
    }

    /// Returns the shared stage, and starts it if needed.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(stage) = shared.upgrade() {
            return stage;
        }
        let stage = Arc::new(Self::own().await);
        *shared = Arc::downgrade(&stage);
        stage
    }

    /// Returns the concurrent requests of a model: now and the maximum.
    pub fn level(&self, model: &str) -> Level {
        self.rehearsal
            .stats()
            .models
            .get(model)
            .map(|model| model.in_flight)
            .unwrap_or_default()
    }

    /// Creates a project: a repository with a commit, so that the server gives it its own id.
    pub fn project(&self) -> TempDir {
        new_project(self.folder.path())
    }
}

/// Creates a project in that folder.
pub fn new_project(folder: &Path) -> TempDir {
    let project = tempfile::Builder::new()
        .prefix("project-")
        .tempdir_in(folder)
        .expect("a folder");
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=story", "-c", "user.email=story@localhost"])
            .args(args);
        let done = command
            .current_dir(project.path())
            .output()
            .expect("git is installed");
        assert!(
            done.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    git(&["init", "-q"]);
    std::fs::write(project.path().join("README.md"), "A project for a story.\n").expect("a file");
    git(&["add", "."]);
    git(&["commit", "-qm", "begin"]);
    project
}

impl Scene {
    /// Starts a scene on the shared stage.
    pub async fn set(settings: &[&str]) -> Self {
        let stage = Stage::shared().await;
        let url = stage.opencode.url();
        Self::on(stage, &url, settings).await
    }
}

impl<S: AsRef<Stage>> Scene<S> {
    /// Starts a scene on that stage, with the service attached to that URL.
    pub async fn on(stage: S, opencode_url: &str, settings: &[&str]) -> Self {
        let project = stage.as_ref().project();
        let log = stage
            .as_ref()
            .folder
            .path()
            .join(format!("{}.log", file_name(project.path())));
        let model = unused_model();
        let service = Service::start(opencode_url, project.path(), settings, &log).await;
        Self {
            service,
            stage,
            project,
            model,
        }
    }

    /// Returns the agent server.
    pub fn opencode(&self) -> &Opencode {
        &self.stage.as_ref().opencode
    }

    /// Creates a session with that agent that has answered a prompt and is idle.
    pub async fn parent(&self, agent: &'static str) -> Parent {
        let session = self
            .opencode()
            .create_session(self.project.path(), None)
            .await;
        self.opencode()
            .prompt(&session, agent, "small", "hello")
            .await;
        let parent = Parent { session, agent };
        until("the parent has answered hello", async || {
            let answered = self
                .opencode()
                .messages(&parent.session)
                .await
                .iter()
                .any(is_finished_answer);
            (answered && self.is_idle(&parent.session).await).then_some(())
        })
        .await;
        parent
    }

    /// Returns a launch of that prompt for that parent, with the model of this scene.
    pub fn task(&self, parent: Option<&Parent>, prompt: &str) -> Value {
        let mut launch = json!({
            "description": "a story", "prompt": prompt, "agent": "general",
            "model": {"providerID": "rehearsal", "modelID": self.model},
        });
        if let Some(parent) = parent {
            launch["parentSessionID"] = json!(parent.session);
        }
        launch
    }

    /// Launches a task, and returns its id.
    pub async fn launch(&self, parent: Option<&Parent>, prompt: &str) -> String {
        id_of(&self.service.launch(self.task(parent, prompt)).await)
    }

    /// Launches a task, waits until its model has a request, and returns the task.
    pub async fn launch_until_working(&self, parent: &Parent, prompt: &str) -> Value {
        let id = self.launch(Some(parent), prompt).await;
        self.works(1).await;
        self.service.reaches(&id, "running").await
    }

    /// Waits until the model of this scene has that many concurrent requests.
    pub async fn works(&self, count: usize) {
        until("the model has its requests", async || {
            (self.stage.as_ref().level(&self.model).now == count).then_some(())
        })
        .await;
    }

    /// Returns whether a session is neither busy nor retrying.
    pub async fn is_idle(&self, session: &str) -> bool {
        !self.opencode().is_busy(self.project.path(), session).await
    }

    /// Returns Greenroom's messages of that kind to that parent.
    pub async fn notices(&self, parent: &Parent, kind: &str) -> Vec<Value> {
        let messages = self.opencode().messages(&parent.session).await;
        messages
            .into_iter()
            .filter(|message| notice_of(message).is_some_and(|notice| notice["kind"] == kind))
            .collect()
    }

    /// Checks the end of most stories: the parent has one final message that names these tasks, was woken by it with its own
    /// agent, and has answered; no slot is held. Returns the text of the final.
    pub async fn notified_once(&self, parent: &Parent, tasks: &[&str]) -> String {
        let text = self.notified(parent, tasks).await;
        until("the parent has answered the final", async || {
            let messages = self.opencode().messages(&parent.session).await;
            let at = messages
                .iter()
                .rposition(|message| notice_of(message).is_some_and(|it| it["kind"] == "final"))?;
            let answer = messages[at + 1..]
                .iter()
                .find(|message| is_finished_answer(message))?;
            assert_eq!(
                answer["info"]["agent"], parent.agent,
                "the wake kept the parent's agent"
            );
            self.is_idle(&parent.session).await.then_some(())
        })
        .await;
        self.service.slots_are_free().await;
        assert_eq!(
            self.notices(parent, "final").await.len(),
            1,
            "one final, also after the answer"
        );
        text
    }

    /// Checks the same for a final that does not wake the parent.
    pub async fn notified(&self, parent: &Parent, tasks: &[&str]) -> String {
        let message = until("the parent has a final", async || {
            self.notices(parent, "final").await.pop()
        })
        .await;
        assert_eq!(self.notices(parent, "final").await.len(), 1, "one final");
        let notice = notice_of(&message).expect("it is Greenroom's message");
        let mut named: Vec<&str> = notice["tasks"]
            .as_array()
            .expect("tasks")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut wanted = tasks.to_vec();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "the final names the whole batch");
        self.service.slots_are_free().await;
        text_of(&message)
    }
}

impl AsRef<Stage> for Stage {
    fn as_ref(&self) -> &Stage {
        self
    }
}

/// Returns the id of a task.
pub fn id_of(task: &Value) -> String {
    task["id"].as_str().expect("a task has an id").to_owned()
}

/// Returns the session of a task.
pub fn session_of(task: &Value) -> String {
    task["sessionID"]
        .as_str()
        .expect("the task has a session")
        .to_owned()
}

/// Returns the text of a message.
pub fn text_of(message: &Value) -> String {
    let parts = message["parts"].as_array().into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

/// Returns whether a message is a finished answer.
pub fn is_finished_answer(message: &Value) -> bool {
    message["info"]["role"] == "assistant" && message["info"]["finish"] == "stop"
}

/// Returns the metadata of a message from Greenroom to a parent.
pub fn notice_of(message: &Value) -> Option<&Value> {
    message["parts"]
        .as_array()?
        .iter()
        .filter_map(|part| part["metadata"].get("greenroom"))
        // The prompts of tasks have metadata too, without a kind.
        .find(|metadata| metadata.get("kind").is_some())
}

/// Returns a model that no other story uses.
pub fn unused_model() -> String {
    format!(
        "m{}",
        NEXT_MODEL.fetch_add(1, Ordering::Relaxed) % STORY_MODELS
    )
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

//! A stage is the agent server with its scripted model; stories that disturb nobody share one. A scene is what one story
//! has for itself on it: a project, a model name, a service.

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

/// The stage in use. It is taken down when the last story on it has ended: nothing outlives the tests.
static SHARED: Mutex<Weak<Stage>> = Mutex::const_new(Weak::new());
/// Stories that measure run alone.
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

/// What one story has for itself.
#[derive(Debug)]
pub struct Scene<S = Arc<Stage>> {
    /// The service under test. Before the stage: it ends first.
    pub service: Service,
    /// Its stage, shared or its own.
    pub stage: S,
    /// A project that no other story works in.
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

/// What is missing to play the stories, in a sentence for people.
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

/// The agent server's binary, as `cargo xtask test` installed it.
pub fn opencode_bin() -> PathBuf {
    std::env::var_os("GREENROOM_E2E_OPENCODE")
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Held by a story that measures: no other runs meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MEASURING
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held by every other story.
pub fn together() -> RwLockReadGuard<'static, ()> {
    MEASURING
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Stage {
    /// A stage for one story.
    pub async fn own() -> Self {
        Self::own_with(&[]).await
    }

    /// The same, its agent server with further variables.
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

    /// The stage that stories share.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(stage) = shared.upgrade() {
            return stage;
        }
        let stage = Arc::new(Self::own().await);
        *shared = Arc::downgrade(&stage);
        stage
    }

    /// Requests of a model: now and at most.
    pub fn level(&self, model: &str) -> Level {
        self.rehearsal
            .stats()
            .models
            .get(model)
            .map(|model| model.in_flight)
            .unwrap_or_default()
    }

    /// A project: a repository with a commit, so that the server gives it an id of its own.
    pub fn project(&self) -> TempDir {
        new_project(self.folder.path())
    }
}

/// A project in that folder.
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
    /// A scene on the shared stage.
    pub async fn set(settings: &[&str]) -> Self {
        let stage = Stage::shared().await;
        let url = stage.opencode.url();
        Self::on(stage, &url, settings).await
    }
}

impl<S: AsRef<Stage>> Scene<S> {
    /// A scene on that stage, the service attached to that address.
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

    /// The server.
    pub fn opencode(&self) -> &Opencode {
        &self.stage.as_ref().opencode
    }

    /// A session that has said hello under that agent and is idle.
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

    /// What to launch: that prompt, for that parent, with the model of this scene.
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

    /// Launches it; returns its id.
    pub async fn launch(&self, parent: Option<&Parent>, prompt: &str) -> String {
        id_of(&self.service.launch(self.task(parent, prompt)).await)
    }

    /// Launches it and waits until its model is asked; returns the task.
    pub async fn launch_and_see_it_work(&self, parent: &Parent, prompt: &str) -> Value {
        let id = self.launch(Some(parent), prompt).await;
        self.works(1).await;
        self.service.reaches(&id, "running").await
    }

    /// Waits until the model of this scene is asked by so many at once.
    pub async fn works(&self, count: usize) {
        until("the model is asked", async || {
            (self.stage.as_ref().level(&self.model).now == count).then_some(())
        })
        .await;
    }

    /// True if the server calls that session neither busy nor retrying.
    pub async fn is_idle(&self, session: &str) -> bool {
        !self.opencode().is_busy(self.project.path(), session).await
    }

    /// Messages of ours to that parent, of that kind.
    pub async fn notices(&self, parent: &Parent, kind: &str) -> Vec<Value> {
        let messages = self.opencode().messages(&parent.session).await;
        messages
            .into_iter()
            .filter(|message| notice_of(message).is_some_and(|notice| notice["kind"] == kind))
            .collect()
    }

    /// The one end of most stories: the parent was told by one final naming these tasks, was woken by it under its own
    /// agent and has answered, and no slot is held. Returns the text of the final.
    pub async fn told_once(&self, parent: &Parent, tasks: &[&str]) -> String {
        let text = self.told(parent, tasks).await;
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

    /// The same for a final that does not wake: nobody answers it.
    pub async fn told(&self, parent: &Parent, tasks: &[&str]) -> String {
        let told = until("the parent is told by a final", async || {
            self.notices(parent, "final").await.pop()
        })
        .await;
        assert_eq!(self.notices(parent, "final").await.len(), 1, "one final");
        let notice = notice_of(&told).expect("it is one of ours");
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
        text_of(&told)
    }
}

impl AsRef<Stage> for Stage {
    fn as_ref(&self) -> &Stage {
        self
    }
}

/// The id of a task.
pub fn id_of(task: &Value) -> String {
    task["id"].as_str().expect("a task has an id").to_owned()
}

/// The session of a task.
pub fn session_of(task: &Value) -> String {
    task["sessionID"]
        .as_str()
        .expect("the task has a session")
        .to_owned()
}

/// The text of a message.
pub fn text_of(message: &Value) -> String {
    let parts = message["parts"].as_array().into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

/// True for an answer that has come to its end.
pub fn is_finished_answer(message: &Value) -> bool {
    message["info"]["role"] == "assistant" && message["info"]["finish"] == "stop"
}

/// What a message of ours to a parent says of itself.
pub fn notice_of(message: &Value) -> Option<&Value> {
    message["parts"]
        .as_array()?
        .iter()
        .filter_map(|part| part["metadata"].get("greenroom"))
        // The prompts of tasks are marked too, with other words.
        .find(|mark| mark.get("kind").is_some())
}

/// A model that no other story uses.
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

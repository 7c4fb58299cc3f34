//! The real opencode, installed into the cache folder if it is not there, in a hermetic folder. Only with
//! `GREENROOM_E2E=1`: it needs npm, and a registry the first time.

use std::time::{Duration, Instant};

use greenroom::EventLink::Connected;
use greenroom::domain::correlation_tag::CorrelationTag;
use greenroom::domain::ids::{ModelRef, Run, SessionId, TaskId};
use greenroom::domain::task::{PermissionAction, PermissionRule};
use greenroom::ports::agent_server::{AgentServer as _, NewSession, TaskPrompt};
use greenroom_opencode::hermetic::Hermetic;
use greenroom_opencode::{
    EventStream, OpencodeChild, OpencodeServer, ServeOptions, StreamTuning, install,
};
use serde_json::Map;

use super::{SinkCalls, recording_sink};

/// A provider that refuses connections.
pub const UNREACHABLE: &str = "http://127.0.0.1:9/v1";

/// Returns true if the end-to-end tests are enabled.
pub fn e2e_enabled() -> bool {
    let enabled = std::env::var("GREENROOM_E2E").is_ok_and(|value| value == "1");
    if !enabled {
        println!("left out: set GREENROOM_E2E=1 to run it");
    }
    enabled
}

/// The real opencode with a provider, a client and its event stream.
pub struct RealOpencode {
    pub server: OpencodeServer,
    pub child: OpencodeChild,
    pub calls: SinkCalls,
    _stream: EventStream,
    pub folder: tempfile::TempDir,
}

impl RealOpencode {
    pub async fn open(provider: &str, password: Option<&str>) -> Self {
        let cache = install::cache_folder().unwrap();
        let program = install::pinned(&cache, &mut |line| println!("{line}"))
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let hermetic = Hermetic::prepare(folder.path(), provider, &["model"], &Map::new())
            .await
            .unwrap();
        let mut options = ServeOptions::new(
            program,
            &hermetic.project,
            folder.path().join("opencode.log"),
        );
        options.inherit_environment = false;
        options.environment = hermetic.environment;
        options.password = password.map(str::to_owned);
        let begin = Instant::now();
        let child = OpencodeChild::start(options).unwrap();
        child.wait_until_up(Duration::from_secs(60)).await.unwrap();
        println!("opencode was up after {:?}", begin.elapsed());
        let server = OpencodeServer::new(child.address().clone()).unwrap();
        let (sink, mut calls) = recording_sink();
        let stream = EventStream::start(server.clone(), sink, StreamTuning::default());
        calls.link(Connected).await;
        Self {
            server,
            child,
            calls,
            _stream: stream,
            folder,
        }
    }

    pub fn directory(&self) -> String {
        self.server.address().directory.clone()
    }

    pub async fn create(
        &self,
        parent: Option<&SessionId>,
        permission: Vec<PermissionRule>,
    ) -> SessionId {
        let session = NewSession {
            task: TaskId::new("bg_00000001"),
            title: "a task (@build subagent)".to_owned(),
            parent: parent.cloned(),
            directory: self.directory().into(),
            agent: "build".into(),
            model: Some(model_ref("model").into()),
            permission,
            tag: tag(),
        };
        self.server.create(session).await.unwrap()
    }

    pub async fn prompt(&self, session: &SessionId, agent: &str, text: &str) {
        let prompt = TaskPrompt {
            agent: agent.into(),
            model: Some(model_ref("model").into()),
            system: Some("be brief".into()),
            text: text.into(),
            tag: tag(),
        };
        self.server
            .prompt(session, Some(&self.directory()), prompt)
            .await
            .unwrap();
    }
}

pub fn model_ref(name: &str) -> ModelRef {
    ModelRef {
        provider_id: "rehearsal".to_owned(),
        model_id: name.to_owned(),
        variant: None,
    }
}

pub fn rule(permission: &str, action: PermissionAction) -> PermissionRule {
    PermissionRule {
        permission: permission.to_owned().into(),
        pattern: "*".into(),
        action,
    }
}

/// The tag of the sessions and prompts of these tests.
pub fn tag() -> CorrelationTag {
    CorrelationTag {
        task: TaskId::new("bg_00000001"),
        run: Run::FIRST,
        attempt: 1,
        prompt: None,
    }
}

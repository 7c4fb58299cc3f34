//! Changes of the server in a story: the state of a session changes and, unless the event is lost, an event
//! is delivered.

use greenroom::domain::instance::Instance;
use greenroom::ports::agent_server::SessionStatus;
use serde_json::{Value, json};

use crate::fixtures::{
    SessionRef, abort_event, delta_event, error_event, idle_event, message_event, model,
    part_event, status_event,
};
use crate::harness::Harness;

impl Harness {
    /// Delivers an event of the server and settles.
    pub async fn event(&self, event: Value) {
        self.send_event(event);
        self.settle().await;
    }

    /// Delivers an event of the server without settling.
    pub fn send_event(&self, event: Value) {
        let greenroom = self.greenroom.clone();
        actix_rt::spawn(async move { greenroom.ingest_event_json(&event).await });
    }

    /// Makes a session busy.
    pub async fn busy(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.server.set_status(&session, Some(SessionStatus::Busy));
        self.event(status_event(&session, json!({"type": "busy"})))
            .await;
    }

    /// Makes a session idle.
    pub async fn idle(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.server.set_status(&session, None);
        self.event(idle_event(&session)).await;
    }

    /// Makes a session idle without an event.
    pub fn idle_without_event(&self, target: impl SessionRef) {
        self.server.set_status(&target.session(&self.server), None);
    }

    /// Completes an answer of the assistant.
    pub async fn answer(&self, target: impl SessionRef, text: &str) {
        let session = target.session(&self.server);
        let info = self.answer_without_event(&session, text);
        self.event(message_event(&session, &info)).await;
    }

    /// Completes an answer of the assistant without an event.
    pub fn answer_without_event(&self, target: impl SessionRef, text: &str) -> Value {
        let session = target.session(&self.server);
        let info = json!({"role": "assistant", "finish": "stop",
            "time": {"completed": self.now()}});
        let parts = json!([{"type": "text", "text": text}]);
        self.server.add_message(&session, info, parts)
    }

    /// Runs a whole turn: busy, a completed answer, idle.
    pub async fn finish_turn(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.busy(&session).await;
        self.answer(&session, "done").await;
        self.idle(&session).await;
    }

    /// Streams text of the assistant.
    pub async fn stream_text(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.event(delta_event(&session)).await;
    }

    /// Fails the session.
    pub async fn fail(&self, target: impl SessionRef, text: &str) {
        let session = target.session(&self.server);
        self.server.set_status(&session, None);
        let error = json!({"name": "APIError", "data": {"message": text}});
        self.event(error_event(&session, error)).await;
    }

    /// Aborts the session from outside Greenroom.
    pub async fn abort_externally(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.server.set_status(&session, None);
        self.event(abort_event(&session)).await;
    }

    /// Aborts the session as an instance does that ends: the abort is stored too.
    pub async fn cut_off(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.store_abort(&session);
        self.event(abort_event(&session)).await;
        self.event(idle_event(&session)).await;
    }

    /// Stores an aborted answer without an event.
    pub fn store_abort(&self, target: impl SessionRef) -> Value {
        let session = target.session(&self.server);
        self.server.set_status(&session, None);
        let info = json!({"role": "assistant", "time": {"completed": self.now()},
            "error": {"name": "MessageAbortedError", "data": {"message": "Aborted"}}});
        let parts = json!([{"type": "text", "text": "half an ans"}]);
        self.server.add_message(&session, info, parts)
    }

    /// Ends the instance of a directory, or every instance.
    pub async fn end_instance(&self, directory: Option<&str>) {
        self.greenroom
            .instance_ended(Instance::in_directory(directory));
        self.settle().await;
    }

    /// Ends the instance of `/base` in a process.
    pub async fn end_process(&self, process: u32) {
        self.greenroom.instance_ended(Instance {
            process: Some(process),
            ..Instance::in_directory(Some("/base"))
        });
        self.settle().await;
    }

    /// Deletes the session.
    pub async fn delete(&self, target: impl SessionRef) {
        let session = target.session(&self.server);
        self.server.remove_session(&session);
        self.event(json!({"type": "session.deleted", "properties": {"info": {"id": session}}}))
            .await;
    }

    /// Prompts a session as its user, optionally with an agent and a model.
    pub async fn user_prompts(
        &self,
        target: impl SessionRef,
        agent: Option<&str>,
        model_name: Option<&str>,
    ) {
        let session = target.session(&self.server);
        let mut info = json!({"role": "user"});
        if let Some(agent) = agent {
            info["agent"] = json!(agent);
        }
        if let Some(name) = model_name {
            info["model"] = json!(model(name));
        }
        let parts = json!([{"type": "text", "text": "hello"}]);
        let info = self.server.add_message(&session, info, parts);
        self.send_event(message_event(&session, &info));
        let part = json!({"messageID": info["id"], "sessionID": session, "type": "text",
            "text": "hello"});
        self.event(part_event(&session, part)).await;
    }
}

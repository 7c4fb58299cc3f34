//! Shared parts of the stories about the ordinary life of opencode: tasks that work until they are cut off, and checks of the
//! messages in the sessions of tasks and parents.

use serde_json::{Value, json};

use super::state::{messages_state, service_state};
use super::{Parent, Scene, Stage, is_finished_answer, notice_of, tool_parts, until_or_print};

/// Prompts that work until they are cut off, one for each shape of a cut turn: without any part, with text, with a tool call.
pub const UNTIL_CUT_OFF: [&str; 3] = [
    // No byte of a response for ten minutes: the turn has no part.
    "[[wait 10m]][[fail 401]]",
    "[[hang]]",
    "[[call bash {\"command\": \"sleep 240\"}]][[say this is never sent]]",
];
/// The number of these prompts with a request to the model at the same time. The third prompt is in its tool call.
pub const ASKING: usize = 2;

/// The model of a parent that is kept busy. No task uses it.
const OF_PARENT: &str = "large";

/// Returns the messages with the role `user`, including the messages of Greenroom.
pub fn user_messages(messages: &[Value]) -> Vec<&Value> {
    let of_user = |message: &&Value| message["info"]["role"] == "user";
    messages.iter().filter(of_user).collect()
}

/// Returns the finals of these messages, with their positions.
pub fn finals(messages: &[Value]) -> Vec<(usize, &Value)> {
    let is_final =
        |(_, message): &(usize, &Value)| notice_of(message).is_some_and(|it| it["kind"] == "final");
    messages.iter().enumerate().filter(is_final).collect()
}

/// Returns whether a finished answer follows that position.
pub fn has_turn_after(messages: &[Value], at: usize) -> bool {
    messages[at + 1..].iter().any(is_finished_answer)
}

/// Returns the finals among the notifications of a session, newest first.
pub fn final_notifications(answer: &Value) -> Vec<Value> {
    let listed = answer["notifications"].as_array().into_iter().flatten();
    // The kind stands beside the id, or among the facts of the message.
    let is_final = |it: &&Value| it["kind"] == "final" || it["facts"]["kind"] == "final";
    listed.filter(is_final).cloned().collect()
}

impl Scene<Stage> {
    /// Launches the three tasks of [`UNTIL_CUT_OFF`] and waits until each works. Returns their ids and sessions.
    pub async fn three_working_tasks(&self, parent: &Parent) -> Vec<(String, String)> {
        let mut tasks = Vec::new();
        for prompt in UNTIL_CUT_OFF {
            let id = self.launch(Some(parent), prompt).await;
            let task = self.service.reaches(&id, "running").await;
            tasks.push((id, super::session_of(&task)));
        }
        let sessions: Vec<&str> = tasks.iter().map(|(_, session)| session.as_str()).collect();
        let what = "one task has no output, one has text, and one is in its tool call";
        self.waits(what, &sessions, async || {
            let asking = self.stage.level(&self.model).now == ASKING;
            let has_text = self.has_output(sessions[1]).await;
            let messages = self.opencode().messages(sessions[2]).await;
            let calls = tool_parts(&messages, "bash");
            let in_call = calls.iter().any(|state| state["status"] == "running");
            (asking && has_text && in_call).then_some(())
        })
        .await;
        tasks
    }

    /// Prompts the parent so that its turn goes on until it is cut off, and waits until there is output.
    pub async fn keep_parent_busy(&self, parent: &Parent) {
        self.opencode()
            .prompt(&parent.session, parent.agent, OF_PARENT, UNTIL_CUT_OFF[1])
            .await;
        let what = "the turn of the parent has output";
        self.waits(what, &[&parent.session], async || {
            let asking = self.stage.level(OF_PARENT).now == 1;
            (asking && self.has_output(&parent.session).await).then_some(())
        })
        .await;
    }

    /// Returns whether the newest message is an answer with a text part. Its text is stored when the part has ended.
    async fn has_output(&self, session: &str) -> bool {
        let messages = self.opencode().messages(session).await;
        let newest = messages
            .last()
            .filter(|it| it["info"]["role"] == "assistant");
        let mut parts = newest
            .into_iter()
            .flat_map(|it| it["parts"].as_array().into_iter().flatten());
        parts.any(|part| part["type"] == "text")
    }

    /// Fails unless each task has completed its first run, was prompted once to continue, and the parent has received exactly
    /// one final, which names all tasks and was answered.
    pub async fn continued_once_and_completed(&self, parent: &Parent, tasks: &[(String, String)]) {
        let mut sessions: Vec<&str> = tasks.iter().map(|(_, session)| session.as_str()).collect();
        sessions.push(&parent.session);
        let what = "each task has ended";
        self.waits(what, &sessions, async || {
            let mut open = 0;
            for (id, _) in tasks {
                let status = self.service.task(id).await["status"].clone();
                open += usize::from(status == "running" || status == "pending");
            }
            (open == 0).then_some(())
        })
        .await;
        for (id, session) in tasks {
            let task = self.service.task(id).await;
            let completed = task["status"] == "completed" && task["run"] == 1;
            let messages = self.opencode().messages(session).await;
            let prompts = user_messages(&messages).len();
            if !completed || prompts != 2 {
                let state = self.state(&sessions).await;
                panic!(
                    "{id}: completed in its first run after one prompt and one to continue; {prompts} prompts\n{state}"
                );
            }
        }
        let ids: Vec<&str> = tasks.iter().map(|(id, _)| id.as_str()).collect();
        self.one_answered_final(parent, &ids).await;
    }
}

impl<S: AsRef<Stage>> Scene<S> {
    /// Waits until the parent has answered a final; fails unless it is the only one, names these tasks, and was
    /// answered under the agent of the parent.
    pub async fn one_answered_final(&self, parent: &Parent, ids: &[&str]) {
        let sessions = [parent.session.as_str()];
        let what = "the parent has answered a final";
        self.waits(what, &sessions, async || {
            let messages = self.opencode().messages(&parent.session).await;
            let answered = finals(&messages)
                .iter()
                .any(|(at, _)| has_turn_after(&messages, *at));
            (answered && self.is_idle(&parent.session).await).then_some(())
        })
        .await;
        self.notified_once(parent, ids).await;
    }

    /// Waits until `ask` returns a value; a failure prints the state of the service and of these sessions.
    pub async fn waits<T>(
        &self,
        what: &str,
        sessions: &[&str],
        ask: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        until_or_print(what, ask, async || self.state(sessions).await).await
    }

    /// Returns the state of the service and of these sessions as text.
    pub async fn state(&self, sessions: &[&str]) -> String {
        let get = async |path: String| {
            let (status, answer) = self.service.get(&path).await;
            (status != 404).then_some(answer)
        };
        let mut state = service_state(get).await;
        for session in sessions {
            let messages = self.opencode().messages(session).await;
            state += &messages_state(session, &messages);
        }
        state
    }

    /// Returns the finals among the notifications of that session, newest first.
    pub async fn final_notifications(&self, session: &str) -> Vec<Value> {
        let path = format!("/v1/sessions/{session}/notifications");
        let (status, answer) = self.service.get(&path).await;
        assert_eq!(status, 200, "{answer}");
        final_notifications(&answer)
    }

    /// Waits until a final is in the parent's messages and returns it. Fails if its status is `delivered` earlier.
    pub async fn stored_final(&self, parent: &Parent) -> Value {
        let sessions = [parent.session.as_str()];
        let what = "a final is in the parent's messages";
        self.waits(what, &sessions, async || {
            // In this order: a message that is delivered at the first read is stored at the second.
            let sent = self.final_notifications(&parent.session).await;
            let messages = self.opencode().messages(&parent.session).await;
            let stored = finals(&messages).first().map(|(_, message)| (*message).clone());
            let delivered = sent.iter().any(|it| it["fate"] == "delivered");
            if delivered && stored.is_none() {
                let state = self.state(&sessions).await;
                panic!(
                    "the status of the final is delivered, but the final is not in the parent's messages\n{state}"
                );
            }
            stored
        })
        .await
    }

    /// Creates a session with that agent and model that has answered a prompt and is idle.
    pub async fn parent_with(&self, agent: &'static str, model: &str) -> Parent {
        let directory = self.project.path();
        let session = self.opencode().create_session(directory, None).await;
        self.opencode()
            .prompt(&session, agent, model, "hello")
            .await;
        self.waits("the parent has answered hello", &[&session], async || {
            let messages = self.opencode().messages(&session).await;
            let answered = messages.iter().any(is_finished_answer);
            (answered && self.is_idle(&session).await).then_some(())
        })
        .await;
        Parent { session, agent }
    }
}

/// Returns the prompt that makes an agent read the result of a task.
pub fn reading(task: &str) -> String {
    format!(
        "[[call background_output {}]][[say read]]",
        json!({"task_id": task})
    )
}

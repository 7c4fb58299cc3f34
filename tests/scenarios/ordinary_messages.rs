//! Messages to a parent whose agent or model has been removed, or whose user has reverted it: a message counts as
//! delivered when it is stored, and nothing that the user can restore is deleted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::ordinary::{finals, has_turn_after};
use crate::harness::{Parent, Scene, Stage, id_of, notice_of, session_of, text_of};

crate::stories![
    final_is_stored_when_the_parent_agent_is_unknown,
    final_is_stored_when_the_parent_agent_is_removed,
    final_is_sent_again_when_the_parent_model_is_removed,
    reason_is_shown_when_the_default_model_fails_too,
    final_waits_while_the_parent_is_reverted,
    final_waits_for_a_reverted_parent_over_a_restart,
    resume_of_a_reverted_session_is_refused,
    send_to_a_reverted_session_is_refused,
];

/// How long a reverted session is observed: longer than the service takes to send a message.
const OBSERVED: Duration = Duration::from_secs(8);

async fn final_is_stored_when_the_parent_agent_is_unknown() {
    let scene = Scene::set(&[]).await;
    let directory = scene.project.path();
    let session = scene.opencode().create_session(directory, None).await;
    // The agent under which the final is to be answered: opencode's default.
    let parent = Parent {
        session,
        agent: "build",
    };
    let mut launch = scene.task(Some(&parent), "[[say the result]]");
    launch["parentAgent"] = json!("nope");
    let id = id_of(&scene.service.launch(launch).await);
    scene.service.reaches(&id, "completed").await;
    scene.stored_final(&parent).await;
    scene.one_answered_final(&parent, &[&id]).await;
    let sent = scene.final_notifications(&parent.session).await;
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0]["fate"], "delivered", "{sent:?}");
}

async fn final_is_stored_when_the_parent_agent_is_removed() {
    let mut scene = Scene::on_own_stage(&[]).await;
    scene.stage.opencode.edit_config(|config| {
        config["agent"] = json!({"a": {"mode": "primary", "description": "for a test", "prompt": "Be brief."}});
    });
    scene.restart_opencode().await;
    let parent = scene.parent("a").await;
    // It works until the restart cuts it off.
    scene.launch_until_working(&parent, "[[hang]]").await;
    let id = id_of(&scene.service.get("/v1/tasks").await.1["tasks"][0]);
    scene.stage.opencode.edit_config(|config| {
        config.as_object_mut().unwrap().remove("agent");
    });
    scene.restart_opencode().await;
    scene
        .waits("the task completes", &[&parent.session], async || {
            let task = scene.service.task(&id).await;
            (task["status"] == "completed").then_some(())
        })
        .await;
    scene.stored_final(&parent).await;
    let parent = Parent {
        agent: "build",
        ..parent
    };
    scene.one_answered_final(&parent, &[&id]).await;
}

async fn final_is_sent_again_when_the_parent_model_is_removed() {
    let mut scene = Scene::on_own_stage(&[]).await;
    let (parent, id) = scene.parent_whose_model_is_removed(|_| ()).await;
    let first = scene.stored_final(&parent).await;
    let first_id = notice_of(&first).unwrap()["id"].clone();
    let sessions = [parent.session.as_str()];
    let what = "a second final has `retryOf` of the first, and a turn under the default model";
    let messages = scene
        .waits(what, &sessions, async || {
            let messages = scene.opencode().messages(&parent.session).await;
            let (at, _) = *finals(&messages)
                .iter()
                .find(|(_, message)| notice_of(message).unwrap()["retryOf"] == first_id)?;
            has_turn_after(&messages, at).then_some(messages)
        })
        .await;
    let sent = finals(&messages);
    assert_eq!(
        sent.len(),
        2,
        "the final and its repetition\n{}",
        scene.state(&sessions).await
    );
    assert_eq!(text_of(sent[0].1), text_of(sent[1].1), "the same text");
    assert_eq!(
        notice_of(sent[1].1).unwrap()["tasks"],
        json!([id]),
        "it names the task"
    );
    let answer = messages.last().unwrap();
    assert_eq!(answer["info"]["modelID"], "small", "opencode's default");
    let listed = scene.final_notifications(&parent.session).await;
    assert!(
        listed.iter().any(|it| it["retryOf"] == first_id),
        "{listed:?}"
    );
}

async fn reason_is_shown_when_the_default_model_fails_too() {
    let mut scene = Scene::on_own_stage(&[]).await;
    let default_is_gone = |config: &mut Value| config["model"] = json!("rehearsal/never-there");
    let (parent, id) = scene.parent_whose_model_is_removed(default_is_gone).await;
    scene.stored_final(&parent).await;
    let sessions = [parent.session.as_str()];
    let names_model = |text: &Value| text.to_string().contains("Model not found");
    let what = "the notification and `why` name the model that was not found";
    scene
        .waits(what, &sessions, async || {
            let listed = scene.final_notifications(&parent.session).await;
            let (_, why) = scene.service.get(&format!("/v1/tasks/{id}/why")).await;
            (listed.iter().any(names_model) && names_model(&why)).then_some(())
        })
        .await;
    let messages = scene.opencode().messages(&parent.session).await;
    assert!(
        finals(&messages).len() <= 2,
        "at most one repetition\n{}",
        scene.state(&sessions).await
    );
}

async fn final_waits_while_the_parent_is_reverted() {
    let scene = Scene::set(&[]).await;
    let (parent, second) = scene.parent_reverted_to_its_second_message().await;
    let id = scene.launch(Some(&parent), "[[say the result]]").await;
    scene.service.reaches(&id, "completed").await;
    scene.stays_reverted(&parent, &second).await;
    scene.opencode().unrevert(&parent.session).await;
    scene.holds(&parent, &second).await;
    scene.one_answered_final(&parent, &[&id]).await;
    scene.holds(&parent, &second).await;
}

async fn final_waits_for_a_reverted_parent_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("journal={}", folder.path().join("journal.db").display());
    let mut scene = Scene::set(&[&journal]).await;
    let (parent, second) = scene.parent_reverted_to_its_second_message().await;
    let id = scene.launch(Some(&parent), "[[say the result]]").await;
    scene.service.reaches(&id, "completed").await;
    scene.service.process.kill();
    scene.service.restart();
    scene.service.wait_until_ready().await;
    scene.stays_reverted(&parent, &second).await;
    scene.opencode().unrevert(&parent.session).await;
    scene.one_answered_final(&parent, &[&id]).await;
    scene.holds(&parent, &second).await;
}

async fn resume_of_a_reverted_session_is_refused() {
    let scene = Scene::set(&[]).await;
    let id = scene.launch(None, "[[say the result]]").await;
    let session = session_of(&scene.service.ended(&id).await);
    let messages = scene.opencode().messages(&session).await;
    let first = message_id(&messages[0]);
    scene.opencode().revert(&session, &first).await;
    let path = format!("/v1/sessions/{session}/resume");
    let (status, answer) = scene
        .service
        .post(&path, json!({"prompt": "[[say more]]"}))
        .await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("session_reverted")),
        "{answer}\n{}",
        scene.state(&[&session]).await
    );
    assert_eq!(
        scene.opencode().messages(&session).await.len(),
        messages.len(),
        "nothing was deleted"
    );
    scene.opencode().unrevert(&session).await;
    let (status, answer) = scene
        .service
        .post(&path, json!({"prompt": "[[say more]]"}))
        .await;
    assert_eq!(status, 202, "{answer}");
    scene.service.reaches(&id, "completed").await;
}

async fn send_to_a_reverted_session_is_refused() {
    let scene = Scene::set(&[]).await;
    // opencode reverts idle sessions only: the task is idle and runs, since it waits for a task of its own.
    let outer = scene.launch(None, "[[wait 5s]][[say waiting]]").await;
    let session = session_of(&scene.service.reaches(&outer, "running").await);
    let below = Parent {
        session: session.clone(),
        agent: "general",
    };
    let inner = scene.launch(Some(&below), "[[hang]]").await;
    scene
        .waits(
            "the outer task is idle, the inner one runs",
            &[&session],
            async || {
                let runs = scene.service.task(&inner).await["status"] == "running";
                let messages = scene.opencode().messages(&session).await;
                let answered = messages.iter().any(crate::harness::is_finished_answer);
                (runs && answered && scene.is_idle(&session).await).then_some(())
            },
        )
        .await;
    let messages = scene.opencode().messages(&session).await;
    scene
        .opencode()
        .revert(&session, &message_id(&messages[0]))
        .await;
    let path = format!("/v1/tasks/{outer}/send");
    let (status, answer) = scene.service.post(&path, json!({"prompt": "more"})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("session_reverted")),
        "{answer}\n{}",
        scene.state(&[&session]).await
    );
    assert_eq!(
        scene.opencode().messages(&session).await.len(),
        messages.len(),
        "nothing was deleted"
    );
}

impl Scene<Stage> {
    /// A scene on a stage of its own: its agent server can be restarted.
    async fn on_own_stage(settings: &[&str]) -> Self {
        let stage = Stage::own().await;
        let url = stage.opencode.url();
        Self::on(stage, &url, settings).await
    }

    /// Kills the agent server and boots it with its present configuration.
    async fn restart_opencode(&mut self) {
        self.stage.opencode.kill_and_restart(Duration::ZERO).await;
    }

    /// Creates a parent with the model of the scene, and a task of it that completes after a restart that
    /// removed that model and made these edits. Returns the parent and the id of the task.
    async fn parent_whose_model_is_removed(
        &mut self,
        edit: impl FnOnce(&mut Value),
    ) -> (Parent, String) {
        let parent = self.parent_with("build", &self.model).await;
        let mut launch = self.task(Some(&parent), "[[hang]]");
        launch["model"]["modelID"] = json!("large");
        let id = id_of(&self.service.launch(launch).await);
        self.waits("the task asks the model", &[], async || {
            (self.stage.level("large").now == 1).then_some(())
        })
        .await;
        let model = self.model.clone();
        self.stage.opencode.edit_config(|config| {
            let models = config["provider"]["rehearsal"]["models"].as_object_mut();
            models.unwrap().remove(&model).unwrap();
            edit(config);
        });
        self.restart_opencode().await;
        self.waits("the task completes", &[&parent.session], async || {
            let task = self.service.task(&id).await;
            (task["status"] == "completed").then_some(())
        })
        .await;
        (parent, id)
    }
}

impl Scene {
    /// A parent with two user messages, reverted to before the second. Returns it and the id of that message.
    async fn parent_reverted_to_its_second_message(&self) -> (Parent, String) {
        let parent = self.parent("build").await;
        self.turn(&parent, "second").await;
        let messages = self.opencode().messages(&parent.session).await;
        let second = messages.iter().find(|message| text_of(message) == "second");
        let second = message_id(second.expect("the message exists"));
        self.opencode().revert(&parent.session, &second).await;
        (parent, second)
    }

    /// Observes a reverted parent: no message is sent, and the reverted message is kept.
    async fn stays_reverted(&self, parent: &Parent, second: &str) {
        let begin = Instant::now();
        while begin.elapsed() < OBSERVED {
            self.holds(parent, second).await;
            let reverted = self.opencode().session(&parent.session).await["revert"].is_object();
            if !reverted {
                let state = self.state(&[&parent.session]).await;
                panic!("the session is still reverted\n{state}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let pending = self.final_notifications(&parent.session).await;
        // The final is listed once its batch is closed: until it is sent, another task may join.
        assert!(pending.iter().all(|it| it["fate"] == "owed"), "{pending:?}");
    }

    /// Fails unless the parent still has this message.
    async fn holds(&self, parent: &Parent, message: &str) {
        let messages = self.opencode().messages(&parent.session).await;
        if !messages.iter().any(|it| message_id(it) == message) {
            let state = self.state(&[&parent.session]).await;
            panic!("the user's second message is still there\n{state}");
        }
    }
}

fn message_id(message: &Value) -> String {
    let id = message["info"]["id"].as_str();
    id.expect("a message has an id").to_owned()
}

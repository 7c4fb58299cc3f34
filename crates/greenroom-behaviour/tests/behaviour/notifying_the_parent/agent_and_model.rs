//! The agent and model of a notification: a wake never changes the agent, the model or the variant of its
//! parent.

use greenroom::domain::task::Launch;
use serde_json::json;

use super::notices;
use crate::harness::{Harness, job, model, story};
use crate::server::{CallKind, CallOutcome, status};

fn launch_from(name: &str, agent: &str, on: &str) -> Launch {
    Launch {
        parent_agent: Some(agent.to_owned()),
        parent_model: Some(model(on)),
        ..job(name)
    }
}

async fn done(s: &Harness, launch: Launch) -> Vec<String> {
    let a = s.launch(launch).await;
    s.advance(6000).await;
    s.finish_turn(&a).await;
    s.notifications_to("P")
}

#[test]
fn newest_parent_message_decides_agent_and_model() {
    story(|s| async move {
        s.user_prompts("P", Some("old"), Some("acme/old")).await;
        s.user_prompts("P", Some("lead"), Some("acme/big:high"))
            .await;
        s.user_prompts("P", None, None).await;
        let notifications = done(&s, launch_from("a", "other", "nova/x")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as lead on acme/big:high"]
        );
    });
}

#[test]
fn assistant_message_names_model() {
    story(|s| async move {
        let info = json!({"role": "assistant", "agent": "plan", "providerID": "acme",
            "modelID": "small", "variant": "low"});
        s.server.add_message(&"P".into(), info, json!([]));
        let notifications = done(&s, job("a")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as plan on acme/small:low"]
        );
    });
}

#[test]
fn compaction_is_not_a_parent_message() {
    story(|s| async move {
        s.user_prompts("P", Some("lead"), Some("acme/big")).await;
        let info = json!({"role": "assistant", "agent": "compaction", "summary": true,
            "providerID": "acme", "modelID": "tiny"});
        s.server.add_message(&"P".into(), info, json!([]));
        let notifications = done(&s, job("a")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as lead on acme/big"]
        );
    });
}

#[test]
fn missing_values_come_from_launch() {
    story(|s| async move {
        s.user_prompts("P", Some("lead"), None).await;
        let notifications = done(&s, launch_from("a", "other", "nova/x:high")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as lead on nova/x:high"]
        );
    });
}

#[test]
fn incomplete_model_is_ignored() {
    story(|s| async move {
        let info = json!({"role": "user", "agent": "lead", "model": {"providerID": "acme"}});
        s.server.add_message(&"P".into(), info, json!([]));
        let notifications = done(&s, launch_from("a", "other", "nova/x")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as lead on nova/x"]
        );
    });
}

#[test]
fn newest_task_of_message_decides() {
    story(|s| async move {
        let a = s.launch(launch_from("a", "first", "acme/one")).await;
        let b = s.launch(launch_from("b", "second", "acme/two")).await;
        let c = s.launch(launch_from("c", "third", "acme/three")).await;
        s.advance_to(6000).await;
        s.finish_turn(&b).await;
        s.advance_to(6050).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.finish_turn(&c).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: b completed, a completed, 1 open as second on acme/two",
                "7000 final wakes: a completed, b completed, c completed as third on acme/three",
            ]
        );
    });
}

#[test]
fn agent_and_model_are_omitted_if_unknown() {
    story(|s| async move {
        let notifications = done(&s, job("a")).await;
        assert_eq!(notifications, ["6000 final wakes: a completed"]);
    });
}

#[test]
fn unreadable_messages_fall_back_to_launch() {
    story(|s| async move {
        s.user_prompts("P", Some("lead"), Some("acme/big")).await;
        s.server
            .set_outcome_for(CallKind::Messages, "P", CallOutcome::Fails(status(500)));
        let notifications = done(&s, launch_from("a", "other", "nova/x")).await;
        assert_eq!(
            notifications,
            ["6000 final wakes: a completed as other on nova/x"]
        );
    });
}

#[test]
fn parent_is_read_for_each_message() {
    story(|s| async move {
        s.user_prompts("P", Some("lead"), Some("acme/big")).await;
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        s.user_prompts("P", Some("plan"), Some("acme/big")).await;
        s.finish_turn(&b).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: a completed, 1 open as lead on acme/big",
                "7000 final wakes: a completed, b completed as plan on acme/big",
            ]
        );
    });
}

#[test]
fn notifications_are_synthetic() {
    story(|s| async move {
        done(&s, job("a")).await;
        let notice = &notices(&s)[0];
        assert!(
            notice
                .text
                .starts_with("<system-reminder>\n[ALL BACKGROUND TASKS COMPLETE]")
        );
        assert!(notice.text.ends_with("</system-reminder>"));
        assert!(notice.id.as_str().starts_with("ntc_"));
    });
}

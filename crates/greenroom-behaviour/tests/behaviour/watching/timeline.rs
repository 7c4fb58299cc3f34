//! The timeline of a task: the observations on the way to its end.

use crate::harness::{Harness, job, job_of, story};
use greenroom::domain::ids::TaskId;

async fn notifications(s: &Harness, task: &TaskId) -> Vec<String> {
    let (greenroom, name) = (s.greenroom.clone(), task.to_string());
    let why = s.resolve(async move { greenroom.why(&name).await }).await;
    let events = why.expect("it is known").events.into_iter();
    // The beginning of every timeline.
    let own = events.skip_while(|event| event.what != "prompt accepted");
    own.skip(1)
        .map(|event| {
            if event.detail.is_empty() {
                event.what
            } else {
                format!("{}: {}", event.what, event.detail)
            }
        })
        .collect()
}

#[test]
fn timeline_shows_waits_and_reason_of_completion() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        let child = s.launch(job_of(session.as_str(), "child")).await;
        s.advance_to(7000).await;
        s.finish_turn(&a).await;
        s.advance_to(12_000).await;
        s.finish_turn(&child).await;
        s.advance_to(60_000).await;
        let notifications = notifications(&s, &a).await;
        assert_eq!(
            notifications[..6],
            [
                "idle: by an event",
                "slot given back: it waits for a task of its own",
                "idle: polls do not list it as busy",
                // It answers the message about its task.
                "works again",
                "idle: polls do not list it as busy",
                "checked: it has answered, and no todo is open"
            ],
            "{notifications:#?}"
        );
    });
}

#[test]
fn repeated_observation_is_recorded_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_todos(&session, &[("one", "pending"), ("two", "completed")]);
        s.finish_turn(&a).await;
        s.advance_to(30_000).await;
        let notifications = notifications(&s, &a).await;
        assert_eq!(
            notifications,
            [
                "idle: by an event",
                "checked, not done: 1 todo is open",
                "idle: polls do not list it as busy"
            ],
            "{notifications:#?}"
        );
    });
}

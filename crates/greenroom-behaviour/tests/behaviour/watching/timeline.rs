//! What a task's story tells of what was seen on the way to its end.

use crate::harness::{Harness, job, job_of, story};
use greenroom::domain::ids::TaskId;

async fn told(s: &Harness, task: &TaskId) -> Vec<String> {
    let (greenroom, name) = (s.greenroom.clone(), task.to_string());
    let why = s.resolve(async move { greenroom.why(&name).await }).await;
    let events = why.expect("it is known").events.into_iter();
    // What everybody's story begins with.
    let own = events.skip_while(|event| event.what != "prompt accepted");
    own.skip(1)
        .map(|event| match event.detail.is_empty() {
            true => event.what,
            false => format!("{}: {}", event.what, event.detail),
        })
        .collect()
}

#[test]
fn a_story_says_what_a_run_waited_for_and_why_it_was_taken_as_done() {
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
        let told = told(&s, &a).await;
        assert_eq!(
            told[..5],
            [
                "idle: an event says so",
                "slot given back: it waits for a task of its own",
                "idle: polls do not list it as busy",
                // Told of its task meanwhile.
                "idle: polls do not list it as busy",
                "checked: it has answered, and no todo is open"
            ],
            "{told:#?}"
        );
    });
}

#[test]
fn what_is_seen_again_and_again_is_told_once() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_todos(&session, &[("one", "pending"), ("two", "completed")]);
        s.finish_turn(&a).await;
        s.advance_to(30_000).await;
        let told = told(&s, &a).await;
        assert_eq!(
            told,
            [
                "idle: an event says so",
                "checked, not done: 1 todo is open",
                "idle: polls do not list it as busy"
            ],
            "{told:#?}"
        );
    });
}

//! Retention: history and its Markdown form, the time that ended tasks stay in memory, and lookups.

use greenroom::domain::history::markdown;
use greenroom::domain::task::{Launch, Track};

use crate::harness::{Harness, job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome};

async fn history(s: &Harness, parent: &str) -> Vec<String> {
    let entries = s.greenroom.history(&parent.into()).await.into_iter();
    entries
        .map(|entry| format!("{} {}", entry.description, entry.status.as_str()))
        .collect()
}

#[test]
fn history_has_every_task_of_parent() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            s.server
                .set_next_outcome(CallKind::Create, CallOutcome::Late(1000));
            let a = s
                .launch(Launch {
                    category: Some("quick".to_owned()),
                    ..job("a")
                })
                .await;
            let b = s.launch(job("b")).await;
            s.launch(job_of("Q", "q")).await;
            assert_eq!(history(&s, "P").await, ["a pending", "b pending"]);
            s.advance_to(1000).await;
            assert_eq!(history(&s, "P").await, ["a running", "b pending"]);
            let entry = &s.greenroom.history(&"P".into()).await[0];
            assert_eq!(
                (&*entry.agent, entry.category.as_deref()),
                ("worker", Some("quick"))
            );
            assert_eq!(entry.session, s.server.session_of(&a));
            s.advance_to(7000).await;
            s.fail(&a, "boom").await;
            assert_eq!(history(&s, "P").await, ["a error", "b running"]);
            s.resume(&a).await;
            assert_eq!(history(&s, "P").await, ["a pending", "b running"]);
            assert!(s.cancel(&b).await);
            s.delete(&a).await;
            assert_eq!(history(&s, "P").await, ["a cancelled", "b cancelled"]);
        },
    );
}

#[test]
fn history_remains_after_tasks() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(700_000).await;
        assert_eq!(s.state(&a).await, "gone");
        assert_eq!(history(&s, "P").await, ["a completed"]);
    });
}

#[test]
fn history_keeps_newest_hundred() {
    story_with(
        |config| config.limits.default = 0,
        |s| async move {
            for count in 0..130 {
                s.launch(job(&format!("{count}"))).await;
            }
            let kept = history(&s, "P").await;
            assert_eq!(kept.len(), 100);
            assert_eq!(kept[0], "30 running");
            assert_eq!(kept[99], "129 running");
        },
    );
}

#[test]
fn reparented_task_is_in_both_histories() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.track_with(Track {
            task: a.clone(),
            session: "x".into(),
            parent_session: "Q".into(),
            description: "x".to_owned(),
            agent: None,
            parent_agent: None,
            concurrency_key: None,
        })
        .await;
        assert_eq!(history(&s, "Q").await, ["a running"]);
        s.advance_to(7000).await;
        s.fail(&a, "boom").await;
        s.finish_turn(&b).await;
        assert_eq!(history(&s, "P").await, ["a error", "b completed"]);
        assert_eq!(history(&s, "Q").await, ["a error"]);
        s.resume(&a).await;
        assert_eq!(history(&s, "P").await[0], "a running");
    });
}

#[test]
fn markdown_history_shows_newest_twenty() {
    story_with(
        |config| config.limits.default = 0,
        |s| async move {
            for count in 0..25 {
                s.launch(job(&format!("job {count} {}", "é".repeat(500))))
                    .await;
            }
            let last = s.tasks().await.pop().expect("there are some");
            let text = markdown(&s.greenroom.history(&"P".into()).await);
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("- ")).collect();
            assert_eq!(lines.len(), 20);
            assert!(lines[0].contains("job 5 "), "{}", lines[0]);
            assert!(lines[19].contains("job 24 "), "{}", lines[19]);
            for expected in [last.id.as_str(), "running", "worker"] {
                assert!(lines[19].contains(expected), "{expected} in {}", lines[19]);
            }
            let session = last.session.expect("it runs");
            assert!(lines[19].contains(session.as_str()));
            let described = lines[19].find("job 24").expect("it is there");
            assert_eq!(lines[19][described..].chars().count(), 240);
            assert!(text.contains("Resume a session"), "{text}");
            assert_eq!(markdown(&s.greenroom.history(&"unknown".into()).await), "");
        },
    );
}

#[test]
fn ended_task_stays_ten_minutes_after_batch() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        // Its batch stays open for another half hour.
        for minute in 1..30 {
            s.advance_to(minute * 60_000).await;
            s.stream_text(&b).await;
        }
        assert_eq!(s.state(&a).await, "completed");
        s.advance_to(1_800_000).await;
        s.finish_turn(&b).await;
        s.advance_to(2_399_999).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.state(&b).await, "completed");
        s.advance_to(2_400_000).await;
        assert_eq!(s.state(&a).await, "gone");
        assert_eq!(s.state(&b).await, "gone");
    });
}

#[test]
fn ended_task_stays_while_child_is_open() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let below = s.launch(job_of(session.as_str(), "below")).await;
        let further = s.server.session_of(&below).expect("it runs");
        let deepest = s.launch(job_of(further.as_str(), "deepest")).await;
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        assert!(s.cancel(&below).await);
        for minute in 1..40 {
            s.advance_to(minute * 60_000).await;
            s.stream_text(&deepest).await;
        }
        assert_eq!(s.state(&a).await, "cancelled");
        assert_eq!(s.state(&below).await, "cancelled");
        s.advance_to(2_400_000).await;
        s.finish_turn(&deepest).await;
        s.advance_to(3_600_000).await;
        for task in [&a, &below, &deepest] {
            assert_eq!(s.state(task).await, "gone");
        }
    });
}

#[test]
fn task_is_found_by_id_prefix_and_session() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        let session = s.server.session_of(&a).expect("it runs");
        let shared = a
            .as_str()
            .chars()
            .zip(b.as_str().chars())
            .take_while(|(one, other)| one == other)
            .count();
        for name in [a.as_str(), &a.as_str()[..=shared], session.as_str()] {
            let found = s.find(name).await.map(|found| found.task.id);
            assert_eq!(found.as_ref(), Some(&a), "{name}");
        }
        assert!(s.find("bg_").await.is_none(), "that is several");
        assert!(s.find("nothing").await.is_none());
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.finish_turn(&b).await;
        s.advance_to(700_000).await;
        assert_eq!(s.state(&a).await, "gone", "from memory");
        for name in [a.as_str(), session.as_str()] {
            let found = s.find(name).await.map(|found| found.task.id);
            assert_eq!(found.as_ref(), Some(&a), "the journal remembers {name}");
        }
        assert!(s.find("bg_").await.is_none(), "that is several still");
    });
}

#[test]
fn failed_resume_does_not_return_previous_answer() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.answer(&a, "the old result").await;
        s.idle(&a).await;
        s.advance_to(10_000).await;
        s.resume(&a).await;
        s.advance_to(11_000).await;
        s.fail(&a, "boom").await;
        assert_eq!(s.state(&a).await, "error: boom");
        let (greenroom, id) = (s.greenroom.clone(), a.to_string());
        let options = greenroom::domain::output::OutputOptions::default();
        let output = s.resolve(async move { greenroom.output(&id, options).await });
        assert_eq!(
            output.await.expect("it is in memory").result.as_deref(),
            Some("")
        );
    });
}

#[test]
fn reading_result_does_not_consume_it() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.answer(&a, "the result").await;
        s.idle(&a).await;
        for _ in 0..2 {
            let (greenroom, id) = (s.greenroom.clone(), a.to_string());
            let output = s.resolve(async move {
                greenroom
                    .output(&id, greenroom::domain::output::OutputOptions::default())
                    .await
            });
            let output = output.await.expect("it is in memory");
            assert_eq!(output.result.as_deref(), Some("the result"));
        }
    });
}

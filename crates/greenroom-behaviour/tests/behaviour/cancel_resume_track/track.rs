//! Track: a session started elsewhere becomes a running task at once.

use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, Resume, TaskStatus, Track};
use greenroom::{ResumeError, TrackError};

use crate::harness::{Harness, job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome, CallPayload, cut_off, not_found, status};

fn tracked(id: &str, session: &str, parent: &str) -> Track {
    Track {
        task: id.into(),
        session: session.into(),
        parent_session: parent.into(),
        description: id.to_owned(),
        agent: None,
        parent_agent: None,
        concurrency_key: None,
    }
}

async fn moved_to(s: &Harness, id: &str, session: &str, parent: &str) {
    s.track_with(tracked(id, session, parent)).await;
}

#[test]
fn tracked_session_runs_at_once() {
    story(|s| async move {
        s.server.add_session("S", None);
        s.advance_to(1000).await;
        let task = s.track("t", "S", None).await;
        assert_eq!(task.status(), TaskStatus::Running);
        assert_eq!((&*task.agent, task.spawn_depth), ("task", 1));
        assert_eq!(task.concurrency_group.as_str(), "task");
        assert_eq!(s.in_use().await, 0, "no key, no slot");
        assert!(s.calls(CallKind::Prompt).is_empty() && s.calls(CallKind::Create).is_empty());
        s.advance_to(2000).await;
        s.answer_without_event("S", "done");
        s.idle("S").await;
        s.advance_to(5999).await;
        assert_eq!(s.state(&"t".into()).await, "running");
        s.advance_to(6000).await;
        assert_eq!(s.state(&"t".into()).await, "completed");
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: t completed"]);
    });
}

#[test]
fn tracked_run_may_exceed_limit() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            s.server.add_session("S", None);
            let a = s.launch(job("a")).await;
            let task = s.track("t", "S", Some("worker")).await;
            assert_eq!(task.concurrency_group.as_str(), "worker");
            assert_eq!(s.slots().await, ["worker 2/1"]);
            let b = s.launch(job("b")).await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            assert_eq!(s.state(&b).await, "pending", "new starts wait");
            assert!(s.cancel(&"t".into()).await);
            assert_eq!(s.state(&b).await, "running");
        },
    );
}

#[test]
fn track_reparents_known_task() {
    story(|s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&b).await;
        s.advance_to(7000).await;
        let task = s
            .track_with(Track {
                parent_agent: Some("lead".to_owned()),
                agent: Some("other".to_owned()),
                concurrency_key: Some("other".into()),
                ..tracked(a.as_str(), "elsewhere", "Q")
            })
            .await;
        let session = s.server.session_of(&a);
        assert_eq!((&*task.agent, &task.session), ("worker", &session));
        assert_eq!(
            (&*task.description, task.concurrency_group.as_str()),
            ("a", "worker")
        );
        assert_eq!(
            s.notifications_to("P"),
            [
                "6100 note silent: b completed, 1 open",
                "7000 final wakes: b completed"
            ],
            "the old parent's batch is closed"
        );
        s.advance_to(8000).await;
        s.finish_turn(&a).await;
        assert_eq!(
            s.notifications_to("Q"),
            ["8000 final wakes: a completed as lead"]
        );
        assert_eq!(s.notifications_to("P").len(), 2);
        let history = s.greenroom.history(&"P".into()).await;
        let a_there = history
            .iter()
            .find(|entry| entry.task == a)
            .expect("it stays");
        assert_eq!(
            a_there.status.as_str(),
            "completed",
            "up to date in the old one's too"
        );
    });
}

#[test]
fn repeated_track_changes_nothing() {
    story(|s| async move {
        s.server.add_session("S", None);
        s.track("t", "S", Some("k")).await;
        s.track("t", "S", Some("k")).await;
        assert_eq!(s.slots().await, ["k 1/5"]);
        s.advance_to(6000).await;
        s.finish_turn("S").await;
        s.advance_to(20_000).await;
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: t completed"]);
    });
}

#[test]
fn track_of_settled_task_changes_record_only() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        moved_to(&s, a.as_str(), "x", "Q").await;
        assert_eq!(s.state(&a).await, "completed");
        let parent = s.task(&a).await.parent_session;
        assert_eq!(parent.as_ref().map(|p| p.as_str()), Some("Q"));
        assert!(s.greenroom.history(&"Q".into()).await.is_empty());
        s.advance_to(20_000).await;
        assert!(s.notifications_to("Q").is_empty());
        s.advance_to(607_000).await;
        assert_eq!(s.state(&a).await, "gone", "it leaves when it would have");
    });
}

#[test]
fn queued_task_can_be_reparented() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            let b = s.launch(job("b")).await;
            moved_to(&s, b.as_str(), "x", "Q").await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            assert_eq!(s.notifications_to("P"), ["6000 final wakes: a completed"]);
            assert_eq!(s.state(&b).await, "running");
            s.advance_to(12_000).await;
            s.finish_turn(&b).await;
            assert_eq!(s.notifications_to("Q"), ["12000 final wakes: b completed"]);
        },
    );
}

#[test]
fn newest_track_wins_session() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        moved_to(&s, "t", &session, "Q").await;
        assert_eq!(s.state(&a).await, "cancelled: Session taken over by t");
        assert_eq!(s.notifications_to("P"), ["6000 final wakes: a cancelled"]);
        s.advance_to(12_000).await;
        assert!(s.calls(CallKind::Abort).is_empty(), "the session goes on");
        let found = s.find(&session).await.expect("a task has the session");
        assert_eq!(found.task.id.as_str(), "t");
        s.finish_turn(session.as_str()).await;
        assert_eq!(s.notifications_to("Q"), ["12000 final wakes: t completed"]);
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn taken_over_session_is_woken() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        let c = s.launch(job_of(session.as_str(), "c")).await;
        s.advance_to(6000).await;
        moved_to(&s, "t", &session, "Q").await;
        s.idle(session.as_str()).await;
        s.advance_to(9000).await;
        s.finish_turn(&c).await;
        s.advance_to(9200).await;
        assert_eq!(
            s.notifications_to(&session),
            ["9000 final wakes: c completed"],
            "the ended task is not the task that runs there now"
        );
    });
}

#[test]
fn session_of_ended_task_can_be_tracked() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs").to_string();
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        moved_to(&s, "t", &session, "Q").await;
        assert_eq!(
            s.state(&a).await,
            "completed",
            "it had ended: it stays as it was"
        );
        s.advance_to(14_000).await;
        s.finish_turn(session.as_str()).await;
        assert_eq!(s.state(&"t".into()).await, "completed");
        assert_eq!(
            s.notifications_to("P").len() + s.notifications_to("Q").len(),
            2
        );
    });
}

#[test]
fn track_takes_session_of_queued_resume() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            let session = s.server.session_of(&a).expect("it runs").to_string();
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            s.launch(job_of("Q", "b")).await;
            s.resume(&a).await;
            moved_to(&s, "t", &session, "Q").await;
            s.settle().await;
            assert_eq!(s.state(&a).await, "cancelled: Session taken over by t");
            assert_eq!(s.slots().await, ["worker 1/1"], "no task waits");
        },
    );
}

#[test]
fn tracked_task_is_resumed_under_its_group() {
    story(|s| async move {
        s.server.add_session("S", None);
        s.track("t", "S", None).await;
        s.advance_to(6000).await;
        s.finish_turn("S").await;
        s.resume("S").await;
        assert_eq!(s.slots().await, ["task 1/5"]);
        assert_eq!(s.calls(CallKind::Prompt), ["6000 S"]);
    });
}

#[test]
fn tracked_session_can_become_stale() {
    story(|s| async move {
        s.server.add_session("S", None);
        s.server.set_next_outcome(
            CallKind::Session,
            CallOutcome::Fails(crate::server::status(500)),
        );
        s.track("t", "S", None).await;
        s.advance_to(40_000).await;
        assert_eq!(
            s.state(&"t".into()).await,
            "interrupt: the prompt was not taken up"
        );
    });
}

#[test]
fn invalid_track_is_refused() {
    story(|s| async move {
        let refused = |track: Track| {
            let greenroom = s.greenroom.clone();
            s.resolve(async move { greenroom.track(track).await })
        };
        for (field, track) in [
            ("taskID", tracked(" ", "S", "P")),
            ("sessionID", tracked("t", "", "P")),
            ("parentSessionID", tracked("t", "S", "S")),
        ] {
            match refused(track).await {
                Err(TrackError::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    });
}

#[test]
fn track_below_itself_is_refused() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let above = s.server.session_of(&a).expect("it runs").to_string();
        let below = s.launch(job_of(above.as_str(), "below")).await;
        let session = s.server.session_of(&below).expect("it runs").to_string();
        let greenroom = s.greenroom.clone();
        let track = tracked(a.as_str(), "x", &session);
        let refused = s.resolve(async move { greenroom.track(track).await }).await;
        assert!(
            matches!(
                refused,
                Err(TrackError::Invalid {
                    field: "parentSessionID",
                    ..
                })
            ),
            "{refused:?}"
        );
        s.advance_to(6000).await;
        assert!(s.cancel(&a).await);
        let resumed = s
            .try_resume(greenroom::domain::task::Resume {
                parent_session: Some(session.as_str().into()),
                ..s.resume_request(&a, "go on")
            })
            .await;
        assert!(
            matches!(
                resumed,
                Err(greenroom::ResumeError::Invalid {
                    field: "parentSessionID",
                    ..
                })
            ),
            "{resumed:?}"
        );
        assert_eq!(s.state(&a).await, "cancelled");
    });
}

#[test]
fn track_below_itself_via_forgotten_task_is_refused() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let b = s
            .launch(job_of(s.server.session_of(&a).expect("it runs"), "b"))
            .await;
        s.advance_to(12_000).await;
        s.finish_turn(&b).await;
        s.finish_turn(&a).await;
        s.advance_to(800_000).await;
        assert!(s.tasks().await.is_empty(), "both have left memory");
        let below = Resume {
            parent_session: s.server.session_of(&b),
            ..s.resume_request(&a, "go on")
        };
        let refused = s.try_resume(below).await;
        assert!(
            matches!(
                &refused,
                Err(ResumeError::Invalid { field, .. }) if *field == "parentSessionID"
            ),
            "{refused:?}"
        );
        // Each task ends by itself.
        s.resume(&a).await;
        s.resume(&b).await;
        s.advance(6000).await;
        s.finish_turn(&b).await;
        s.advance(90_000).await;
        s.finish_turn(&a).await;
        s.advance(10_000).await;
        assert_eq!(s.names(TaskStatus::Completed).await, ["a", "b"]);
    });
}

/// Launches a task below `parent` whose create has an unknown outcome. The task gets the parent `Q` before its session is
/// found.
async fn reparented_before_session_is_known(s: &Harness, parent: Option<&str>) -> TaskId {
    s.server
        .set_next_outcome(CallKind::Create, CallOutcome::Cut(cut_off()));
    s.server
        .set_next_outcome(CallKind::Below, CallOutcome::Fails(status(500)));
    let parent_session = parent.map(Into::into);
    let launch = Launch {
        parent_session,
        ..job("a")
    };
    let a = s.launch(launch).await;
    s.advance_to(1000).await;
    moved_to(s, a.as_str(), "x", "Q").await;
    a
}

/// Returns the parents of the created sessions, in order.
fn parents_of_creates(s: &Harness) -> Vec<String> {
    let calls = s.server.calls(CallKind::Create).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Create(new) => new.parent.map(|parent| parent.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn session_created_before_reparenting_is_found() {
    let cases = [
        (Some("P"), false),
        (Some("P"), true),
        (None, false),
        (None, true),
    ];
    for (parent, crash) in cases {
        story(move |mut s| async move {
            let a = reparented_before_session_is_known(&s, parent).await;
            if crash {
                s.crash(1000).await;
            }
            s.advance_to(20_000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(
                s.calls(CallKind::Create).len(),
                1,
                "{parent:?}, crash: {crash}"
            );
            s.finish_turn(&a).await;
            s.advance_to(30_000).await;
            assert_eq!(s.notifications_to("Q"), ["20000 final wakes: a completed"]);
        });
    }
}

#[test]
fn session_deleted_with_former_parent_is_created_again() {
    for crash in [false, true] {
        story(move |mut s| async move {
            let a = reparented_before_session_is_known(&s, Some("P")).await;
            let created = s.server.session_of(&a).expect("it was created");
            s.server
                .set_outcome_for(CallKind::Below, "P", CallOutcome::Fails(not_found()));
            s.server.remove_session(&created);
            s.delete("P").await;
            if crash {
                s.crash(1000).await;
            }
            s.advance_to(20_000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(parents_of_creates(&s), ["P", "Q"]);
            s.finish_turn(&a).await;
            s.advance_to(30_000).await;
            assert_eq!(s.notifications_to("Q"), ["20000 final wakes: a completed"]);
        });
    }
}

//! Validation of a launch, and the depth of a task.

use greenroom::LaunchError;
use greenroom::domain::ids::ModelRef;
use greenroom::domain::task::Launch;

use super::creates;
use crate::harness::{job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome, status};

#[test]
fn invalid_launch_field_is_refused() {
    story(|s| async move {
        let half = ModelRef {
            provider_id: "acme".to_owned(),
            model_id: " ".to_owned(),
            variant: None,
        };
        let bad = [
            (
                "description",
                Launch {
                    description: " ".to_owned(),
                    ..job("a")
                },
            ),
            (
                "prompt",
                Launch {
                    prompt: "\n".to_owned(),
                    ..job("a")
                },
            ),
            (
                "agent",
                Launch {
                    agent: String::new(),
                    ..job("a")
                },
            ),
            (
                "prompt",
                Launch {
                    prompt: "x".repeat(600_000),
                    ..job("a")
                },
            ),
            (
                "model",
                Launch {
                    model: Some(half),
                    ..job("a")
                },
            ),
        ];
        for (expected, launch) in bad {
            match s.try_launch(launch).await {
                Err(LaunchError::Invalid { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(s.tasks().await.is_empty());
        assert!(s.notifications_to("P").is_empty(), "no batch was opened");
    });
}

#[test]
fn launch_makes_no_call() {
    story(|s| async move {
        for on in [
            CallKind::Session,
            CallKind::Create,
            CallKind::Toast,
            CallKind::Statuses,
        ] {
            s.server.set_outcome(on, CallOutcome::Hangs);
        }
        // Both are answered at this instant, although their calls are never answered.
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.state(&b).await, "pending");
        assert!(
            s.calls(CallKind::Create).is_empty(),
            "the lineage comes first"
        );
    });
}

#[test]
fn launch_without_parent_makes_no_lookup_and_no_message() {
    story(|s| async move {
        let alone = Launch {
            parent_session: None,
            ..job("a")
        };
        let a = s.launch(alone).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "completed");
        assert!(s.calls(CallKind::Session).is_empty());
        assert!(s.calls(CallKind::Notify).is_empty());
        assert_eq!(creates(&s)[0].parent, None);
        assert_eq!(s.task(&a).await.spawn_depth, 1);
        s.advance_to(11 * 60_000).await;
        assert_eq!(s.state(&a).await, "gone");
    });
}

#[test]
fn depth_below_known_session_needs_no_lookup() {
    story(|s| async move {
        let mut parent = "P".to_owned();
        for depth in 1..=3 {
            let id = s.launch(job_of(parent.as_str(), "x")).await;
            let task = s.task(&id).await;
            assert_eq!(task.spawn_depth, depth);
            assert_eq!(
                task.root_session.as_ref().map(|root| root.as_str()),
                Some("P")
            );
            parent = s.server.session_of(&id).expect("it runs").to_string();
        }
        let refused = s.try_launch(job_of(parent.as_str(), "x")).await;
        assert_eq!(refused, Err(LaunchError::TooDeep { depth: 4, limit: 3 }));
        let text = refused.map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(text, Err("depth 4 is more than 3".to_owned()));
    });
}

#[test]
fn foreign_parent_is_looked_up_and_depth_is_limited() {
    story(|s| async move {
        s.server.add_session("C1", Some("P"));
        s.server.add_session("C2", Some("C1"));
        s.server.add_session("C3", Some("C2"));
        let fine = s.launch(job_of("C2", "fine")).await;
        assert_eq!(s.task(&fine).await.spawn_depth, 3);
        let deep = s.launch(job_of("C3", "deep")).await;
        assert_eq!(s.state(&deep).await, "error: depth 4 is more than 3");
        assert_eq!(s.in_use().await, 1);
        assert_eq!(s.calls(CallKind::Create), ["0 fine"]);
        s.advance_to(1000).await;
        assert_eq!(s.notifications_to("C3"), ["0 final wakes: deep error"]);
    });
}

#[test]
fn foreign_session_below_known_session_counts() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.add_session("F", Some(session.as_str()));
        let b = s.launch(job_of("F", "b")).await;
        let task = s.task(&b).await;
        assert_eq!(task.spawn_depth, 3, "a is 1, F would be 2");
        assert_eq!(
            task.root_session.as_ref().map(|root| root.as_str()),
            Some("P")
        );
    });
}

#[test]
fn cyclic_lineage_ends() {
    story_with(
        |config| config.safety.max_depth = 10,
        |s| async move {
            s.server.add_session("X", Some("Y"));
            s.server.add_session("Y", Some("X"));
            let a = s.launch(job_of("X", "a")).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.task(&a).await.spawn_depth, 2);
        },
    );
}

#[test]
fn unreadable_lineage_has_depth_one() {
    story(|s| async move {
        s.server.add_session("C1", Some("P"));
        s.server
            .set_outcome_for(CallKind::Session, "P", CallOutcome::Fails(status(500)));
        let a = s.launch(job_of("C1", "a")).await;
        assert_eq!(s.task(&a).await.spawn_depth, 1);
        let b = s.launch(job_of("unknown", "b")).await;
        assert_eq!(s.task(&b).await.spawn_depth, 1);
    });
}

#[test]
fn lineage_lookup_has_ten_seconds() {
    story(|s| async move {
        s.server.add_session("C1", Some("P"));
        s.server
            .set_outcome(CallKind::Session, CallOutcome::Late(6000));
        let a = s.launch(job_of("C1", "a")).await;
        s.advance_to(9999).await;
        assert!(s.calls(CallKind::Create).is_empty());
        s.advance_to(10_000).await;
        assert_eq!(s.calls(CallKind::Create), ["10000 a"]);
        assert_eq!(s.task(&a).await.spawn_depth, 1);
    });
}

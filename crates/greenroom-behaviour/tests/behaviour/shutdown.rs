//! Shutdown in abort mode: no call is started, running tasks are ended and awaited, and memory is empty
//! afterwards.

use greenroom::WaitFor;
use greenroom::domain::ids::Run;
use greenroom::{LaunchError, ResumeError, TrackError};

use crate::harness::{Harness, job, job_of, story, story_with};
use crate::server::{CallKind, CallOutcome, status};

/// Checks that a shutdown started at one time completes at another, and not a millisecond earlier.
async fn done_at(s: &Harness, millis: u64) -> greenroom::ShutdownReport {
    let report = s.shutdown().await;
    if s.now() < millis as i64 {
        s.advance_to(millis - 1).await;
        assert!(!report.is_finished(), "it is done too early");
        s.advance_to(millis).await;
    }
    assert!(report.is_finished(), "it is not done at {millis}");
    report.await.expect("no panic")
}

#[test]
fn shutdown_cancels_all_tasks() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let mut changes = s.changes();
            let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
            s.advance_to(6000).await;
            let report = done_at(&s, 6000).await;
            assert_eq!(report.cancelled, [a.clone(), b.clone()]);
            assert_eq!(report.unnotified, ["P".into()]);
            let mut ends = Vec::new();
            while let Ok(change) = changes.try_recv() {
                if change.to.is_terminal() {
                    ends.push(format!(
                        "{} {:?}",
                        change.task.description,
                        change.task.error()
                    ));
                }
            }
            assert_eq!(ends, ["b Some(\"Shutdown\")", "a Some(\"Shutdown\")"]);
            let session = s.server.session_of(&a).expect("it ran");
            assert_eq!(s.calls(CallKind::Abort), [format!("6000 {session}")]);
            s.advance_to(60_000).await;
            assert_eq!(
                s.calls(CallKind::Create),
                ["0 a"],
                "a released slot is not granted"
            );
            assert!(s.calls(CallKind::Notify).is_empty());
        },
    );
}

#[test]
fn memory_is_empty_after_shutdown() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        done_at(&s, 6000).await;
        assert_eq!(s.state(&a).await, "gone");
        assert!(s.tasks().await.is_empty());
        assert_eq!(s.in_use().await, 0);
        assert!(!s.greenroom.readiness().await.ready);
        assert_eq!(s.try_launch(job("b")).await, Err(LaunchError::ShuttingDown));
        let resumed = s.try_resume(s.resume_request(&session, "x")).await;
        assert_eq!(resumed, Err(ResumeError::ShuttingDown));
        // Later events of the server and a second shutdown have no effect.
        s.finish_turn(&session).await;
        s.delete(&session).await;
        assert_eq!(done_at(&s, 6000).await.cancelled, []);
    });
}

#[test]
fn launch_is_refused_during_shutdown() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Late(3000));
        s.advance_to(6000).await;
        let report = s.shutdown().await;
        assert!(!report.is_finished());
        assert_eq!(s.try_launch(job("b")).await, Err(LaunchError::ShuttingDown));
        let resumed = s.try_resume(s.resume_request(&session, "x")).await;
        assert_eq!(resumed, Err(ResumeError::ShuttingDown));
        let greenroom = s.greenroom.clone();
        let track = greenroom::domain::task::Track {
            task: "t".into(),
            session: "S".into(),
            parent_session: "P".into(),
            description: "t".to_owned(),
            agent: None,
            parent_agent: None,
            concurrency_key: None,
        };
        let tracked = s.resolve(async move { greenroom.track(track).await });
        assert_eq!(tracked.await, Err(TrackError::ShuttingDown));
        assert!(!s.cancel(&a).await, "it is cancelled already");
        s.advance_to(9000).await;
        assert!(report.is_finished(), "the abort was awaited");
    });
}

#[test]
fn aborts_are_awaited_ten_seconds_at_most() {
    story(|s| async move {
        s.launch(job("a")).await;
        s.server.set_outcome(CallKind::Abort, CallOutcome::Hangs);
        s.advance_to(6000).await;
        done_at(&s, 16_000).await;
    });
}

#[test]
fn failing_aborts_do_not_delay_shutdown() {
    story(|s| async move {
        s.launch(job("a")).await;
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Fails(status(500)));
        s.advance_to(6000).await;
        done_at(&s, 6000).await;
        assert_eq!(s.times(CallKind::Abort), [6000, 6000, 6000]);
    });
}

#[test]
fn message_in_flight_gets_five_seconds() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let q = s.launch(job_of("Q", "q")).await;
        s.server
            .set_outcome_for(CallKind::Notify, "P", CallOutcome::Hangs);
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.notifications_to("P").len(), 1, "it is on its way");
        s.advance_to(7000).await;
        let report = done_at(&s, 12_000).await;
        assert_eq!(report.cancelled, [q]);
        let unnotified: Vec<&str> = report
            .unnotified
            .iter()
            .map(|parent| parent.as_str())
            .collect();
        assert!(unnotified.contains(&"Q"), "{unnotified:?}");
        s.advance_to(600_000).await;
        assert_eq!(s.notifications_to("P").len(), 1, "it is not resent");
        assert!(s.notifications_to("Q").is_empty());
    });
}

#[test]
fn shutdown_ends_when_message_arrives() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.server
            .set_next_outcome_for(CallKind::Notify, "P", CallOutcome::Late(2000));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        let report = done_at(&s, 8000).await;
        assert_eq!(report.unnotified, []);
    });
}

#[test]
fn held_message_is_reported_as_unsent() {
    story(|s| async move {
        s.busy("P").await;
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.busy("P").await;
        s.finish_turn(&a).await;
        s.advance_to(7000).await;
        let report = done_at(&s, 7000).await;
        assert_eq!(report.unnotified, ["P".into()]);
        assert!(s.notifications_to("P").is_empty());
    });
}

#[test]
fn create_in_flight_is_awaited_and_aborted() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(4000));
        let a = s.launch(job("a")).await;
        s.advance_to(1000).await;
        done_at(&s, 4000).await;
        let late = s.server.session_of(&a).expect("it came");
        assert_eq!(s.calls(CallKind::Abort), [format!("4000 {late}")]);
        assert!(s.calls(CallKind::Prompt).is_empty());
    });
}

#[test]
fn queued_resume_fails() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            s.launch(job("b")).await;
            s.resume(&a).await;
            let (greenroom, id) = (s.greenroom.clone(), a.clone());
            let wait =
                actix_rt::spawn(async move { greenroom.wait(&id, Run(2), WaitFor::Started).await });
            s.settle().await;
            done_at(&s, 6000).await;
            let ended = wait.await.expect("no panic").expect("it is answered");
            assert_eq!(ended.error(), Some("Shutdown"));
            assert_eq!(ended.status().as_str(), "cancelled");
        },
    );
}

#[test]
fn late_check_answer_is_ignored() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let mut changes = s.changes();
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Todos, CallOutcome::Late(1000));
        s.server
            .set_outcome(CallKind::Abort, CallOutcome::Late(3000));
        s.finish_turn(&a).await;
        s.advance_to(6500).await;
        done_at(&s, 9500).await;
        let mut ends = Vec::new();
        while let Ok(change) = changes.try_recv() {
            ends.push(change.to.as_str());
        }
        assert_eq!(ends, ["cancelled"]);
    });
}

#[test]
fn idle_system_shuts_down_at_once() {
    story(|s| async move {
        s.advance_to(5000).await;
        let report = done_at(&s, 5000).await;
        assert_eq!(report, greenroom::ShutdownReport::default());
    });
}

#[test]
fn no_timer_is_left_after_shutdown() {
    story(|s| async move {
        s.launch(job("a")).await;
        s.server.go_offline();
        s.launch(job("b")).await;
        s.advance_to(6000).await;
        let report = s.shutdown().await;
        s.advance_to(20_000).await;
        assert!(report.is_finished());
        let calls = s.server.log().len();
        s.advance_to(3_600_000).await;
        assert_eq!(s.server.log().len(), calls);
    });
}

//! A process crashes and another continues from the durable state: every task continues or ends, each
//! parent gets one final message, and no call is made twice. While the disk is full no task is accepted and
//! none is lost.

use greenroom::domain::ids::Run;
use greenroom::domain::task::{TaskStatus, Track};
use greenroom::{LaunchError, ResumeError, ShutdownMode};

use crate::harness::{Harness, job, story, story_with};
use crate::server::{CallKind, CallOutcome};

fn minute(s: &Harness) -> u64 {
    u64::try_from(s.now()).unwrap_or_default() + 60_000
}

#[test]
fn running_task_continues_without_new_calls() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.busy(&a).await;
        s.crash(1000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.slots().await, ["worker 1/5"]);
        s.advance_to(20_000).await;
        s.finish_turn(&a).await;
        s.advance_to(minute(&s)).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P"), ["20000 final wakes: a completed"]);
        assert_eq!(s.calls(CallKind::Create).len(), 1);
        assert_eq!(s.calls(CallKind::Prompt).len(), 1);
    });
}

#[test]
fn downtime_is_not_silence() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        // Busy for longer than the limit of silence, and never silent.
        for minutes in [10, 20, 30, 40] {
            s.advance_to(minutes * 60_000).await;
            s.busy(&a).await;
            s.stream_text(&a).await;
        }
        s.crash(600_000).await;
        s.advance_to(60 * 60_000).await;
        assert_eq!(s.state(&a).await, "running");
        // From the restart on events are received, but there are none.
        s.advance_to(81 * 60_000).await;
        assert_eq!(
            s.state(&a).await,
            "error: no activity for 30m 0s although the session is busy"
        );
    });
}

#[test]
fn end_during_downtime_is_reported_once() {
    story(|mut s| async move {
        let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
        s.advance_to(6000).await;
        s.finish_turn(&b).await;
        s.busy(&a).await;
        s.advance_to(8000).await;
        assert_eq!(
            s.notifications_to("P"),
            ["6100 note silent: b completed, 1 open"]
        );
        s.answer_without_event(&a, "done");
        s.idle_without_event(&a);
        s.crash(5000).await;
        s.advance_to(minute(&s)).await;
        let ended = s.task(&a).await;
        assert_eq!(ended.status(), TaskStatus::Completed);
        let finals: Vec<String> = s.notifications_to("P").into_iter().skip(1).collect();
        assert_eq!(finals.len(), 1, "{finals:?}");
        assert!(finals[0].ends_with("final wakes: a completed, b completed"));
    });
}

#[test]
fn task_reparented_before_crash_is_in_batch_of_new_parent() {
    story(|mut s| async move {
        s.server.add_session("S", None);
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let tracked = s.track("t", "S", None).await;
        s.track_with(Track {
            task: tracked.id.clone(),
            session: "S".into(),
            parent_session: "Q".into(),
            description: "t".to_owned(),
            agent: None,
            parent_agent: None,
            concurrency_key: None,
        })
        .await;
        s.crash(1000).await;
        s.finish_turn(&a).await;
        s.advance_to(14_000).await;
        assert_eq!(s.notifications_to("P"), ["7000 final wakes: a completed"]);
        s.finish_turn("S").await;
        s.advance_to(minute(&s)).await;
        assert_eq!(s.notifications_to("Q"), ["14000 final wakes: t completed"]);
        assert_eq!(s.notifications_to("P").len(), 1);
    });
}

#[test]
fn queue_order_is_restored() {
    story_with(
        |config| config.limits.default = 1,
        |mut s| async move {
            let a = s.launch(job("a")).await;
            for name in ["b", "c", "d"] {
                s.launch(job(name)).await;
            }
            s.advance_to(6000).await;
            s.busy(&a).await;
            s.crash(100).await;
            assert_eq!(s.slots().await, ["worker 1/1 +3"]);
            for _ in 0..4 {
                for task in s.tasks().await {
                    if task.status() == TaskStatus::Running {
                        s.advance(6000).await;
                        s.finish_turn(&task.id).await;
                    }
                }
                s.advance(1000).await;
            }
            let made = s.calls(CallKind::Create).into_iter();
            let made: Vec<String> = made.map(|line| line[line.len() - 1..].to_owned()).collect();
            assert_eq!(made, ["a", "b", "c", "d"]);
        },
    );
}

#[test]
fn created_session_is_found_after_crash() {
    story(|mut s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Lost);
        let a = s.launch(job("a")).await;
        s.advance_to(3000).await;
        s.crash(1000).await;
        s.advance_to(minute(&s)).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(
            s.calls(CallKind::Create).len(),
            1,
            "{:?}",
            s.calls(CallKind::Create)
        );
        assert_eq!(s.calls(CallKind::Prompt).len(), 1);
    });
}

#[test]
fn final_of_unknown_outcome_is_looked_up_first() {
    for arrives in [true, false] {
        story(move |mut s| async move {
            let a = s.launch(job("a")).await;
            s.advance_to(6000).await;
            let fate = if arrives {
                CallOutcome::Lost
            } else {
                CallOutcome::Hangs
            };
            s.server.set_next_outcome(CallKind::Notify, fate);
            s.finish_turn(&a).await;
            s.advance_to(6100).await;
            s.crash(1000).await;
            s.server.clear_outcomes(CallKind::Notify);
            s.advance_to(minute(&s)).await;
            let expected = if arrives { 1 } else { 2 };
            assert_eq!(
                s.notifications_to("P").len(),
                expected,
                "{:?}",
                s.notifications_to("P")
            );
            s.advance_to(minute(&s) + 600_000).await;
            assert_eq!(
                s.notifications_to("P").len(),
                expected,
                "{:?}",
                s.notifications_to("P")
            );
        });
    }
}

#[test]
fn missing_abort_is_made_after_restart() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.busy(&a).await;
        s.server.set_outcome(CallKind::Abort, CallOutcome::Hangs);
        assert!(s.cancel(&a).await);
        s.advance_to(6500).await;
        s.crash(1000).await;
        s.server.clear_outcomes(CallKind::Abort);
        let before = s.calls(CallKind::Abort).len();
        s.advance_to(minute(&s)).await;
        assert_eq!(s.state(&a).await, "cancelled");
        assert!(
            s.calls(CallKind::Abort).len() > before,
            "its session works on"
        );
    });
}

#[test]
fn full_disk_refuses_launches_only() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.disk.set_full(Some("the disk is full"));
        // The first launch after the failure is revoked; later ones are refused at once.
        for name in ["b", "c"] {
            let refused = s.try_launch(job(name)).await;
            assert_eq!(
                refused,
                Err(LaunchError::Journal("the disk is full".to_owned())),
                "{name}"
            );
        }
        let greenroom = s.greenroom.clone();
        let ready = s.resolve(async move { greenroom.readiness().await }).await;
        assert!(!ready.ready);
        assert_eq!(
            ready.problems,
            ["the journal cannot be written: the disk is full"]
        );
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        // The end is decided and not published: no slot is held, and readers see the last durable state.
        assert_eq!(s.in_use().await, 0);
        assert_eq!(s.state(&a).await, "running");
        assert!(
            s.notifications_to("P").is_empty(),
            "{:?}",
            s.notifications_to("P")
        );
        assert_eq!(
            s.calls(CallKind::Create),
            ["0 a"],
            "a refused launch creates no session"
        );
        s.disk.set_full(None);
        s.advance_to(23_000).await;
        assert_eq!(s.state(&a).await, "completed");
        let notifications = s.notifications_to("P");
        assert_eq!(notifications.len(), 1, "{notifications:?}");
        assert!(
            notifications[0].ends_with("final wakes: a completed"),
            "{notifications:?}"
        );
        s.launch(job("d")).await;
        assert_eq!(s.names(TaskStatus::Running).await, ["d"]);
        assert_eq!(s.names(TaskStatus::Cancelled).await, ["b"]);
    });
}

#[test]
fn revoked_resume_keeps_launch_key() {
    story(|s| async move {
        let once = |s: &Harness| {
            let greenroom = s.greenroom.clone();
            async move { greenroom.launch_once("key".to_owned(), job("a")).await }
        };
        let (a, _) = s.resolve(once(&s)).await.expect("it is accepted");
        s.advance_to(6000).await;
        s.finish_turn(&a.id).await;
        s.advance_to(8000).await;
        s.disk.set_full(Some("the disk is full"));
        let refused = s.try_resume(s.resume_request(&a.id, "go on")).await;
        assert_eq!(
            refused,
            Err(ResumeError::Journal("the disk is full".to_owned()))
        );
        s.disk.set_full(None);
        s.advance_to(20_000).await;
        let again = s.resolve(once(&s)).await.expect("it is known");
        assert_eq!((again.0.id, again.1), (a.id, true));
        assert_eq!(s.calls(CallKind::Create), ["0 a"]);
    });
}

#[test]
fn forgotten_task_is_found_after_revoked_resume() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(700_000).await;
        assert_eq!(s.state(&a).await, "gone");
        s.disk.set_full(Some("the disk is full"));
        let refused = s.try_resume(s.resume_request(&a, "go on")).await;
        assert!(
            matches!(refused, Err(ResumeError::Journal(_))),
            "{refused:?}"
        );
        let task = s.task(&a).await;
        assert_eq!((task.run, task.status()), (Run(1), TaskStatus::Completed));
        s.disk.set_full(None);
        s.advance(3000).await;
        assert_eq!(s.task(&a).await.run, Run(2));
    });
}

#[test]
fn hanging_disk_delays_callers_ten_seconds_at_most() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(20_000).await;
        s.disk.set_hanging(true);
        let (greenroom, resume) = (s.greenroom.clone(), s.resume_request(&a, "go on"));
        let resumed = actix_rt::spawn(async move { greenroom.resume(resume).await });
        let greenroom = s.greenroom.clone();
        let launched = actix_rt::spawn(async move { greenroom.launch(job("b")).await });
        s.advance_to(29_999).await;
        assert!(!launched.is_finished() && !resumed.is_finished());
        s.advance_to(30_000).await;
        assert!(launched.is_finished() && resumed.is_finished());
        let why = "the write did not finish within 10s";
        let refused = launched.await.expect("no panic");
        assert_eq!(refused, Err(LaunchError::Journal(why.to_owned())));
        let refused = resumed.await.expect("no panic");
        assert_eq!(refused, Err(ResumeError::Journal(why.to_owned())));
        s.advance_to(50_000).await;
        s.disk.set_hanging(false);
        s.advance_to(80_000).await;
        // Both are revoked: a refused request must not start anything.
        let reason = format!("cancelled: the journal could not be written: {why}");
        assert_eq!(s.state(&a).await, reason);
        assert_eq!(s.names(TaskStatus::Cancelled).await, ["a", "b"]);
        assert_eq!(s.calls(CallKind::Create), ["0 a"]);
        assert_eq!(s.calls(CallKind::Prompt).len(), 1);
        s.launch(job("c")).await;
        assert_eq!(s.names(TaskStatus::Running).await, ["c"]);
    });
}

#[test]
fn crash_with_full_disk_loses_undurable_changes() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.disk.set_full(Some("the disk is full"));
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.crash(1000).await;
        s.disk.set_full(None);
        s.advance_to(minute(&s)).await;
        // The session is found idle, with its answer.
        assert_eq!(s.state(&a).await, "completed");
        let notifications = s.notifications_to("P");
        assert_eq!(notifications.len(), 1, "{notifications:?}");
    });
}

#[test]
fn detached_shutdown_ends_no_task() {
    story_with(
        |config| config.limits.default = 1,
        |mut s| async move {
            let (a, b) = (s.launch(job("a")).await, s.launch(job("b")).await);
            s.advance_to(6000).await;
            s.busy(&a).await;
            let greenroom = s.greenroom.clone();
            let report = s
                .resolve(async move { greenroom.shutdown(ShutdownMode::Detach).await })
                .await;
            assert_eq!(report.detached, [a.clone(), b.clone()]);
            assert_eq!(report.cancelled, []);
            assert!(s.tasks().await.is_empty());
            assert!(s.calls(CallKind::Abort).is_empty());
            s.restart(5000).await;
            assert_eq!(s.state(&a).await, "running");
            assert_eq!(s.state(&b).await, "pending");
            s.finish_turn(&a).await;
            s.advance(6000).await;
            s.finish_turn(&b).await;
            s.advance_to(minute(&s)).await;
            assert_eq!(s.calls(CallKind::Prompt).len(), 2);
            assert_eq!(s.calls(CallKind::Create).len(), 2);
            let notifications = s.notifications_to("P");
            let finals = notifications.iter().filter(|line| line.contains("final"));
            assert_eq!(finals.count(), 1, "{notifications:?}");
        },
    );
}

#[test]
fn pending_messages_of_shutdown_are_sent_after_restart() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let report = s.shutdown().await;
        s.advance_to(20_000).await;
        let report = report.await.expect("no panic");
        assert_eq!(report.cancelled, [a]);
        assert!(s.notifications_to("P").is_empty());
        s.restart(5000).await;
        s.advance_to(minute(&s)).await;
        let notifications = s.notifications_to("P");
        assert_eq!(notifications.len(), 1, "{notifications:?}");
        assert!(
            notifications[0].ends_with("final wakes: a cancelled"),
            "{notifications:?}"
        );
    });
}

#[test]
fn changes_continue_and_timelines_are_kept() {
    story(|mut s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let mut feed = s.greenroom.follow(greenroom::Since::Oldest);
        let mut last = 0;
        while let Some(Some(greenroom::Followed::Change(change))) =
            futures::FutureExt::now_or_never(feed.next())
        {
            last = change.number;
        }
        s.crash(1000).await;
        s.finish_turn(&a).await;
        s.advance_to(minute(&s)).await;
        let mut feed = s.greenroom.follow(greenroom::Since::Number(last));
        let mut after = Vec::new();
        while let Some(Some(next)) = futures::FutureExt::now_or_never(feed.next()) {
            let greenroom::Followed::Change(change) = next else {
                panic!("something was missed: {next:?}");
            };
            assert!(change.number > last);
            last = change.number;
            after.push(change.change.to.as_str());
        }
        assert_eq!(after, ["completed"]);
        let (greenroom, name) = (s.greenroom.clone(), a.to_string());
        let why = s
            .resolve(async move { greenroom.why(&name).await })
            .await
            .expect("it is known");
        let events: Vec<&str> = why.events.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(
            events,
            [
                "accepted",
                "slot granted",
                "running",
                "prompt accepted",
                "greenroom was started again",
                "idle",
                "checked",
                "completed",
                "notifying the parent",
                "parent notified"
            ]
        );
    });
}

//! Runs whose instance ended in mid-turn: they continue once in their session, and no person is blamed.

use greenroom::domain::ids::TaskId;
use greenroom::ports::agent_server::ServerError;
use greenroom::{CancelOptions, EventLink};

use crate::harness::{Harness, job, message_event, story, story_with};
use crate::server::{CallKind, CallOutcome, CallPayload};

fn prompt_texts(s: &Harness) -> Vec<String> {
    let calls = s.server.calls(CallKind::Prompt).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Prompt(_, prompt) => Some(prompt.text.to_string()),
            _ => None,
        })
        .collect()
}

/// Returns the number of prompts to continue.
fn continuations(s: &Harness) -> usize {
    let texts = prompt_texts(s);
    let continues = |text: &&String| text.contains("Go on where you stopped");
    texts.iter().filter(continues).count()
}

async fn busy_job(s: &Harness, name: &str) -> TaskId {
    let a = s.launch(job(name)).await;
    s.busy(&a).await;
    a
}

#[test]
fn disposed_instance_cuts_off_its_children() {
    story(|s| async move {
        let tasks = [
            busy_job(&s, "a").await,
            busy_job(&s, "b").await,
            busy_job(&s, "c").await,
        ];
        s.advance_to(10_000).await;
        for task in &tasks {
            s.cut_off(task).await;
            s.advance(30).await;
        }
        s.advance_to(10_120).await;
        assert_eq!(continuations(&s), 0);
        s.end_instance(Some("/base")).await;
        s.advance_to(11_000).await;
        assert_eq!(continuations(&s), 3);
        assert_eq!(s.server.calls(CallKind::Create).len(), 3);
        assert_eq!(s.server.calls(CallKind::Abort).len(), 0);
        for task in &tasks {
            assert_eq!(s.state(task).await, "running");
            s.finish_turn(task).await;
            assert_eq!(s.state(task).await, "completed");
        }
        s.advance_to(30_000).await;
        assert_eq!(continuations(&s), 3);
        assert_eq!(s.notifications_to("P").len(), 1);
    });
}

#[test]
fn end_before_the_abort_cuts_off() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(10_300).await;
        s.cut_off(&a).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn stop_by_a_person_in_the_next_instance_is_no_cut_off() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.advance_to(10_120).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(11_000).await;
        assert_eq!(continuations(&s), 1);
        // It works in the next instance, in which a person stops it.
        s.busy(&a).await;
        s.advance_to(13_000).await;
        s.cut_off(&a).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(15_000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
        assert_eq!(continuations(&s), 1);
    });
}

#[test]
fn abort_without_end_is_a_persons() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.end_instance(Some("/elsewhere")).await;
        s.advance_to(11_900).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.in_use().await, 1);
        s.advance_to(12_000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
        assert_eq!(continuations(&s), 0);
    });
}

#[test]
fn abort_is_read_from_the_message_alone() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        let info = s.store_abort(&a);
        let session = s.server.session_of(&a).expect("it runs");
        s.event(message_event(&session, &info)).await;
        s.idle(&a).await;
        s.advance_to(10_500).await;
        assert_eq!(continuations(&s), 0);
        s.end_instance(None).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn broken_link_counts_as_end() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.link(EventLink::Broken).await;
        s.advance_to(11_000).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn stored_abort_is_a_cut_off() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.store_abort(&a);
        s.advance_to(20_000).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn second_cut_off_in_a_row_interrupts() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(20_000).await;
        s.busy(&a).await;
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        assert_eq!(s.state(&a).await, "interrupt: cut off again");
        assert_eq!(continuations(&s), 1);
    });
}

#[test]
fn finished_message_begins_the_count_again() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        for round in 1..=3 {
            s.advance(10_000).await;
            s.busy(&a).await;
            s.answer(&a, "a step").await;
            s.cut_off(&a).await;
            s.end_instance(Some("/base")).await;
            s.advance(1000).await;
            assert_eq!(continuations(&s), round);
        }
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        let attempts = s.task(&a).await.attempts;
        assert_eq!(attempts.len(), 4);
        assert_eq!(attempts[3].attempt, 4);
    });
}

#[test]
fn cancel_during_the_grace_wins() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.advance_to(10_500).await;
        assert!(s.cancel(&a).await);
        s.end_instance(Some("/base")).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "cancelled");
        assert_eq!(continuations(&s), 0);
    });
}

#[test]
fn deleted_session_is_not_continued() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.delete(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "gone");
        assert_eq!(continuations(&s), 0);
    });
}

fn nothing_serves() -> CallOutcome {
    CallOutcome::Fails(ServerError::Unreachable("no opencode is open".to_owned()))
}

#[test]
fn run_of_a_killed_process_waits_for_the_next() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.server.kill();
        s.link(EventLink::Broken).await;
        // One refused connection may be a server that restarts.
        s.advance_to(13_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(16_000).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.in_use().await, 0);
        let detail = s.find(a.as_str()).await.expect("it is in memory");
        assert_eq!(
            detail.waits_for.expect("it waits").text,
            "an opencode in /base"
        );
        // Longer than a silent run may last.
        s.advance_to(3 * 3600 * 1000).await;
        assert_eq!(s.state(&a).await, "pending");
        s.server.serve_again();
        s.link(EventLink::Connected).await;
        assert_eq!(
            (s.state(&a).await.as_str(), continuations(&s)),
            ("running", 1)
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn idle_run_of_a_killed_process_waits_unless_it_has_answered() {
    story(|s| async move {
        let (a, b) = (busy_job(&s, "a").await, busy_job(&s, "b").await);
        s.advance_to(10_000).await;
        // Both are idle, and their completion checks are not answered any more.
        s.server.kill();
        s.idle(&a).await;
        s.answer(&b, "it is done").await;
        s.idle(&b).await;
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.state(&b).await, "running");
        s.server.serve_again();
        s.link(EventLink::Connected).await;
        s.advance_to(40_000).await;
        assert_eq!(s.state(&b).await, "completed");
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn server_that_restarts_at_once_is_not_waited_for() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        let ended = ServerError::ProcessEnded("connection refused".to_owned());
        s.server
            .set_next_outcome(CallKind::Statuses, CallOutcome::Fails(ended));
        s.advance_to(20_000).await;
        assert_eq!(
            (s.state(&a).await.as_str(), continuations(&s)),
            ("running", 0)
        );
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn shutdown_ends_the_wait_for_a_server() {
    story(|s| async move {
        busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.server.kill();
        s.advance_to(20_000).await;
        let report = s.shutdown().await;
        s.advance_to(60_000).await;
        assert!(report.is_finished());
        let before = s.server.calls(CallKind::Health).len();
        s.server.serve_again();
        s.link(EventLink::Connected).await;
        s.advance_to(120_000).await;
        assert_eq!(s.server.calls(CallKind::Health).len(), before);
    });
}

#[test]
fn run_waits_for_a_server_of_its_folder() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.server.set_outcome(CallKind::Health, nothing_serves());
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(30_000).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.in_use().await, 0);
        assert_eq!(continuations(&s), 0);
        let detail = s.find(a.as_str()).await.expect("it is in memory");
        let waits_for = detail.waits_for.expect("it waits");
        assert_eq!(waits_for.text, "an opencode in /base");
        s.server.clear_outcomes(CallKind::Health);
        s.link(EventLink::Connected).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn waiting_run_can_be_cancelled() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.server.set_outcome(CallKind::Health, nothing_serves());
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(15_000).await;
        let only_pending = CancelOptions {
            only_pending: true,
            ..CancelOptions::default()
        };
        assert!(s.try_cancel(&a, only_pending).await.is_ok());
        s.server.clear_outcomes(CallKind::Health);
        s.link(EventLink::Connected).await;
        s.advance_to(40_000).await;
        assert_eq!(s.state(&a).await, "cancelled");
        assert_eq!(continuations(&s), 0);
    });
}

#[test]
fn run_without_a_server_ends_after_retention() {
    story_with(
        |config| config.lifecycle.retention = std::time::Duration::from_secs(60),
        |s| async move {
            let a = busy_job(&s, "a").await;
            s.advance_to(10_000).await;
            s.server.set_outcome(CallKind::Health, nothing_serves());
            s.cut_off(&a).await;
            s.end_instance(Some("/base")).await;
            s.advance_to(90_000).await;
            let state = s.state(&a).await;
            assert!(
                state.starts_with("error: the run was cut off, and no opencode served /base"),
                "{state}"
            );
        },
    );
}

#[test]
fn place_in_line_is_kept() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = busy_job(&s, "a").await;
            s.launch(job("b")).await;
            s.launch(job("c")).await;
            s.advance_to(10_000).await;
            s.server.set_outcome(CallKind::Health, nothing_serves());
            s.cut_off(&a).await;
            s.end_instance(Some("/base")).await;
            // The slot goes to the next task meanwhile.
            s.advance_to(15_000).await;
            let b = s.find("ses_000002").await.expect("it runs").task.id;
            s.server.clear_outcomes(CallKind::Health);
            s.link(EventLink::Connected).await;
            assert_eq!(continuations(&s), 0);
            s.finish_turn(&b).await;
            // The run that was cut off comes before those accepted after it.
            assert_eq!(continuations(&s), 1);
            assert_eq!(s.server.calls(CallKind::Create).len(), 2);
        },
    );
}

#[test]
fn restart_during_the_grace() {
    story(|mut s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.advance_to(10_500).await;
        s.crash(500).await;
        assert_eq!(s.state(&a).await, "running");
        // The grace begins again. A server serves the folder: a person aborted the session.
        s.advance_to(12_900).await;
        assert_eq!(s.state(&a).await, "running");
        s.advance_to(13_100).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
    });
}

#[test]
fn restart_during_the_grace_without_a_server() {
    story(|mut s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.advance_to(10_500).await;
        s.server.set_outcome(CallKind::Health, nothing_serves());
        s.crash(500).await;
        s.advance_to(14_000).await;
        assert_eq!(s.state(&a).await, "pending");
        s.server.clear_outcomes(CallKind::Health);
        s.link(EventLink::Connected).await;
        s.advance_to(20_000).await;
        assert_eq!(continuations(&s), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

#[test]
fn restart_between_the_aborts_and_the_end_of_their_instance() {
    story(|mut s| async move {
        let (a, b) = (busy_job(&s, "a").await, busy_job(&s, "b").await);
        s.advance_to(10_000).await;
        s.cut_off(&a).await;
        s.advance(30).await;
        s.cut_off(&b).await;
        // The end of the instance is reported to no process.
        s.crash(500).await;
        s.advance_to(14_000).await;
        assert_eq!(continuations(&s), 2);
        for task in [&a, &b] {
            s.finish_turn(task).await;
            assert_eq!(s.state(task).await, "completed");
        }
    });
}

#[test]
fn end_of_another_process_of_the_folder_does_not_explain_a_stop() {
    story(|s| async move {
        let a = busy_job(&s, "a").await;
        s.server.set_process(1);
        s.advance_to(10_000).await;
        s.end_process(2).await;
        s.advance_to(11_000).await;
        s.cut_off(&a).await;
        s.advance_to(11_500).await;
        s.end_process(2).await;
        s.advance_to(14_000).await;
        assert_eq!(
            s.state(&a).await,
            "interrupt: the session was aborted from outside"
        );
        assert_eq!(continuations(&s), 0);
    });
}

#[test]
fn restart_while_the_run_waits_for_a_server() {
    story(|mut s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        s.server.set_outcome(CallKind::Health, nothing_serves());
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(12_000).await;
        s.crash(500).await;
        s.advance_to(14_000).await;
        assert_eq!(s.state(&a).await, "pending");
        s.server.clear_outcomes(CallKind::Health);
        s.link(EventLink::Connected).await;
        s.advance_to(20_000).await;
        assert_eq!(continuations(&s), 1);
        assert_eq!(s.server.calls(CallKind::Create).len(), 1);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.notifications_to("P").len(), 1);
    });
}

#[test]
fn restart_between_start_and_continuation() {
    story(|mut s| async move {
        let a = busy_job(&s, "a").await;
        s.advance_to(10_000).await;
        // The prompt is accepted, and its answer lost with the process.
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Lost);
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(10_100).await;
        assert_eq!(continuations(&s), 1);
        s.crash(500).await;
        s.advance_to(20_000).await;
        assert_eq!(continuations(&s), 1, "its prompt is found, not repeated");
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

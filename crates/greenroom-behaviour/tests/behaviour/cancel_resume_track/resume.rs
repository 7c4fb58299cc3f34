//! Resume: a new run in the same session. Send: a further prompt to the present run.

use greenroom::ResumeError;
use greenroom::domain::ids::Run;
use greenroom::domain::task::{Launch, Resume};
use greenroom::{SendError, WaitFor};
use serde_json::json;

use crate::harness::{Harness, job, part_event, story, story_with};
use crate::server::{CallKind, CallOutcome, CallPayload, cut_off, status};

fn last_prompt(s: &Harness) -> greenroom::ports::agent_server::TaskPrompt {
    match s
        .server
        .calls(CallKind::Prompt)
        .pop()
        .map(|call| call.payload)
    {
        Some(CallPayload::Prompt(_, prompt)) => *prompt,
        other => panic!("{other:?} is no prompt"),
    }
}

#[test]
fn resume_keeps_tool_count_and_queued_at() {
    story(|s| async move {
        let with_skill = Launch {
            skill_content: Some("be brief".to_owned()),
            ..job("a")
        };
        let a = s.launch(with_skill).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.advance_to(6000).await;
        let tool = json!({"id": "1", "type": "tool", "tool": "bash"});
        s.event(part_event(&session, tool)).await;
        s.fail(&a, "boom").await;
        s.advance_to(8000).await;
        let resumed = s.try_resume(s.resume_request(&a, "once more")).await;
        let pending = resumed.expect("it is accepted");
        assert_eq!(pending.status().as_str(), "pending", "when accepted");
        let task = s.task(&a).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!((task.run, &*task.prompt), (Run(2), "once more"));
        assert_eq!(task.session.as_ref(), Some(&session));
        assert_eq!(
            (task.queued_at.as_millis(), task.progress.tool_calls),
            (0, 1)
        );
        assert_eq!(
            (task.error(), task.progress.last_tool.as_deref()),
            (None, None)
        );
        assert_eq!(task.started_at().map(|at| at.as_millis()), Some(8000));
        assert_eq!(task.completed_at(), None);
        let prompt = last_prompt(&s);
        assert_eq!(prompt.text, "once more".into());
        assert_eq!(
            prompt.system.as_deref(),
            Some("be brief"),
            "it is sent again"
        );
        assert_eq!(s.calls(CallKind::Create).len(), 1);
        s.advance_to(14_000).await;
        s.finish_turn(&a).await;
        assert_eq!(
            s.notifications_to("P"),
            [
                "6000 final wakes: a error",
                "14000 final wakes: a completed"
            ]
        );
    });
}

#[test]
fn resume_joins_batch_of_new_parent() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let b = s.launch(job("b")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(8000).await;
        s.try_resume(Resume {
            parent_session: Some("Q".into()),
            parent_message: Some("msg_7".into()),
            parent_agent: Some("lead".to_owned()),
            ..s.resume_request(&a, "go on")
        })
        .await
        .expect("it is accepted");
        let task = s.task(&a).await;
        assert_eq!(task.parent_session.as_ref().map(|p| p.as_str()), Some("Q"));
        assert_eq!(
            task.parent_message.as_ref().map(|m| m.as_str()),
            Some("msg_7")
        );
        s.advance_to(14_000).await;
        s.finish_turn(&a).await;
        assert_eq!(
            s.notifications_to("Q"),
            ["14000 final wakes: a completed as lead"]
        );
        s.finish_turn(&b).await;
        let last = s.notifications_to("P").pop();
        assert_eq!(
            last.as_deref(),
            Some("14000 final wakes: a completed, b completed"),
            "its first run was of the old parent's batch"
        );
        for parent in ["P", "Q"] {
            let history = s.greenroom.history(&parent.into()).await;
            assert_eq!(history[0].status.as_str(), "completed", "{parent}");
        }
    });
}

#[test]
fn refused_resume_returns_reason() {
    story_with(
        |config| config.limits.default = 1,
        |s| async move {
            let a = s.launch(job("a")).await;
            let running = s.try_resume(s.resume_request(&a, "x")).await;
            let text = running.map(|_| ()).map_err(|error| error.to_string());
            let session = s.server.session_of(&a).expect("it runs");
            assert_eq!(
                text,
                Err(format!("the task of session {session} is already running"))
            );
            s.advance_to(6000).await;
            s.finish_turn(&a).await;
            s.launch(job("b")).await;
            s.resume(&a).await;
            let twice = s.try_resume(s.resume_request(&a, "x")).await;
            let text = twice.map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(
                text,
                Err(format!(
                    "the task of session {session} is already being resumed"
                ))
            );
            assert_eq!(s.slots().await, ["worker 1/1 +1"], "it waits once");
            let unknown = s.try_resume(s.resume_request("unknown", "x")).await;
            assert_eq!(unknown, Err(ResumeError::UnknownSession("unknown".into())));
            let blank = s.try_resume(s.resume_request(&a, " ")).await;
            assert!(
                matches!(
                    blank,
                    Err(ResumeError::Invalid {
                        field: "prompt",
                        ..
                    })
                ),
                "{blank:?}"
            );
        },
    );
}

#[test]
fn resume_waits_for_previous_abort() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server.set_outcome(CallKind::Abort, CallOutcome::Hangs);
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(35_999).await;
        assert_eq!(s.state(&a).await, "pending");
        assert_eq!(s.in_use().await, 1, "its slot is kept for it");
        s.advance_to(36_000).await;
        assert_eq!(
            s.state(&a).await,
            "running",
            "three times ten seconds are enough"
        );
        assert_eq!(s.times(CallKind::Prompt), [0, 36_000]);
    });
}

#[test]
fn resume_waiting_for_abort_can_be_cancelled() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Abort, CallOutcome::Late(5000));
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        s.advance_to(8000).await;
        assert!(s.cancel(&a).await);
        assert_eq!(s.in_use().await, 0);
        s.advance_to(20_000).await;
        assert_eq!(s.state(&a).await, "cancelled");
        assert_eq!(s.times(CallKind::Prompt), [0]);
    });
}

#[test]
fn resume_cancels_removal() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.advance_to(600_000).await;
        s.resume(&a).await;
        s.advance_to(610_000).await;
        assert_eq!(s.state(&a).await, "running");
        s.finish_turn(&a).await;
        s.advance_to(1_209_000).await;
        assert_eq!(s.state(&a).await, "completed");
        s.advance_to(1_211_000).await;
        assert_eq!(s.state(&a).await, "gone");
    });
}

#[test]
fn late_prompt_timeout_does_not_affect_resumed_run() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Hangs);
        let a = s.launch(job("a")).await;
        s.advance_to(60_000).await;
        assert!(s.cancel(&a).await);
        s.resume(&a).await;
        for second in [80, 100, 119, 121, 130] {
            s.advance_to(second * 1000).await;
            s.stream_text(&a).await;
        }
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn wait_returns_at_end_of_its_run() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        let (greenroom, id) = (s.greenroom.clone(), a.clone());
        let wait =
            actix_rt::spawn(async move { greenroom.wait(&id, Run::FIRST, WaitFor::Ended).await });
        s.advance_to(6000).await;
        assert!(!wait.is_finished());
        s.finish_turn(&a).await;
        let ended = wait.await.expect("no panic").expect("it ended");
        assert_eq!(ended.status().as_str(), "completed");
        s.resume(&a).await;
        let (greenroom, id) = (s.greenroom.clone(), a.clone());
        let over = s.resolve(async move { greenroom.wait(&id, Run::FIRST, WaitFor::Ended).await });
        assert!(over.await.is_none(), "that run is over");
    });
}

#[test]
fn refused_resume_prompt_interrupts() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(status(500)));
        s.resume(&a).await;
        assert_eq!(s.state(&a).await, "interrupt: refused with 500");
        assert_eq!(s.in_use().await, 0);
    });
}

async fn send(s: &Harness, a: &greenroom::domain::ids::TaskId) -> Result<(), SendError> {
    let (greenroom, id) = (s.greenroom.clone(), a.clone());
    let sent = s.resolve(async move { greenroom.send(&id, "also this".to_owned()).await });
    sent.await.map(|_| ())
}

#[test]
fn send_prompts_same_run_and_is_activity() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        assert_eq!(send(&s, &a).await, Ok(()));
        let task = s.task(&a).await;
        assert_eq!((task.run, &*task.prompt), (Run(1), "do a"));
        assert_eq!(task.progress.last_update.as_millis(), 6000);
        let prompt = last_prompt(&s);
        assert_eq!((&*prompt.text, &*prompt.agent), ("also this", "worker"));
        assert_eq!(s.times(CallKind::Prompt), [0, 6000]);
    });
}

#[test]
fn run_does_not_complete_during_send() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Messages, CallOutcome::Late(500));
        s.finish_turn(&a).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Late(1000));
        let greenroom = s.greenroom.clone();
        let task = a.clone();
        let sent = actix_rt::spawn(async move { greenroom.send(&task, "also this".into()).await });
        s.advance_to(6600).await;
        assert_eq!(
            s.state(&a).await,
            "running",
            "the check began before the prompt"
        );
        s.advance_to(7000).await;
        assert!(sent.await.expect("the request does not panic").is_ok());
        s.busy(&a).await;
        s.advance_to(13_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.times(CallKind::Abort), [13_000]);
    });
}

#[test]
fn forgotten_task_is_resumed_from_journal() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        let session = s.server.session_of(&a).expect("it ran");
        s.advance_to(700_000).await;
        assert_eq!(s.state(&a).await, "gone");
        assert!(!s.cancel(&a).await);
        assert!(matches!(send(&s, &a).await, Err(SendError::NotRunning(_))));
        let resume_request = Resume {
            session: Some(session),
            prompt: "go on".into(),
            ..Resume::default()
        };
        let task = s
            .try_resume(resume_request)
            .await
            .expect("the journal remembers it");
        assert_eq!((task.id.clone(), task.run), (a.clone(), Run(2)));
        s.advance_to(706_000).await;
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
        assert_eq!(s.in_use().await, 0);
    });
}

#[test]
fn send_requires_running_task() {
    story(|s| async move {
        s.server
            .set_next_outcome(CallKind::Create, CallOutcome::Late(1000));
        let a = s.launch(job("a")).await;
        assert!(matches!(send(&s, &a).await, Err(SendError::NotRunning(_))));
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        assert!(matches!(send(&s, &a).await, Err(SendError::NotRunning(_))));
        let unknown = send(&s, &"bg_00000000".into()).await;
        assert!(matches!(unknown, Err(SendError::Unknown(_))), "{unknown:?}");
        assert_eq!(s.times(CallKind::Prompt), [1000]);
    });
}

#[test]
fn refused_send_leaves_run_running() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(status(500)));
        assert_eq!(send(&s, &a).await, Err(SendError::Server(status(500))));
        assert_eq!(s.state(&a).await, "running");
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Cut(cut_off()));
        assert_eq!(send(&s, &a).await, Ok(()), "it was found in the session");
        s.server
            .set_next_outcome(CallKind::Prompt, CallOutcome::Fails(cut_off()));
        assert_eq!(send(&s, &a).await, Err(SendError::Server(cut_off())));
    });
}

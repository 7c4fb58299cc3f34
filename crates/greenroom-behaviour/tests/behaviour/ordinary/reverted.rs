//! Sessions whose user has reverted messages: no prompt deletes what the user can still restore.

use greenroom::{ResumeError, SendError};

use crate::harness::{job, story};
use crate::server::CallKind;

#[test]
fn resume_of_reverted_session_is_refused() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        s.finish_turn(&a).await;
        let session = s.server.session_of(&a).expect("it ran");
        s.server.set_reverted(&session, true);
        let refused = s.try_resume(s.resume_request(&a, "go on")).await;
        assert_eq!(refused, Err(ResumeError::SessionReverted(session.clone())));
        assert_eq!(s.state(&a).await, "completed");
        s.server.set_reverted(&session, false);
        assert!(s.try_resume(s.resume_request(&a, "go on")).await.is_ok());
    });
}

#[test]
fn send_to_reverted_session_is_refused() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.advance_to(6000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.set_reverted(&session, true);
        let (greenroom, task) = (s.greenroom.clone(), a.clone());
        let sent = s
            .resolve(async move { greenroom.send(&task, "more".to_owned()).await })
            .await;
        assert_eq!(sent, Err(SendError::SessionReverted(session)));
        assert_eq!(s.server.calls(CallKind::Prompt).len(), 1);
        assert_eq!(s.state(&a).await, "running");
    });
}

#[test]
fn continuation_waits_for_the_restore() {
    story(|s| async move {
        let a = s.launch(job("a")).await;
        s.busy(&a).await;
        s.advance_to(10_000).await;
        let session = s.server.session_of(&a).expect("it runs");
        s.server.set_reverted(&session, true);
        s.cut_off(&a).await;
        s.end_instance(Some("/base")).await;
        s.advance_to(300_000).await;
        assert_eq!(s.state(&a).await, "running");
        assert_eq!(s.server.calls(CallKind::Prompt).len(), 1);
        s.server.set_reverted(&session, false);
        s.advance_to(371_000).await;
        assert_eq!(s.server.calls(CallKind::Prompt).len(), 2);
        s.finish_turn(&a).await;
        assert_eq!(s.state(&a).await, "completed");
    });
}

//! The real opencode, installed into the cache folder if it is not there. Run with `GREENROOM_E2E=1`; without it each
//! test ends at once. Needs npm, and a registry the first time.

use std::time::{Duration, Instant};

use crate::support::opencode::{RealOpencode, UNREACHABLE, e2e_enabled, model_ref, rule, tag};
use crate::support::{SinkCall, model};
use greenroom::EventLink::{Broken, Connected};
use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::notice::{NoticeFacts, NoticeKind};
use greenroom::domain::task::{AskAnswer, AskKind, PermissionAction};
use greenroom::ports::agent_server::{
    AgentServer as _, Notice, ServerError, SessionStatus, TaskPrompt, Toast, ToastVariant,
    find_notice,
};
use greenroom_opencode::{ChildState, OpencodeServer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

#[tokio::test]
async fn run_on_an_unreachable_provider_is_retried_and_aborted() {
    if !e2e_enabled() {
        return;
    }
    let mut opencode = RealOpencode::open(UNREACHABLE, None).await;
    let parent = opencode.create(None, Vec::new()).await;
    let deny = vec![
        rule("question", PermissionAction::Deny),
        rule("task", PermissionAction::Deny),
    ];
    let child = opencode.create(Some(&parent), deny).await;
    let record = opencode.server.session(&child).await.unwrap();
    assert_eq!(
        (record.id.as_ref(), record.parent.as_ref()),
        (Some(&child), Some(&parent))
    );
    assert_eq!(record.directory.as_deref(), Some(&*opencode.directory()));
    assert_eq!(
        record.metadata,
        Some(json!({"greenroom": {"task": "bg_00000001", "run": 1, "attempt": 1}}))
    );
    assert_eq!(
        opencode
            .server
            .sessions_below(Some(&parent), &opencode.directory())
            .await
            .unwrap(),
        [record]
    );
    let listed = opencode
        .server
        .sessions_below(None, &opencode.directory())
        .await
        .unwrap();
    assert!([&parent, &child].iter().all(|id| {
        listed
            .iter()
            .any(|session| session.id.as_ref() == Some(*id))
    }));
    assert_eq!(
        opencode
            .server
            .statuses(&opencode.directory())
            .await
            .unwrap(),
        [].into()
    );
    assert_eq!(opencode.server.todos(&child).await.unwrap(), []);

    opencode.prompt(&child, "build", "hello").await;
    let retry = opencode
        .calls
        .until(|call| match call {
            SinkCall::Event(event) if event["properties"]["status"]["type"] == "retry" => {
                Some(event.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(retry["properties"]["sessionID"], child.as_str());
    let statuses = opencode
        .server
        .statuses(&opencode.directory())
        .await
        .unwrap();
    assert!(
        matches!(
            statuses.get(&child),
            Some(SessionStatus::Retry { .. } | SessionStatus::Busy)
        ),
        "{statuses:?}"
    );

    opencode.server.abort(&child).await.unwrap();
    // During a backoff opencode reports an abort in the message only, without a `session.error`.
    let aborted = opencode
        .calls
        .event("message.updated", child.as_str())
        .await;
    assert!(
        aborted["info"]["time"]["completed"].is_number(),
        "{aborted:#}"
    );
    opencode.calls.event("session.idle", child.as_str()).await;
    let messages = opencode.server.messages(&child, None).await.unwrap();
    assert_eq!(messages[0].text(), "hello");
    assert_eq!(messages[0].agent.as_deref(), Some("build"));
    assert_eq!(
        messages[0].parts[0].metadata.as_ref().unwrap()["greenroom"]["task"],
        "bg_00000001"
    );
    assert_eq!(
        opencode
            .server
            .messages(&child, Some(1))
            .await
            .unwrap()
            .len(),
        1
    );
    let toast = Toast {
        title: "t".to_owned(),
        message: "m".to_owned(),
        variant: ToastVariant::Info,
    };
    opencode.server.toast(toast).await.unwrap();
    opencode.child.stop().await;
}

#[tokio::test]
async fn unknown_sessions_are_not_found() {
    if !e2e_enabled() {
        return;
    }
    let mut opencode = RealOpencode::open(UNREACHABLE, Some("a secret")).await;
    let unknown = SessionId::new("ses_0000000000000000000000000000");
    let foreign = SessionId::new("not one of its ids");
    for id in [&unknown, &foreign] {
        let prompt = TaskPrompt {
            agent: "build".into(),
            model: None,
            system: None,
            text: "x".into(),
            tag: tag(),
        };
        let outcomes = [
            opencode.server.session(id).await.unwrap_err(),
            opencode.server.messages(id, Some(5)).await.unwrap_err(),
            opencode.server.todos(id).await.unwrap_err(),
            opencode.server.prompt(id, None, prompt).await.unwrap_err(),
            opencode
                .server
                .sessions_below(Some(id), &opencode.directory())
                .await
                .unwrap_err(),
            opencode
                .server
                .reject_ask(id, "per_1", AskKind::Permission)
                .await
                .unwrap_err(),
        ];
        for outcome in outcomes {
            assert!(
                matches!(outcome, ServerError::NotFound(_)),
                "{id}: {outcome:?}"
            );
        }
    }
    let session = opencode.create(None, Vec::new()).await;
    let gone = opencode
        .server
        .reject_ask(&session, "per_1", AskKind::Permission)
        .await
        .unwrap_err();
    assert!(matches!(gone, ServerError::NotFound(_)), "{gone:?}");
    let gone = opencode
        .server
        .reject_ask(&session, "que_1", AskKind::Question)
        .await
        .unwrap_err();
    assert!(matches!(gone, ServerError::NotFound(_)), "{gone:?}");

    let stranger = opencode
        .server
        .address()
        .clone()
        .with_password(Some("another".to_owned()));
    let outcome = OpencodeServer::new(stranger)
        .unwrap()
        .health()
        .await
        .unwrap_err();
    assert!(
        matches!(
            outcome,
            ServerError::Refused {
                status: Some(401),
                ..
            }
        ),
        "{outcome:?}"
    );

    opencode.prompt(&session, "unknown", "x").await;
    let error = opencode
        .calls
        .event("session.error", session.as_str())
        .await;
    let text = error["error"]["data"]["message"].as_str().unwrap();
    assert!(text.contains("unknown"), "{text}");
    opencode.child.stop().await;
}

#[tokio::test]
async fn message_to_a_parent_is_found_by_its_id() {
    if !e2e_enabled() {
        return;
    }
    let model = model::start().await;
    let mut opencode = RealOpencode::open(&format!("{}/v1", model.url), None).await;
    let parent = opencode.create(None, Vec::new()).await;
    let notice = |id: &str, silent| Notice {
        retry_of: None,
        id: NoticeId::new(id),
        text: "<system-reminder>done</system-reminder>".to_owned(),
        silent,
        agent: Some("plan".to_owned()),
        model: Some(model_ref("model")),
        facts: NoticeFacts {
            kind: NoticeKind::Final,
            tasks: Vec::new(),
            remaining: 0,
        }
        .into(),
    };
    opencode
        .server
        .notify(&parent, notice("ntc_1", true))
        .await
        .unwrap();
    opencode
        .server
        .notify(&parent, notice("ntc_2", false))
        .await
        .unwrap();
    opencode.calls.event("session.idle", parent.as_str()).await;
    let messages = opencode.server.messages(&parent, Some(20)).await.unwrap();
    for id in ["ntc_1", "ntc_2"] {
        assert!(
            find_notice(&messages, &NoticeId::new(id)).is_some_and(|message| message.is_some()),
            "{id}"
        );
    }
    assert_eq!(find_notice(&messages, &NoticeId::new("ntc_3")), None);
    assert!(messages[0].parts[0].synthetic);
    let answers: Vec<_> = messages
        .iter()
        .filter(|message| message.is_from_agent())
        .collect();
    assert_eq!(
        answers.len(),
        1,
        "the silent one is not answered: {messages:?}"
    );
    assert_eq!(
        (answers[0].text().as_str(), answers[0].agent.as_deref()),
        ("All done", Some("plan"))
    );
    opencode.child.stop().await;
}

#[tokio::test]
async fn asks_of_a_child_are_answered() {
    if !e2e_enabled() {
        return;
    }
    let model = model::start().await;
    let mut opencode = RealOpencode::open(&format!("{}/v1", model.url), None).await;

    let session = opencode
        .create(None, vec![rule("bash", PermissionAction::Ask)])
        .await;
    let call = r#"CALL bash {"command":"echo hi","description":"prints hi"}"#;
    opencode.prompt(&session, "build", call).await;
    let request = opencode
        .calls
        .event("permission.asked", session.as_str())
        .await;
    let ask = request["id"].as_str().unwrap().to_owned();
    let permission = AskKind::Permission;
    opencode
        .server
        .answer_ask(&session, &ask, permission, &AskAnswer::Once)
        .await
        .unwrap();
    opencode.calls.event("session.idle", session.as_str()).await;
    let again = opencode
        .server
        .answer_ask(&session, &ask, permission, &AskAnswer::Once)
        .await;
    assert!(matches!(again, Err(ServerError::NotFound(_))), "{again:?}");

    let session = opencode.create(None, Vec::new()).await;
    let question = json!({"question": "Which?", "header": "Which", "options": [{"label": "a", "description": "the first"}]});
    let call = format!("CALL question {}", json!({"questions": [question]}));
    opencode.prompt(&session, "build", &call).await;
    let request = opencode
        .calls
        .event("question.asked", session.as_str())
        .await;
    let chosen = AskAnswer::Answers(vec![vec!["a".to_owned()]]);
    opencode
        .server
        .answer_ask(
            &session,
            request["id"].as_str().unwrap(),
            AskKind::Question,
            &chosen,
        )
        .await
        .unwrap();
    opencode
        .calls
        .event("question.replied", session.as_str())
        .await;
    opencode.calls.event("session.idle", session.as_str()).await;
}

#[tokio::test]
async fn asks_of_a_child_are_rejected() {
    if !e2e_enabled() {
        return;
    }
    let model = model::start().await;
    let mut opencode = RealOpencode::open(&format!("{}/v1", model.url), None).await;

    let session = opencode
        .create(None, vec![rule("bash", PermissionAction::Ask)])
        .await;
    opencode
        .prompt(
            &session,
            "build",
            r#"CALL bash {"command":"echo hi","description":"prints hi"}"#,
        )
        .await;
    let request = opencode
        .calls
        .event("permission.asked", session.as_str())
        .await;
    opencode
        .server
        .reject_ask(
            &session,
            request["id"].as_str().unwrap(),
            AskKind::Permission,
        )
        .await
        .unwrap();
    opencode
        .calls
        .event("permission.replied", session.as_str())
        .await;
    opencode.calls.event("session.idle", session.as_str()).await;

    let session = opencode.create(None, Vec::new()).await;
    let question = json!({"question": "Which?", "header": "Which", "options": [{"label": "a", "description": "the first"}]});
    opencode
        .prompt(
            &session,
            "build",
            &format!("CALL question {}", json!({"questions": [question]})),
        )
        .await;
    let request = opencode
        .calls
        .event("question.asked", session.as_str())
        .await;
    opencode
        .server
        .reject_ask(&session, request["id"].as_str().unwrap(), AskKind::Question)
        .await
        .unwrap();
    opencode
        .calls
        .event("question.rejected", session.as_str())
        .await;
    opencode.calls.event("session.idle", session.as_str()).await;
    opencode.child.stop().await;
}

#[tokio::test]
async fn a_server_killed_with_9_comes_back_with_its_sessions_and_the_stream_with_it() {
    if !e2e_enabled() {
        return;
    }
    let mut opencode = RealOpencode::open(UNREACHABLE, Some("a secret")).await;
    let session = opencode.create(None, Vec::new()).await;
    opencode.prompt(&session, "build", "hello").await;
    opencode
        .calls
        .event("session.status", session.as_str())
        .await;
    let ChildState::Up { pid } = opencode.child.state() else {
        panic!("{:?}", opencode.child.state())
    };
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let begin = Instant::now();
    opencode.calls.link(Broken).await;
    println!(
        "the stream was known to be broken after {:?}",
        begin.elapsed()
    );
    opencode.calls.link(Connected).await;
    println!("and connected again after {:?}", begin.elapsed());
    let again = opencode
        .child
        .wait_until_up(Duration::from_secs(60))
        .await
        .unwrap();
    assert_ne!(again, pid);
    assert_eq!(
        opencode.server.session(&session).await.unwrap().id.as_ref(),
        Some(&session)
    );
    assert_eq!(
        opencode
            .server
            .statuses(&opencode.directory())
            .await
            .unwrap(),
        [].into()
    );
    opencode.server.abort(&session).await.unwrap();
    opencode.calls.event("session.idle", session.as_str()).await;
    let log = std::fs::read_to_string(opencode.folder.path().join("opencode.log")).unwrap();
    assert_eq!(log.matches("server listening").count(), 2, "{log}");
    opencode.child.stop().await;
}

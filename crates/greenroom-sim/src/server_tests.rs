//! Tests of the scripted server.

use std::time::Duration;

use greenroom::domain::correlation_tag::CorrelationTag;
use greenroom::domain::ids::{Run, TaskId};
use greenroom::domain::notice::{NoticeFacts, NoticeKind};
use greenroom::domain::output::is_output;
use greenroom::domain::time::Timestamp;
use greenroom::ports::agent_server::find_notice;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;
use crate::session::BASE;

/// Runs a test against a server alone, with task `a` launched as `bg_0000000a`.
fn with_server<F: Future<Output = ()>>(script: &str, story: impl FnOnce(ScriptedServer) -> F) {
    let script: Script = serde_json::from_str(script).unwrap();
    let runtime = crate::quiescence::Quiescence::default().runtime().unwrap();
    runtime.block_on(async {
        let names = Names::default();
        names.launched("a", Some("bg_0000000a"));
        story(ScriptedServer::new(
            &script,
            Clock::starting_at(Timestamp::from_millis(0)),
            names,
        ))
        .await;
    });
}

fn new_session(parent: &str) -> NewSession {
    NewSession {
        task: TaskId::new("bg_0000000a"),
        title: "job (@worker subagent)".to_owned(),
        parent: Some(parent.into()),
        directory: "/there".into(),
        agent: "worker".into(),
        model: None,
        permission: Vec::new(),
        tag: CorrelationTag {
            task: "bg_0000000a".into(),
            run: Run::FIRST,
            attempt: 1,
            prompt: None,
        },
    }
}

fn notice(id: &str) -> Notice {
    let facts = NoticeFacts {
        kind: NoticeKind::Final,
        tasks: Vec::new(),
        remaining: 0,
    };
    Notice {
        retry_of: None,
        id: id.into(),
        text: "notice".to_owned(),
        silent: false,
        agent: None,
        model: None,
        facts: facts.into(),
    }
}

#[test]
fn created_session_is_busy_and_uses_declaration() {
    let script = r#"{"childDefaults": {"todos": [{"content": "x", "status": "pending"}], "status": "idle"},
        "sessions": {"$a": {"status": "retry"}}}"#;
    with_server(script, |server| async move {
        let made = server.create(new_session("p1")).await.unwrap();
        assert_eq!(server.names.alias(made.as_str()), "$a");
        assert!(is_output(&server.messages(&made, None).await.unwrap()[0]));
        assert_eq!(
            server.todos(&made).await.unwrap().len(),
            1,
            "from the defaults"
        );
        let there = server.statuses("/there").await.unwrap();
        assert!(
            matches!(there[&made], SessionStatus::Retry { .. }),
            "its own declaration wins"
        );
        assert_eq!(
            server.statuses(BASE).await.unwrap().len(),
            0,
            "only the states of one directory are returned"
        );
        let record = server.session(&made).await.unwrap();
        assert_eq!(
            (record.parent, record.directory.as_deref()),
            (Some("p1".into()), Some("/there"))
        );
        assert_eq!(
            server
                .sessions_below(Some(&"p1".into()), BASE)
                .await
                .unwrap()[0]
                .id,
            Some(made)
        );
    });
}

#[test]
fn undeclared_session_is_not_found() {
    with_server(r#"{"sessions": {"p1": {}}}"#, |server| async move {
        assert!(matches!(
            server.session(&"p2".into()).await,
            Err(ServerError::NotFound(_))
        ));
        assert!(matches!(
            server.session(&"$a".into()).await,
            Err(ServerError::NotFound(_))
        ));
        assert_eq!(server.messages(&"p2".into(), None).await, Ok(Vec::new()));
        assert_eq!(
            server
                .session(&"p1".into())
                .await
                .unwrap()
                .directory
                .as_deref(),
            Some(BASE)
        );
        assert_eq!(
            server.statuses(BASE).await.unwrap().len(),
            0,
            "a declared session is missing until it declares a status"
        );
        let busy = Declared {
            status: Some(json!("busy")),
            ..Declared::default()
        };
        server.change("p2", &busy);
        assert_eq!(
            server.statuses(BASE).await.unwrap()[&"p2".into()],
            SessionStatus::Busy
        );
    });
}

#[test]
fn change_before_create_declares_session() {
    with_server(
        r#"{"sessions": {"$a": {"todos": [{"status": "pending"}]}}}"#,
        |server| async move {
            server.change(
                "$a",
                &Declared {
                    messages: Some(Vec::new()),
                    ..Declared::default()
                },
            );
            let made = server.create(new_session("p1")).await.unwrap();
            assert_eq!(server.messages(&made, None).await.unwrap().len(), 0);
            assert_eq!(
                server.todos(&made).await.unwrap().len(),
                1,
                "earlier declarations stay"
            );
        },
    );
}

#[test]
fn read_returns_state_at_arrival() {
    let script = r#"{"sessions": {"p1": {}}, "delays": [{"call": "session.messages", "session": "p1", "ms": 2000}]}"#;
    with_server(script, |server| async move {
        let reader = server.clone();
        let read = tokio::spawn(async move { reader.messages(&"p1".into(), None).await });
        sleep(Duration::from_secs(1)).await;
        server.change(
            "p1",
            &Declared {
                messages: Some(vec![json!({})]),
                ..Declared::default()
            },
        );
        assert_eq!(read.await.unwrap().unwrap().len(), 0);
        assert_eq!(server.clock.now(), Timestamp::from_millis(2000));
    });
}

#[test]
fn notice_is_listed_after_answer() {
    let script = r#"{"sessions": {"p1": {"messages": [{"info": {"agent": "lead"}}]}},
        "delays": [{"call": "notify", "session": "p1", "ms": 5000}]}"#;
    with_server(script, |server| async move {
        let (parent, id) = (SessionId::new("p1"), NoticeId::new("ntc_1"));
        let notifier = server.clone();
        let notified =
            tokio::spawn(async move { notifier.notify(&"p1".into(), notice("ntc_1")).await });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            find_notice(&server.messages(&parent, Some(1)).await.unwrap(), &id),
            None
        );
        notified.await.unwrap().unwrap();
        let newest = server.messages(&parent, Some(1)).await.unwrap();
        assert!(find_notice(&newest, &id).is_some());
        assert_eq!(
            newest[0].agent.as_deref(),
            Some("lead"),
            "scripted messages are not pushed out"
        );
    });
}

#[test]
fn lost_call_has_effect_and_hanging_call_has_none() {
    let script = r#"{"faults": [{"call": "notify", "nth": 1, "mode": "lost"}, {"call": "notify", "nth": 2, "mode": "hang"}]}"#;
    with_server(script, |server| async move {
        let limit = Duration::from_secs(30);
        for id in ["ntc_lost", "ntc_hung"] {
            assert!(
                timeout(limit, server.notify(&"p1".into(), notice(id)))
                    .await
                    .is_err()
            );
        }
        let messages = server.messages(&"p1".into(), None).await.unwrap();
        assert!(find_notice(&messages, &"ntc_lost".into()).is_some());
        assert!(find_notice(&messages, &"ntc_hung".into()).is_none());
        assert_eq!(server.finish().len(), 2);
    });
}

#[test]
fn abandoned_create_still_creates_session() {
    with_server(r#"{"createDelayMs": 40000}"#, |server| async move {
        assert!(
            timeout(Duration::from_secs(30), server.create(new_session("p1")))
                .await
                .is_err()
        );
        let made = || async {
            server
                .sessions_below(Some(&"p1".into()), BASE)
                .await
                .unwrap()
                .len()
        };
        assert_eq!(made().await, 0);
        sleep(Duration::from_secs(11)).await;
        assert_eq!(made().await, 1);
    });
}

#[test]
fn answer_wins_over_timeout_at_same_time() {
    with_server(
        r#"{"delays": [{"call": "session.abort", "ms": 10000}]}"#,
        |server| async move {
            let limit = Duration::from_secs(10);
            assert_eq!(timeout(limit, server.abort(&"s".into())).await, Ok(Ok(())));
        },
    );
}

#[test]
fn failed_create_returns_error_without_effect() {
    let script = r#"{"faults": [{"call": "session.create", "task": "a", "nth": 1, "mode": "noid"},
        {"call": "session.create", "task": "a", "error": "boom"}]}"#;
    with_server(script, |server| async move {
        let error = |made: Result<SessionId, ServerError>| made.unwrap_err().to_string();
        assert!(error(server.create(new_session("p1")).await).contains("no session id"));
        assert_eq!(error(server.create(new_session("p1")).await), "boom");
        assert_eq!(
            server
                .sessions_below(Some(&"p1".into()), BASE)
                .await
                .unwrap()
                .len(),
            0
        );
    });
}

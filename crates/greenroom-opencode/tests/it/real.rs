//! The real opencode, installed into the cache folder if it is not there. Run with `GREENROOM_E2E=1`; without it each
//! of these ends at once, for it needs npm, and a registry the first time.

use std::time::{Duration, Instant};

use crate::support::house::{DEAD, House, asked_for, mark, model_ref, rule};
use crate::support::{Told, model};
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
async fn a_run_on_a_dead_provider_retries_and_is_aborted() {
    if !asked_for() {
        return;
    }
    let mut house = House::open(DEAD, None).await;
    let parent = house.create(None, Vec::new()).await;
    let deny = vec![
        rule("question", PermissionAction::Deny),
        rule("task", PermissionAction::Deny),
    ];
    let child = house.create(Some(&parent), deny).await;
    let record = house.server.session(&child).await.unwrap();
    assert_eq!(
        (record.id.as_ref(), record.parent.as_ref()),
        (Some(&child), Some(&parent))
    );
    assert_eq!(record.directory.as_deref(), Some(&*house.directory()));
    assert_eq!(
        record.metadata,
        Some(json!({"greenroom": {"task": "bg_00000001", "run": 1, "attempt": 1}}))
    );
    assert_eq!(
        house
            .server
            .sessions_below(Some(&parent), &house.directory())
            .await
            .unwrap(),
        [record]
    );
    let listed = house
        .server
        .sessions_below(None, &house.directory())
        .await
        .unwrap();
    assert!([&parent, &child].iter().all(|id| {
        listed
            .iter()
            .any(|session| session.id.as_ref() == Some(*id))
    }));
    assert_eq!(
        house.server.statuses(&house.directory()).await.unwrap(),
        [].into()
    );
    assert_eq!(house.server.todos(&child).await.unwrap(), []);

    house.prompt(&child, "build", "hello").await;
    let retry = house
        .heard
        .until(|told| match told {
            Told::Event(event) if event["properties"]["status"]["type"] == "retry" => {
                Some(event.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(retry["properties"]["sessionID"], child.as_str());
    let statuses = house.server.statuses(&house.directory()).await.unwrap();
    assert!(
        matches!(
            statuses.get(&child),
            Some(SessionStatus::Retry { .. } | SessionStatus::Busy)
        ),
        "{statuses:?}"
    );

    house.server.abort(&child).await.unwrap();
    // While it backs off, opencode tells of an abort by the message alone, without a `session.error`.
    let aborted = house.heard.event("message.updated", child.as_str()).await;
    assert!(
        aborted["info"]["time"]["completed"].is_number(),
        "{aborted:#}"
    );
    house.heard.event("session.idle", child.as_str()).await;
    let messages = house.server.messages(&child, None).await.unwrap();
    assert_eq!(messages[0].text(), "hello");
    assert_eq!(messages[0].agent.as_deref(), Some("build"));
    assert_eq!(
        messages[0].parts[0].metadata.as_ref().unwrap()["greenroom"]["task"],
        "bg_00000001"
    );
    assert_eq!(
        house.server.messages(&child, Some(1)).await.unwrap().len(),
        1
    );
    let toast = Toast {
        title: "t".to_owned(),
        message: "m".to_owned(),
        variant: ToastVariant::Info,
    };
    house.server.toast(toast).await.unwrap();
    house.child.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    if !asked_for() {
        return;
    }
    let mut house = House::open(DEAD, Some("a secret")).await;
    let nobody = SessionId::new("ses_0000000000000000000000000000");
    let foreign = SessionId::new("not one of its ids");
    for id in [&nobody, &foreign] {
        let prompt = TaskPrompt {
            agent: "build".into(),
            model: None,
            system: None,
            text: "x".into(),
            mark: mark(),
        };
        let outcomes = [
            house.server.session(id).await.unwrap_err(),
            house.server.messages(id, Some(5)).await.unwrap_err(),
            house.server.todos(id).await.unwrap_err(),
            house.server.prompt(id, None, prompt).await.unwrap_err(),
            house
                .server
                .sessions_below(Some(id), &house.directory())
                .await
                .unwrap_err(),
            house
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
    let session = house.create(None, Vec::new()).await;
    let gone = house
        .server
        .reject_ask(&session, "per_1", AskKind::Permission)
        .await
        .unwrap_err();
    assert!(matches!(gone, ServerError::NotFound(_)), "{gone:?}");
    let gone = house
        .server
        .reject_ask(&session, "que_1", AskKind::Question)
        .await
        .unwrap_err();
    assert!(matches!(gone, ServerError::NotFound(_)), "{gone:?}");

    let stranger = house
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

    house.prompt(&session, "nobody", "x").await;
    let error = house.heard.event("session.error", session.as_str()).await;
    let text = error["error"]["data"]["message"].as_str().unwrap();
    assert!(text.contains("nobody"), "{text}");
    house.child.stop().await;
}

#[tokio::test]
async fn a_message_to_a_parent_is_found_again_by_its_id() {
    if !asked_for() {
        return;
    }
    let model = model::start().await;
    let mut house = House::open(&format!("{}/v1", model.url), None).await;
    let parent = house.create(None, Vec::new()).await;
    let notice = |id: &str, silent| Notice {
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
    house
        .server
        .notify(&parent, notice("ntc_1", true))
        .await
        .unwrap();
    house
        .server
        .notify(&parent, notice("ntc_2", false))
        .await
        .unwrap();
    house.heard.event("session.idle", parent.as_str()).await;
    let messages = house.server.messages(&parent, Some(20)).await.unwrap();
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
    house.child.stop().await;
}

#[tokio::test]
async fn what_a_child_asks_for_is_answered() {
    if !asked_for() {
        return;
    }
    let model = model::start().await;
    let mut house = House::open(&format!("{}/v1", model.url), None).await;

    let session = house
        .create(None, vec![rule("bash", PermissionAction::Ask)])
        .await;
    let call = r#"CALL bash {"command":"echo hi","description":"says hi"}"#;
    house.prompt(&session, "build", call).await;
    let asked = house
        .heard
        .event("permission.asked", session.as_str())
        .await;
    let ask = asked["id"].as_str().unwrap().to_owned();
    let permission = AskKind::Permission;
    house
        .server
        .answer_ask(&session, &ask, permission, &AskAnswer::Once)
        .await
        .unwrap();
    house.heard.event("session.idle", session.as_str()).await;
    let again = house
        .server
        .answer_ask(&session, &ask, permission, &AskAnswer::Once)
        .await;
    assert!(matches!(again, Err(ServerError::NotFound(_))), "{again:?}");

    let session = house.create(None, Vec::new()).await;
    let question = json!({"question": "Which?", "header": "Which", "options": [{"label": "a", "description": "the first"}]});
    let call = format!("CALL question {}", json!({"questions": [question]}));
    house.prompt(&session, "build", &call).await;
    let asked = house.heard.event("question.asked", session.as_str()).await;
    let chosen = AskAnswer::Answers(vec![vec!["a".to_owned()]]);
    house
        .server
        .answer_ask(
            &session,
            asked["id"].as_str().unwrap(),
            AskKind::Question,
            &chosen,
        )
        .await
        .unwrap();
    house
        .heard
        .event("question.replied", session.as_str())
        .await;
    house.heard.event("session.idle", session.as_str()).await;
}

#[tokio::test]
async fn what_a_child_asks_for_is_rejected() {
    if !asked_for() {
        return;
    }
    let model = model::start().await;
    let mut house = House::open(&format!("{}/v1", model.url), None).await;

    let session = house
        .create(None, vec![rule("bash", PermissionAction::Ask)])
        .await;
    house
        .prompt(
            &session,
            "build",
            r#"CALL bash {"command":"echo hi","description":"says hi"}"#,
        )
        .await;
    let asked = house
        .heard
        .event("permission.asked", session.as_str())
        .await;
    house
        .server
        .reject_ask(&session, asked["id"].as_str().unwrap(), AskKind::Permission)
        .await
        .unwrap();
    house
        .heard
        .event("permission.replied", session.as_str())
        .await;
    house.heard.event("session.idle", session.as_str()).await;

    let session = house.create(None, Vec::new()).await;
    let question = json!({"question": "Which?", "header": "Which", "options": [{"label": "a", "description": "the first"}]});
    house
        .prompt(
            &session,
            "build",
            &format!("CALL question {}", json!({"questions": [question]})),
        )
        .await;
    let asked = house.heard.event("question.asked", session.as_str()).await;
    house
        .server
        .reject_ask(&session, asked["id"].as_str().unwrap(), AskKind::Question)
        .await
        .unwrap();
    house
        .heard
        .event("question.rejected", session.as_str())
        .await;
    house.heard.event("session.idle", session.as_str()).await;
    house.child.stop().await;
}

#[tokio::test]
async fn a_server_killed_with_9_comes_back_with_its_sessions_and_the_stream_with_it() {
    if !asked_for() {
        return;
    }
    let mut house = House::open(DEAD, Some("a secret")).await;
    let session = house.create(None, Vec::new()).await;
    house.prompt(&session, "build", "hello").await;
    house.heard.event("session.status", session.as_str()).await;
    let ChildState::Up { pid } = house.child.state() else {
        panic!("{:?}", house.child.state())
    };
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let begin = Instant::now();
    house.heard.link(Broken).await;
    println!(
        "the stream was known to be broken after {:?}",
        begin.elapsed()
    );
    house.heard.link(Connected).await;
    println!("and connected again after {:?}", begin.elapsed());
    let again = house.child.until_up(Duration::from_secs(60)).await.unwrap();
    assert_ne!(again, pid);
    assert_eq!(
        house.server.session(&session).await.unwrap().id.as_ref(),
        Some(&session)
    );
    assert_eq!(
        house.server.statuses(&house.directory()).await.unwrap(),
        [].into()
    );
    house.server.abort(&session).await.unwrap();
    house.heard.event("session.idle", session.as_str()).await;
    let log = std::fs::read_to_string(house.folder.path().join("opencode.log")).unwrap();
    assert_eq!(log.matches("server listening").count(), 2, "{log}");
    house.child.stop().await;
}

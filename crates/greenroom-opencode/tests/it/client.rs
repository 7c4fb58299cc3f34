//! The client against servers that answer, refuse, disconnect and stall: errors must be right about the effect of a call.

use std::time::{Duration, Instant};

use crate::support::{Reply, Stub};
use greenroom::domain::correlation_tag::CorrelationTag;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::ports::agent_server::{
    AgentServer as _, NewSession, ServerError, TaskPrompt, Toast, ToastVariant,
};
use greenroom_opencode::{HealthError, OpencodeServer, ServerAddress, wait_until_healthy};
use serde_json::json;

fn server(url: &str) -> OpencodeServer {
    OpencodeServer::new(ServerAddress::new(url, "/my dir")).unwrap()
}

fn session() -> SessionId {
    SessionId::new("ses_1")
}

fn tag() -> CorrelationTag {
    CorrelationTag {
        task: TaskId::new("bg_1"),
        run: Run::FIRST,
        attempt: 1,
        prompt: None,
    }
}

fn prompt() -> TaskPrompt {
    TaskPrompt {
        agent: "build".into(),
        model: None,
        system: None,
        text: "go".into(),
        tag: tag(),
    }
}

fn new_session(parent: Option<&str>) -> NewSession {
    NewSession {
        task: TaskId::new("bg_1"),
        title: "t".to_owned(),
        parent: parent.map(SessionId::from),
        directory: "/a b/ä&=?#".into(),
        agent: "build".into(),
        model: None,
        permission: Vec::new(),
        tag: tag(),
    }
}

#[tokio::test]
async fn refused_connection_has_no_effect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let outcome = server(&url)
        .prompt(&session(), None, prompt())
        .await
        .unwrap_err();
    assert!(
        matches!(&outcome, ServerError::Unreachable(text) if text.contains("refused")),
        "{outcome:?}"
    );
    assert!(!outcome.outcome_is_unknown());
    // A living server of this machine keeps its port.
    let outcome = server(&url).statuses("/work").await.unwrap_err();
    assert!(
        matches!(outcome, ServerError::ProcessEnded(_)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn lost_connection_has_an_unknown_effect() {
    let stub = Stub::start(|_| Reply::Raw(Vec::new())).await;
    let outcome = server(&stub.url)
        .prompt(&session(), None, prompt())
        .await
        .unwrap_err();
    assert!(
        matches!(outcome, ServerError::OutcomeUnknown(_)),
        "{outcome:?}"
    );
    assert_eq!(
        stub.requests().len(),
        1,
        "an order of unknown fate is not repeated here"
    );
}

#[tokio::test]
async fn truncated_response_makes_a_create_unknown_and_a_prompt_accepted() {
    let broken =
        || Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"id\":\"ses_9".to_vec());
    let stub = Stub::start(move |_| broken()).await;
    let outcome = server(&stub.url)
        .create(new_session(None))
        .await
        .unwrap_err();
    assert!(
        matches!(outcome, ServerError::OutcomeUnknown(_)),
        "{outcome:?}"
    );
    server(&stub.url)
        .prompt(&session(), None, prompt())
        .await
        .unwrap();
}

#[tokio::test]
async fn unreadable_response_has_an_unknown_effect() {
    let stub = Stub::always(200, "<html>welcome</html>").await;
    assert!(
        server(&stub.url)
            .session(&session())
            .await
            .unwrap_err()
            .outcome_is_unknown()
    );
    let stub = Stub::always(200, "{}").await;
    assert!(
        server(&stub.url)
            .messages(&session(), None)
            .await
            .unwrap_err()
            .outcome_is_unknown()
    );
    assert!(
        server(&stub.url)
            .todos(&session())
            .await
            .unwrap_err()
            .outcome_is_unknown()
    );
    let stub = Stub::always(200, "[]").await;
    assert!(
        server(&stub.url)
            .statuses("/d")
            .await
            .unwrap_err()
            .outcome_is_unknown(),
        "no map is not an empty map"
    );
}

#[tokio::test]
async fn session_with_a_lone_surrogate_is_read() {
    let messages = r#"[{"info": {"id": "msg_1", "role": "assistant", "finish": "stop", "time": {"created": 1}},
        "parts": [{"id": "prt_1", "type": "text", "text": "cut \ud83d"}]}]"#;
    let stub = Stub::always(200, messages).await;
    let messages = server(&stub.url).messages(&session(), None).await.unwrap();
    assert!(
        format!("{messages:?}").contains("cut \u{fffd}"),
        "{messages:?}"
    );
}

#[tokio::test]
async fn endless_response_is_limited() {
    let stub = Stub::always(200, &format!("[{}]", " ".repeat(5 << 20))).await;
    let outcome = server(&stub.url).todos(&session()).await.unwrap_err();
    assert!(
        matches!(&outcome, ServerError::OutcomeUnknown(text) if text.contains("larger than 4 MiB")),
        "{outcome:?}"
    );
    assert_eq!(
        server(&stub.url).messages(&session(), None).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn refusals_keep_their_status_and_text() {
    let stub = Stub::always(409, r#"{"name":"Conflict","data":{"message":"is busy"}}"#).await;
    let outcome = server(&stub.url).abort(&session()).await.unwrap_err();
    assert_eq!(
        outcome,
        ServerError::Refused {
            status: Some(409),
            message: "is busy".to_owned()
        }
    );
    let stub = Stub::always(
        404,
        r#"{"name":"NotFoundError","data":{"message":"Session not found: ses_1"}}"#,
    )
    .await;
    let outcome = server(&stub.url).todos(&session()).await.unwrap_err();
    assert_eq!(
        outcome,
        ServerError::NotFound("Session not found: ses_1".to_owned())
    );
}

#[tokio::test]
async fn a_500_to_an_id_that_is_none_of_opencodes_is_not_found() {
    let stub = Stub::always(
        500,
        r#"{"name":"UnknownError","data":{"message":"Unexpected server error."}}"#,
    )
    .await;
    let server = server(&stub.url);
    let foreign = SessionId::new("conversation-7");
    assert!(matches!(
        server.session(&foreign).await,
        Err(ServerError::NotFound(_))
    ));
    assert!(matches!(
        server.abort(&foreign).await,
        Err(ServerError::NotFound(_))
    ));
    let outcome = server.session(&session()).await.unwrap_err();
    assert!(
        matches!(
            outcome,
            ServerError::Refused {
                status: Some(500),
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn create_under_a_foreign_parent_is_explained() {
    let stub = Stub::always(400, r#"{"_tag":"BadRequest"}"#).await;
    let ServerError::Refused { message, .. } = server(&stub.url)
        .create(new_session(Some("chat")))
        .await
        .unwrap_err()
    else {
        panic!("a 400 is a refusal")
    };
    assert!(
        message.starts_with("chat is not a session of opencode"),
        "{message}"
    );
}

#[tokio::test]
async fn create_without_an_id_is_refused_and_an_empty_body_is_unreadable() {
    let stub = Stub::always(200, r#"{"title":"t"}"#).await;
    let outcome = server(&stub.url)
        .create(new_session(None))
        .await
        .unwrap_err();
    assert!(
        matches!(outcome, ServerError::Refused { status: None, .. }),
        "{outcome:?}"
    );
    let stub = Stub::always(204, "").await;
    let outcome = server(&stub.url)
        .create(new_session(None))
        .await
        .unwrap_err();
    assert!(outcome.outcome_is_unknown());
    server(&stub.url)
        .prompt(&session(), None, prompt())
        .await
        .unwrap();
}

#[tokio::test]
async fn ids_and_directories_are_percent_encoded() {
    let stub = Stub::always(200, r#"{"id":"ses_2"}"#).await;
    let odd = SessionId::new("ses_../../global/health?x=1#y%2F z");
    server(&stub.url).session(&odd).await.unwrap();
    assert_eq!(
        stub.only_request().target,
        "/session/ses_..%2F..%2Fglobal%2Fhealth%3Fx=1%23y%252F%20z"
    );
    for none in ["", ".", ".."] {
        let outcome = server(&stub.url).session(&SessionId::new(none)).await;
        assert!(
            matches!(outcome, Err(ServerError::NotFound(_))),
            "{none:?}: {outcome:?}"
        );
    }
    assert_eq!(
        stub.requests().len(),
        1,
        "an id that would address another route is not sent"
    );

    server(&stub.url).create(new_session(None)).await.unwrap();
    let target = &stub.requests()[1].target;
    assert_eq!(target, "/session?directory=%2Fa+b%2F%C3%A4%26%3D%3F%23");
}

#[tokio::test]
async fn a_path_in_the_address_is_kept() {
    let stub = Stub::always(200, "{}").await;
    server(&format!("{}/oc/", stub.url))
        .statuses("/d")
        .await
        .unwrap();
    assert_eq!(
        stub.only_request().target,
        "/oc/session/status?directory=%2Fd"
    );
}

#[tokio::test]
async fn credentials_are_sent_and_a_401_has_a_hint() {
    let stub = Stub::always(401, "").await;
    let address = ServerAddress::new(&stub.url, "/d").with_password(Some("secret".to_owned()));
    assert!(!format!("{address:?}").contains("secret"));
    let closed = OpencodeServer::new(address.clone()).unwrap();
    let ServerError::Refused {
        status: Some(401),
        message,
    } = closed.health().await.unwrap_err()
    else {
        panic!("a 401 is a refusal")
    };
    assert!(message.contains("OPENCODE_SERVER_PASSWORD"), "{message}");
    assert_eq!(
        stub.only_request().headers["authorization"],
        "Basic b3BlbmNvZGU6c2VjcmV0"
    );

    let begin = Instant::now();
    let outcome = wait_until_healthy(&address, Duration::from_secs(30)).await;
    assert!(
        matches!(outcome, Err(HealthError::Unauthorized(_))),
        "{outcome:?}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "a wrong password is not waited for"
    );

    let open = server(&stub.url);
    open.health().await.unwrap_err();
    assert!(
        !stub
            .requests()
            .last()
            .unwrap()
            .headers
            .contains_key("authorization")
    );
}

#[tokio::test]
async fn ask_is_rejected_in_the_directory_of_its_session() {
    let stub = Stub::start(|request| match request.method.as_str() {
        "GET" => Reply::Status(200, r#"{"id":"ses_1","directory":"/its own"}"#.to_owned()),
        _ => Reply::Status(200, "true".to_owned()),
    })
    .await;
    let server = server(&stub.url);
    server
        .reject_ask(&session(), "per_1", AskKind::Permission)
        .await
        .unwrap();
    server
        .reject_ask(&session(), "que_1", AskKind::Question)
        .await
        .unwrap();
    let posts: Vec<_> = stub
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST")
        .collect();
    assert_eq!(
        posts[0].target,
        "/permission/per_1/reply?directory=%2Fits+own"
    );
    assert_eq!(posts[0].json(), json!({"reply": "reject"}));
    assert_eq!(
        posts[1].target,
        "/question/que_1/reject?directory=%2Fits+own"
    );
}

#[tokio::test]
async fn ask_is_answered_by_its_kind() {
    let stub = Stub::always(200, r#"{"id":"ses_1","directory":"/d"}"#).await;
    let server = server(&stub.url);
    let labels = AskAnswer::Answers(vec![vec!["a".to_owned(), "b".to_owned()]]);
    for (ask, kind, answer) in [
        ("per_1", AskKind::Permission, AskAnswer::Once),
        ("per_2", AskKind::Permission, AskAnswer::Always),
        ("que_1", AskKind::Question, labels),
    ] {
        server
            .answer_ask(&session(), ask, kind, &answer)
            .await
            .unwrap();
    }
    let posts: Vec<_> = stub
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST")
        .map(|request| (request.target.clone(), request.json()))
        .collect();
    let path = |path: &str| format!("/{path}/reply?directory=%2Fd");
    let wanted = [
        (path("permission/per_1"), json!({"reply": "once"})),
        (path("permission/per_2"), json!({"reply": "always"})),
        (path("question/que_1"), json!({"answers": [["a", "b"]]})),
    ];
    assert_eq!(posts, wanted);
}

#[tokio::test]
async fn toast_is_shown_in_the_configured_directory() {
    let stub = Stub::always(200, "true").await;
    let toast = Toast {
        title: "a".to_owned(),
        message: "b".to_owned(),
        variant: ToastVariant::Error,
    };
    server(&stub.url).toast(toast).await.unwrap();
    assert_eq!(
        stub.only_request().target,
        "/tui/show-toast?directory=%2Fmy+dir"
    );
    assert_eq!(
        stub.only_request().json(),
        json!({"title": "a", "message": "b", "variant": "error"})
    );
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let elsewhere = Stub::always(200, "{}").await;
    let location = elsewhere.url.clone();
    let stub = Stub::start(move |_| {
        let head = format!("HTTP/1.1 307 X\r\nlocation: {location}/\r\ncontent-length: 0\r\n\r\n");
        Reply::Raw(head.into_bytes())
    })
    .await;
    let outcome = server(&stub.url).health().await.unwrap_err();
    assert!(
        matches!(
            outcome,
            ServerError::Refused {
                status: Some(307),
                ..
            }
        ),
        "{outcome:?}"
    );
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn hanging_first_request_does_not_delay_the_health_check() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let stub =
        Stub::start(
            move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Reply::Hang,
                1 => Reply::Status(500, String::new()),
                _ => Reply::Status(200, r#"{"healthy":true,"version":"1.18.33"}"#.to_owned()),
            },
        )
        .await;
    let begin = Instant::now();
    let address = ServerAddress::new(&stub.url, "/d");
    let version = wait_until_healthy(&address, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(version, "1.18.33");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(stub.requests().len(), 3);
}

#[tokio::test]
async fn unhealthy_server_times_out_with_the_last_error() {
    let stub = Stub::always(503, "warming up").await;
    let address = ServerAddress::new(&stub.url, "/d");
    let error = wait_until_healthy(&address, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, HealthError::NotInTime { .. }));
    assert!(error.to_string().ends_with("warming up"), "{error}");
}

#[tokio::test]
async fn unusable_addresses_are_refused() {
    for bad in [
        "",
        "127.0.0.1:4096",
        "https://127.0.0.1",
        "http://me:secret@127.0.0.1",
        "file:///tmp",
    ] {
        assert!(
            OpencodeServer::new(ServerAddress::new(bad, "/d")).is_err(),
            "{bad:?}"
        );
    }
}

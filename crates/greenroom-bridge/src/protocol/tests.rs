//! Reading and writing of every frame.

use serde_json::json;

use super::*;

#[test]
fn hello_of_a_later_plugin_is_read() {
    let frame = r#"{"type":"hello","protocol":1,"directory":"/p","pid":7,"color":"red"}"#;
    let FromBridge::Hello(hello) = FromBridge::read(frame) else {
        panic!("no hello")
    };
    assert_eq!(
        (hello.protocol, hello.directory.as_str(), hello.pid),
        (1, "/p", 7)
    );
}

#[test]
fn event_is_read_unchanged() {
    let frame =
        r#"{"type":"event","event":{"type":"session.idle","properties":{"sessionID":"ses_1"}}}"#;
    let FromBridge::Event(event) = FromBridge::read(frame) else {
        panic!("no event")
    };
    assert_eq!(event["properties"]["sessionID"], "ses_1");
}

#[test]
fn unknown_types_differ_from_malformed_frames() {
    assert_eq!(
        FromBridge::read(r#"{"type":"later"}"#),
        FromBridge::Unknown("later".to_owned())
    );
    for broken in [
        "",
        "no json",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"event"}"#,
        r#"{"type":"hello"}"#,
        r#"{"type":"toolCall","tool":"background_list"}"#,
        r#"{"type":"toolAbort","id":1.5}"#,
        r#"{"type":"response","id":"a"}"#,
        r#"{"type":"response","id":"a","status":70000}"#,
        r#"{"type":"compactionContext","sessionID":""}"#,
    ] {
        assert!(
            matches!(FromBridge::read(broken), FromBridge::Malformed(_)),
            "{broken}"
        );
    }
}

#[test]
fn tool_call_is_read_with_its_context() {
    let frame = json!({"type": "toolCall", "id": 3, "tool": "background_list", "args": {"status": "running"},
        "context": {"sessionID": "ses_1", "messageID": "msg_1", "agent": "build", "directory": "/p", "later": 1}});
    let FromBridge::ToolCall(call) = FromBridge::read(&frame.to_string()) else {
        panic!("no call")
    };
    assert_eq!(call.id, FrameId::Number(3));
    assert_eq!(call.args, json!({"status": "running"}));
    assert_eq!(call.context.session_id, SessionId::from("ses_1"));
    assert_eq!(call.context.agent.as_deref(), Some("build"));
    assert_eq!(call.context.call_id, None);
}

#[test]
fn unreadable_tool_call_keeps_its_id() {
    for (frame, expected) in [
        (json!({"type": "toolCall", "id": "a"}), "tool"),
        (
            json!({"type": "toolCall", "id": "a", "tool": "t"}),
            "context",
        ),
        (
            json!({"type": "toolCall", "id": "a", "tool": "t", "context": {"sessionID": " "}}),
            "sessionID",
        ),
    ] {
        let FromBridge::BadToolCall { id, problem } = FromBridge::read(&frame.to_string()) else {
            panic!("{frame}")
        };
        assert_eq!(id, FrameId::from("a"));
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn requests_and_responses_are_read() {
    let response = r#"{"type":"response","id":"rq_1","status":204}"#;
    let wanted = Response {
        id: "rq_1".into(),
        status: 204,
        body: Value::Null,
    };
    assert_eq!(FromBridge::read(response), FromBridge::Response(wanted));
    let compaction = r#"{"type":"compactionContext","id":"c","sessionID":"ses_1"}"#;
    let wanted = FromBridge::Compaction {
        id: Some("c".into()),
        session: "ses_1".into(),
    };
    assert_eq!(FromBridge::read(compaction), wanted);
    assert_eq!(
        FromBridge::read(r#"{"type":"toolAbort","id":"a"}"#),
        FromBridge::ToolAbort("a".into())
    );
    assert_eq!(
        FromBridge::read(r#"{"type":"reconcile"}"#),
        FromBridge::Reconcile
    );
    assert_eq!(
        FromBridge::read(r#"{"type":"disposing"}"#),
        FromBridge::Disposing
    );
}

fn json_of(frame: &ToBridge<'_>) -> Value {
    serde_json::from_str(&frame.text()).unwrap()
}

#[test]
fn frames_have_the_documented_form() {
    let welcome = ToBridge::Welcome {
        protocol: 1,
        instance: "gr_1",
    };
    assert_eq!(
        welcome.text(),
        r#"{"type":"welcome","protocol":1,"instance":"gr_1"}"#
    );
    assert_eq!(
        ToBridge::Error { message: "no" }.text(),
        r#"{"type":"error","message":"no"}"#
    );
    let id = FrameId::from("1");
    let query = BTreeMap::from([("limit".to_owned(), "5".to_owned())]);
    let request = ToBridge::Request {
        id: &id,
        method: "GET",
        path: "/session/ses_1/message",
        query: &query,
        body: None,
    };
    assert_eq!(
        json_of(&request),
        json!({"type": "request", "id": "1", "method": "GET", "path": "/session/ses_1/message",
            "query": {"limit": "5"}})
    );
    let (child, parent) = (SessionId::from("ses_2"), SessionId::from("ses_1"));
    let created = ToBridge::SessionCreated {
        session: &child,
        parent: &parent,
        title: "t",
    };
    assert_eq!(
        json_of(&created),
        json!({"type": "sessionCreated", "sessionID": "ses_2", "parentID": "ses_1", "title": "t"})
    );
    let context = ToBridge::CompactionContext {
        id: None,
        session: &parent,
        markdown: "",
    };
    assert_eq!(
        json_of(&context),
        json!({"type": "compactionContext", "sessionID": "ses_1", "markdown": ""})
    );
}

#[test]
fn tool_result_has_the_fields_of_the_answer() {
    let id = FrameId::Number(7);
    let answer = ToolAnswer {
        metadata: Some(json!({"sessionId": "ses_2"})),
        ..ToolAnswer::text("launched")
    };
    let result = ToBridge::ToolResult {
        id: &id,
        answer: &answer,
    };
    assert_eq!(
        json_of(&result),
        json!({"type": "toolResult", "id": 7, "output": "launched", "metadata": {"sessionId": "ses_2"}})
    );
}

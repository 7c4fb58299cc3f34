//! Tools over the bridge: each call is made once across reconnects, is limited and gets an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom_bridge::{BridgeOptions, ToolAnswer, ToolCall, ToolDispatcher};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Client, Service, deep, event, hello, receive, send, send_text, until};

/// Answers `echo` at once, `wait` when a permit is free, and panics on `panic`.
#[derive(Default)]
struct TestTools {
    calls: Mutex<BTreeMap<String, usize>>,
    waiting: Arc<AtomicUsize>,
    gate: Gate,
}

struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TestTools {
    fn calls(&self, id: &str) -> usize {
        self.calls.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ToolDispatcher for TestTools {
    async fn call(&self, call: ToolCall) -> ToolAnswer {
        *self
            .calls
            .lock()
            .unwrap()
            .entry(call.id.to_string())
            .or_default() += 1;
        match call.tool.as_str() {
            "wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _waiting = Counted(self.waiting.clone());
                self.gate.0.acquire().await.unwrap().forget();
                ToolAnswer::text("waited")
            }
            "panic" => panic!("a bug"),
            "large" => ToolAnswer::text("x".repeat(5 << 20)),
            _ => ToolAnswer {
                output: call.args.to_string(),
                title: Some(call.context.session_id.to_string()),
                metadata: Some(json!({"agent": call.context.agent})),
            },
        }
    }

    async fn compaction(&self, session: &SessionId) -> Option<String> {
        (session.as_str() == "ses_1").then(|| "- bg_1".to_owned())
    }
}

fn start_service(change: impl FnOnce(&mut BridgeOptions)) -> (Service, Arc<TestTools>) {
    let dispatcher = Arc::new(TestTools::default());
    let tools = dispatcher.clone();
    let service = Service::start(move |options| {
        options.tools = Some(tools);
        change(options);
    });
    (service, dispatcher)
}

fn call(id: &str, tool: &str) -> Value {
    json!({"type": "toolCall", "id": id, "tool": tool, "args": {"a": 1},
        "context": {"sessionID": "ses_1", "messageID": "msg_1", "agent": "build", "directory": "/project"}})
}

async fn result(client: &mut Client) -> (String, String) {
    let frame = receive(client).await;
    assert_eq!(frame["type"], "toolResult", "{frame}");
    let text = |key: &str| frame[key].as_str().unwrap().to_owned();
    (text("id"), text("output"))
}

#[actix_rt::test]
async fn call_gets_the_answer_of_the_tool() {
    let (service, _) = start_service(|_| {});
    let mut client = service.connected(7).await;
    send(&mut client, call("c1", "echo")).await;
    let answer = receive(&mut client).await;
    let wanted = json!({"type": "toolResult", "id": "c1", "output": r#"{"a":1}"#, "title": "ses_1",
        "metadata": {"agent": "build"}});
    assert_eq!(answer, wanted);
    let named = service.recorder.named.lock().unwrap().clone();
    assert_eq!(named, [(7, "ses_1".to_owned())]);
}

#[actix_rt::test]
async fn calls_and_events_are_concurrent() {
    let (mut service, dispatcher) = start_service(|_| {});
    let mut client = service.connected(1).await;
    service.next().await;
    send(&mut client, call("slow", "wait")).await;
    send(&mut client, call("quick", "echo")).await;
    send(&mut client, json!({"type": "event", "event": event(1)})).await;
    assert_eq!(result(&mut client).await.0, "quick");
    service.next().await;
    dispatcher.gate.0.add_permits(1);
    assert_eq!(
        result(&mut client).await,
        ("slow".to_owned(), "waited".to_owned())
    );
}

#[actix_rt::test]
async fn call_repeated_after_a_reconnect_is_made_once() {
    let (service, dispatcher) = start_service(|_| {});
    let mut first = service.connected(1).await;
    send(&mut first, call("c1", "wait")).await;
    until("the call runs", || dispatcher.waiting() == 1).await;
    drop(first);
    until("the socket is gone", || service.bridges.is_empty()).await;
    let mut second = service.connected(1).await;
    send(&mut second, call("c1", "wait")).await;
    send(&mut second, call("after", "echo")).await;
    assert_eq!(result(&mut second).await.0, "after");
    dispatcher.gate.0.add_permits(1);
    assert_eq!(result(&mut second).await.1, "waited");
    // Its answer may have been lost with a socket: it is sent again.
    for _ in 0..2 {
        send(&mut second, call("c1", "wait")).await;
        assert_eq!(result(&mut second).await.1, "waited");
    }
    assert_eq!(dispatcher.calls("c1"), 1);
}

#[actix_rt::test]
async fn same_id_of_another_process_or_tool_is_another_call() {
    let (service, dispatcher) = start_service(|_| {});
    let mut first = service.connected(1).await;
    let mut second = service.connected(2).await;
    for client in [&mut first, &mut second] {
        send(client, call("c1", "echo")).await;
        result(client).await;
    }
    assert_eq!(dispatcher.calls("c1"), 2);
    let mut other = call("c1", "echo");
    other["args"] = json!({"a": 2});
    send(&mut first, other).await;
    assert_eq!(result(&mut first).await.1, r#"{"a":2}"#);
    assert_eq!(dispatcher.calls("c1"), 3);
}

#[actix_rt::test]
async fn abort_ends_the_wait() {
    let (service, dispatcher) = start_service(|_| {});
    let mut client = service.connected(1).await;
    send(&mut client, call("c1", "wait")).await;
    until("the call runs", || dispatcher.waiting() == 1).await;
    send(&mut client, json!({"type": "toolAbort", "id": "c1"})).await;
    send(&mut client, json!({"type": "toolAbort", "id": "unknown"})).await;
    until("the call is dropped", || dispatcher.waiting() == 0).await;
    send(&mut client, call("c2", "echo")).await;
    assert_eq!(
        result(&mut client).await.0,
        "c2",
        "the aborted call has no answer"
    );
}

#[actix_rt::test]
async fn calls_over_the_limit_are_refused() {
    let (service, dispatcher) = start_service(|_| {});
    let mut client = service.connected(1).await;
    for number in 0..256 {
        send(&mut client, call(&format!("c{number}"), "wait")).await;
    }
    send(&mut client, call("more", "echo")).await;
    let (id, output) = result(&mut client).await;
    assert_eq!(id, "more");
    assert!(output.contains("256"), "{output}");
    assert_eq!(dispatcher.calls("more"), 0);
    assert_eq!(service.bridges.tool_calls(), 256);
    dispatcher.gate.0.add_permits(256);
    for _ in 0..256 {
        assert_eq!(result(&mut client).await.1, "waited");
    }
    send(&mut client, call("more", "echo")).await;
    assert_eq!(result(&mut client).await.0, "more");
}

#[actix_rt::test]
async fn failed_calls_are_answered() {
    let (service, _) = start_service(|_| {});
    let mut client = service.connected(1).await;
    for (frame, expected) in [
        (call("c", "panic"), "bug"),
        (call("c", "large"), "too large"),
        (
            json!({"type": "toolCall", "id": "c", "tool": "echo"}),
            "context",
        ),
    ] {
        send(&mut client, frame).await;
        let (_, output) = result(&mut client).await;
        assert!(output.contains(expected), "{expected}: {output}");
    }
    let without = Service::start(|_| {});
    let mut client = without.connected(1).await;
    send(&mut client, call("c1", "echo")).await;
    assert!(result(&mut client).await.1.contains("offers no tools"));
}

#[actix_rt::test]
async fn compaction_gets_its_context() {
    let (service, _) = start_service(|_| {});
    let mut client = service.connected(1).await;
    for (session, markdown) in [("ses_1", "- bg_1"), ("ses_2", "")] {
        send(
            &mut client,
            json!({"type": "compactionContext", "id": 5, "sessionID": session}),
        )
        .await;
        let wanted = json!({"type": "compactionContext", "id": 5, "sessionID": session, "markdown": markdown});
        assert_eq!(receive(&mut client).await, wanted);
    }
}

#[actix_rt::test]
async fn reconciliations_of_a_bridge_are_limited() {
    let (mut service, _) = start_service(|_| {});
    let mut client = service.connected(1).await;
    service.next().await;
    for _ in 0..1000 {
        send(&mut client, json!({"type": "reconcile"})).await;
    }
    send(&mut client, call("c1", "echo")).await;
    result(&mut client).await;
    let mut looked = 0;
    while service.received.try_recv().is_ok() {
        looked += 1;
    }
    assert!((1..=2).contains(&looked), "{looked}");
    // A request shortly after another one is delayed, not dropped.
    service.next().await;
    let _ = hello(1);
}

#[actix_rt::test]
async fn call_with_a_lone_surrogate_is_made_and_an_unreadable_one_answered() {
    let (service, _) = start_service(|_| {});
    let mut client = service.connected(1).await;
    let half = call("half", "echo").to_string();
    send_text(
        &mut client,
        half.replace("{\"a\":1}", r#"{"a":"half \ud83d"}"#),
    )
    .await;
    let answer = result(&mut client).await;
    assert_eq!(
        answer,
        ("half".to_owned(), "{\"a\":\"half \u{fffd}\"}".to_owned())
    );
    let nested = call("nested", "echo").to_string();
    send_text(&mut client, nested.replace("{\"a\":1}", &deep())).await;
    let (id, output) = result(&mut client).await;
    assert_eq!(id, "nested");
    assert!(output.contains("cannot be read"), "{output}");
}

//! Tools over the bridge: called once whatever happens to the socket, bounded, and never without an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom_bridge::{BridgeOptions, ToolAnswer, ToolCall, ToolDesk};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Client, Service, deep, event, heard, hello, say, say_text, until};

/// Answers `echo` at once, `wait` when it is let, and `panic` never.
#[derive(Default)]
struct Desk {
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

impl Desk {
    fn calls(&self, id: &str) -> usize {
        self.calls.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ToolDesk for Desk {
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
                ToolAnswer::saying("waited")
            }
            "panic" => panic!("a bug of ours"),
            "large" => ToolAnswer::saying("x".repeat(5 << 20)),
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

fn stage(change: impl FnOnce(&mut BridgeOptions)) -> (Service, Arc<Desk>) {
    let desk = Arc::new(Desk::default());
    let tools = desk.clone();
    let service = Service::start(move |options| {
        options.tools = Some(tools);
        change(options);
    });
    (service, desk)
}

fn call(id: &str, tool: &str) -> Value {
    json!({"type": "toolCall", "id": id, "tool": tool, "args": {"a": 1},
        "context": {"sessionID": "ses_1", "messageID": "msg_1", "agent": "build", "directory": "/project"}})
}

async fn result(client: &mut Client) -> (String, String) {
    let frame = heard(client).await;
    assert_eq!(frame["type"], "toolResult", "{frame}");
    let text = |key: &str| frame[key].as_str().unwrap().to_owned();
    (text("id"), text("output"))
}

#[actix_rt::test]
async fn a_call_is_answered_with_what_the_tool_says_and_its_session_is_named() {
    let (service, _) = stage(|_| {});
    let mut client = service.greeted(7).await;
    say(&mut client, call("c1", "echo")).await;
    let answer = heard(&mut client).await;
    let wanted = json!({"type": "toolResult", "id": "c1", "output": r#"{"a":1}"#, "title": "ses_1",
        "metadata": {"agent": "build"}});
    assert_eq!(answer, wanted);
    let named = service.recorder.named.lock().unwrap().clone();
    assert_eq!(named, [(7, "ses_1".to_owned())]);
}

#[actix_rt::test]
async fn calls_run_beside_each_other_and_beside_events() {
    let (mut service, desk) = stage(|_| {});
    let mut client = service.greeted(1).await;
    service.next().await;
    say(&mut client, call("slow", "wait")).await;
    say(&mut client, call("quick", "echo")).await;
    say(&mut client, json!({"type": "event", "event": event(1)})).await;
    assert_eq!(result(&mut client).await.0, "quick");
    service.next().await;
    desk.gate.0.add_permits(1);
    assert_eq!(
        result(&mut client).await,
        ("slow".to_owned(), "waited".to_owned())
    );
}

#[actix_rt::test]
async fn a_call_repeated_after_a_reconnect_joins_the_first_and_is_answered_again_but_not_made_again()
 {
    let (service, desk) = stage(|_| {});
    let mut first = service.greeted(1).await;
    say(&mut first, call("c1", "wait")).await;
    until("the call runs", || desk.waiting() == 1).await;
    drop(first);
    until("the socket is gone", || service.bridges.is_empty()).await;
    let mut second = service.greeted(1).await;
    say(&mut second, call("c1", "wait")).await;
    say(&mut second, call("after", "echo")).await;
    assert_eq!(result(&mut second).await.0, "after");
    desk.gate.0.add_permits(1);
    assert_eq!(result(&mut second).await.1, "waited");
    // Its answer may have been lost with a socket: it is said again.
    for _ in 0..2 {
        say(&mut second, call("c1", "wait")).await;
        assert_eq!(result(&mut second).await.1, "waited");
    }
    assert_eq!(desk.calls("c1"), 1);
}

#[actix_rt::test]
async fn the_same_id_of_another_process_or_for_something_else_is_another_call() {
    let (service, desk) = stage(|_| {});
    let mut first = service.greeted(1).await;
    let mut second = service.greeted(2).await;
    for client in [&mut first, &mut second] {
        say(client, call("c1", "echo")).await;
        result(client).await;
    }
    assert_eq!(desk.calls("c1"), 2);
    let mut other = call("c1", "echo");
    other["args"] = json!({"a": 2});
    say(&mut first, other).await;
    assert_eq!(result(&mut first).await.1, r#"{"a":2}"#);
    assert_eq!(desk.calls("c1"), 3);
}

#[actix_rt::test]
async fn an_abort_ends_the_wait() {
    let (service, desk) = stage(|_| {});
    let mut client = service.greeted(1).await;
    say(&mut client, call("c1", "wait")).await;
    until("the call runs", || desk.waiting() == 1).await;
    say(&mut client, json!({"type": "toolAbort", "id": "c1"})).await;
    say(
        &mut client,
        json!({"type": "toolAbort", "id": "never heard of"}),
    )
    .await;
    until("the call is dropped", || desk.waiting() == 0).await;
    say(&mut client, call("c2", "echo")).await;
    assert_eq!(
        result(&mut client).await.0,
        "c2",
        "nothing is said of the aborted one"
    );
}

#[actix_rt::test]
async fn too_many_calls_are_told_so_and_leave_the_others_alone() {
    let (service, desk) = stage(|_| {});
    let mut client = service.greeted(1).await;
    for number in 0..256 {
        say(&mut client, call(&format!("c{number}"), "wait")).await;
    }
    say(&mut client, call("more", "echo")).await;
    let (id, output) = result(&mut client).await;
    assert_eq!(id, "more");
    assert!(output.contains("256"), "{output}");
    assert_eq!(desk.calls("more"), 0);
    assert_eq!(service.bridges.tool_calls(), 256);
    desk.gate.0.add_permits(256);
    for _ in 0..256 {
        assert_eq!(result(&mut client).await.1, "waited");
    }
    say(&mut client, call("more", "echo")).await;
    assert_eq!(result(&mut client).await.0, "more");
}

#[actix_rt::test]
async fn whatever_goes_wrong_with_a_call_its_caller_is_answered() {
    let (service, _) = stage(|_| {});
    let mut client = service.greeted(1).await;
    for (frame, says) in [
        (call("c", "panic"), "bug"),
        (call("c", "large"), "too large"),
        (
            json!({"type": "toolCall", "id": "c", "tool": "echo"}),
            "context",
        ),
    ] {
        say(&mut client, frame).await;
        let (_, output) = result(&mut client).await;
        assert!(output.contains(says), "{says}: {output}");
    }
    let without = Service::start(|_| {});
    let mut client = without.greeted(1).await;
    say(&mut client, call("c1", "echo")).await;
    assert!(result(&mut client).await.1.contains("offers no tools"));
}

#[actix_rt::test]
async fn a_compaction_is_told_what_to_carry_along() {
    let (service, _) = stage(|_| {});
    let mut client = service.greeted(1).await;
    for (session, markdown) in [("ses_1", "- bg_1"), ("ses_2", "")] {
        say(
            &mut client,
            json!({"type": "compactionContext", "id": 5, "sessionID": session}),
        )
        .await;
        let wanted = json!({"type": "compactionContext", "id": 5, "sessionID": session, "markdown": markdown});
        assert_eq!(heard(&mut client).await, wanted);
    }
}

#[actix_rt::test]
async fn a_bridge_that_lost_events_has_everything_looked_at_but_not_all_the_time() {
    let (mut service, _) = stage(|_| {});
    let mut client = service.greeted(1).await;
    service.next().await;
    for _ in 0..1000 {
        say(&mut client, json!({"type": "reconcile"})).await;
    }
    say(&mut client, call("c1", "echo")).await;
    result(&mut client).await;
    let mut looked = 0;
    while service.seen.try_recv().is_ok() {
        looked += 1;
    }
    assert!((1..=2).contains(&looked), "{looked}");
    // One that came too soon after another is not forgotten.
    service.next().await;
    let _ = hello(1);
}

#[actix_rt::test]
async fn a_call_with_half_an_emoji_is_made_and_one_that_cannot_be_read_is_answered() {
    let (service, _) = stage(|_| {});
    let mut client = service.greeted(1).await;
    let half = call("half", "echo").to_string();
    say_text(
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
    say_text(&mut client, nested.replace("{\"a\":1}", &deep())).await;
    let (id, output) = result(&mut client).await;
    assert_eq!(id, "nested");
    assert!(output.contains("cannot be read"), "{output}");
}

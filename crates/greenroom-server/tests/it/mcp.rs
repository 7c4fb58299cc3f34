//! MCP at `/mcp`, with handwritten messages.

use greenroom_server::mcp::sessions::MAX_SESSIONS;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::Host;

pub const OLD: &str = "2025-06-18";
const NEW: &str = "2026-07-28";

/// A client of the protocol version with sessions.
#[derive(Clone)]
struct Client {
    url: String,
    http: reqwest::Client,
    session: String,
}

impl Client {
    async fn of(host: &Host) -> Self {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": OLD, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let answer = post_json(host.client.post(host.url("/mcp")), &hello).await;
        let session = answer.headers()["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let (_, answers) = messages(answer).await;
        assert_eq!(answers[0]["result"]["serverInfo"]["name"], "greenroom");
        let client = Self {
            url: host.url("/mcp"),
            http: host.client.clone(),
            session,
        };
        client.notify("notifications/initialized", json!({})).await;
        client
    }

    fn request(&self) -> RequestBuilder {
        let request = self.http.post(&self.url);
        request
            .header("mcp-session-id", &self.session)
            .header("mcp-protocol-version", OLD)
    }

    async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        assert_eq!(post_json(self.request(), &message).await.status(), 202);
    }

    /// Sends a request and returns all messages of the response; the last one is the result.
    async fn ask(&self, id: u32, method: &str, params: Value) -> Vec<Value> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let (status, answers) = messages(post_json(self.request(), &message).await).await;
        assert_eq!(status, 200, "{answers:?}");
        answers
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let mut answers = self.ask(1, "tools/call", params).await;
        answers.pop().unwrap()["result"].take()
    }
}

async fn post_json(request: RequestBuilder, message: &Value) -> Response {
    let request = request.header("accept", "application/json, text/event-stream");
    request.json(message).send().await.unwrap()
}

/// Returns the messages of a response: one, or a stream.
async fn messages(response: Response) -> (u16, Vec<Value>) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    if let Ok(message) = serde_json::from_str(&text) {
        return (status, vec![message]);
    }
    let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let messages = lines.filter(|line| !line.trim().is_empty());
    (
        status,
        messages
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

pub fn launch() -> Value {
    json!({"description": "look around", "prompt": "List the files.", "agent": "explore"})
}

#[actix_rt::test]
async fn tools_are_listed_and_called() {
    let host = Host::start(&[]).await;
    let client = Client::of(&host).await;
    let answers = client.ask(1, "tools/list", json!({})).await;
    let tools = answers[0]["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "background_task",
            "background_output",
            "background_cancel",
            "background_send",
            "background_list"
        ]
    );
    assert_eq!(tools[1]["annotations"]["readOnlyHint"], true);

    let launched = client.call("background_task", launch()).await;
    assert_eq!(launched["isError"], false);
    assert!(text(&launched).contains("block=true"), "{launched}");
    let task = launched["_meta"]["greenroom"]["taskId"].as_str().unwrap();
    host.running(task).await;
    host.finish("ses_1").await;
    host.ended(task).await;
    let read = client
        .call("background_output", json!({"task_id": task}))
        .await;
    assert!(
        text(&read).ends_with("answer to: List the files."),
        "{read}"
    );
    let refused = client
        .call("background_output", json!({"task_id": "bg_none"}))
        .await;
    assert_eq!(refused["isError"], true);
    host.stop().await;
}

#[actix_rt::test]
async fn session_comes_from_argument_or_hook() {
    let host = Host::start(&[]).await;
    let client = Client::of(&host).await;
    let mut arguments = launch();
    arguments["parent_session_id"] = json!("ses_forged");
    arguments["__sessionID"] = json!("ses_parent");
    let launched = client.call("background_task", arguments).await;
    assert!(
        text(&launched).contains("You will be notified"),
        "{launched}"
    );
    host.running(&host.newest().await).await;
    let (_, record) = host.get("/v1/tasks/ses_1").await;
    assert_eq!(record["parentSessionID"], "ses_parent");
    let of = |session: &str| json!({"task_id": "ses_1", "parent_session_id": session});
    let read = client.call("background_output", of("ses_parent")).await;
    assert_eq!(read["isError"], false);
    let refused = client.call("background_output", of("ses_stranger")).await;
    assert_eq!(refused["isError"], true);
    let wrong = client
        .call("background_list", json!({"parent_session_id": 5}))
        .await;
    assert!(
        text(&wrong).contains("parent_session_id: must be a text"),
        "{wrong}"
    );
    host.stop().await;
}

/// Starts a blocking call and returns its stream after the first progress notification.
async fn waiting(client: &Client, id: u32, task: &str) -> (Response, String) {
    let params = json!({"name": "background_output", "arguments": {"task_id": task, "block": true},
        "_meta": {"progressToken": format!("wait {id}")}});
    let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    let mut stream = post_json(client.request(), &message).await;
    let mut progress = String::new();
    while !progress.contains("notifications/progress") {
        progress += std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap();
    }
    (stream, progress)
}

#[actix_rt::test]
async fn waiting_call_gets_progress_and_can_be_cancelled() {
    let host = Host::start(&[]).await;
    let client = Client::of(&host).await;
    client.call("background_task", launch()).await;
    host.running(&host.newest().await).await;
    let (stopped, _) = waiting(&client, 7, "ses_1").await;
    let (stream, progress) = waiting(&client, 8, "ses_1").await;
    assert!(
        progress.contains("\"progressToken\":\"wait 8\"") && progress.contains("\"running"),
        "{progress}"
    );
    client
        .notify(
            "notifications/cancelled",
            json!({"requestId": 7, "reason": "not needed"}),
        )
        .await;
    // The stream ends without a result; the task and other waiting calls continue.
    let rest = stopped.text().await.unwrap();
    assert!(!rest.contains("\"result\""), "{rest}");
    assert_eq!(host.get("/v1/tasks/ses_1").await.1["status"], "running");
    host.finish("ses_1").await;
    let (_, answers) = messages(stream).await;
    let answer = answers.last().unwrap();
    assert!(text(&answer["result"]).contains("answer to"), "{answer}");
    host.stop().await;
}

/// Sends a request of the protocol version without sessions, from a client with task support.
async fn modern(host: &Host, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": NEW,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    });
    let name = params["name"]
        .as_str()
        .or(params["taskId"].as_str())
        .unwrap_or_default();
    let request = host
        .client
        .post(host.url("/mcp"))
        .header("mcp-protocol-version", NEW)
        .header("mcp-method", method)
        .header("mcp-name", name);
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let (_, mut answers) = messages(post_json(request, &message).await).await;
    answers.pop().unwrap()
}

#[actix_rt::test]
async fn launch_is_an_mcp_task_for_clients_with_tasks() {
    let host = Host::start(&[]).await;
    let call = async |arguments: Value| {
        let params = json!({"name": "background_task", "arguments": arguments});
        modern(&host, "tools/call", params).await["result"].take()
    };
    let get = async |task: &Value| {
        modern(&host, "tasks/get", json!({ "taskId": task })).await["result"].take()
    };
    let done = call(launch()).await;
    assert_eq!(
        (&done["resultType"], &done["status"]),
        (&json!("task"), &json!("working"))
    );
    let done = &done["taskId"];
    assert!(
        done.as_str().unwrap().starts_with("bg_"),
        "the id is the task's own"
    );
    assert_eq!(get(done).await["status"], "working");
    host.running(done.as_str().unwrap()).await;
    host.finish("ses_1").await;
    host.ended("ses_1").await;
    let ended = get(done).await;
    assert_eq!(ended["status"], "completed");
    assert!(text(&ended["result"]).contains("answer to"), "{ended}");

    let failed = call(launch()).await["taskId"].clone();
    host.running(failed.as_str().unwrap()).await;
    host.event(
        json!({"type": "session.error", "properties": {"sessionID": "ses_2",
        "error": {"name": "APIError", "data": {"message": "no credit left"}}}}),
    )
    .await;
    host.ended("ses_2").await;
    let ended = get(&failed).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["message"]),
        (&json!("failed"), &json!("no credit left"))
    );

    let stopped = call(launch()).await["taskId"].clone();
    let ack = modern(&host, "tasks/cancel", json!({ "taskId": stopped })).await;
    assert!(ack["error"].is_null(), "{ack}");
    assert_eq!(get(&stopped).await["status"], "cancelled");
    let again = modern(&host, "tasks/cancel", json!({ "taskId": stopped })).await;
    assert!(again["error"].is_null(), "{again}");
    let unknown = modern(&host, "tasks/get", json!({"taskId": "bg_none"})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");

    // A caller with a session gets the id and is woken later.
    let mut woken = launch();
    woken["parent_session_id"] = json!("ses_parent");
    assert!(text(&call(woken).await).contains("You will be notified"));
    // A client without task support gets a plain result.
    let plain = Client::of(&host)
        .await
        .call("background_task", launch())
        .await;
    assert!(text(&plain).contains("Background task launched"), "{plain}");
    host.stop().await;
}

#[actix_rt::test]
async fn unauthorized_mcp_calls_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret").unwrap();
    let host = Host::start(&[("token_file", file.to_str().unwrap())]).await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let post = || host.client.post(host.url("/mcp"));
    assert_eq!(post_json(post(), &ping).await.status(), 401);
    assert_eq!(
        post_json(post().bearer_auth("wrong"), &ping).await.status(),
        401
    );
    let foreign = post()
        .bearer_auth("secret")
        .header("origin", "http://evil.example");
    assert_eq!(post_json(foreign, &ping).await.status(), 403);
    let named = post().bearer_auth("secret").header("host", "evil.example");
    assert_eq!(post_json(named, &ping).await.status(), 403);
    // Behind the guard the protocol rejects the missing session.
    assert_eq!(
        post_json(post().bearer_auth("secret"), &ping)
            .await
            .status(),
        400
    );
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(1 << 20)});
    assert_eq!(
        post_json(post().bearer_auth("secret"), &large)
            .await
            .status(),
        413
    );
    host.stop().await;
}

#[actix_rt::test]
async fn sessions_are_bounded_and_evicted_ones_are_restored() {
    let host = Host::start(&[]).await;
    let first = Client::of(&host).await;
    for _ in 0..MAX_SESSIONS + 5 {
        Client::of(&host).await;
    }
    assert_eq!(
        first.call("background_list", json!({})).await["isError"],
        false
    );
    // A session of an earlier service is restored too.
    let mut stray = first.clone();
    stray.session = uuid::Uuid::new_v4().to_string();
    assert_eq!(
        stray.call("background_list", json!({})).await["isError"],
        false
    );

    let end = host
        .client
        .delete(host.url("/mcp"))
        .header("mcp-session-id", &first.session);
    assert_eq!(end.send().await.unwrap().status(), 204);
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(post_json(first.request(), &list).await.status(), 404);
    let mut strange = first.clone();
    strange.session = "not one of ours".to_owned();
    assert_eq!(post_json(strange.request(), &list).await.status(), 404);
    host.stop().await;
}

#[actix_rt::test]
async fn invalid_mcp_requests_are_rejected() {
    let host = Host::start(&[]).await;
    let post = |body: &'static str| {
        let request = host.client.post(host.url("/mcp"));
        let request = request.header("accept", "application/json, text/event-stream");
        request
            .header("content-type", "application/json")
            .body(body)
    };
    for body in [
        "",
        "{",
        "[]",
        "7",
        r#"{"jsonrpc": "2.0"}"#,
        r#"{"jsonrpc": "2.0", "id": 1, "method": 5}"#,
    ] {
        let status = post(body).send().await.unwrap().status();
        assert!(status.is_client_error(), "{body}: {status}");
    }
    let status = host
        .client
        .put(host.url("/mcp"))
        .send()
        .await
        .unwrap()
        .status();
    assert_eq!(status, 405);
    host.stop().await;
}

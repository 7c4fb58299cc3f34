//! MCP on stdin and stdout of `greenroom mcp`.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::command::{greenroom, run_command};
use crate::mcp::{OLD, launch, text};
use crate::support::Host;

/// A `greenroom mcp` process with its pipes.
struct StdioClient {
    child: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl StdioClient {
    fn start(url: &str) -> Self {
        let mut command = greenroom(&["mcp", "--url", url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            stdout,
        }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        self.receive()["result"].take()
    }

    fn initialize(&mut self) {
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": OLD, "capabilities": {}, "clientInfo": client});
        assert_eq!(
            self.request("initialize", params)["serverInfo"]["name"],
            "greenroom"
        );
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
    }
}

#[actix_rt::test]
async fn tools_are_listed_and_called_on_stdio() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let exchange = actix_web::web::block(move || {
        let mut piped = StdioClient::start(&url);
        piped.initialize();
        let tools = piped.request("tools/list", json!({}));
        assert_eq!(tools["tools"].as_array().unwrap().len(), 5);
        let launched = piped.call("background_task", launch());
        assert!(text(&launched).contains("session_id: ses_1"), "{launched}");
        let refused = piped.call("background_send", json!({"task_id": "bg_1"}));
        assert_eq!(refused["isError"], true);
        let params = json!({"name": "background_output", "arguments": {"task_id": "ses_1", "block": true},
            "_meta": {"progressToken": 9}});
        piped.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}));
        let progress = piped.receive();
        assert_eq!(progress["method"], "notifications/progress", "{progress}");
        piped
    });
    let mut piped = exchange.await.unwrap();
    host.finish("ses_1").await;
    let (piped, answer) = actix_web::web::block(move || {
        let answer = piped.receive();
        (piped, answer)
    })
    .await
    .unwrap();
    assert!(text(&answer["result"]).contains("answer to"), "{answer}");

    // An unreachable service is an error reply and does not end the session.
    host.stop().await;
    let mut piped = piped;
    let code = actix_web::web::block(move || {
        let gone = piped.call("background_list", json!({}));
        assert!(
            text(&gone).contains("cannot be reached") && text(&gone).contains("greenroom up"),
            "{gone}"
        );
        piped.stdin = None;
        piped.child.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(0));
}

#[actix_rt::test]
async fn missing_service_fails_immediately() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let ran = run_command(greenroom(&["mcp", "--url", &url])).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    assert!(
        ran.stderr.contains("hint: start it with `greenroom up`"),
        "{}",
        ran.stderr
    );
}

#[actix_rt::test]
async fn lone_surrogate_is_answered() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let exchange = actix_web::web::block(move || {
        let mut piped = StdioClient::start(&url);
        piped.initialize();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "background_output", "arguments": {"task_id": "half"}}});
        let line = call.to_string().replace("half", r"\ud83d");
        writeln!(piped.stdin.as_mut().unwrap(), "{line}").unwrap();
        // The next request is answered in any case.
        piped.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
        [piped.receive(), piped.receive()]
    });
    let answers = exchange.await.unwrap();
    let refused = answers.iter().find(|answer| answer["id"] == 1);
    let refused = refused.unwrap_or_else(|| panic!("{answers:?}"));
    assert!(
        text(&refused["result"]).contains("there is no task"),
        "{refused}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn progress_is_sent_only_for_readable_tasks() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let exchange = actix_web::web::block(move || {
        let mut piped = StdioClient::start(&url);
        piped.initialize();
        let mut theirs = launch();
        theirs["parent_session_id"] = json!("ses_owner");
        let launched = piped.call("background_task", theirs);
        let task = launched["_meta"]["greenroom"]["taskId"].clone();
        let read = json!({"task_id": task, "block": true, "parent_session_id": "ses_other"});
        let params =
            json!({"name": "background_output", "arguments": read, "_meta": {"progressToken": 9}});
        piped.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}));
        piped.receive()
    });
    let received = exchange.await.unwrap();
    assert_eq!(
        (&received["id"], &received["result"]["isError"]),
        (&json!(2), &json!(true)),
        "{received}"
    );
    host.stop().await;
}

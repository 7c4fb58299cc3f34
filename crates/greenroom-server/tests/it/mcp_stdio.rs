//! MCP as its clients meet it on stdin and stdout of `greenroom mcp`.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::command::{greenroom, ran};
use crate::mcp::{OLD, launch, text};
use crate::support::Host;

/// A process that speaks MCP on its pipes.
struct Piped {
    child: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Piped {
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

    fn say(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.say(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        self.hear()["result"].take()
    }

    fn hello(&mut self) {
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": OLD, "capabilities": {}, "clientInfo": client});
        assert_eq!(
            self.ask("initialize", params)["serverInfo"]["name"],
            "greenroom"
        );
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }
}

#[actix_rt::test]
async fn the_same_on_stdin_and_stdout() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let talk = actix_web::web::block(move || {
        let mut piped = Piped::start(&url);
        piped.hello();
        let tools = piped.ask("tools/list", json!({}));
        assert_eq!(tools["tools"].as_array().unwrap().len(), 5);
        let launched = piped.call("background_task", launch());
        assert!(text(&launched).contains("session_id: ses_1"), "{launched}");
        let refused = piped.call("background_send", json!({"task_id": "bg_1"}));
        assert_eq!(refused["isError"], true);
        let params = json!({"name": "background_output", "arguments": {"task_id": "ses_1", "block": true},
            "_meta": {"progressToken": 9}});
        piped.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}));
        let told = piped.hear();
        assert_eq!(told["method"], "notifications/progress", "{told}");
        piped
    });
    let mut piped = talk.await.unwrap();
    host.finish("ses_1").await;
    let (piped, answer) = actix_web::web::block(move || {
        let answer = piped.hear();
        (piped, answer)
    })
    .await
    .unwrap();
    assert!(text(&answer["result"]).contains("answer to"), "{answer}");

    // A service that has gone is said, and does not end the conversation.
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
async fn without_a_service_it_says_so_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let ran = ran(greenroom(&["mcp", "--url", &url])).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    assert!(
        ran.stderr.contains("hint: start it with `greenroom up`"),
        "{}",
        ran.stderr
    );
}

#[actix_rt::test]
async fn half_an_emoji_does_not_leave_its_sender_without_an_answer() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let talk = actix_web::web::block(move || {
        let mut piped = Piped::start(&url);
        piped.hello();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "background_output", "arguments": {"task_id": "half"}}});
        let line = call.to_string().replace("half", r"\ud83d");
        writeln!(piped.stdin.as_mut().unwrap(), "{line}").unwrap();
        // Answered or not, this one is.
        piped.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
        [piped.hear(), piped.hear()]
    });
    let answers = talk.await.unwrap();
    let refused = answers.iter().find(|answer| answer["id"] == 1);
    let refused = refused.unwrap_or_else(|| panic!("{answers:?}"));
    assert!(
        text(&refused["result"]).contains("there is no task"),
        "{refused}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn who_may_not_read_a_task_is_not_told_how_it_goes_on_either() {
    let host = Host::start(&[]).await;
    let url = host.url("");
    let talk = actix_web::web::block(move || {
        let mut piped = Piped::start(&url);
        piped.hello();
        let mut theirs = launch();
        theirs["parent_session_id"] = json!("ses_owner");
        let launched = piped.call("background_task", theirs);
        let task = launched["_meta"]["greenroom"]["taskId"].clone();
        let read = json!({"task_id": task, "block": true, "parent_session_id": "ses_other"});
        let params =
            json!({"name": "background_output", "arguments": read, "_meta": {"progressToken": 9}});
        piped.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}));
        piped.hear()
    });
    let heard = talk.await.unwrap();
    assert_eq!(
        (&heard["id"], &heard["result"]["isError"]),
        (&json!(2), &json!(true)),
        "{heard}"
    );
    host.stop().await;
}

//! The tools on a real service, with an agent server in memory.

use greenroom_server::tools::{Caller, ToolReply, Tools};
use serde_json::{Value, json};

use crate::support::Host;

fn agent(session: &str) -> Caller {
    Caller {
        session: Some(session.into()),
        agent: Some("build".to_owned()),
        directory: Some("/project".to_owned()),
        ..Caller::default()
    }
}

/// An agent with the tools of a service.
pub struct Agent {
    pub tools: Tools,
    pub caller: Caller,
}

impl Agent {
    pub fn of(host: &Host, session: &str) -> Self {
        Self {
            tools: host.tools(),
            caller: agent(session),
        }
    }

    async fn call(&self, tool: &str, args: Value) -> ToolReply {
        self.tools.call(tool, args, &self.caller).await
    }

    /// Calls a tool that must succeed.
    pub async fn call_ok(&self, tool: &str, args: Value) -> ToolReply {
        let reply = self.call(tool, args).await;
        assert!(!reply.is_error, "{}", reply.output);
        reply
    }

    /// Calls a tool that must fail and returns the error.
    pub async fn call_err(&self, tool: &str, args: Value) -> String {
        let reply = self.call(tool, args).await;
        assert!(reply.is_error, "{}", reply.output);
        reply.output
    }

    pub async fn launch(&self, description: &str) -> String {
        let args = json!({"description": description, "prompt": "Look.", "agent": "explore"});
        let mut reply = self.call_ok("background_task", args).await;
        let task = id(&reply);
        // On a busy machine a start may take longer than a launch waits.
        while !reply.output.contains("session_id: ") && !reply.output.contains("slots in use") {
            tokio::task::yield_now().await;
            reply = self
                .call_ok("background_output", json!({ "task_id": task }))
                .await;
        }
        task
    }
}

fn id(reply: &ToolReply) -> String {
    let metadata = reply.metadata.as_ref().unwrap();
    metadata["taskId"].as_str().unwrap().to_owned()
}

#[actix_rt::test]
async fn launch_and_read_result() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let args = json!({"description": "look around", "prompt": "List the files.", "agent": "explore",
        "model": "acme/large", "category": "quick", "skills": ["git"], "directory": "sub"});
    let reply = parent.call_ok("background_task", args).await;
    let task = id(&reply);
    assert_eq!(reply.title.as_deref(), Some("look around"));
    assert_eq!(reply.metadata.as_ref().unwrap()["sessionId"], "ses_1");
    for wanted in [
        &task[..],
        "session_id: ses_1",
        "status: running",
        "Do not poll",
    ] {
        assert!(reply.output.contains(wanted), "{wanted}: {}", reply.output);
    }
    let (_, record) = host.get(&format!("/v1/tasks/{task}")).await;
    for (field, wanted) in [
        ("parentSessionID", json!("ses_parent")),
        ("parentAgent", json!("build")),
        ("category", json!("quick")),
        ("skills", json!(["git"])),
        ("directory", json!("/project/sub")),
        ("model", json!({"providerID": "acme", "modelID": "large"})),
    ] {
        assert_eq!(record[field], wanted, "{field}");
    }

    let open = parent
        .call_ok("background_output", json!({"task_id": task}))
        .await;
    assert!(open.output.contains("status: running"), "{}", open.output);
    host.finish("ses_1").await;
    host.ended(&task).await;
    let args = json!({"task_id": "ses_1"});
    let read = parent.call_ok("background_output", args.clone()).await;
    assert!(read.output.contains("status: completed"), "{}", read.output);
    assert!(
        read.output.ends_with("answer to: List the files."),
        "{}",
        read.output
    );
    assert_eq!(
        parent.call_ok("background_output", args).await,
        read,
        "reading twice gives the same"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn waiting_launch_returns_its_queue_position() {
    let host = Host::start(&[("limits.default", "1")]).await;
    let parent = Agent::of(&host, "ses_parent");
    parent.launch("first").await;
    parent.launch("second").await;
    let args = json!({"description": "third", "prompt": "Look.", "agent": "explore"});
    let reply = parent.call_ok("background_task", args).await;
    assert!(
        reply
            .output
            .contains("status: pending\nwaits for: number 2 in line; 1 of 1 slots in use"),
        "{}",
        reply.output
    );
    assert!(reply.metadata.unwrap().get("sessionId").is_none());
    let task = json!({"task_id": host.newest().await});
    let shown = parent.call_ok("background_output", task).await.output;
    assert!(shown.contains("waits for: number 2 in line"), "{shown}");
    let list = parent
        .call_ok("background_list", json!({"status": "pending"}))
        .await
        .output;
    assert!(
        list.starts_with("2 background tasks") && list.contains("number 1 in line"),
        "{list}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn blocking_read_returns_at_end_or_timeout() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let task = parent.launch("wait").await;
    let args = json!({"task_id": task, "block": "true", "timeout": 1});
    let late = parent.call_ok("background_output", args).await.output;
    assert!(late.contains("did not end within the time"), "{late}");

    let (tools, caller) = (parent.tools.clone(), parent.caller.clone());
    let args = json!({"task_id": task, "block": true});
    let reading =
        actix_rt::spawn(async move { tools.call("background_output", args, &caller).await });
    host.let_request_arrive().await;
    assert!(!reading.is_finished());
    host.finish("ses_1").await;
    let read = reading.await.unwrap();
    assert!(read.output.contains("answer to: Look."), "{}", read.output);
    host.stop().await;
}

#[actix_rt::test]
async fn full_session_is_paged() {
    let host = Host::start(&[]).await;
    host.fake.call_tools();
    let parent = Agent::of(&host, "ses_parent");
    let task = parent.launch("use a tool").await;
    host.finish("ses_1").await;
    host.ended(&task).await;
    let read = async |args: Value| {
        let mut all = json!({"task_id": task, "full_session": true});
        for (name, value) in args.as_object().unwrap() {
            all[name] = value.clone();
        }
        parent.call_ok("background_output", all).await.output
    };
    let first = read(json!({"message_limit": 1})).await;
    assert!(
        first.contains("* bash completed") && !first.contains("42 files"),
        "{first}"
    );
    assert!(
        first.ends_with("(there is more: go on with since_message_id=\"msg_ses_1_0\")"),
        "{first}"
    );
    let rest = read(json!({"since_message_id": "msg_ses_1_0"})).await;
    assert!(
        rest.contains("answer to: Look.") && rest.contains("that is all"),
        "{rest}"
    );
    let newest = read(json!({"message_limit": 1, "from_end": true})).await;
    assert!(
        newest.contains("answer to") && newest.contains("older messages"),
        "{newest}"
    );
    let args = json!({"task_id": task, "include_tool_results": true});
    let results = parent.call_ok("background_output", args).await.output;
    assert!(results.contains("42 files"), "{results}");
    let args = json!({"task_id": task, "full_session": true, "since_message_id": "msg_0"});
    let refused = parent.call_err("background_output", args).await;
    assert!(refused.contains("since_message_id"), "{refused}");
    host.stop().await;
}

#[actix_rt::test]
async fn resume_and_send() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let task = parent.launch("first half").await;
    let args = json!({"session_id": "ses_1", "prompt": "And now?"});
    let refused = parent.call_err("background_task", args.clone()).await;
    assert!(refused.contains("background_send"), "{refused}");
    let sent = parent
        .call_ok(
            "background_send",
            json!({"task_id": task, "prompt": "Hurry."}),
        )
        .await;
    assert!(
        sent.output.contains("notified when it ends"),
        "{}",
        sent.output
    );
    host.finish("ses_1").await;
    host.ended(&task).await;
    let refused = parent
        .call_err(
            "background_send",
            json!({"task_id": task, "prompt": "More."}),
        )
        .await;
    assert!(
        refused.contains("background_task(session_id=\"ses_1\""),
        "{refused}"
    );
    let resumed = parent.call_ok("background_task", args).await;
    assert!(
        resumed.output.starts_with("Background task resumed"),
        "{}",
        resumed.output
    );
    assert_eq!(id(&resumed), task);
    let args = json!({"session_id": "ses_none", "prompt": "Go on."});
    let refused = parent.call_err("background_task", args).await;
    assert!(refused.contains("leave session_id out"), "{refused}");
    host.stop().await;
}

#[actix_rt::test]
async fn repeated_launch_call_is_one_task() {
    let host = Host::start(&[]).await;
    let mut parent = Agent::of(&host, "ses_parent");
    parent.caller.message = Some("msg_1".into());
    parent.caller.call = Some("call_0".to_owned());
    let first = parent.launch("once").await;
    assert_eq!(parent.launch("once").await, first);
    // Some models give all calls of a message one id.
    assert_ne!(parent.launch("another").await, first);
    // Some models restart their call numbers in each message.
    parent.caller.message = Some("msg_2".into());
    assert_ne!(parent.launch("once").await, first);
    host.stop().await;
}

#[actix_rt::test]
async fn errors_name_tools() {
    let host = Host::start(&[("safety.max_depth", "1")]).await;
    let parent = Agent::of(&host, "ses_parent");
    let launch = |field: &str, value: Value| {
        let mut args = json!({"description": "d", "prompt": "p", "agent": "explore"});
        args[field] = value;
        args
    };
    for (tool, args, wanted) in [
        (
            "background_task",
            launch("prompt", json!("  ")),
            "prompt: must not be blank",
        ),
        (
            "background_task",
            launch("model", json!("opus")),
            "model: write it as PROVIDER/MODEL",
        ),
        (
            "background_task",
            launch("agnet", json!("x")),
            "did you mean agent?",
        ),
        ("background_output", json!({}), "task_id: is missing"),
        (
            "background_output",
            json!({"task_id": "bg_ffffffff"}),
            "background_list shows",
        ),
        ("background_cancel", json!({}), "taskId: is missing"),
        (
            "background_cancel",
            json!({"taskId": "bg_1", "all": "yes"}),
            "give either taskId or all",
        ),
        (
            "background_send",
            json!({"task_id": "bg_1"}),
            "prompt: is missing",
        ),
        (
            "background_list",
            json!({"status": "done"}),
            "none of pending, running",
        ),
        (
            "background_lsit",
            json!({}),
            "There are background_task, background_output",
        ),
    ] {
        let refused = parent.call_err(tool, args).await;
        assert!(refused.contains(wanted), "{wanted}: {refused}");
        assert!(!refused.contains("/v1/"), "{refused}");
    }
    parent.launch("child").await;
    let child = Agent::of(&host, "ses_1");
    let deep = child
        .call_err("background_task", launch("prompt", json!("p")))
        .await;
    assert!(deep.contains("Do it yourself"), "{deep}");
    host.stop().await;
}

//! The scope of callers, the messages about their calls, and the hosts that call tools.

use std::sync::Arc;

use greenroom_bridge::{ToolCall, ToolContext, ToolDispatcher};
use greenroom_server::tools::Caller;
use serde_json::{Value, json};

use crate::support::Host;
use crate::tools::Agent;

#[actix_rt::test]
async fn agent_reaches_only_its_own_tree() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let child_task = parent.launch("child").await;
    let child = Agent::of(&host, "ses_1");
    let grandchild = child.launch("grandchild").await;
    let stranger = Agent::of(&host, "ses_stranger");
    for (tool, args) in [
        ("background_output", json!({"task_id": child_task})),
        ("background_output", json!({"task_id": "ses_1"})),
        (
            "background_send",
            json!({"task_id": child_task, "prompt": "stop"}),
        ),
        ("background_cancel", json!({"taskId": child_task})),
        (
            "background_task",
            json!({"session_id": "ses_1", "prompt": "mine now"}),
        ),
    ] {
        let refused = stranger.call_err(tool, args).await;
        assert!(refused.contains("of yours"), "{tool}: {refused}");
    }
    // Neither ancestors nor siblings are in scope.
    let refused = child
        .call_err("background_output", json!({"task_id": child_task}))
        .await;
    assert!(refused.contains("of yours"), "{refused}");
    parent
        .call_ok("background_output", json!({"task_id": grandchild}))
        .await;
    parent
        .call_ok(
            "background_send",
            json!({"task_id": grandchild, "prompt": "faster"}),
        )
        .await;
    let list = parent.call_ok("background_list", json!({})).await.output;
    assert!(
        list.contains(&child_task) && !list.contains(&grandchild),
        "{list}"
    );
    assert_eq!(
        stranger.call_ok("background_list", json!({})).await.output,
        "No background tasks."
    );

    // A caller without a session reaches all tasks, as over the HTTP API.
    let anyone = Agent {
        tools: host.tools(),
        caller: Caller::default(),
    };
    anyone
        .call_ok("background_output", json!({"task_id": grandchild}))
        .await;
    let list = anyone.call_ok("background_list", json!({})).await.output;
    assert!(
        list.contains(&grandchild) && list.contains(&child_task),
        "{list}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn former_parent_reads_and_changes_nothing() {
    let host = Host::start(&[]).await;
    let former = Agent::of(&host, "ses_former");
    let task = former.launch("child").await;
    host.running(&task).await;
    let below = Agent::of(&host, "ses_1").launch("grandchild").await;
    host.running(&below).await;
    let track = json!({"taskID": task, "sessionID": "ses_1", "parentSessionID": "ses_new", "description": "child"});
    let (status, tracked) = host.post("/v1/tasks/track", track).await;
    assert!(status < 300, "{tracked}");
    former
        .call_ok("background_output", json!({"task_id": task}))
        .await;
    for id in [&task, &below] {
        for (tool, args) in [
            ("background_send", json!({"task_id": id, "prompt": "stop"})),
            ("background_cancel", json!({"taskId": id})),
        ] {
            let refused = former.call_err(tool, args).await;
            assert!(refused.contains("of yours"), "{tool}: {refused}");
        }
    }
    let new = Agent::of(&host, "ses_new");
    for id in [&below, &task] {
        new.call_ok("background_cancel", json!({"taskId": id}))
            .await;
    }
    host.stop().await;
}

#[actix_rt::test]
async fn fork_reads_what_its_history_names_and_changes_nothing() {
    let host = Host::start(&[]).await;
    let task = Agent::of(&host, "ses_parent").launch("child").await;
    host.running(&task).await;
    let mut fork = Agent::of(&host, "ses_fork");
    fork.caller.message = Some("msg_now".into());
    let read = ("background_output", json!({"task_id": task}));
    let result = |message: &str| {
        json!({"info": {"id": message, "role": "assistant"}, "parts": [{"type": "tool", "tool": "background_task",
            "callID": "call_1", "state": {"status": "completed", "input": {}, "output": "", "metadata": {"taskId": task}}}]})
    };
    let notice = json!({"info": {"id": "msg_2", "role": "user"}, "parts": [{"type": "text", "text": "done",
        "synthetic": true, "metadata": {"greenroom": {"id": "ntc_1", "kind": "final", "tasks": [task]}}}]});
    let prompt = json!({"info": {"id": "msg_3", "role": "user"}, "parts": [{"type": "text", "text": format!("read {task}"),
        "metadata": {"greenroom": {"task": task, "run": 1, "attempt": 1}}}]});
    // A text of the user is no evidence, nor is a result in the calling message.
    for nothing in [vec![], vec![prompt], vec![result("msg_now")]] {
        host.fake.set_history("ses_fork", nothing);
        let refused = fork.call_err(read.0, read.1.clone()).await;
        assert!(refused.contains("of yours"), "{refused}");
    }
    for evidence in [result("msg_1"), notice] {
        host.fake.set_history("ses_fork", vec![evidence]);
        fork.call_ok(read.0, read.1.clone()).await;
        for (tool, args) in [
            ("background_cancel", json!({"taskId": task})),
            (
                "background_send",
                json!({"task_id": task, "prompt": "stop"}),
            ),
            (
                "background_task",
                json!({"session_id": "ses_1", "prompt": "mine now"}),
            ),
        ] {
            let refused = fork.call_err(tool, args).await;
            assert!(refused.contains("of yours"), "{tool}: {refused}");
        }
    }
    host.stop().await;
}

#[actix_rt::test]
async fn own_cancels_are_not_notified() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let cancelled = parent.launch("not needed").await;
    let kept = parent.launch("needed").await;
    let reply = parent
        .call_ok("background_cancel", json!({"task_id": cancelled}))
        .await;
    assert!(
        reply.output.contains("You will not be notified of it."),
        "{}",
        reply.output
    );
    let again = parent
        .call_err("background_cancel", json!({"taskId": cancelled}))
        .await;
    assert!(again.contains("is cancelled already"), "{again}");
    host.finish("ses_2").await;
    host.ended(&kept).await;
    let messages = host.delivered_messages("ses_parent").await;
    assert!(
        messages.contains(&kept) && !messages.contains(&cancelled),
        "{messages}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn cancel_all_ends_the_tree_and_notifies_other_parents() {
    let host = Host::start(&[("limits.default", "2")]).await;
    let parent = Agent::of(&host, "ses_parent");
    let child = Agent::of(&host, "ses_1");
    let mut open = vec![
        parent.launch("child").await,
        child.launch("grandchild").await,
    ];
    // This task waits for a slot and must not start during the cancel.
    open.push(parent.launch("waiting").await);
    let other = Agent::of(&host, "ses_other");
    let theirs = other.launch("of another session").await;
    let reply = parent
        .call_ok("background_cancel", json!({"all": true, "taskId": ""}))
        .await;
    assert!(
        reply.output.starts_with("Cancelled 3 tasks:"),
        "{}",
        reply.output
    );
    for task in &open {
        let record = host.ended(task).await;
        assert_eq!(record["status"], "cancelled");
    }
    assert_eq!(host.ended(&open[2]).await.get("sessionID"), None);
    host.running(&theirs).await;
    let nothing = parent
        .call_ok("background_cancel", json!({"all": true}))
        .await
        .output;
    assert!(nothing.contains("nothing changed"), "{nothing}");
    let messages = host.delivered_messages("ses_1").await;
    assert!(messages.contains(&open[1]), "{messages}");
    let (_, silent) = host.get("/v1/sessions/ses_parent/notifications").await;
    assert_eq!(silent["notifications"], json!([]));
    host.stop().await;
}

#[actix_rt::test]
async fn descendants_of_a_cancelled_task_can_be_cancelled() {
    let host = Host::start(&[]).await;
    let parent = Agent::of(&host, "ses_parent");
    let cancelled = parent.launch("not needed").await;
    let below = Agent::of(&host, "ses_1").launch("below").await;
    let beside = parent.launch("beside").await;
    let reply = parent
        .call_ok("background_cancel", json!({"taskId": cancelled}))
        .await;
    let hint = format!("background_cancel(taskId=\"{below}\")");
    assert!(reply.output.contains(&hint), "{}", reply.output);
    parent
        .call_ok("background_cancel", json!({"taskId": below}))
        .await;
    host.running(&beside).await;
    host.stop().await;
}

#[actix_rt::test]
async fn bridge_dispatches_calls_and_compactions() {
    let host = Host::start(&[]).await;
    let dispatcher: Arc<dyn ToolDispatcher> = Arc::new(host.tools());
    let call = |tool: &str, args: Value| ToolCall {
        id: "1".into(),
        tool: tool.to_owned(),
        args,
        context: ToolContext {
            session_id: "ses_parent".into(),
            message_id: Some("msg_1".into()),
            agent: Some("build".to_owned()),
            call_id: Some("call_1".to_owned()),
            directory: Some("/project".to_owned()),
            ends_with_turn: false,
        },
    };
    assert_eq!(dispatcher.compaction(&"ses_parent".into()).await, None);
    let args = json!({"description": "look", "prompt": "p", "agent": "explore"});
    let launched = dispatcher.call(call("background_task", args.clone())).await;
    let metadata = launched.metadata.unwrap();
    assert_eq!(metadata["sessionId"], "ses_1");
    let again = dispatcher.call(call("background_task", args)).await;
    assert_eq!(again.metadata.unwrap()["taskId"], metadata["taskId"]);
    let (_, record) = host.get("/v1/tasks/ses_1").await;
    assert_eq!(
        (&record["parentMessageID"], &record["parentAgent"]),
        (&json!("msg_1"), &json!("build"))
    );
    let refused = dispatcher.call(call("background_send", json!({}))).await;
    assert_eq!(refused.metadata, Some(json!({"error": true})));
    let carried = dispatcher.compaction(&"ses_parent".into()).await.unwrap();
    assert!(
        carried.contains("session `ses_1`") && carried.contains("Still open: `bg_"),
        "{carried}"
    );
    host.finish("ses_1").await;
    host.ended("ses_1").await;
    let carried = dispatcher.compaction(&"ses_parent".into()).await.unwrap();
    assert!(
        carried.contains("completed") && !carried.contains("Still open"),
        "{carried}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn session_that_ends_with_its_turn_must_wait() {
    let host = Host::start(&[]).await;
    let dispatcher: Arc<dyn ToolDispatcher> = Arc::new(host.tools());
    let launch = async |session: &str| {
        let call = ToolCall {
            id: "1".into(),
            tool: "background_task".to_owned(),
            args: json!({"description": "look", "prompt": "p", "agent": "explore"}),
            context: ToolContext {
                session_id: session.into(),
                message_id: None,
                agent: None,
                call_id: None,
                directory: None,
                ends_with_turn: true,
            },
        };
        dispatcher.call(call).await.output
    };
    let launched = launch("ses_parent").await;
    assert!(
        launched.contains("before you end your turn") && !launched.contains("You will be notified"),
        "{launched}"
    );
    // The session of a task runs in its parent's process and can be woken there.
    host.running(&host.newest().await).await;
    let below = launch("ses_1").await;
    assert!(below.contains("You will be notified"), "{below}");
    host.stop().await;
}

#[actix_rt::test]
async fn tools_are_listed_and_called_over_http() {
    let host = Host::start(&[]).await;
    let (_, listed) = host.get("/v1/tools").await;
    assert_eq!(listed["tools"][0]["name"], "background_task");
    let args = json!({"description": "look", "prompt": "p", "agent": "explore"});
    let call = json!({"arguments": args, "sessionID": "ses_parent", "agent": "build"});
    let (status, launched) = host.post("/v1/tools/background_task", call).await;
    assert_eq!((status, &launched["isError"]), (200, &json!(false)));
    host.running(&host.newest().await).await;
    let (_, record) = host.get("/v1/tasks/ses_1").await;
    assert_eq!(record["parentSessionID"], "ses_parent");
    let (status, refused) = host.post("/v1/tools/background_send", json!({})).await;
    assert_eq!((status, &refused["isError"]), (200, &json!(true)));
    let (status, unknown) = host.post("/v1/tools/background_tusk", json!({})).await;
    crate::support::assert_error((status, &unknown), 404, "tool_not_found", "background_tusk");
    host.stop().await;
}

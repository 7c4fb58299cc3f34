//! The list of operations, in the order of routing and documentation.

use actix_web::http::Method;
use serde_json::json;

use super::operation::Operation;
use super::{asks, bridges, docs, events, health, limits, metrics, sessions, tasks, tools};

/// Returns all operations. A path without parameters comes before one whose parameter would match it.
#[rustfmt::skip]
pub fn operations() -> Vec<Operation> {
    let (get, head, post, put) = (Method::GET, Method::HEAD, Method::POST, Method::PUT);
    let mut operations = Vec::new();
    operations.extend([
        Operation::new(post.clone(), "/v1/tasks", "launchTask", "Launches a task: accepted, in line, and answered at once", tasks::launch)
            .header("Idempotency-Key", "Repeated within 24 hours it answers the same task, with 200")
            .error(422, "too_deep", "a task of a task of a task …: safety.max_depth is reached")
            .error(422, "idempotency_key_reused", "the key was used for another launch")
            .error(429, "queue_full", "limits.max_waiting tasks wait already")
            .error(429, "queue_too_large", "the prompts of the waiting tasks reach limits.max_waiting_bytes")
            .error(503, "shutting_down", "the service is shutting down")
            .error(503, "interrupted", "the service failed over it and is being put together again")
            .error(503, "journal_unwritable", "the journal cannot be written")
            .example(json!({"description": "look around", "prompt": "List the files.", "agent": "general"})),
        Operation::new(get.clone(), "/v1/tasks", "listTasks", "Tasks, newest first; prompts are cut to 200 characters", tasks::list),
    ]);
    operations.extend([
        Operation::new(post.clone(), "/v1/tasks/cancel", "cancelTasks", "Cancels all tasks below a session, or all there are", tasks::cancel_several)
            .example(json!({"parentSessionID": "ses_0"})),
        Operation::new(post.clone(), "/v1/tasks/track", "trackTask", "Adopts a session started elsewhere, at once", tasks::track)
            .error(503, "shutting_down", "the service is shutting down")
            .error(503, "interrupted", "the service failed over it and is being put together again")
            .error(503, "journal_unwritable", "the journal cannot be written")
            .example(json!({"taskID": "bg_0000abcd", "sessionID": "ses_1", "parentSessionID": "ses_0", "description": "adopted"})),
        Operation::new(get.clone(), "/v1/tasks/{id}", "getTask", "One task, with what it waits for if it waits", tasks::get)
            .error(404, "task_not_found", "no task of that id, beginning of an id, or session"),
        Operation::new(get.clone(), "/v1/tasks/{id}/why", "explainTask", "What happened to a task, oldest first, and what it waits for", tasks::why)
            .error(404, "task_not_found", "no task of that id, beginning of an id, or session"),
        Operation::new(get.clone(), "/v1/tasks/{id}/output", "readOutput", "The result, or the messages; reading consumes nothing", tasks::output)
            .error(404, "task_not_found", "no task of that id, beginning of an id, or session")
            .error(422, "invalid_value", "sinceMessageID names no message of the session")
            .error(503, "agent_server_unreachable", "the agent server gives no messages")
            .error(503, "agent_server_refused", "the agent server gives no messages"),
        Operation::new(post.clone(), "/v1/tasks/{id}/cancel", "cancelTask", "Cancels a task that waits or runs", tasks::cancel)
            .error(404, "task_not_found", "no task of that id, beginning of an id, or session")
            .error(409, "not_cancellable", "it has ended already; nothing changed")
            .example(json!({"reason": "not needed any more"})),
        Operation::new(post.clone(), "/v1/tasks/{id}/send", "sendPrompt", "Gives a running task a further prompt", tasks::send)
            .error(404, "task_not_found", "no task of that id, beginning of an id, or session")
            .error(409, "not_running", "it waits, or has ended")
            .error(409, "session_reverted", "its session is reverted; a prompt would delete what its user can still restore")
            .error(503, "agent_server_unreachable", "the agent server does not take the prompt")
            .error(503, "agent_server_refused", "the agent server does not take the prompt")
            .example(json!({"prompt": "Look into the tests too."})),
    ]);
    operations.extend([
        Operation::new(post.clone(), "/v1/sessions/{sessionID}/resume", "resumeSession", "Starts a new run of an ended task in its session", sessions::resume)
            .error(404, "session_not_found", "no task has that session")
            .error(409, "already_running", "its task has not ended")
            .error(409, "session_reverted", "it is reverted; a prompt would delete what its user can still restore")
            .error(429, "queue_full", "limits.max_waiting tasks wait already")
            .error(429, "queue_too_large", "the prompts of the waiting tasks reach limits.max_waiting_bytes")
            .error(503, "shutting_down", "the service is shutting down")
            .error(503, "interrupted", "the service failed over it and is being put together again")
            .error(503, "journal_unwritable", "the journal cannot be written")
            .example(json!({"prompt": "Go on with the second half."})),
        Operation::new(get.clone(), "/v1/sessions/{sessionID}/tasks", "listTasksOfSession", "A session's tasks, in order of acceptance", sessions::tasks),
        Operation::new(get.clone(), "/v1/sessions/{sessionID}/history", "readHistory", "What a parent's newest hundred tasks were", sessions::history),
        Operation::new(get.clone(), "/v1/sessions/{sessionID}/notifications", "listNotifications", "The messages to a parent and what became of them, newest first", sessions::notifications),
        Operation::new(post.clone(), "/v1/session-events", "pushEvents", "Hands in events of the agent server, for hosts that have no websocket", sessions::events)
            .example(json!({"events": [{"type": "session.idle", "properties": {"sessionID": "ses_1"}}]})),
        Operation::new(get.clone(), "/v1/tools", "listTools", "The tools for agents, with the schemas of their arguments", tools::list),
        Operation::new(post.clone(), "/v1/tools/{tool}", "callTool", "Calls a tool as an agent would; what it refuses is an answer too", tools::call)
            .error(404, "tool_not_found", "there is no such tool")
            .example(json!({"arguments": {"status": "running"}, "sessionID": "ses_0"})),
        Operation::new(get.clone(), "/v1/asks", "listAsks", "Open requests of children, oldest first", asks::list),
        Operation::new(post, "/v1/asks/{askID}", "answerAsk", "Answers a permission request or a question of a child", asks::answer)
            .error(404, "ask_not_found", "no open request of that id: it never was, or has been answered")
            .error(503, "agent_server_unreachable", "the agent server does not take the answer")
            .error(503, "agent_server_refused", "the agent server does not take the answer")
            .example(json!({"answer": "once"})),
        Operation::new(get.clone(), "/v1/events", "followEvents", "Server-sent events, one per change of a task", events::stream)
            .error(503, "too_many_streams", "as many streams are open as the limit of open files allows")
            .header("Last-Event-ID", "The id of the last event the reader had; goes before `since`"),
        Operation::new(get.clone(), "/v1/limits", "showLimits", "Slots in use and limits, key by key", limits::show),
        Operation::new(put, "/v1/limits", "changeLimits", "Changes limits while running; not kept over a restart", limits::change)
            .example(json!({"default": 3, "models": {"anthropic/claude-opus": 1}})),
        Operation::new(get.clone(), "/v1/bridges", "listBridges", "The connected opencode processes, oldest connection first", bridges::list),
    ]);
    for (method, healthz, readyz) in [(get.clone(), "healthz", "readyz"), (head, "healthzHead", "readyzHead")] {
        operations.extend([
            Operation::new(method.clone(), "/healthz", healthz, "Whether the process and its actors answer", health::healthz).public()
                .error(503, "actors_unresponsive", "the actors do not answer"),
            Operation::new(method, "/readyz", readyz, "Whether tasks are started and watched", health::readyz).public(),
        ]);
    }
    operations.extend([
        Operation::new(get.clone(), "/metrics", "metrics", "Metrics in OpenMetrics text", metrics::show),
        Operation::new(get.clone(), "/openapi.json", "openapi", "This document", docs::document).public(),
        Operation::new(get, "/docs", "docs", "This document as a page", docs::page).public(),
    ]);
    operations
}

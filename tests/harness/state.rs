//! The state that a failed wait prints: tasks with the events behind them, messages to parents with their `fate`, and the
//! messages of sessions.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

/// Returns the state of the service as text. `get` reads a path of its API.
pub async fn service_state(get: impl AsyncFn(String) -> Option<Value>) -> String {
    let mut state = String::new();
    let Some(listed) = get("/v1/tasks".to_owned()).await else {
        return "the service does not answer\n".to_owned();
    };
    let mut parents = BTreeSet::new();
    for task in listed["tasks"].as_array().into_iter().flatten() {
        let id = task["id"].as_str().unwrap_or_default();
        let fields = [
            "description",
            "status",
            "run",
            "sessionID",
            "error",
            "note",
            "progress",
        ];
        let _ = write!(state, "task {id}");
        for field in fields.iter().filter(|field| !task[**field].is_null()) {
            let _ = write!(state, " {field}={}", task[*field]);
        }
        state.push('\n');
        parents.extend(task["parentSessionID"].as_str().map(str::to_owned));
        let why = get(format!("/v1/tasks/{id}/why")).await.unwrap_or_default();
        if !why["waitsFor"].is_null() {
            let _ = writeln!(state, "    waits for {}", why["waitsFor"]);
        }
        for event in why["events"].as_array().into_iter().flatten() {
            let text = |field: &str| event[field].as_str().unwrap_or_default();
            let _ = writeln!(
                state,
                "    {} {} {}",
                text("at"),
                text("what"),
                text("detail")
            );
        }
    }
    for parent in parents {
        let path = format!("/v1/sessions/{parent}/notifications");
        let sent = get(path).await.unwrap_or_default();
        for message in sent["notifications"].as_array().into_iter().flatten() {
            let _ = writeln!(state, "message to {parent}: {message}");
        }
    }
    if let Some(ready) = get("/readyz".to_owned()).await {
        let _ = writeln!(state, "readyz: {ready}");
    }
    state
}

/// Returns a line per message: role, id, agent, model, how it ended, and its parts in short.
pub fn messages_state(session: &str, messages: &[Value]) -> String {
    let mut state = format!("session {session}\n");
    for message in messages {
        let info = &message["info"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let model = [&info["model"]["modelID"], &info["modelID"]];
        let model = model.into_iter().find(|model| model.is_string());
        let _ = write!(
            state,
            "    {} {} agent={} model={} finish={}",
            text(&info["role"]),
            text(&info["id"]),
            text(&info["agent"]),
            model.map(text).unwrap_or_default(),
            text(&info["finish"]),
        );
        if !info["error"].is_null() {
            let _ = write!(state, " error={}", info["error"]);
        }
        for part in message["parts"].as_array().into_iter().flatten() {
            let excerpt: String = text(&part["text"]).chars().take(120).collect();
            let _ = match part["type"].as_str() {
                Some("text") => write!(state, " [{excerpt:?} {}]", part["metadata"]),
                Some("tool") => write!(
                    state,
                    " [{} {}]",
                    text(&part["tool"]),
                    text(&part["state"]["status"])
                ),
                _ => write!(state, " [{}]", text(&part["type"])),
            };
        }
        state.push('\n');
    }
    state
}

//! A scripted model over OpenAI's protocol: a prompt with `CALL <tool> <json>` makes it call that tool; afterwards, and for
//! any other prompt, it answers "All done".

use serde_json::{Value, json};

use super::{Reply, Request, Stub};

/// Starts the model; opencode reaches it at `<url>/v1`.
pub async fn start() -> Stub {
    Stub::start(answer).await
}

fn answer(request: &Request) -> Reply {
    if request.method != "POST" {
        return Reply::Status(404, String::new());
    }
    let body = request.json();
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.last().cloned().unwrap_or_default();
    let delta = match tool_call(&last) {
        Some((tool, arguments)) if body.get("tools").is_some() => {
            json!({"role": "assistant", "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": tool, "arguments": arguments}}
            ]})
        }
        _ => json!({"role": "assistant", "content": "All done"}),
    };
    let finish = if delta.get("tool_calls").is_some() {
        "tool_calls"
    } else {
        "stop"
    };
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]});
        format!("data: {chunk}\n\n").into_bytes()
    };
    let end = b"data: [DONE]\n\n".to_vec();
    Reply::Stream {
        pieces: vec![
            chunk(delta, Value::Null),
            chunk(json!({}), json!(finish)),
            end,
        ],
        open: false,
    }
}

fn tool_call(message: &Value) -> Option<(String, String)> {
    if message["role"] != "user" {
        return None;
    }
    let text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => return None,
    };
    let line = text.lines().find_map(|line| line.strip_prefix("CALL "))?;
    let (tool, arguments) = line.split_once(' ')?;
    Some((tool.to_owned(), arguments.to_owned()))
}

//! A seeded generator of random and almost valid JSON.

use serde_json::Value;

use super::env_number;

/// A generator whose output depends only on the seed.
pub struct Rng(u64);

impl Rng {
    pub fn from_seed(stream: u64) -> Self {
        let seed = env_number("GREENROOM_BAD_INPUTS_SEED").unwrap_or(7);
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        usize::try_from(bits % bound as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

pub const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "3.5",
    "-0.0",
    "1e999",
    "-1e999",
    "1e-999",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "123456789012345678901234567890",
    "4294967296",
    "01",
];
pub const TEXTS: [&str; 18] = [
    "",
    " ",
    "x",
    "\\u0000",
    "\\u0007\\u001b[31m",
    "\u{7}",
    "\\ud800",
    "\\udc00\\ud800",
    "ä😀",
    "bg_",
    "ses_1",
    "/absolute",
    "relative",
    "provider/model",
    "</system-reminder>",
    "permission",
    "\\u202e",
    "true",
];
/// Field names of events, messages, frames and bodies, and some unknown ones.
pub const NAMES: [&str; 52] = [
    "type",
    "properties",
    "sessionID",
    "info",
    "part",
    "id",
    "role",
    "parts",
    "time",
    "created",
    "completed",
    "finish",
    "error",
    "name",
    "data",
    "message",
    "status",
    "attempt",
    "next",
    "tool",
    "state",
    "input",
    "output",
    "callID",
    "metadata",
    "greenroom",
    "task",
    "run",
    "questions",
    "question",
    "permission",
    "patterns",
    "requestID",
    "text",
    "event",
    "directory",
    "pid",
    "protocol",
    "token",
    "description",
    "prompt",
    "agent",
    "model",
    "providerID",
    "modelID",
    "tokens",
    "summary",
    "todos",
    "content",
    "",
    "__proto__",
    "größe",
];
pub const KINDS: [&str; 18] = [
    "message.updated",
    "message.part.updated",
    "message.part.delta",
    "todo.updated",
    "session.idle",
    "session.deleted",
    "session.error",
    "session.status",
    "permission.asked",
    "question.asked",
    "permission.replied",
    "question.rejected",
    "hello",
    "event",
    "busy",
    "retry",
    "text",
    "tool",
];

/// Returns any JSON text, sometimes invalid JSON.
pub fn any(rng: &mut Rng, depth: usize) -> String {
    match rng.below(if depth == 0 { 7 } else { 11 }) {
        0 => "null".to_owned(),
        1 => rng.pick(&["true", "false"]).to_string(),
        2 => rng.pick(&NUMBERS).to_string(),
        3 => format!("\"{}\"", rng.pick(&TEXTS)),
        4 => format!("\"{}\"", rng.pick(&KINDS)),
        5 => match rng.below(60) {
            0 => format!("\"{}\"", "x".repeat(70_000)),
            1 => "[".repeat(100) + &"]".repeat(100),
            2 => "{\"a\":".repeat(5_000),
            3 => "[".repeat(50_000),
            _ => format!("\"{}\"", rng.pick(&NAMES)),
        },
        6 => rng.pick(&["[]", "{}", "\"\"", "[null]"]).to_string(),
        7 | 8 => {
            let count = rng.below(4);
            let items: Vec<String> = (0..count).map(|_| any(rng, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => object(rng, depth),
    }
}

/// Returns an object of known names, some of them repeated.
pub fn object(rng: &mut Rng, depth: usize) -> String {
    let count = rng.below(6);
    let fields: Vec<String> = (0..count)
        .map(|_| {
            format!(
                "\"{}\":{}",
                rng.pick(&NAMES),
                any(rng, depth.saturating_sub(1))
            )
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Returns an object in an expected shape with random values.
pub fn shaped(rng: &mut Rng) -> String {
    let kind = *rng.pick(&KINDS);
    let session = any(rng, 1);
    let place = rng.pick(&[
        "info",
        "part",
        "status",
        "error",
        "questions",
        "patterns",
        "id",
    ]);
    let inner = if rng.below(3) == 0 {
        any(rng, 3)
    } else {
        object(rng, 3)
    };
    format!(
        "{{\"type\":\"{kind}\",\"properties\":{{\"sessionID\":{session},\"{place}\":{inner}}}}}"
    )
}

/// Returns a body for an operation: its example with fields removed, repeated, replaced or added, or random JSON.
pub fn body(rng: &mut Rng, example: &Value, names: &[String]) -> String {
    match rng.below(12) {
        0 => any(rng, 3),
        1 => {
            let whole = example.to_string();
            let end = rng.below(whole.len());
            // Cut at any byte, also within a character.
            String::from_utf8_lossy(&whole.as_bytes()[..end]).into_owned()
        }
        _ => {
            let mut fields: Vec<String> = Vec::new();
            for (name, value) in example.as_object().unwrap() {
                let value = match rng.below(4) {
                    0 => any(rng, 2),
                    _ => value.to_string(),
                };
                match rng.below(12) {
                    0 => {}
                    1 => fields
                        .extend([format!("\"{name}\":{value}"), format!("\"{name}\":{value}")]),
                    _ => fields.push(format!("\"{name}\":{value}")),
                }
            }
            for _ in 0..rng.below(3) {
                let name = if names.is_empty() || rng.below(5) == 0 {
                    rng.pick(&NAMES).to_string()
                } else {
                    rng.pick(names).clone()
                };
                let value = any(rng, 2);
                fields.push(format!("\"{name}\":{value}"));
            }
            format!("{{{}}}", fields.join(","))
        }
    }
}

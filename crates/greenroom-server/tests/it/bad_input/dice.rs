//! What the bad input is made of: a seeded generator of JSON that is anything, or nearly what somebody expects.

use serde_json::Value;

use super::setting;

/// A generator that gives the same for the same seed, on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn seeded(stream: u64) -> Self {
        let seed = setting("GREENROOM_BAD_INPUTS_SEED").unwrap_or(7);
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % sides as u64).unwrap()
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
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
/// Names that events, messages, frames and bodies know, and some that nobody does.
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

/// Any JSON text, and sometimes nearly JSON.
pub fn any(dice: &mut Dice, depth: usize) -> String {
    match dice.roll(if depth == 0 { 7 } else { 11 }) {
        0 => "null".to_owned(),
        1 => dice.one(&["true", "false"]).to_string(),
        2 => dice.one(&NUMBERS).to_string(),
        3 => format!("\"{}\"", dice.one(&TEXTS)),
        4 => format!("\"{}\"", dice.one(&KINDS)),
        5 => match dice.roll(60) {
            0 => format!("\"{}\"", "x".repeat(70_000)),
            1 => "[".repeat(100) + &"]".repeat(100),
            2 => "{\"a\":".repeat(5_000),
            3 => "[".repeat(50_000),
            _ => format!("\"{}\"", dice.one(&NAMES)),
        },
        6 => dice.one(&["[]", "{}", "\"\"", "[null]"]).to_string(),
        7 | 8 => {
            let count = dice.roll(4);
            let items: Vec<String> = (0..count).map(|_| any(dice, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => object(dice, depth),
    }
}

/// An object of known names, some of them twice.
pub fn object(dice: &mut Dice, depth: usize) -> String {
    let count = dice.roll(6);
    let fields: Vec<String> = (0..count)
        .map(|_| {
            format!(
                "\"{}\":{}",
                dice.one(&NAMES),
                any(dice, depth.saturating_sub(1))
            )
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Something shaped like what a reader expects, with anything in any place.
pub fn shaped(dice: &mut Dice) -> String {
    let kind = *dice.one(&KINDS);
    let session = any(dice, 1);
    let place = dice.one(&[
        "info",
        "part",
        "status",
        "error",
        "questions",
        "patterns",
        "id",
    ]);
    let inner = if dice.roll(3) == 0 {
        any(dice, 3)
    } else {
        object(dice, 3)
    };
    format!(
        "{{\"type\":\"{kind}\",\"properties\":{{\"sessionID\":{session},\"{place}\":{inner}}}}}"
    )
}

/// A body for a call: its example with fields left out, doubled, replaced or added; or anything.
pub fn body(dice: &mut Dice, example: &Value, names: &[String]) -> String {
    match dice.roll(12) {
        0 => any(dice, 3),
        1 => {
            let whole = example.to_string();
            let end = dice.roll(whole.len());
            // Broken off at any byte, also within a character.
            String::from_utf8_lossy(&whole.as_bytes()[..end]).into_owned()
        }
        _ => {
            let mut fields: Vec<String> = Vec::new();
            for (name, value) in example.as_object().unwrap() {
                let value = match dice.roll(4) {
                    0 => any(dice, 2),
                    _ => value.to_string(),
                };
                match dice.roll(12) {
                    0 => {}
                    1 => fields
                        .extend([format!("\"{name}\":{value}"), format!("\"{name}\":{value}")]),
                    _ => fields.push(format!("\"{name}\":{value}")),
                }
            }
            for _ in 0..dice.roll(3) {
                let name = if names.is_empty() || dice.roll(5) == 0 {
                    dice.one(&NAMES).to_string()
                } else {
                    dice.one(names).clone()
                };
                let value = any(dice, 2);
                fields.push(format!("\"{name}\":{value}"));
            }
            format!("{{{}}}", fields.join(","))
        }
    }
}

//! The tool calls of one run: each counted once. A run with too many calls or too many repeats is stopped.

use serde_json::Value;

use super::transcript::Part;
use crate::config::Safety;
use crate::maps::Set;

/// The verdict on the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakerVerdict {
    /// The run may continue.
    Fine,
    /// The run must stop, for this reason.
    Stop(String),
}

/// The calls of one run.
#[derive(Debug, Default)]
pub struct ToolCallCounter {
    // Bounded by `max_tool_calls`: a run that passes it is stopped.
    counted: Set<String>,
    compared: Set<String>,
    calls: u32,
    last: Option<(String, Value)>,
    repeats: u32,
}

impl ToolCallCounter {
    /// Counts a tool part. Returns true for a new call. A part without an id is always a new call.
    pub fn count(&mut self, part: &Part) -> bool {
        let ids: Vec<&String> = part.id.iter().chain(part.call.iter()).collect();
        self.compare(part, &ids);
        let known = ids.iter().any(|id| self.counted.contains(*id));
        self.counted.extend(ids.into_iter().cloned());
        if !known {
            self.calls += 1;
        }
        !known
    }

    /// Returns whether the run may continue.
    pub fn judge(&self, safety: &Safety) -> BreakerVerdict {
        if safety.max_tool_calls > 0 && self.calls > safety.max_tool_calls {
            return BreakerVerdict::Stop(format!("more than {} tool calls", safety.max_tool_calls));
        }
        match &self.last {
            Some((tool, _))
                if safety.repeated_tool_calls > 0 && self.repeats >= safety.repeated_tool_calls =>
            {
                BreakerVerdict::Stop(format!(
                    "{tool} called {} times with the same input",
                    self.repeats
                ))
            }
            _ => BreakerVerdict::Fine,
        }
    }

    /// Counts repeats: a call repeats the last call if tool and input are equal. The input is known once the call runs;
    /// a call without a known input is ignored.
    fn compare(&mut self, part: &Part, ids: &[&String]) {
        let known = part
            .input
            .as_ref()
            .filter(|_| part.tool_status.as_deref() != Some("pending"));
        let (Some(tool), Some(input), Some(id)) = (&part.tool, known, ids.last()) else {
            return;
        };
        if !self.compared.insert((*id).clone()) {
            return;
        }
        match &self.last {
            Some((last_tool, last_input)) if last_tool == tool && last_input == input => {
                self.repeats += 1
            }
            _ => {
                self.last = Some((tool.clone(), input.clone()));
                self.repeats = 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(id: &str, command: &str, status: &str) -> Part {
        Part::read(&json!({
            "id": id, "type": "tool", "tool": "bash", "callID": format!("call_{id}"),
            "state": {"status": status, "input": {"command": command}},
        }))
    }

    #[test]
    fn call_is_counted_once() {
        let mut counts = ToolCallCounter::default();
        assert!(counts.count(&call("1", "ls", "pending")));
        assert!(!counts.count(&call("1", "ls", "running")));
        assert!(!counts.count(&call("1", "ls", "completed")));
        assert!(counts.count(&call("2", "ls", "running")));
    }

    #[test]
    fn parts_without_id_count_separately() {
        let mut counts = ToolCallCounter::default();
        let part = Part::read(&json!({"type": "tool", "tool": "bash"}));
        assert!(counts.count(&part) && counts.count(&part));
    }

    #[test]
    fn repeated_call_is_stopped() {
        let safety = Safety {
            repeated_tool_calls: 3,
            ..Safety::default()
        };
        let mut counts = ToolCallCounter::default();
        for id in ["1", "2"] {
            counts.count(&call(id, "ls", "running"));
            assert_eq!(counts.judge(&safety), BreakerVerdict::Fine);
        }
        counts.count(&call("3", "pwd", "running"));
        for id in ["4", "5", "6"] {
            assert_eq!(counts.judge(&safety), BreakerVerdict::Fine);
            counts.count(&call(id, "ls", "running"));
        }
        assert_eq!(
            counts.judge(&safety),
            BreakerVerdict::Stop("bash called 3 times with the same input".into())
        );
    }
}

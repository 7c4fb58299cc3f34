//! Launch and start: validation, lineage, session and prompt.

mod calls;
mod lineage;
mod session;
mod unreachable;

use greenroom::domain::task::PermissionAction;
use greenroom::ports::agent_server::{NewSession, TaskPrompt};

use crate::harness::Harness;
use crate::server::{CallKind, CallPayload};

fn creates(s: &Harness) -> Vec<NewSession> {
    let calls = s.server.calls(CallKind::Create).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Create(new) => Some(*new),
            _ => None,
        })
        .collect()
}

fn prompts(s: &Harness) -> Vec<TaskPrompt> {
    let calls = s.server.calls(CallKind::Prompt).into_iter();
    calls
        .filter_map(|call| match call.payload {
            CallPayload::Prompt(_, prompt) => Some(*prompt),
            _ => None,
        })
        .collect()
}

/// Returns `tool` for each denied tool, in order.
fn denied(new: &NewSession) -> Vec<&str> {
    new.permission
        .iter()
        .filter(|rule| rule.action == PermissionAction::Deny && rule.pattern == "*")
        .map(|rule| &*rule.permission)
        .collect()
}

//! Formats the calls of the agent server as lines for assertions.

use greenroom::domain::notice::NoticeKind;
use greenroom::ports::agent_server::Notice;

use crate::harness::Harness;
use crate::server::{Call, CallKind, CallPayload};

impl Harness {
    /// Returns the notifications of a parent, one line each: time, kind, whether it wakes, tasks, open tasks,
    /// agent and model.
    pub fn notifications_to(&self, parent: &str) -> Vec<String> {
        let calls = self.server.calls(CallKind::Notify).into_iter();
        calls
            .filter(|call| {
                call.session
                    .as_ref()
                    .is_some_and(|to| to.as_str() == parent)
            })
            .filter_map(|call| Some(format!("{} {}", call.at, notification_line(&call)?)))
            .collect()
    }

    /// Returns the calls of a kind: the time, and the session, the task of a create, or the directory.
    pub fn calls(&self, on: CallKind) -> Vec<String> {
        let calls = self.server.calls(on).into_iter();
        calls
            .map(|call| {
                let about = match (&call.payload, &call.session) {
                    (CallPayload::Create(new), _) => {
                        new.title.split(" (@").next().map(str::to_owned)
                    }
                    (CallPayload::Directory(directory), None) => Some(directory.clone()),
                    (_, session) => session.as_ref().map(ToString::to_string),
                };
                format!("{} {}", call.at, about.unwrap_or_default())
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    /// Returns the times of the calls of a kind.
    pub fn times(&self, on: CallKind) -> Vec<i64> {
        self.server.calls(on).iter().map(|call| call.at).collect()
    }
}

/// Returns the line of a notification without its time.
pub fn notification_line(call: &Call) -> Option<String> {
    match &call.payload {
        CallPayload::Notify(notice) => Some(notice_line(notice)),
        _ => None,
    }
}

fn notice_line(notice: &Notice) -> String {
    let tasks = notice.facts.tasks.iter();
    let tasks: Vec<String> = tasks
        .map(|fact| format!("{} {}", fact.description, fact.status.as_str()))
        .collect();
    let kind = match notice.facts.kind {
        NoticeKind::Individual => "note",
        NoticeKind::Final => "final",
        NoticeKind::Continue => "continue",
    };
    let how = if notice.silent { "silent" } else { "wakes" };
    let mut line = format!("{kind} {how}: {}", tasks.join(", "));
    if notice.facts.remaining > 0 {
        line.push_str(&format!(", {} open", notice.facts.remaining));
    }
    if let Some(agent) = &notice.agent {
        line.push_str(&format!(" as {agent}"));
    }
    if let Some(model) = &notice.model {
        line.push_str(&format!(" on {}", model.key()));
        if let Some(variant) = &model.variant {
            line.push_str(&format!(":{variant}"));
        }
    }
    line
}

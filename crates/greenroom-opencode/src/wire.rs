//! opencode's JSON: bodies of the client's calls, and lenient readers of its responses. Missing fields are absent, unknown
//! fields are ignored.

use std::sync::Arc;

use std::collections::BTreeMap;

use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::session_event::read_retry;
use greenroom::ports::agent_server::{
    NewSession, Notice, SessionRecord, SessionStatus, TaskPrompt, Toast, ToastVariant, Todo,
};
use serde_json::{Map, Value, json};

/// Returns the body of `POST /session`. A model is `{id, providerID}` here, unlike in prompts.
pub(crate) fn new_session(session: &NewSession) -> Value {
    let mut body = Map::new();
    body.insert("title".to_owned(), json!(session.title));
    body.insert("agent".to_owned(), json!(session.agent));
    body.insert("permission".to_owned(), json!(session.permission));
    body.insert("metadata".to_owned(), session.tag.metadata());
    if let Some(parent) = &session.parent {
        body.insert("parentID".to_owned(), json!(parent));
    }
    if let Some(model) = &session.model {
        let mut named = json!({"id": model.model_id, "providerID": model.provider_id});
        if let Some(variant) = &model.variant {
            named["variant"] = json!(variant);
        }
        body.insert("model".to_owned(), named);
    }
    Value::Object(body)
}

/// Returns the body of a task's prompt, without `tools`: they would replace the session's permission rules.
pub(crate) fn task_prompt(prompt: &TaskPrompt) -> Value {
    let part = json!({"type": "text", "text": prompt.text, "metadata": prompt.tag.metadata()});
    prompt_body(
        part,
        Some(&prompt.agent),
        prompt.model.as_deref(),
        prompt.system.as_deref(),
    )
}

/// Returns the body of a message to a parent. It is marked as synthetic; its id is in the metadata.
pub(crate) fn notice(notice: &Notice) -> Value {
    let tasks: Vec<_> = notice
        .facts
        .tasks
        .iter()
        .map(|settled| &settled.task)
        .collect();
    let mut metadata =
        json!({"greenroom": {"id": notice.id, "kind": notice.facts.kind, "tasks": tasks}});
    if let Some(repeated) = &notice.retry_of {
        metadata["greenroom"]["retryOf"] = json!(repeated);
    }
    let part =
        json!({"type": "text", "text": notice.text, "synthetic": true, "metadata": metadata});
    let mut body = prompt_body(part, notice.agent.as_deref(), notice.model.as_ref(), None);
    body["noReply"] = json!(notice.silent);
    body
}

fn prompt_body(
    part: Value,
    agent: Option<&str>,
    model: Option<&ModelRef>,
    system: Option<&str>,
) -> Value {
    let mut body = json!({"parts": [part]});
    if let Some(agent) = agent {
        body["agent"] = json!(agent);
    }
    if let Some(model) = model {
        body["model"] = json!({"providerID": model.provider_id, "modelID": model.model_id});
        if let Some(variant) = &model.variant {
            body["variant"] = json!(variant);
        }
    }
    if let Some(system) = system {
        body["system"] = json!(system);
    }
    body
}

/// Returns the body of `POST /tui/show-toast`.
pub(crate) fn toast(toast: &Toast) -> Value {
    let variant = match toast.variant {
        ToastVariant::Info => "info",
        ToastVariant::Success => "success",
        ToastVariant::Error => "error",
    };
    json!({"title": toast.title, "message": toast.message, "variant": variant})
}

/// Reads a session.
pub(crate) fn session(answer: &Value) -> SessionRecord {
    let text = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    SessionRecord {
        id: text("id").map(SessionId::from),
        parent: text("parentID").map(SessionId::from),
        directory: text("directory").map(Arc::from),
        metadata: answer
            .get("metadata")
            .filter(|metadata| !metadata.is_null())
            .cloned(),
        reverted: answer.get("revert").is_some_and(|revert| !revert.is_null()),
    }
}

/// Reads the map of sessions that are not idle; none if the response is not a map. An unknown state counts as busy: the
/// session is in the map, so that it exists and is not idle.
pub(crate) fn statuses(answer: &Value) -> Option<BTreeMap<SessionId, SessionStatus>> {
    let entries = answer.as_object()?;
    Some(
        entries
            .iter()
            .map(|(id, status)| (SessionId::from(id.as_str()), session_status(status)))
            .collect(),
    )
}

fn session_status(status: &Value) -> SessionStatus {
    match status
        .get("type")
        .and_then(Value::as_str)
        .or_else(|| status.as_str())
    {
        Some("idle") => SessionStatus::Idle,
        Some("retry") => {
            let (attempt, message, until) = read_retry(status);
            SessionStatus::Retry {
                attempt,
                message,
                until,
            }
        }
        _ => SessionStatus::Busy,
    }
}

/// Reads `{"providers": [{"id", "models": {…}}]}` as a sorted list of `provider/model`.
pub(crate) fn models(answer: &Value) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for provider in answer.get("providers")?.as_array()? {
        let Some(id) = provider.get("id").and_then(Value::as_str) else {
            continue;
        };
        let models = provider.get("models").and_then(Value::as_object);
        names.extend(
            models
                .into_iter()
                .flatten()
                .map(|(model, _)| format!("{id}/{model}")),
        );
    }
    names.sort_unstable();
    Some(names)
}

/// Reads the configured default model, `{"model": "provider/model"}`; none if the configuration names none.
pub(crate) fn configured_model(answer: &Value) -> Option<ModelRef> {
    let (provider, model) = answer.get("model")?.as_str()?.trim().split_once('/')?;
    model_ref(provider, model)
}

/// Reads the first default model of the providers, `{"default": {"provider": "model"}}`; none if there is none.
pub(crate) fn provider_default(answer: &Value) -> Option<ModelRef> {
    let defaults = answer.get("default")?.as_object()?;
    let mut named = defaults
        .iter()
        .filter_map(|(provider, model)| model_ref(provider, model.as_str()?));
    named.next()
}

fn model_ref(provider: &str, model: &str) -> Option<ModelRef> {
    (!provider.is_empty() && !model.is_empty()).then(|| ModelRef {
        provider_id: provider.to_owned(),
        model_id: model.to_owned(),
        variant: None,
    })
}

/// Reads a todo list; none if the response is not a list.
pub(crate) fn todos(answer: &Value) -> Option<Vec<Todo>> {
    let text = |entry: &Value, key: &str| {
        entry
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let read = |entry: &Value| Todo {
        content: text(entry, "content"),
        status: text(entry, "status"),
    };
    Some(answer.as_array()?.iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use greenroom::domain::ids::{NoticeId, TaskId};
    use greenroom::domain::notice::{NoticeFacts, NoticeKind, SettledFact};
    use greenroom::domain::task::{PermissionAction, PermissionRule, TaskStatus};

    use super::*;
    use greenroom::domain::correlation_tag::CorrelationTag;
    use greenroom::domain::ids::Run;

    fn model() -> ModelRef {
        ModelRef {
            provider_id: "p".to_owned(),
            model_id: "m".to_owned(),
            variant: Some("high".to_owned()),
        }
    }

    /// Any JSON, with the field names of responses in any place.
    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "(ses_1|busy|retry|idle|error|)".prop_map(Value::from),
        ];
        let name = "(id|parentID|directory|metadata|type|attempt|next|message|providers|models|model|default|revert|status|content|error|\\PC{0,3})";
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(name, inner, 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Readers do not panic on any response.
        #[test]
        fn any_response_is_read(answer in anything()) {
            session(&answer);
            statuses(&answer);
            models(&answer);
            configured_model(&answer);
            provider_default(&answer);
            todos(&answer);
        }
    }

    #[test]
    fn new_session_has_the_model_form_of_the_create_call() {
        let body = new_session(&NewSession {
            task: TaskId::new("bg_00000001"),
            title: "t".to_owned(),
            parent: Some(SessionId::new("ses_p")),
            directory: "/d".into(),
            agent: "explore".into(),
            model: Some(model().into()),
            permission: vec![PermissionRule {
                permission: "task".into(),
                pattern: "*".into(),
                action: PermissionAction::Deny,
            }],
            tag: CorrelationTag {
                task: TaskId::new("bg_00000001"),
                run: Run::FIRST,
                attempt: 1,
                prompt: None,
            },
        });
        assert_eq!(
            body,
            json!({
                "title": "t", "parentID": "ses_p", "agent": "explore",
                "model": {"id": "m", "providerID": "p", "variant": "high"},
                "permission": [{"permission": "task", "pattern": "*", "action": "deny"}],
                "metadata": {"greenroom": {"task": "bg_00000001", "run": 1, "attempt": 1}},
            })
        );
    }

    #[test]
    fn prompt_has_no_tools() {
        let body = task_prompt(&TaskPrompt {
            agent: "explore".into(),
            model: Some(model().into()),
            system: Some("be brief".into()),
            text: "look".into(),
            tag: CorrelationTag {
                task: TaskId::new("bg_00000001"),
                run: Run::FIRST,
                attempt: 1,
                prompt: Some(2),
            },
        });
        assert_eq!(
            body,
            json!({
                "parts": [{"type": "text", "text": "look", "metadata": {"greenroom": {"task": "bg_00000001", "run": 1, "attempt": 1, "prompt": 2}}}],
                "agent": "explore", "model": {"providerID": "p", "modelID": "m"}, "variant": "high",
                "system": "be brief",
            })
        );
    }

    #[test]
    fn notice_is_synthetic_and_has_its_id() {
        let body = notice(&Notice {
            retry_of: None,
            id: NoticeId::new("ntc_1"),
            text: "done".to_owned(),
            silent: true,
            agent: None,
            model: None,
            facts: NoticeFacts {
                kind: NoticeKind::Final,
                tasks: vec![SettledFact {
                    task: TaskId::new("bg_1"),
                    status: TaskStatus::Completed,
                    description: "d".into(),
                    duration: "2s".into(),
                    error: None,
                }],
                remaining: 0,
            }
            .into(),
        });
        let metadata = json!({"greenroom": {"id": "ntc_1", "kind": "final", "tasks": ["bg_1"]}});
        let part = json!({"type": "text", "text": "done", "synthetic": true, "metadata": metadata});
        assert_eq!(body, json!({"parts": [part], "noReply": true}));
    }

    #[test]
    fn repeated_notice_names_the_first() {
        let body = notice(&Notice {
            id: NoticeId::new("ntc_2"),
            text: "done".to_owned(),
            silent: false,
            agent: None,
            model: Some(model()),
            retry_of: Some(NoticeId::new("ntc_1")),
            facts: NoticeFacts {
                kind: NoticeKind::Final,
                tasks: Vec::new(),
                remaining: 0,
            }
            .into(),
        });
        let wanted =
            json!({"greenroom": {"id": "ntc_2", "kind": "final", "tasks": [], "retryOf": "ntc_1"}});
        assert_eq!(body["parts"][0]["metadata"], wanted);
    }

    #[test]
    fn default_model_is_read_from_the_configuration_or_the_providers() {
        let named = |provider: &str, model: &str| model_ref(provider, model);
        let configured = |model: Value| configured_model(&json!({"model": model}));
        assert_eq!(configured(json!("p/m")), named("p", "m"));
        assert_eq!(configured(json!("p/a/m")), named("p", "a/m"));
        for none in [json!("m"), json!("/m"), json!("p/"), json!(1), Value::Null] {
            assert_eq!(configured(none), None);
        }
        let defaults = |default: Value| provider_default(&json!({"default": default}));
        assert_eq!(defaults(json!({"p": 1, "q": "m"})), named("q", "m"));
        assert_eq!(defaults(json!({})), None);
        assert_eq!(defaults(json!([])), None);
    }

    #[test]
    fn revert_of_a_session_is_read() {
        let reverted = |revert: Value| session(&json!({"id": "ses_1", "revert": revert})).reverted;
        assert!(reverted(json!({"messageID": "msg_1"})));
        assert!(!reverted(Value::Null));
        assert!(!session(&json!({"id": "ses_1"})).reverted);
    }

    #[test]
    fn unknown_status_is_busy() {
        let answer = json!({"a": {"type": "busy"}, "b": {"type": "pondering"}, "c": {"type": "idle"},
            "d": {"type": "retry", "attempt": 3, "message": "429", "next": 1000}, "e": "idle"});
        let read = statuses(&answer).expect("a map is read");
        let of = |id: &str| read[&SessionId::from(id)].clone();
        assert_eq!(
            (of("a"), of("b")),
            (SessionStatus::Busy, SessionStatus::Busy)
        );
        assert_eq!(
            (of("c"), of("e")),
            (SessionStatus::Idle, SessionStatus::Idle)
        );
        assert!(matches!(
            of("d"),
            SessionStatus::Retry {
                attempt: Some(3),
                ..
            }
        ));
        assert_eq!(statuses(&json!([])), None);
    }

    #[test]
    fn missing_fields_of_sessions_and_todos_are_accepted() {
        let record =
            session(&json!({"id": "ses_1", "directory": "/d", "metadata": {"k": 1}, "new": []}));
        assert_eq!(record.id, Some(SessionId::new("ses_1")));
        assert_eq!(
            (record.parent, record.directory.as_deref()),
            (None, Some("/d"))
        );
        assert_eq!(session(&Value::Null), SessionRecord::default());
        let read = todos(&json!([{"content": "a", "status": "pending", "priority": "high"}, {}]))
            .expect("a list");
        assert_eq!(read.len(), 2);
        assert!(read[0].is_open());
        assert_eq!(todos(&json!({})), None);
    }
}

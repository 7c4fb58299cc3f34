//! The calls of the model and their outcomes. A call arrives, takes effect after a delay, and is answered
//! after another; it may fail at each of these points. A caller that gives up before the effect prevents it.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::correlation_tag::CorrelationTag;
use greenroom::domain::ids::{ModelRef, Run, SessionId, TaskId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use serde_json::json;
use tokio::time::sleep;

use super::session::Session;
use super::state::{AcceptedPrompt, ServerState};
use super::{Model, PROCESS};
use crate::explore::log::{Call, Fact, Log, LogEvent};

/// The outcome of a call. Recorded scenarios contain the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallOutcome {
    Succeeds = 0,
    Unreachable = 1,
    Refused = 2,
    CutBefore = 3,
    CutAfter = 4,
    Hangs = 5,
    HangsAfter = 6,
    /// Never drawn: the effect of a process that has ended on a status call.
    ProcessEnded = 7,
}

impl CallOutcome {
    const ALL: [CallOutcome; 7] = [
        CallOutcome::Succeeds,
        CallOutcome::Unreachable,
        CallOutcome::Refused,
        CallOutcome::CutBefore,
        CallOutcome::CutAfter,
        CallOutcome::Hangs,
        CallOutcome::HangsAfter,
    ];
}

/// The time in milliseconds after which a process that has ended certainly does not come back.
const END_CERTAIN_AFTER: i64 = 5000;

/// A call that has arrived, with its decided outcome.
struct ReceivedCall {
    outcome: CallOutcome,
    latency_ms: u64,
    epoch: u32,
}

/// A call that is not answered yet. Its end is logged on drop, so a cancelled call is logged as well.
struct OpenCall {
    log: Log,
    number: u64,
    answer: String,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.log.push(LogEvent::CallReturned {
            number: self.number,
            answer: std::mem::take(&mut self.answer),
        });
    }
}

fn connection_cut() -> ServerError {
    ServerError::OutcomeUnknown("the connection was cut".to_owned())
}

impl Model {
    fn arrive(&self, kind: &str, subject: &str) -> ReceivedCall {
        let mut state = self.state();
        let name = format!("call {kind} {subject}");
        let nth = state.count(&name);
        let odds = state.odds.clone();
        let outcome = state.rng.decide(format!("{name} {nth} outcome"), 0, |rng| {
            let failure_weights = [
                odds.call_unreachable,
                odds.call_refused,
                odds.call_cut_before,
                odds.call_cut_after,
                odds.call_hangs,
                odds.call_hangs_after,
            ];
            let success_weight = 1000_u32.saturating_sub(failure_weights.iter().sum());
            let mut weights = vec![success_weight];
            weights.extend(failure_weights);
            i64::try_from(rng.weighted_index(&weights)).unwrap_or(0)
        });
        let latency_ms = state.rng.decide(format!("{name} {nth} takes"), 1, |rng| {
            if rng.chance(odds.call_slow) {
                rng.between(1, odds.call_slow_ms)
            } else {
                1
            }
        });
        let outcome = usize::try_from(outcome)
            .ok()
            .and_then(|outcome| CallOutcome::ALL.get(outcome))
            .copied()
            .unwrap_or(CallOutcome::Succeeds);
        ReceivedCall {
            outcome: match state.process_ended {
                _ if state.online => outcome,
                Some(ended) if kind == "status" && state.now() - ended >= END_CERTAIN_AFTER => {
                    CallOutcome::ProcessEnded
                }
                _ => CallOutcome::Unreachable,
            },
            latency_ms: u64::try_from(latency_ms).unwrap_or(0),
            epoch: state.epoch,
        }
    }

    async fn call<T>(
        &self,
        kind: &str,
        subject: &str,
        call: Call,
        effect: impl FnOnce(&mut ServerState) -> Result<T, ServerError> + Send,
    ) -> Result<T, ServerError> {
        let mut open_call = OpenCall {
            log: self.log.clone(),
            number: self.log.call(call),
            answer: "given up".to_owned(),
        };
        let target = self.task_of_call(open_call.number);
        let name = format!("call {kind} {subject}");
        let answer = self
            .execute(open_call.number, self.arrive(kind, subject), effect)
            .await;
        if let Some((task, session)) = target {
            for _ in 0..self.inject_race(&name, &task, session) {
                tokio::task::yield_now().await;
            }
        }
        open_call.answer = match &answer {
            Ok(_) => "ok".to_owned(),
            Err(failure) => failure.to_string(),
        };
        answer
    }

    async fn execute<T>(
        &self,
        number: u64,
        arrived: ReceivedCall,
        effect: impl FnOnce(&mut ServerState) -> Result<T, ServerError> + Send,
    ) -> Result<T, ServerError> {
        sleep(Duration::from_millis(arrived.latency_ms)).await;
        match arrived.outcome {
            CallOutcome::Unreachable => {
                return Err(ServerError::Unreachable("connection refused".to_owned()));
            }
            CallOutcome::ProcessEnded => {
                return Err(ServerError::ProcessEnded("connection refused".to_owned()));
            }
            CallOutcome::Refused => {
                return Err(ServerError::Refused {
                    status: Some(500),
                    message: "the server refused the call".to_owned(),
                });
            }
            CallOutcome::CutBefore => return Err(connection_cut()),
            CallOutcome::Hangs => return pending().await,
            _ => {}
        }
        let value = {
            let mut state = self.state();
            if state.epoch != arrived.epoch {
                return Err(connection_cut());
            }
            state.answers_call = arrived.outcome == CallOutcome::Succeeds;
            let value = effect(&mut state);
            if value.is_ok() {
                self.log.push(LogEvent::CallApplied(number));
            }
            value
        };
        match arrived.outcome {
            CallOutcome::CutAfter => Err(connection_cut()),
            CallOutcome::HangsAfter => pending().await,
            _ => {
                sleep(Duration::from_millis(1)).await;
                value
            }
        }
    }
}

fn existing<'a>(state: &'a ServerState, id: &SessionId) -> Result<&'a Session, ServerError> {
    state
        .sessions
        .get(id)
        .filter(|session| !session.deleted)
        .ok_or_else(|| ServerError::NotFound(format!("Session not found: {id}")))
}

/// Returns task, run and prompt number of a correlation tag. The number includes the attempt: each attempt counts its
/// prompts from 1.
fn correlation(tag: &CorrelationTag) -> (TaskId, Run, u64) {
    let number = u64::from(tag.prompt.unwrap_or_default());
    let attempt = u64::from(tag.attempt.saturating_sub(1));
    (tag.task.clone(), tag.run, attempt << 32 | number)
}

fn model_name(model: &ModelRef) -> String {
    format!("{}/{}", model.provider_id, model.model_id)
}

/// Returns the alias of a task: its description, which is the first word of the title. The session is named
/// after it.
fn alias(title: &str) -> &str {
    title.split(' ').next().unwrap_or(title)
}

#[async_trait]
impl AgentServer for Model {
    fn process_of(&self, _: &SessionId) -> Option<u32> {
        Some(PROCESS)
    }

    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let id = session.clone();
        self.call(
            "get",
            session.as_str(),
            Call::Get(id.clone()),
            move |state| Ok(existing(state, &id)?.record(&id)),
        )
        .await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let (task, run, _) = correlation(&session.tag);
        let alias = alias(&session.title).to_owned();
        let call = Call::Create {
            task,
            run,
            parent: session.parent.clone(),
        };
        self.call("create", &alias.clone(), call, move |state| {
            let nth = state.count(&format!("made {alias}"));
            let id = SessionId::new(if nth == 1 {
                format!("ses_{alias}")
            } else {
                format!("ses_{alias}_{nth}")
            });
            let made = Session {
                model: session.model.as_deref().map(model_name).unwrap_or_default(),
                parent: session.parent,
                directory: session.directory.to_string(),
                metadata: Some(session.tag.metadata()),
                agent: session.agent.to_string(),
                ..Session::default()
            };
            state.sessions.insert(id.clone(), made);
            state.record_fact(&id, Fact::Created);
            state.emit(&id, "session.created", json!({"info": {"id": id}}));
            Ok(id)
        })
        .await
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let id = session.clone();
        let (task, run, number) = correlation(&prompt.tag);
        let call = Call::Prompt {
            session: id.clone(),
            task,
            run,
            prompt: number,
        };
        self.call("prompt", session.as_str(), call, move |state| {
            existing(state, &id)?;
            state.accept_prompt(AcceptedPrompt {
                session: id,
                agent: Some(prompt.agent.to_string()),
                model: prompt.model.as_deref().map(model_name),
                metadata: Some(prompt.tag.metadata()),
                replies: true,
                notice: None,
            });
            Ok(())
        })
        .await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let id = parent.clone();
        let call = Call::Notify {
            parent: id.clone(),
            notice: Box::new(notice.clone()),
        };
        self.call("notify", parent.as_str(), call, move |state| {
            existing(state, &id)?;
            state.accept_notice(AcceptedPrompt {
                session: id,
                agent: notice.agent,
                model: notice.model.as_ref().map(model_name),
                metadata: Some(json!({"greenroom": {"id": notice.id}})),
                replies: !notice.silent,
                notice: Some(notice.id),
            });
            Ok(())
        })
        .await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let id = session.clone();
        self.call(
            "abort",
            session.as_str(),
            Call::Abort(id.clone()),
            move |state| {
                state.abort(&id, false);
                Ok(())
            },
        )
        .await
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let directory = directory.to_owned();
        self.call("status", "all", Call::Statuses, move |state| {
            let working = state
                .sessions
                .iter()
                .filter(|(_, session)| session.directory == directory);
            Ok(working
                .filter_map(|(id, session)| Some((id.clone(), session.status()?)))
                .collect())
        })
        .await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let id = session.clone();
        self.call(
            "messages",
            session.as_str(),
            Call::Messages(id.clone()),
            move |state| Ok(existing(state, &id)?.newest(limit)),
        )
        .await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let id = session.clone();
        self.call(
            "todo",
            session.as_str(),
            Call::Todos(id.clone()),
            move |state| Ok(existing(state, &id)?.todos()),
        )
        .await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let (above, directory) = (parent.cloned(), directory.to_owned());
        let name = parent.map_or("all", SessionId::as_str);
        self.call("below", name, Call::Below(above.clone()), move |state| {
            if let Some(above) = &above {
                existing(state, above)?;
            }
            let found = state.sessions.iter().filter(|(_, session)| {
                !session.deleted
                    && match &above {
                        Some(above) => session.parent.as_ref() == Some(above),
                        None => session.directory == directory,
                    }
            });
            Ok(found.map(|(id, session)| session.record(id)).collect())
        })
        .await
    }

    async fn reject_ask(
        &self,
        session: &SessionId,
        _: &str,
        _: AskKind,
    ) -> Result<(), ServerError> {
        let id = session.clone();
        self.call(
            "reject",
            session.as_str(),
            Call::Reject(id.clone()),
            move |state| {
                if state.answer_ask(&id) {
                    Ok(())
                } else {
                    Err(ServerError::NotFound("no such request".to_owned()))
                }
            },
        )
        .await
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        _: &AskAnswer,
    ) -> Result<(), ServerError> {
        // The session continues with any answer.
        self.reject_ask(session, ask, kind).await
    }

    async fn toast(&self, _: Toast) -> Result<(), ServerError> {
        Ok(())
    }

    async fn default_model(&self, directory: &str) -> Result<Option<ModelRef>, ServerError> {
        self.call("config", directory, Call::DefaultModel, |state| {
            let model = ["small", "tiny", "big"]
                .into_iter()
                .find(|model| !state.lost_models.contains_key(&format!("acme/{model}")));
            Ok(model.map(|model| ModelRef {
                provider_id: "acme".to_owned(),
                model_id: model.to_owned(),
                variant: None,
            }))
        })
        .await
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.call("health", "all", Call::Health, |_| Ok(())).await
    }
}

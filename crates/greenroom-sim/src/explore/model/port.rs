//! The calls of the model, and how they go wrong. A call arrives, has its effect some time later, and is answered some time
//! after that; at each of these moments it may be cut. A caller that gives up before the effect prevents it.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::mark::Mark;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use serde_json::json;
use tokio::time::sleep;

use super::Model;
use super::call_outcome::Fate;
use super::session::Session;
use super::state::World;
use crate::explore::log::{Call, Fact, Log, What};

/// A call that has arrived.
struct Arrived {
    fate: Fate,
    before: u64,
    epoch: u32,
}

/// A call that is not answered yet. When it is over, or its caller has given it up, that is written down.
struct Open {
    log: Log,
    number: u64,
    answer: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.push(What::Returned {
            number: self.number,
            answer: std::mem::take(&mut self.answer),
        });
    }
}

fn cut() -> ServerError {
    ServerError::FateUnknown("the connection was cut".to_owned())
}

impl Model {
    fn arrive(&self, kind: &str, about: &str) -> Arrived {
        let mut world = self.world();
        let name = format!("call {kind} {about}");
        let nth = world.count(&name);
        let odds = world.odds.clone();
        let fate = world
            .dice
            .decide(format!("{name} {nth} fate"), 0, |source| {
                let wrong = [
                    odds.call_unreachable,
                    odds.call_refused,
                    odds.call_cut_before,
                    odds.call_cut_after,
                    odds.call_hangs,
                    odds.call_hangs_after,
                ];
                let fine = 1000_u32.saturating_sub(wrong.iter().sum());
                let mut weights = vec![fine];
                weights.extend(wrong);
                i64::try_from(source.weighed(&weights)).unwrap_or(0)
            });
        let before = world
            .dice
            .decide(format!("{name} {nth} takes"), 1, |source| {
                if source.chance(odds.call_slow) {
                    source.between(1, odds.call_slow_ms)
                } else {
                    1
                }
            });
        let fate = usize::try_from(fate)
            .ok()
            .and_then(|fate| Fate::ALL.get(fate))
            .copied()
            .unwrap_or(Fate::Fine);
        Arrived {
            fate: if world.online {
                fate
            } else {
                Fate::Unreachable
            },
            before: u64::try_from(before).unwrap_or(0),
            epoch: world.epoch,
        }
    }

    async fn call<T>(
        &self,
        kind: &str,
        about: &str,
        call: Call,
        effect: impl FnOnce(&mut World) -> Result<T, ServerError> + Send,
    ) -> Result<T, ServerError> {
        let mut open = Open {
            log: self.log.clone(),
            number: self.log.call(call),
            answer: "given up".to_owned(),
        };
        let concerned = self.concerned(open.number);
        let name = format!("call {kind} {about}");
        let answer = self.go(open.number, self.arrive(kind, about), effect).await;
        if let Some((task, session)) = concerned {
            for _ in 0..self.ambush(&name, &task, session) {
                tokio::task::yield_now().await;
            }
        }
        open.answer = match &answer {
            Ok(_) => "ok".to_owned(),
            Err(failure) => failure.to_string(),
        };
        answer
    }

    async fn go<T>(
        &self,
        number: u64,
        arrived: Arrived,
        effect: impl FnOnce(&mut World) -> Result<T, ServerError> + Send,
    ) -> Result<T, ServerError> {
        sleep(Duration::from_millis(arrived.before)).await;
        match arrived.fate {
            Fate::Unreachable => {
                return Err(ServerError::Unreachable("connection refused".to_owned()));
            }
            Fate::Refused => {
                return Err(ServerError::Refused {
                    status: Some(500),
                    message: "the server said no".to_owned(),
                });
            }
            Fate::CutBefore => return Err(cut()),
            Fate::Hangs => return pending().await,
            _ => {}
        }
        let value = {
            let mut world = self.world();
            if world.epoch != arrived.epoch {
                return Err(cut());
            }
            let value = effect(&mut world);
            if value.is_ok() {
                self.log.push(What::Effect(number));
            }
            value
        };
        match arrived.fate {
            Fate::CutAfter => Err(cut()),
            Fate::HangsAfter => pending().await,
            _ => {
                sleep(Duration::from_millis(1)).await;
                value
            }
        }
    }
}

fn there<'a>(world: &'a World, id: &SessionId) -> Result<&'a Session, ServerError> {
    world
        .sessions
        .get(id)
        .filter(|session| !session.deleted)
        .ok_or_else(|| ServerError::NotFound(format!("Session not found: {id}")))
}

/// Task, run and number of the prompt of what Greenroom attaches.
fn about(mark: &Mark) -> (TaskId, Run, u64) {
    let number = mark.prompt.unwrap_or_default();
    (mark.task.clone(), mark.run, u64::from(number))
}

/// The alias of a task, by which its session is named: its description, which stands first in the title.
fn alias(title: &str) -> &str {
    title.split(' ').next().unwrap_or(title)
}

#[async_trait]
impl AgentServer for Model {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let id = session.clone();
        self.call(
            "get",
            session.as_str(),
            Call::Get(id.clone()),
            move |world| Ok(there(world, &id)?.record(&id)),
        )
        .await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let (task, run, _) = about(&session.mark);
        let alias = alias(&session.title).to_owned();
        let call = Call::Create {
            task,
            run,
            parent: session.parent.clone(),
        };
        self.call("create", &alias.clone(), call, move |world| {
            let nth = world.count(&format!("made {alias}"));
            let id = SessionId::new(if nth == 1 {
                format!("ses_{alias}")
            } else {
                format!("ses_{alias}_{nth}")
            });
            let made = Session {
                parent: session.parent,
                directory: session.directory.to_string(),
                metadata: Some(session.mark.metadata()),
                agent: session.agent.to_string(),
                ..Session::default()
            };
            world.sessions.insert(id.clone(), made);
            world.truth(&id, Fact::Made);
            world.emit(&id, "session.created", json!({"info": {"id": id}}));
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
        let (task, run, number) = about(&prompt.mark);
        let call = Call::Prompt {
            session: id.clone(),
            task,
            run,
            prompt: number,
        };
        self.call("prompt", session.as_str(), call, move |world| {
            there(world, &id)?;
            world.take_prompt(&id, Some(&prompt.agent), Some(prompt.mark.metadata()), true);
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
        self.call("notify", parent.as_str(), call, move |world| {
            there(world, &id)?;
            let metadata = json!({"greenroom": {"id": notice.id}});
            world.take_prompt(&id, notice.agent.as_deref(), Some(metadata), !notice.silent);
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
            move |world| {
                world.abort(&id, false);
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
        self.call("status", "all", Call::Statuses, move |world| {
            let working = world
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
            move |world| Ok(there(world, &id)?.newest(limit)),
        )
        .await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let id = session.clone();
        self.call(
            "todo",
            session.as_str(),
            Call::Todos(id.clone()),
            move |world| Ok(there(world, &id)?.todos()),
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
        self.call("below", name, Call::Below(above.clone()), move |world| {
            if let Some(above) = &above {
                there(world, above)?;
            }
            let found = world.sessions.iter().filter(|(_, session)| {
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
            move |world| match world.answered(&id) {
                true => Ok(()),
                false => Err(ServerError::NotFound("no such request".to_owned())),
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
        // Whatever the answer is, the session goes on.
        self.reject_ask(session, ask, kind).await
    }

    async fn toast(&self, _: Toast) -> Result<(), ServerError> {
        Ok(())
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.call("health", "all", Call::Health, |_| Ok(())).await
    }
}

//! Reads of the agent server for the start of a run: the lineage of the parent, and the lookup of sessions and prompts whose
//! call has an unknown outcome. Used by the task actor; every call has a time limit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::actors::actor_ref::ActorRef;
use crate::actors::env::{Env, find_message, within};
use crate::actors::registry::{DepthOf, TaskRegistry};
use crate::domain::correlation_tag::CorrelationTag;
use crate::domain::foreign_text::one_line;
use crate::domain::ids::SessionId;
use crate::domain::task::Task;
use crate::domain::transcript::Message;
use crate::ports::agent_server::{NewSession, ServerError};

/// The sessions above a task, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lineage {
    /// The depth of the task; 1 below a session without a parent, and if the lineage could not be read.
    pub(crate) depth: u32,
    /// The directory of the parent.
    pub(crate) directory: Option<Arc<str>>,
    /// The session at the top, if the whole lineage was read.
    pub(crate) root: Option<SessionId>,
}

impl Lineage {
    /// Returns the lineage that is used if none could be read.
    pub(crate) fn unknown() -> Self {
        Self {
            depth: 1,
            ..Self::default()
        }
    }
}

/// Reads the lineage of a parent that is not the session of a task, within one time limit. A lineage that cannot be read
/// counts as depth 1.
///
/// # Errors
///
/// `Unreachable` if the server cannot be reached.
pub(crate) async fn read_lineage(
    env: &Env,
    registry: &ActorRef<TaskRegistry>,
    parent: &SessionId,
) -> Result<Lineage, ServerError> {
    let mut lineage = Lineage::unknown();
    let max_depth = env.config.safety.max_depth;
    let walk = async {
        let mut current = parent.clone();
        let mut seen = BTreeSet::from([current.clone()]);
        let mut above = 0;
        loop {
            let record = env.server.session(&current).await?;
            if current == *parent {
                lineage.directory = record.directory.clone();
            }
            let Some(up) = record.parent.filter(|up| seen.insert(up.clone())) else {
                break;
            };
            above += 1;
            if let Some((depth, root)) = depth_of(registry, &up).await {
                lineage.root = root;
                return Ok(depth + 1 + above);
            }
            if above > max_depth {
                return Ok(1 + above);
            }
            current = up;
        }
        lineage.root = Some(current);
        Ok(1 + above)
    };
    match within(env.config.calls.other, walk).await {
        Ok(depth) => lineage.depth = depth,
        Err(failure @ ServerError::Unreachable(_)) => return Err(failure),
        Err(failure) => {
            tracing::debug!(parent = %parent, %failure, "reading the lineage failed")
        }
    }
    Ok(lineage)
}

async fn depth_of(
    registry: &ActorRef<TaskRegistry>,
    session: &SessionId,
) -> Option<(u32, Option<SessionId>)> {
    let (reply, answer) = oneshot::channel();
    registry.send(DepthOf {
        session: session.clone(),
        reply,
    });
    answer.await.ok().flatten()
}

/// Returns the request for the session of a run.
pub(crate) fn new_session(
    env: &Env,
    task: &Task,
    depth: u32,
    directory: Arc<str>,
    attempt: u32,
) -> NewSession {
    let rules = env
        .config
        .agents
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&task.agent))
        .map_or_else(
            || crate::domain::restrictions::AgentRules::built_in(&task.agent),
            |(_, rules)| rules.clone(),
        );
    let at_max_depth = depth >= env.config.safety.max_depth;
    NewSession {
        task: task.id.clone(),
        title: format!(
            "{} (@{} subagent)",
            one_line(&task.description),
            one_line(&task.agent)
        ),
        parent: task.parent_session.clone(),
        directory,
        agent: task.agent.clone(),
        model: task.model.clone(),
        permission: crate::domain::restrictions::rules(&task.permission, &rules, at_max_depth),
        tag: task.session_tag(attempt),
    }
}

/// The sessions among which a created session is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SearchScope {
    /// The parent of the sessions; none for all sessions.
    pub(super) parent: Option<SessionId>,
    pub(super) directory: Arc<str>,
}

/// Returns the scopes in which an earlier actor may have created the session of a task: the task may have another parent
/// since.
pub(crate) fn earlier_scopes(env: &Env, task: &Task, directory: &Arc<str>) -> Vec<SearchScope> {
    let parents = task.former_parents.iter().cloned();
    let own = task.directory.as_ref().unwrap_or(&env.config.directory);
    parents
        .map(|parent| SearchScope {
            parent: Some(parent),
            directory: Arc::clone(directory),
        })
        .chain([SearchScope {
            parent: None,
            directory: own.clone(),
        }])
        .collect()
}

/// Looks up the session that a create with unknown outcome may have made, by its metadata: in the scope of the request, then
/// in the `others`.
///
/// # Errors
///
/// `NotFound` if the parent does not exist and there is no session of that task.
pub(crate) async fn find_created(
    env: &Env,
    session: &NewSession,
    others: Vec<SearchScope>,
) -> Result<Option<SessionId>, ServerError> {
    let here = SearchScope {
        parent: session.parent.clone(),
        directory: session.directory.clone(),
    };
    let mut scopes = VecDeque::from([here]);
    for scope in others {
        if !scopes.contains(&scope) {
            scopes.push_back(scope);
        }
    }
    let mut gone = None;
    while let Some(SearchScope { parent, directory }) = scopes.pop_front() {
        let below = env.server.sessions_below(parent.as_ref(), &directory);
        let sessions = match within(env.config.calls.other, below).await {
            // The sessions below a deleted parent are deleted too. A session created later has no parent: it is among all
            // sessions.
            Err(missing @ ServerError::NotFound(_)) => {
                if parent == session.parent {
                    gone = Some(missing);
                }
                let all = SearchScope {
                    parent: None,
                    directory,
                };
                if parent.is_some() && !scopes.contains(&all) {
                    scopes.push_back(all);
                }
                continue;
            }
            answer => answer?,
        };
        let found = sessions.into_iter().find(|record| {
            let metadata = record.metadata.as_ref();
            metadata.is_some_and(|metadata| session.tag.is_in(metadata))
        });
        if let Some(id) = found.and_then(|record| record.id) {
            return Ok(Some(id));
        }
    }
    gone.map_or(Ok(None), Err)
}

/// Returns true if a prompt with unknown outcome has reached its session: its part has the metadata of the request.
pub(crate) async fn prompt_arrived(
    env: &Env,
    session: &SessionId,
    tag: &CorrelationTag,
) -> Result<bool, ServerError> {
    let has_tag = |message: &Message| {
        let mut found = message
            .parts
            .iter()
            .filter_map(|part| part.metadata.as_ref());
        found.any(|found| tag.is_in(found))
    };
    let look = |messages: &[Message]| messages.iter().any(has_tag).then_some(());
    Ok(find_message(env, session, 20, look).await?.is_some())
}

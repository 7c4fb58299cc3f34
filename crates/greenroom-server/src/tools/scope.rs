//! The scope of a caller: a session reaches only the tasks of its own tree; a caller without a session reaches all
//! tasks, as over the HTTP API. A session also reads the tasks that its history names, as the history of a fork does.

use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::Task;
use greenroom::{Greenroom, TaskDetail};

/// Maximum number of ancestors that are checked. Adopted sessions may form a cycle.
const MAX_DEPTH: usize = 64;

/// The tasks that a caller may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every task.
    All,
    /// The tasks below a session.
    Below(SessionId),
}

/// Number of newest messages of the caller that are searched for a task.
const MAX_MESSAGES: usize = 500;

/// Returns true if the session's messages before `calling` contain a notice or a tool result that names the task.
async fn is_in_history(
    greenroom: &Greenroom,
    session: &SessionId,
    calling: Option<&MessageId>,
    task: &Task,
) -> bool {
    let Ok(messages) = greenroom.session_messages(session, MAX_MESSAGES).await else {
        return false;
    };
    let before = messages
        .iter()
        .take_while(|message| calling.is_none() || message.id.as_ref() != calling);
    before
        .flat_map(|message| &message.parts)
        .any(|part| part.names_task(&task.id, task.session.as_ref()))
}

impl Scope {
    /// Returns the scope of a caller; all tasks without a session.
    pub fn for_caller(session: Option<&SessionId>) -> Self {
        session.map_or(Self::All, |session| Self::Below(session.clone()))
    }

    /// Returns the task with this id, unique id prefix or session if it is in scope.
    pub async fn find(&self, greenroom: &Greenroom, name: &str) -> Option<TaskDetail> {
        let found = greenroom.find(name).await?;
        self.contains(greenroom, &found.task).await.then_some(found)
    }

    /// Returns a task that the caller may read: one in scope, one that the caller launched before another session took it
    /// over, or one that the caller's history names from before the message `calling`. A fork has the history of its origin.
    pub async fn find_readable(
        &self,
        greenroom: &Greenroom,
        name: &str,
        calling: Option<&MessageId>,
    ) -> Option<TaskDetail> {
        let found = greenroom.find(name).await?;
        let is_readable = match self {
            Self::All => true,
            Self::Below(session) => {
                found.task.former_parents.contains(session)
                    || self.contains(greenroom, &found.task).await
                    || is_in_history(greenroom, session, calling, &found.task).await
            }
        };
        is_readable.then_some(found)
    }

    /// Returns true if the task is in scope.
    async fn contains(&self, greenroom: &Greenroom, task: &Task) -> bool {
        let Self::Below(session) = self else {
            return true;
        };
        let mut task = task.clone();
        for _ in 0..MAX_DEPTH {
            let Some(parent) = task.parent_session.take() else {
                return false;
            };
            if parent == *session {
                return true;
            }
            match greenroom.find(parent.as_str()).await {
                Some(above) if above.task.session.as_ref() == Some(&parent) => task = above.task,
                // A session in between may have no task; the root session is known anyway. The root of a task further down
                // may be the root of a former parent.
                _ => return task.root_session.as_ref() == Some(session),
            }
        }
        false
    }
}

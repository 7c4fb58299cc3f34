//! The scope of a caller: a session reaches only the tasks of its own tree; a caller without a session reaches all
//! tasks, as over the HTTP API.

use greenroom::domain::ids::SessionId;
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

    /// Returns a task that the caller may read: one in scope, or one that the caller launched before another session
    /// took it over.
    pub async fn find_readable(&self, greenroom: &Greenroom, name: &str) -> Option<TaskDetail> {
        let found = greenroom.find(name).await?;
        let is_former_parent = match self {
            Self::All => true,
            Self::Below(session) => found.task.former_parents.contains(session),
        };
        (is_former_parent || self.contains(greenroom, &found.task).await).then_some(found)
    }

    /// Returns true if the task is in scope.
    async fn contains(&self, greenroom: &Greenroom, task: &Task) -> bool {
        let Self::Below(session) = self else {
            return true;
        };
        let mut task = task.clone();
        for _ in 0..MAX_DEPTH {
            // A session in between may have no task; the root session is known anyway.
            if [&task.parent_session, &task.root_session].contains(&&Some(session.clone())) {
                return true;
            }
            let Some(parent) = task.parent_session.take() else {
                return false;
            };
            match greenroom.find(parent.as_str()).await {
                Some(above) if above.task.session.as_ref() == Some(&parent) => task = above.task,
                _ => return false,
            }
        }
        false
    }
}

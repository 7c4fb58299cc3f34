//! What a caller may reach: a session only the tasks of its own tree, a host that names no session all of them, like the
//! HTTP API.

use greenroom::domain::ids::SessionId;
use greenroom::domain::task::Task;
use greenroom::{Greenroom, TaskDetail};

/// How far up a lineage is followed. Launches end long before; what is adopted could stand in a circle.
const HIGHEST: usize = 64;

/// What a caller may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every task.
    All,
    /// The tasks below that session.
    Below(SessionId),
}

impl Reach {
    /// That of a caller; of one that names no session it is everything.
    pub fn of(session: Option<&SessionId>) -> Self {
        session.map_or(Self::All, |session| Self::Below(session.clone()))
    }

    /// The task of that id, unique beginning of an id or session, if it is within reach.
    pub async fn find(&self, greenroom: &Greenroom, name: &str) -> Option<TaskDetail> {
        let found = greenroom.find(name).await?;
        self.covers(greenroom, &found.task).await.then_some(found)
    }

    /// The same for readers: who launched a task can still read it after somebody else has taken it over.
    pub async fn find_to_read(&self, greenroom: &Greenroom, name: &str) -> Option<TaskDetail> {
        let found = greenroom.find(name).await?;
        let was_theirs = match self {
            Self::All => true,
            Self::Below(session) => found.task.former_parents.contains(session),
        };
        (was_theirs || self.covers(greenroom, &found.task).await).then_some(found)
    }

    /// True if the task is below the caller.
    async fn covers(&self, greenroom: &Greenroom, task: &Task) -> bool {
        let Self::Below(session) = self else {
            return true;
        };
        let mut task = task.clone();
        for _ in 0..HIGHEST {
            // The sessions in between may be nobody's task; the topmost is known all the same.
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

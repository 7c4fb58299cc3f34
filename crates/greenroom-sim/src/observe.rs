//! Reads the state of the system between steps: observations and queries. The driver runs these as tasks of
//! their own and settles, so a system that does not answer leaves a gap in the trace and does not block the
//! story.

use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{Task, TaskStatus};
use greenroom::{Greenroom, ListFilter};
use serde_json::{Value, json};

use crate::names::Names;
use crate::story::QueryKind;
use crate::trace::{HistoryRow, Observation, SlotRow, TaskRow};

/// The size of a page of tasks.
const PAGE: usize = 1000;

/// Returns tasks, slots, open tasks by parent, and the history of the parents named so far.
pub async fn observe(greenroom: Greenroom, names: Names, parents: Vec<SessionId>) -> Observation {
    let mut seen = Observation::default();
    for task in accepted(&greenroom, ListFilter::default()).await {
        let alias = names.alias(task.id.as_str());
        if let (false, Some(parent)) = (task.status().is_terminal(), &task.parent_session) {
            seen.pending_by_parent
                .entry(names.alias(parent.as_str()))
                .or_default()
                .push(alias.clone());
        }
        seen.timers.polling |= task.status() == TaskStatus::Running;
        seen.tasks.insert(alias, task_row(&task, &names));
    }
    for key in greenroom.limits().await.keys {
        if key.limit > 0 && key.in_use > 0 {
            seen.slots
                .insert(key.key.to_string(), SlotRow { in_use: key.in_use });
        }
    }
    for parent in parents {
        let rows = greenroom
            .history(&parent)
            .await
            .into_iter()
            .map(|entry| HistoryRow {
                task: names.alias(entry.task.as_str()),
                agent: entry.agent.to_string(),
                category: entry.category.as_deref().map(str::to_owned),
                status: entry.status,
                session: entry.session.map(|session| names.alias(session.as_str())),
            });
        let rows: Vec<HistoryRow> = rows.collect();
        if !rows.is_empty() {
            // A parent that was named before its session was created has the same alias as the session.
            seen.history
                .entry(names.alias(parent.as_str()))
                .or_default()
                .extend(rows);
        }
    }
    seen
}

/// Runs a query and returns the aliases of the tasks.
pub async fn query(
    greenroom: Greenroom,
    names: Names,
    what: QueryKind,
    session: SessionId,
) -> Value {
    let of = |statuses: &[TaskStatus]| ListFilter {
        statuses: statuses.to_vec(),
        ..ListFilter::default()
    };
    let tasks = match what {
        QueryKind::Children => greenroom.tasks_of(&session, false).await,
        QueryKind::Descendants => greenroom.tasks_of(&session, true).await,
        QueryKind::Running => accepted(&greenroom, of(&[TaskStatus::Running])).await,
        QueryKind::NotRunning => {
            let others: Vec<TaskStatus> = TaskStatus::ALL
                .into_iter()
                .filter(|status| *status != TaskStatus::Running)
                .collect();
            accepted(&greenroom, of(&others)).await
        }
        QueryKind::BySession => {
            // The list holds only tasks in memory; a lookup by name would also search the journal.
            let all = accepted(&greenroom, ListFilter::default()).await;
            let found = all
                .into_iter()
                .rev()
                .find(|task| task.session.as_ref() == Some(&session));
            return found.map_or(Value::Null, |task| json!(names.alias(task.id.as_str())));
        }
    };
    tasks
        .iter()
        .map(|task| Value::from(names.alias(task.id.as_str())))
        .collect()
}

/// Returns all tasks of a filter, in order of acceptance.
async fn accepted(greenroom: &Greenroom, filter: ListFilter) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut cursor = None;
    loop {
        let page = greenroom
            .list(ListFilter {
                limit: Some(PAGE),
                cursor,
                ..filter.clone()
            })
            .await;
        tasks.extend(page.tasks);
        cursor = page.next_cursor;
        if cursor.is_none() {
            tasks.reverse();
            return tasks;
        }
    }
}

fn task_row(task: &Task, names: &Names) -> TaskRow {
    TaskRow {
        status: task.status(),
        error: task.error().map(str::to_owned),
        note: task.note().map(str::to_owned),
        session: task
            .session
            .as_ref()
            .map(|session| names.alias(session.as_str())),
        parent: task
            .parent_session
            .as_ref()
            .map(|parent| names.alias(parent.as_str())),
        queued_at: task.queued_at.as_millis(),
        started_at: task.started_at().map(|at| at.as_millis()),
        completed_at: task.completed_at().map(|at| at.as_millis()),
        tool_calls: task.progress.tool_calls,
        last_tool: task.progress.last_tool.clone(),
    }
}

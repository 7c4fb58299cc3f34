//! Checks an idle system through its handle: no slot in use, no waiting task, no task in memory after its
//! retention, no timer that still calls the server. Records and histories must equal the published changes
//! (promises 2, 5 and 6).

use std::sync::Weak;
use std::time::Duration;

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::AgentServer;
use greenroom::{Greenroom, ListFilter, ResourceCounts, ShutdownMode};
use tokio::task::JoinHandle;

use super::log::Log;
use super::observed::ObservedState;
use crate::quiescence::Quiescence;

/// Checks the system after all runs have ended.
pub async fn check_idle(greenroom: &Greenroom, log: &Log, quiescence: &Quiescence, closed: bool) {
    let query = actix_rt::spawn(check_state(greenroom.clone(), log.clone(), closed));
    quiescence.settle().await;
    if !query.is_finished() {
        return log.record_violation(
            "1 Ends",
            "a query to the system was not answered".to_owned(),
        );
    }
    if closed || log.violation().is_some() {
        return;
    }
    let keep = log.read(|observed| observed.config.lifecycle.keep_ended);
    // The turns of the last messages end meanwhile, and are continued if they were cut off.
    tokio::time::sleep(keep + Duration::from_secs(600)).await;
    quiescence.settle().await;
    let (before, _) = log.calls();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    quiescence.settle().await;
    let (calls, last) = log.calls();
    if calls > before {
        return log.record_violation(
            "2 Slots (rest)",
            format!("no run is open and no message pending, but a call was made: {last}"),
        );
    }
    let query = actix_rt::spawn(check_memory(greenroom.clone(), log.clone()));
    quiescence.settle().await;
    if !query.is_finished() {
        log.record_violation(
            "1 Ends",
            "a query to the system was not answered".to_owned(),
        );
    }
}

/// Shuts the system down, drops it, and checks that no actor, timer or call is left.
pub async fn check_after_shutdown(
    greenroom: Greenroom,
    log: &Log,
    quiescence: &Quiescence,
    pump: JoinHandle<()>,
    server: &Weak<dyn AgentServer>,
) {
    let shutdown = actix_rt::spawn(async move {
        greenroom.shutdown(ShutdownMode::Abort).await;
    });
    // A late answer may be awaited for ten minutes, and a cancelled timer may live until its deadline: half
    // an hour for a waiting task.
    tokio::time::sleep(Duration::from_secs(4000)).await;
    quiescence.settle().await;
    if !shutdown.is_finished() {
        return log.record_violation("2 Slots (memory)", "the shutdown does not end".to_owned());
    }
    pump.abort();
    quiescence.settle().await;
    if server.strong_count() > 0 {
        log.record_violation(
            "2 Slots (memory)",
            format!(
                "the system was shut down and dropped, but {} references to its server are left",
                server.strong_count()
            ),
        );
    }
}

async fn check_state(greenroom: Greenroom, log: Log, closed: bool) {
    if log.read(ObservedState::registry_down_at_shutdown) {
        return;
    }
    let limits = greenroom.limits().await;
    let waiting: usize = limits.keys.iter().map(|key| key.waiting).sum();
    if limits.in_use > 0 || waiting > 0 {
        let keys: Vec<String> = limits
            .keys
            .iter()
            .filter(|key| key.in_use + key.waiting > 0)
            .map(|key| format!("{} {} in use, {} waiting", key.key, key.in_use, key.waiting))
            .collect();
        return log.record_violation(
            "2 Slots (returned)",
            format!("no task runs, but {}", keys.join("; ")),
        );
    }
    if closed {
        return;
    }
    for latest in log.read(latest_runs) {
        let LatestRun {
            task,
            run,
            status,
            parents,
            session,
        } = latest;
        let Some(found) = greenroom.find(task.as_str()).await else {
            return log.record_violation("5 Truth", format!("{task} is not found"));
        };
        let found = found.task;
        if found.run != run || Some(found.status()) != status {
            return log.record_violation(
                "5 Truth",
                format!(
                    "{task} is {} in run {}, but was published as {status:?} in run {run}",
                    found.status().as_str(),
                    found.run
                ),
            );
        }
        // A panic of the registry loses the history entries of settled tasks that were reparented since.
        if log.read(|observed| observed.registry_panicked.is_some()) {
            continue;
        }
        // Former parents are notified of a task as well as its present parent.
        for parent in parents {
            let history = greenroom.history(&parent).await;
            match history.iter().find(|entry| entry.task == task) {
                Some(entry) if Some(entry.status) == status && entry.session == session => {}
                other => {
                    return log.record_violation("5 Truth", format!("{task} is {status:?} in {session:?}, but the history of {parent} has {other:?}"));
                }
            }
        }
    }
}

/// The newest run of a task.
struct LatestRun {
    task: TaskId,
    run: Run,
    status: Option<TaskStatus>,
    parents: Vec<SessionId>,
    session: Option<SessionId>,
}

fn latest_runs(observed: &ObservedState) -> Vec<LatestRun> {
    let runs = observed.newest_runs();
    runs.map(|run| LatestRun {
        task: run.task.clone(),
        run: run.run,
        status: run.ended.map(|(_, status)| status),
        parents: observed.parents(&run.task).cloned().collect(),
        session: run.session.clone(),
    })
    .collect()
}

async fn check_memory(greenroom: Greenroom, log: Log) {
    let left = greenroom.list(ListFilter::default()).await.tasks;
    if let Some(task) = left.first() {
        return log.record_violation(
            "2 Slots (memory)",
            format!("{} is still in memory, {}", task.id, task.status().as_str()),
        );
    }
    let counts = greenroom.resource_counts().await;
    let mut expected = ResourceCounts::default();
    (expected.registries, expected.slot_managers) = (1, 1);
    (expected.pollers, expected.toasters) = (1, 1);
    expected.histories = counts.histories;
    // A parent that its user has aborted is kept in memory until the next user message.
    let stopped = log.read(ObservedState::user_aborted);
    expected.notifiers = counts.notifiers.min(stopped);
    expected.parents = counts.parents.min(stopped);
    expected.directory_entries = counts.directory_entries.min(stopped);
    if log.read(|observed| observed.process_crashed.is_some()) {
        // Actors of a crashed process are still in memory: they wait for a disk that does not answer.
        expected.registries = counts.registries;
        expected.task_actors = counts.task_actors;
        expected.notifiers = expected.notifiers.max(counts.notifiers);
    }
    if counts != expected {
        return log.record_violation(
            "2 Slots (memory)",
            format!("every task has left memory, but the counts are {counts:?}"),
        );
    }
    let readiness = greenroom.readiness().await;
    if readiness.tasks + readiness.running + readiness.waiting > 0 || !readiness.ready {
        log.record_violation(
            "2 Slots (memory)",
            format!("no task is in memory, but readiness is {readiness:?}"),
        );
    }
}

//! What is left when everything has come to rest: no slot, no waiting task, no task in memory once its time is over, no timer
//! that still calls the server; and what readers are told (record, history) is what was published. Promises 2, 5 and 6 of
//! an empty house, asked through the handle alone.

use std::sync::Weak;
use std::time::Duration;

use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::AgentServer;
use greenroom::{Census, Greenroom, ListFilter, ShutdownMode};
use tokio::task::JoinHandle;

use super::log::Log;
use super::observed::Ledger;
use crate::quiescence::Quiet;

/// Looks at what is left after everything has come to rest.
pub async fn after_rest(greenroom: &Greenroom, log: &Log, quiet: &Quiet, closed: bool) {
    let asked = actix_rt::spawn(look(greenroom.clone(), log.clone(), closed));
    quiet.settle().await;
    if !asked.is_finished() {
        return log.violate(
            "1 Ends",
            "a question to the system has no answer".to_owned(),
        );
    }
    if closed || log.violation().is_some() {
        return;
    }
    let keep = log.read(|ledger| ledger.config.lifecycle.keep_ended);
    tokio::time::sleep(keep + Duration::from_secs(60)).await;
    quiet.settle().await;
    let (before, _) = log.calls();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    quiet.settle().await;
    let (calls, last) = log.calls();
    if calls > before {
        return log.violate(
            "2 Slots (rest)",
            format!("nothing is open or owed, and still: {last}"),
        );
    }
    let asked = actix_rt::spawn(emptied(greenroom.clone(), log.clone()));
    quiet.settle().await;
    if !asked.is_finished() {
        log.violate(
            "1 Ends",
            "a question to the system has no answer".to_owned(),
        );
    }
}

/// Shuts down what is not, lets go of it, and looks whether anything of it lives on: an actor, a timer, a call.
pub async fn after_shutdown(
    greenroom: Greenroom,
    log: &Log,
    quiet: &Quiet,
    pump: JoinHandle<()>,
    alive: &Weak<dyn AgentServer>,
) {
    let closing = actix_rt::spawn(async move {
        greenroom.shutdown(ShutdownMode::Abort).await;
    });
    // A call that is answered late may be awaited for ten minutes, and a timer that was cancelled may live until it would
    // have been due: half an hour for a task that waits.
    tokio::time::sleep(Duration::from_secs(4000)).await;
    quiet.settle().await;
    if !closing.is_finished() {
        return log.violate("2 Slots (memory)", "the shutdown has no end".to_owned());
    }
    pump.abort();
    quiet.settle().await;
    if alive.strong_count() > 0 {
        log.violate(
            "2 Slots (memory)",
            format!(
                "the system was shut down and let go of, and {} of it live on",
                alive.strong_count()
            ),
        );
    }
}

async fn look(greenroom: Greenroom, log: Log, closed: bool) {
    if log.read(Ledger::died_before_closing) {
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
        return log.violate(
            "2 Slots (returned)",
            format!("nothing runs, and {}", keys.join("; ")),
        );
    }
    if closed {
        return;
    }
    for (task, run, status, parents, session) in log.read(newest) {
        let Some(found) = greenroom.find(task.as_str()).await else {
            return log.violate("5 Truth", format!("{task} is not to be found"));
        };
        let found = found.task;
        if found.run != run || Some(found.status()) != status {
            return log.violate(
                "5 Truth",
                format!(
                    "{task} is {} in run {}, and was published as {status:?} in run {run}",
                    found.status().as_str(),
                    found.run
                ),
            );
        }
        // Panics of ours cost histories what they had of settled tasks with another parent since.
        if log.read(|ledger| ledger.registry_died.is_some()) {
            continue;
        }
        // Who had the task before is told of it as well as who has it now.
        for parent in parents {
            let history = greenroom.history(&parent).await;
            match history.iter().find(|entry| entry.task == task) {
                Some(entry) if Some(entry.status) == status && entry.session == session => {}
                other => {
                    return log.violate("5 Truth", format!("{task} is {status:?} in {session:?}, and the history of {parent} says {other:?}"));
                }
            }
        }
    }
}

type Newest = (
    greenroom::domain::ids::TaskId,
    greenroom::domain::ids::Run,
    Option<greenroom::domain::task::TaskStatus>,
    Vec<SessionId>,
    Option<SessionId>,
);

fn newest(ledger: &Ledger) -> Vec<Newest> {
    ledger
        .newest_runs()
        .map(|run| {
            let status = run.ended.map(|(_, status)| status);
            (
                run.task.clone(),
                run.run,
                status,
                ledger.parents(&run.task).cloned().collect(),
                run.session.clone(),
            )
        })
        .collect()
}

async fn emptied(greenroom: Greenroom, log: Log) {
    let left = greenroom.list(ListFilter::default()).await.tasks;
    if let Some(task) = left.first() {
        return log.violate(
            "2 Slots (memory)",
            format!("{} is still in memory, {}", task.id, task.status().as_str()),
        );
    }
    let census = greenroom.census().await;
    let mut wanted = Census::default();
    (wanted.registries, wanted.slot_managers) = (1, 1);
    (wanted.pollers, wanted.toasters) = (1, 1);
    wanted.histories = census.histories;
    // Who was stopped by its user and has not spoken since is remembered as that.
    let stopped = log.read(Ledger::stopped);
    wanted.notifiers = census.notifiers.min(stopped);
    wanted.parents = census.parents.min(stopped);
    wanted.rosters = census.rosters.min(stopped);
    if log.read(|ledger| ledger.crashed.is_some()) {
        // What a process that has ended has left behind in this one waits for a disk that will never answer.
        wanted.registries = census.registries;
        wanted.task_actors = census.task_actors;
        wanted.notifiers = wanted.notifiers.max(census.notifiers);
    }
    if census != wanted {
        return log.violate(
            "2 Slots (memory)",
            format!("everything is over, and there is still {census:?}"),
        );
    }
    let readiness = greenroom.readiness().await;
    if readiness.tasks + readiness.running + readiness.waiting > 0 || !readiness.ready {
        log.violate(
            "2 Slots (memory)",
            format!("nothing is there, and it says {readiness:?}"),
        );
    }
}

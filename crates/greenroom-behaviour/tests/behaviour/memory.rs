//! Memory: after ten thousand tasks of every outcome and after all retention times, every map, timer, actor
//! and deadline is gone, as counted by the actors.

use std::collections::BTreeMap;

use greenroom::ResourceCounts;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, Track};

use crate::harness::{Harness, job, story_with};

const WAVES: usize = 100;
const A_WAVE: usize = 100;
const PARENTS: usize = 20;
const HOUR: u64 = 3_600_000;

/// Returns the counts of a system without open tasks, pending messages and retained state: only the
/// long-lived actors. After a shutdown those are gone as well.
pub fn empty(counts: &ResourceCounts) -> ResourceCounts {
    let mut empty = ResourceCounts::default();
    empty.registries = 1;
    let kept = usize::from(counts.slot_managers > 0);
    (empty.slot_managers, empty.pollers, empty.toasters) = (kept, kept, kept);
    empty
}

/// The script of a task, and its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskScript {
    Completes,
    CompletesTwice,
    Fails,
    Cancelled,
    CancelledBeforeStart,
    Aborted,
    Deleted,
    HasChild,
    WaitsForChild,
    WithoutParent,
    Tracked,
    Resumes,
}

const SCRIPTS: [TaskScript; 10] = [
    TaskScript::Completes,
    TaskScript::CompletesTwice,
    TaskScript::Fails,
    TaskScript::Cancelled,
    TaskScript::CancelledBeforeStart,
    TaskScript::Aborted,
    TaskScript::Deleted,
    TaskScript::HasChild,
    TaskScript::WithoutParent,
    TaskScript::Tracked,
];

fn parent_of(number: usize) -> String {
    format!("parent {}", number % PARENTS)
}

/// Accepts one task.
async fn accepted(s: &Harness, wave: usize, number: usize) -> (TaskId, TaskScript) {
    let script = SCRIPTS[number % SCRIPTS.len()];
    let name = format!("{wave}.{number}");
    let launch = Launch {
        agent: format!("{script:?}"),
        parent_session: Some(parent_of(wave + number).as_str().into()),
        ..job(&name)
    };
    let task = match script {
        TaskScript::Tracked => {
            s.server.add_session(&name, None);
            let track = Track {
                task: name.as_str().into(),
                session: name.as_str().into(),
                parent_session: parent_of(number).as_str().into(),
                description: name,
                agent: None,
                parent_agent: None,
                concurrency_key: Some("tracked".into()),
            };
            s.track_with(track).await.id
        }
        TaskScript::WithoutParent => {
            let launch = Launch {
                parent_session: None,
                ..launch
            };
            s.launch(launch).await
        }
        TaskScript::Completes => {
            let greenroom = s.greenroom.clone();
            let once = async move { greenroom.launch_once(name, launch).await };
            s.resolve(once).await.expect("it is accepted").0.id
        }
        _ => s.launch(launch).await,
    };
    if script == TaskScript::CancelledBeforeStart {
        assert!(s.cancel(&task).await);
    }
    (task, script)
}

/// Advances the script of a task if its session exists. Returns the tasks that are still open.
async fn advance_task(s: &Harness, task: TaskId, script: TaskScript) -> Vec<(TaskId, TaskScript)> {
    if script == TaskScript::Tracked {
        s.finish_turn(task.as_str()).await;
        return Vec::new();
    }
    let Some(session) = s.server.session_of(&task) else {
        return vec![(task, script)];
    };
    match script {
        TaskScript::Completes | TaskScript::WithoutParent | TaskScript::WaitsForChild => {
            s.finish_turn(&session).await
        }
        TaskScript::CompletesTwice => {
            s.finish_turn(&session).await;
            return vec![(task, TaskScript::Resumes)];
        }
        TaskScript::Resumes => {
            s.resume(&session).await;
            return vec![(task, TaskScript::Completes)];
        }
        TaskScript::Fails => s.fail(&session, "boom").await,
        TaskScript::Cancelled => assert!(s.cancel(&task).await),
        TaskScript::Aborted => s.abort_externally(&session).await,
        TaskScript::Deleted => s.delete(&session).await,
        TaskScript::HasChild => {
            let own = Launch {
                agent: "its own".to_owned(),
                parent_session: Some(session.clone()),
                ..job("its own")
            };
            let own = s.launch(own).await;
            s.finish_turn(&session).await;
            return vec![
                (own, TaskScript::Completes),
                (task, TaskScript::WaitsForChild),
            ];
        }
        TaskScript::Tracked | TaskScript::CancelledBeforeStart => {}
    }
    Vec::new()
}

async fn wave(s: &Harness, number: usize, ends: &mut BTreeMap<&'static str, usize>) {
    let mut changes = s.changes();
    let mut open = Vec::new();
    for task in 0..A_WAVE {
        let (task, script) = accepted(s, number, task).await;
        if script != TaskScript::CancelledBeforeStart {
            open.push((task, script));
        }
    }
    for _ in 0..12 {
        s.advance(6000).await;
        // A task ends after its children.
        let mut later = Vec::new();
        for (task, script) in std::mem::take(&mut open) {
            later.extend(advance_task(s, task, script).await);
        }
        open = later;
    }
    assert!(open.is_empty(), "wave {number}: {open:?}");
    if number.is_multiple_of(10) {
        let parent = parent_of(number);
        s.delete(parent.as_str()).await;
        s.server.add_session(&parent, None);
    }
    while let Ok(change) = changes.try_recv() {
        if change.to.is_terminal() {
            *ends.entry(change.to.as_str()).or_default() += 1;
        }
    }
}

#[test]
fn ten_thousand_tasks_leave_nothing() {
    let settings = |config: &mut greenroom::Config| config.limits.default = 5;
    story_with(settings, |s| async move {
        for parent in 0..PARENTS {
            s.server.add_session(&parent_of(parent), None);
        }
        let mut ends = BTreeMap::new();
        for number in 0..WAVES {
            wave(&s, number, &mut ends).await;
        }
        let kind = WAVES * A_WAVE / SCRIPTS.len();
        // Four scripts complete once, one twice; their children complete as well.
        assert_eq!(ends["completed"], 7 * kind, "{ends:?}");
        assert_eq!(ends["error"], kind, "{ends:?}");
        assert_eq!(ends["cancelled"], 3 * kind, "{ends:?}");
        assert_eq!(ends["interrupt"], kind, "{ends:?}");
        assert!(
            s.resource_counts().await.tasks > 0,
            "some are kept for a while"
        );

        s.advance(HOUR).await;
        let mut expected = empty(&s.resource_counts().await);
        // Kept forever, with a limit of ten thousand each: the histories of parents. Kept for a day: the keys
        // of launches.
        expected.histories = PARENTS + kind;
        expected.launch_keys = kind;
        assert_eq!(s.resource_counts().await, expected);

        s.advance(24 * HOUR).await;
        let greenroom = s.greenroom.clone();
        let last = async move { greenroom.launch_once("last".to_owned(), job("last")).await };
        let (last, _) = s.resolve(last).await.expect("it is accepted");
        s.advance(6000).await;
        s.finish_turn(&last.id).await;
        s.advance(HOUR).await;
        (expected.histories, expected.launch_keys) = (PARENTS + kind + 1, 1);
        assert_eq!(s.resource_counts().await, expected);

        s.shutdown().await.await.expect("no panic");
        let mut expected = ResourceCounts::default();
        (
            expected.registries,
            expected.histories,
            expected.launch_keys,
        ) = (1, PARENTS + kind + 1, 1);
        assert_eq!(s.resource_counts().await, expected, "after a shutdown");
    });
}

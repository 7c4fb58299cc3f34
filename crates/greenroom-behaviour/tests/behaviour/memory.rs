//! Memory: after ten thousand tasks of every outcome, and past every retention, each map, timer, actor and deadline is
//! gone, counted by the actors themselves.

use std::collections::BTreeMap;

use greenroom::Census;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, Track};

use crate::harness::{Stage, job, story_with};

const WAVES: usize = 100;
const A_WAVE: usize = 100;
const PARENTS: usize = 20;
const HOUR: u64 = 3_600_000;

/// A system in which nothing is open, owed or to be remembered: the long-lived actors, and nothing else but what is
/// meant to stay. After a shutdown not even those.
pub fn empty(census: &Census) -> Census {
    let mut empty = Census::default();
    empty.registries = 1;
    let kept = usize::from(census.slot_managers > 0);
    (empty.slot_managers, empty.pollers, empty.toasters) = (kept, kept, kept);
    empty
}

/// What becomes of a task, and how far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Completes,
    CompletesOnceMore,
    Fails,
    IsCancelled,
    IsCancelledBefore,
    IsAborted,
    IsDeleted,
    HasOneOfItsOwn,
    WaitsForItsOwn,
    HasNoParent,
    IsTracked,
    Resumes,
}

const FATES: [Fate; 10] = [
    Fate::Completes,
    Fate::CompletesOnceMore,
    Fate::Fails,
    Fate::IsCancelled,
    Fate::IsCancelledBefore,
    Fate::IsAborted,
    Fate::IsDeleted,
    Fate::HasOneOfItsOwn,
    Fate::HasNoParent,
    Fate::IsTracked,
];

fn parent_of(number: usize) -> String {
    format!("parent {}", number % PARENTS)
}

/// One task comes in.
async fn accepted(s: &Stage, wave: usize, number: usize) -> (TaskId, Fate) {
    let fate = FATES[number % FATES.len()];
    let name = format!("{wave}.{number}");
    let launch = Launch {
        agent: format!("{fate:?}"),
        parent_session: Some(parent_of(wave + number).as_str().into()),
        ..job(&name)
    };
    let task = match fate {
        Fate::IsTracked => {
            s.server.has(&name, None);
            let track = Track {
                task: name.as_str().into(),
                session: name.as_str().into(),
                parent_session: parent_of(number).as_str().into(),
                description: name,
                agent: None,
                parent_agent: None,
                concurrency_key: Some("tracked".into()),
            };
            s.track_as(track).await.id
        }
        Fate::HasNoParent => {
            let launch = Launch {
                parent_session: None,
                ..launch
            };
            s.launch(launch).await
        }
        Fate::Completes => {
            let greenroom = s.greenroom.clone();
            let once = async move { greenroom.launch_once(name, launch).await };
            s.answered(once).await.expect("it is accepted").0.id
        }
        _ => s.launch(launch).await,
    };
    if fate == Fate::IsCancelledBefore {
        assert!(s.cancel(&task).await);
    }
    (task, fate)
}

/// Its fate takes its course, once its session is there; answers what is still to come.
async fn goes_its_way(s: &Stage, task: TaskId, fate: Fate) -> Vec<(TaskId, Fate)> {
    if fate == Fate::IsTracked {
        s.finish(task.as_str()).await;
        return Vec::new();
    }
    let Some(session) = s.server.session_of(&task) else {
        return vec![(task, fate)];
    };
    match fate {
        Fate::Completes | Fate::HasNoParent | Fate::WaitsForItsOwn => s.finish(&session).await,
        Fate::CompletesOnceMore => {
            s.finish(&session).await;
            return vec![(task, Fate::Resumes)];
        }
        Fate::Resumes => {
            s.resume(&session).await;
            return vec![(task, Fate::Completes)];
        }
        Fate::Fails => s.fail(&session, "boom").await,
        Fate::IsCancelled => assert!(s.cancel(&task).await),
        Fate::IsAborted => s.aborted(&session).await,
        Fate::IsDeleted => s.delete(&session).await,
        Fate::HasOneOfItsOwn => {
            let own = Launch {
                agent: "its own".to_owned(),
                parent_session: Some(session.clone()),
                ..job("its own")
            };
            let own = s.launch(own).await;
            s.finish(&session).await;
            return vec![(own, Fate::Completes), (task, Fate::WaitsForItsOwn)];
        }
        Fate::IsTracked | Fate::IsCancelledBefore => {}
    }
    Vec::new()
}

async fn wave(s: &Stage, number: usize, ends: &mut BTreeMap<&'static str, usize>) {
    let mut changes = s.changes();
    let mut open = Vec::new();
    for task in 0..A_WAVE {
        let (task, fate) = accepted(s, number, task).await;
        if fate != Fate::IsCancelledBefore {
            open.push((task, fate));
        }
    }
    for _ in 0..12 {
        s.pass(6000).await;
        // A task comes after those of its own.
        let mut later = Vec::new();
        for (task, fate) in std::mem::take(&mut open) {
            later.extend(goes_its_way(s, task, fate).await);
        }
        open = later;
    }
    assert!(open.is_empty(), "wave {number}: {open:?}");
    if number.is_multiple_of(10) {
        let parent = parent_of(number);
        s.delete(parent.as_str()).await;
        s.server.has(&parent, None);
    }
    while let Ok(change) = changes.try_recv() {
        if change.to.is_terminal() {
            *ends.entry(change.to.as_str()).or_default() += 1;
        }
    }
}

#[test]
fn after_ten_thousand_tasks_of_every_outcome_nothing_is_kept() {
    let knobs = |config: &mut greenroom::Config| config.limits.default = 5;
    story_with(knobs, |s| async move {
        for parent in 0..PARENTS {
            s.server.has(&parent_of(parent), None);
        }
        let mut ends = BTreeMap::new();
        for number in 0..WAVES {
            wave(&s, number, &mut ends).await;
        }
        let kind = WAVES * A_WAVE / FATES.len();
        // Four fates complete once, one twice; those of their own too.
        assert_eq!(ends["completed"], 7 * kind, "{ends:?}");
        assert_eq!(ends["error"], kind, "{ends:?}");
        assert_eq!(ends["cancelled"], 3 * kind, "{ends:?}");
        assert_eq!(ends["interrupt"], kind, "{ends:?}");
        assert!(s.census().await.tasks > 0, "some are kept for a while");

        s.pass(HOUR).await;
        let mut wanted = empty(&s.census().await);
        // For good, and at most ten thousand of each: what parents were told of, and for a day the keys of launches.
        wanted.histories = PARENTS + kind;
        wanted.launch_keys = kind;
        assert_eq!(s.census().await, wanted);

        s.pass(24 * HOUR).await;
        let greenroom = s.greenroom.clone();
        let last = async move { greenroom.launch_once("last".to_owned(), job("last")).await };
        let (last, _) = s.answered(last).await.expect("it is accepted");
        s.pass(6000).await;
        s.finish(&last.id).await;
        s.pass(HOUR).await;
        (wanted.histories, wanted.launch_keys) = (PARENTS + kind + 1, 1);
        assert_eq!(s.census().await, wanted);

        s.shutdown().await.await.expect("no panic");
        let mut wanted = Census::default();
        (wanted.registries, wanted.histories, wanted.launch_keys) = (1, PARENTS + kind + 1, 1);
        assert_eq!(s.census().await, wanted, "after a shutdown");
    });
}

//! A panic at every failpoint of every actor, one at a time: the task ends or continues, its slot is
//! returned, its parent is notified exactly once, and everything else continues. Runs one workload with most
//! of the features for each failpoint.

mod aborts;
mod repeated;
mod restart_budgets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use greenroom::CancelOptions;
use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::notice::NoticeKind;
use greenroom::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use greenroom::failpoint::FaultInjector;

use crate::harness::*;
use crate::server::{CallKind, CallPayload};

/// Panics at one failpoint, from the `from`-th pass on, for some passes.
struct PanicAt {
    place: &'static str,
    from: usize,
    times: usize,
    passed: Mutex<BTreeMap<&'static str, usize>>,
}

impl PanicAt {
    fn at(place: &'static str, from: usize, times: usize) -> Arc<Self> {
        Arc::new(Self {
            place,
            from,
            times,
            passed: Mutex::default(),
        })
    }

    fn passed(&self) -> BTreeMap<&'static str, usize> {
        let passed = lock(&self.passed);
        passed.clone()
    }
}

impl FaultInjector for PanicAt {
    fn should_fail(&self, place: &'static str) -> bool {
        let mut passed = lock(&self.passed);
        let nth = passed.entry(place).or_default();
        *nth += 1;
        place == self.place && (self.from..self.from + self.times).contains(nth)
    }
}

/// Retries a request while the system may be restarting its actors.
async fn retry_until_answered<T: 'static>(
    s: &Harness,
    question: impl Future<Output = T> + 'static,
) -> T {
    let answer = actix_rt::spawn(question);
    for _ in 0..4000 {
        s.settle().await;
        if answer.is_finished() {
            return answer.await.expect("the request did not panic");
        }
        s.advance(10).await;
    }
    panic!("no answer at {}", s.now());
}

async fn launch(s: &Harness, launch: Launch) -> TaskId {
    let (greenroom, key) = (s.greenroom.clone(), launch.description.clone());
    let launched =
        retry_until_answered(s, async move { greenroom.launch_once(key, launch).await }).await;
    launched.expect("it is accepted").0.id
}

async fn tasks(s: &Harness) -> Vec<Task> {
    let greenroom = s.greenroom.clone();
    retry_until_answered(s, async move { greenroom.list(Default::default()).await })
        .await
        .tasks
}

/// Returns the session of a task once it has one.
async fn session(s: &Harness, task: &TaskId) -> Option<SessionId> {
    for _ in 0..4000 {
        if let Some(session) = s.server.session_of(task) {
            return Some(session);
        }
        let over = |known: &Task| known.id == *task && known.status().is_terminal();
        if tasks(s).await.iter().any(over) {
            return None;
        }
        s.advance(10).await;
    }
    None
}

/// Finishes a turn of a task's session, if it has one and is open.
async fn finish(s: &Harness, task: &TaskId) {
    if let Some(session) = session(s, task).await {
        s.finish_turn(&session).await;
    }
}

async fn resume(s: &Harness, session: SessionId) {
    for _ in 0..20 {
        let greenroom = s.greenroom.clone();
        let resume = Resume {
            session: Some(session.clone()),
            prompt: "go on".to_owned(),
            ..Resume::default()
        };
        // A request that was cut off may have been accepted; then the task is already running.
        if retry_until_answered(s, async move { greenroom.resume(resume).await })
            .await
            .is_ok()
        {
            return;
        }
        s.advance(500).await;
    }
}

/// The workload: two running tasks and one that waits, one that fails, a child of a child, a further prompt,
/// a cancel, a resume, a tracked session, a change of limits, a parent aborted by its user, a deleted
/// session.
async fn run_workload(s: &Harness) {
    let g = &s.greenroom;
    for name in ["alpha", "beta", "gamma", "delta", "epsilon"] {
        let parent = if name == "delta" { "Q" } else { "P" };
        let key = if name == "delta" { "acme/x" } else { "acme/y" };
        launch(
            s,
            Launch {
                model: Some(model(key)),
                ..job_of(parent, name)
            },
        )
        .await;
    }
    s.advance(1000).await;
    let ids: BTreeMap<String, TaskId> = tasks(s)
        .await
        .into_iter()
        .map(|task| (task.description.to_string(), task.id))
        .collect();
    for name in ["alpha", "beta"] {
        if let Some(session) = session(s, &ids[name]).await {
            s.busy(&session).await;
            s.stream_text(&session).await;
        }
    }
    let mut child = None;
    if let Some(beta) = session(s, &ids["beta"]).await {
        child = Some(launch(s, job_of(beta.clone(), "child")).await);
        let (g, id) = (g.clone(), ids["beta"].clone());
        // The prompt may fail because of the panic; it is not needed later.
        drop(retry_until_answered(s, async move { g.send(&id, "more".to_owned()).await }).await);
        s.finish_turn(&beta).await;
    }
    let change = serde_json::from_value(serde_json::json!({"max": 4})).expect("a change");
    let greenroom = g.clone();
    // A request that was cut off is not retried here; other tests cover that.
    let _ = retry_until_answered(s, async move { greenroom.set_limits(change).await }).await;
    s.advance(3000).await;
    let (greenroom, id) = (g.clone(), ids["epsilon"].clone());
    drop(
        retry_until_answered(s, async move {
            greenroom.cancel(&id, CancelOptions::default()).await
        })
        .await,
    );
    if let Some(delta) = session(s, &ids["delta"]).await {
        s.fail(&delta, "boom").await;
    }
    let track = Track {
        task: "tracked".into(),
        session: "elsewhere".into(),
        parent_session: "Q".into(),
        description: "tracked".to_owned(),
        agent: None,
        parent_agent: None,
        concurrency_key: Some("acme/y".into()),
    };
    s.server.add_session("elsewhere", None);
    let greenroom = g.clone();
    drop(retry_until_answered(s, async move { greenroom.track(track).await }).await);
    s.advance(3000).await;
    s.finish_turn("elsewhere").await;
    finish(s, &ids["alpha"]).await;
    if let Some(child) = child {
        finish(s, &child).await;
    }
    s.advance(7000).await;
    s.link(greenroom::EventLink::Broken).await;
    s.link(greenroom::EventLink::Connected).await;
    finish(s, &ids["gamma"]).await;
    finish(s, &ids["beta"]).await;
    s.advance(7000).await;
    if let Some(alpha) = session(s, &ids["alpha"]).await {
        resume(s, alpha.clone()).await;
        s.advance(1000).await;
        s.finish_turn(&alpha).await;
        s.advance(7000).await;
    }
    let doomed = launch(s, job_of("Q", "doomed")).await;
    s.abort_externally("Q").await;
    if let Some(doomed) = session(s, &doomed).await {
        s.delete(&doomed).await;
    }
    // Ends all open tasks, and waits for the 30 s of a delayed restart.
    for _ in 0..30 {
        let all = tasks(s).await;
        let open: Vec<&Task> = all
            .iter()
            .filter(|task| !task.status().is_terminal())
            .collect();
        if open.is_empty() && s.now() > 150_000 {
            break;
        }
        for task in open {
            if let Some(session) = s.server.session_of(&task.id) {
                s.finish_turn(&session).await;
            }
        }
        s.advance(7000).await;
    }
    s.advance(90_000).await;
}

/// Checks the invariants at the end.
async fn assert_invariants(s: &Harness, place: &str) {
    let all = tasks(s).await;
    for task in &all {
        assert!(
            task.status().is_terminal(),
            "{place}: {} is {}",
            task.description,
            task.status().as_str()
        );
    }
    let counts = s.greenroom.resource_counts().await;
    let (held, waiting) = (counts.slots_held, counts.waiting);
    assert_eq!(
        (held, counts.permits, waiting),
        (0, 0, 0),
        "{place}: {counts:?}"
    );
    let singletons = [
        counts.registries,
        counts.slot_managers,
        counts.pollers,
        counts.toasters,
    ];
    assert_eq!(singletons, [1; 4], "{place}: {counts:?}");
    assert_eq!(
        (counts.calls, counts.aborting),
        (0, 0),
        "{place}: {counts:?}"
    );
    // Each session is created once, and each run is prompted once.
    let mut made = BTreeMap::<String, usize>::new();
    for call in s.server.calls(CallKind::Create) {
        if let CallPayload::Create(new) = call.payload {
            *made.entry(new.title).or_default() += 1;
        }
    }
    assert!(made.values().all(|times| *times == 1), "{place}: {made:?}");
    let mut prompted = BTreeMap::<(String, String), usize>::new();
    for call in s.server.calls(CallKind::Prompt) {
        if let (CallPayload::Prompt(_, prompt), Some(session)) = (call.payload, call.session) {
            let prompt = (session.to_string(), prompt.text.to_string());
            *prompted.entry(prompt).or_default() += 1;
        }
    }
    assert!(
        prompted.values().all(|times| *times == 1),
        "{place}: {prompted:?}"
    );
    // Every ended run is in one final message; no message arrives twice.
    let mut finals = BTreeMap::<String, usize>::new();
    let mut arrived = BTreeMap::<String, usize>::new();
    for call in s.server.calls(CallKind::Notify) {
        let CallPayload::Notify(notice) = call.payload else {
            continue;
        };
        *arrived.entry(notice.id.to_string()).or_default() += 1;
        if notice.facts.kind == NoticeKind::Final {
            for fact in &notice.facts.tasks {
                *finals.entry(fact.description.to_string()).or_default() += 1;
            }
        }
    }
    assert!(
        arrived.values().all(|times| *times == 1),
        "{place}: {arrived:?}"
    );
    for task in &all {
        let notifications = finals.get(&*task.description).copied().unwrap_or(0);
        let runs = usize::try_from(task.run.0).expect("few runs");
        // A task that is resumed while its batch is open is in it once.
        assert!(
            (1..=runs).contains(&notifications),
            "{place}: {} is in {finals:?}",
            task.description
        );
    }
    for parent in ["P", "Q"] {
        let notices = s.greenroom.notifications(&parent.into()).await;
        let open = notices.iter().find(|notice| notice.fate != "delivered");
        assert!(open.is_none(), "{place}: {parent} is owed {open:?}");
    }
    let readiness = s.greenroom.readiness().await;
    assert!(readiness.ready, "{place}: {readiness:?}");
    // A new task runs to its end.
    let after = launch(s, job_of("P", "after")).await;
    s.advance(6000).await;
    finish(s, &after).await;
    s.advance(7000).await;
    let after = tasks(s).await.into_iter().find(|task| task.id == after);
    assert_eq!(
        after.map(|task| task.status()),
        Some(TaskStatus::Completed),
        "{place}: nothing runs any more"
    );
}

fn check_recovery(place: &'static str, from: usize, times: usize) {
    let name = format!("{place} ({from}, {times} times)");
    let panic_at = PanicAt::at(place, from, times);
    let panics = story_with_failpoints(panic_at.clone(), move |s| async move {
        run_workload(&s).await;
        assert_invariants(&s, &name).await;
    });
    let unexpected = panics.iter().find(|panic| !panic.contains("failpoint at"));
    assert!(unexpected.is_none(), "{place}: {unexpected:?}");
    assert!(!panics.is_empty(), "{place} was passed and nothing broke");
}

/// Returns every failpoint that the workload passes, with the number of passes.
fn places() -> BTreeMap<&'static str, usize> {
    let nowhere = PanicAt::at("", 0, 0);
    let panics = story_with_failpoints(nowhere.clone(), |s| async move {
        run_workload(&s).await;
        assert_invariants(&s, "nowhere").await;
    });
    assert!(panics.is_empty(), "{panics:?}");
    nowhere.passed()
}

fn check_recovery_of(actor: &str) {
    let places = places();
    let of_actor: Vec<_> = places
        .into_iter()
        .filter(|(place, _)| place.starts_with(actor))
        .collect();
    assert!(!of_actor.is_empty(), "the story passes no place of {actor}");
    for (place, times) in of_actor {
        let mut chosen = vec![1, 2, times / 2, times];
        chosen.sort_unstable();
        chosen.dedup();
        for nth in chosen {
            if (1..=times).contains(&nth) {
                check_recovery(place, nth, 1);
            }
        }
    }
}

#[test]
fn registry_recovers_from_panic_anywhere() {
    check_recovery_of("registry:");
}

#[test]
fn task_recovers_from_panic_anywhere() {
    check_recovery_of("task:");
}

#[test]
fn notifier_recovers_from_panic_anywhere() {
    check_recovery_of("notifier:");
}

#[test]
fn queue_recovers_from_panic_anywhere() {
    check_recovery_of("queue:");
}

#[test]
fn slot_manager_recovers_from_panic_anywhere() {
    check_recovery_of("slots:");
}

#[test]
fn poller_recovers_from_panic_anywhere() {
    check_recovery_of("poller:");
}

#[test]
fn toaster_panic_has_no_effect() {
    check_recovery_of("toaster:");
}

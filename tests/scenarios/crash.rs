//! The service is killed repeatedly at random instants, with tasks in every state, and is restarted at once on the same
//! journal. The results are counted at the agent server. `GREENROOM_CRASHES=100 cargo xtask test --e2e crash` kills it more
//! often, `GREENROOM_SEED` repeats a run (as far as timing allows).

mod count;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures::future::{join, join_all};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use self::count::{Counted, count, wait_until_settled};
use crate::harness::{
    Caller, Follower, Parent, Proxy, Scene, Service, Stage, id_of, until, unused_model,
};

crate::stories![; alone nothing_is_lost_or_doubled_at_any_instant];

/// The number of kills by default.
const CRASHES: u32 = 10;
/// The number of kills during one wave of tasks.
const CRASHES_PER_WAVE: u32 = 5;
const PARENTS: usize = 4;
/// The number of tasks of each parent, without their children.
const TASKS_PER_PARENT: usize = 4;
/// The number of tasks of each wave with two children each, so that twenty are launched.
const WITH_CHILDREN: usize = 2;
/// The delay of the agent server's answers.
const HELD: Duration = Duration::from_millis(150);
/// The number of slots of each of the two models.
const SLOTS: usize = 3;

/// The expected end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ExpectedEnd {
    /// It completes with that answer.
    Completed(String),
    /// It fails, since its model refuses it.
    Failed,
    /// It would run for long, and is cancelled that long after it was accepted.
    CancelledAfter(Duration),
}

/// A task to launch, under a key, so that it is accepted once although the request may be repeated.
struct Wanted {
    key: String,
    launch: Value,
    expected: ExpectedEnd,
    after: Duration,
    children: Vec<Wanted>,
}

/// An accepted task.
struct Accepted {
    key: String,
    launch: Value,
    expected: ExpectedEnd,
    id: String,
    requests: u32,
}

async fn nothing_is_lost_or_doubled_at_any_instant() {
    let crashes = match requested_crashes() {
        0 => CRASHES,
        requested => requested,
    };
    let seed = number("GREENROOM_SEED").unwrap_or_else(|| {
        let now = SystemTime::UNIX_EPOCH.elapsed();
        now.map_or(0, |now| u64::from(now.subsec_nanos()))
    });
    println!("{crashes} crashes, GREENROOM_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let journal = format!("journal={}", folder.path().join("journal.db").display());
    let stage = Stage::shared().await;
    let proxy = Proxy::start(stage.opencode.port()).await;
    let settings = [&*journal, &format!("limits.default={SLOTS}")];
    let mut scene = Scene::on(stage, &proxy.url(), &settings).await;
    let models = [scene.model.clone(), unused_model()];
    let caller = Caller::new(scene.service.url());
    let follower = Follower::start(caller.clone());
    let mut all: Vec<(Vec<Parent>, Vec<Accepted>)> = Vec::new();
    let mut left = crashes;
    while left > 0 {
        let kills = left.min(CRASHES_PER_WAVE);
        left -= kills;
        let mut parents = Vec::new();
        for agent in ["build", "plan"].into_iter().cycle().take(PARENTS) {
            parents.push(scene.parent(agent).await);
        }
        // In every other wave the service is killed with calls in flight, most of which have had their effect.
        proxy.hold_answers(HELD * u32::from(all.len().is_multiple_of(2)));
        let wanted = wave(&scene, &models, &parents, all.len(), &mut rng);
        let launches = join_all(wanted.into_iter().map(|wanted| launch(&caller, wanted)));
        let killing = kill(&mut scene.service, &caller, kills, &mut rng);
        let (accepted, ()) = join(launches, killing).await;
        let accepted: Vec<Accepted> = accepted.into_iter().flatten().collect();
        wait_until_settled(&scene, &accepted).await;
        count(&scene, &parents, &accepted).await;
        all.push((parents, accepted));
    }
    // One more kill while nothing is open: ended tasks stay ended and known.
    kill(&mut scene.service, &caller, 1, &mut rng).await;
    let mut sum = Counted::default();
    let mut repeated = 0;
    for (parents, accepted) in &all {
        let counted = count(&scene, parents, accepted).await;
        sum.add(&counted);
        for task in accepted {
            let again = caller.launch(&task.key, &task.launch).await;
            let found = (again.status, id_of(&again.body));
            assert_eq!(found, (200, task.id.clone()), "{again:?}");
            repeated += usize::from(task.requests > 1);
        }
    }
    until("every change was sent", async || {
        let newest = follower.newest();
        let ids = all.iter().flat_map(|(_, accepted)| accepted);
        let mut states = ids.map(|task| (newest.get(&task.id), task.expected.status()));
        states
            .all(|(state, wanted)| state.is_some_and(|state| state == wanted))
            .then_some(())
    })
    .await;
    let changes = follower.assert_complete();
    let launched: BTreeSet<String> = follower.newest().into_keys().collect();
    assert_eq!(launched.len(), sum.tasks, "none was launched twice");
    for model in &models {
        // A task that is a parent itself runs above the limit when it is woken.
        let most = scene.stage.level(model).max;
        assert!(
            (1..=SLOTS + WITH_CHILDREN).contains(&most),
            "{most} at once"
        );
    }
    println!("{sum:?}, {changes} changes, {repeated} launches requested more than once");
}

/// Returns the number of kills in `GREENROOM_CRASHES`; zero if it is not set.
pub fn requested_crashes() -> u32 {
    let requested = number("GREENROOM_CRASHES").unwrap_or_default();
    u32::try_from(requested).expect("GREENROOM_CRASHES is a 32-bit number")
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

impl ExpectedEnd {
    /// Returns the state in which the task ends.
    fn status(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed => "error",
            Self::CancelledAfter(_) => "cancelled",
        }
    }
}

/// Returns the tasks of one wave: each with its own launch time, for two keys with few slots.
fn wave(
    scene: &Scene,
    models: &[String; 2],
    parents: &[Parent],
    wave: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Wanted> {
    let mut one =
        |name: String, parent: Option<&Parent>, expected: Option<ExpectedEnd>, turn: (u64, u64)| {
            let wait = rng.random_range(turn.0..turn.1);
            let expected =
                expected.unwrap_or_else(|| ExpectedEnd::Completed(format!("{name} is done")));
            let prompt = match &expected {
                ExpectedEnd::Completed(answer) => format!("[[wait {wait}ms]][[say {answer}]]"),
                ExpectedEnd::Failed => format!("[[wait {wait}ms]][[fail 401]]"),
                ExpectedEnd::CancelledAfter(_) => "[[wait 10m]]".to_owned(),
            };
            let mut launch = scene.task(parent, &prompt);
            launch["model"]["modelID"] = json!(models[rng.random_range(0..2)]);
            Wanted {
                key: format!("crash {name}"),
                launch,
                expected,
                after: Duration::from_millis(rng.random_range(0..2500)),
                children: Vec::new(),
            }
        };
    let mut wanted = Vec::new();
    for (nth, parent) in parents.iter().enumerate() {
        for each in 0..TASKS_PER_PARENT {
            let name = format!("task {wave}.{nth}.{each}");
            let has_children = each == 0 && nth < WITH_CHILDREN;
            let expected = match (nth, each) {
                (2, 1) => Some(ExpectedEnd::Failed),
                (1 | 3, 1) => Some(ExpectedEnd::CancelledAfter(Duration::from_millis(
                    700 * u64::try_from(nth).expect("few parents"),
                ))),
                _ => None,
            };
            let turn = if has_children {
                (2000, 3000)
            } else {
                (500, 2500)
            };
            let mut task = one(name.clone(), Some(parent), expected, turn);
            if has_children {
                let child = |nth| one(format!("{name}.{nth}"), None, None, (500, 2000));
                task.children = (0..2).map(child).collect();
            }
            wanted.push(task);
        }
    }
    wanted
}

/// Launches a task and, once it has a session, its children.
async fn launch(caller: &Caller, wanted: Wanted) -> Vec<Accepted> {
    tokio::time::sleep(wanted.after).await;
    let task = accepted(caller, wanted.key, wanted.launch, wanted.expected).await;
    let mut all = Vec::new();
    if !wanted.children.is_empty() {
        let session = until("the task has a session", async || {
            caller.task(&task.id).await["sessionID"]
                .as_str()
                .map(str::to_owned)
        })
        .await;
        for mut child in wanted.children {
            child.launch["parentSessionID"] = json!(session);
            all.push(accepted(caller, child.key, child.launch, child.expected).await);
        }
    }
    all.push(task);
    all
}

async fn accepted(caller: &Caller, key: String, launch: Value, expected: ExpectedEnd) -> Accepted {
    let launched = caller.launch(&key, &launch).await;
    let is_repeated = launched.requests > 1;
    // A repeated launch may have been accepted by a service that was killed before it answered.
    assert!(
        launched.status == 201 || launched.status == 200 && is_repeated,
        "{launched:?}"
    );
    let id = id_of(&launched.body);
    if let ExpectedEnd::CancelledAfter(after) = expected {
        tokio::time::sleep(after).await;
        let path = format!("/v1/tasks/{id}/cancel");
        let answer = caller.post(&path, &json!({})).await;
        // A repeated cancel may have been carried out by a service that was killed before it answered.
        let done = answer.status == 200 || answer.status == 409 && answer.requests > 1;
        assert!(done, "{answer:?}");
    }
    Accepted {
        key,
        launch,
        expected,
        id,
        requests: launched.requests,
    }
}

/// Kills the service that many times, at random instants after its start, also before it is ready.
async fn kill(service: &mut Service, caller: &Caller, kills: u32, rng: &mut ChaCha8Rng) {
    for _ in 0..kills {
        let longest = if rng.random_bool(0.3) { 300 } else { 1500 };
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..longest))).await;
        service.process.kill();
        service.restart();
        if rng.random_bool(0.7) {
            service.wait_until_ready().await;
            caller.set_url(service.url());
        }
    }
    service.wait_until_ready().await;
    caller.set_url(service.url());
}

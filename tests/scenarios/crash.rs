//! The service dies at any instant, again and again, with tasks at every stage, and is started at once on the same journal.
//! What became of it all is counted at the agent server itself. `GREENROOM_CRASHES=100 cargo xtask test --e2e crash` for
//! more instants, `GREENROOM_SEED` for the same again (as far as time allows).

mod count;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures::future::{join, join_all};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use self::count::{Counted, count, rest};
use crate::harness::{
    Caller, Follower, Parent, Proxy, Scene, Service, Stage, id_of, until, unused_model,
};

crate::stories![; alone nothing_is_lost_or_doubled_at_any_instant];

/// How often it is killed if nobody says otherwise.
const CRASHES: u32 = 10;
/// How often while the tasks of one wave are under way.
const CRASHES_A_WAVE: u32 = 5;
const PARENTS: usize = 4;
/// Of each parent, with children of their own or without.
const TASKS_EACH: usize = 4;
/// Tasks of each wave that have two children each, so that twenty are launched.
const WITH_CHILDREN: usize = 2;
/// How long answers of the agent server are held.
const HELD: Duration = Duration::from_millis(150);
/// Of each of the two models.
const SLOTS: usize = 3;

/// How a task is meant to end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It answers that.
    Says(String),
    /// Its model refuses it.
    Fails,
    /// It would run for long, and is cancelled so long after it was accepted.
    CancelledAfter(Duration),
}

/// One task that is to be launched: under a key, so that it is accepted once however often it is asked for.
struct Wanted {
    key: String,
    launch: Value,
    fate: Fate,
    after: Duration,
    children: Vec<Wanted>,
}

/// A task that was accepted.
struct Accepted {
    key: String,
    launch: Value,
    fate: Fate,
    id: String,
    asked: u32,
}

async fn nothing_is_lost_or_doubled_at_any_instant() {
    let crashes = match crashes_asked_for() {
        0 => CRASHES,
        asked_for => asked_for,
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
        let kills = left.min(CRASHES_A_WAVE);
        left -= kills;
        let mut parents = Vec::new();
        for agent in ["build", "plan"].into_iter().cycle().take(PARENTS) {
            parents.push(scene.parent(agent).await);
        }
        // Every other wave dies with calls under way, most of which have had their effect.
        proxy.hold_answers(HELD * u32::from(all.len().is_multiple_of(2)));
        let wanted = wave(&scene, &models, &parents, all.len(), &mut rng);
        let launches = join_all(wanted.into_iter().map(|wanted| launch(&caller, wanted)));
        let killing = kill(&mut scene.service, &caller, kills, &mut rng);
        let (accepted, ()) = join(launches, killing).await;
        let accepted: Vec<Accepted> = accepted.into_iter().flatten().collect();
        rest(&scene, &accepted).await;
        count(&scene, &parents, &accepted).await;
        all.push((parents, accepted));
    }
    // Once more while nothing is open: what is over stays over, and is still known.
    kill(&mut scene.service, &caller, 1, &mut rng).await;
    let mut sum = Counted::default();
    let mut repeated = 0;
    for (parents, accepted) in &all {
        let counted = count(&scene, parents, accepted).await;
        sum.add(&counted);
        for task in accepted {
            let (status, again, _) = caller.launch(&task.key, &task.launch).await;
            assert_eq!((status, id_of(&again)), (200, task.id.clone()), "{again}");
            repeated += usize::from(task.asked > 1);
        }
    }
    until("every change was told", async || {
        let newest = follower.newest();
        let ids = all.iter().flat_map(|(_, accepted)| accepted);
        let mut states = ids.map(|task| (newest.get(&task.id), task.fate.status()));
        states
            .all(|(state, wanted)| state.is_some_and(|state| state == wanted))
            .then_some(())
    })
    .await;
    let changes = follower.is_whole();
    let launched: BTreeSet<String> = follower.newest().into_keys().collect();
    assert_eq!(launched.len(), sum.tasks, "none was launched twice");
    for model in &models {
        // A parent of tasks goes on above the limit when it is woken.
        let most = scene.stage.level(model).max;
        assert!(
            (1..=SLOTS + WITH_CHILDREN).contains(&most),
            "{most} at once"
        );
    }
    println!("{sum:?}, {changes} changes, {repeated} launches asked for more than once");
}

/// How many crashes somebody wants; zero if nobody has said.
pub fn crashes_asked_for() -> u32 {
    let asked_for = number("GREENROOM_CRASHES").unwrap_or_default();
    u32::try_from(asked_for).expect("so many crashes have no end")
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

impl Fate {
    /// The state in which it ends.
    fn status(&self) -> &'static str {
        match self {
            Self::Says(_) => "completed",
            Self::Fails => "error",
            Self::CancelledAfter(_) => "cancelled",
        }
    }
}

/// The tasks of one wave: each at a time of its own, for two keys that both are scarce.
fn wave(
    scene: &Scene,
    models: &[String; 2],
    parents: &[Parent],
    wave: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Wanted> {
    let mut one = |name: String, parent: Option<&Parent>, fate: Option<Fate>, turn: (u64, u64)| {
        let wait = rng.random_range(turn.0..turn.1);
        let fate = fate.unwrap_or_else(|| Fate::Says(format!("{name} is done")));
        let prompt = match &fate {
            Fate::Says(says) => format!("[[wait {wait}ms]][[say {says}]]"),
            Fate::Fails => format!("[[wait {wait}ms]][[fail 401]]"),
            Fate::CancelledAfter(_) => "[[wait 10m]]".to_owned(),
        };
        let mut launch = scene.task(parent, &prompt);
        launch["model"]["modelID"] = json!(models[rng.random_range(0..2)]);
        Wanted {
            key: format!("crash {name}"),
            launch,
            fate,
            after: Duration::from_millis(rng.random_range(0..2500)),
            children: Vec::new(),
        }
    };
    let mut wanted = Vec::new();
    for (nth, parent) in parents.iter().enumerate() {
        for each in 0..TASKS_EACH {
            let name = format!("task {wave}.{nth}.{each}");
            let has_children = each == 0 && nth < WITH_CHILDREN;
            let fate = match (nth, each) {
                (2, 1) => Some(Fate::Fails),
                (1 | 3, 1) => Some(Fate::CancelledAfter(Duration::from_millis(
                    700 * u64::try_from(nth).expect("few parents"),
                ))),
                _ => None,
            };
            let turn = match has_children {
                true => (2000, 3000),
                false => (500, 2500),
            };
            let mut task = one(name.clone(), Some(parent), fate, turn);
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
    let task = accepted(caller, wanted.key, wanted.launch, wanted.fate).await;
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
            all.push(accepted(caller, child.key, child.launch, child.fate).await);
        }
    }
    all.push(task);
    all
}

async fn accepted(caller: &Caller, key: String, launch: Value, fate: Fate) -> Accepted {
    let (status, task, asked) = caller.launch(&key, &launch).await;
    // Asked again, it may have been accepted by a service that did not live to say so.
    assert!(
        status == 201 || status == 200 && asked > 1,
        "{status} {task}"
    );
    if let Fate::CancelledAfter(after) = fate {
        tokio::time::sleep(after).await;
        let path = format!("/v1/tasks/{}/cancel", id_of(&task));
        let (status, answer, asked) = caller.post(&path, &json!({})).await;
        // Asked again, it may have been carried out by a service that did not live to say so.
        let done = status == 200 || status == 409 && asked > 1;
        assert!(done, "{status} {answer}");
    }
    Accepted {
        key,
        launch,
        fate,
        id: id_of(&task),
        asked,
    }
}

/// Kills the service so many times, at any moment after it was started: also before it is ready.
async fn kill(service: &mut Service, caller: &Caller, kills: u32, rng: &mut ChaCha8Rng) {
    for _ in 0..kills {
        let longest = if rng.random_bool(0.3) { 300 } else { 1500 };
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..longest))).await;
        service.process.kill();
        service.begin_again();
        if rng.random_bool(0.7) {
            service.is_back().await;
            caller.moved(service.url());
        }
    }
    service.is_back().await;
    caller.moved(service.url());
}

//! The service dies at any instant, again and again, with tasks at every stage, and is started at once on the same journal.
//! What became of it all is counted at the agent server itself. `GREENROOM_CRASHES=100 cargo xtask test --e2e crash` for
//! more instants, `GREENROOM_SEED` for the same again (as far as time allows).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures::future::{join, join_all};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::harness::{
    Caller, Follower, Parent, Scene, Service, id_of, notice_of, session_of, until,
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

/// One task that is to be launched: under a key, so that it is accepted once however often it is asked for.
struct Wanted {
    key: String,
    launch: Value,
    says: String,
    after: Duration,
    children: Vec<Wanted>,
}

/// A task that was accepted.
struct Accepted {
    key: String,
    launch: Value,
    says: String,
    id: String,
    asked: u32,
}

/// What was counted at the agent server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    tasks: usize,
    sessions: usize,
    prompts: usize,
    finals: usize,
    notes: usize,
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
    let mut scene = Scene::set(&[&journal, "limits.default=3"]).await;
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
        let wanted = wave(&scene, &parents, all.len(), &mut rng);
        let launches = join_all(wanted.into_iter().map(|wanted| launch(&caller, wanted)));
        let killing = kill(&mut scene.service, &caller, kills, &mut rng);
        let (accepted, ()) = join(launches, killing).await;
        let accepted: Vec<Accepted> = accepted.into_iter().flatten().collect();
        rest(&scene, &parents, &accepted).await;
        count(&scene, &parents, &accepted).await;
        all.push((parents, accepted));
    }
    // Once more while nothing is open: what is over stays over, and is still known.
    kill(&mut scene.service, &caller, 1, &mut rng).await;
    let mut sum = Counted::default();
    let mut repeated = 0;
    for (parents, accepted) in &all {
        let counted = count(&scene, parents, accepted).await;
        sum.tasks += counted.tasks;
        sum.sessions += counted.sessions;
        sum.prompts += counted.prompts;
        sum.finals += counted.finals;
        sum.notes += counted.notes;
        for task in accepted {
            let (status, again, _) = caller.launch(&task.key, &task.launch).await;
            assert_eq!((status, id_of(&again)), (200, task.id.clone()), "{again}");
            repeated += usize::from(task.asked > 1);
        }
    }
    until("every change was told", async || {
        let newest = follower.newest();
        let ids = all.iter().flat_map(|(_, accepted)| accepted);
        let mut ids = ids.map(|task| newest.get(&task.id));
        ids.all(|state| state.is_some_and(|state| state == "completed"))
            .then_some(())
    })
    .await;
    let changes = follower.is_whole();
    let launched: BTreeSet<String> = follower.newest().into_keys().collect();
    assert_eq!(launched.len(), sum.tasks, "none was launched twice");
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

/// The tasks of one wave: each at a time of its own, for two keys that both are scarce.
fn wave(scene: &Scene, parents: &[Parent], wave: usize, rng: &mut ChaCha8Rng) -> Vec<Wanted> {
    let mut one = |name: String, parent: Option<&Parent>, turn: (u64, u64)| {
        let says = format!("{name} is done");
        let wait = rng.random_range(turn.0..turn.1);
        let mut launch = scene.task(parent, &format!("[[wait {wait}ms]][[say {says}]]"));
        if rng.random_bool(0.5) {
            launch["model"]["modelID"] = json!("large");
        }
        Wanted {
            key: format!("crash {name}"),
            launch,
            says,
            after: Duration::from_millis(rng.random_range(0..2500)),
            children: Vec::new(),
        }
    };
    let mut wanted = Vec::new();
    for (nth, parent) in parents.iter().enumerate() {
        for each in 0..TASKS_EACH {
            let name = format!("task {wave}.{nth}.{each}");
            let has_children = each == 0 && nth < WITH_CHILDREN;
            let turn = if has_children {
                (2000, 3000)
            } else {
                (500, 2500)
            };
            let mut task = one(name.clone(), Some(parent), turn);
            if has_children {
                let children =
                    (0..2).map(|child| one(format!("{name}.{child}"), None, (500, 2000)));
                task.children = children.collect();
            }
            wanted.push(task);
        }
    }
    wanted
}

/// Launches a task and, once it has a session, its children.
async fn launch(caller: &Caller, wanted: Wanted) -> Vec<Accepted> {
    tokio::time::sleep(wanted.after).await;
    let task = accepted(caller, wanted.key, wanted.launch, wanted.says).await;
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
            all.push(accepted(caller, child.key, child.launch, child.says).await);
        }
    }
    all.push(task);
    all
}

async fn accepted(caller: &Caller, key: String, launch: Value, says: String) -> Accepted {
    let (status, task, asked) = caller.launch(&key, &launch).await;
    // Asked again, it may have been accepted by a service that did not live to say so.
    assert!(
        status == 201 || status == 200 && asked > 1,
        "{status} {task}"
    );
    Accepted {
        key,
        launch,
        says,
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

/// Waits until every task has ended, every parent was told and has answered, and no slot is held.
async fn rest(scene: &Scene, parents: &[Parent], accepted: &[Accepted]) {
    for task in accepted {
        scene.service.reaches(&task.id, "completed").await;
    }
    let mut sessions: BTreeSet<String> = parents.iter().map(|it| it.session.clone()).collect();
    for task in accepted {
        let parent = task.launch["parentSessionID"].as_str();
        sessions.extend(parent.map(str::to_owned));
    }
    for session in sessions {
        until(
            "the parent was told of everything and has answered",
            async || {
                let path = format!("/v1/sessions/{session}/notifications");
                let (_, told) = scene.service.get(&path).await;
                let mut told = told["notifications"].as_array()?.iter();
                let settled = told.all(|notice| notice["fate"] == "delivered")
                    && !finals(scene, &session).await.is_empty()
                    && scene.is_idle(&session).await;
                settled.then_some(())
            },
        )
        .await;
    }
    scene.service.slots_are_free().await;
}

/// What the marks of our messages to that session say, by kind.
async fn notices(scene: &Scene, session: &str) -> Vec<Value> {
    let messages = scene.opencode().messages(session).await;
    messages.iter().filter_map(notice_of).cloned().collect()
}

async fn finals(scene: &Scene, session: &str) -> Vec<Value> {
    let mut notices = notices(scene, session).await;
    notices.retain(|notice| notice["kind"] == "final");
    notices
}

/// Counts at the agent server what became of these tasks, and fails if anything is missing or there twice.
async fn count(scene: &Scene, parents: &[Parent], accepted: &[Accepted]) -> Counted {
    let mut counted = Counted {
        tasks: accepted.len(),
        ..Counted::default()
    };
    let ids: BTreeSet<&str> = accepted.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(
        ids.len(),
        accepted.len(),
        "each launch is a task of its own"
    );

    let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for session in scene.opencode().sessions(scene.project.path()).await {
        let mark = &session["metadata"]["greenroom"];
        if let Some(task) = mark["task"].as_str().filter(|task| ids.contains(task)) {
            assert_eq!(
                (&mark["run"], &mark["attempt"]),
                (&json!(1), &json!(1)),
                "{session}"
            );
            made.entry(task.to_owned())
                .or_default()
                .push(id_of(&session));
        }
    }
    for task in accepted {
        let record = scene.service.task(&task.id).await;
        assert_eq!(
            (&record["status"], &record["run"]),
            (&json!("completed"), &json!(1)),
            "{record}"
        );
        let session = session_of(&record);
        assert_eq!(
            made.get(&task.id),
            Some(&vec![session.clone()]),
            "its one session: {record}"
        );
        counted.sessions += 1;
        let messages = scene.opencode().messages(&session).await;
        let prompts = messages
            .iter()
            .filter(|message| is_prompt_of(message, &task.id))
            .count();
        assert_eq!(prompts, 1, "prompts of {}", task.id);
        counted.prompts += prompts;
        let has_children = accepted
            .iter()
            .any(|it| it.launch["parentSessionID"] == session.as_str());
        if !has_children {
            let asked = scene.stage.rehearsal.stats().sessions[&session].requests;
            assert_eq!(asked, 1, "turns of {}", task.id);
            let answer = scene.service.result(&task.id).await;
            assert_eq!(answer["result"], task.says.as_str(), "{answer}");
        }
    }

    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut sessions: BTreeSet<String> = parents.iter().map(|it| it.session.clone()).collect();
    sessions.extend(made.into_values().flatten());
    for session in sessions {
        let notices = notices(scene, &session).await;
        let distinct: BTreeSet<String> = notices.iter().map(id_of).collect();
        assert_eq!(
            distinct.len(),
            notices.len(),
            "a message of ours came twice to {session}"
        );
        for notice in notices {
            if notice["kind"] != "final" {
                counted.notes += 1;
                continue;
            }
            counted.finals += 1;
            for task in notice["tasks"].as_array().into_iter().flatten() {
                let task = task.as_str().unwrap_or_default();
                let of = accepted
                    .iter()
                    .find(|it| it.id == task)
                    .expect("a task of this wave");
                assert_eq!(
                    of.launch["parentSessionID"],
                    session.as_str(),
                    "told to its own parent"
                );
                *told.entry(task.to_owned()).or_default() += 1;
            }
        }
    }
    for task in accepted {
        let times = told.get(&task.id).copied().unwrap_or_default();
        assert_eq!(times, 1, "finals that name {}", task.id);
    }
    counted
}

/// True for the message by which that task was prompted.
fn is_prompt_of(message: &Value, task: &str) -> bool {
    let parts = message["parts"].as_array().into_iter().flatten();
    let mut marks = parts.map(|part| &part["metadata"]["greenroom"]);
    marks.any(|mark| mark["task"] == task)
}

//! What the service keeps: after many tasks its memory is what it was.

use std::time::{Duration, Instant};

use crate::harness::{Parent, Scene, id_of, until};

crate::stories![; alone two_hundred_tasks_leave_the_memory_as_it_was];

const WARM_UP: usize = 20;
const TASKS: usize = 200;
const AT_ONCE: usize = 20;
/// What it may have grown by, in percent.
const MORE: u64 = 10;

async fn two_hundred_tasks_leave_the_memory_as_it_was() {
    // What is remembered of ended tasks on purpose is bounded, but not yet full after so few.
    let settings = [
        "lifecycle.keep_ended=1s",
        "lifecycle.retention=1s",
        "limits.default=10",
    ];
    let scene = Scene::set(&settings).await;
    let parents = [scene.parent("build").await, scene.parent("plan").await];
    let begin = Instant::now();
    run(&scene, &parents, WARM_UP).await;
    let Some(before) = rest(&scene).await else {
        println!("this system does not say how much memory a process has: nothing is measured");
        return;
    };
    run(&scene, &parents, TASKS).await;
    let took = begin.elapsed();
    let most = before + before * MORE / 100;
    let mut after = u64::MAX;
    until("the memory is what it was", async || {
        after = after.min(rest(&scene).await?);
        (after <= most || begin.elapsed() > took + Duration::from_secs(15)).then_some(())
    })
    .await;
    println!(
        "{before} KiB after {WARM_UP} tasks, {after} KiB after {TASKS} more; all of them took {took:?}"
    );
    assert!(after <= most, "{after} KiB is more than {most} KiB");
}

/// So many tasks, some at a time; every third has no parent.
async fn run(scene: &Scene, parents: &[Parent; 2], tasks: usize) {
    for first in (0..tasks).step_by(AT_ONCE) {
        let mut launches = Vec::new();
        for task in first..tasks.min(first + AT_ONCE) {
            let parent = parents.get(task % 3);
            launches.push(scene.task(parent, &format!("[[say number {task}]]")));
        }
        let ends = launches.into_iter().map(async |launch| {
            let id = id_of(&scene.service.launch(launch).await);
            let task = scene.service.ended(&id).await;
            assert_eq!(task["status"], "completed", "{task}");
        });
        futures::future::join_all(ends).await;
    }
}

/// The memory of the service once no task is in its own.
async fn rest(scene: &Scene) -> Option<u64> {
    until("no task is in memory", async || {
        let (_, page) = scene.service.get("/v1/tasks").await;
        page["tasks"].as_array()?.is_empty().then_some(())
    })
    .await;
    scene.service.process.resident_kib()
}

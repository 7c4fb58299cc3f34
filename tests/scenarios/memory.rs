//! The memory of the service does not grow with the number of tasks.

use std::time::{Duration, Instant};

use crate::harness::{Parent, Scene, id_of, until};

crate::stories![; alone memory_does_not_grow_with_two_hundred_tasks];

const WARM_UP: usize = 20;
const TASKS: usize = 200;
const CONCURRENT: usize = 20;
/// The allowed growth, in percent.
const ALLOWED_GROWTH: u64 = 10;

async fn memory_does_not_grow_with_two_hundred_tasks() {
    // The record of ended tasks is bounded, but would not be full after these few.
    let settings = [
        "lifecycle.keep_ended=1s",
        "lifecycle.retention=1s",
        "limits.default=10",
    ];
    let scene = Scene::set(&settings).await;
    let parents = [scene.parent("build").await, scene.parent("plan").await];
    let begin = Instant::now();
    run(&scene, &parents, WARM_UP).await;
    let Some(before) = idle_memory(&scene).await else {
        println!("this system does not report the memory of a process: nothing is measured");
        return;
    };
    run(&scene, &parents, TASKS).await;
    let took = begin.elapsed();
    let most = before + before * ALLOWED_GROWTH / 100;
    let mut after = u64::MAX;
    until("the memory is back at its level", async || {
        after = after.min(idle_memory(&scene).await?);
        (after <= most || begin.elapsed() > took + Duration::from_secs(15)).then_some(())
    })
    .await;
    println!(
        "{before} KiB after {WARM_UP} tasks, {after} KiB after {TASKS} more; all of them took {took:?}"
    );
    assert!(after <= most, "{after} KiB is more than {most} KiB");
}

/// Runs that many tasks, some at a time; every third has no parent.
async fn run(scene: &Scene, parents: &[Parent; 2], tasks: usize) {
    for first in (0..tasks).step_by(CONCURRENT) {
        let mut launches = Vec::new();
        for task in first..tasks.min(first + CONCURRENT) {
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

/// Returns the memory of the service once it keeps no task.
async fn idle_memory(scene: &Scene) -> Option<u64> {
    until("no task is in memory", async || {
        let (_, page) = scene.service.get("/v1/tasks").await;
        page["tasks"].as_array()?.is_empty().then_some(())
    })
    .await;
    scene.service.process.resident_kib()
}

//! A plain opencode, which listens on no port: the plugin starts the service, and every call of opencode goes over the
//! bridge.

use serde_json::{Value, json};

use crate::harness::{
    House, id_of, launching, notice_of, outputs, session_of, text_of, tool_parts, until,
};

crate::stories![
    on_a_terminal_an_agent_is_woken_reads_cancels_and_hears_of_a_failure,
    under_run_an_agent_waits_for_its_tasks_and_reads_them,
    each_of_three_processes_has_its_own_tasks_done,
    a_service_that_dies_is_started_again_and_goes_on,
];

fn reading(nth: usize, block: bool) -> String {
    let args = json!({"task_id": format!("$task{nth}"), "block": block});
    format!("[[call background_output {args}]]")
}

fn finals(messages: &[Value]) -> Vec<&Value> {
    let is_final = |message: &&Value| notice_of(message).is_some_and(|it| it["kind"] == "final");
    messages.iter().filter(is_final).collect()
}

async fn on_a_terminal_an_agent_is_woken_reads_cancels_and_hears_of_a_failure() {
    let house = House::open().await;
    let project = house.project().await;
    let launches: String = (1..=3)
        .map(|nth| {
            // Longer than the agent takes to launch all, however busy the machine.
            let prompt = format!("[[wait 1{nth}s]][[say result number {nth}]]");
            launching(&format!("task {nth}"), "large", &prompt)
        })
        .collect();
    let reads: String = (1..=3).map(|nth| reading(nth, false)).collect();
    let prompt = [
        format!("{launches}[[say launched]]"),
        [
            reads,
            launching("to be cancelled", "large", "[[wait 60s]]"),
            format!("[[call background_cancel {}]]", json!({"taskId": "$task4"})),
            launching("to fail", "large", "[[wait 1s]][[fail 401]]"),
            "[[say read]]".to_owned(),
        ]
        .concat(),
        format!("{}[[say seen]]", reading(5, false)),
    ]
    .join("[[woken]]");
    let mut opencode = house.terminal(project.path(), &prompt);
    let tasks = house.ended_tasks(5).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap().to_owned();
    // Four turns to launch, seven after the first wake, two after the second.
    until("the agent has seen all", async || {
        let stats = house.rehearsal.stats();
        let asked = stats.sessions.get(&parent)?.requests;
        assert!(asked <= 13, "woken more often than twice");
        (asked == 13 && stats.in_flight.now == 0).then_some(())
    })
    .await;
    assert_eq!(house.services(), 1, "one service for all");
    let states: Vec<&str> = tasks
        .iter()
        .filter_map(|task| task["status"].as_str())
        .collect();
    assert_eq!(
        states,
        ["completed", "completed", "completed", "cancelled", "error"]
    );
    opencode.kill();

    let reader = house.reader().await;
    let said = reader.messages(&parent).await;
    let read = outputs(&said, "background_output");
    for (nth, output) in (1..=3).zip(&read) {
        assert!(output.contains(&format!("result number {nth}")), "{output}");
    }
    assert!(read[3].contains("rehearsed failure 401"), "{}", read[3]);
    let told = finals(&said);
    assert_eq!(told.len(), 2);
    assert!(text_of(told[1]).contains("FAILED"));
    let cancelled = id_of(&tasks[3]);
    assert!(
        !told
            .iter()
            .any(|message| text_of(message).contains(&cancelled))
    );
    for state in tool_parts(&said, "background_output") {
        let child = state["metadata"]["sessionId"]
            .as_str()
            .expect("the child")
            .to_owned();
        assert_eq!(reader.session(&child).await["parentID"], parent);
    }
}

async fn under_run_an_agent_waits_for_its_tasks_and_reads_them() {
    let house = House::open().await;
    let project = house.project().await;
    let prompt = [
        launching("first", "large", "[[wait 2s]][[say first result]]"),
        launching("second", "large", "[[wait 3s]][[say second result]]"),
        reading(1, true),
        reading(2, true),
        "[[say all read]]".to_owned(),
    ]
    .concat();
    let mut opencode = house.run(project.path(), &prompt);
    let status = opencode.wait(crate::harness::PATIENCE).await;
    assert!(status.success(), "{}", opencode.said());
    assert!(opencode.said().contains("all read"), "{}", opencode.said());
    let tasks = house.ended_tasks(2).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap();
    let said = house.reader().await.messages(parent).await;
    let read = outputs(&said, "background_output");
    assert!(
        read[0].contains("first result") && read[1].contains("second result"),
        "{read:?}"
    );
}

async fn each_of_three_processes_has_its_own_tasks_done() {
    let house = House::open().await.with_data().await;
    // Two in one directory, one in another.
    let (here, there) = (house.project().await, house.project().await);
    let places = [here.path(), here.path(), there.path()];
    let mut processes: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(nth, place)| {
            let task = format!("[[wait 3s]][[say done for number {nth}]]");
            let launch = launching(&format!("task {nth}"), "large", &task);
            let prompt = format!("{launch}{}[[say all read by {nth}]]", reading(1, true));
            house.run(place, &prompt)
        })
        .collect();
    for (nth, process) in processes.iter_mut().enumerate() {
        let status = process.wait(crate::harness::PATIENCE).await;
        let said = process.said();
        assert!(
            status.success() && said.contains(&format!("all read by {nth}")),
            "{said}"
        );
    }
    assert_eq!(house.services(), 1, "one service for all");
    let tasks = house.ended_tasks(3).await;
    let reader = house.reader().await;
    for (nth, place) in places.iter().enumerate() {
        let task = tasks
            .iter()
            .find(|task| task["description"] == format!("task {nth}"))
            .unwrap();
        assert_eq!(task["status"], "completed");
        let child = reader.session(&session_of(task)).await;
        assert_eq!(child["directory"], place.to_str().unwrap());
        let parent = task["parentSessionID"].as_str().unwrap();
        let said = reader.messages(parent).await;
        let read = outputs(&said, "background_output").concat();
        assert!(read.contains(&format!("done for number {nth}")), "{read}");
    }
}

async fn a_service_that_dies_is_started_again_and_goes_on() {
    let house = House::open().await;
    let project = house.project().await;
    let launches: String = (1..=2)
        .map(|nth| {
            let prompt = format!("[[wait 2{nth}s]][[say result number {nth}]]");
            launching(&format!("task {nth}"), "large", &prompt)
        })
        .collect();
    let reads: String = (1..=2).map(|nth| reading(nth, false)).collect();
    let prompt = format!("{launches}[[say launched]][[woken]]{reads}[[say read]]");
    let mut opencode = house.terminal(project.path(), &prompt);
    until("both tasks run", async || {
        let answer = house.ask("/v1/tasks?status=running").await?;
        (answer["tasks"].as_array()?.len() == 2).then_some(())
    })
    .await;
    house.kill_service();
    until("it is started again", async || {
        (house.services() == 2).then_some(())
    })
    .await;
    let tasks = house.ended_tasks(2).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap().to_owned();
    // Three turns to launch, three after the wake.
    until("the agent has read both", async || {
        let stats = house.rehearsal.stats();
        let asked = stats.sessions.get(&parent)?.requests;
        assert!(asked <= 6, "woken more often than once");
        (asked == 6 && stats.in_flight.now == 0).then_some(())
    })
    .await;
    opencode.kill();
    let said = house.reader().await.messages(&parent).await;
    assert_eq!(finals(&said).len(), 1);
    for (nth, output) in (1..=2).zip(outputs(&said, "background_output")) {
        assert!(output.contains(&format!("result number {nth}")), "{output}");
    }
}

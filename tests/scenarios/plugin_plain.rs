//! A plain opencode, which listens on no port: the plugin starts the service, and all calls go over the bridge.

use serde_json::{Value, json};

use crate::harness::{
    Workstation, id_of, launching, notice_of, outputs, session_of, text_of, tool_parts,
};

crate::stories![
    agent_on_a_terminal_uses_all_tools,
    agent_under_run_waits_for_its_tasks,
    three_processes_have_their_own_tasks,
    killed_service_is_restarted,
];

fn reading(nth: usize, block: bool) -> String {
    let args = json!({"task_id": format!("$task{nth}"), "block": block});
    format!("[[call background_output {args}]]")
}

fn finals(messages: &[Value]) -> Vec<&Value> {
    let is_final = |message: &&Value| notice_of(message).is_some_and(|it| it["kind"] == "final");
    messages.iter().filter(is_final).collect()
}

async fn agent_on_a_terminal_uses_all_tools() {
    let workstation = Workstation::open().await;
    let project = workstation.project().await;
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
    let mut opencode = workstation.prompted_terminal(project.path(), &prompt).await;
    let tasks = workstation.ended_tasks(5).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap().to_owned();
    // Four turns to launch, seven after the first wake, two after the second.
    workstation
        .waits("the agent has seen all", async || {
            let stats = workstation.rehearsal.stats();
            let requests = stats.sessions.get(&parent)?.requests;
            assert!(requests <= 13, "woken more often than twice");
            (requests == 13 && stats.in_flight.now == 0).then_some(())
        })
        .await;
    assert_eq!(workstation.services(), 1, "one service for all");
    let states: Vec<&str> = tasks
        .iter()
        .filter_map(|task| task["status"].as_str())
        .collect();
    assert_eq!(
        states,
        ["completed", "completed", "completed", "cancelled", "error"]
    );
    opencode.kill().await;

    let reader = workstation.reader().await;
    let messages = reader.messages(&parent).await;
    let read = outputs(&messages, "background_output");
    for (nth, output) in (1..=3).zip(&read) {
        assert!(output.contains(&format!("result number {nth}")), "{output}");
    }
    assert!(read[3].contains("rehearsed failure 401"), "{}", read[3]);
    let notices = finals(&messages);
    assert_eq!(notices.len(), 2);
    assert!(text_of(notices[1]).contains("FAILED"));
    let cancelled = id_of(&tasks[3]);
    assert!(
        !notices
            .iter()
            .any(|message| text_of(message).contains(&cancelled))
    );
    for state in tool_parts(&messages, "background_output") {
        let child = state["metadata"]["sessionId"]
            .as_str()
            .expect("the child")
            .to_owned();
        assert_eq!(reader.session(&child).await["parentID"], parent);
    }
}

async fn agent_under_run_waits_for_its_tasks() {
    let workstation = Workstation::open().await;
    let project = workstation.project().await;
    let workstation = workstation.with_service(project.path()).await;
    let prompt = [
        launching("first", "large", "[[wait 2s]][[say first result]]"),
        launching("second", "large", "[[wait 3s]][[say second result]]"),
        reading(1, true),
        reading(2, true),
        "[[say all read]]".to_owned(),
    ]
    .concat();
    let mut opencode = workstation.run(project.path(), &prompt);
    let status = opencode.wait(crate::harness::TIMEOUT).await;
    assert!(status.success(), "{}", opencode.output());
    assert!(
        opencode.output().contains("all read"),
        "{}",
        opencode.output()
    );
    let tasks = workstation.ended_tasks(2).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap();
    let messages = workstation.reader().await.messages(parent).await;
    let read = outputs(&messages, "background_output");
    assert!(
        read[0].contains("first result") && read[1].contains("second result"),
        "{read:?}"
    );
}

async fn three_processes_have_their_own_tasks() {
    let workstation = Workstation::open().await.with_data().await;
    // Two in one directory, one in another.
    let (here, there) = (workstation.project().await, workstation.project().await);
    let projects = [here.path(), here.path(), there.path()];
    let mut processes: Vec<_> = projects
        .iter()
        .enumerate()
        .map(|(nth, project)| {
            let task = format!("[[wait 3s]][[say done for number {nth}]]");
            let launch = launching(&format!("task {nth}"), "large", &task);
            let prompt = format!("{launch}{}[[say all read by {nth}]]", reading(1, true));
            workstation.run(project, &prompt)
        })
        .collect();
    for (nth, process) in processes.iter_mut().enumerate() {
        let status = process.wait(crate::harness::TIMEOUT).await;
        let output = process.output();
        assert!(
            status.success() && output.contains(&format!("all read by {nth}")),
            "{output}"
        );
    }
    assert_eq!(workstation.services(), 1, "one service for all");
    let tasks = workstation.ended_tasks(3).await;
    let reader = workstation.reader().await;
    for (nth, project) in projects.iter().enumerate() {
        let task = tasks
            .iter()
            .find(|task| task["description"] == format!("task {nth}"))
            .unwrap();
        assert_eq!(task["status"], "completed");
        let child = reader.session(&session_of(task)).await;
        assert_eq!(child["directory"], project.to_str().unwrap());
        let parent = task["parentSessionID"].as_str().unwrap();
        let messages = reader.messages(parent).await;
        let read = outputs(&messages, "background_output").concat();
        assert!(read.contains(&format!("done for number {nth}")), "{read}");
    }
}

async fn killed_service_is_restarted() {
    let workstation = Workstation::open().await;
    let project = workstation.project().await;
    let launches: String = (1..=2)
        .map(|nth| {
            let prompt = format!("[[wait 2{nth}s]][[say result number {nth}]]");
            launching(&format!("task {nth}"), "large", &prompt)
        })
        .collect();
    let reads: String = (1..=2).map(|nth| reading(nth, false)).collect();
    let prompt = format!("{launches}[[say launched]][[woken]]{reads}[[say read]]");
    let mut opencode = workstation.prompted_terminal(project.path(), &prompt).await;
    workstation
        .waits("both tasks run", async || {
            let answer = workstation.ask("/v1/tasks?status=running").await?;
            (answer["tasks"].as_array()?.len() == 2).then_some(())
        })
        .await;
    workstation.kill_service();
    workstation
        .waits("it is started again", async || {
            (workstation.services() == 2).then_some(())
        })
        .await;
    let tasks = workstation.ended_tasks(2).await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap().to_owned();
    // Three turns to launch, three after the wake.
    workstation
        .waits("the agent has read both", async || {
            let stats = workstation.rehearsal.stats();
            let requests = stats.sessions.get(&parent)?.requests;
            assert!(requests <= 6, "woken more often than once");
            (requests == 6 && stats.in_flight.now == 0).then_some(())
        })
        .await;
    opencode.kill().await;
    let messages = workstation.reader().await.messages(&parent).await;
    assert_eq!(finals(&messages).len(), 1);
    for (nth, output) in (1..=2).zip(outputs(&messages, "background_output")) {
        assert!(output.contains(&format!("result number {nth}")), "{output}");
    }
}

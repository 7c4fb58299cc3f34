//! The bridge of a real opencode is cut for long while thousands of events happen, and it is the only connection. Tasks that
//! end, fail, ask or are cancelled meanwhile, and calls in flight, end correctly and take effect once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    EventTap, Proxy, Scene, Stage, free_port, id_of, launching, notice_of, outputs, session_of,
    tool_parts, until,
};

crate::stories![; alone twenty_seconds_with_five_thousand_events];

/// The shortest cut.
const CUT: Duration = Duration::from_secs(20);
/// The smallest number of events during the cut.
const EVENTS: usize = 5_000;
/// Children that stream words.
const TALKERS: usize = 12;
/// The number of words of each; each word is an event.
const WORDS: usize = 650;
/// Children that call tools, and the number of calls of each.
const STEPPERS: usize = 2;
const STEPS: usize = 25;
/// The number of frames that the plugin keeps for the service.
const BUFFERED_FRAMES: usize = 1_000;
/// The allowed growth of opencode's process, in KiB: its own garbage is some 100 MiB. The data of the plugin is counted in
/// frames.
const GROWTH: u64 = 256 * 1024;

async fn twenty_seconds_with_five_thousand_events() {
    let port = free_port();
    let proxy = Proxy::start(port).await;
    let settings = ["limits.default=30", "safety.repeated_tool_calls=1000"];
    let scene = Scene::plugged_alone(&settings, port, &proxy.url()).await;
    let tap = EventTap::start(scene.opencode(), scene.project.path()).await;
    let (parent, reader, caller) = futures::join!(
        scene.parent("build"),
        scene.parent("plan"),
        scene.parent("build")
    );

    // Launched by an agent: a task that outlasts the cut, and a task that is cancelled meanwhile.
    let launches = [
        launching("goes on", &scene.model, "[[wait 32s]][[say later]]"),
        launching("to be cancelled", &scene.model, "[[hang]]"),
    ];
    let launches = format!("{}[[say launched]]", launches.concat());
    scene.turn(&parent, &launches).await;
    let launched = scene.tasks_of(&parent.session).await;
    let [goes_on, cancelled] = &ids(&launched)[..] else {
        panic!("{launched:?}")
    };
    // Another agent waits for its task all the time.
    let launch = launching("is waited for", &scene.model, "[[wait 20s]][[say read it]]");
    let args = json!({"task_id": "$task1", "block": true});
    let wait = format!("{launch}[[call background_output {args}]][[say read]]");
    scene.prompt(&reader.session, reader.agent, &wait).await;
    scene
        .calls(&reader.session, "background_output", "running")
        .await;
    let waited_for = ids(&scene.tasks_of(&reader.session).await).remove(0);
    // Further tasks: words, tools, a task that asks and a task that fails.
    let words = format!("[[slow 15s]][[say {}]]", "w ".repeat(WORDS));
    let step = json!({"command": "true"});
    let steps = format!("[[repeat {STEPS} bash {step}]][[say worked]]");
    let asking = "[[wait 8s]][[call bash {\"command\": \"echo allowed\"}]][[say allowed]]";
    let mut asks = scene.task(Some(&parent), asking);
    asks["permission"] = json!([{"permission": "bash", "pattern": "*", "action": "ask"}]);
    let asks = id_of(&scene.service.launch(asks).await);
    let fails = scene
        .launch(Some(&parent), "[[wait 10s]][[fail 401]]")
        .await;
    let mut busy = Vec::new();
    for prompt in [vec![&words; TALKERS], vec![&steps; STEPPERS]].concat() {
        busy.push(scene.launch(Some(&parent), prompt).await);
    }
    for id in busy.iter().chain([goes_on, cancelled, &asks, &fails]) {
        scene.service.reaches(id, "running").await;
        // A running task has a session; the cut must happen after its prompt.
        let session = session_of(&scene.service.task(id).await);
        until("its prompt has arrived", async || {
            let messages = scene.opencode().messages(&session).await;
            (!messages.is_empty()).then_some(())
        })
        .await;
    }

    // A call has taken effect, and its answer is in flight, when the connection is cut.
    proxy.keep_answers();
    let launch = launching("once", &scene.model, "[[wait 1s]][[say once]]");
    let launch = format!("{launch}[[say launched]]");
    scene.prompt(&caller.session, caller.agent, &launch).await;
    let once = until("the call has taken effect", async || {
        ids(&scene.tasks_of(&caller.session).await).pop()
    })
    .await;
    proxy.cut();
    let (cut, resident) = (Instant::now(), scene.opencode().resident_kib());
    scene.bridges(0).await;
    let session = session_of(&scene.service.task(cancelled).await);
    let (status, answer) = scene
        .service
        .post(
            &format!("/v1/tasks/{cancelled}/cancel"),
            json!({"reason": "enough"}),
        )
        .await;
    assert_eq!(
        (status, &answer["status"]),
        (200, &json!("cancelled")),
        "{answer}"
    );
    let late = scene.launch(Some(&parent), "[[say begun late]]").await;
    let of = |kind: &str| tap.since(cut, |event| event["type"] == kind);
    until("enough events have happened during the cut", async || {
        let ends = of("session.error") > 0 && of("session.idle") > 0;
        let has_ask = of("permission.asked") == 1;
        let enough = tap.since(cut, |_| true) >= EVENTS && ends && has_ask;
        (enough && cut.elapsed() >= CUT).then_some(())
    })
    .await;
    let still = scene
        .calls(&reader.session, "background_output", "running")
        .await;
    assert_eq!(still, 1, "it still waits for the answer");
    assert_eq!(scene.service.task(&late).await["status"], "pending");
    println!(
        "{} events in {:?}, {} of them pieces of text",
        tap.since(cut, |_| true),
        cut.elapsed(),
        of("message.part.delta"),
    );
    let frames = proxy.frames();
    proxy.restore();
    scene.bridges(1).await;

    let log = scene.service.process.output();
    assert!(log.contains("reason=PeerClosed"), "a cut is logged");

    // The ask is listed, although its event was lost.
    let ask = until("the ask is listed", async || {
        let (_, open) = scene.service.get("/v1/asks").await;
        let open = open["asks"].as_array()?.first()?.clone();
        Some(open["id"].as_str()?.to_owned())
    })
    .await;
    // Kept frames, a hello, the calls in flight, answers, and new events.
    let sent = proxy.frames() - frames;
    println!("{sent} frames sent afterwards");
    assert!(sent <= BUFFERED_FRAMES + 200, "{sent} frames were kept");
    let once_only = json!({"answer": "once"});
    let (status, answer) = scene
        .service
        .post(&format!("/v1/asks/{ask}"), once_only)
        .await;
    assert_eq!(status, 200, "{answer}");

    for id in busy
        .iter()
        .chain([goes_on, &waited_for, &asks, &once, &late])
    {
        let task = scene.service.ended(id).await;
        assert_eq!(task["status"], "completed", "{task}");
    }
    assert_eq!(scene.service.ended(&fails).await["status"], "error");
    let ended = scene.service.ended(cancelled).await;
    assert_eq!(
        (&ended["status"], &ended["error"]),
        (&json!("cancelled"), &json!("enough"))
    );
    until("the cancelled session is idle", async || {
        scene.is_idle(&session).await.then_some(())
    })
    .await;

    // Every parent has one final, which names each of its tasks once.
    let mut of_parent: Vec<&str> = busy.iter().map(String::as_str).collect();
    of_parent.extend([&fails, goes_on, cancelled, &asks, &late].map(String::as_str));
    let text = scene.notified_once(&parent, &of_parent).await;
    assert!(text.contains("FAILED"), "{text}");
    for id in &of_parent {
        assert!(scene.individuals_naming(&parent, id).await <= 1, "{id}");
    }
    scene.notified_once(&reader, &[&waited_for]).await;
    scene.notified_once(&caller, &[&once]).await;

    // The calls in flight were answered once, and took effect once.
    let messages = scene.opencode().messages(&reader.session).await;
    let read = outputs(&messages, "background_output");
    assert!(read.len() == 1 && read[0].contains("read it"), "{read:?}");
    let messages = scene.opencode().messages(&caller.session).await;
    let called = outputs(&messages, "background_task");
    assert!(called.len() == 1 && called[0].contains(&once), "{called:?}");
    for (agent, tasks) in [(&parent, of_parent.len()), (&reader, 1), (&caller, 1)] {
        assert_eq!(scene.tasks_of(&agent.session).await.len(), tasks);
        assert_eq!(
            scene.children(&agent.session).await,
            tasks,
            "no task has two sessions"
        );
    }
    if let (Some(from), Some(to)) = (resident, scene.opencode().resident_kib()) {
        println!("opencode had {from} KiB at the cut, and has {to} KiB");
        assert!(to < from + GROWTH, "from {from} KiB to {to} KiB");
    }
}

fn ids(tasks: &[Value]) -> Vec<String> {
    tasks.iter().map(id_of).collect()
}

impl Scene<Stage> {
    /// Sends a prompt to a session without waiting for its turn.
    async fn prompt(&self, session: &str, agent: &str, text: &str) {
        self.opencode().prompt(session, agent, "small", text).await;
    }

    /// Waits until a session has calls of a tool in that state, and returns their number.
    async fn calls(&self, session: &str, tool: &str, status: &str) -> usize {
        until("a call is in its state", async || {
            let messages = self.opencode().messages(session).await;
            let calls = tool_parts(&messages, tool);
            let fit = calls.iter().filter(|state| state["status"] == status);
            Some(fit.count()).filter(|count| *count > 0)
        })
        .await
    }

    /// Returns the number of child sessions.
    async fn children(&self, session: &str) -> usize {
        let sessions = self.opencode().sessions(self.project.path()).await;
        let below = sessions.iter().filter(|it| it["parentID"] == session);
        below.count()
    }

    /// Returns the number of individual messages to that parent that name this task.
    async fn individuals_naming(&self, parent: &crate::harness::Parent, id: &str) -> usize {
        let notices = self.notices(parent, "individual").await;
        let naming = notices.iter().filter(|message| {
            let tasks = notice_of(message).and_then(|notice| notice["tasks"].as_array());
            tasks.is_some_and(|tasks| tasks.iter().any(|task| task == id))
        });
        naming.count()
    }
}

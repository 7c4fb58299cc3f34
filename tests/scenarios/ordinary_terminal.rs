//! opencode without a port, on a terminal or as `opencode run`: it ends while tasks work, in each way in which
//! users end it. Ending it is not the Esc of a user: the next opencode of the folder continues the tasks, as after kill -9.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::ordinary::{ASKING, UNTIL_CUT_OFF, finals, has_turn_after, user_messages};
use crate::harness::{
    Opencode, TIMEOUT, Terminal, Workstation, launching, messages_state, session_of, until_or_print,
};

crate::stories![
    tasks_continue_after_ctrl_c,
    tasks_and_a_busy_parent_survive_ctrl_c,
    tasks_continue_after_the_exit_command,
    tasks_continue_after_sigterm,
    tasks_continue_after_the_terminal_is_closed,
    tasks_continue_after_kill_9,
    tasks_continue_after_opencode_run_has_ended,
    esc_on_a_terminal_silences_the_parent,
];

/// How long a folder is without an opencode.
const ABSENCE: Duration = Duration::from_secs(12);
/// How long a parent is observed that must stay idle.
const OBSERVED: Duration = Duration::from_secs(8);

async fn tasks_continue_after_ctrl_c() {
    continued_after(false, async |terminal| terminal.types(CTRL_C)).await;
}

async fn tasks_and_a_busy_parent_survive_ctrl_c() {
    continued_after(true, async |terminal| terminal.types(CTRL_C)).await;
}

async fn tasks_continue_after_the_exit_command() {
    continued_after(false, async |terminal| {
        terminal.types("/exit");
        terminal.shows("Exit the app").await;
        terminal.types(ENTER);
    })
    .await;
}

async fn tasks_continue_after_sigterm() {
    continued_after(false, async |terminal| terminal.signal(Signal::SIGTERM)).await;
}

async fn tasks_continue_after_the_terminal_is_closed() {
    continued_after(false, async |terminal| terminal.close().await).await;
}

/// The control: no abort is stored, and no process is left that could report one.
async fn tasks_continue_after_kill_9() {
    continued_after(false, async |terminal| terminal.kill().await).await;
}

async fn tasks_continue_after_opencode_run_has_ended() {
    let folder = Folder::open().await;
    // `opencode run` calls its first tool at once: the service is there before.
    folder
        .workstation
        .terminal(folder.path())
        .await
        .kill()
        .await;
    let prompt = format!("{}[[say launched]]", launches());
    let mut run = folder.workstation.run(folder.path(), &prompt);
    let status = run.wait(TIMEOUT).await;
    assert!(status.success(), "{}", run.output());
    let tasks = folder.three_tasks().await;
    folder.absence_then_all_complete(&tasks).await;
}

async fn esc_on_a_terminal_silences_the_parent() {
    let folder = Folder::open().await;
    let mut terminal = folder.workstation.terminal(folder.path()).await;
    let launches: String = (1..=3)
        .map(|nth| {
            let prompt = format!("[[wait 4{nth}s]][[say result {nth}]]");
            launching(&format!("task {nth}"), "large", &prompt)
        })
        .collect();
    terminal.submits(&format!("{launches}[[hang]]")).await;
    folder.asking("large", 3).await;
    folder.asking("small", 1).await;
    let tasks = folder.three_tasks().await;
    // The default answer of the model: the turn has output.
    terminal.shows("Done:").await;
    terminal.types(ESC);
    terminal.shows("again to interrupt").await;
    terminal.types(ESC);
    folder.asking("small", 0).await;
    let turns = folder.turns_of_parent(&tasks);

    let ended = folder.all_ended(3).await;
    let state = folder.workstation.state().await;
    for task in &ended {
        assert_eq!(task["status"], "completed", "{state}");
    }
    folder.final_is_delivered(&tasks).await;
    // It stays idle.
    tokio::time::sleep(OBSERVED).await;
    let state = folder.workstation.state().await;
    assert_eq!(folder.turns_of_parent(&tasks), turns, "no turn\n{state}");
    terminal.kill().await;
    let parent = tasks[0]["parentSessionID"].as_str().unwrap();
    let messages = folder.workstation.reader().await.messages(parent).await;
    let [(at, _)] = finals(&messages)[..] else {
        panic!("one final\n{state}")
    };
    assert!(
        !has_turn_after(&messages, at),
        "the final is silent\n{state}"
    );
}

/// The text that opencode shows while its session is busy.
const INTERRUPT: &str = "esc interrupt";
const CTRL_C: &str = "\x03";
const ESC: &str = "\x1b";
const ENTER: &str = "\r";

/// An opencode launches three tasks and is ended while they work; another one is started in the folder. Fails unless all
/// tasks are continued and completed, and the parent has received one final and answered it.
async fn continued_after(busy_parent: bool, end: impl AsyncFnOnce(&mut Terminal)) {
    let folder = Folder::open().await;
    let mut terminal = folder.workstation.terminal(folder.path()).await;
    let last = if busy_parent {
        "[[hang]]"
    } else {
        "[[say launched]]"
    };
    terminal.submits(&format!("{}{last}", launches())).await;
    let tasks = folder.three_tasks().await;
    folder.in_tool_call(2).await;
    folder.asking("large", ASKING).await;
    // Three turns to launch, and the last one.
    folder
        .workstation
        .waits("the parent is in its last turn, or after it", async || {
            (folder.turns_of_parent(&tasks) == 4).then_some(())
        })
        .await;
    folder.asking("small", usize::from(busy_parent)).await;
    if !busy_parent {
        terminal.shows_no(INTERRUPT).await;
    }
    end(&mut terminal).await;
    terminal.wait(TIMEOUT).await;
    folder.absence_then_all_complete(&tasks).await;
}

/// Returns the prompt that launches the tasks of [`UNTIL_CUT_OFF`].
fn launches() -> String {
    let launch = |(nth, prompt): (usize, &&str)| launching(&format!("task {nth}"), "large", prompt);
    UNTIL_CUT_OFF.iter().enumerate().map(launch).collect()
}

/// A workstation with one project, in which the plugin is installed.
struct Folder {
    workstation: Workstation,
    project: TempDir,
}

impl Folder {
    async fn open() -> Self {
        let workstation = Workstation::open().await;
        let project = workstation.project().await;
        Self {
            workstation,
            project,
        }
    }

    fn path(&self) -> &std::path::Path {
        self.project.path()
    }

    /// Waits until that model has that many concurrent requests.
    async fn asking(&self, model: &str, count: usize) {
        let what = format!("{count} requests of the model {model}");
        self.workstation
            .waits(&what, async || {
                let stats = self.workstation.rehearsal.stats();
                let now = stats.models.get(model).map_or(0, |it| it.in_flight.now);
                (now == count).then_some(())
            })
            .await;
    }

    /// The three tasks of the folder, oldest first, once all run.
    async fn three_tasks(&self) -> Vec<Value> {
        self.workstation
            .waits("three tasks have a session", async || {
                let tasks = self.workstation.tasks().await?;
                let started = tasks.iter().filter(|task| task["sessionID"].is_string());
                (started.count() == 3).then_some(tasks)
            })
            .await
    }

    /// Waits until the service knows that the task is in its tool call.
    async fn in_tool_call(&self, nth: usize) {
        self.workstation
            .waits("the task is in its tool call", async || {
                let tasks = self.workstation.tasks().await?;
                (tasks[nth]["progress"]["toolCalls"] == 1).then_some(())
            })
            .await;
    }

    async fn all_ended(&self, count: usize) -> Vec<Value> {
        let is_open = |task: &Value| task["status"] == "pending" || task["status"] == "running";
        self.workstation
            .waits("all tasks have ended", async || {
                let tasks = self.workstation.tasks().await?;
                (tasks.len() == count && !tasks.iter().any(is_open)).then_some(tasks)
            })
            .await
    }

    async fn final_is_delivered(&self, tasks: &[Value]) {
        let parent = tasks[0]["parentSessionID"].as_str().unwrap();
        let path = format!("/v1/sessions/{parent}/notifications");
        self.workstation
            .waits("a final is delivered", async || {
                let sent = self.workstation.ask(&path).await?;
                let finals = crate::harness::ordinary::final_notifications(&sent);
                (finals.first()?["fate"] == "delivered").then_some(())
            })
            .await;
    }

    /// Returns the number of requests of the parent.
    fn turns_of_parent(&self, tasks: &[Value]) -> u64 {
        let parent = tasks[0]["parentSessionID"].as_str().unwrap();
        let stats = self.workstation.rehearsal.stats();
        stats.sessions.get(parent).map_or(0, |it| it.requests)
    }

    /// Starts another opencode after the time without one.
    async fn absence_then_all_complete(&self, tasks: &[Value]) {
        // The test is about this time without an opencode.
        tokio::time::sleep(ABSENCE).await;
        self.workstation
            .waits("the tasks wait for the next opencode", async || {
                let tasks = self.workstation.tasks().await?;
                let waits = |task: &Value| task["status"] == "pending";
                tasks.iter().all(waits).then_some(())
            })
            .await;
        let mut terminal = self.workstation.terminal(self.path()).await;
        let ended = self.all_ended(3).await;
        let state = self.workstation.state().await;
        for task in &ended {
            assert_eq!(
                (&task["status"], &task["run"]),
                (&json!("completed"), &json!(1)),
                "{state}"
            );
        }
        self.final_is_delivered(tasks).await;
        // A second server on the same data reads the stored messages while the first server still works.
        let reader = self.workstation.reader().await;
        let parent = tasks[0]["parentSessionID"].as_str().unwrap();
        let answered = async || {
            let messages = reader.messages(parent).await;
            let is_answered = |(at, _): &(usize, &Value)| has_turn_after(&messages, *at);
            finals(&messages).iter().any(is_answered).then_some(())
        };
        let state = async || {
            let messages = reader.messages(parent).await;
            self.workstation.state().await + &messages_state(parent, &messages)
        };
        until_or_print("the parent has answered the final", answered, state).await;
        self.continued_once(&reader, tasks).await;
        terminal.kill().await;
    }

    /// Reads the sessions: fails unless each task was prompted once to continue and the parent has one answered final.
    async fn continued_once(&self, reader: &Opencode, tasks: &[Value]) {
        let parent = tasks[0]["parentSessionID"].as_str().unwrap();
        let mut state = self.workstation.state().await;
        let of_parent = reader.messages(parent).await;
        state += &messages_state(parent, &of_parent);
        let mut prompts = Vec::new();
        for task in tasks {
            let session = session_of(task);
            let messages = reader.messages(&session).await;
            state += &messages_state(&session, &messages);
            prompts.push(user_messages(&messages).len());
        }
        assert_eq!(
            prompts, [2; 3],
            "each task is prompted once to continue\n{state}"
        );
        let [(at, _)] = finals(&of_parent)[..] else {
            panic!("one final\n{state}")
        };
        assert!(
            has_turn_after(&of_parent, at),
            "the final is answered\n{state}"
        );
    }
}

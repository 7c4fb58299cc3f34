//! The command as a user runs it: its output, its exit codes, its end.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Process, Ran, Scene, free_port, greenroom, id_of, opencode_bin, ready, run, session_of, until,
    until_or_print,
};

crate::stories![
    run_prints_the_result,
    failed_task_exits_with_one,
    commands_on_a_task,
    missing_things_have_exit_codes,
    invalid_arguments_exit_with_two,
    interrupt_stops_service_and_tasks,
    rehearsal_starts_with_one_command,
    killed_up_leaves_no_opencode,
];

/// How long the service takes at most to end: aborts are awaited for ten seconds, messages for five.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

#[track_caller]
fn assert_code(ran: &Ran, code: i32) {
    assert_eq!(ran.code, code, "stdout: {}\nstderr: {}", ran.out, ran.err);
}

async fn run_prints_the_result() {
    let scene = Scene::set(&[]).await;
    let parent = scene.parent("plan").await;
    let model = format!("rehearsal/{}", scene.model);
    let args = [
        "run",
        "[[wait 2s]][[say The answer.]]",
        "--agent",
        "general",
        "--model",
        &model,
    ];
    let ran = scene
        .service
        .command(&[&args[..], &["--parent", &parent.session]].concat())
        .await;
    assert_code(&ran, 0);
    assert_eq!(
        ran.out, "The answer.\n",
        "stdout is the result and nothing else"
    );
    let (_, listed) = scene.service.get("/v1/tasks").await;
    scene
        .notified_once(&parent, &[&id_of(&listed["tasks"][0])])
        .await;
}

async fn failed_task_exits_with_one() {
    let scene = Scene::set(&[]).await;
    let model = format!("rehearsal/{}", scene.model);
    let ran = scene
        .service
        .command(&["run", "[[fail 401]]", "--model", &model])
        .await;
    assert_code(&ran, 1);
    assert!(ran.err.contains("rehearsed failure 401"), "{}", ran.err);
    assert_eq!(ran.out, "");
}

async fn commands_on_a_task() {
    let scene = Scene::set(&[]).await;
    let model = format!("rehearsal/{}", scene.model);
    let greenroom = async |args: &[&str]| scene.service.command(args).await;

    let ran = greenroom(&[
        "run",
        "[[say first]]",
        "--model",
        &model,
        "--description",
        "look around",
        "--detach",
    ])
    .await;
    assert_code(&ran, 0);
    let id = ran
        .out
        .split_whitespace()
        .find(|word| word.starts_with("bg_"))
        .expect("an id")
        .to_owned();
    let task = scene.service.reaches(&id, "completed").await;

    let ran = greenroom(&["list"]).await;
    assert_code(&ran, 0);
    assert!(
        ran.out.contains(&id) && ran.out.contains("look around") && ran.out.contains("completed"),
        "{}",
        ran.out
    );
    let ran = greenroom(&["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(listed.to_string().contains(&id), "{listed}");

    for name in [&id, &id[..9], &session_of(&task)] {
        let ran = greenroom(&["show", name, "--json"]).await;
        assert_code(&ran, 0);
        assert!(ran.out.contains(&id), "{}", ran.out);
        let ran = greenroom(&["output", name]).await;
        assert_code(&ran, 0);
        assert_eq!(ran.out, "first\n");
    }

    let ran = greenroom(&["resume", &id, "[[wait 1s]][[say second]]"]).await;
    assert_code(&ran, 0);
    assert_eq!(ran.out, "second\n");

    let ran = greenroom(&["resume", &id, "[[wait 60s]]", "--detach"]).await;
    assert_code(&ran, 0);
    scene.works(1).await;
    let ran = greenroom(&["cancel", &id, "--reason", "enough"]).await;
    assert_code(&ran, 0);
    let task = scene.service.reaches(&id, "cancelled").await;
    assert_eq!(task["error"], "enough");
    let ran = greenroom(&["cancel", &id]).await;
    assert_code(&ran, 1);
    assert!(
        ran.err.contains("cancelled"),
        "it prints the reason: {}",
        ran.err
    );
    scene.service.slots_are_free().await;
}

async fn missing_things_have_exit_codes() {
    let scene = Scene::set(&[]).await;
    let ran = scene.service.command(&["show", "bg_ffffffff"]).await;
    assert_code(&ran, 1);
    assert!(ran.err.contains("bg_ffffffff"), "{}", ran.err);
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let ran = scene.service.command(&["list", "--url", &nowhere]).await;
    assert_code(&ran, 3);
    assert!(
        ran.err.contains(&nowhere) && ran.err.contains("greenroom up"),
        "{}",
        ran.err
    );
}

async fn invalid_arguments_exit_with_two() {
    let home = tempfile::tempdir().unwrap();
    for (args, word) in [
        (
            &["serve", "--set", "lifecycle.stale_timout=10s"][..],
            "lifecycle.stale_timeout",
        ),
        (
            &["serve", "--set", "lifecycle.stale_timeout=soon"],
            "lifecycle.stale_timeout",
        ),
        (&["serve", "--listen", "nowhere"], "listen"),
        (&["serve", "--listen", "0.0.0.0:0"], "token"),
        (&["serve", "--opencode", "ftp://nowhere"], "opencode"),
        (&["run"], "PROMPT"),
        (&["cancel"], "--all"),
        (&["lisst"], "list"),
    ] {
        let mut command = greenroom(home.path());
        command.args(args);
        let ran = run(command).await;
        assert_code(&ran, 2);
        assert!(ran.err.contains(word), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?} prints nothing on stdout");
    }
}

async fn interrupt_stops_service_and_tasks() {
    let mut scene = Scene::set(&["limits.default=1"]).await;
    let parent = scene.parent("build").await;
    scene.launch_until_working(&parent, "[[wait 60s]]").await;
    scene.launch(Some(&parent), "[[say never]]").await;
    scene.service.process.signal(Signal::SIGINT);
    let status = scene.service.process.wait(ENDS_WITHIN).await;
    assert_eq!(
        Process::code(status),
        0,
        "{}",
        scene.service.process.output()
    );
    until("the session is aborted", async || {
        (scene.stage.level(&scene.model).now == 0).then_some(())
    })
    .await;
    assert_eq!(
        scene.stage.rehearsal.stats().models[&scene.model].requests,
        1,
        "nothing started while it ended"
    );
}

async fn rehearsal_starts_with_one_command() {
    let home = tempfile::tempdir().unwrap();
    let mut up = Up::start(home.path());
    let url = ready(&mut up.0).await;
    let command = |args: &[&str]| {
        let mut command = greenroom(home.path());
        command.args(args).env("GREENROOM_URL", &url);
        run(command)
    };
    let ran = command(&[
        "run",
        "[[wait 1s]][[say It works.]]",
        "--model",
        "rehearsal/small",
    ])
    .await;
    assert_code(&ran, 0);
    assert_eq!(ran.out, "It works.\n");
    let ran = command(&["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&ran.out).unwrap();
    let first = listed.get("tasks").unwrap_or(&listed)[0].clone();
    assert_eq!(first["status"], json!("completed"), "{listed}");

    up.0.signal(Signal::SIGINT);
    let status = up.0.wait(ENDS_WITHIN).await;
    assert_eq!(Process::code(status), 0, "{}", up.0.output());
    let addresses: Vec<String> = addresses(&up.0.output());
    assert!(
        addresses.len() >= 2,
        "it prints the addresses of the service and opencode: {}",
        up.0.output()
    );
    for address in addresses {
        let port = tokio::net::TcpStream::connect(&address).await;
        assert!(
            port.is_err(),
            "{address} is still served after the end of `up`"
        );
    }
}

/// The children of a killed process get another parent and may keep running. The story reads `/proc`: Linux only.
async fn killed_up_leaves_no_opencode() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut up = Up::start(home.path());
    ready(&mut up.0).await;
    // The environment of each process below `up`, also of opencode's workers, names the folder.
    let started = processes_of(home.path());
    let below: Vec<&String> = started.iter().filter(|it| it.contains("serve")).collect();
    assert!(
        !below.is_empty(),
        "`up` runs an `opencode serve`: {started:?}"
    );
    up.0.signal(Signal::SIGKILL);
    until_or_print(
        "no process of the killed `up` is left",
        async || processes_of(home.path()).is_empty().then_some(()),
        async || processes_of(home.path()).join("\n"),
    )
    .await;
}

/// Running processes whose environment names that folder, as `pid command line`.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
        // A process that has ended and was not waited for has an empty environment.
        if text(read("environ")).contains(&name) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            found.push(format!("{pid} {}", text(read("cmdline"))));
        }
    }
    found
}

/// `greenroom up`. Dropping it sends SIGINT before it is killed, since its child processes are in other process groups.
struct Up(Process);

impl Up {
    fn start(home: &Path) -> Self {
        let mut command = greenroom(home);
        command.args([
            "up",
            "--rehearsal",
            "--listen",
            "127.0.0.1:0",
            "--journal",
            "",
        ]);
        command.arg("--opencode-bin").arg(opencode_bin());
        Self(Process::start(
            "greenroom up",
            &mut command,
            &home.join("up.log"),
        ))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.signal(Signal::SIGINT);
            let begin = std::time::Instant::now();
            while self.0.ended().is_none() && begin.elapsed() < ENDS_WITHIN {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Every `host:port` of a URL in a text.
fn addresses(text: &str) -> Vec<String> {
    let urls = text.split("http://").skip(1);
    let hosts = urls.map(|rest| {
        rest.chars()
            .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
            .collect()
    });
    let mut hosts: Vec<String> = hosts.filter(|host: &String| host.contains(':')).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

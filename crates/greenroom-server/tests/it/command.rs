//! The `greenroom` binary: stdout, stderr, and exit codes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::Host;
use serde_json::{Value, json};

/// Returns the binary as a command with a clean environment.
pub fn greenroom(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command
        .args(args)
        .env_clear()
        .env(
            "HOME",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-home"),
        )
        .stdin(Stdio::null());
    command.current_dir(std::env::temp_dir());
    command
}

pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end on another thread: the service of the test runs on this one.
pub async fn run_command(mut command: Command) -> CommandOutput {
    let Output {
        status,
        stdout,
        stderr,
    } = actix_web::web::block(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutput {
        code: status.code().unwrap(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

pub async fn on(host: &Host, args: &[&str]) -> CommandOutput {
    let mut command = greenroom(args);
    command.env("GREENROOM_URL", host.url(""));
    run_command(command).await
}

#[actix_rt::test]
async fn run_prints_only_the_result_to_stdout() {
    let host = Host::start(&[]).await;
    let mut command = greenroom(&["run", "Say hello.", "--description", "greeting"]);
    command.env("GREENROOM_URL", host.url(""));
    let run = actix_rt::spawn(run_command(command));
    let id = host.newest().await;
    let session = host.running(&id).await;
    host.finish(&session).await;
    let run = run.await.unwrap();
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "answer to: Say hello.\n")
    );
    let prefix = format!("{id} greeting\n{id} completed after ");
    assert!(run.stderr.starts_with(&prefix), "{}", run.stderr);

    let shown = on(&host, &["show", &id, "--json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&shown.stdout).unwrap()["sessionID"],
        json!(session)
    );
    for name in [id.as_str(), &id[..7], &session] {
        let output = on(&host, &["output", name]).await;
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "answer to: Say hello.\n"),
            "{name}"
        );
    }
    let follow = on(&host, &["output", &id, "--follow"]).await;
    assert_eq!(
        (follow.code, follow.stdout.as_str()),
        (0, "[assistant]\nanswer to: Say hello.\n")
    );

    let again = on(&host, &["resume", &id, "Once more.", "--detach"]).await;
    assert_eq!((again.code, again.stdout), (0, format!("{id}\n")));
    host.running(&id).await;
    let sent = on(&host, &["send", &id, "And this."]).await;
    assert_eq!((sent.code, sent.stdout), (0, format!("{id} running\n")));
    host.stop().await;
}

#[actix_rt::test]
async fn failed_task_exits_with_1() {
    let host = Host::start(&[]).await;
    let mut command = greenroom(&["run", "Say hello.", "--json"]);
    command.env("GREENROOM_URL", host.url(""));
    let run = actix_rt::spawn(run_command(command));
    let id = host.newest().await;
    let session = host.running(&id).await;
    let error = json!({"name": "APIError", "data": {"message": "no credit left"}});
    let event =
        json!({"type": "session.error", "properties": {"sessionID": session, "error": error}});
    host.post("/v1/session-events", json!({"events": [event]}))
        .await;
    let run = run.await.unwrap();
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("no credit left") && run.stderr.contains("greenroom resume"),
        "{}",
        run.stderr
    );
    let output: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(output["task"]["status"], "error");
    host.stop().await;
}

#[actix_rt::test]
async fn list_and_cancel() {
    let host = Host::start(&[("limits.default", "1")]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let launched = on(
            &host,
            &[
                "run", "wait", "--detach", "--parent", "ses_p", "--model", "acme/big",
            ],
        )
        .await;
        assert_eq!(launched.code, 0, "{}", launched.stderr);
        ids.push(launched.stdout.trim().to_owned());
    }
    host.running(&ids[0]).await;
    let list = on(&host, &["list", "--status", "pending"]).await;
    assert_eq!(list.code, 0);
    assert_eq!(list.stdout.lines().count(), 3, "{}", list.stdout);
    assert!(
        list.stdout.contains(&ids[1]) && !list.stdout.contains(&ids[0]),
        "{}",
        list.stdout
    );
    let shown = on(&host, &["show", &ids[2]]).await;
    assert!(shown.stdout.contains("waits for"), "{}", shown.stdout);

    let cancelled = on(&host, &["cancel", &ids[2], "bg_unknown"]).await;
    assert_eq!(
        (cancelled.code, cancelled.stdout),
        (1, format!("{} cancelled\n", ids[2]))
    );
    assert!(
        cancelled.stderr.contains("bg_unknown"),
        "{}",
        cancelled.stderr
    );
    let again = on(&host, &["cancel", &ids[2]]).await;
    assert_eq!(again.code, 1);
    let rest = on(&host, &["cancel", "--parent", "ses_p", "--json"]).await;
    let rest: Value = serde_json::from_str(&rest.stdout).unwrap();
    assert_eq!(rest["cancelled"].as_array().unwrap().len(), 2);
    let none = on(&host, &["cancel", "--all"]).await;
    assert_eq!(
        (none.code, none.stdout.as_str(), none.stderr.as_str()),
        (0, "", "nothing to cancel\n")
    );
    host.stop().await;
}

#[actix_rt::test]
async fn exit_codes_distinguish_usage_from_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = run_command(greenroom(&["list", "--url", &format!("http://{free}")])).await;
    assert_eq!(gone.code, 3);
    assert!(
        gone.stderr.contains("cannot be reached") && gone.stderr.contains("greenroom up"),
        "{}",
        gone.stderr
    );
    for usage in [
        &["list", "--url", "nowhere"][..],
        &["run", "x", "--model", "big", "--url", "http://127.0.0.1:1"],
        &["list", "--token-file", "/nowhere/at/all"],
        &["serve", "--set", "limits.defualt=3"],
        &["serve", "--config", "/nowhere/at/all"],
        &["serve", "--opencode", "ftp://x"],
        &["up", "--listen", "0.0.0.0:0"],
        &["frobnicate"],
    ] {
        // Without a token of an earlier start.
        let home = tempfile::tempdir().unwrap();
        let mut command = greenroom(usage);
        command.env("HOME", home.path());
        let ran = run_command(command).await;
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (2, ""),
            "{usage:?}: {}",
            ran.stderr
        );
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
    let host = Host::start(&[("token", "s3cret")]).await;
    let refused = on(&host, &["list"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("token"), "{}", refused.stderr);
    let mut command = greenroom(&["list"]);
    command
        .env("GREENROOM_URL", host.url(""))
        .env("GREENROOM_TOKEN", "s3cret");
    assert_eq!(run_command(command).await.code, 0);
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("greenroom")).unwrap();
    let usual = home.path().join("greenroom/token");
    for (secret, code) in [("s3cret", 0), ("another", 2), ("", 2)] {
        std::fs::write(&usual, secret).unwrap();
        let mut command = greenroom(&["list"]);
        command
            .env("GREENROOM_URL", host.url(""))
            .env("XDG_CONFIG_HOME", home.path());
        let ran = run_command(command).await;
        assert_eq!(ran.code, code, "{secret:?}: {}", ran.stderr);
    }
    let script = run_command(greenroom(&["completions", "bash"])).await;
    assert!(script.code == 0 && script.stdout.contains("_greenroom"));
    host.stop().await;
}

#[actix_rt::test]
async fn limits_are_shown_and_changed() {
    let host = Host::start(&[("limits.default", "2")]).await;
    let launch = ["run", "wait", "--detach", "--model", "acme/big"];
    for _ in 0..3 {
        on(&host, &launch).await;
    }
    let shown = on(&host, &["limits"]).await;
    let row = |text: &str, key: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row(&shown.stdout, "acme/big")[1..4], ["2", "2", "1"]);
    let set = on(&host, &["limits", "set", "acme/big", "3"]).await;
    assert_eq!((set.code, set.stderr.as_str()), (0, ""));
    let json = on(&host, &["limits", "show", "--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["keys"][0]["limit"], 3, "{json}");
    let unset = on(&host, &["limits", "set", "acme/big", "unset"]).await;
    assert_eq!(row(&unset.stdout, "acme/big")[2], "2");
    let provider = on(&host, &["limits", "set", "acme", "7"]).await;
    assert_eq!(row(&provider.stdout, "acme/big")[2], "7");
    let max = on(&host, &["limits", "set", "max", "9", "--json"]).await;
    let max: Value = serde_json::from_str(&max.stdout).unwrap();
    assert_eq!(max["max"], 9);
    for wrong in [
        &["limits", "set", "default", "-1"][..],
        &["limits", "set", "default", "many"],
        &["limits", "set", "default", "1000001"],
        &["limits", "set", "", "1"],
        &["limits", "set", "default"],
    ] {
        let refused = on(&host, wrong).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (2, ""),
            "{wrong:?}"
        );
    }
    host.stop().await;
}

/// A running `greenroom serve`, stopped on drop.
/// A running `greenroom serve` or `up`, killed on drop.
pub struct ServeProcess {
    pub child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl ServeProcess {
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(greenroom(args))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits for the line of stderr with this beginning.
    pub fn line(&self, prefix: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(30))
                .expect("the line comes");
            if line.starts_with(prefix) {
                return line;
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[actix_rt::test]
async fn serve_prints_ready_once_and_stops_on_a_signal() {
    let opencode = crate::support::healthy_opencode().await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("new/kept.db");
    for signal in ["INT", "TERM"] {
        let mut serving = ServeProcess::start(&[
            "serve",
            "--opencode",
            &opencode,
            "--listen",
            "127.0.0.1:0",
            "--journal",
            kept.to_str().unwrap(),
            "--set",
            "limits.default=3",
        ]);
        let url = serving
            .line("listening on ")
            .trim_start_matches("listening on ")
            .to_owned();
        let health = reqwest::get(format!("{url}/healthz")).await.unwrap();
        assert_eq!(health.status(), 200);
        serving.signal(signal);
        let status = actix_web::web::block(move || {
            let status = serving.child.wait().unwrap();
            let more: Vec<String> = serving
                .lines
                .try_iter()
                .filter(|line| line.starts_with("listening"))
                .collect();
            assert!(more.is_empty(), "{more:?}");
            status
        });
        let status = tokio::time::timeout(Duration::from_secs(30), status)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(status.code(), Some(0), "after {signal}");
        assert!(kept.is_file(), "tasks are kept");
    }
}

#[actix_rt::test]
async fn occupied_address_fails_with_a_hint() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run_command(greenroom(&["serve", "--listen", &address, "--journal", ""])).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains(&address) && ran.stderr.contains("--listen"),
        "{}",
        ran.stderr
    );
}

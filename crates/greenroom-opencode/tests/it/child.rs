//! Supervision, with shell scripts in place of opencode: they die, hang, print too much and leave children behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use greenroom_opencode::{ChildError, ChildState, OpencodeChild, ServeOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Set in the copy of this test binary that is killed with -9.
const VICTIM: &str = "GREENROOM_TEST_VICTIM";

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, script: &str) -> ServeOptions {
        use std::os::unix::fs::PermissionsExt as _;
        let program = self.path("opencode");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ServeOptions::new(program, self.folder.path(), self.path("opencode.log"))
    }
}

/// A script that writes its process id and the id of a child process, and then waits forever.
const WAITS: &str = "sleep 1000 & echo $$ $! > pids.new && mv pids.new pids; wait";

async fn pids(file: &Path) -> Vec<Pid> {
    until("the script has started", || {
        let text = std::fs::read_to_string(file).ok()?;
        Some(
            text.split_whitespace()
                .map(|pid| Pid::from_raw(pid.parse().unwrap()))
                .collect(),
        )
    })
    .await
}

/// Returns true if the process neither runs nor is a zombie.
fn is_gone(pid: Pid) -> bool {
    if kill(pid, None).is_err() {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_gone(pids: &[Pid]) {
    until("all of its processes are gone", || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn repeated_failed_starts_end_the_wait_with_the_last_lines() {
    let stage = Stage::new();
    let child =
        OpencodeChild::start(stage.options("echo one; echo 'config is broken' >&2; exit 3"))
            .unwrap();
    let error = child
        .wait_until_up(Duration::from_secs(30))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("config is broken"),
        "{text}"
    );
    assert!(
        matches!(child.state(), ChildState::Restarting { failures: 3.., .. }),
        "{:?}",
        child.state()
    );
    let log = std::fs::read_to_string(stage.path("opencode.log")).unwrap();
    assert!(log.matches("config is broken").count() >= 3, "{log}");
    let state = child.watch();
    child.stop().await;
    assert_eq!(*state.borrow(), ChildState::Stopped);
}

#[tokio::test]
async fn missing_program_is_named() {
    let stage = Stage::new();
    let options = ServeOptions {
        program: stage.path("nothing"),
        ..stage.options("")
    };
    let child = OpencodeChild::start(options).unwrap();
    let error = child
        .wait_until_up(Duration::from_secs(30))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing cannot be started"), "{error}");
}

#[tokio::test]
async fn missing_folder_is_refused() {
    let stage = Stage::new();
    let options = ServeOptions {
        directory: stage.path("nowhere"),
        ..stage.options("")
    };
    assert!(matches!(
        OpencodeChild::start(options),
        Err(ChildError::Directory(_))
    ));
}

#[tokio::test]
async fn taken_port_is_refused() {
    let stage = Stage::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = ServeOptions {
        port: Some(port),
        ..stage.options("")
    };
    assert!(
        matches!(OpencodeChild::start(options), Err(ChildError::PortTaken(taken)) if taken == port)
    );
}

#[tokio::test]
async fn slow_start_times_out() {
    let stage = Stage::new();
    let child = OpencodeChild::start(stage.options(WAITS)).unwrap();
    pids(&stage.path("pids")).await;
    let error = child
        .wait_until_up(Duration::from_millis(50))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not healthy in time"), "{error}");
    assert_eq!(child.state(), ChildState::Starting);
}

#[tokio::test]
async fn stop_ends_the_process_group() {
    let stage = Stage::new();
    let child = OpencodeChild::start(stage.options(WAITS)).unwrap();
    let pids = pids(&stage.path("pids")).await;
    let begin = Instant::now();
    child.stop().await;
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "SIGTERM was enough, {:?}",
        begin.elapsed()
    );
    until_gone(&pids).await;
}

#[tokio::test]
async fn server_that_ignores_sigterm_is_killed() {
    let stage = Stage::new();
    let child = OpencodeChild::start(stage.options(&format!("trap '' TERM; {WAITS}"))).unwrap();
    let pids = pids(&stage.path("pids")).await;
    child.stop().await;
    until_gone(&pids).await;
}

#[tokio::test]
async fn drop_ends_the_process_group() {
    let stage = Stage::new();
    let child = OpencodeChild::start(stage.options(&format!("trap '' TERM; {WAITS}"))).unwrap();
    let pids = pids(&stage.path("pids")).await;
    drop(child);
    until_gone(&pids).await;
}

#[tokio::test]
async fn process_group_of_a_dead_server_is_ended_before_a_restart() {
    let stage = Stage::new();
    let script = "test -e once && exec sleep 1000; touch once; sleep 1000 & echo $! > left; exit 1";
    let child = OpencodeChild::start(stage.options(script)).unwrap();
    let left = pids(&stage.path("left")).await;
    until_gone(&left).await;
    child.stop().await;
}

#[tokio::test]
async fn only_the_given_environment_is_passed() {
    let stage = Stage::new();
    let mut options = stage
        .options("/usr/bin/env > environment.new; /bin/mv environment.new environment; sleep 1000");
    options.inherit_environment = false;
    options.password = Some("secret".to_owned());
    options.environment.extend(
        [("PATH", "/usr/bin:/bin"), ("HOME", "/h")].map(|(a, b)| (a.to_owned(), b.to_owned())),
    );
    let _child = OpencodeChild::start(options).unwrap();
    let seen = until("the environment is written", || {
        std::fs::read_to_string(stage.path("environment")).ok()
    })
    .await;
    let mut names: Vec<&str> = seen
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    // Variables that a shell sets.
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "HOME",
            "OPENCODE_SERVER_PASSWORD",
            "OPENCODE_SERVER_USERNAME",
            "PATH"
        ]
    );
}

#[tokio::test]
async fn it_ends_when_we_are_killed() {
    if let Ok(folder) = std::env::var(VICTIM) {
        // The copy: starts a child and waits to be killed.
        let log = Path::new(&folder).join("opencode.log");
        let options = ServeOptions::new(Path::new(&folder).join("opencode"), &folder, log);
        let _child = OpencodeChild::start(options).unwrap();
        return std::future::pending().await;
    }
    let stage = Stage::new();
    stage.options(WAITS);
    let mut victim = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::it_ends_when_we_are_killed"])
        .env(VICTIM, stage.folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pids = pids(&stage.path("pids")).await;
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    victim.kill().await.unwrap();
    until_gone(&pids).await;
}

#[tokio::test]
async fn death_by_signal_is_reported_and_restarted() {
    let stage = Stage::new();
    let child = OpencodeChild::start(stage.options(WAITS)).unwrap();
    let first = pids(&stage.path("pids")).await;
    let mut state = child.watch();
    std::fs::remove_file(stage.path("pids")).unwrap();
    kill(first[0], Signal::SIGKILL).unwrap();
    let restarting = state
        .wait_for(|state| matches!(state, ChildState::Restarting { .. }))
        .await
        .unwrap()
        .clone();
    let ChildState::Restarting { reason, .. } = restarting else {
        unreachable!("waited for it")
    };
    assert!(reason.contains("signal: 9"), "{reason}");
    let second = pids(&stage.path("pids")).await;
    assert_ne!(first[0], second[0]);
    until_gone(&first).await;
    child.stop().await;
}

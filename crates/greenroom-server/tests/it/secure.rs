//! The service is secure without configuration: its token, its description, and users who are not its owner. Tests with a
//! second user need root; without it they check nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::{CommandOutput, ServeProcess, greenroom, run_command};

/// A user id that no user has.
const OTHER_UID: u32 = 54_321;

/// A home folder, of the user of the test or of another one.
struct Home {
    root: tempfile::TempDir,
    uid: Option<u32>,
}

impl Home {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            uid: None,
        }
    }

    /// Returns a home folder of another user; none without root.
    fn of_another_user() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(root.path(), Some(OTHER_UID), Some(OTHER_UID)).ok()?;
        Some(Self {
            root,
            uid: Some(OTHER_UID),
        })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn token(&self) -> String {
        let text = std::fs::read_to_string(self.path(".config/greenroom/token")).unwrap();
        text.trim().to_owned()
    }

    fn description(&self) -> Option<Value> {
        let path = self.path(".local/state/greenroom/service.json");
        let text = std::fs::read_to_string(path).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = greenroom(args);
        command
            .env("HOME", self.root.path())
            .current_dir(self.root.path());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    async fn run(&self, args: &[&str]) -> CommandOutput {
        run_command(self.command(args)).await
    }

    /// Starts a service for bridges, at a free port.
    fn serve(&self, more: &[&str]) -> (ServeProcess, String) {
        let args = ["serve", "--set", "opencode.events=bridge"];
        self.started(self.command(&[&args[..], more].concat()))
    }

    fn started(&self, command: Command) -> (ServeProcess, String) {
        let process = ServeProcess::spawn(command);
        let line = process.line("listening on ");
        (process, line.trim_start_matches("listening on ").to_owned())
    }
}

const FREE_PORT: &[&str] = &["--listen", "127.0.0.1:0"];

async fn status(url: &str, path: &str, token: Option<&str>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(format!("{url}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().status().as_u16()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

async fn stop(mut process: ServeProcess) {
    process.signal("TERM");
    let ended = actix_web::web::block(move || process.child.wait().unwrap()).await;
    assert_eq!(ended.unwrap().code(), Some(0));
}

/// Waits until a condition holds; processes and files have no events.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_rt::test]
async fn first_start_makes_a_token_that_callers_need() {
    let home = Home::new();
    let (process, url) = home.serve(FREE_PORT);
    let file = home.path(".config/greenroom/token");
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let token = home.token();
    assert_eq!(status(&url, "/v1/tasks", None).await, 401);
    assert_eq!(status(&url, "/v1/tasks", Some("wrong")).await, 401);
    assert_eq!(status(&url, "/v1/tasks", Some(&token)).await, 200);
    for path in [
        "/metrics",
        "/v1/bridges",
        "/mcp",
        "/v1/limits",
        "/v1/events",
    ] {
        assert_eq!(status(&url, path, None).await, 401, "{path}");
    }
    for path in ["/healthz", "/docs", "/openapi.json"] {
        assert_eq!(status(&url, path, None).await, 200, "{path}");
    }

    let described = home.description().unwrap();
    assert_eq!(described["url"], url);
    assert_eq!(described["pid"], process.child.id());
    assert_eq!(described["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        described["journal"]
            .as_str()
            .unwrap()
            .ends_with("journal.db")
    );
    assert_eq!(
        mode(&home.path(".local/state/greenroom/service.json")),
        0o600
    );
    // Found without an address and without a token on the command line.
    let list = home.run(&["list"]).await;
    assert_eq!(list.code, 0, "{}", list.stderr);
    let printed = home.run(&["token"]).await;
    assert_eq!(printed.stdout.trim(), token);
    stop(process).await;
    assert!(home.description().is_none(), "removed at the end");
    let (_process, url) = home.serve(FREE_PORT);
    assert_eq!(home.token(), token, "kept over a restart");
    assert_eq!(status(&url, "/v1/tasks", Some(&token)).await, 200);
}

#[actix_rt::test]
async fn rotated_token_holds_without_a_restart() {
    let home = Home::new();
    let (_process, url) = home.serve(FREE_PORT);
    let old = home.token();
    let rotated = home.run(&["token", "rotate"]).await;
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    let new = home.token();
    assert!(!rotated.stderr.contains(&new) && new != old);
    until("the new token holds", async || {
        status(&url, "/v1/tasks", Some(&new)).await == 200
    })
    .await;
    assert_eq!(status(&url, "/v1/tasks", Some(&old)).await, 401);
    assert_eq!(home.run(&["list"]).await.code, 0);
    // A file that cannot be used changes nothing.
    std::fs::write(home.path(".config/greenroom/token"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status(&url, "/v1/tasks", Some(&new)).await, 200);
}

#[actix_rt::test]
async fn services_that_start_at_once_share_a_token() {
    let home = Home::new();
    let start = |name: &str| {
        let journal = home.path(name).display().to_string();
        let more = [FREE_PORT, &["--journal", &journal]].concat();
        let args = [&["serve", "--set", "opencode.events=bridge"][..], &more].concat();
        ServeProcess::spawn(home.command(&args))
    };
    let processes = ["one.db", "two.db", "three.db"].map(start);
    for process in &processes {
        let line = process.line("listening on ");
        let url = line.trim_start_matches("listening on ");
        assert_eq!(status(url, "/v1/tasks", Some(&home.token())).await, 200);
    }
    // One of them is described; the others are reached by their URLs.
    let pid = home.description().unwrap()["pid"].clone();
    assert!(processes.iter().any(|process| pid == process.child.id()));
}

#[actix_rt::test]
async fn token_is_in_no_log_and_no_error() {
    let home = Home::new();
    let mut command = home.command(&["serve", "--set", "opencode.events=bridge"]);
    command.args(FREE_PORT).env("GREENROOM_LOG", "trace");
    let log = home.path("log");
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    until("it is described", async || home.description().is_some()).await;
    let (token, url) = (home.token(), home.description().unwrap()["url"].clone());
    let url = url.as_str().unwrap();
    for given in [None, Some("wrong"), Some(token.as_str())] {
        status(url, "/v1/tasks", given).await;
    }
    let list = home.run(&["list", "--json"]).await;
    let wrong = home.run(&["list", "--url", "http://127.0.0.1:1"]).await;
    let doctor = home.run(&["doctor"]).await;
    let shown = home.run(&["config", "show"]).await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
    let environment = std::fs::read(format!("/proc/{}/environ", child.id())).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("token created"), "{log}");
    for (place, text) in [
        ("log", log),
        (
            "arguments",
            String::from_utf8_lossy(&arguments).into_owned(),
        ),
        (
            "environment",
            String::from_utf8_lossy(&environment).into_owned(),
        ),
        ("list", list.stdout + &list.stderr),
        ("wrong", wrong.stdout + &wrong.stderr),
        ("doctor", doctor.stdout + &doctor.stderr),
        ("shown", shown.stdout + &shown.stderr),
    ] {
        assert!(!text.contains(&token), "the token is in {place}");
    }
}

#[actix_rt::test]
async fn auth_can_be_switched_off_on_loopback() {
    let home = Home::new();
    let (process, url) = home.serve(&[FREE_PORT, &["--set", "auth=none"]].concat());
    assert_eq!(status(&url, "/v1/tasks", None).await, 200);
    assert!(!home.path(".config/greenroom/token").exists());
    let client = reqwest::Client::new();
    let ready: Value = client
        .get(format!("{url}/readyz"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["auth"], "none");
    std::fs::create_dir_all(home.path(".config/greenroom")).unwrap();
    std::fs::write(
        home.path(".config/greenroom/config.toml"),
        "auth = \"none\"\n",
    )
    .unwrap();
    let doctor = home.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("every user of this machine"),
        "{}",
        doctor.stdout
    );
    stop(process).await;
}

#[actix_rt::test]
async fn stale_description_leads_to_no_service() {
    let home = Home::new();
    let (mut process, url) = home.serve(FREE_PORT);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let described = home.description().unwrap();
    assert_eq!(described["url"], url, "a killed service leaves it");
    let (process, next) = home.serve(FREE_PORT);
    assert_eq!(home.description().unwrap()["url"], next);
    assert_eq!(home.run(&["list"]).await.code, 0);
    stop(process).await;
    // A process id that is in use again, by a process that started at another time.
    let mut reused = described;
    reused["pid"] = std::process::id().into();
    let path = home.path(".local/state/greenroom/service.json");
    std::fs::write(&path, reused.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let list = home.run(&["list"]).await;
    assert_eq!(list.code, 3);
    assert!(!list.stderr.contains(&url), "{}", list.stderr);
}

#[actix_rt::test]
async fn other_user_gets_a_service_of_its_own() {
    let (first, Some(second)) = (Home::new(), Home::of_another_user()) else {
        return;
    };
    // The first user's service has the default port, or another process has it.
    let (_first, url) = first.serve(&[]);
    let (process, other_url) = second.serve(&[]);
    assert_ne!(url, other_url);
    assert_ne!(first.token(), second.token());
    assert_eq!(status(&url, "/v1/tasks", Some(&second.token())).await, 401);
    assert_eq!(second.run(&["list"]).await.code, 0);
    // What the first user's service keeps cannot be read.
    for file in [
        ".config/greenroom/token",
        ".local/state/greenroom/service.json",
        ".local/share/greenroom/journal.db",
    ] {
        let mut command = Command::new("cat");
        command.arg(first.path(file)).uid(OTHER_UID).gid(OTHER_UID);
        let read = run_command(command).await;
        assert_ne!(read.code, 0, "{file}: {}", read.stdout);
    }
    stop(process).await;
    // Without a service of its own the command sends its token to no other user's service.
    let port = url.rsplit(':').next().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let mut command = second.command(&["list"]);
    command.env("GREENROOM_LISTEN", &listen);
    let list = run_command(command).await;
    assert_eq!(list.code, 3, "{}", list.stderr);
    assert!(list.stderr.contains("belongs to user 0"), "{}", list.stderr);
}

#[actix_rt::test]
async fn token_file_of_another_owner_is_refused() {
    let Some(other) = Home::of_another_user() else {
        return;
    };
    // The file of root in the other user's folder.
    let folder = other.path(".config/greenroom");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "planted").unwrap();
    for path in [other.path(".config"), folder.clone()] {
        std::os::unix::fs::chown(path, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    }
    let token = folder.join("token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let serve = other.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(serve.code, 2);
    assert!(
        serve.stderr.contains("belongs to user 0"),
        "{}",
        serve.stderr
    );
    // A folder that everyone can write.
    std::fs::remove_file(&token).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let serve = other.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(serve.code, 2);
    assert!(serve.stderr.contains("chmod 700"), "{}", serve.stderr);
}

#[actix_rt::test]
async fn project_file_of_a_stranger_reaches_no_secret() {
    let home = Home::new();
    let sink = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sink.set_nonblocking(true).unwrap();
    let address = sink.local_addr().unwrap();
    let project = home.path("cloned");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(home.path("read"), "a file of the user").unwrap();
    let file = project.join("greenroom.toml");
    let text = format!(
        "listen = \"{address}\"\ntoken_file = \"{}\"\njournal = \"written.db\"\n\
         [opencode]\nurl = \"http://{address}\"\npassword_env = \"API_KEY\"\n",
        home.path("read").display()
    );
    std::fs::write(&file, text).unwrap();
    let run = async |args: &[&str]| {
        let mut command = home.command(args);
        command.current_dir(&project).env("API_KEY", "sk-secret");
        run_command(command).await
    };
    let serve = run(&["serve"]).await;
    assert_eq!(serve.code, 2, "{}", serve.stderr);
    assert!(serve.stderr.contains("greenroom.toml:"), "{}", serve.stderr);
    assert!(serve.stderr.contains("config trust"), "{}", serve.stderr);
    // Commands that call a service do not read it; `doctor` reports it and calls no address of it.
    let (_process, _) = home.serve(FREE_PORT);
    assert_eq!(run(&["list"]).await.code, 0);
    let doctor = run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("may not set this"),
        "{}",
        doctor.stdout
    );
    assert!(sink.accept().is_err(), "nothing was sent to the address");
    assert!(!project.join("written.db").exists());
    // A person accepts it: then it is a layer like the others.
    assert_eq!(run(&["config", "trust"]).await.code, 0);
    let shown = run(&["config", "show"]).await;
    assert!(
        shown.stdout.contains(&format!("http://{address}")),
        "{}",
        shown.stderr
    );
    std::fs::write(&file, "lisen = 1\n").unwrap();
    assert_eq!(
        run(&["list"]).await.code,
        0,
        "a typo stops no command that does not need it"
    );
    assert_eq!(run(&["serve"]).await.code, 2);
}

#[actix_rt::test]
async fn project_file_that_is_no_file_delays_nothing() {
    let home = Home::new();
    let (_process, _) = home.serve(FREE_PORT);
    let file = home.path("greenroom.toml");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert_eq!(home.run(&["list"]).await.code, 0);
    let check = home.run(&["config", "check"]).await;
    assert!(
        check.stderr.contains("not a regular file"),
        "{}",
        check.stderr
    );
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/ptmx", &file).unwrap();
    assert_eq!(home.run(&["list"]).await.code, 0);
    assert_eq!(home.run(&["config", "check"]).await.code, 2);
}

#[actix_rt::test]
async fn token_is_not_sent_to_a_process_of_another_user() {
    let (first, Some(second)) = (Home::new(), Home::of_another_user()) else {
        return;
    };
    let (_first, url) = first.serve(FREE_PORT);
    let (_second, _) = second.serve(FREE_PORT);
    let list = second.run(&["list", "--url", &url]).await;
    // The first user's service got the request without a token.
    assert_eq!(list.code, 2, "{}", list.stderr);
    assert!(
        list.stderr.contains("a token is required"),
        "{}",
        list.stderr
    );
}

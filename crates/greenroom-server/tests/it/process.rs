//! `greenroom serve` as a process: a reader of stderr that is gone or does not read, signals, and limits of the operating
//! system.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::command::greenroom;
use crate::support::healthy_opencode;

const LIMIT: Duration = Duration::from_secs(30);

/// A running service whose stderr belongs to the test. Killed on drop.
pub struct Serving {
    child: Child,
    pub stderr: Option<BufReader<ChildStderr>>,
    pub url: String,
    client: reqwest::Client,
}

impl Serving {
    /// Starts a command and waits for its ready line.
    pub async fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let read = actix_web::web::block(move || {
            let mut all = String::new();
            loop {
                let mut line = String::new();
                assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended: {all}");
                if let Some(url) = line.strip_prefix("listening on ") {
                    return (url.trim().to_owned(), stderr);
                }
                all.push_str(&line);
            }
        });
        let (url, stderr) = tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5));
        Self {
            child,
            stderr: Some(stderr),
            url,
            client: client.no_proxy().build().unwrap(),
        }
    }

    /// Starts `serve` for a healthy agent server, with a log of everything.
    pub async fn with_full_log() -> Self {
        let opencode = healthy_opencode().await;
        let mut command = greenroom(&serve_args(&opencode, ""));
        command.env("GREENROOM_LOG", "trace");
        Self::start(command).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let answer = self.client.get(url).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub async fn launch(&self) -> (u16, Value) {
        let body = json!({"description": "d", "prompt": "p".repeat(2000), "agent": "general",
            "parentSessionID": "ses_parent"});
        let request = self.client.post(format!("{}/v1/tasks", self.url));
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end of the process and returns its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < LIMIT, "the process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Causes far more log lines than a pipe holds.
    async fn write_much_log(&self) {
        for _ in 0..300 {
            assert_eq!(self.launch().await.0, 201);
        }
    }

    async fn assert_works(&self) {
        assert_eq!(self.get("/healthz").await.0, 200);
        let (status, tasks) = self.get("/v1/tasks?limit=1").await;
        assert_eq!(status, 200);
        assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1);
        assert_eq!(self.get("/metrics").await.0, 200);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The arguments of `serve` on any port.
pub fn serve_args<'a>(opencode: &'a str, journal: &'a str) -> [&'a str; 11] {
    [
        "serve",
        "--opencode",
        opencode,
        "--listen",
        "127.0.0.1:0",
        "--journal",
        journal,
        "--set",
        "limits.default=3",
        "--set",
        "auth=none",
    ]
}

#[actix_rt::test]
async fn lost_reader_of_stderr_does_not_stop_the_service() {
    let mut serving = Serving::with_full_log().await;
    drop(serving.stderr.take());
    serving.write_much_log().await;
    serving.assert_works().await;
    serving.signal("TERM");
    assert_eq!(serving.exit_code().await, Some(0));
}

#[actix_rt::test]
async fn unread_stderr_does_not_stop_the_service() {
    let mut serving = Serving::with_full_log().await;
    serving.write_much_log().await;
    serving.assert_works().await;
    serving.signal("TERM");
    assert_eq!(serving.exit_code().await, Some(0));
}

#[actix_rt::test]
async fn blocked_service_ends_on_the_second_signal() {
    let mut serving = Serving::with_full_log().await;
    // An interrupt during the shutdown exits at once, whatever the actors do.
    serving.signal("TERM");
    serving.signal("INT");
    let code = serving.exit_code().await;
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}

#[actix_rt::test]
async fn hangup_does_not_stop_serve() {
    let mut serving = Serving::with_full_log().await;
    serving.signal("HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(serving.is_running());
    assert_eq!(serving.get("/healthz").await.0, 200);
    serving.signal("TERM");
    assert_eq!(serving.exit_code().await, Some(0));
}

/// Returns a command that runs `greenroom` behind a shell with a limit.
fn limited(ulimit: &str, args: &[&str]) -> Command {
    let own = greenroom(args);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{ulimit}; exec \"$0\" \"$@\""))
        .arg(own.get_program())
        .args(own.get_args())
        .env_clear()
        .env("HOME", std::env::temp_dir().join("greenroom-no-home"))
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

#[actix_rt::test]
async fn file_size_limit_is_an_error_of_the_journal() {
    let opencode = healthy_opencode().await;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let args = serve_args(&opencode, journal.to_str().unwrap());
    let mut serving = Serving::start(limited("ulimit -f 600", &args)).await;
    let mut refused = None;
    for _ in 0..2000 {
        let (status, answer) = serving.launch().await;
        if status != 201 {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.expect("the file is full");
    assert_eq!(status, 503, "{answer}");
    assert_eq!(answer["error"]["code"], "journal_unwritable", "{answer}");
    assert!(serving.is_running());
    assert_eq!(serving.get("/healthz").await.0, 200);
    serving.signal("TERM");
    serving.exit_code().await;
}

#[actix_rt::test]
async fn too_low_limit_of_open_files_is_an_error() {
    let args = ["serve", "--listen", "127.0.0.1:0", "--journal", ""];
    let ran = crate::command::run_command(limited("ulimit -n 24", &args)).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("open files is 24") && ran.stderr.contains("ulimit -n"),
        "{}",
        ran.stderr
    );
}

#[cfg(target_os = "linux")]
#[actix_rt::test]
async fn limit_of_open_files_is_raised_and_streams_stay_below_it() {
    let opencode = healthy_opencode().await;
    let args = serve_args(&opencode, "");
    let serving = Serving::start(limited("ulimit -Sn 64; ulimit -Hn 96", &args)).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serving.child.id())).unwrap();
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = open_files
        .unwrap()
        .split_whitespace()
        .skip(3)
        .take(2)
        .collect();
    assert_eq!(numbers, ["96", "96"]);
    let mut streams = Vec::new();
    let refused = loop {
        let request = serving.client.get(format!("{}/v1/events", serving.url));
        let answer = request.send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        streams.push(answer);
        assert!(streams.len() < 96, "streams are bounded");
    };
    assert_eq!(refused.status(), 503);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "too_many_streams");
    assert_eq!(serving.get("/healthz").await.0, 200, "others are answered");
}

/// Returns the memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.and_then(|line| line.split_whitespace().next());
    size.unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[actix_rt::test]
async fn pipelined_requests_without_a_reader_need_little_memory() {
    const CONNECTIONS: usize = 8;
    let opencode = healthy_opencode().await;
    let service = Serving::start(greenroom(&serve_args(&opencode, ""))).await;
    assert_eq!(service.get("/healthz").await.0, 200);
    let address = service.url.strip_prefix("http://").unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50_000);
    // The first connections fill the pools of the allocator and of the workers: the growth by as many more is measured.
    let mut sockets = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..2 {
        for _ in 0..CONNECTIONS {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let write = socket.write_all(requests.as_bytes());
            // The buffers of the operating system may take all.
            let _ = tokio::time::timeout(Duration::from_millis(200), write).await;
            sockets.push(socket);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        memory.push(memory_kib(service.child.id()));
    }
    let growth = memory[1].saturating_sub(memory[0]);
    println!("{growth} KiB for {CONNECTIONS} connections");
    assert!(growth < CONNECTIONS as u64 * 2048, "{growth} KiB");
    assert_eq!(service.get("/healthz").await.0, 200);
    // A peer that begins to read gets its answers.
    let mut answer = vec![0; 1 << 20];
    let read = sockets[0].read_exact(&mut answer);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
}

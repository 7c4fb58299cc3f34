//! The checks of `greenroom doctor`. Each has a time limit and changes nothing.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom_opencode::install::{self, PINNED_VERSION};
use greenroom_opencode::{HealthError, ServerAddress, wait_until_healthy};
use greenroom_sqlite::OpenError;
use greenroom_sqlite::maintenance::{self, MissingAppends};
use serde_json::Value;

use super::args::ClientArgs;
use super::client::Client;
use super::doctor::Finding;
use crate::config::settings::TokenSource;
use crate::config::{Auth, ConfigError, Environment, Loaded, Settings};

/// Time limit for the answer of an agent server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the problems of the configuration, or one finding that it is valid.
pub fn configuration(loaded: &Loaded, problems: &[ConfigError]) -> Vec<Finding> {
    const SUBJECT: &str = "configuration";
    let mut findings: Vec<Finding> = problems
        .iter()
        .map(|problem| Finding::fail(SUBJECT, problem.to_string(), problem.hint()))
        .collect();
    if findings.is_empty() {
        let files: Vec<String> = loaded
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        findings.push(Finding::ok(
            SUBJECT,
            if files.is_empty() {
                "no file: the defaults hold".to_owned()
            } else {
                files.join(", ")
            },
        ));
    }
    let directory = Path::new(&*loaded.settings.core.directory);
    if !directory.is_dir() {
        findings.push(Finding::fail(
            SUBJECT,
            format!("`opencode.directory`: {} is no folder", directory.display()),
            "make the folder, or name another one",
        ));
    }
    findings
}

/// Checks the opencode binary that `up` would start, and its version.
pub async fn opencode(named: Option<&Path>) -> Finding {
    const SUBJECT: &str = "opencode";
    let program = match install::find_installed(named) {
        Ok(Some(found)) => found.program,
        Ok(None) if which::which("npm").is_ok() => {
            return Finding::warn(
                SUBJECT,
                "not installed",
                format!("`greenroom up` installs version {PINNED_VERSION} with npm"),
            );
        }
        Ok(None) => {
            let hint =
                "install opencode, or Node.js with npm so that `greenroom up` can install it";
            return Finding::fail(SUBJECT, "not installed, and npm is not on PATH", hint);
        }
        Err(error) => {
            return Finding::fail(
                SUBJECT,
                error.to_string(),
                "name a binary with --opencode-bin",
            );
        }
    };
    match install::version_of(&program).await {
        Ok(version) if version == PINNED_VERSION => Finding::ok(
            SUBJECT,
            format!("{version}, as tested, at {}", program.display()),
        ),
        Ok(version) => Finding::warn(
            SUBJECT,
            format!("{version} at {}", program.display()),
            format!("it may do; this was made for and tested with {PINNED_VERSION}"),
        ),
        Err(error) => Finding::fail(SUBJECT, error.to_string(), "install it again"),
    }
}

/// Checks for git, which opencode uses to tell projects apart.
pub fn git() -> Finding {
    match which::which("git") {
        Ok(path) => Finding::ok("git", path.display().to_string()),
        Err(_) => Finding::warn(
            "git",
            "not on PATH",
            "install it: opencode tells projects apart by it, and a rehearsal needs it",
        ),
    }
}

/// The result of the service check.
#[derive(Debug)]
pub struct ServiceCheck {
    /// True if a service runs.
    pub is_running: bool,
    /// The findings about the service and its port.
    pub findings: Vec<Finding>,
}

/// Checks whether the service runs, is ready and has this version; otherwise whether its port is free.
pub async fn service(
    args: &ClientArgs,
    environment: &Environment,
    settings: &Settings,
) -> ServiceCheck {
    const SUBJECT: &str = "service";
    let check = |is_running, findings| ServiceCheck {
        is_running,
        findings,
    };
    let client = match Client::with_settings(args, environment, Some(settings)) {
        Ok(client) => client,
        Err(failure) => {
            let finding = Finding::fail(SUBJECT, failure.message, failure.hint);
            return check(false, vec![finding]);
        }
    };
    let url = client.url().to_owned();
    match client.probe(&["healthz"]).await {
        Err(failure) => {
            let hint = "start it with `greenroom up`, or name it with --url";
            let mut findings = vec![Finding::unreachable(SUBJECT, failure.message, hint)];
            if args.url.is_none() {
                findings.push(port(settings));
            }
            check(false, findings)
        }
        Ok((200, health)) if health["status"] == "ok" => {
            let version = health["version"].as_str().unwrap_or("an unknown version");
            let mut findings = vec![ready(&client, &url, version).await];
            findings.extend(shared_directories(&client).await);
            let own = env!("CARGO_PKG_VERSION");
            if version != own {
                let message = format!("it is {version}, this command {own}");
                findings.push(Finding::warn(
                    SUBJECT,
                    message,
                    "use the same version of both",
                ));
            }
            check(true, findings)
        }
        Ok((status, _)) => {
            let message = format!("{url} answers {status} and is no Greenroom");
            let hint = "stop what listens there, or choose another address with --listen";
            check(false, vec![Finding::fail(SUBJECT, message, hint)])
        }
    }
}

async fn ready(client: &Client, url: &str, version: &str) -> Finding {
    const SUBJECT: &str = "service";
    let (status, readiness) = match client.probe(&["readyz"]).await {
        Ok(answer) => answer,
        Err(failure) => return Finding::unreachable(SUBJECT, failure.message, failure.hint),
    };
    match status {
        200 => {
            let count = |name: &str| readiness[name].as_u64().unwrap_or_default();
            Finding::ok(
                SUBJECT,
                format!(
                    "{version} at {url} is ready: {} running, {} waiting",
                    count("running"),
                    count("waiting")
                ),
            )
        }
        503 => {
            let problems = readiness["problems"].as_array().into_iter().flatten();
            let problems: Vec<&str> = problems.filter_map(Value::as_str).collect();
            Finding::unreachable(
                SUBJECT,
                format!("{version} at {url} is not ready: {}", problems.join("; ")),
                "see the service's log; tasks are accepted and wait meanwhile",
            )
        }
        _ => {
            let code = readiness["error"]["message"].as_str().unwrap_or_default();
            let message = format!("{version} at {url} answers {status}: {code}");
            Finding::fail(
                SUBJECT,
                message,
                "bring its secret with --token-file or GREENROOM_TOKEN",
            )
        }
    }
}

/// Names the directories in which several opencode processes run. They share their sessions; each session is served by the
/// process that named it first.
async fn shared_directories(client: &Client) -> Vec<Finding> {
    let Ok((200, answer)) = client.probe(&["v1", "bridges"]).await else {
        return Vec::new();
    };
    let mut processes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for bridge in answer["bridges"].as_array().into_iter().flatten() {
        if let (Some(directory), Some(pid)) = (bridge["directory"].as_str(), bridge["pid"].as_u64())
        {
            processes.entry(directory).or_default().push(pid);
        }
    }
    let shared = processes.into_iter().filter(|(_, pids)| pids.len() > 1);
    shared
        .map(|(directory, pids)| {
            let pids: Vec<String> = pids.iter().map(u64::to_string).collect();
            let (first, others) = pids.split_first().expect("two or more processes");
            Finding::warn(
                "bridges",
                format!(
                    "{directory} is open in process {first} and also in {}",
                    others.join(", ")
                ),
                "a session stays with the process that used it first; end the other one if that is not wanted",
            )
        })
        .collect()
}

/// Checks whether the service could bind its address.
fn port(settings: &Settings) -> Finding {
    let address = settings.listen.0;
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) => Finding::fail(
            "port",
            format!("{address} cannot be listened on: {error}"),
            "choose another address with --listen or `listen`",
        ),
    }
}

/// Checks the configured agent server. Skipped if a running service reports on it.
pub async fn agent_server(loaded: &Loaded, service_is_running: bool) -> Option<Finding> {
    const SUBJECT: &str = "agent server";
    let opencode = &loaded.settings.opencode;
    let configured = loaded.origins.contains_key("opencode.url");
    if service_is_running && !configured {
        // The service reports on its agent server.
        return None;
    }
    let Some(url) = &opencode.url else {
        return Some(Finding::ok(SUBJECT, "it comes by its plugin's bridge"));
    };
    let address = ServerAddress {
        url: url.clone(),
        username: opencode.username.clone(),
        password: opencode.password.clone(),
        directory: loaded.settings.core.directory.to_string(),
    };
    Some(match wait_until_healthy(&address, SERVER_TIMEOUT).await {
        Ok(version) => Finding::ok(SUBJECT, format!("opencode {version} at {url}")),
        Err(HealthError::NotInTime { .. }) if !configured => Finding::ok(
            SUBJECT,
            format!("none at {url}; `greenroom up` starts one of its own"),
        ),
        Err(error @ HealthError::NotInTime { .. }) => Finding::unreachable(
            SUBJECT,
            error.to_string(),
            "start it with `opencode serve`, or correct `opencode.url`",
        ),
        Err(error) => Finding::fail(SUBJECT, error.to_string(), "correct the keys of `opencode`"),
    })
}

/// Checks who can read the secret.
pub fn secrets(loaded: &Loaded) -> Vec<Finding> {
    const SUBJECT: &str = "token";
    let files: Vec<PathBuf> = match &loaded.settings.token_source {
        TokenSource::None => Vec::new(),
        TokenSource::File(file) | TokenSource::Default(file) => vec![file.clone()],
        TokenSource::Text(_) => match loaded.origins.get("token") {
            Some(crate::config::Origin::File { path, .. }) => vec![path.clone()],
            _ => Vec::new(),
        },
    };
    if loaded.settings.auth == Auth::None {
        let message = "off: every user of this machine can read and start tasks";
        return vec![Finding::warn("auth", message, "remove `auth = \"none\"`")];
    }
    files
        .iter()
        .filter_map(|file| {
            let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
            let name = file.display();
            Some(if mode & 0o077 == 0 {
                Finding::ok(SUBJECT, format!("only you can read {name}"))
            } else {
                Finding::warn(
                    SUBJECT,
                    format!("others can read {name} (mode {mode:o})"),
                    format!("chmod 600 {name}"),
                )
            })
        })
        .collect()
}

const MISSING_HINT: &str =
    "look at its disk and at programs that copy or restore it; launch lost tasks again";

fn missing_text(path: &Path, missing: MissingAppends) -> String {
    let (path, count) = (path.display(), missing.count);
    match missing.found_at {
        Some(at) => {
            format!("{path}: its newest {count} writes were missing at the start of {at}")
        }
        None => format!("{path}: its newest {count} writes are missing"),
    }
}

/// Checks whether the journal can be read, and which process uses it.
pub fn journal(loaded: &Loaded) -> Finding {
    const SUBJECT: &str = "journal";
    let Some(path) = &loaded.settings.journal else {
        return Finding::warn(
            SUBJECT,
            "none: a restart of the service forgets its tasks",
            "name a file with `journal`",
        );
    };
    match maintenance::stats(path) {
        Ok(stats) => {
            let user = match (stats.in_use, stats.used_by) {
                (true, Some(pid)) => format!(", in use by the process {pid}"),
                (true, None) => ", in use".to_owned(),
                (false, _) => String::new(),
            };
            let tasks = stats.open + stats.ended;
            let message = format!(
                "{}: {tasks} tasks, {} KiB{user}",
                path.display(),
                stats.bytes / 1024
            );
            // An old loss is no longer news.
            let retention = loaded.settings.core.lifecycle.retention;
            let is_recent = |missing: &MissingAppends| {
                let found_at = missing.found_at;
                found_at.is_none_or(|at| Clock::system().now().since(at) <= retention)
            };
            match stats.missing.filter(is_recent) {
                Some(missing) => Finding::warn(SUBJECT, missing_text(path, missing), MISSING_HINT),
                None => Finding::ok(SUBJECT, message),
            }
        }
        Err(OpenError::Missing { path }) => Finding::ok(
            SUBJECT,
            format!("{}: the first start makes it", path.display()),
        ),
        Err(error @ OpenError::Older { .. }) => Finding::ok(
            SUBJECT,
            format!("{error}: the hint start brings it up to date"),
        ),
        Err(error) => Finding::fail(SUBJECT, error.to_string(), error.hint()),
    }
}

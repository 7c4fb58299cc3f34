//! The single looks of `greenroom doctor`. Each has a time limit, changes nothing, and says in its line what it saw.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom_opencode::install::{self, PINNED_VERSION};
use greenroom_opencode::{HealthError, ServerAddress, wait_until_healthy};
use greenroom_sqlite::{OpenError, upkeep};
use serde_json::Value;

use super::args::ClientArgs;
use super::client::Client;
use super::doctor::Finding;
use crate::config::settings::TokenSource;
use crate::config::{ConfigError, Environment, Loaded, Settings};

/// How long an agent server may take to say that it is there.
const SERVER_WITHIN: Duration = Duration::from_secs(3);

/// Every problem of the configuration, or that there is none.
pub fn configuration(loaded: &Loaded, problems: &[ConfigError]) -> Vec<Finding> {
    const OF: &str = "configuration";
    let mut findings: Vec<Finding> = problems
        .iter()
        .map(|problem| Finding::fail(OF, problem.to_string(), problem.hint()))
        .collect();
    if findings.is_empty() {
        let files: Vec<String> = loaded
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        findings.push(Finding::ok(
            OF,
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
            OF,
            format!("`opencode.directory`: {} is no folder", directory.display()),
            "make the folder, or name another one",
        ));
    }
    findings
}

/// The opencode that `up` would start, and its version.
pub async fn opencode(named: Option<&Path>) -> Finding {
    const OF: &str = "opencode";
    let program = match install::present(named) {
        Ok(Some(found)) => found.program,
        Ok(None) if which::which("npm").is_ok() => {
            return Finding::warn(
                OF,
                "not installed",
                format!("`greenroom up` installs version {PINNED_VERSION} with npm"),
            );
        }
        Ok(None) => {
            let next =
                "install opencode, or Node.js with npm so that `greenroom up` can install it";
            return Finding::fail(OF, "not installed, and npm is not on PATH", next);
        }
        Err(error) => {
            return Finding::fail(OF, error.to_string(), "name a binary with --opencode-bin");
        }
    };
    match install::version_of(&program).await {
        Ok(version) if version == PINNED_VERSION => Finding::ok(
            OF,
            format!("{version}, as tested, at {}", program.display()),
        ),
        Ok(version) => Finding::warn(
            OF,
            format!("{version} at {}", program.display()),
            format!("it may do; this was made for and tested with {PINNED_VERSION}"),
        ),
        Err(error) => Finding::fail(OF, error.to_string(), "install it again"),
    }
}

/// git, by which opencode tells projects apart.
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

/// What was found of the service.
#[derive(Debug)]
pub struct ServiceFound {
    /// True if one runs.
    pub runs: bool,
    /// The lines about it and its port.
    pub findings: Vec<Finding>,
}

/// The service: there, ready, of this version; else whether its port is free.
pub async fn service(
    args: &ClientArgs,
    environment: &Environment,
    settings: &Settings,
) -> ServiceFound {
    const OF: &str = "service";
    let found = |runs, findings| ServiceFound { runs, findings };
    let client = match Client::beside(args, environment, Some(settings)) {
        Ok(client) => client,
        Err(failure) => {
            let finding = Finding::fail(OF, failure.message, failure.hint);
            return found(false, vec![finding]);
        }
    };
    let url = client.url().to_owned();
    match client.look(&["healthz"]).await {
        Err(failure) => {
            let next = "start it with `greenroom up`, or name it with --url";
            let mut findings = vec![Finding::away(OF, failure.message, next)];
            if args.url.is_none() {
                findings.push(port(settings));
            }
            found(false, findings)
        }
        Ok((200, health)) if health["status"] == "ok" => {
            let version = health["version"].as_str().unwrap_or("an unknown version");
            let mut findings = vec![ready(&client, &url, version).await];
            let own = env!("CARGO_PKG_VERSION");
            if version != own {
                let says = format!("it is {version}, this command {own}");
                findings.push(Finding::warn(OF, says, "use the same version of both"));
            }
            found(true, findings)
        }
        Ok((status, _)) => {
            let says = format!("{url} answers {status} and is no Greenroom");
            let next = "stop what listens there, or choose another address with --listen";
            found(false, vec![Finding::fail(OF, says, next)])
        }
    }
}

async fn ready(client: &Client, url: &str, version: &str) -> Finding {
    const OF: &str = "service";
    let (status, readiness) = match client.look(&["readyz"]).await {
        Ok(answer) => answer,
        Err(failure) => return Finding::away(OF, failure.message, failure.hint),
    };
    match status {
        200 => {
            let count = |name: &str| readiness[name].as_u64().unwrap_or_default();
            Finding::ok(
                OF,
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
            Finding::away(
                OF,
                format!("{version} at {url} is not ready: {}", problems.join("; ")),
                "see the service's log; tasks are accepted and wait meanwhile",
            )
        }
        _ => {
            let code = readiness["error"]["message"].as_str().unwrap_or_default();
            let says = format!("{version} at {url} answers {status}: {code}");
            Finding::fail(
                OF,
                says,
                "bring its secret with --token-file or GREENROOM_TOKEN",
            )
        }
    }
}

/// Whether the service could listen where it is told to.
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

/// The agent server that is configured, where it matters: `up` starts one of its own.
pub async fn agent_server(loaded: &Loaded, service_runs: bool) -> Option<Finding> {
    const OF: &str = "agent server";
    let opencode = &loaded.settings.opencode;
    let configured = loaded.origins.contains_key("opencode.url");
    if service_runs && !configured {
        // It says itself how its agent server is, wherever that listens.
        return None;
    }
    let Some(url) = &opencode.url else {
        return Some(Finding::ok(OF, "it comes by its plugin's bridge"));
    };
    let address = ServerAddress {
        url: url.clone(),
        username: opencode.username.clone(),
        password: opencode.password.clone(),
        directory: loaded.settings.core.directory.to_string(),
    };
    Some(match wait_until_healthy(&address, SERVER_WITHIN).await {
        Ok(version) => Finding::ok(OF, format!("opencode {version} at {url}")),
        Err(HealthError::NotInTime { .. }) if !configured => Finding::ok(
            OF,
            format!("none at {url}; `greenroom up` starts one of its own"),
        ),
        Err(error @ HealthError::NotInTime { .. }) => Finding::away(
            OF,
            error.to_string(),
            "start it with `opencode serve`, or correct `opencode.url`",
        ),
        Err(error) => Finding::fail(OF, error.to_string(), "correct the keys of `opencode`"),
    })
}

/// Who can read the secret.
pub fn secrets(loaded: &Loaded, environment: &Environment) -> Vec<Finding> {
    const OF: &str = "token";
    let files: Vec<PathBuf> = match &loaded.settings.token_source {
        TokenSource::None => Vec::new(),
        TokenSource::File(file) => vec![environment.path(file)],
        TokenSource::Text(_) => match loaded.origins.get("token") {
            Some(crate::config::Origin::File { path, .. }) => vec![path.clone()],
            _ => Vec::new(),
        },
    };
    files
        .iter()
        .filter_map(|file| {
            let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
            let name = file.display();
            Some(if mode & 0o077 == 0 {
                Finding::ok(OF, format!("only you can read {name}"))
            } else {
                Finding::warn(
                    OF,
                    format!("others can read {name} (mode {mode:o})"),
                    format!("chmod 600 {name}"),
                )
            })
        })
        .collect()
}

/// The journal: whether it can be read, and who uses it.
pub fn journal(loaded: &Loaded) -> Finding {
    const OF: &str = "journal";
    let Some(path) = &loaded.settings.journal else {
        return Finding::warn(
            OF,
            "none: a restart of the service forgets its tasks",
            "name a file with `journal`",
        );
    };
    match upkeep::stats(path) {
        Ok(stats) => {
            let user = match (stats.in_use, stats.used_by) {
                (true, Some(pid)) => format!(", in use by the process {pid}"),
                (true, None) => ", in use".to_owned(),
                (false, _) => String::new(),
            };
            let tasks = stats.open + stats.ended;
            let says = format!(
                "{}: {tasks} tasks, {} KiB{user}",
                path.display(),
                stats.bytes / 1024
            );
            Finding::ok(OF, says)
        }
        Err(OpenError::Missing { path }) => {
            Finding::ok(OF, format!("{}: the first start makes it", path.display()))
        }
        Err(error @ OpenError::Older { .. }) => {
            Finding::ok(OF, format!("{error}: the next start brings it up to date"))
        }
        Err(error) => Finding::fail(OF, error.to_string(), error.hint()),
    }
}

//! The HTTP client of the commands. Every call has a time limit; every error becomes a [`Failure`] with its exit code.

use std::path::Path;
use std::time::Duration;

use greenroom::WaitsFor;
use greenroom::domain::task::Task;
use greenroom_bridge::Token;
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::ClientArgs;
use super::failure::{FAILED, Failure, UNREACHABLE, USAGE};
use super::terminal::one_line;
use crate::config::settings::has_host;
use crate::config::token::{client_token, read_token};
use crate::config::{Environment, Settings, Sources, check};
use crate::description::{Description, foreign_listener, loopback_addresses};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The service waits up to ten seconds for the agent server.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);
/// Time limit for a probe of an address that may not be Greenroom.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time of a blocking read in the service.
pub const MAX_BLOCK: Duration = Duration::from_secs(600);

/// A task as returned by the service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TaskView {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Why the task waits, if it waits.
    #[serde(rename = "waitsFor", default)]
    pub waits_for: Option<WaitsFor>,
}

/// A client of one service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Token>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
    hint: String,
}

impl Client {
    /// Creates a client for the service named by the arguments, the environment, or the configuration.
    ///
    /// # Errors
    /// Fails for an unreadable configuration or token file, or an invalid address.
    pub fn new(args: &ClientArgs, environment: &Environment) -> Result<Self, Failure> {
        if args.url.is_some() {
            return Self::with_settings(args, environment, None);
        }
        // On the machine of the service its configuration contains the address. A project's file does not: a problem in it
        // stops no client.
        let (loaded, problems) = check(&Sources::default(), environment);
        let project = environment.project_file();
        let of_project = |path: Option<&Path>| path == Some(project.as_path());
        let mut problems = problems.into_iter();
        if let Some(problem) = problems.find(|it| !of_project(it.position().map(|(path, _)| path)))
        {
            return Err(problem.into());
        }
        Self::with_settings(args, environment, Some(&loaded.settings))
    }

    /// Creates a client with a configuration that is already loaded.
    ///
    /// # Errors
    /// Fails for an unreadable token file or an invalid address.
    pub fn with_settings(
        args: &ClientArgs,
        environment: &Environment,
        settings: Option<&Settings>,
    ) -> Result<Self, Failure> {
        let mut token = match (
            &args.token_file,
            environment.variables.get("GREENROOM_TOKEN"),
        ) {
            (Some(file), _) => {
                let hint = "check the path, or leave the flag out";
                Some(
                    read_token(&environment.path(file))
                        .map_err(|p| Failure::new(USAGE, format!("--token-file: {p}"), hint))?,
                )
            }
            (None, Some(text)) => parse_token_variable(text)?,
            (None, None) => None,
        };
        let url = match (&args.url, described_services(environment).next()) {
            (Some(url), _) => url.clone(),
            (None, Some(service)) => {
                // Of a service whose secret is in no file the configuration may have it.
                let configured = || settings.and_then(|settings| settings.token.clone());
                let file = service.token_file.as_deref();
                token = token
                    .or_else(|| file.and_then(|file| read_token(file).ok()))
                    .or_else(configured);
                service.url
            }
            (None, None) => {
                let defaults = Settings::default();
                let settings = settings.unwrap_or(&defaults);
                token = token.or_else(|| settings.token.clone());
                refuse_foreign_listener(settings)?;
                settings.url()
            }
        };
        let base = Url::parse(url.trim())
            .ok()
            .filter(|base| base.scheme() == "http" && has_host(base));
        let base = base.ok_or_else(|| {
            let url = greenroom::domain::task::cut(&url, 100);
            Failure::new(
                USAGE,
                format!("--url: {url:?} is no address of a service"),
                "it looks like http://127.0.0.1:7717",
            )
        })?;
        // The local service reads the same file. A remote service must not get the secret.
        // Nor must a process of another user on this machine; a secret that is named explicitly is sent.
        let is_own = is_local(&base) && !is_foreign(&base);
        if args.url.is_some() && token.is_none() && is_own {
            let named = described_services(environment)
                .find(|service| Url::parse(&service.url).is_ok_and(|url| url == base));
            let file = named.and_then(|service| service.token_file);
            token = file.and_then(|file| read_token(&file).ok());
        }
        if args.url.is_some() && token.is_none() && is_own {
            token = client_token(environment)
                .map_err(|error| Failure::new(USAGE, format!("token: {error}"), error.hint()))?;
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A prompt goes to the named service alone.
            .redirect(reqwest::redirect::Policy::none())
            // The address is local or explicit, so no proxy is used.
            .no_proxy()
            .build()
            .map_err(|error| {
                Failure::new(
                    FAILED,
                    format!("the HTTP client cannot be set up: {error}"),
                    "",
                )
            })?;
        Ok(Self { http, base, token })
    }

    /// Returns the URL of the service.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Sends a GET request.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        self.call(Method::GET, path, query, None, CALL_TIMEOUT)
            .await
    }

    /// Sends a POST request.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], Some(body), CALL_TIMEOUT)
            .await
    }

    /// Sends a POST request with its own time limit.
    pub async fn post_with_timeout<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
        timeout: Duration,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], Some(body), timeout)
            .await
    }

    /// Sends a PUT request.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::PUT, path, &[], Some(body), CALL_TIMEOUT)
            .await
    }

    /// Waits for the end of a task, at most [`MAX_BLOCK`], and returns its output.
    pub async fn wait<T: DeserializeOwned>(&self, id: &str) -> Result<T, Failure> {
        let millis = MAX_BLOCK.as_millis().to_string();
        let query = [("block", "true"), ("timeoutMs", millis.as_str())];
        self.call(
            Method::GET,
            &["v1", "tasks", id, "output"],
            &query,
            None,
            MAX_BLOCK + CALL_TIMEOUT,
        )
        .await
    }

    /// Decodes a JSON value from the service.
    pub fn decode<T: DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|error| self.decode_failure(&error))
    }

    fn decode_failure(&self, error: &serde_json::Error) -> Failure {
        let message = format!(
            "{} answers what this command does not understand: {error}",
            self.url()
        );
        Failure::new(
            UNREACHABLE,
            message,
            "check that it is Greenroom, of the same version as this command",
        )
    }

    /// Returns the status and the body of any response; null for a body that is not valid JSON.
    ///
    /// # Errors
    /// Fails if the service is unreachable.
    pub async fn probe(&self, path: &[&str]) -> Result<(u16, Value), Failure> {
        let (status, bytes) = self
            .send(Method::GET, path, &[], None, PROBE_TIMEOUT)
            .await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let (status, bytes) = self.send(method, path, query, body, timeout).await?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&bytes).map_err(|error| self.decode_failure(&error));
        }
        Err(match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { error }) => {
                let code = exit_code(status, &error.code);
                Failure::new(code, one_line(&error.message), one_line(&error.hint))
            }
            Err(_) => Failure::new(
                UNREACHABLE,
                format!("{} answers {status} and is no Greenroom", self.url()),
                "check --url; `greenroom up` starts a service",
            ),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Path segments come from the command line; this percent-encodes them.
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url).query(query).timeout(timeout);
        if let Some(token) = &self.token {
            request = request.bearer_auth(&*token.reveal());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Ok((status, bytes.to_vec()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let problem = if error.is_timeout() {
            "does not answer"
        } else {
            "cannot be reached"
        };
        let hint = "start it with `greenroom up`, or name it with --url";
        Failure::new(
            UNREACHABLE,
            format!("the service at {} {problem}", self.url()),
            hint,
        )
    }
}

/// Returns the user's running service, then the user's running rehearsal.
fn described_services(environment: &Environment) -> impl Iterator<Item = Description> {
    let files = [environment.description_file(), environment.rehearsal_file()];
    let files = files.into_iter().flatten();
    let running = files.filter_map(|file| Description::read_living(&file));
    // A described port that another user's process has by now is not this user's service.
    running.filter(|service| {
        let url = Url::parse(&service.url).ok();
        url.is_some_and(|url| !is_foreign(&url))
    })
}

/// Returns true if another user's process listens at the URL's port of this machine, if the system knows it.
fn is_foreign(base: &Url) -> bool {
    let addresses = loopback_addresses(base.host_str().unwrap_or_default());
    let port = base.port_or_known_default();
    !addresses.is_empty() && port.is_some_and(|port| foreign_listener(&addresses, port).is_some())
}

/// Refuses to send the secret to another user's service at the configured address.
fn refuse_foreign_listener(settings: &Settings) -> Result<(), Failure> {
    let addresses = loopback_addresses(&settings.listen.0.ip().to_string());
    match foreign_listener(&addresses, settings.listen.0.port()) {
        Some(uid) if settings.listen.is_loopback() => Err(Failure::new(
            UNREACHABLE,
            format!(
                "no service of yours runs, and what listens at {} belongs to user {uid}",
                settings.listen.0
            ),
            "start one with `greenroom up`; a service of another user needs --url with --token-file",
        )),
        _ => Ok(()),
    }
}

/// Returns true if the URL is a loopback address, without name resolution.
fn is_local(base: &Url) -> bool {
    !loopback_addresses(base.host_str().unwrap_or_default()).is_empty()
}

/// Validates the secret of the variable, which is sent in a header.
fn parse_token_variable(text: &str) -> Result<Option<Token>, Failure> {
    crate::config::value::check_printable(text.trim()).map_err(|_| {
        let hint = "put the secret alone into it, or use --token-file";
        Failure::new(USAGE, "GREENROOM_TOKEN: it is no secret of one line", hint)
    })?;
    Ok(Token::new(text))
}

fn exit_code(status: u16, code: &str) -> u8 {
    match (status, code) {
        (_, "agent_server_unreachable" | "shutting_down") => UNREACHABLE,
        (400 | 401 | 403 | 413 | 422, _) => USAGE,
        _ => FAILED,
    }
}

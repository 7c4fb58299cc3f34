//! A client of the service's HTTP API, for the commands. Every call has a time limit; every failure becomes a
//! [`Failure`] with its exit code.

use std::net::IpAddr;
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
use crate::config::layers::{read_token, usual_token};
use crate::config::settings::has_host;
use crate::config::{Environment, Settings, Sources, load};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The service itself waits up to ten seconds for the agent server.
const CALL_WITHIN: Duration = Duration::from_secs(40);
/// A look at a service that may be something else.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// How long one blocking read waits in the service.
pub const BLOCK: Duration = Duration::from_secs(600);

/// A task as the service shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Shown {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Why it waits, if it waits.
    #[serde(rename = "waitsFor", default)]
    pub waits_for: Option<WaitsFor>,
}

/// One service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Token>,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    code: String,
    message: String,
    hint: String,
}

impl Client {
    /// The service that the arguments, the environment, or the configuration name.
    ///
    /// # Errors
    /// A configuration or token file that cannot be read, or an address that is none.
    pub fn new(args: &ClientArgs, environment: &Environment) -> Result<Self, Failure> {
        if args.url.is_some() {
            return Self::beside(args, environment, None);
        }
        // On the machine of the service its own configuration says where it is.
        let settings = load(&Sources::default(), environment)?.settings;
        Self::beside(args, environment, Some(&settings))
    }

    /// The same with a configuration that has been read already, if there is one.
    ///
    /// # Errors
    /// A token file that cannot be read, or an address that is none.
    pub fn beside(
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
            (None, Some(text)) => token_of_variable(text)?,
            (None, None) => None,
        };
        let url = match (&args.url, settings) {
            (Some(url), _) => url.clone(),
            (None, Some(settings)) => {
                token = token.or_else(|| settings.token.clone());
                settings.url()
            }
            (None, None) => Settings::default().url(),
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
        // The service of this user reads it from there too. Another machine's has no business with it.
        if args.url.is_some() && token.is_none() && is_local(&base) {
            let hint = "put the secret alone into it, or remove it";
            token = usual_token(environment)
                .map_err(|problem| Failure::new(USAGE, format!("token: {problem}"), hint))?;
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // The service is called directly: it is on this machine, or named by its address.
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

    /// Where the service is.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Reads.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        self.call(Method::GET, path, query, None, CALL_WITHIN).await
    }

    /// Changes something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], Some(body), CALL_WITHIN)
            .await
    }

    /// The same for a call that may take as long as that.
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
        within: Duration,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], Some(body), within).await
    }

    /// Replaces something.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<T, Failure> {
        self.call(Method::PUT, path, &[], Some(body), CALL_WITHIN)
            .await
    }

    /// Reads what there is after the end of a task, which may take [`BLOCK`].
    pub async fn wait<T: DeserializeOwned>(&self, id: &str) -> Result<T, Failure> {
        let millis = BLOCK.as_millis().to_string();
        let query = [("block", "true"), ("timeoutMs", millis.as_str())];
        self.call(
            Method::GET,
            &["v1", "tasks", id, "output"],
            &query,
            None,
            BLOCK + CALL_WITHIN,
        )
        .await
    }

    /// Reads an answer, or a piece of one, that was fetched as plain JSON.
    pub fn understood<T: DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|error| self.strange(&error))
    }

    fn strange(&self, error: &serde_json::Error) -> Failure {
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

    /// The status of an answer and its body, whatever they are; null for a body that is no JSON.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn look(&self, path: &[&str]) -> Result<(u16, Value), Failure> {
        let (status, bytes) = self
            .answer(Method::GET, path, &[], None, LOOK_WITHIN)
            .await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        within: Duration,
    ) -> Result<T, Failure> {
        let (status, bytes) = self.answer(method, path, query, body, within).await?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&bytes).map_err(|error| self.strange(&error));
        }
        Err(match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(Refusal { error }) => {
                Failure::new(exit_code(status, &error.code), error.message, error.hint)
            }
            Err(_) => Failure::new(
                UNREACHABLE,
                format!("{} answers {status} and is no Greenroom", self.url()),
                "check --url; `greenroom up` starts a service",
            ),
        })
    }

    async fn answer(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        within: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Ids come from the command line: pushed one by one they are percent-encoded.
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url).query(query).timeout(within);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        let bytes = answer
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

/// True if that address is on this machine, whatever the network says.
fn is_local(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default();
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    address.map_or(host == "localhost", |ip| ip.is_loopback())
}

/// The secret in the variable, which goes into a header.
fn token_of_variable(text: &str) -> Result<Option<Token>, Failure> {
    crate::config::value::plain(text.trim()).map_err(|_| {
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

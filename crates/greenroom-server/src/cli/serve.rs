//! `greenroom serve`: the service for a running agent server. Also the parts that `up` shares: the service with its
//! event stream, from the ready line to the shutdown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ports::agent_server::AgentServer;
use greenroom::{ShutdownMode, ShutdownReport};
use greenroom_opencode::{EventStream, OpencodeServer, ServerAddress, StreamTuning};
use tokio::time::{Instant, sleep, timeout};

use super::args::ServeArgs;
use super::failure::{FAILED, Failure, USAGE};
use super::idle_shutdown::wait_until_idle;
use super::open_files;
use super::shutdown_summary::{ServerLifetime, shutdown_summary};
use super::signals::{OnHangup, Signals};
use super::terminal::print_err;
use crate::agents::Upstream;
use crate::config::settings::TokenSource;
use crate::config::{Auth, Environment, Events, FlagValue, Settings, load, token};
use crate::description::{Description, Published};
use crate::host::Service;
use crate::logging;

/// Time the ready line waits for the first answer of the agent server.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of one health check; the first request after a boot may hang.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const HEALTH_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the command.
pub async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let mut sources = args.service.sources();
    if let Some(url) = args.opencode {
        sources.flags.push(FlagValue {
            key: "opencode.url",
            value: url,
            flag: "--opencode",
        });
    }
    let mut settings = load(&sources, &environment)?.settings;
    logging::init();
    open_files::raise_limit()?;
    ensure_token(&mut settings, &environment)?;
    warn_without_journal(&settings);
    let mut signals = install_signals(OnHangup::Continue)?;
    let mut attached = match settings.opencode.url.as_deref() {
        Some(url) => AttachedService::start(&settings, url)?,
        None => AttachedService::start_without_upstream(&settings)?,
    };
    attached.describe(environment.description_file(), &settings);
    let cause = tokio::select! {
        () = attached.wait_for_first_answer() => {
            attached.print_ready_line();
            wait_for_stop(&attached, args.idle_shutdown, &mut signals).await
        }
        () = signals.next() => StopCause::Signal,
    };
    if cause == StopCause::Idle {
        print_err("this service is no longer used; it ends");
    }
    signals.arm_exit();
    let mode = attached.service().shutdown_mode();
    let report = attached.stop(mode).await;
    if let Some(summary) = shutdown_summary(&report, ServerLifetime::Independent) {
        print_err(&summary);
    }
    Ok(())
}

/// Why the service stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopCause {
    Signal,
    Idle,
}

/// Waits for a signal, or until the service has been idle for `limit`.
async fn wait_for_stop(
    attached: &AttachedService,
    limit: Option<Duration>,
    signals: &mut Signals,
) -> StopCause {
    let Some(limit) = limit else {
        signals.next().await;
        return StopCause::Signal;
    };
    tokio::select! {
        () = signals.next() => StopCause::Signal,
        () = wait_until_idle(attached.service(), limit) => StopCause::Idle,
    }
}

/// Gives the service its secret, from its default file if none is configured.
pub(super) fn ensure_token(
    settings: &mut Settings,
    environment: &Environment,
) -> Result<(), Failure> {
    token::ensure(settings, environment)
        .map_err(|error| Failure::new(USAGE, format!("token: {error}"), error.hint()))?;
    if settings.auth == Auth::None {
        print_err("note: auth is off; every user of this machine can read and start tasks");
    }
    Ok(())
}

/// Installs handlers for SIGINT, SIGTERM and SIGHUP.
pub(super) fn install_signals(on_hangup: OnHangup) -> Result<Signals, Failure> {
    Signals::new(on_hangup)
        .map_err(|error| Failure::new(FAILED, format!("signals cannot be taken: {error}"), ""))
}

/// Prints a note if no journal is configured.
pub(super) fn warn_without_journal(settings: &Settings) {
    if settings.journal.is_none() {
        print_err("note: no journal is configured; a restart forgets every task");
    }
}

/// A service with the event stream of its agent server.
pub(super) struct AttachedService {
    service: Service,
    /// None if agent servers connect only by bridges.
    server: Option<OpencodeServer>,
    events: Option<EventStream>,
    /// How callers find the service.
    published: Option<Published>,
}

impl AttachedService {
    /// Starts the service and the event stream. The agent server may still be unreachable.
    pub(super) fn start(settings: &Settings, url: &str) -> Result<Self, Failure> {
        let address = ServerAddress {
            url: url.to_owned(),
            username: settings.opencode.username.clone(),
            password: settings.opencode.password.clone(),
            directory: settings.core.directory.to_string(),
        };
        let server = OpencodeServer::new(address).map_err(|error| {
            Failure::new(
                USAGE,
                error.to_string(),
                "correct --opencode or `opencode.url`",
            )
        })?;
        let upstream = Upstream {
            server: Arc::new(server.clone()),
            url: Some(url.to_owned()),
            has_events: settings.opencode.events != Events::Bridge,
        };
        let service = Service::start_with_upstream(settings, Some(upstream))?;
        let events = (settings.opencode.events != Events::Bridge).then(|| {
            let (server, events) = (server.clone(), service.events());
            EventStream::start(server, events, StreamTuning::default())
        });
        Ok(Self {
            service,
            server: Some(server),
            events,
            published: None,
        })
    }

    /// Starts a service whose agent servers connect by bridges.
    pub(super) fn start_without_upstream(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            service: Service::start_with_upstream(settings, None)?,
            server: None,
            events: None,
            published: None,
        })
    }

    /// Returns the service.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Returns the event stream.
    pub(super) fn events(&self) -> Option<&EventStream> {
        self.events.as_ref()
    }

    /// Waits for the first answer of the agent server, at most [`READY_TIMEOUT`]. Without an answer the service starts
    /// anyway and `/readyz` reports the problem.
    pub(super) async fn wait_for_first_answer(&mut self) {
        let Some(server) = &self.server else {
            return print_err("no URL of opencode is configured: it comes by its plugin's bridge");
        };
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let last = match timeout(HEALTH_TIMEOUT, server.health()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            if Instant::now() + HEALTH_INTERVAL >= deadline {
                let url = &server.address().url;
                tracing::warn!(url, problem = last, "agent server unreachable; tasks wait");
                return;
            }
            sleep(HEALTH_INTERVAL).await;
        }
    }

    /// Describes the service in a file, by which the commands and the plugin find it. Without that file it is reached by its
    /// URL.
    pub(super) fn describe(&mut self, path: Option<PathBuf>, settings: &Settings) {
        let Some(path) = path else {
            return;
        };
        let mut address = self.service.address();
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let mut description = Description::of_this_process(format!("http://{address}"));
        description.journal.clone_from(&settings.journal);
        description.token_file = match &settings.token_source {
            TokenSource::File(file) | TokenSource::Default(file) => Some(file.clone()),
            TokenSource::Text(_) | TokenSource::None => None,
        };
        if settings.auth == Auth::None {
            description.auth = "none".to_owned();
        }
        match Published::write(&path, description) {
            Ok(published) => self.published = published,
            Err(error) => {
                tracing::warn!(%error, hint = error.hint(), "the service is not described; it is reached by its URL");
            }
        }
    }

    /// Prints the line that callers wait for.
    pub(super) fn print_ready_line(&self) {
        print_err(&format!("listening on http://{}", self.service.address()));
    }

    /// Stops the service, then the event stream, which may still deliver ends of tasks.
    pub(super) async fn stop(self, mode: ShutdownMode) -> ShutdownReport {
        // Removed first: no new caller comes.
        drop(self.published);
        let report = self.service.stop(mode).await;
        if let Some(events) = self.events {
            events.stop().await;
        }
        report
    }
}

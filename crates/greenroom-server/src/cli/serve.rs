//! `greenroom serve`: the service, attached to an agent server that runs already. Also what `up` shares with it: the
//! service with its event stream, from the ready line to the end.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ports::agent_server::AgentServer;
use greenroom::{ShutdownMode, ShutdownReport};
use greenroom_opencode::{EventStream, OpencodeServer, ServerAddress, StreamTuning};
use tokio::time::{Instant, sleep, timeout};

use super::args::ServeArgs;
use super::failure::{FAILED, Failure, USAGE};
use super::farewell::{OwnServer, farewell};
use super::signals::Signals;
use super::unused::unused_for;
use crate::agents::Upstream;
use crate::config::{Environment, Events, Settings, load};
use crate::host::Service;
use crate::logging;

/// How long the ready line waits for the agent server's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// One question for health; the first request of a boot may hang.
const ONE_ANSWER: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_millis(200);

/// Runs the command.
pub async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let mut sources = args.service.sources();
    if let Some(url) = args.opencode {
        sources.flags.push(("opencode.url", url, "--opencode"));
    }
    let settings = load(&sources, &environment)?.settings;
    logging::init();
    say_if_nothing_is_kept(&settings);
    let mut signals = take_signals()?;
    let mut attached = match settings.opencode.url.as_deref() {
        Some(url) => Attached::start(&settings, url)?,
        None => Attached::start_on_bridges(&settings)?,
    };
    let stopped = tokio::select! {
        () = attached.until_answering() => {
            attached.say_ready();
            until_unused_or(&attached, args.exit_when_unused, &mut signals).await
        }
        () = signals.next() => true,
    };
    if !stopped {
        say("nobody uses this service any more; it ends");
    }
    signals.arm_exit();
    let mode = attached.service().lasting_mode();
    let report = attached.stop(mode).await;
    if let Some(words) = farewell(&report, OwnServer::GoesOn) {
        say(&words);
    }
    Ok(())
}

/// Waits for a signal, or for nobody to have used the service for so long; true if it was a signal.
async fn until_unused_or(
    attached: &Attached,
    limit: Option<Duration>,
    signals: &mut Signals,
) -> bool {
    match limit {
        None => signals.next().await,
        Some(limit) => tokio::select! {
            () = signals.next() => {}
            () = unused_for(attached.service(), limit) => return false,
        },
    }
    true
}

/// Takes SIGINT and SIGTERM.
pub(super) fn take_signals() -> Result<Signals, Failure> {
    Signals::new()
        .map_err(|error| Failure::new(FAILED, format!("signals cannot be taken: {error}"), ""))
}

/// Who keeps nothing should know what that means.
pub(super) fn say_if_nothing_is_kept(settings: &Settings) {
    if settings.journal.is_none() {
        say("note: no journal is configured; a restart forgets every task");
    }
}

/// One line of talk.
pub(super) fn say(line: &str) {
    // Nobody reads it any more if stderr is closed; the service goes on.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A service with the event stream of its agent server.
pub(super) struct Attached {
    service: Service,
    /// None if every agent server comes by a bridge.
    server: Option<OpencodeServer>,
    events: Option<EventStream>,
}

impl Attached {
    /// Starts both. Neither needs the agent server to answer yet.
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
        };
        let service = Service::start_on(settings, Some(upstream))?;
        let events = (settings.opencode.events != Events::Bridge).then(|| {
            let (server, events) = (server.clone(), service.events());
            EventStream::start(server, events, StreamTuning::default())
        });
        Ok(Self {
            service,
            server: Some(server),
            events,
        })
    }

    /// Starts the service alone: agent servers come by their bridges.
    pub(super) fn start_on_bridges(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            service: Service::start_on(settings, None)?,
            server: None,
            events: None,
        })
    }

    /// The service.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Its event stream.
    pub(super) fn events(&self) -> Option<&EventStream> {
        self.events.as_ref()
    }

    /// Waits until the agent server has answered once, or long enough: the service works without it too, and says in
    /// `/readyz` what is missing.
    pub(super) async fn until_answering(&mut self) {
        let Some(server) = &self.server else {
            return say("no URL of opencode is configured: it comes by its plugin's bridge");
        };
        let deadline = Instant::now() + FIRST_ANSWER;
        loop {
            let last = match timeout(ONE_ANSWER, server.health()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            if Instant::now() + BETWEEN >= deadline {
                let url = &server.address().url;
                tracing::warn!(
                    url,
                    problem = last,
                    "no answer from the agent server yet; tasks wait for it"
                );
                return;
            }
            sleep(BETWEEN).await;
        }
    }

    /// The line that callers wait for: the service can be used.
    pub(super) fn say_ready(&self) {
        say(&format!("listening on http://{}", self.service.address()));
    }

    /// Ends both, the event stream last: ends of tasks may still come through it.
    pub(super) async fn stop(self, mode: ShutdownMode) -> ShutdownReport {
        let report = self.service.stop(mode).await;
        if let Some(events) = self.events {
            events.stop().await;
        }
        report
    }
}

//! `greenroom up`: finds or installs opencode, supervises it, and runs the service for it. With `--rehearsal` it uses a
//! scripted model and an isolated opencode.

use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::ShutdownMode;
use greenroom_opencode::hermetic::{Hermetic, PROVIDER};
use greenroom_opencode::{ChildState, OpencodeChild, ServeOptions, install};
use greenroom_rehearsal::{MODELS, Rehearsal};

use super::args::UpArgs;
use super::failure::{FAILED, Failure, UNREACHABLE};
use super::serve::{AttachedService, ensure_token, install_signals, warn_without_journal};
use super::shutdown_summary::{ServerLifetime, shutdown_summary};
use super::signals::{OnHangup, Signals};
use super::terminal::print_err;
use super::{open_files, rehearsal_folder};
use crate::config::settings::TokenSource;
use crate::config::{Auth, Environment, Events, Listen, Settings, load, token};
use crate::logging;

/// The first start on a machine unpacks and migrates data.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Runs the command.
pub async fn up(args: UpArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let loaded = load(&args.service.sources(), &environment)?;
    let journal_is_configured = loaded.origins.contains_key("journal");
    let mut settings = loaded.settings;
    logging::init();
    open_files::raise_limit()?;
    if !args.rehearsal {
        ensure_token(&mut settings, &environment)?;
    }
    let mut signals = install_signals(OnHangup::Stop)?;
    let mut components = Components {
        journal_is_configured,
        ..Components::default()
    };
    let end = tokio::select! {
        end = components.start(&args, settings, &environment) => end.map(|()| None),
        () = signals.next() => Ok(Some(())),
    };
    let end = match end {
        Ok(None) => {
            tokio::select! {
                () = components.watch_opencode() => {}
                () = signals.next() => {}
            }
            Ok(())
        }
        Ok(Some(())) => Ok(()),
        Err(failure) => Err(failure),
    };
    shut_down(components, signals).await;
    end
}

async fn shut_down(components: Components, signals: Signals) {
    signals.arm_exit();
    let Components {
        attached,
        child,
        rehearsal,
        folder,
        journal_is_configured,
    } = components;
    if let Some(attached) = attached {
        // A journal in the rehearsal folder is removed with it: no later start can resume the tasks.
        let mode = if folder.is_some() && !journal_is_configured {
            ShutdownMode::Abort
        } else {
            attached.service().shutdown_mode()
        };
        let report = attached.stop(mode).await;
        if let Some(summary) = shutdown_summary(&report, ServerLifetime::WithService) {
            print_err(&summary);
        }
    }
    if let Some(child) = child {
        child.stop().await;
    }
    if let Some(rehearsal) = rehearsal {
        rehearsal.stop().await;
    }
    // Removed last: the other components may still write to it.
    drop(folder);
}

/// The running components in the order of their start. After a failed start the existing ones are shut down.
#[derive(Default)]
struct Components {
    folder: Option<tempfile::TempDir>,
    rehearsal: Option<Rehearsal>,
    child: Option<OpencodeChild>,
    attached: Option<AttachedService>,
    /// True if the configuration names a journal.
    journal_is_configured: bool,
}

impl Components {
    async fn start(
        &mut self,
        args: &UpArgs,
        mut settings: Settings,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let found = install::find(args.opencode_bin.as_deref(), &mut |line: &str| {
            print_err(line)
        })
        .await
        .map_err(|error| {
            Failure::new(
                UNREACHABLE,
                error_chain(&error),
                "name a binary with --opencode-bin, or install Node.js with npm",
            )
        })?;
        let options = if args.rehearsal {
            self.prepare_rehearsal(&found.program, &mut settings)
                .await?
        } else {
            user_options(&found.program, &settings)?
        };
        warn_without_journal(&settings);
        let log = options.log.clone();
        let child = OpencodeChild::start(options).map_err(|error| {
            Failure::new(FAILED, error_chain(&error), "check --directory and the log")
        })?;
        let address = child.address().url.clone();
        let child = self.child.insert(child);
        child
            .wait_until_up(START_TIMEOUT)
            .await
            .map_err(|error| Failure::new(UNREACHABLE, error_chain(&error), "read its log"))?;

        let mut attached = AttachedService::start(&settings, &address)?;
        attached.wait_for_first_answer().await;
        let attached = self.attached.insert(attached);
        let description = if args.rehearsal {
            environment.rehearsal_file()
        } else {
            environment.description_file()
        };
        attached.describe(description, &settings);
        let service = attached.service().address();
        print_err(&startup_summary(
            args.rehearsal,
            service,
            &address,
            &log,
            &settings,
        ));
        attached.print_ready_line();
        Ok(())
    }

    /// Starts a scripted model and prepares a folder that isolates opencode.
    async fn prepare_rehearsal(
        &mut self,
        program: &Path,
        settings: &mut Settings,
    ) -> Result<ServeOptions, Failure> {
        let failed = |problem: String| {
            Failure::new(
                FAILED,
                problem,
                "check that the temporary folder can be written",
            )
        };
        let folder = rehearsal_folder::create()
            .map_err(|error| failed(format!("no temporary folder: {error}")))?;
        let path = folder.path().to_owned();
        self.folder = Some(folder);
        let any_port = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let rehearsal = Rehearsal::start(any_port).map_err(|error| failed(error_chain(&error)))?;
        let provider = rehearsal.base_url();
        self.rehearsal = Some(rehearsal);
        let hermetic = Hermetic::prepare(&path, &provider, &MODELS, &serde_json::Map::new())
            .await
            .map_err(|error| failed(error_chain(&error)))?;
        settings.core.directory = hermetic.project.to_string_lossy().into_owned().into();
        if !self.journal_is_configured {
            // The sessions end with the rehearsal, so they do not belong in the user's journal.
            settings.journal = Some(path.join("journal.db"));
        }
        // A port and a secret of its own: the user's opencode does not find it.
        if settings.listen_is_default {
            settings.listen.0.set_port(0);
        }
        if settings.auth == Auth::Token
            && !matches!(
                settings.token_source,
                TokenSource::Text(_) | TokenSource::File(_)
            )
        {
            let file = path.join("token");
            settings.token =
                Some(token::create(&file).map_err(|error| failed(error_chain(&error)))?);
            settings.token_source = TokenSource::Default(file);
        }
        // For the opencode of the rehearsal, not for the user's.
        settings.opencode.username = "opencode".to_owned();
        settings.opencode.password = None;
        settings.opencode.events = Events::Both;
        let mut options = ServeOptions::new(program, hermetic.project, path.join("opencode.log"));
        options.inherit_environment = false;
        options.environment = hermetic.environment;
        Ok(options)
    }

    /// Watches opencode and reconnects the event stream immediately after a restart.
    async fn watch_opencode(&self) {
        let mut state = match &self.child {
            Some(child) => child.watch(),
            None => return,
        };
        while state.changed().await.is_ok() {
            let now = state.borrow_and_update().clone();
            match now {
                ChildState::Up { .. } => {
                    if let Some(events) = self.attached.as_ref().and_then(AttachedService::events) {
                        events.reconnect_now();
                    }
                }
                ChildState::Restarting { reason, .. } => {
                    tracing::warn!(reason, "opencode exited; restarting")
                }
                ChildState::Starting | ChildState::Stopped => {}
            }
        }
        // The supervisor has ended; the service runs until a signal.
        std::future::pending().await
    }
}

/// Returns the options for opencode with the user's setup, in the configured folder.
fn user_options(program: &Path, settings: &Settings) -> Result<ServeOptions, Failure> {
    let hint = "set GREENROOM_CACHE to a folder that can be written";
    let cache =
        install::cache_folder().map_err(|error| Failure::new(FAILED, error_chain(&error), hint))?;
    std::fs::create_dir_all(&cache)
        .map_err(|error| Failure::new(FAILED, format!("{}: {error}", cache.display()), hint))?;
    // One log per process, so that two services do not share a file.
    let log = cache.join(format!("opencode-{}.log", std::process::id()));
    let mut options = ServeOptions::new(program, PathBuf::from(&*settings.core.directory), log);
    options.password = settings.opencode.password.clone();
    Ok(options)
}

/// Returns the addresses and files of the components, and a command to try.
fn startup_summary(
    rehearsal: bool,
    service: std::net::SocketAddr,
    opencode: &str,
    log: &Path,
    settings: &Settings,
) -> String {
    let mut lines = vec![
        format!("service    http://{service}"),
        format!("opencode   {opencode} (log {})", log.display()),
        format!("folder     {}", settings.core.directory),
    ];
    if let Some(journal) = &settings.journal {
        lines.push(format!("journal    {}", journal.display()));
    }
    let prompt = if rehearsal {
        lines.push(format!(
            "model      {PROVIDER}/{}, scripted: no key, no cost",
            MODELS[0]
        ));
        "[[wait 3s]] [[say Hello from the background]]"
    } else {
        "Say hello"
    };
    let url = if service == Listen::DEFAULT.0 {
        String::new()
    } else {
        format!("--url http://{service} ")
    };
    lines.push(format!("try        greenroom run {url}\"{prompt}\""));
    lines.join("\n")
}

/// Returns an error with its sources in one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

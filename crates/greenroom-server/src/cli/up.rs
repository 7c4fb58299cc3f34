//! `greenroom up`: the whole product in one go. Finds or installs opencode, runs it under supervision, runs the service
//! on it; with `--rehearsal` on a scripted model and an opencode that sees nothing of the user's own setup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::ShutdownMode;
use greenroom_opencode::hermetic::{Hermetic, PROVIDER};
use greenroom_opencode::{ChildState, OpencodeChild, ServeOptions, install};
use greenroom_rehearsal::{MODELS, Rehearsal};

use super::args::UpArgs;
use super::failure::{FAILED, Failure, UNREACHABLE};
use super::farewell::{OwnServer, farewell};
use super::serve::{Attached, say, say_if_nothing_is_kept, take_signals};
use super::signals::Signals;
use super::stage_folder;
use crate::config::{Environment, Events, Listen, Settings, load};
use crate::logging;

/// The first start on a machine unpacks and migrates.
const UP_WITHIN: Duration = Duration::from_secs(90);

/// Runs the command.
pub async fn up(args: UpArgs) -> Result<(), Failure> {
    let loaded = load(&args.service.sources(), &Environment::of_process())?;
    let journal_is_chosen = loaded.origins.contains_key("journal");
    let settings = loaded.settings;
    logging::init();
    let mut signals = take_signals()?;
    let mut house = House {
        journal_is_chosen,
        ..House::default()
    };
    let end = tokio::select! {
        end = house.open(&args, settings) => end.map(|()| None),
        () = signals.next() => Ok(Some(())),
    };
    let end = match end {
        Ok(None) => {
            tokio::select! {
                () = house.tend() => {}
                () = signals.next() => {}
            }
            Ok(())
        }
        Ok(Some(())) => Ok(()),
        Err(failure) => Err(failure),
    };
    close(house, signals).await;
    end
}

async fn close(house: House, signals: Signals) {
    signals.arm_exit();
    let House {
        attached,
        child,
        rehearsal,
        folder,
        journal_is_chosen,
    } = house;
    if let Some(attached) = attached {
        let mode = match folder.is_some() && !journal_is_chosen {
            // The journal goes with the folder: no start will find it.
            true => ShutdownMode::Abort,
            false => attached.service().lasting_mode(),
        };
        let report = attached.stop(mode).await;
        if let Some(words) = farewell(&report, OwnServer::EndsToo) {
            say(&words);
        }
    }
    if let Some(child) = child {
        child.stop().await;
    }
    if let Some(rehearsal) = rehearsal {
        rehearsal.stop().await;
    }
    // Removed last: until here somebody may write into it.
    drop(folder);
}

/// What is running, in the order it was started; a failure on the way leaves what is there to be closed.
#[derive(Default)]
struct House {
    folder: Option<tempfile::TempDir>,
    rehearsal: Option<Rehearsal>,
    child: Option<OpencodeChild>,
    attached: Option<Attached>,
    /// True if somebody has said where tasks are kept.
    journal_is_chosen: bool,
}

impl House {
    async fn open(&mut self, args: &UpArgs, mut settings: Settings) -> Result<(), Failure> {
        let found = install::find(args.opencode_bin.as_deref(), &mut |line: &str| say(line))
            .await
            .map_err(|error| {
                Failure::new(
                    UNREACHABLE,
                    chain(&error),
                    "name a binary with --opencode-bin, or install Node.js with npm",
                )
            })?;
        let options = if args.rehearsal {
            self.rehearse(&found.program, &mut settings).await?
        } else {
            own_setup(&found.program, &settings)?
        };
        say_if_nothing_is_kept(&settings);
        let log = options.log.clone();
        let child = OpencodeChild::start(options).map_err(|error| {
            Failure::new(FAILED, chain(&error), "check --directory and the log")
        })?;
        let address = child.address().url.clone();
        let child = self.child.insert(child);
        child
            .until_up(UP_WITHIN)
            .await
            .map_err(|error| Failure::new(UNREACHABLE, chain(&error), "read its log"))?;

        let mut attached = Attached::start(&settings, &address)?;
        attached.until_answering().await;
        let attached = self.attached.insert(attached);
        let service = attached.service().address();
        say(&welcome(args.rehearsal, service, &address, &log, &settings));
        attached.say_ready();
        Ok(())
    }

    /// A scripted model, and a folder in which opencode sees nothing else.
    async fn rehearse(
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
        let folder = stage_folder::make()
            .map_err(|error| failed(format!("no temporary folder: {error}")))?;
        let path = folder.path().to_owned();
        self.folder = Some(folder);
        let anywhere = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let rehearsal = Rehearsal::start(anywhere).map_err(|error| failed(chain(&error)))?;
        let provider = rehearsal.base_url();
        self.rehearsal = Some(rehearsal);
        let hermetic = Hermetic::prepare(&path, &provider, &MODELS, &serde_json::Map::new())
            .await
            .map_err(|error| failed(chain(&error)))?;
        settings.core.directory = hermetic.project.to_string_lossy().into_owned().into();
        if !self.journal_is_chosen {
            // Its sessions end with it: the user's own journal has nothing to do with them.
            settings.journal = Some(path.join("journal.db"));
        }
        // Of the rehearsal's own opencode, not of the user's.
        settings.opencode.username = "opencode".to_owned();
        settings.opencode.password = None;
        settings.opencode.events = Events::Both;
        let mut options = ServeOptions::new(program, hermetic.project, path.join("opencode.log"));
        options.inherit_environment = false;
        options.environment = hermetic.environment;
        Ok(options)
    }

    /// Watches opencode. A restarted one is connected to at once, not after the wait between two tries.
    async fn tend(&self) {
        let mut state = match &self.child {
            Some(child) => child.watch(),
            None => return,
        };
        while state.changed().await.is_ok() {
            let now = state.borrow_and_update().clone();
            match now {
                ChildState::Up { .. } => {
                    if let Some(events) = self.attached.as_ref().and_then(Attached::events) {
                        events.reconnect_now();
                    }
                }
                ChildState::Restarting { reason, .. } => {
                    tracing::warn!(reason, "opencode died; it is started again")
                }
                ChildState::Starting | ChildState::Stopped => {}
            }
        }
        // Its supervisor is gone: nothing to watch, but the service goes on until a signal.
        std::future::pending().await
    }
}

/// opencode as the user has it, in the folder that is configured.
fn own_setup(program: &Path, settings: &Settings) -> Result<ServeOptions, Failure> {
    let hint = "set GREENROOM_CACHE to a folder that can be written";
    let cache =
        install::cache_folder().map_err(|error| Failure::new(FAILED, chain(&error), hint))?;
    std::fs::create_dir_all(&cache)
        .map_err(|error| Failure::new(FAILED, format!("{}: {error}", cache.display()), hint))?;
    // One log per process: two services on one machine do not write into the same file.
    let log = cache.join(format!("opencode-{}.log", std::process::id()));
    let mut options = ServeOptions::new(program, PathBuf::from(&*settings.core.directory), log);
    options.password = settings.opencode.password.clone();
    Ok(options)
}

/// Where everything is, and what to try first.
fn welcome(
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

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

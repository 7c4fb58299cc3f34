//! The configuration as users write it: layers, what wins, and what they are told when something is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::config::{FailedCheck, OnParentAbort};
use greenroom_server::config::{ConfigError, Environment, Events, Origin, Settings, Sources, load};

const SECOND: Duration = Duration::from_secs(1);

/// A home and a folder of their own.
pub struct Place {
    pub root: tempfile::TempDir,
    pub environment: Environment,
    pub sources: Sources,
}

impl Place {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let folder = root.path().join("stage");
        std::fs::create_dir_all(home.join(".config/greenroom")).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let environment = Environment {
            variables: BTreeMap::new(),
            home: Some(home),
            folder,
        };
        Self {
            root,
            environment,
            sources: Sources::default(),
        }
    }

    pub fn user_file(self, text: &str) -> Self {
        std::fs::write(self.environment.user_file().unwrap(), text).unwrap();
        self
    }

    pub fn folder_file(self, text: &str) -> Self {
        std::fs::write(self.environment.folder.join("greenroom.toml"), text).unwrap();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment
            .variables
            .insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn set(mut self, written: &str) -> Self {
        self.sources.set.push(written.to_owned());
        self
    }

    pub fn settings(&self) -> Settings {
        load(&self.sources, &self.environment).unwrap().settings
    }

    fn error(&self) -> ConfigError {
        load(&self.sources, &self.environment).unwrap_err()
    }

    /// The error as users see it, without the path of this test.
    pub fn complaint(&self) -> String {
        let failure = greenroom_server::cli::Failure::from(self.error());
        assert_eq!(failure.code, 2);
        failure
            .text()
            .replace(&self.root.path().display().to_string(), "")
    }
}

#[test]
fn without_anything_the_defaults_hold() {
    let place = Place::new();
    let settings = place.settings();
    assert_eq!(settings.listen.0.to_string(), "127.0.0.1:7717");
    assert_eq!(
        settings.opencode.url.as_deref(),
        Some("http://127.0.0.1:4096")
    );
    assert_eq!(settings.opencode.events, Events::Both);
    assert!(settings.token.is_none());
    let home = place.environment.home.clone().unwrap();
    assert_eq!(
        settings.journal,
        Some(home.join(".local/share/greenroom/journal.db"))
    );
    assert_eq!(
        Path::new(&*settings.core.directory),
        place.environment.folder
    );
    assert_eq!(settings.core.limits, greenroom::config::Limits::default());
    assert_eq!(
        settings.core.lifecycle,
        greenroom::config::Lifecycle::default()
    );
}

#[test]
fn later_layers_win_and_their_origin_is_kept() {
    let mut place = Place::new()
        .user_file("[limits]\ndefault = 1\nmax = 1\nmax_waiting = 1\n[lifecycle]\nmin_idle = \"1s\"\nask_timeout = \"1s\"")
        .folder_file("[limits]\nmax = 2\nmax_waiting = 2\n[lifecycle]\nmin_idle = \"2s\"\nask_timeout = \"2s\"")
        .env("GREENROOM_LIMITS__MAX_WAITING", "3")
        .env("GREENROOM_LIFECYCLE__MIN_IDLE", "3s")
        .env("GREENROOM_LIFECYCLE__ASK_TIMEOUT", "3s")
        .set("lifecycle.min_idle=4s")
        .set("lifecycle.ask_timeout=4s")
        .set("listen=127.0.0.1:1");
    place
        .sources
        .flags
        .push(("listen", "127.0.0.1:2".to_owned(), "--listen"));
    let loaded = load(&place.sources, &place.environment).unwrap();
    let core = &loaded.settings.core;
    assert_eq!(
        (
            core.limits.default,
            core.limits.max,
            core.limits.max_waiting
        ),
        (1, 2, 3)
    );
    assert_eq!(core.lifecycle.min_idle, 4 * SECOND);
    assert_eq!(loaded.settings.listen.0.port(), 2);
    assert_eq!(
        loaded.origins["limits.default"],
        Origin::File {
            path: place.environment.user_file().unwrap(),
            line: Some(2)
        }
    );
    assert_eq!(
        loaded.origins["limits.max_waiting"],
        Origin::Env("GREENROOM_LIMITS__MAX_WAITING".to_owned())
    );
    assert_eq!(
        loaded.origins["lifecycle.min_idle"],
        Origin::Flag("--set lifecycle.min_idle".to_owned())
    );
    assert_eq!(
        loaded.origins["listen"],
        Origin::Flag("--listen".to_owned())
    );
    assert!(
        !loaded.origins.contains_key("lifecycle.poll_interval"),
        "a default has no origin"
    );
}

#[test]
fn a_named_file_replaces_the_usual_ones() {
    let mut place = Place::new()
        .user_file("[limits]\ndefault = 1")
        .folder_file("[limits]\nmax = 2");
    let named = place.root.path().join("named.toml");
    std::fs::write(&named, "[limits]\nmax_waiting = 3").unwrap();
    place.sources.file = Some(named);
    let limits = place.settings().core.limits;
    assert_eq!((limits.default, limits.max, limits.max_waiting), (5, 0, 3));
    place.sources.file = Some(PathBuf::from("missing.toml"));
    assert!(matches!(place.error(), ConfigError::Unreadable { .. }));
}

#[test]
fn every_form_of_a_named_entry_is_read() {
    let settings = Place::new()
        .folder_file(
            "[limits]\nproviders = { anthropic = 3 }\nmodels = { \"acme/big\" = 7 }\n\
             [agents.explore]\ndeny = [\"write\"]\n[agents.build]\nallow = [\"task\"]",
        )
        .env("GREENROOM_LIMITS__PROVIDERS__ACME", "2")
        .set("limits.models.\"acme/big\"=1")
        .set("limits.models.acme/gpt-4.1=4")
        .set("agents.explore.deny=edit,bash")
        .settings();
    let limits = settings.core.limits;
    assert_eq!(
        limits.providers,
        BTreeMap::from([("acme".to_owned(), 2), ("anthropic".to_owned(), 3)])
    );
    assert_eq!(
        limits.models,
        BTreeMap::from([("acme/big".to_owned(), 1), ("acme/gpt-4.1".to_owned(), 4)])
    );
    assert_eq!(settings.core.agents["explore"].deny, ["edit", "bash"]);
    assert_eq!(settings.core.agents["build"].allow, ["task"]);
}

#[test]
fn zero_turns_a_time_limit_off() {
    let names = [
        "not_taken_up",
        "queue_ttl",
        "stale_timeout",
        "task_ttl",
        "retry_timeout",
        "ask_timeout",
    ];
    let place = names.iter().fold(Place::new(), |place, name| {
        place.set(&format!("lifecycle.{name}=0"))
    });
    let place = place
        .set("notifications.debounce=0")
        .set("lifecycle.min_idle=0s");
    let settings = place.settings();
    let lifecycle = settings.core.lifecycle;
    assert_eq!((lifecycle.not_taken_up, lifecycle.queue_ttl), (None, None));
    for never in [
        lifecycle.stale_timeout,
        lifecycle.task_ttl,
        lifecycle.retry_timeout,
        lifecycle.ask_timeout,
    ] {
        assert!(never > 365 * 24 * 3600 * SECOND);
    }
    assert_eq!(
        settings.core.notifications.debounce,
        Duration::ZERO,
        "a wait of nothing is no wait"
    );
    assert_eq!(lifecycle.min_idle, Duration::ZERO);
    assert_eq!(
        Place::new()
            .set("lifecycle.queue_ttl=5m")
            .settings()
            .core
            .lifecycle
            .queue_ttl,
        Some(300 * SECOND)
    );
}

#[test]
fn words_are_read_as_choices() {
    let settings = Place::new()
        .set("opencode.events=bridge")
        .set("notifications.on_parent_abort=cancel")
        .set("lifecycle.failed_check=passed")
        .set("notifications.toasts=false")
        .settings();
    assert_eq!(settings.opencode.events, Events::Bridge);
    assert_eq!(
        settings.core.notifications.on_parent_abort,
        OnParentAbort::Cancel
    );
    assert_eq!(
        settings.core.lifecycle.failed_check,
        FailedCheck::CountsAsPassed
    );
    assert!(!settings.core.notifications.toasts);
}

#[test]
fn secrets_come_from_where_they_are_kept() {
    let place = Place::new()
        .env("OPENCODE_SERVER_PASSWORD", "opens")
        .env("OTHER", "other");
    assert_eq!(place.settings().opencode.password.as_deref(), Some("opens"));
    let place = place.set("opencode.password_env=OTHER");
    assert_eq!(place.settings().opencode.password.as_deref(), Some("other"));

    let place = place.env("GREENROOM_TOKEN", "from-env");
    assert!(place.settings().token.unwrap().matches("from-env"));
    std::fs::write(place.environment.folder.join("secret"), "from-file\n").unwrap();
    let place = place.set("token_file=secret");
    assert!(
        place.settings().token.unwrap().matches("from-file"),
        "the later layer wins"
    );
    assert!(place.set("token=").settings().token.is_none());
}

#[test]
fn the_home_folder_may_be_written_short() {
    let place = Place::new()
        .set("journal=~/tasks.db")
        .set("opencode.directory=..");
    let settings = place.settings();
    assert_eq!(
        settings.journal,
        Some(place.environment.home.clone().unwrap().join("tasks.db"))
    );
    assert_eq!(
        Path::new(&*settings.core.directory),
        place.environment.folder.join("..")
    );
    assert_eq!(place.set("journal=").settings().journal, None);
}

#[test]
fn the_network_needs_a_secret() {
    let open = Place::new().set("listen=0.0.0.0:7717");
    assert!(matches!(open.error(), ConfigError::TokenNeeded { .. }));
    assert!(open.set("token=s3cret").settings().token.is_some());
    assert_eq!(
        Place::new()
            .set("listen=localhost:0")
            .settings()
            .listen
            .0
            .to_string(),
        "127.0.0.1:0"
    );
    assert!(
        Place::new()
            .set("listen=[::1]:7717")
            .settings()
            .listen
            .is_loopback()
    );
}

#[test]
fn complaints_name_the_place_the_key_and_what_to_do() {
    let complaints = [
        Place::new().folder_file("[limits]\ndefualt = 3"),
        Place::new().user_file("stale_timeout = \"3m\""),
        Place::new().folder_file("[limit]\ndefault = 3"),
        Place::new().folder_file("[limits]\ndefault = \"3\""),
        Place::new().folder_file("[limits]\ndefault = -1"),
        Place::new().folder_file("limits = 3"),
        Place::new().folder_file("[lifecycle]\nstale_timeout = 180"),
        Place::new().folder_file("[limits]\ndefault = "),
        Place::new().folder_file("[agents.explore]\ndney = [\"write\"]"),
        Place::new().env("GREENROOM_LIMITS__DEFAULT", "many"),
        Place::new().env("GREENROOM_LISTNE", "127.0.0.1:1"),
        Place::new().set("limits.default"),
        Place::new().set("limits.models=3"),
        Place::new().set("lifecycle.poll_interval=0"),
        Place::new().set("lifecycle.poll_interval=1ms"),
        Place::new().set("opencode.events=all"),
        Place::new().set("opencode.url=https://127.0.0.1"),
        Place::new().set("listen=7717"),
        Place::new().set("listen=0.0.0.0:7717"),
        Place::new().set("token_file=missing"),
        Place::new().set("zzz=1"),
        Place::new().set("safety.max_depth=0"),
    ];
    let text: Vec<String> = complaints.iter().map(Place::complaint).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn an_agent_server_may_come_by_its_bridge_alone() {
    let url = |place: Place| place.settings().opencode.url;
    assert_eq!(url(Place::new().set("opencode.url=")), None);
    assert_eq!(url(Place::new().set("opencode.events=bridge")), None);
    let both_given = Place::new()
        .set("opencode.events=bridge")
        .set("opencode.url=http://127.0.0.1:1");
    assert_eq!(url(both_given).as_deref(), Some("http://127.0.0.1:1"));
    let neither = Place::new()
        .set("opencode.events=stream")
        .set("opencode.url=");
    assert!(neither.complaint().contains("opencode.events"));
}

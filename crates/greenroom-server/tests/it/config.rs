//! The configuration: layers, precedence, and error texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::config::{FailedCheck, OnParentAbort};
use greenroom_server::config::{
    ConfigError, Environment, Events, FlagValue, Origin, Settings, Sources, load,
};

const SECOND: Duration = Duration::from_secs(1);

/// A home folder and a current folder for one test.
pub struct TestEnv {
    pub root: tempfile::TempDir,
    pub environment: Environment,
    pub sources: Sources,
}

impl TestEnv {
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

    /// Returns the error text without the path of the test.
    pub fn error_text(&self) -> String {
        let failure = greenroom_server::cli::Failure::from(self.error());
        assert_eq!(failure.code, 2);
        failure
            .text()
            .replace(&self.root.path().display().to_string(), "")
    }
}

#[test]
fn defaults_apply_without_configuration() {
    let place = TestEnv::new();
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
fn later_layers_override_earlier_ones() {
    let mut place = TestEnv::new()
        .user_file("[limits]\ndefault = 1\nmax = 1\nmax_waiting = 1\n[lifecycle]\nmin_idle = \"1s\"\nask_timeout = \"1s\"")
        .folder_file("[limits]\nmax = 2\nmax_waiting = 2\n[lifecycle]\nmin_idle = \"2s\"\nask_timeout = \"2s\"")
        .env("GREENROOM_LIMITS__MAX_WAITING", "3")
        .env("GREENROOM_LIFECYCLE__MIN_IDLE", "3s")
        .env("GREENROOM_LIFECYCLE__ASK_TIMEOUT", "3s")
        .set("lifecycle.min_idle=4s")
        .set("lifecycle.ask_timeout=4s")
        .set("listen=127.0.0.1:1");
    place.sources.flags.push(FlagValue {
        key: "listen",
        value: "127.0.0.1:2".to_owned(),
        flag: "--listen",
    });
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
fn named_file_replaces_default_files() {
    let mut place = TestEnv::new()
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
fn named_entries_are_read_in_every_form() {
    let settings = TestEnv::new()
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
fn zero_disables_a_time_limit() {
    let names = [
        "not_taken_up",
        "queue_ttl",
        "stale_timeout",
        "task_ttl",
        "retry_timeout",
        "ask_timeout",
    ];
    let place = names.iter().fold(TestEnv::new(), |place, name| {
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
        TestEnv::new()
            .set("lifecycle.queue_ttl=5m")
            .settings()
            .core
            .lifecycle
            .queue_ttl,
        Some(300 * SECOND)
    );
}

#[test]
fn choices_are_parsed() {
    let settings = TestEnv::new()
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
fn token_comes_from_file_or_environment() {
    let place = TestEnv::new()
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
fn tilde_is_the_home_folder() {
    let place = TestEnv::new()
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
fn network_address_needs_a_token() {
    let open = TestEnv::new().set("listen=0.0.0.0:7717");
    assert!(matches!(open.error(), ConfigError::TokenNeeded { .. }));
    assert!(open.set("token=s3cret").settings().token.is_some());
    assert_eq!(
        TestEnv::new()
            .set("listen=localhost:0")
            .settings()
            .listen
            .0
            .to_string(),
        "127.0.0.1:0"
    );
    assert!(
        TestEnv::new()
            .set("listen=[::1]:7717")
            .settings()
            .listen
            .is_loopback()
    );
}

#[test]
fn config_errors() {
    let complaints = [
        TestEnv::new().folder_file("[limits]\ndefualt = 3"),
        TestEnv::new().user_file("stale_timeout = \"3m\""),
        TestEnv::new().folder_file("[limit]\ndefault = 3"),
        TestEnv::new().folder_file("[limits]\ndefault = \"3\""),
        TestEnv::new().folder_file("[limits]\ndefault = -1"),
        TestEnv::new().folder_file("limits = 3"),
        TestEnv::new().folder_file("[lifecycle]\nstale_timeout = 180"),
        TestEnv::new().folder_file("[limits]\ndefault = "),
        TestEnv::new().folder_file("[agents.explore]\ndney = [\"write\"]"),
        TestEnv::new().env("GREENROOM_LIMITS__DEFAULT", "many"),
        TestEnv::new().env("GREENROOM_LISTNE", "127.0.0.1:1"),
        TestEnv::new().set("limits.default"),
        TestEnv::new().set("limits.models=3"),
        TestEnv::new().set("lifecycle.poll_interval=0"),
        TestEnv::new().set("lifecycle.poll_interval=1ms"),
        TestEnv::new().set("opencode.events=all"),
        TestEnv::new().set("opencode.url=https://127.0.0.1"),
        TestEnv::new().set("listen=7717"),
        TestEnv::new().set("listen=0.0.0.0:7717"),
        TestEnv::new().set("token_file=missing"),
        TestEnv::new().set("zzz=1"),
        TestEnv::new().set("safety.max_depth=0"),
    ];
    let text: Vec<String> = complaints.iter().map(TestEnv::error_text).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn bridge_events_need_no_url() {
    let url = |place: TestEnv| place.settings().opencode.url;
    assert_eq!(url(TestEnv::new().set("opencode.url=")), None);
    assert_eq!(url(TestEnv::new().set("opencode.events=bridge")), None);
    let both_given = TestEnv::new()
        .set("opencode.events=bridge")
        .set("opencode.url=http://127.0.0.1:1");
    assert_eq!(url(both_given).as_deref(), Some("http://127.0.0.1:1"));
    let neither = TestEnv::new()
        .set("opencode.events=stream")
        .set("opencode.url=");
    assert!(neither.error_text().contains("opencode.events"));
}

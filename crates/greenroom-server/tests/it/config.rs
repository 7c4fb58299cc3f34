//! The configuration: layers, precedence, and error texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenroom::config::{FailedCheck, OnParentAbort};
use greenroom_server::config::project::TrustedFiles;
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

    /// Writes the project's file, and accepts it.
    pub fn folder_file(self, text: &str) -> Self {
        let place = self.strange_file(text);
        let path = place.environment.project_file();
        TrustedFiles::read(&place.environment)
            .accept(&place.environment, &path, text)
            .unwrap();
        place
    }

    /// Writes the project's file, as a cloned repository brings it.
    pub fn strange_file(self, text: &str) -> Self {
        std::fs::write(self.environment.project_file(), text).unwrap();
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

#[test]
fn file_of_a_project_only_tightens() {
    let user = "[limits]\ndefault = 4\nmodels = { \"acme/big\" = 2 }\n[agents.Explore]\ndeny = [\"bash\"]\n";
    let place = TestEnv::new().user_file(user).strange_file(
        "notifications.debounce = \"2s\"\n\
         [limits]\ndefault = 3\nmax = 9\nmax_waiting = 10\n\
         models = { \"acme/big\" = 1, \"acme/new\" = 3 }\nproviders = { acme = 2 }\n\
         [safety]\nmax_depth = 1\n\
         [agents.explore]\ndeny = [\"webfetch\"]\n[agents.oracle]\ndeny = [\"bash\"]\n",
    );
    let core = place.settings().core;
    assert_eq!((core.limits.default, core.limits.max), (3, 9));
    assert_eq!(core.limits.max_waiting, 10);
    assert_eq!(core.limits.models["acme/big"], 1);
    assert_eq!(core.safety.max_depth, 1);
    assert_eq!(core.notifications.debounce, 2 * SECOND);
    assert_eq!(core.agents["Explore"].deny, ["bash", "webfetch"]);
    let oracle = &core.agents["oracle"].deny;
    assert!(oracle.iter().any(|tool| tool == "bash") && oracle.iter().any(|tool| tool == "write"));

    for (line, key) in [
        ("limits.default = 5", "limits.default"),
        ("limits.default = 0", "limits.default"),
        (
            "limits.models = { \"acme/big\" = 3 }",
            "limits.models.\"acme/big\"",
        ),
        (
            "limits.models = { \"acme/new\" = 5 }",
            "limits.models.\"acme/new\"",
        ),
        ("limits.providers = { acme = 0 }", "limits.providers.acme"),
        ("limits.max_waiting = 1000000", "limits.max_waiting"),
        ("safety.max_depth = 50", "safety.max_depth"),
        ("safety.max_tool_calls = 100000", "safety.max_tool_calls"),
        ("agents.explore.allow = [\"task\"]", "agents.explore.allow"),
        ("listen = \"0.0.0.0:1\"", "listen"),
        ("auth = \"none\"", "auth"),
        ("token = \"x\"", "token"),
        ("token_file = \"/etc/passwd\"", "token_file"),
        ("journal = \"/tmp/theirs.db\"", "journal"),
        ("bridge.any_uid = true", "bridge.any_uid"),
        ("opencode.url = \"http://evil.example\"", "opencode.url"),
        (
            "opencode.password_env = \"AWS_SECRET\"",
            "opencode.password_env",
        ),
        ("opencode.directory = \"/\"", "opencode.directory"),
        (
            "lifecycle.restart_attempts = 9",
            "lifecycle.restart_attempts",
        ),
        ("notifications.enabled = false", "notifications.enabled"),
    ] {
        let user =
            "limits.default = 4\nlimits.models = { \"acme/big\" = 2 }\nlimits.max_waiting = 100\n";
        let place = TestEnv::new()
            .user_file(user)
            .strange_file(&format!("\n{line}\n"));
        let error = place.error_text();
        assert!(
            error.starts_with("error: /stage/greenroom.toml:2: "),
            "{line}: {error}"
        );
        assert!(
            error.contains(&format!("`{key}`: a project's file may")),
            "{line}: {error}"
        );
        assert!(error.contains("greenroom config trust"), "{line}: {error}");
    }
}

#[test]
fn accepted_file_of_a_project_is_a_layer_until_it_changes() {
    let text = "listen = \"127.0.0.1:9\"\n";
    let place = TestEnv::new().folder_file(text);
    assert_eq!(place.settings().listen.0.port(), 9);
    let changed = place.strange_file("listen = \"127.0.0.1:8\"\n");
    assert!(
        changed.error_text().contains("`listen`"),
        "{}",
        changed.error_text()
    );
    let place = changed.strange_file(text);
    assert_eq!(place.settings().listen.0.port(), 9);
    // The same content in another folder is another file.
    let other = TestEnv::new().strange_file(text);
    assert!(other.error_text().contains("`listen`"));
    // A list that another user can write counts for nothing.
    let list = place.environment.trust_file().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&list, mode).unwrap();
    assert!(place.error_text().contains("`listen`"));
    let trusted = TrustedFiles::read(&place.environment);
    assert!(!trusted.contains(&place.environment.project_file(), text));
}

#[test]
fn only_the_first_unknown_keys_get_a_suggestion() {
    let typos: String = (0..300)
        .map(|n| format!("limits.defualt{n:03} = 1\n"))
        .collect();
    let place = TestEnv::new().user_file(&typos);
    let (_, problems) = greenroom_server::config::check(&place.sources, &place.environment);
    assert_eq!(problems.len(), 300);
    let is_suggested = |problem: &ConfigError| problem.hint().starts_with("did you mean");
    assert!(is_suggested(&problems[0]));
    assert_eq!(problems.iter().filter(|it| is_suggested(it)).count(), 100);
    let place = TestEnv::new().user_file(&format!("limits.{} = 1\n", "defualt".repeat(50)));
    let (_, problems) = greenroom_server::config::check(&place.sources, &place.environment);
    assert!(!is_suggested(&problems[0]));
}

//! The layers of the configuration in order: defaults, the user's file, the file of the folder, the environment, flags.
//! Also resolves what needs all layers. The `Loader` stores the values.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::loader::{Loader, printable_name};
use super::project::TrustedFiles;
use super::settings::{Auth, Events, Settings, TokenSource};
use super::token::{TokenError, default_token, read_token};

/// Variables with our prefix that are not keys.
const RESERVED_VARIABLES: &[&str] = &[
    "GREENROOM_URL",
    "GREENROOM_LOG",
    "GREENROOM_CACHE",
    "GREENROOM_E2E",
    "GREENROOM_HINT",
    "GREENROOM_AUTOSTART",
    "GREENROOM_BIN",
];
const PREFIX: &str = "GREENROOM_";

/// The environment of the process; a parameter, so that tests have their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The variables by name.
    pub variables: BTreeMap<String, String>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// The current folder.
    pub folder: PathBuf,
}

impl Environment {
    /// Returns the environment of this process. Of variables that are not valid UTF-8 only those with our prefix are
    /// kept, with replacement characters, which every key rejects.
    pub fn from_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = match value.into_string() {
                    Ok(value) => value,
                    Err(value) if name.starts_with(PREFIX) => value.to_string_lossy().into_owned(),
                    Err(_) => return None,
                };
                Some((name, value))
            })
            .collect();
        let home = variables
            .get("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        Self {
            variables,
            home,
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        }
    }

    /// Returns the path of the user's configuration file.
    pub fn user_file(&self) -> Option<PathBuf> {
        Some(self.user_folder()?.join("config.toml"))
    }

    /// Returns the default path of the secret. opencode's plugin reads the same file.
    pub fn token_file(&self) -> Option<PathBuf> {
        Some(self.user_folder()?.join("token"))
    }

    /// Returns the path of the configuration file of the project in the current folder.
    pub fn project_file(&self) -> PathBuf {
        self.folder.join("greenroom.toml")
    }

    /// Returns the path of the list of accepted project files.
    pub fn trust_file(&self) -> Option<PathBuf> {
        Some(self.state_folder()?.join("trusted.json"))
    }

    /// Returns the path of the description of the user's running service.
    pub fn description_file(&self) -> Option<PathBuf> {
        Some(self.runtime_folder()?.join("service.json"))
    }

    /// Returns the path of the description of the user's running rehearsal.
    pub fn rehearsal_file(&self) -> Option<PathBuf> {
        Some(self.runtime_folder()?.join("rehearsal.json"))
    }

    /// Returns the folder of descriptions: in the runtime folder of the login session if that is the user's own, else the
    /// folder of the state.
    fn runtime_folder(&self) -> Option<PathBuf> {
        let runtime = self.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        let is_own = |path: &PathBuf| {
            std::fs::metadata(path)
                .is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw())
        };
        match runtime.filter(is_own) {
            Some(runtime) => Some(runtime.join("greenroom")),
            None => self.state_folder(),
        }
    }

    fn state_folder(&self) -> Option<PathBuf> {
        let base = match self.variable("XDG_STATE_HOME") {
            Some(base) => PathBuf::from(base),
            None => self.home.as_ref()?.join(".local/state"),
        };
        Some(base.join("greenroom"))
    }

    /// Returns the value of a variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<&String> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    fn user_folder(&self) -> Option<PathBuf> {
        let base = match self.variable("XDG_CONFIG_HOME") {
            Some(base) => PathBuf::from(base),
            None => self.home.as_ref()?.join(".config"),
        };
        Some(base.join("greenroom"))
    }

    /// Resolves a path: `~` is the home folder, relative paths start at the current folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        let tail = path.strip_prefix("~").ok();
        let absolute = match (tail, &self.home) {
            (Some(tail), Some(home)) => home.join(tail),
            _ => self.folder.join(path),
        };
        // Normalizes `/a/.` to `/a` also for paths that do not exist.
        absolute.components().collect()
    }
}

/// A key set by a dedicated flag.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// The key, for example `listen`.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// The flag, for example `--listen`.
    pub flag: &'static str,
}

/// The configuration on the command line.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`: replaces the two default files.
    pub file: Option<PathBuf>,
    /// Keys set by dedicated flags such as `--listen`.
    pub flags: Vec<FlagValue>,
    /// `--set key=value`, as given.
    pub set: Vec<String>,
}

/// The settings, with the origin of each value that is not a default.
#[derive(Debug)]
pub struct Loaded {
    /// The effective settings.
    pub settings: Settings,
    /// The origins by key, with the entry of named keys.
    pub origins: BTreeMap<String, Origin>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Reads all layers.
///
/// # Errors
/// The first problem; [`check`] returns all of them.
pub fn load(sources: &Sources, environment: &Environment) -> Result<Loaded, ConfigError> {
    let (loaded, problems) = check(sources, environment);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(loaded),
    }
}

/// Reads all layers and continues after a problem with the value of the previous layer. Returns the effective settings,
/// and all problems in the order of the layers.
pub fn check(sources: &Sources, environment: &Environment) -> (Loaded, Vec<ConfigError>) {
    let mut loader = Loader::default();
    match &sources.file {
        Some(file) => loader.file(&environment.path(file), true),
        None => {
            if let Some(file) = environment.user_file() {
                loader.file(&file, false);
            }
            let trusted = TrustedFiles::read(environment);
            loader.project_file(&environment.project_file(), &trusted);
        }
    }
    for (variable, value) in &environment.variables {
        if let Some(name) = variable
            .strip_prefix(PREFIX)
            .filter(|_| !RESERVED_VARIABLES.contains(&variable.as_str()))
        {
            let name = name.to_ascii_lowercase().replace("__", ".");
            loader.text(&name, value, &Origin::Env(variable.clone()));
        }
    }
    for assignment in &sources.set {
        match split_assignment(assignment) {
            None => loader.problems.push(ConfigError::MissingValue {
                origin: Origin::Flag(format!("--set {}", printable_name(assignment))),
            }),
            Some((name, value)) => {
                let name = name.trim();
                loader.text(
                    name,
                    value,
                    &Origin::Flag(format!("--set {}", printable_name(name))),
                );
            }
        }
    }
    for FlagValue { key, value, flag } in &sources.flags {
        loader.text(key, value, &Origin::Flag((*flag).to_owned()));
    }
    resolve(loader, environment)
}

/// Reads the configured secret, else the secret in the default file if the file exists. A service without a secret creates
/// that file ([`super::token::ensure`]).
fn resolve_token(
    settings: &mut Settings,
    environment: &Environment,
    origin: &impl Fn(&str) -> Option<Origin>,
    problems: &mut Vec<ConfigError>,
) {
    if settings.auth == Auth::None {
        settings.token_source = TokenSource::None;
        return;
    }
    let mut failed = |file: PathBuf, problem: String| {
        problems.push(ConfigError::Invalid {
            origin: origin("token_file").unwrap_or(Origin::File {
                path: file,
                line: None,
            }),
            key: "token_file".to_owned(),
            problem,
        });
    };
    match &mut settings.token_source {
        TokenSource::Text(text) => settings.token = greenroom_bridge::Token::new(text),
        TokenSource::File(file) => {
            *file = environment.path(file);
            match read_token(file) {
                Ok(token) => settings.token = Some(token),
                Err(problem) => failed(file.clone(), problem),
            }
        }
        TokenSource::None | TokenSource::Default(_) => {
            let Some(file) = environment.token_file() else {
                return;
            };
            match default_token(environment) {
                Ok(None) => return,
                Ok(Some(token)) => settings.token = Some(token),
                Err(TokenError::File(error)) => {
                    problems.push(ConfigError::SecretFile(error));
                }
                Err(error) => failed(file.clone(), error.to_string()),
            }
            settings.token_source = TokenSource::Default(file);
        }
    }
}

/// Splits `key=value` at the first `=` outside of quotes.
fn split_assignment(assignment: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = assignment.find(|c| {
        quoted ^= c == '"';
        c == '=' && !quoted
    })?;
    Some((&assignment[..at], &assignment[at + 1..]))
}

/// Resolves paths, secrets, and rules between keys.
fn resolve(loader: Loader, environment: &Environment) -> (Loaded, Vec<ConfigError>) {
    let Loader {
        mut settings,
        origins,
        files,
        mut problems,
        restricted: _,
    } = loader;
    let origin = |key: &str| origins.get(key).cloned();
    settings.listen_is_default = !origins.contains_key("listen");
    settings.core.directory = environment
        .path(Path::new(&*settings.core.directory))
        .to_string_lossy()
        .into();
    let default_without_home = environment.home.is_none() && !origins.contains_key("journal");
    settings.journal = settings
        .journal
        .filter(|_| !default_without_home)
        .map(|path| environment.path(&path));
    settings.opencode.password = environment
        .variables
        .get(&settings.opencode.password_env)
        .filter(|text| !text.is_empty())
        .cloned();
    if settings.opencode.events == Events::Bridge && !origins.contains_key("opencode.url") {
        settings.opencode.url = None;
    }
    if settings.opencode.events == Events::Stream && settings.opencode.url.is_none() {
        // Both keys were set, so each has an origin.
        let origin = origin("opencode.url").unwrap_or(Origin::Flag("--opencode".to_owned()));
        problems.push(ConfigError::Invalid {
            origin,
            key: "opencode.url".to_owned(),
            problem: "there is no event stream without a URL; name one, or set opencode.events to \"bridge\"".to_owned(),
        });
    }
    resolve_token(&mut settings, environment, &origin, &mut problems);
    if settings.auth == Auth::None && !settings.listen.is_loopback() {
        problems.push(ConfigError::Invalid {
            origin: origin("auth").unwrap_or(Origin::Flag("--set auth".to_owned())),
            key: "auth".to_owned(),
            problem: format!(
                "\"none\" is for loopback addresses, and {} can be reached from other machines",
                settings.listen.0
            ),
        });
    } else if !settings.listen.is_loopback() && settings.token_source == TokenSource::None {
        // The default is a loopback address, so another address has an origin.
        let origin = origin("listen").unwrap_or(Origin::Flag("--listen".to_owned()));
        problems.push(ConfigError::TokenNeeded {
            origin,
            address: settings.listen.0.to_string(),
        });
    }
    let loaded = Loaded {
        settings,
        origins,
        files,
    };
    (loaded, problems)
}

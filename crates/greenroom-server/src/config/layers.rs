//! The layers of the configuration in order: defaults, the user's file, the file of the folder, the environment, flags.
//! Also resolves what needs all layers. The `Loader` stores the values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::file;
use super::loader::{Loader, printable_name};
use super::settings::{Events, Settings, TokenSource};
use super::value::MAX_TEXT_BYTES;

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

    fn user_folder(&self) -> Option<PathBuf> {
        let base = match self
            .variables
            .get("XDG_CONFIG_HOME")
            .filter(|base| !base.is_empty())
        {
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
            loader.file(&environment.folder.join("greenroom.toml"), false);
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
    } = loader;
    let origin = |key: &str| origins.get(key).cloned();
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
    let is_set = ["token", "token_file"].map(|key| origins.contains_key(key));
    if is_set == [false, false]
        && let Some(file) = default_token_file(environment)
    {
        settings.token_source = TokenSource::File(file);
    }
    settings.token = match &settings.token_source {
        TokenSource::None => None,
        TokenSource::Text(text) => greenroom_bridge::Token::new(text),
        TokenSource::File(file) => match read_token(&environment.path(file)) {
            Ok(token) => Some(token),
            Err(problem) => {
                let origin = origin("token_file").unwrap_or(Origin::File {
                    path: file.clone(),
                    line: None,
                });
                problems.push(ConfigError::Invalid {
                    origin,
                    key: "token_file".to_owned(),
                    problem,
                });
                None
            }
        },
    };
    let has_secret = settings.token_source != TokenSource::None;
    if !settings.listen.is_loopback() && !has_secret {
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

/// Returns the default file of the secret if it exists. A file whose existence cannot be checked counts as existing.
fn default_token_file(environment: &Environment) -> Option<PathBuf> {
    let file = environment.token_file()?;
    file.try_exists().unwrap_or(true).then_some(file)
}

/// Reads the secret from its default file, if the file exists.
///
/// # Errors
/// As [`read_token`].
pub fn default_token(environment: &Environment) -> Result<Option<greenroom_bridge::Token>, String> {
    let file = default_token_file(environment);
    file.map(|file| read_token(&file)).transpose()
}

/// Reads a secret from a file, without the line end.
///
/// # Errors
/// A sentence: the file cannot be read, is empty, or has more than one line.
pub fn read_token(path: &Path) -> Result<greenroom_bridge::Token, String> {
    let name = printable_name(&path.display().to_string());
    let text = file::read_bounded(path, MAX_TEXT_BYTES as u64)
        .map_err(|error| format!("{name} cannot be read: {error}"))?
        .ok_or_else(|| format!("{name} is larger than {MAX_TEXT_BYTES} bytes"))?;
    if text.trim().chars().any(char::is_control) {
        return Err(format!("{name} holds more than one line of text"));
    }
    greenroom_bridge::Token::new(&text).ok_or_else(|| format!("{name} is empty"))
}

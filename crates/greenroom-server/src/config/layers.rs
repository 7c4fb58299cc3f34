//! The layers of the configuration and their order: defaults, the user's file, the folder's file, the environment,
//! flags; and what can only be known when all are read. A [`Loader`] takes the values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::file;
use super::loader::{Loader, shown};
use super::settings::{Events, Settings, TokenSource};
use super::value::LONGEST_TEXT;

/// Variables that begin like ours and are no keys: the client's, the logger's, the plugin's.
const NOT_KEYS: &[&str] = &[
    "GREENROOM_URL",
    "GREENROOM_LOG",
    "GREENROOM_CACHE",
    "GREENROOM_E2E",
    "GREENROOM_HINT",
    "GREENROOM_AUTOSTART",
    "GREENROOM_BIN",
];
const PREFIX: &str = "GREENROOM_";

/// What surrounds the process; given, so that tests have their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables by name.
    pub variables: BTreeMap<String, String>,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// The current folder.
    pub folder: PathBuf,
}

impl Environment {
    /// That of this process. Of variables that are no text only ours are kept, with replacement characters, which no
    /// key takes: they are refused where another program's are none of our business.
    pub fn of_process() -> Self {
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

    /// The user's configuration file.
    pub fn user_file(&self) -> Option<PathBuf> {
        Some(self.user_folder()?.join("config.toml"))
    }

    /// Where the secret lies unless the configuration names another place: opencode's plugin looks there too.
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

    /// A path as people write it: `~` is the home folder, and what is relative is below the current one.
    pub fn path(&self, written: &Path) -> PathBuf {
        let tail = written.strip_prefix("~").ok();
        let path = match (tail, &self.home) {
            (Some(tail), Some(home)) => home.join(tail),
            _ => self.folder.join(written),
        };
        // Gives `/a` for `/a/.`; what does not exist yet stays as it is.
        path.components().collect()
    }
}

/// What the command line gives.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`: read instead of the two usual files.
    pub file: Option<PathBuf>,
    /// Flags of their own, as key, value and flag: `("listen", "127.0.0.1:0", "--listen")`.
    pub flags: Vec<(&'static str, String, &'static str)>,
    /// `--set key=value`, as written.
    pub set: Vec<String>,
}

/// The settings, and where each value that is no default comes from.
#[derive(Debug)]
pub struct Loaded {
    /// What holds.
    pub settings: Settings,
    /// By key, with the entry of named ones.
    pub origins: BTreeMap<String, Origin>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
}

/// Reads every layer.
///
/// # Errors
/// The first problem there is; [`check`] has them all.
pub fn load(sources: &Sources, environment: &Environment) -> Result<Loaded, ConfigError> {
    let (loaded, problems) = check(sources, environment);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(loaded),
    }
}

/// Reads every layer and goes on after a problem, with the value of the layer before. Returns what holds then, and every
/// problem in the order of the layers.
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
            .filter(|_| !NOT_KEYS.contains(&variable.as_str()))
        {
            let name = name.to_ascii_lowercase().replace("__", ".");
            loader.text(&name, value, &Origin::Env(variable.clone()));
        }
    }
    for written in &sources.set {
        match split(written) {
            None => loader.problems.push(ConfigError::NoValue {
                origin: Origin::Flag(format!("--set {}", shown(written))),
            }),
            Some((name, value)) => {
                let name = name.trim();
                loader.text(name, value, &Origin::Flag(format!("--set {}", shown(name))));
            }
        }
    }
    for (key, value, flag) in &sources.flags {
        loader.text(key, value, &Origin::Flag((*flag).to_owned()));
    }
    finish(loader, environment)
}

/// `key=value` at its first `=` that does not stand in quotes.
fn split(written: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = written.find(|c| {
        quoted ^= c == '"';
        c == '=' && !quoted
    })?;
    Some((&written[..at], &written[at + 1..]))
}

/// What needs every layer: paths, secrets, and rules between keys.
fn finish(loader: Loader, environment: &Environment) -> (Loaded, Vec<ConfigError>) {
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
    let usual_without_home = environment.home.is_none() && !origins.contains_key("journal");
    settings.journal = settings
        .journal
        .filter(|_| !usual_without_home)
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
        // Both were chosen, so that each has an origin.
        let origin = origin("opencode.url").unwrap_or(Origin::Flag("--opencode".to_owned()));
        problems.push(ConfigError::Invalid {
            origin,
            key: "opencode.url".to_owned(),
            problem: "there is no event stream without a URL; name one, or set opencode.events to \"bridge\"".to_owned(),
        });
    }
    let chosen = ["token", "token_file"].map(|key| origins.contains_key(key));
    if chosen == [false, false]
        && let Some(file) = usual_token_file(environment)
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
        // The default is loopback, so another address has an origin.
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

/// The secret's usual file, if there is one; one that cannot be looked at is there.
fn usual_token_file(environment: &Environment) -> Option<PathBuf> {
    let file = environment.token_file()?;
    file.try_exists().unwrap_or(true).then_some(file)
}

/// The secret in its usual file, if there is one.
///
/// # Errors
/// As [`read_token`].
pub fn usual_token(environment: &Environment) -> Result<Option<greenroom_bridge::Token>, String> {
    let file = usual_token_file(environment);
    file.map(|file| read_token(&file)).transpose()
}

/// Reads a secret from a file, its line end left out.
///
/// # Errors
/// A sentence: it cannot be read, is empty, or cannot be a secret that goes into a header.
pub fn read_token(path: &Path) -> Result<greenroom_bridge::Token, String> {
    let name = shown(&path.display().to_string());
    let text = file::bounded(path, LONGEST_TEXT as u64)
        .map_err(|error| format!("{name} cannot be read: {error}"))?
        .ok_or_else(|| format!("{name} is larger than {LONGEST_TEXT} bytes"))?;
    if text.trim().chars().any(char::is_control) {
        return Err(format!("{name} holds more than one line of text"));
    }
    greenroom_bridge::Token::new(&text).ok_or_else(|| format!("{name} is empty"))
}

//! The layers of the configuration and their order: defaults, the user's file, the folder's file, the environment,
//! flags. Each value is checked where it stands, also if a later layer overrides it, and its origin is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::keys::{KEYS, Key, Kind};
use super::settings::{Settings, TokenSource};
use super::value::Raw;

/// Variables that begin like ours and are no keys: the client's and the logger's.
const NOT_KEYS: &[&str] = &[
    "GREENROOM_URL",
    "GREENROOM_LOG",
    "GREENROOM_CACHE",
    "GREENROOM_E2E",
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
    /// That of this process. Variables that are no text are left out.
    pub fn of_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
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
        let base = match self
            .variables
            .get("XDG_CONFIG_HOME")
            .filter(|base| !base.is_empty())
        {
            Some(base) => PathBuf::from(base),
            None => self.home.as_ref()?.join(".config"),
        };
        Some(base.join("greenroom/config.toml"))
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
}

/// Reads every layer.
pub fn load(sources: &Sources, environment: &Environment) -> Result<Loaded, ConfigError> {
    let mut loader = Loader {
        settings: Settings::default(),
        origins: BTreeMap::new(),
    };
    match &sources.file {
        Some(file) => loader.file(&environment.path(file), true)?,
        None => {
            if let Some(file) = environment.user_file() {
                loader.file(&file, false)?;
            }
            loader.file(&environment.folder.join("greenroom.toml"), false)?;
        }
    }
    for (variable, value) in &environment.variables {
        if let Some(name) = variable
            .strip_prefix(PREFIX)
            .filter(|_| !NOT_KEYS.contains(&variable.as_str()))
        {
            let name = name.to_ascii_lowercase().replace("__", ".");
            loader.text(&name, value, Origin::Env(variable.clone()))?;
        }
    }
    for written in &sources.set {
        let origin = Origin::Flag(format!("--set {written}"));
        let (name, value) = split(written).ok_or(ConfigError::NoValue {
            origin: origin.clone(),
        })?;
        loader.text(name.trim(), value, origin)?;
    }
    for (key, value, flag) in &sources.flags {
        loader.text(key, value, Origin::Flag((*flag).to_owned()))?;
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

struct Loader {
    settings: Settings,
    origins: BTreeMap<String, Origin>,
}

impl Loader {
    fn file(&mut self, path: &Path, must_exist: bool) -> Result<(), ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(());
            }
            Err(source) => {
                return Err(ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let table: toml::Table =
            text.parse()
                .map_err(|error: toml::de::Error| ConfigError::NoToml {
                    path: path.to_owned(),
                    problem: error.to_string(),
                })?;
        self.table("", &table, &Origin::File(path.to_owned()))
    }

    fn table(
        &mut self,
        above: &str,
        table: &toml::Table,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let name = if above.is_empty() {
                name.clone()
            } else {
                format!("{above}.{name}")
            };
            let known = KEYS.iter().find(|key| key.name == name);
            match (known, value) {
                (
                    Some(
                        key @ Key {
                            kind: Kind::Named(_),
                            ..
                        },
                    ),
                    toml::Value::Table(entries),
                ) => {
                    for (entry, value) in entries {
                        self.put(key, Some(entry), &Raw::Toml(value.clone()), origin.clone())?;
                    }
                }
                (Some(key), value) => {
                    self.put(key, None, &Raw::Toml(value.clone()), origin.clone())?
                }
                (None, toml::Value::Table(below)) if is_group(&name) => {
                    self.table(&name, below, origin)?
                }
                (None, _) if is_group(&name) => {
                    let problem = format!("expected a table: `[{name}]` with its keys below");
                    return Err(ConfigError::Invalid {
                        origin: origin.clone(),
                        key: name,
                        problem,
                    });
                }
                (None, _) => return Err(unknown(&name, origin.clone())),
            }
        }
        Ok(())
    }

    fn text(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let raw = Raw::Text(value.to_owned());
        // A whole table, as a file would write it: `limits.providers={anthropic=3}`.
        if value.trim_start().starts_with('{')
            && !KEYS
                .iter()
                .any(|key| key.name == name && matches!(key.kind, Kind::One(_)))
        {
            let written: Result<toml::Table, _> = format!("{name} = {value}").parse();
            let written = written.map_err(|error| ConfigError::Invalid {
                origin: origin.clone(),
                key: name.to_owned(),
                problem: format!(
                    "expected a table such as {{ name = 1 }}: {}",
                    error.message()
                ),
            })?;
            return self.table("", &written, &origin);
        }
        for key in KEYS {
            if key.name == name {
                return self.put(key, None, &raw, origin);
            }
            let entry = name
                .strip_prefix(key.name)
                .and_then(|rest| rest.strip_prefix('.'));
            if let (Kind::Named(_), Some(entry)) = (&key.kind, entry) {
                return self.put(key, Some(&entry.replace('"', "")), &raw, origin);
            }
        }
        Err(unknown(name, origin))
    }

    fn put(
        &mut self,
        key: &Key,
        entry: Option<&str>,
        raw: &Raw,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let name = match entry {
            Some(entry) => format!("{}.{}", key.name, shown(entry)),
            None => key.name.to_owned(),
        };
        let stored = match (&key.kind, entry) {
            (Kind::One(put), _) => put(&mut self.settings, raw),
            (Kind::Named(_), None) => Err(format!(
                "expected an entry below it, such as `{}.NAME`",
                key.name
            )),
            (Kind::Named(_), Some(entry)) if entry.trim().is_empty() || entry.len() > 256 => {
                Err("expected a name of 1 to 256 characters".to_owned())
            }
            (Kind::Named(put), Some(entry)) => put(&mut self.settings, entry, raw),
        };
        match stored {
            Ok(()) => {
                self.origins.insert(name, origin);
                Ok(())
            }
            Err(problem) => Err(ConfigError::Invalid {
                origin,
                key: name,
                problem,
            }),
        }
    }
}

/// An entry as a file would write it.
fn shown(entry: &str) -> String {
    let plain = entry
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain {
        entry.to_owned()
    } else {
        format!("\"{entry}\"")
    }
}

/// True if keys stand below that name.
fn is_group(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn unknown(name: &str, origin: Origin) -> ConfigError {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let groups = KEYS
        .iter()
        .filter_map(|key| key.name.split_once('.'))
        .map(|(group, _)| group);
    // A key written without its group, or in a wrong one, is as near as one with a letter wrong.
    let nearest = KEYS
        .iter()
        .map(|key| key.name)
        .chain(groups)
        .map(|known| {
            let whole = strsim::normalized_damerau_levenshtein(name, known);
            let tail = 0.9 * strsim::normalized_damerau_levenshtein(&last(name), &last(known));
            (whole.max(tail), known)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness > 0.55)
        .map(|(_, known)| known);
    ConfigError::UnknownKey {
        origin,
        key: name.to_owned(),
        nearest,
    }
}

/// What needs every layer: paths, secrets, and rules between keys.
fn finish(loader: Loader, environment: &Environment) -> Result<Loaded, ConfigError> {
    let Loader {
        mut settings,
        origins,
    } = loader;
    let origin = |key: &str| origins.get(key).cloned();
    settings.core.directory = environment
        .path(Path::new(&settings.core.directory))
        .to_string_lossy()
        .into_owned();
    settings.journal = settings.journal.map(|path| environment.path(&path));
    settings.opencode.password = environment
        .variables
        .get(&settings.opencode.password_env)
        .filter(|text| !text.is_empty())
        .cloned();
    settings.token = match &settings.token_source {
        TokenSource::None => None,
        TokenSource::Text(text) => greenroom_bridge::Token::new(text),
        TokenSource::File(file) => {
            let origin = origin("token_file").unwrap_or(Origin::File(file.clone()));
            Some(
                read_token(&environment.path(file)).map_err(|problem| ConfigError::Invalid {
                    origin,
                    key: "token_file".to_owned(),
                    problem,
                })?,
            )
        }
    };
    if !settings.listen.is_loopback() && settings.token.is_none() {
        // The default is loopback, so another address has an origin.
        let origin = origin("listen").unwrap_or(Origin::Flag("--listen".to_owned()));
        return Err(ConfigError::TokenNeeded {
            origin,
            address: settings.listen.0.to_string(),
        });
    }
    Ok(Loaded { settings, origins })
}

/// Reads a secret from a file, its line end left out.
pub fn read_token(path: &Path) -> Result<greenroom_bridge::Token, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    greenroom_bridge::Token::new(&text).ok_or_else(|| format!("{} is empty", path.display()))
}

//! Takes values one by one, each by the row of its key in the table. Each is checked where it stands, also if a later
//! layer overrides it; its origin is kept; one that is not taken becomes a problem, and the others are taken all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use greenroom::domain::task::cut;

use super::error::{ConfigError, Origin};
use super::file;
use super::keys::{KEYS, Key};
use super::kinds::{Put, Takes};
use super::settings::Settings;
use super::value::{Raw, plain};

/// What the layers so far have given.
#[derive(Default)]
pub(super) struct Loader {
    /// What holds.
    pub(super) settings: Settings,
    /// Where each value that is no default comes from.
    pub(super) origins: BTreeMap<String, Origin>,
    /// The files that were there.
    pub(super) files: Vec<PathBuf>,
    /// What was not taken.
    pub(super) problems: Vec<ConfigError>,
}

impl Loader {
    /// Takes what a file says.
    pub(super) fn file(&mut self, path: &Path, must_exist: bool) {
        let before = self.problems.len();
        match file::read(path, must_exist) {
            Ok(None) => {}
            Ok(Some(file)) => {
                self.files.push(path.to_owned());
                self.table("", &file.table, &|name| file.origin(name));
            }
            Err(problem) => self.problems.push(problem),
        }
        // The table has its keys by name; people read from the top.
        self.problems[before..].sort_by_key(|problem| problem.place().and_then(|(_, line)| line));
    }

    fn table(&mut self, above: &str, table: &toml::Table, origin: &dyn Fn(&str) -> Origin) {
        for (name, value) in table {
            let name = if above.is_empty() {
                name.clone()
            } else {
                format!("{above}.{name}")
            };
            let known = KEYS.iter().find(|key| key.name == name);
            match (known, value) {
                (Some(key), toml::Value::Table(entries)) if key.is_named() => {
                    for (entry, value) in entries {
                        self.entry(key, entry, value, origin);
                    }
                }
                (Some(key), value) => {
                    self.put(key, None, &Raw::Toml(value.clone()), &origin(&name));
                }
                (None, toml::Value::Table(below)) if is_group(&name) => {
                    self.table(&name, below, origin);
                }
                (None, _) if is_group(&name) => {
                    let problem = format!("expected a table: `[{name}]` with its keys below");
                    self.problems.push(ConfigError::Invalid {
                        origin: origin(&name),
                        key: name,
                        problem,
                    });
                }
                (None, _) => self.problems.push(unknown(&name, origin(&name))),
            }
        }
    }

    fn entry(
        &mut self,
        key: &Key,
        entry: &str,
        value: &toml::Value,
        origin: &dyn Fn(&str) -> Origin,
    ) {
        let place = origin(&format!("{}.{entry}", key.name));
        match (key.field.takes, value) {
            // The rules of an agent are a table of their own, whose lists have lines of their own.
            (Takes::Rules, toml::Value::Table(lists)) => {
                let none = Raw::Toml(toml::Value::Table(toml::Table::new()));
                self.put(key, Some(entry), &none, &place);
                for (list, value) in lists {
                    let place = origin(&format!("{}.{entry}.{list}", key.name));
                    let entry = format!("{entry}.{list}");
                    self.put(key, Some(&entry), &Raw::Toml(value.clone()), &place);
                }
            }
            _ => self.put(key, Some(entry), &Raw::Toml(value.clone()), &place),
        }
    }

    /// Takes a value that is given as text.
    pub(super) fn text(&mut self, name: &str, value: &str, origin: &Origin) {
        let raw = Raw::Text(value.to_owned());
        let exact = KEYS.iter().find(|key| key.name == name);
        // A whole table, as a file would write it: `limits.providers={anthropic=3}`.
        if value.trim_start().starts_with('{') && exact.is_none_or(Key::is_named) {
            match format!("{name} = {value}").parse::<toml::Table>() {
                Ok(written) => self.table("", &written, &|_| origin.clone()),
                Err(error) => self.problems.push(ConfigError::Invalid {
                    origin: origin.clone(),
                    key: shown(name),
                    problem: format!(
                        "expected a table such as {{ name = 1 }}: {}",
                        error.message()
                    ),
                }),
            }
            return;
        }
        if let Some(key) = exact {
            return self.put(key, None, &raw, origin);
        }
        for key in KEYS.iter().filter(|key| key.is_named()) {
            let entry = name
                .strip_prefix(key.name)
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(entry) = entry {
                return self.put(key, Some(&entry.replace('"', "")), &raw, origin);
            }
        }
        self.problems.push(unknown(name, origin.clone()));
    }

    fn put(&mut self, key: &Key, entry: Option<&str>, raw: &Raw, origin: &Origin) {
        let name = match entry {
            Some(entry) => format!("{}.{}", key.name, written(entry)),
            None => key.name.to_owned(),
        };
        let stored = match (key.field.put, entry) {
            (Put::One(put), _) => put(&mut self.settings, raw),
            (Put::Named(_), None) => Err(format!(
                "expected an entry below it, such as `{}.NAME`",
                key.name
            )),
            (Put::Named(_), Some(entry)) if entry.trim().is_empty() || entry.len() > 256 => {
                Err("expected a name of 1 to 256 bytes".to_owned())
            }
            (Put::Named(put), Some(entry)) => {
                plain(entry).and_then(|()| put(&mut self.settings, entry, raw))
            }
        };
        match stored {
            Ok(()) => {
                self.origins.insert(name, origin.clone());
            }
            Err(problem) => self.problems.push(ConfigError::Invalid {
                origin: origin.clone(),
                key: shown(&name),
                problem,
            }),
        }
    }
}

/// Whether a key takes a value, for one that does not stand in a file of ours.
pub(super) fn judge(name: &str, value: &toml::Value) -> Result<(), String> {
    let mut loader = Loader::default();
    let table = name.rsplit('.').fold(value.clone(), |below, part| {
        toml::Value::Table([(part.to_owned(), below)].into_iter().collect())
    });
    if let toml::Value::Table(table) = table {
        loader.table("", &table, &|_| Origin::Flag(name.to_owned()));
    }
    match loader.problems.into_iter().next() {
        None => Ok(()),
        Some(ConfigError::Invalid { problem, .. }) => Err(problem),
        Some(other) => Err(other.to_string()),
    }
}

/// A name in a message: short, and nothing in it that a terminal would act on.
pub(super) fn shown(name: &str) -> String {
    let mut shown = String::new();
    for c in cut(name, 100).chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if name.chars().nth(100).is_some() {
        shown.push('…');
    }
    shown
}

/// An entry as a file would write it.
pub(super) fn written(entry: &str) -> String {
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
        key: shown(name),
        nearest,
    }
}

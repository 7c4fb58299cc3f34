//! Stores values by the key table. Checks each value in its layer, even if a later layer overrides it, and records its
//! origin. An invalid value becomes a problem and does not affect the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use greenroom::domain::task::cut;

use super::error::{ConfigError, Origin};
use super::file;
use super::keys::{KEYS, Key};
use super::project::{self, Refusal, TrustedFiles};
use super::settings::Settings;
use super::value::{Raw, check_printable};
use super::value_type::{Setter, ValueType};

/// The longest key and the number of problems for which a suggestion is searched.
const MAX_SUGGESTED_BYTES: usize = 64;
const MAX_SUGGESTIONS: usize = 100;

/// The values of the layers so far.
#[derive(Default)]
pub(super) struct Loader {
    /// The effective settings.
    pub(super) settings: Settings,
    /// The origin of each value that is not a default.
    pub(super) origins: BTreeMap<String, Origin>,
    /// The files that exist.
    pub(super) files: Vec<PathBuf>,
    /// The invalid values.
    pub(super) problems: Vec<ConfigError>,
    /// True while the file of a project is stored that may only tighten.
    pub(super) restricted: bool,
}

impl Loader {
    /// Stores the values of a file.
    pub(super) fn file(&mut self, path: &Path, must_exist: bool) {
        self.store_file(path, file::read(path, must_exist));
    }

    fn store_file(&mut self, path: &Path, file: Result<Option<file::File>, ConfigError>) {
        let before = self.problems.len();
        match file {
            Ok(None) => {}
            Ok(Some(file)) => {
                self.files.push(path.to_owned());
                self.table("", &file.table, &|name| file.origin(name));
            }
            Err(problem) => self.problems.push(problem),
        }
        // The table is sorted by name; problems are listed from the top of the file.
        self.problems[before..]
            .sort_by_key(|problem| problem.position().and_then(|(_, line)| line));
    }

    /// Stores the values of a project's file: all of them if the file is accepted, else those that tighten.
    pub(super) fn project_file(&mut self, path: &Path, trusted: &TrustedFiles) {
        // Read once: the checked content is stored.
        let file = file::read_of_project(path);
        self.restricted = match &file {
            Ok(Some(file)) => !trusted.contains(path, &file.text),
            Ok(None) | Err(_) => true,
        };
        self.store_file(path, file);
        self.restricted = false;
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
                (Some(key), toml::Value::Table(entries)) if key.has_entries() => {
                    for (entry, value) in entries {
                        self.entry(key, entry, value, origin);
                    }
                }
                (Some(key), value) => {
                    self.set(key, None, &Raw::Toml(value.clone()), &origin(&name));
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
                (None, _) => self.report_unknown(&name, origin(&name)),
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
        match (key.field.value_type, value) {
            // The rules of an agent are a table whose lists have lines of their own.
            (ValueType::Rules, toml::Value::Table(lists)) => {
                let none = Raw::Toml(toml::Value::Table(toml::Table::new()));
                self.set(key, Some(entry), &none, &place);
                for (list, value) in lists {
                    let place = origin(&format!("{}.{entry}.{list}", key.name));
                    let entry = format!("{entry}.{list}");
                    self.set(key, Some(&entry), &Raw::Toml(value.clone()), &place);
                }
            }
            _ => self.set(key, Some(entry), &Raw::Toml(value.clone()), &place),
        }
    }

    /// Stores a value given as text.
    pub(super) fn text(&mut self, name: &str, value: &str, origin: &Origin) {
        let raw = Raw::Text(value.to_owned());
        let exact = KEYS.iter().find(|key| key.name == name);
        // A whole table in TOML syntax: `limits.providers={anthropic=3}`.
        if value.trim_start().starts_with('{') && exact.is_none_or(Key::has_entries) {
            match format!("{name} = {value}").parse::<toml::Table>() {
                Ok(parsed) => self.table("", &parsed, &|_| origin.clone()),
                Err(error) => self.problems.push(ConfigError::Invalid {
                    origin: origin.clone(),
                    key: printable_name(name),
                    problem: format!(
                        "expected a table such as {{ name = 1 }}: {}",
                        error.message()
                    ),
                }),
            }
            return;
        }
        if let Some(key) = exact {
            return self.set(key, None, &raw, origin);
        }
        for key in KEYS.iter().filter(|key| key.has_entries()) {
            let entry = name
                .strip_prefix(key.name)
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(entry) = entry {
                return self.set(key, Some(&entry.replace('"', "")), &raw, origin);
            }
        }
        self.report_unknown(name, origin.clone());
    }

    fn set(&mut self, key: &Key, entry: Option<&str>, raw: &Raw, origin: &Origin) {
        let name = match entry {
            Some(entry) => format!("{}.{}", key.name, quoted_entry(entry)),
            None => key.name.to_owned(),
        };
        let stored = match (key.field.set, entry) {
            _ if self.restricted => match project::store(&mut self.settings, key, entry, raw) {
                Ok(()) => Ok(()),
                Err(Refusal::Invalid(problem)) => Err(problem),
                Err(refusal) => {
                    let key = printable_name(&name);
                    return self.refuse(key, refusal, origin);
                }
            },
            (Setter::Single(set), _) => set(&mut self.settings, raw),
            (Setter::PerEntry(_), None) => Err(format!(
                "expected an entry below it, such as `{}.NAME`",
                key.name
            )),
            (Setter::PerEntry(_), Some(entry)) if entry.trim().is_empty() || entry.len() > 256 => {
                Err("expected a name of 1 to 256 bytes".to_owned())
            }
            (Setter::PerEntry(set), Some(entry)) => {
                check_printable(entry).and_then(|()| set(&mut self.settings, entry, raw))
            }
        };
        match stored {
            Ok(()) => {
                self.origins.insert(name, origin.clone());
            }
            Err(problem) => self.problems.push(ConfigError::Invalid {
                origin: origin.clone(),
                key: printable_name(&name),
                problem,
            }),
        }
    }
}

impl Loader {
    /// Reports an unknown key, with the nearest known one. A file may have many thousands of them, or very long ones: only
    /// the first short ones get a suggestion.
    fn report_unknown(&mut self, name: &str, origin: Origin) {
        let is_suggested =
            name.len() <= MAX_SUGGESTED_BYTES && self.problems.len() < MAX_SUGGESTIONS;
        self.problems.push(ConfigError::UnknownKey {
            origin,
            key: printable_name(name),
            nearest: is_suggested.then(|| nearest(name)).flatten(),
        });
    }

    fn refuse(&mut self, key: String, refusal: Refusal, origin: &Origin) {
        let problem = match refusal {
            Refusal::Raises(before) => {
                format!("a project's file may lower this, not raise it above {before}")
            }
            Refusal::Key | Refusal::Invalid(_) => "a project's file may not set this".to_owned(),
        };
        self.problems.push(ConfigError::Refused {
            origin: origin.clone(),
            key,
            problem,
        });
    }
}

/// Checks whether a key accepts a value, without storing it.
pub(super) fn validate(name: &str, value: &toml::Value) -> Result<(), String> {
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

/// Returns a name for a message: shortened, with control characters escaped.
pub(super) fn printable_name(name: &str) -> String {
    let mut printable = String::new();
    for c in cut(name, 100).chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    if name.chars().nth(100).is_some() {
        printable.push('…');
    }
    printable
}

/// Returns an entry name in TOML syntax.
pub(super) fn quoted_entry(entry: &str) -> String {
    let plain = entry
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain {
        entry.to_owned()
    } else {
        format!("\"{entry}\"")
    }
}

/// Returns true if the name is a table of keys.
fn is_group(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Returns the known key that is most similar to an unknown one, if any is similar.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let groups = KEYS
        .iter()
        .filter_map(|key| key.name.split_once('.'))
        .map(|(group, _)| group);
    // A key in a wrong table is as similar as a key with a typo.
    KEYS.iter()
        .map(|key| key.name)
        .chain(groups)
        .map(|known| {
            let name_likeness = strsim::normalized_damerau_levenshtein(name, known);
            let tail_likeness =
                0.9 * strsim::normalized_damerau_levenshtein(&last(name), &last(known));
            (name_likeness.max(tail_likeness), known)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness > 0.55)
        .map(|(_, known)| known)
}

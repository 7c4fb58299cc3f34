//! The effective configuration: every key with its value and origin, as `greenroom config show` prints it. The output
//! is a valid configuration file.

use toml::Value;

use super::error::Origin;
use super::keys::{KEYS, Key};
use super::layers::Loaded;
use super::loader::quoted_entry;
use super::value_type::ValueType;

/// One effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The key, as in a file.
    pub key: String,
    /// The value; none for a secret that is set.
    pub value: Option<Value>,
    /// The origin; none for a default.
    pub origin: Option<Origin>,
}

/// Returns all effective values in the order of the key table, and all entries of keys with named entries.
pub fn effective(loaded: &Loaded) -> Vec<Effective> {
    KEYS.iter()
        .flat_map(|key| effective_values(key, loaded))
        .collect()
}

fn effective_values(key: &Key, loaded: &Loaded) -> Vec<Effective> {
    let value = (key.field.get)(&loaded.settings);
    let Value::Table(entries) = value else {
        let hidden = key.is_secret() && value.as_str() != Some("");
        return vec![Effective {
            key: key.name.to_owned(),
            value: (!hidden).then_some(value),
            origin: loaded.origins.get(key.name).cloned(),
        }];
    };
    let origin = |entry: &str| {
        let name = format!("{}.{}", key.name, quoted_entry(entry));
        loaded.origins.get(&name).cloned()
    };
    let mut all = Vec::new();
    for (entry, value) in entries {
        let name = format!("{}.{}", key.name, toml_key(&entry));
        match (key.field.value_type, value) {
            (ValueType::Rules, Value::Table(lists)) => {
                for (list, names) in lists {
                    all.push(Effective {
                        key: format!("{name}.{list}"),
                        value: Some(names),
                        origin: origin(&format!("{entry}.{list}")).or_else(|| origin(&entry)),
                    });
                }
            }
            (_, value) => all.push(Effective {
                key: name,
                value: Some(value),
                origin: origin(&entry),
            }),
        }
    }
    all
}

/// Returns a part of a key in TOML syntax.
fn toml_key(part: &str) -> String {
    let bare = !part.is_empty()
        && part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare {
        part.to_owned()
    } else {
        Value::String(part.to_owned()).to_string()
    }
}

/// Returns the values as a configuration file, with the origin of each value as a comment.
pub fn toml_text(values: &[Effective]) -> String {
    let lines: Vec<(String, String)> = values
        .iter()
        .map(|value| {
            let origin = value
                .origin
                .as_ref()
                .map_or_else(|| "default".to_owned(), ToString::to_string);
            match &value.value {
                Some(shown) => (format!("{} = {shown}", value.key), origin),
                None => (format!("# {} is set and not shown", value.key), origin),
            }
        })
        .collect();
    // One long line must not shift the comments of all lines.
    let widths = lines.iter().map(|(line, _)| line.chars().count());
    let width = widths.filter(|width| *width <= 56).max().unwrap_or(0);
    lines
        .iter()
        .map(|(line, origin)| format!("{line:width$}  # {origin}\n"))
        .collect()
}

//! The configuration file of a project, `greenroom.toml` in the current folder. A cloned repository may bring one, so it is
//! data from a stranger: it may lower limits, deny tools and delay messages. Every other key is refused, unless a person
//! has accepted this file with this content ([`TrustedFiles`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use greenroom::domain::restrictions::AgentRules;
use sha2::{Digest, Sha256};

use super::keys::Key;
use super::layers::Environment;
use super::settings::Settings;
use super::value::Raw;
use super::value_type::Setter;
use crate::secret_file::{self, SecretFileError};

/// Maximum number of accepted files.
const MAX_TRUSTED: usize = 1000;

/// Why a value of a project's file is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The value is invalid in any file.
    Invalid(String),
    /// A project's file may not set the key.
    Key,
    /// The value is higher than the previous value, which is given.
    Raises(String),
}

/// Stores a value of a project's file.
pub(super) fn store(
    settings: &mut Settings,
    key: &Key,
    entry: Option<&str>,
    raw: &Raw,
) -> Result<(), Refusal> {
    if key.name == "agents" {
        return deny_tools(settings, entry.unwrap_or_default(), raw);
    }
    let mut after = settings.clone();
    let stored = match (key.field.set, entry) {
        (Setter::Single(set), _) => set(&mut after, raw),
        (Setter::PerEntry(set), Some(entry)) => set(&mut after, entry, raw),
        (Setter::PerEntry(_), None) => return Err(Refusal::Key),
    };
    let lower = |before: u32, after: u32| tighter(before, after, |limit| limit == 0);
    let fewer = |before: u32, after: u32| tighter(before, after, |_| false);
    let (old, new) = (&settings.core, &after.core);
    let entry = entry.unwrap_or_default();
    let allowed = match key.name {
        "limits.default" => lower(old.limits.default, new.limits.default),
        "limits.max" => lower(old.limits.max, new.limits.max),
        "limits.max_waiting" => {
            let (before, after) = (old.limits.max_waiting, new.limits.max_waiting);
            tighter(before, after, |_| false)
        }
        "limits.providers" => {
            let before = old.limits.providers.get(entry);
            let after = new.limits.providers.get(entry);
            lower(
                before.copied().unwrap_or(old.limits.default),
                after.copied().unwrap_or_default(),
            )
        }
        "limits.models" => {
            let provider = entry
                .split_once('/')
                .map_or(entry, |(provider, _)| provider);
            let before = old.limits.models.get(entry);
            // A limit of its own would take the model out of the limit of its provider.
            if let (None, Some(shared)) = (before, old.limits.providers.get(provider)) {
                return Err(Refusal::Raises(format!(
                    "{shared}, which the models of its provider share"
                )));
            }
            let after = new.limits.models.get(entry);
            lower(
                before.copied().unwrap_or(old.limits.default),
                after.copied().unwrap_or_default(),
            )
        }
        "safety.max_depth" => fewer(old.safety.max_depth, new.safety.max_depth),
        "safety.max_tool_calls" => fewer(old.safety.max_tool_calls, new.safety.max_tool_calls),
        "safety.repeated_tool_calls" => fewer(
            old.safety.repeated_tool_calls,
            new.safety.repeated_tool_calls,
        ),
        "notifications.debounce" => Ok(()),
        // Not even read: its text may name a file.
        _ => return Err(Refusal::Key),
    };
    stored.map_err(Refusal::Invalid)?;
    allowed?;
    *settings = after;
    Ok(())
}

/// Checks that a limit is not raised. `is_unlimited` is true for a value without an upper bound.
fn tighter<T: PartialOrd + Copy + std::fmt::Display>(
    before: T,
    after: T,
    is_unlimited: impl Fn(T) -> bool,
) -> Result<(), Refusal> {
    let raises = match (is_unlimited(before), is_unlimited(after)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => after > before,
    };
    if raises {
        Err(Refusal::Raises(before.to_string()))
    } else {
        Ok(())
    }
}

/// Adds the tools of `agents.NAME.deny` to those that the agent may not use.
fn deny_tools(settings: &mut Settings, entry: &str, raw: &Raw) -> Result<(), Refusal> {
    if matches!(raw, Raw::Toml(toml::Value::Table(_))) {
        // The agent's table; its lists follow. It must not remove the built-in rule.
        return Ok(());
    }
    let Some((agent, "deny")) = entry.rsplit_once('.') else {
        return Err(Refusal::Key);
    };
    let names = raw.names().map_err(Refusal::Invalid)?;
    let agents = &mut settings.core.agents;
    let known = agents
        .keys()
        .find(|known| known.eq_ignore_ascii_case(agent));
    let name = known.cloned().unwrap_or_else(|| agent.to_owned());
    let rules = agents
        .entry(name)
        .or_insert_with(|| AgentRules::built_in(agent));
    for name in names {
        if !rules.deny.iter().any(|denied| **denied == *name) {
            rules.deny.push(name.into());
        }
    }
    Ok(())
}

/// The project files that a person has accepted, by path and content. Kept outside of the projects.
#[derive(Debug, Default)]
pub struct TrustedFiles {
    digests: BTreeMap<PathBuf, String>,
}

impl TrustedFiles {
    /// Reads the accepted files of the user; none if there is no list, or if another user could have written it.
    pub fn read(environment: &Environment) -> Self {
        let Some(path) = environment.trust_file() else {
            return Self::default();
        };
        match secret_file::read(&path) {
            Ok(Some(text)) => Self {
                digests: serde_json::from_str(&text).unwrap_or_default(),
            },
            Ok(None) => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "the list of accepted project files is not used");
                Self::default()
            }
        }
    }

    /// Returns true if a file is accepted with this content.
    pub fn contains(&self, path: &Path, content: &str) -> bool {
        let known = canonical(path).and_then(|path| self.digests.get(&path).cloned());
        known.is_some_and(|digest| digest == digest_of(content))
    }

    /// Accepts a file with this content, instead of any earlier content.
    ///
    /// # Errors
    /// [`SecretFileError`] if the list cannot be written.
    pub fn accept(
        mut self,
        environment: &Environment,
        path: &Path,
        content: &str,
    ) -> Result<(), SecretFileError> {
        let path = canonical(path).unwrap_or_else(|| path.to_owned());
        // Files that no longer exist make room first.
        if self.digests.len() >= MAX_TRUSTED {
            self.digests.retain(|path, _| path.exists());
        }
        while self.digests.len() >= MAX_TRUSTED {
            self.digests.pop_first();
        }
        self.digests.insert(path, digest_of(content));
        self.write(environment)
    }

    /// Withdraws the acceptance of a file. Returns false if the file was not accepted.
    ///
    /// # Errors
    /// As [`TrustedFiles::accept`].
    pub fn withdraw(
        mut self,
        environment: &Environment,
        path: &Path,
    ) -> Result<bool, SecretFileError> {
        let path = canonical(path).unwrap_or_else(|| path.to_owned());
        if self.digests.remove(&path).is_none() {
            return Ok(false);
        }
        self.write(environment)?;
        Ok(true)
    }

    fn write(&self, environment: &Environment) -> Result<(), SecretFileError> {
        let text = serde_json::to_string_pretty(&self.digests).unwrap_or_default() + "\n";
        match environment.trust_file() {
            Some(path) => secret_file::replace(&path, &text),
            None => Ok(()),
        }
    }
}

fn canonical(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

fn digest_of(content: &str) -> String {
    let digest = Sha256::digest(content.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

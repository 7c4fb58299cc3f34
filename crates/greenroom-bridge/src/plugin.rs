//! opencode's plugin as it is installed: the embedded file, with its version and the command that it may start the service
//! with filled in, and how a file found somewhere is recognised as one. The host's installer and its doctor use it.

use std::path::{Path, PathBuf};

/// What it is called in a folder of plugins.
pub const FILE_NAME: &str = "greenroom.js";
/// The version of the plugin that is embedded.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// As it is in the repository.
const SOURCE: &str = include_str!("../plugin/greenroom.js");
/// How its first line begins; the version follows.
const HEADER: &str = "// Greenroom's plugin for opencode, version ";
/// How the line that names the command begins.
const BINARY: &str = "const BINARY = ";
/// What follows the name there.
const REMARK: &str = " // filled in by the installer";

/// The text to install; the plugin starts the service with `binary` if nothing else names the command.
pub fn render(binary: &Path) -> String {
    let name = serde_json::Value::from(binary.to_string_lossy()).to_string();
    let mut text = String::with_capacity(SOURCE.len() + 200);
    for (nth, line) in SOURCE.lines().enumerate() {
        if nth == 0 {
            text.push_str(HEADER);
            text.push_str(VERSION);
        } else if line.starts_with(BINARY) {
            text.push_str(BINARY);
            text.push_str(&name);
            text.push_str(REMARK);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// A plugin of ours that was found installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its version, as its first line says.
    pub version: String,
    /// The command it would start; none if it names none that can be read.
    pub binary: Option<PathBuf>,
    /// True if it is, but for that command, the very plugin embedded here.
    pub current: bool,
}

impl Installed {
    /// Reads a file's text; none if it is no plugin of ours.
    pub fn read(text: &str) -> Option<Self> {
        let version = text.lines().next()?.strip_prefix(HEADER)?.trim();
        let binary: Option<PathBuf> = text
            .lines()
            .find_map(|line| line.strip_prefix(BINARY))
            .and_then(|rest| {
                serde_json::Deserializer::from_str(rest)
                    .into_iter::<String>()
                    .next()?
                    .ok()
            })
            .filter(|name| !name.is_empty())
            .map(PathBuf::from);
        let current = render(binary.as_deref().unwrap_or(Path::new(""))) == text;
        Some(Self {
            version: version.to_owned(),
            binary,
            current,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_the_file_with_two_lines_filled_in() {
        let odd = Path::new("/opt/with \"quotes\" and \\/greenroom");
        let text = render(odd);
        let changed: Vec<(&str, &str)> = SOURCE
            .lines()
            .zip(text.lines())
            .filter(|(ours, installed)| ours != installed)
            .collect();
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert_eq!(SOURCE.lines().count(), text.lines().count());
        assert_eq!(
            Installed::read(&text),
            Some(Installed {
                version: VERSION.to_owned(),
                binary: Some(odd.to_owned()),
                current: true,
            })
        );
    }

    #[test]
    fn a_file_of_somebody_else_is_none_of_ours() {
        for text in [
            "",
            "\n",
            "export const P = 1",
            "// Greenroom's plugin for opencode",
        ] {
            assert_eq!(Installed::read(text), None, "{text}");
        }
    }

    #[test]
    fn another_version_and_a_changed_file_are_told_apart_from_this_one() {
        let text = render(Path::new("/bin/greenroom"));
        let older = text.replacen(VERSION, "0.0.1-old", 1);
        let found = Installed::read(&older).unwrap();
        assert_eq!(
            (found.version.as_str(), found.current),
            ("0.0.1-old", false)
        );
        let changed = Installed::read(&text.replace("MIB", "MEBIBYTE")).unwrap();
        assert_eq!(
            (changed.version.as_str(), changed.current),
            (VERSION, false)
        );
        let bare = text.replace("\"/bin/greenroom\"", "nonsense");
        assert_eq!(Installed::read(&bare).unwrap().binary, None);
    }

    #[test]
    fn the_file_stays_short() {
        assert!(SOURCE.lines().count() < 400);
    }
}

//! opencode's plugin file: renders the embedded source with its version and the command that starts the service, and
//! recognises installed copies. Used by the host's installer and its `doctor`.

use std::path::{Path, PathBuf};

/// The name of the plugin file.
pub const FILE_NAME: &str = "greenroom.js";
/// The version of the embedded plugin.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The source in the repository.
const SOURCE: &str = include_str!("../plugin/greenroom.js");
/// The start of the first line; the version follows.
const HEADER: &str = "// Greenroom's plugin for opencode, version ";
/// The start of the line that names the command.
const BINARY: &str = "const BINARY = ";
/// The end of that line.
const REMARK: &str = " // filled in by the installer";

/// Returns the text to install. The plugin starts the service with `binary` if nothing else names the command.
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

/// An installed copy of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The version in its first line.
    pub version: String,
    /// The command that it starts; none if the line cannot be read.
    pub binary: Option<PathBuf>,
    /// True if it equals the embedded plugin, apart from the command.
    pub current: bool,
}

impl Installed {
    /// Reads the text of a file; none if the file is not a Greenroom plugin.
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
    fn rendering_changes_two_lines() {
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
    fn foreign_file_is_not_recognised() {
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
    fn older_or_changed_file_is_not_current() {
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
}

//! The log of a supervised opencode: one file of limited size, the previous file beside it, and the last lines in memory,
//! which are shown as the reason when it dies. The supervisor fills it from stdout and stderr.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The number of lines kept in memory.
const MAX_RECENT_LINES: usize = 20;
/// The characters of a line kept in memory.
const LINE_LIMIT: usize = 500;

/// An open log.
#[derive(Debug)]
pub(crate) struct ChildLog {
    path: PathBuf,
    bound: u64,
    file: File,
    written: u64,
    recent: VecDeque<String>,
}

impl ChildLog {
    /// Creates the log at `path`; an existing log is kept as `<path>.1`.
    pub(crate) fn begin(path: &Path, bound: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = rotate(path)?;
        Ok(Self {
            path: path.to_owned(),
            bound,
            file,
            written: 0,
            recent: VecDeque::new(),
        })
    }

    /// Adds a line. Errors are ignored: the server keeps running without its log.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.add_recent(line);
        if self.written > 0
            && self.written + line.len() as u64 >= self.bound
            && let Ok(file) = rotate(&self.path)
        {
            self.file = file;
            self.written = 0;
        }
        // One small write per line, to a local file.
        let mut whole = line.to_vec();
        whole.push(b'\n');
        if self.file.write_all(&whole).is_ok() {
            self.written += whole.len() as u64;
        }
    }

    /// Clears the lines in memory, for a new process.
    pub(crate) fn clear_recent(&mut self) {
        self.recent.clear();
    }

    /// Returns the last three lines that are not blank, as one text; empty if there are none.
    pub(crate) fn last_lines(&self) -> String {
        let from = self.recent.len().saturating_sub(3);
        self.recent
            .iter()
            .skip(from)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn add_recent(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if self.recent.len() == MAX_RECENT_LINES {
            self.recent.pop_front();
        }
        self.recent
            .push_back(greenroom::domain::task::cut(text, LINE_LIMIT).to_owned());
    }
}

fn rotate(path: &Path) -> io::Result<File> {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    match std::fs::rename(path, &before) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_limited_to_twice_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/opencode.log");
        let mut log = ChildLog::begin(&path, 1000).unwrap();
        for number in 0..500 {
            log.line(format!("line {number}").as_bytes());
        }
        let newest = std::fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with("line 499\n"));
        let before = std::fs::read_to_string(folder.path().join("logs/opencode.log.1")).unwrap();
        assert!(
            newest.len() <= 1000 && before.len() <= 1000,
            "{} and {}",
            newest.len(),
            before.len()
        );
        assert_eq!(log.last_lines(), "line 497; line 498; line 499");
    }

    #[test]
    fn previous_log_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opencode.log");
        ChildLog::begin(&path, 1000).unwrap().line(b"first");
        ChildLog::begin(&path, 1000).unwrap().line(b"second");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(
            std::fs::read_to_string(folder.path().join("opencode.log.1")).unwrap(),
            "first\n"
        );
    }
}

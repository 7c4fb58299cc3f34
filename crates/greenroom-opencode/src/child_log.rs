//! The log of a supervised opencode: one file that is bounded, with the one before it kept beside it, and the last lines
//! in memory, which are the reason people are shown when it dies. [`crate::child`] feeds it from two pipes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Lines kept in memory.
const REMEMBERED: usize = 20;
/// A line longer than this is cut in memory.
const LINE_LIMIT: usize = 500;

/// An open log.
#[derive(Debug)]
pub(crate) struct ChildLog {
    path: PathBuf,
    bound: u64,
    file: File,
    written: u64,
    last: VecDeque<String>,
}

impl ChildLog {
    /// Begins a log at `path`; what was there is kept as `<path>.1`.
    pub(crate) fn begin(path: &Path, bound: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = renewed(path)?;
        Ok(Self {
            path: path.to_owned(),
            bound,
            file,
            written: 0,
            last: VecDeque::new(),
        })
    }

    /// Adds a line. A log that cannot be written is not worth ending anything for.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.remember(line);
        if self.written > 0
            && self.written + line.len() as u64 >= self.bound
            && let Ok(file) = renewed(&self.path)
        {
            self.file = file;
            self.written = 0;
        }
        // One write per line: small, to a local file.
        let mut whole = line.to_vec();
        whole.push(b'\n');
        if self.file.write_all(&whole).is_ok() {
            self.written += whole.len() as u64;
        }
    }

    /// Forgets the last lines: a new process begins.
    pub(crate) fn forget(&mut self) {
        self.last.clear();
    }

    /// The last few lines that say something, as one text; empty if there were none.
    pub(crate) fn last_words(&self) -> String {
        let from = self.last.len().saturating_sub(3);
        self.last
            .iter()
            .skip(from)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn remember(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last
            .push_back(greenroom::domain::task::cut(text, LINE_LIMIT).to_owned());
    }
}

fn renewed(path: &Path) -> io::Result<File> {
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
    fn the_files_together_never_exceed_twice_the_bound() {
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
        assert_eq!(log.last_words(), "line 497; line 498; line 499");
    }

    #[test]
    fn the_log_of_the_time_before_is_kept() {
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

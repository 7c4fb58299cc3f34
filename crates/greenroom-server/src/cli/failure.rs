//! The failure of a command: message, hint and exit code.

use greenroom::domain::foreign_text::visible_lines;

use crate::config::ConfigError;
use crate::host::HostError;

/// The task or operation failed.
pub const FAILED: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 2;
/// The service or the agent server cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// A failure of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the process.
    pub code: u8,
    /// The error message.
    pub message: String,
    /// What the reader can do; empty if nothing is known.
    pub hint: String,
}

impl Failure {
    /// Creates a failure.
    pub fn new(code: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Returns the lines for stderr.
    pub fn text(&self) -> String {
        let message = visible_lines(&self.message);
        if self.hint.is_empty() {
            return format!("error: {message}\n");
        }
        format!("error: {message}\nhint: {}\n", visible_lines(&self.hint))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(USAGE, error.to_string(), error.hint())
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::new(FAILED, error.to_string(), error.hint())
    }
}

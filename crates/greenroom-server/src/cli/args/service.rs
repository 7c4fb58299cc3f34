//! The arguments of the commands that start a service, and of those that call one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parsers;
use crate::config::{FlagValue, Sources};

/// What `serve` and `up` have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArgs {
    /// Address and port of the service; port 0 takes a free one [default: 127.0.0.1:7717]
    #[arg(long, value_name = "ADDR", value_parser = parsers::optional_line)]
    pub listen: Option<String>,
    /// Where tasks work if neither the launch nor its parent names a folder [default: the current folder]
    #[arg(long, value_name = "DIR", value_parser = parsers::optional_line)]
    pub directory: Option<String>,
    /// Where tasks are kept over a restart; "" keeps nothing
    #[arg(long, value_name = "FILE", value_parser = parsers::optional_line)]
    pub journal: Option<String>,
    /// A file with the secret that callers must bring
    #[arg(long, value_name = "FILE", value_parser = parsers::optional_line)]
    pub token_file: Option<String>,
    /// Read this file instead of ~/.config/greenroom/config.toml and ./greenroom.toml
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub config: Option<PathBuf>,
    /// Set any key of the configuration, for instance limits.default=3; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parsers::line)]
    pub set: Vec<String>,
}

impl ServiceArgs {
    /// Returns the arguments as configuration sources.
    pub fn sources(&self) -> Sources {
        let flags = [
            ("listen", &self.listen, "--listen"),
            ("opencode.directory", &self.directory, "--directory"),
            ("journal", &self.journal, "--journal"),
            ("token_file", &self.token_file, "--token-file"),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(key, value, flag)| {
                let value = value.clone()?;
                Some(FlagValue { key, value, flag })
            })
            .collect();
        Sources {
            file: self.config.clone(),
            flags,
            set: self.set.clone(),
        }
    }
}

/// `up`
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Use a built-in scripted model and an opencode of its own: no key, no cost, your setup stays untouched
    #[arg(long)]
    pub rehearsal: bool,
    /// The opencode to start [default: opencode on PATH, else the pinned version is installed]
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub opencode_bin: Option<PathBuf>,
    /// What `serve` has too.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where opencode listens [default: http://127.0.0.1:4096]
    #[arg(long, value_name = "URL", value_parser = parsers::optional_line)]
    pub opencode: Option<String>,
    /// End when no plugin has been connected and no task open for so long, for instance 1h
    #[arg(long = "exit-when-unused", value_name = "TIME", value_parser = parsers::duration)]
    pub idle_shutdown: Option<Duration>,
    /// What `up` has too.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// How to reach the service.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Where the service listens [default: as configured, else http://127.0.0.1:7717]
    #[arg(
        long,
        value_name = "URL",
        env = "GREENROOM_URL",
        value_parser = parsers::line,
        hide_env_values = true
    )]
    pub url: Option<String>,
    /// A file with the service's secret; the variable GREENROOM_TOKEN may hold it instead
    #[arg(long, value_name = "FILE", value_parser = parsers::path)]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

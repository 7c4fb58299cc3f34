//! A folder in which opencode runs without access to the user's setup: a separate home, a separate configuration with one
//! provider, a separate project. Used by `greenroom up --rehearsal` and the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Map, Value, json};
use tokio::process::Command;

/// The name of the only provider.
pub const PROVIDER: &str = "rehearsal";

/// Features that are disabled, so that opencode neither downloads anything nor reads files outside the folder.
const DISABLED_FEATURES: [&str; 8] = [
    "OPENCODE_DISABLE_AUTOUPDATE",
    "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_SHARE",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    "OPENCODE_DISABLE_CLAUDE_CODE",
    "OPENCODE_DISABLE_EXTERNAL_SKILLS",
    "OPENCODE_DISABLE_EMBEDDED_WEB_UI",
];

/// Why the folder could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum HermeticError {
    /// No model was given.
    #[error("no model is named; a hermetic opencode needs at least one")]
    NoModel,
    /// A file or folder could not be created.
    #[error("cannot write {path}")]
    Write {
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// git could not make the project folder a repository.
    #[error(
        "git could not prepare the project folder ({problem}); opencode needs git to tell projects apart"
    )]
    Git {
        /// The output of git.
        problem: String,
    },
}

/// A prepared folder.
#[derive(Debug, Clone)]
pub struct Hermetic {
    /// The git repository to work in.
    pub project: PathBuf,
    /// The complete environment of opencode.
    pub environment: BTreeMap<String, String>,
    /// The path of opencode's configuration file.
    pub config: PathBuf,
}

impl Hermetic {
    /// Prepares `folder` for an opencode whose only provider is at `provider_url` (OpenAI's protocol, with `/v1`). The first of
    /// the models is the default. `extra` overrides the configuration by its top-level keys. An existing folder is reused; its
    /// configuration is replaced.
    ///
    /// # Errors
    /// Fails if a file cannot be written, or git is missing.
    pub async fn prepare(
        folder: &Path,
        provider_url: &str,
        models: &[&str],
        extra: &Map<String, Value>,
    ) -> Result<Self, HermeticError> {
        let folder = std::path::absolute(folder).map_err(|source| write_error(folder, source))?;
        let project = folder.join("project");
        let home = folder.join("home");
        let folders = [
            ("HOME", home.clone()),
            ("OPENCODE_TEST_HOME", home.clone()),
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("XDG_STATE_HOME", home.join(".local/state")),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("TMPDIR", folder.join("tmp")),
        ];
        let mut environment = BTreeMap::new();
        for (name, path) in folders {
            make_folder(&path)?;
            environment.insert(name.to_owned(), path.display().to_string());
        }
        environment.insert(
            "PATH".to_owned(),
            std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()),
        );
        environment.extend(DISABLED_FEATURES.map(|name| (name.to_owned(), "1".to_owned())));
        // opencode installs its plugin package at its start; a registry that refuses at once avoids the wait.
        environment.insert(
            "npm_config_registry".to_owned(),
            "http://127.0.0.1:9/".to_owned(),
        );
        environment.insert("npm_config_fetch_retries".to_owned(), "0".to_owned());

        let config = home.join(".config/opencode/opencode.json");
        make_folder(&home.join(".config/opencode"))?;
        let text = format!("{:#}\n", configuration(provider_url, models, extra)?);
        std::fs::write(&config, text).map_err(|source| write_error(&config, source))?;
        make_folder(&project)?;
        make_repository(&project, &environment).await?;
        Ok(Self {
            project,
            environment,
            config,
        })
    }
}

fn configuration(
    provider_url: &str,
    models: &[&str],
    extra: &Map<String, Value>,
) -> Result<Value, HermeticError> {
    let first = models.first().ok_or(HermeticError::NoModel)?;
    let listed: Map<String, Value> = models
        .iter()
        .map(|name| ((*name).to_owned(), json!({"name": name})))
        .collect();
    let mut config = json!({
        "$schema": "https://opencode.ai/config.json",
        "model": format!("{PROVIDER}/{first}"),
        "small_model": format!("{PROVIDER}/{first}"),
        "enabled_providers": [PROVIDER],
        "provider": {PROVIDER: {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Rehearsal",
            "options": {"baseURL": provider_url, "apiKey": "none"},
            "models": listed,
        }},
        "permission": {"*": "allow"},
        "autoupdate": false,
        "share": "disabled",
    });
    for (key, value) in extra {
        config[key] = value.clone();
    }
    Ok(config)
}

/// Creates a repository with one commit; without one opencode would treat the folder as part of the global project.
async fn make_repository(
    project: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<(), HermeticError> {
    if project.join(".git").exists()
        && git(
            project,
            environment,
            &["rev-parse", "--verify", "-q", "HEAD"],
        )
        .await
        .is_ok()
    {
        return Ok(());
    }
    git(project, environment, &["init", "--quiet"]).await?;
    let commit = [
        "commit",
        "--quiet",
        "--allow-empty",
        "--no-verify",
        "--message",
        "initial commit",
    ];
    git(project, environment, &commit).await
}

async fn git(
    project: &Path,
    environment: &BTreeMap<String, String>,
    arguments: &[&str],
) -> Result<(), HermeticError> {
    let output = Command::new("git")
        .env_clear()
        .envs(environment)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args([
            "-c",
            "user.name=Greenroom",
            "-c",
            "user.email=greenroom@localhost",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .current_dir(project)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| HermeticError::Git {
            problem: error.to_string(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(HermeticError::Git {
        problem: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn make_folder(path: &Path) -> Result<(), HermeticError> {
    std::fs::create_dir_all(path).map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: std::io::Error) -> HermeticError {
    HermeticError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_stands_inside_the_folder_and_can_be_prepared_again() {
        let folder = tempfile::tempdir().unwrap();
        let extra = Map::from_iter([("permission".to_owned(), json!({"bash": "ask"}))]);
        let prepare = || {
            Hermetic::prepare(
                folder.path(),
                "http://127.0.0.1:1/v1",
                &["model-a", "model-b"],
                &extra,
            )
        };
        let hermetic = prepare().await.unwrap();
        for (name, value) in &hermetic.environment {
            let inside = Path::new(value).starts_with(folder.path());
            let is_folder = name.starts_with("XDG_")
                || ["HOME", "OPENCODE_TEST_HOME", "TMPDIR"].contains(&name.as_str());
            assert_eq!(inside, is_folder, "{name}={value}");
        }
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(&hermetic.config).unwrap()).unwrap();
        assert_eq!(config["model"], "rehearsal/model-a");
        assert_eq!(
            config["provider"]["rehearsal"]["models"]["model-b"],
            json!({"name": "model-b"})
        );
        assert_eq!(config["permission"], json!({"bash": "ask"}));
        let head = || std::fs::read_to_string(hermetic.project.join(".git/logs/HEAD")).unwrap();
        let first = head();
        prepare().await.unwrap();
        assert_eq!(head(), first, "a second preparation makes no second commit");
    }

    #[tokio::test]
    async fn hermetic_folder_needs_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let outcome =
            Hermetic::prepare(folder.path(), "http://127.0.0.1:1/v1", &[], &Map::new()).await;
        assert!(matches!(outcome, Err(HermeticError::NoModel)));
    }
}

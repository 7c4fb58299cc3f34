//! `greenroom plugin`: installs and removes opencode's plugin, and checks it for the doctor. Never changes a file that
//! is not our plugin.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use greenroom_bridge::plugin::{FILE_NAME, Installed, VERSION, render};
use serde_json::json;

use super::args::{PluginArgs, PluginCommand, PluginTargetArgs};
use super::doctor::Finding;
use super::failure::{FAILED, Failure, USAGE};
use super::run::json_text;
use super::terminal::{one_line, print_err, print_out};
use crate::config::Environment;

/// Maximum size of a plugin file, in bytes. Larger files are not read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The plugin folder in a project.
const PROJECT_FOLDER: &str = ".opencode/plugins";

/// Installs or removes the plugin.
pub fn plugin(args: PluginArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    match args.command {
        PluginCommand::Install(args) => install(&args, &environment),
        PluginCommand::Uninstall(args) => uninstall(&args, &environment),
    }
}

fn install(args: &PluginTargetArgs, environment: &Environment) -> Result<(), Failure> {
    let path = plugin_path(args, environment)?;
    let before = own_plugin(&path)?;
    let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("greenroom"));
    write_atomically(&path, &render(&binary)).map_err(|error| {
        let hint = "make the folder writable, or name another one with --project";
        Failure::new(
            FAILED,
            format!("cannot write {}: {error}", path.display()),
            hint,
        )
    })?;
    let previous = before.map(|installed| installed.version);
    if args.json {
        print_out(&json_text(&json!({
            "path": path, "version": VERSION, "previous": previous, "binary": binary,
        }))?);
        return Ok(());
    }
    let verb = match &previous {
        None => "installed".to_owned(),
        Some(version) if version == VERSION => "installed again".to_owned(),
        Some(version) => format!("updated from version {}", one_line(version)),
    };
    print_out(&format!("{}\n", one_line(&path.display().to_string())));
    print_err(&format!(
        "{verb}: version {VERSION}. Start opencode again{}: its agents then have background_task. The service starts by \
         itself when it is needed (GREENROOM_AUTOSTART=0 keeps it from that); `greenroom doctor` checks the installation.",
        match args.project {
            Some(_) => " in that project",
            None => "",
        }
    ));
    Ok(())
}

fn uninstall(args: &PluginTargetArgs, environment: &Environment) -> Result<(), Failure> {
    let path = plugin_path(args, environment)?;
    let found = own_plugin(&path)?;
    if found.is_some() {
        std::fs::remove_file(&path).map_err(|error| {
            let message = format!("cannot remove {}: {error}", path.display());
            Failure::new(FAILED, message, "remove it by hand")
        })?;
    }
    if args.json {
        let previous = found.as_ref().map(|installed| &installed.version);
        print_out(&json_text(
            &json!({"path": path, "removed": found.is_some(), "previous": previous}),
        )?);
    } else if found.is_some() {
        print_out(&format!("{}\n", one_line(&path.display().to_string())));
        print_err("removed. An opencode that runs keeps it until it is started again.");
    } else {
        print_err(&format!(
            "nothing to remove: no plugin at {}",
            path.display()
        ));
    }
    Ok(())
}

/// Returns the path of the plugin for the given target.
fn plugin_path(args: &PluginTargetArgs, environment: &Environment) -> Result<PathBuf, Failure> {
    let Some(project) = &args.project else {
        return global_path(environment).ok_or_else(|| {
            let hint = "set HOME, or name a project with --project DIR";
            Failure::new(USAGE, "there is no home folder to install into", hint)
        });
    };
    let folder = environment.path(project);
    if !folder.is_dir() {
        let message = format!("--project: {} is no folder", folder.display());
        return Err(Failure::new(USAGE, message, "name the project's folder"));
    }
    Ok(folder.join(PROJECT_FOLDER).join(FILE_NAME))
}

/// Returns the path of the plugin for all projects; none without a home folder.
fn global_path(environment: &Environment) -> Option<PathBuf> {
    let named = |name: &str| {
        environment
            .variables
            .get(name)
            .filter(|value| !value.is_empty())
            .map(|value| environment.path(Path::new(value)))
    };
    let folder = named("OPENCODE_CONFIG_DIR").or_else(|| {
        let config = named("XDG_CONFIG_HOME")
            .or_else(|| environment.home.as_ref().map(|home| home.join(".config")));
        config.map(|config| config.join("opencode"))
    })?;
    Some(folder.join("plugins").join(FILE_NAME))
}

/// Returns the installed plugin; none if the file does not exist.
///
/// # Errors
/// Fails if the file is not our plugin or cannot be read.
fn own_plugin(path: &Path) -> Result<Option<Installed>, Failure> {
    match inspect(path) {
        ExistingFile::Missing => Ok(None),
        ExistingFile::Own(installed) => Ok(Some(installed)),
        ExistingFile::Foreign(what) => Err(Failure::new(
            FAILED,
            format!("{} {what}; it is left as it is", path.display()),
            "move it away first, or name another place with --project",
        )),
    }
}

/// The content of a path.
enum ExistingFile {
    Missing,
    Own(Installed),
    /// Another file; the text is the predicate of a sentence about its path.
    Foreign(String),
}

fn inspect(path: &Path) -> ExistingFile {
    // A dangling link counts as existing: a write would replace it.
    let exists = std::fs::symlink_metadata(path);
    if matches!(&exists, Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    {
        return ExistingFile::Missing;
    }
    let found = std::fs::metadata(path).and_then(|found| match found.is_file() {
        true if found.len() <= MAX_FILE_BYTES => std::fs::read(path).map(Some),
        _ => Ok(None),
    });
    match found {
        Ok(Some(bytes)) => match Installed::read(&String::from_utf8_lossy(&bytes)) {
            Some(installed) => ExistingFile::Own(installed),
            None => ExistingFile::Foreign("is no plugin of Greenroom's".to_owned()),
        },
        Ok(None) => ExistingFile::Foreign("is no plugin of Greenroom's".to_owned()),
        Err(error) => ExistingFile::Foreign(format!("cannot be read ({error})")),
    }
}

/// Writes a file atomically: readers see the old or the new content.
fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let mut aside = tempfile::Builder::new()
        .prefix(".greenroom-")
        .tempfile_in(folder)?;
    aside.write_all(text.as_bytes())?;
    aside
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    aside.as_file().sync_all()?;
    aside.persist(path)?;
    Ok(())
}

/// Checks all paths where opencode loads the plugin.
pub fn findings(environment: &Environment) -> Vec<Finding> {
    const SUBJECT: &str = "plugin";
    let here = environment.folder.join(PROJECT_FOLDER).join(FILE_NAME);
    let mut places = vec![(here, "--project .")];
    places.extend(global_path(environment).map(|path| (path, "--global")));
    let mut findings: Vec<Finding> = places
        .into_iter()
        .filter_map(|(path, flag)| {
            let name = path.display();
            let again = format!("greenroom plugin install {flag}");
            Some(match inspect(&path) {
                ExistingFile::Missing => return None,
                ExistingFile::Foreign(what) => Finding::warn(
                    SUBJECT,
                    format!("{name} {what}"),
                    "move it away, and install ours",
                ),
                ExistingFile::Own(installed) if installed.version != VERSION => Finding::warn(
                    SUBJECT,
                    format!("version {} at {name}, this is {VERSION}", installed.version),
                    again,
                ),
                ExistingFile::Own(installed) if !installed.current => Finding::warn(
                    SUBJECT,
                    format!("{name} is not as version {VERSION} installs it"),
                    again,
                ),
                ExistingFile::Own(installed) => match installed.binary.filter(|it| !it.is_file()) {
                    Some(gone) => Finding::warn(
                        SUBJECT,
                        format!("{name} would start {}, which is gone", gone.display()),
                        again,
                    ),
                    None => Finding::ok(SUBJECT, format!("version {VERSION} at {name}")),
                },
            })
        })
        .collect();
    if findings.is_empty() {
        let message = "not installed: agents of a plain opencode have no tools; `greenroom plugin install` changes that";
        findings.push(Finding::ok(SUBJECT, message));
    }
    findings
}

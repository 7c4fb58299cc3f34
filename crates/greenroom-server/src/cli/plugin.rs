//! `greenroom plugin`: puts opencode's plugin in place, takes it away, and looks where it is for the doctor. A file that
//! is none of ours is never touched.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use greenroom_bridge::plugin::{FILE_NAME, Installed, VERSION, render};
use serde_json::json;

use super::args::{PlaceArgs, PluginArgs, PluginCommand};
use super::doctor::Finding;
use super::failure::{FAILED, Failure, USAGE};
use super::run::json_text;
use super::serve::say;
use super::term::{one_line, out};
use crate::config::Environment;

/// Larger files are none of ours; they are not read.
const LARGEST: u64 = 1024 * 1024;
/// opencode's folder in a project.
const IN_PROJECT: &str = ".opencode/plugins";

/// Installs or uninstalls.
pub fn plugin(args: PluginArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    match args.command {
        PluginCommand::Install(place) => install(&place, &environment),
        PluginCommand::Uninstall(place) => uninstall(&place, &environment),
    }
}

fn install(args: &PlaceArgs, environment: &Environment) -> Result<(), Failure> {
    let path = place(args, environment)?;
    let before = ours(&path)?;
    let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("greenroom"));
    put(&path, &render(&binary)).map_err(|error| {
        let hint = "make the folder writable, or name another one with --project";
        Failure::new(
            FAILED,
            format!("cannot write {}: {error}", path.display()),
            hint,
        )
    })?;
    let previous = before.map(|installed| installed.version);
    if args.json {
        out(&json_text(&json!({
            "path": path, "version": VERSION, "previous": previous, "binary": binary,
        }))?);
        return Ok(());
    }
    let verb = match &previous {
        None => "installed".to_owned(),
        Some(version) if version == VERSION => "installed again".to_owned(),
        Some(version) => format!("updated from version {}", one_line(version)),
    };
    out(&format!("{}\n", one_line(&path.display().to_string())));
    say(&format!(
        "{verb}: version {VERSION}. Start opencode again{}: its agents then have background_task. The service starts by \
         itself when it is needed (GREENROOM_AUTOSTART=0 keeps it from that); `greenroom doctor` says how all is.",
        match args.project {
            Some(_) => " in that project",
            None => "",
        }
    ));
    Ok(())
}

fn uninstall(args: &PlaceArgs, environment: &Environment) -> Result<(), Failure> {
    let path = place(args, environment)?;
    let found = ours(&path)?;
    if found.is_some() {
        std::fs::remove_file(&path).map_err(|error| {
            let message = format!("cannot remove {}: {error}", path.display());
            Failure::new(FAILED, message, "remove it by hand")
        })?;
    }
    if args.json {
        let previous = found.as_ref().map(|installed| &installed.version);
        out(&json_text(
            &json!({"path": path, "removed": found.is_some(), "previous": previous}),
        )?);
    } else if found.is_some() {
        out(&format!("{}\n", one_line(&path.display().to_string())));
        say("removed. An opencode that runs keeps it until it is started again.");
    } else {
        say(&format!(
            "nothing to remove: no plugin at {}",
            path.display()
        ));
    }
    Ok(())
}

/// Where the words say that the plugin is.
fn place(args: &PlaceArgs, environment: &Environment) -> Result<PathBuf, Failure> {
    let Some(project) = &args.project else {
        return global(environment).ok_or_else(|| {
            let hint = "set HOME, or name a project with --project DIR";
            Failure::new(USAGE, "there is no home folder to install into", hint)
        });
    };
    let folder = environment.path(project);
    if !folder.is_dir() {
        let message = format!("--project: {} is no folder", folder.display());
        return Err(Failure::new(USAGE, message, "name the project's folder"));
    }
    Ok(folder.join(IN_PROJECT).join(FILE_NAME))
}

/// Where opencode looks for the plugins of all projects. None without a home.
fn global(environment: &Environment) -> Option<PathBuf> {
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

/// The plugin of ours at a place, or none if nothing is there.
///
/// # Errors
/// Something is there that is none of ours, or cannot be read.
fn ours(path: &Path) -> Result<Option<Installed>, Failure> {
    match look_at(path) {
        Look::Nothing => Ok(None),
        Look::Ours(installed) => Ok(Some(installed)),
        Look::Foreign(what) => Err(Failure::new(
            FAILED,
            format!("{} {what}; it is left as it is", path.display()),
            "move it away first, or name another place with --project",
        )),
    }
}

/// What is at a place.
enum Look {
    Nothing,
    Ours(Installed),
    /// Something else; what, as the rest of a sentence about its path.
    Foreign(String),
}

fn look_at(path: &Path) -> Look {
    // A link to nowhere is something too: writing would replace it.
    let exists = std::fs::symlink_metadata(path);
    if matches!(&exists, Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    {
        return Look::Nothing;
    }
    let found = std::fs::metadata(path).and_then(|found| match found.is_file() {
        true if found.len() <= LARGEST => std::fs::read(path).map(Some),
        _ => Ok(None),
    });
    match found {
        Ok(Some(bytes)) => match Installed::read(&String::from_utf8_lossy(&bytes)) {
            Some(installed) => Look::Ours(installed),
            None => Look::Foreign("is no plugin of Greenroom's".to_owned()),
        },
        Ok(None) => Look::Foreign("is no plugin of Greenroom's".to_owned()),
        Err(error) => Look::Foreign(format!("cannot be read ({error})")),
    }
}

/// Writes a file so that opencode finds the old one or the new one and never half of one.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
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

/// The doctor's lines: every place where opencode would find the plugin.
pub fn findings(environment: &Environment) -> Vec<Finding> {
    const OF: &str = "plugin";
    let here = environment.folder.join(IN_PROJECT).join(FILE_NAME);
    let mut places = vec![(here, "--project .")];
    places.extend(global(environment).map(|place| (place, "--global")));
    let mut findings: Vec<Finding> = places
        .into_iter()
        .filter_map(|(path, flag)| {
            let name = path.display();
            let again = format!("greenroom plugin install {flag}");
            Some(match look_at(&path) {
                Look::Nothing => return None,
                Look::Foreign(what) => Finding::warn(
                    OF,
                    format!("{name} {what}"),
                    "move it away, and install ours",
                ),
                Look::Ours(installed) if installed.version != VERSION => Finding::warn(
                    OF,
                    format!("version {} at {name}, this is {VERSION}", installed.version),
                    again,
                ),
                Look::Ours(installed) if !installed.current => Finding::warn(
                    OF,
                    format!("{name} is not as version {VERSION} installs it"),
                    again,
                ),
                Look::Ours(installed) => match installed.binary.filter(|it| !it.is_file()) {
                    Some(gone) => Finding::warn(
                        OF,
                        format!("{name} would start {}, which is gone", gone.display()),
                        again,
                    ),
                    None => Finding::ok(OF, format!("version {VERSION} at {name}")),
                },
            })
        })
        .collect();
    if findings.is_empty() {
        let says = "not installed: agents of a plain opencode have no tools; `greenroom plugin install` changes that";
        findings.push(Finding::ok(OF, says));
    }
    findings
}

//! `greenroom config`: what is wrong with the configuration, what holds, what a file may say, and what another program's
//! settings are here. Nothing is started and nobody is called.

use serde_json::{Value, json};

use super::args::upkeep::{ImportArgs, LayersArgs};
use super::args::{ConfigArgs, ConfigCommand};
use super::failure::{Failure, USAGE};
use super::run::json_text;
use super::serve::say;
use super::term::{out, printable};
use crate::config::effective::{self, effective};
use crate::config::import::{self, Imported};
use crate::config::{ConfigError, Environment, check, file, load, schema};

/// No more problems are told at a time.
const MOST_PROBLEMS: usize = 100;

/// Runs the command.
pub fn config(args: ConfigArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    match args.command {
        ConfigCommand::Check(layers) => checked(&layers, &environment),
        ConfigCommand::Show(layers) => show(&layers, &environment),
        ConfigCommand::Schema => {
            out(&json_text(&schema::schema())?);
            Ok(())
        }
        ConfigCommand::Import(args) => imported(&args, &environment),
    }
}

fn checked(args: &LayersArgs, environment: &Environment) -> Result<(), Failure> {
    let (loaded, mut problems) = check(&args.sources(), environment);
    let count = problems.len();
    problems.truncate(MOST_PROBLEMS);
    let files: Vec<String> = loaded
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    if args.json {
        let problems: Vec<Value> = problems.iter().map(problem).collect();
        out(&json_text(
            &json!({ "ok": count == 0, "files": files, "problems": problems }),
        )?);
    }
    if count == 0 {
        if !args.json {
            let read = match files.len() {
                0 => "no file is there: the defaults hold".to_owned(),
                _ => files.join(", "),
            };
            out(&format!("ok: {read}\n"));
        }
        return Ok(());
    }
    if !args.json {
        for problem in &problems {
            say(Failure::new(USAGE, problem.to_string(), problem.hint())
                .text()
                .trim_end());
        }
    }
    let plural = if count == 1 { "" } else { "s" };
    let hint = if count > problems.len() {
        format!("the first {} are shown", problems.len())
    } else {
        String::new()
    };
    Err(Failure::new(
        USAGE,
        format!("{count} problem{plural} in the configuration"),
        hint,
    ))
}

fn problem(problem: &ConfigError) -> Value {
    let (file, line) = match problem.place() {
        Some((file, line)) => (Some(file.display().to_string()), line),
        None => (None, None),
    };
    json!({
        "message": problem.to_string(),
        "hint": problem.hint(),
        "key": problem.key(),
        "file": file,
        "line": line,
    })
}

fn show(args: &LayersArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(&args.sources(), environment)?;
    let values = effective(&loaded);
    if !args.json {
        out(&printable(&effective::toml_text(&values), true));
        return Ok(());
    }
    let values = values.iter().map(|value| {
        json!({
            "key": value.key,
            "value": value.value,
            "isSet": value.value.is_none().then_some(true),
            "from": value.origin.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string),
        })
    });
    let mut values: Vec<Value> = values.collect();
    for value in values.iter_mut().filter_map(Value::as_object_mut) {
        // A secret that is set says so instead of its value.
        if value["isSet"].is_null() {
            value.remove("isSet");
        } else {
            value.remove("value");
        }
    }
    out(&json_text(&json!({ "keys": values }))?);
    Ok(())
}

fn imported(args: &ImportArgs, environment: &Environment) -> Result<(), Failure> {
    let path = environment.path(&args.file);
    let failed = |problem: String, hint: &str| {
        Failure::new(USAGE, format!("{}: {problem}", path.display()), hint)
    };
    let text = file::bounded(&path, file::LARGEST)
        .map_err(|error| {
            failed(
                format!("cannot be read: {error}"),
                "name the oh-my-opencode.json(c) to import from",
            )
        })?
        .ok_or_else(|| {
            failed(
                format!("larger than {} bytes", file::LARGEST),
                "name the oh-my-opencode.json(c) to import from",
            )
        })?;
    let imported: Imported = import::import(&text).map_err(|error| {
        let hint = match error {
            import::ImportError::NoJson(_) => "correct the file where it says",
            import::ImportError::NoBlock => "there is nothing in it that Greenroom would take over",
            import::ImportError::Invalid { .. } => "correct the field, or remove it",
        };
        failed(error.to_string(), hint)
    })?;
    if args.json {
        let keys = imported
            .keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)));
        let left_out = imported
            .left_out
            .iter()
            .map(|(field, why)| json!({ "field": field, "why": why }));
        out(&json_text(&json!({
            "keys": keys.collect::<serde_json::Map<_, _>>(),
            "notTakenOver": left_out.collect::<Vec<_>>(),
        }))?);
        return Ok(());
    }
    out(&import::toml_text(&imported));
    match imported.left_out.len() {
        0 => {}
        1 => say("note: 1 field is not taken over; it is named at the end"),
        count => say(&format!(
            "note: {count} fields are not taken over; they are named at the end"
        )),
    }
    Ok(())
}

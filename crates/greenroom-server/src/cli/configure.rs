//! `greenroom config`: checks the configuration, shows it, prints its schema, and imports the settings of another
//! program. Makes no calls.

use serde_json::{Value, json};

use super::args::admin::{ImportArgs, LayersArgs, TrustArgs};
use super::args::{ConfigArgs, ConfigCommand};
use super::failure::{Failure, USAGE};
use super::run::json_text;
use super::terminal::{print_err, print_out, printable};
use crate::config::effective::{self, effective};
use crate::config::import::{self, Imported};
use crate::config::project::TrustedFiles;
use crate::config::{ConfigError, Environment, check, file, load, schema};
use crate::secret_file::SecretFileError;

/// Maximum number of listed problems.
const MAX_PROBLEMS: usize = 100;

/// Runs the command.
pub fn config(args: ConfigArgs) -> Result<(), Failure> {
    let environment = Environment::from_process();
    match args.command {
        ConfigCommand::Check(layers) => check_config(&layers, &environment),
        ConfigCommand::Show(layers) => show(&layers, &environment),
        ConfigCommand::Schema => {
            print_out(&json_text(&schema::schema())?);
            Ok(())
        }
        ConfigCommand::Trust(args) => trust(&args, &environment),
        ConfigCommand::Import(args) => import_config(&args, &environment),
    }
}

/// Accepts a project's file with its present content, or withdraws that.
fn trust(args: &TrustArgs, environment: &Environment) -> Result<(), Failure> {
    let path = match &args.file {
        Some(file) => environment.path(file),
        None => environment.project_file(),
    };
    let shown = path.display().to_string();
    let shown = printable(&shown, true);
    let trusted = TrustedFiles::read(environment);
    let failed = |error: SecretFileError| Failure::new(USAGE, error.to_string(), error.hint());
    if args.revoke {
        let message = match trusted.withdraw(environment, &path).map_err(failed)? {
            true => format!("{shown} is no longer accepted"),
            false => format!("{shown} was not accepted"),
        };
        print_err(&message);
        return Ok(());
    }
    if environment.trust_file().is_none() {
        let hint = "set HOME or XDG_STATE_HOME";
        return Err(Failure::new(
            USAGE,
            "there is no home folder for the list",
            hint,
        ));
    }
    let Some(file) = file::read_of_project(&path)? else {
        let hint = "name the file of a project";
        return Err(Failure::new(USAGE, format!("{shown} does not exist"), hint));
    };
    trusted
        .accept(environment, &path, &file.text)
        .map_err(failed)?;
    print_err(&format!(
        "{shown} is accepted as it is now; a changed file must be accepted again"
    ));
    Ok(())
}

fn check_config(args: &LayersArgs, environment: &Environment) -> Result<(), Failure> {
    let (loaded, mut problems) = check(&args.sources(), environment);
    let count = problems.len();
    problems.truncate(MAX_PROBLEMS);
    let files: Vec<String> = loaded
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    if args.json {
        let problems: Vec<Value> = problems.iter().map(problem_json).collect();
        print_out(&json_text(
            &json!({ "ok": count == 0, "files": files, "problems": problems }),
        )?);
    }
    if count == 0 {
        if !args.json {
            let read = match files.len() {
                0 => "no file is there: the defaults hold".to_owned(),
                _ => files.join(", "),
            };
            print_out(&format!("ok: {read}\n"));
        }
        return Ok(());
    }
    if !args.json {
        for problem_json in &problems {
            print_err(
                Failure::new(USAGE, problem_json.to_string(), problem_json.hint())
                    .text()
                    .trim_end(),
            );
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

fn problem_json(problem_json: &ConfigError) -> Value {
    let (file, line) = match problem_json.position() {
        Some((file, line)) => (Some(file.display().to_string()), line),
        None => (None, None),
    };
    json!({
        "message": problem_json.to_string(),
        "hint": problem_json.hint(),
        "key": problem_json.key(),
        "file": file,
        "line": line,
    })
}

fn show(args: &LayersArgs, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(&args.sources(), environment)?;
    let values = effective(&loaded);
    if !args.json {
        print_out(&printable(&effective::toml_text(&values), true));
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
        // A secret shows only whether it is set.
        if value["isSet"].is_null() {
            value.remove("isSet");
        } else {
            value.remove("value");
        }
    }
    print_out(&json_text(&json!({ "keys": values }))?);
    Ok(())
}

fn import_config(args: &ImportArgs, environment: &Environment) -> Result<(), Failure> {
    let path = environment.path(&args.file);
    let failed = |problem_json: String, hint: &str| {
        Failure::new(USAGE, format!("{}: {problem_json}", path.display()), hint)
    };
    let text = file::read_bounded(&path, file::MAX_FILE_BYTES)
        .map_err(|error| {
            failed(
                format!("cannot be read: {error}"),
                "name the oh-my-opencode.json(c) to import from",
            )
        })?
        .ok_or_else(|| {
            failed(
                format!("larger than {} bytes", file::MAX_FILE_BYTES),
                "name the oh-my-opencode.json(c) to import from",
            )
        })?;
    let import_config: Imported = import::import(&text).map_err(|error| {
        let hint = match error {
            import::ImportError::InvalidJson(_) => "correct the file at that place",
            import::ImportError::MissingBlock => {
                "there is nothing in it that Greenroom would take over"
            }
            import::ImportError::Invalid { .. } => "correct the field, or remove it",
        };
        failed(error.to_string(), hint)
    })?;
    if args.json {
        let keys = import_config
            .keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)));
        let skipped = import_config
            .skipped
            .iter()
            .map(|(field, why)| json!({ "field": field, "why": why }));
        print_out(&json_text(&json!({
            "keys": keys.collect::<serde_json::Map<_, _>>(),
            "notTakenOver": skipped.collect::<Vec<_>>(),
        }))?);
        return Ok(());
    }
    print_out(&import::toml_text(&import_config));
    match import_config.skipped.len() {
        0 => {}
        1 => print_err("note: 1 field is not taken over; it is named at the end"),
        count => print_err(&format!(
            "note: {count} fields are not taken over; they are named at the end"
        )),
    }
    Ok(())
}

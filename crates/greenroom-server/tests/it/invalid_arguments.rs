//! Invalid input for every flag and every key is rejected with exit code 2 and its name, before any call, with an empty
//! stdout. Flags come from the grammar and keys from the table, so new ones are covered.

use clap::{Arg, ArgAction, Command, CommandFactory};
use greenroom_server::cli::Failure;
use greenroom_server::cli::args::Cli;
use greenroom_server::config::keys::KEYS;
use greenroom_server::config::load;
use greenroom_server::config::value_type::ValueType;

use crate::command::{greenroom, run_command};
use crate::config::TestEnv;

/// Returns the arguments that make a command valid, so that only the tested argument is wrong.
fn complete(command: &str) -> &'static [&'static str] {
    match command {
        "run" => &["do it"],
        "show" | "why" | "output" | "cancel" => &["bg_1"],
        "resume" | "send" => &["bg_1", "do it"],
        "limits set" => &["default", "3"],
        "answer" => &["per_1", "once"],
        "journal export" => &["file.jsonl"],
        "journal purge" => &["--all-ended"],
        "config import" => &["file.json"],
        "config trust" => &["file.toml"],
        "completions" => &["bash"],
        _ => &[],
    }
}

/// Returns true for flags that conflict with those arguments.
fn instead(command: &str, flag: &str) -> bool {
    matches!(
        (command, flag),
        ("cancel", "parent" | "all")
            | ("answer", "say")
            | ("journal purge", "all-ended" | "older-than")
    )
}

/// Returns all commands without subcommands.
fn commands() -> Vec<(String, Command)> {
    fn below(command: &Command, above: &str, all: &mut Vec<(String, Command)>) {
        for sub in command.get_subcommands() {
            let name = format!("{above}{}", sub.get_name());
            if !sub.is_subcommand_required_set() {
                all.push((name.clone(), sub.clone()));
            }
            below(sub, &format!("{name} "), all);
        }
    }
    let mut all = Vec::new();
    below(&Cli::command(), "", &mut all);
    all
}

fn args(command: &str, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = vec!["greenroom".to_owned()];
    args.extend(command.split(' ').map(str::to_owned));
    args.extend(more.iter().map(|&word| word.to_owned()));
    args
}

#[track_caller]
fn refused(args: &[String], name: &str) {
    let error = Cli::command()
        .try_get_matches_from(args)
        .expect_err(&format!("{args:?} is refused"));
    assert_eq!(error.exit_code(), 2, "{args:?}");
    assert!(error.use_stderr(), "{args:?}");
    let text = error.to_string();
    assert!(text.contains(name), "{args:?} names {name}: {text}");
}

fn takes_a_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

#[test]
fn every_flag_rejects_invalid_values() {
    let long = "x".repeat(5000);
    let mut tried = 0;
    for (name, command) in commands() {
        let usual = complete(&name);
        let fine = Cli::command().try_get_matches_from(args(&name, usual));
        assert!(fine.is_ok(), "{name}: {fine:?}");
        refused(
            &args(&name, &[usual, &["--frobnicate"]].concat()),
            "--frobnicate",
        );
        for arg in command.get_arguments() {
            let Some(long_flag) = arg.get_long() else {
                continue;
            };
            let flag = format!("--{long_flag}");
            if long_flag == "help" {
                continue;
            }
            let base: &[&str] = if instead(&name, long_flag) {
                &usual[..usual.len() - 1]
            } else {
                usual
            };
            if !takes_a_value(arg) {
                refused(
                    &args(&name, &[base, &[&format!("{flag}=x")]].concat()),
                    &flag,
                );
                refused(&args(&name, &[base, &[&flag, &flag]].concat()), &flag);
                continue;
            }
            refused(&args(&name, &[base, &[&flag]].concat()), &flag);
            for bad in ["a\u{1b}[2Jb", "a\u{0}b", "a\nb", "\u{7f}", &long] {
                refused(
                    &args(&name, &[base, &[&format!("{flag}={bad}")]].concat()),
                    &flag,
                );
                tried += 1;
            }
            let repeats = matches!(arg.get_action(), ArgAction::Append);
            if !repeats && !arg.is_required_set() {
                let twice = [
                    flag.as_str(),
                    "http://127.0.0.1:1",
                    &flag,
                    "http://127.0.0.1:1",
                ];
                let text = Cli::command()
                    .try_get_matches_from(args(&name, &[base, &twice].concat()))
                    .unwrap_err()
                    .to_string();
                assert!(text.contains(&flag), "{name} {flag}: {text}");
            }
        }
    }
    assert!(tried > 200, "only {tried} args were tried");
}

#[test]
fn every_positional_rejects_invalid_values() {
    let long = "x".repeat(5000);
    for (name, command) in commands() {
        let usual = complete(&name);
        for (place, arg) in command.get_positionals().enumerate() {
            let value_name = arg.get_value_names().unwrap()[0].to_string();
            let with = |word: &str| {
                let mut all: Vec<&str> = usual.to_vec();
                all[place] = word;
                args(&name, &all)
            };
            refused(&with(""), &value_name);
            // A prompt may be any text; the service limits its length.
            if value_name != "PROMPT" {
                for bad in ["a\u{1b}[2Jb", "a\u{0}b", &long] {
                    refused(&with(bad), &value_name);
                }
            }
        }
        if !usual.is_empty() && !matches!(name.as_str(), "cancel" | "journal purge") {
            let too_many = [usual, &["one", "more"]].concat();
            refused(&args(&name, &too_many), "one");
            let last = command.get_positionals().count();
            assert_eq!(last, usual.len(), "{name}");
        }
    }
}

/// Returns invalid texts for a type.
fn never(value_type: ValueType) -> Vec<String> {
    let long = "9".repeat(5000);
    let mut bad = vec![
        "\u{1b}[2J".to_owned(),
        "a\u{0}b".to_owned(),
        "\u{fffd}".to_owned(),
        long,
    ];
    match value_type {
        ValueType::Text { .. } => {}
        _ => bad.extend(["", "nonsense", "-1", "{", "{ a = {} }"].map(str::to_owned)),
    }
    bad
}

#[test]
fn every_key_rejects_invalid_values_in_every_layer() {
    let mut tried = 0;
    for key in KEYS {
        for bad in never(key.field.value_type) {
            // For a list of names these texts are valid.
            if matches!(key.field.value_type, ValueType::Rules)
                && !bad.contains(['\u{1b}', '\u{0}', '\u{fffd}'])
            {
                continue;
            }
            let name = match (key.has_entries(), key.field.value_type) {
                (true, ValueType::Rules) => format!("{}.x.deny", key.name),
                (true, _) => format!("{}.x", key.name),
                (false, _) => key.name.to_owned(),
            };
            let variable = format!("GREENROOM_{}", name.to_uppercase().replace('.', "__"));
            let file = format!("{name} = {}", toml::Value::String(bad.clone()));
            for place in [
                TestEnv::new().set(&format!("{name}={bad}")),
                TestEnv::new().env(&variable, &bad),
                TestEnv::new().folder_file(&file),
            ] {
                let error = load(&place.sources, &place.environment)
                    .err()
                    .unwrap_or_else(|| panic!("{name} takes {bad:.20?}"));
                let failure = Failure::from(error);
                let text = failure.text();
                assert_eq!(failure.code, 2);
                assert!(text.contains(key.name), "{name}: {text}");
                assert!(
                    !text.contains('\u{1b}') && text.len() < 1000,
                    "{name}: {text}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 5 * KEYS.len(), "only {tried} values were tried");
}

#[actix_rt::test]
async fn usage_errors_are_short_and_printable() {
    let long = "x".repeat(100_000);
    for args in [
        &["list", "--agent", &long][..],
        &["list", "--agent", "\u{1b}[2J\u{1b}]0;title\u{7}"],
        &["show", &long],
        &["\u{1b}[31mlist"],
        &["list", "--url", &format!("http://{}", &long[..3000])],
        &["serve", "--set", &format!("limits.{}=1", &long[..3000])],
        &["config", "check", "--set", "\u{9b}2J=1"],
        &["config", "show", "--config", "/nowhere/at/all"],
        &["limits", "set", "default", "NaN"],
    ] {
        let refused = run_command(greenroom(args)).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (2, ""),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
        assert!(
            refused.stderr.len() < 3000,
            "{} bytes",
            refused.stderr.len()
        );
        let drives = |c: char| c.is_control() && c != '\n';
        assert!(!refused.stderr.contains(drives), "{:?}", refused.stderr);
    }
    let mut command = greenroom(&["config", "check"]);
    use std::os::unix::ffi::OsStrExt as _;
    command.env(
        "GREENROOM_LIMITS__DEFAULT",
        std::ffi::OsStr::from_bytes(b"\xff"),
    );
    let refused = run_command(command).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(
        refused.stderr.contains("limits.default"),
        "{}",
        refused.stderr
    );
}

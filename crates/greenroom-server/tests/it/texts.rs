//! Snapshots of all texts for people.

use std::time::Duration;

use clap::{CommandFactory, Parser};
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom_server::cli::args::Cli;
use greenroom_server::cli::client::TaskView;
use greenroom_server::cli::show;
use greenroom_server::cli::terminal::Style;
use greenroom_server::cli::watch::outcome_line;
use serde_json::{Value, json};

/// Returns a task as the service sends it, with these fields.
fn shown(fields: Value) -> TaskView {
    let mut task = json!({
        "id": "bg_00000001",
        "spawnDepth": 1,
        "description": "find the bug",
        "prompt": "Find the bug.",
        "agent": "explore",
        "status": "running",
        "queuedAt": "2026-01-01T00:00:00.000Z",
        "progress": { "toolCalls": 0, "lastUpdate": "2026-01-01T00:00:10.000Z" },
        "concurrencyGroup": "explore",
        "run": 1,
    });
    for (name, value) in fields.as_object().unwrap() {
        task[name] = value.clone();
    }
    serde_json::from_value(task).unwrap()
}

fn now() -> Timestamp {
    serde_json::from_value(json!("2026-01-01T00:01:10.000Z")).unwrap()
}

fn several() -> Vec<Task> {
    let started = "2026-01-01T00:00:05.000Z";
    [
        json!({"id": "bg_00000004", "status": "pending", "description": "a\nlong\u{1b}[2J description that goes on and on"}),
        json!({"id": "bg_00000003", "startedAt": started, "sessionID": "ses_3",
               "progress": {"toolCalls": 12, "lastTool": "bash", "lastUpdate": started}}),
        json!({"id": "bg_00000002", "status": "completed", "startedAt": started, "agent": "日本語",
               "completedAt": "2026-01-01T00:00:07.000Z"}),
        json!({"id": "bg_00000001", "status": "cancelled", "completedAt": started, "error": "not needed"}),
    ]
    .map(|fields| shown(fields).task)
    .to_vec()
}

#[test]
fn help() {
    let mut command = Cli::command().term_width(100);
    let mut text = command.render_long_help().to_string();
    below(&command, "", &mut text);
    insta::assert_snapshot!(text);
}

fn below(command: &clap::Command, above: &str, text: &mut String) {
    for sub in command.get_subcommands() {
        let name = format!("{above}{}", sub.get_name());
        let help = sub.clone().term_width(100).render_help();
        text.push_str(&format!("\n──── {name}\n{help}"));
        below(sub, &format!("{name} "), text);
    }
}

#[test]
fn wrong_arguments() {
    let wrong: &[&[&str]] = &[
        &["greenroom"],
        &["greenroom", "lst"],
        &["greenroom", "run"],
        &["greenroom", "cancel"],
        &["greenroom", "cancel", "bg_1", "--all"],
        &["greenroom", "serve", "--port", "1"],
        &["greenroom", "list", "--limit", "0"],
        &["greenroom", "run", "do it", "--variant", "high"],
    ];
    let mut text = String::new();
    for args in wrong {
        let error = Cli::try_parse_from(*args).unwrap_err();
        let first = error
            .to_string()
            .lines()
            .take(4)
            .collect::<Vec<_>>()
            .join("\n");
        text.push_str(&format!(
            "$ {}\n{first}\nexit code {}\n\n",
            args.join(" "),
            error.exit_code()
        ));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn task_table() {
    let wide = show::table(&several(), now(), Style::PLAIN, None);
    let narrow = show::table(&several(), now(), Style::PLAIN, Some(60));
    let none = show::table(&[], now(), Style::PLAIN, None);
    assert!(!wide.contains('\u{1b}'), "nothing drives the terminal");
    insta::assert_snapshot!(format!("{wide}\n{narrow}\n{none}"));
}

#[test]
fn task_details() {
    let waiting = shown(json!({
        "status": "pending", "parentSessionID": "ses_parent", "directory": "/project",
        "model": {"providerID": "acme", "modelID": "big", "variant": "high"},
        "waitsFor": {"key": "acme/big", "position": 3, "inUse": 5, "limit": 5,
                     "text": "third in line for acme/big, 5 of 5 slots in use"},
    }));
    let failed = shown(json!({
        "status": "error", "sessionID": "ses_1", "run": 2, "startedAt": "2026-01-01T00:00:05.000Z",
        "completedAt": "2026-01-01T00:01:05.000Z", "error": "no such\nmodel", "note": "2 todos left open",
        "progress": {"toolCalls": 1, "lastTool": "bash", "lastUpdate": "2026-01-01T00:00:10.000Z",
                     "lastMessage": "Let me look."},
    }));
    let launch_with_ask = shown(json!({
        "startedAt": "2026-01-01T00:00:05.000Z",
        "asking": [{"id": "per_1", "kind": "permission", "what": "bash rm -r build", "since": "2026-01-01T00:00:30.000Z"}],
    }));
    let text: Vec<String> = [waiting, failed, launch_with_ask]
        .iter()
        .map(|shown| show::details(shown, now(), Style::PLAIN))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn progress_line() {
    let waits =
        |limit| json!({"key": "explore", "position": 2, "inUse": 5, "limit": limit, "text": "x"});
    let lines = [
        json!({"status": "pending", "waitsFor": waits(5)}),
        json!({"status": "pending", "waitsFor": waits(0)}),
        json!({}),
        json!({"progress": {"toolCalls": 1, "lastTool": "bash", "lastUpdate": "2026-01-01T00:00:10.000Z"}}),
        json!({"progress": {"toolCalls": 7, "lastTool": "edit", "lastUpdate": "2026-01-01T00:00:10.000Z"}}),
        json!({"retrying": {"message": "overloaded"}}),
        json!({"asking": [{"id": "que_1", "kind": "question", "what": "Which\none?", "since": "2026-01-01T00:00:30.000Z"}]}),
    ]
    .map(|fields| show::progress(&shown(fields), Duration::from_secs(75)));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn outcome_lines() {
    let lines: Vec<String> = several().iter().rev().map(outcome_line).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

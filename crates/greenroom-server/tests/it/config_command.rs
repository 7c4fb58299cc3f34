//! `greenroom config`.

use greenroom_server::config::import::{ImportError, import, toml_text};
use serde_json::Value;

use crate::command::{greenroom, run_command};
use crate::config::TestEnv;

const MAX_BLOCK: &str = r#"{
  // how many at once
  "background_task": {
    "defaultConcurrency": 3,
    "providerConcurrency": { "anthropic": 2, "my.provider": 0, },
    "modelConcurrency": { "anthropic/claude-opus": 1 }, /* one */
    "staleTimeoutMs": 90000,
    "taskTtlMs": 3600000.0,
    "maxDepth": 2,
    "maxToolCalls": 100,
    "circuitBreaker": { "enabled": true, "maxToolCalls": 200, "consecutiveThreshold": 5 },
    "syncPollTimeoutMs": 60000,
    "sparkles": { "deep": [1] },
  },
}"#;

#[test]
fn import_maps_fields_to_keys() {
    let imported = import(MAX_BLOCK).unwrap();
    let text = toml_text(&imported);
    let settings = TestEnv::new().folder_file(&text).settings();
    let core = settings.core;
    assert_eq!((core.limits.default, core.safety.max_depth), (3, 2));
    assert_eq!(core.limits.providers["anthropic"], 2);
    assert_eq!(core.limits.providers["my.provider"], 0);
    assert_eq!(core.limits.models["anthropic/claude-opus"], 1);
    assert_eq!(core.lifecycle.stale_timeout.as_secs(), 90);
    assert_eq!(
        (core.safety.max_tool_calls, core.safety.repeated_tool_calls),
        (200, 5)
    );
    insta::assert_snapshot!(text);
}

#[test]
fn import_reads_the_new_file_format() {
    let text = r#"{"[opencode]": {"background_task": {"maxBackgroundAgents": 4}}}"#;
    let text = toml_text(&import(text).unwrap());
    assert_eq!(text, "[limits]\nmax = 4\n");
}

#[test]
fn import_errors() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let complaints: Vec<String> = [
        "",
        "nonsense",
        "{\"background_task\": ",
        "[]",
        "{}",
        "{\"background_task\": 3}",
        "{\"background_task\": {\"defaultConcurrency\": \"five\"}}",
        "{\"background_task\": {\"defaultConcurrency\": 1.5}}",
        "{\"background_task\": {\"defaultConcurrency\": -1}}",
        "{\"background_task\": {\"defaultConcurrency\": 1e300}}",
        "{\"background_task\": {\"providerConcurrency\": 3}}",
        "{\"background_task\": {\"providerConcurrency\": {\"\": 3}}}",
        "{\"background_task\": {\"modelConcurrency\": {\"a/b\": null}}}",
        "{\"background_task\": {\"staleTimeoutMs\": 1e15}}",
        &deep,
    ]
    .iter()
    .map(|text| import(text).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(complaints.join("\n"));
    assert_eq!(import("{}"), Err(ImportError::MissingBlock));
    let odd = "{\"background_task\": {\"a\\u001b[2J\": 1}}";
    assert!(!toml_text(&import(odd).unwrap()).contains('\u{1b}'));
}

#[actix_rt::test]
async fn check_lists_every_problem() {
    let place = TestEnv::new()
        .user_file("\n[limits]\nmax = \"many\"\ndefualt = 3\n")
        .folder_file("listen = \"0.0.0.0:1\"\n");
    let run = async |args: &[&str]| {
        let mut command = greenroom(args);
        command
            .env("HOME", place.environment.home.as_ref().unwrap())
            .env("GREENROOM_LISTNE", "x")
            .current_dir(&place.environment.folder);
        run_command(command).await
    };
    let check = run(&["config", "check", "--set", "lifecycle.queue_ttl=soon"]).await;
    assert_eq!((check.code, check.stdout.as_str()), (2, ""));
    let home = place.root.path().display().to_string();
    insta::assert_snapshot!(check.stderr.replace(&home, ""));

    let json = run(&["config", "check", "--json"]).await;
    assert_eq!(json.code, 2);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let first = &json["problems"][0];
    assert_eq!(
        (first["line"].as_u64(), &first["key"]),
        (Some(3), &"limits.max".into())
    );

    let shown = run(&["config", "show"]).await;
    assert_eq!(
        (shown.code, shown.stdout.as_str()),
        (2, ""),
        "a broken one is not shown"
    );
}

#[actix_rt::test]
async fn show_prints_values_with_origins() {
    let home = std::env::temp_dir();
    let args = [
        "config",
        "show",
        "--set",
        "token=s3cret",
        "--listen",
        "127.0.0.1:1",
        "--json",
    ];
    let shown = run_command(greenroom(&args)).await;
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(!shown.stdout.contains("s3cret") && !shown.stderr.contains("s3cret"));
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let of = |name: &str| {
        let keys = shown["keys"].as_array().unwrap().iter();
        keys.clone().find(|key| key["key"] == name).unwrap().clone()
    };
    assert_eq!(of("token")["isSet"], true);
    assert_eq!(of("listen")["from"], "--listen");
    assert_eq!(of("limits.default")["value"], 5);
    assert_eq!(of("limits.default")["from"], "default");

    let check = run_command(greenroom(&["config", "check"])).await;
    assert_eq!((check.code, check.stderr.as_str()), (0, ""));
    let schema = run_command(greenroom(&["config", "schema"])).await;
    assert!(schema.code == 0 && schema.stdout.contains("json-schema.org"));
    let nowhere = home.join("greenroom-no-such-file.json");
    let nothing = run_command(greenroom(&["config", "import", nowhere.to_str().unwrap()])).await;
    assert_eq!((nothing.code, nothing.stdout.as_str()), (2, ""));
    assert!(
        nothing.stderr.contains("greenroom-no-such-file.json"),
        "{}",
        nothing.stderr
    );
}

//! `greenroom doctor`: findings, hints, and exit codes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use greenroom_server::cli::doctor::{Finding, report};
use greenroom_server::cli::terminal::Style;
use serde_json::Value;

use crate::command::{CommandOutput, greenroom, run_command};
use crate::config::TestEnv;
use crate::support::{Host, healthy_opencode};

/// Creates a program that reports itself as opencode of a version.
fn opencode(folder: &Path, version: &str) -> String {
    let path = folder.join("opencode");
    std::fs::write(&path, format!("#!/bin/sh\necho {version}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn doctor(place: &TestEnv, args: &[&str]) -> CommandOutput {
    let mut command = greenroom(&[&["doctor"], args].concat());
    command
        .env("HOME", place.environment.home.as_ref().unwrap())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .current_dir(&place.environment.folder);
    run_command(command).await
}

fn of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(name))
        .collect()
}

#[actix_rt::test]
async fn all_checks_pass() {
    let host = Host::start(&[]).await;
    let place = TestEnv::new();
    let bin = opencode(place.root.path(), "1.18.33");
    let url = host.url("");
    let found = doctor(&place, &["--url", &url, "--opencode-bin", &bin]).await;
    assert_eq!(
        (found.code, found.stderr.as_str()),
        (0, ""),
        "{}",
        found.stdout
    );
    assert!(of(&found.stdout, "opencode")[0].contains("1.18.33, as tested"));
    assert!(of(&found.stdout, "service")[0].contains("is ready: 0 running, 0 waiting"));
    let json = doctor(&place, &["--url", &url, "--opencode-bin", &bin, "--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["ok"], true);
    assert!(
        json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["verdict"] == "ok"),
        "{json}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn unreachable_has_its_own_exit_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = taken.local_addr().unwrap();
    drop(taken);
    let place =
        TestEnv::new().folder_file(&format!("listen = \"{free}\"\njournal = \"kept.db\"\n"));
    let bin = opencode(place.root.path(), "1.2.3");
    let found = doctor(&place, &["--opencode-bin", &bin]).await;
    assert_eq!(found.code, 3, "{}", found.stdout);
    assert!(
        of(&found.stdout, "service")[0].starts_with("fail"),
        "{}",
        found.stdout
    );
    assert!(
        found.stdout.contains("greenroom up") && of(&found.stdout, "port")[0].contains("is free")
    );
    assert!(
        of(&found.stdout, "opencode")[0].starts_with("warn") && found.stdout.contains("1.18.33")
    );
    let journal = of(&found.stdout, "journal")[0].to_owned();
    assert!(
        journal.starts_with("ok") && journal.contains("kept.db: the first start makes it"),
        "{journal}"
    );

    let alone = healthy_opencode().await;
    let place = place.folder_file(&format!(
        "listen = \"{free}\"\n[opencode]\nurl = \"{alone}\"\n"
    ));
    let found = doctor(&place, &["--opencode-bin", &bin]).await;
    assert!(
        found
            .stdout
            .contains(&format!("opencode 1.18.33 at {alone}")),
        "{}",
        found.stdout
    );
    let stranger = doctor(&place, &["--url", &alone, "--opencode-bin", &bin]).await;
    assert_eq!(
        stranger.code, 1,
        "another server answers: {}",
        stranger.stdout
    );
    assert!(stranger.stdout.contains("is no Greenroom"));
}

#[actix_rt::test]
async fn failures_are_named() {
    let place = TestEnv::new().folder_file(
        "token_file = \"secret\"\nopencode.directory = \"nowhere\"\nlimits.max = -1\n",
    );
    let secret = place.environment.folder.join("secret");
    std::fs::write(&secret, "s3cret").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let found = doctor(
        &place,
        &[
            "--url",
            "http://127.0.0.1:1",
            "--opencode-bin",
            "/nowhere/opencode",
        ],
    )
    .await;
    assert_eq!(found.code, 1, "{}", found.stdout);
    let token = of(&found.stdout, "token")[0];
    assert!(
        token.starts_with("warn") && token.contains("mode 644"),
        "{token}"
    );
    assert!(found.stdout.contains("chmod 600"));
    let configuration = of(&found.stdout, "configuration");
    assert!(
        configuration[0].contains("greenroom.toml:3: `limits.max`"),
        "{}",
        found.stdout
    );
    assert!(configuration[1].contains("nowhere is no folder"));
    assert!(of(&found.stdout, "opencode")[0].contains("/nowhere/opencode"));
    assert!(!found.stdout.contains("s3cret"));
}

#[test]
fn report_text() {
    let text = report(
        &[
            Finding::ok("opencode", "1.18.33, as tested, at /usr/bin/opencode"),
            Finding::warn("token", "others can read /x (mode 644)", "chmod 600 /x"),
            Finding::unreachable(
                "service",
                "the service at http://127.0.0.1:7717 cannot be reached",
                "start it with `greenroom up`",
            ),
            Finding::fail("configuration", "a\u{1b}[2J\nb", ""),
        ],
        Style::PLAIN,
    );
    insta::assert_snapshot!(text);
}

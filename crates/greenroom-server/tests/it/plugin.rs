//! `greenroom plugin` and its findings in the doctor; also the idle shutdown of a service that a plugin has started.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use greenroom_bridge::plugin::VERSION;
use serde_json::{Value, json};

use crate::command::{CommandOutput, greenroom, run_command};
use crate::config::TestEnv;
use crate::support::healthy_opencode;

async fn plugin(place: &TestEnv, args: &[&str], variables: &[(&str, &Path)]) -> CommandOutput {
    let mut command = greenroom(&[&["plugin"], args].concat());
    command
        .env("HOME", place.environment.home.as_ref().unwrap())
        .current_dir(&place.environment.folder)
        .envs(variables.iter().copied());
    run_command(command).await
}

fn json(ran: &CommandOutput) -> Value {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[actix_rt::test]
async fn project_install_and_uninstall() {
    let place = TestEnv::new();
    let project = place.root.path().join("a project");
    std::fs::create_dir(&project).unwrap();
    let named = project.to_str().unwrap();
    let file = project.join(".opencode/plugins/greenroom.js");

    let installed = plugin(&place, &["install", "--project", named], &[]).await;
    assert_eq!(installed.code, 0, "{}", installed.stderr);
    assert_eq!(installed.stdout, format!("{}\n", file.display()));
    assert!(
        installed.stderr.starts_with(&format!(
            "installed: version {VERSION}. Start opencode again in that project"
        )),
        "{}",
        installed.stderr
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let binary = env!("CARGO_BIN_EXE_greenroom");
    assert!(text.starts_with(&format!(
        "// Greenroom's plugin for opencode, version {VERSION}\n"
    )));
    assert!(text.contains(&format!("\nconst BINARY = \"{binary}\"")));
    assert_eq!(
        files(file.parent().unwrap()),
        ["greenroom.js"],
        "nothing is left beside it"
    );

    let removed = json(&plugin(&place, &["uninstall", "--project", named, "--json"], &[]).await);
    assert_eq!(
        (&removed["removed"], &removed["previous"]),
        (&true.into(), &VERSION.into())
    );
    assert!(!file.exists());
    let again = plugin(&place, &["uninstall", "--project", named], &[]).await;
    assert_eq!((again.code, again.stdout.as_str()), (0, ""));
    assert!(
        again.stderr.starts_with("nothing to remove"),
        "{}",
        again.stderr
    );
}

#[actix_rt::test]
async fn global_install() {
    let place = TestEnv::new();
    let home = place.environment.home.clone().unwrap();
    let root = place.root.path().to_owned();
    let (xdg, own) = (root.join("xdg"), root.join("own"));
    for (variables, folder) in [
        (vec![], home.join(".config/opencode")),
        (
            vec![("XDG_CONFIG_HOME", xdg.as_path())],
            xdg.join("opencode"),
        ),
        (
            vec![
                ("XDG_CONFIG_HOME", xdg.as_path()),
                ("OPENCODE_CONFIG_DIR", own.as_path()),
            ],
            own.clone(),
        ),
    ] {
        let installed = json(&plugin(&place, &["install", "--global", "--json"], &variables).await);
        let file = folder.join("plugins/greenroom.js");
        assert_eq!(installed["path"], file.to_str().unwrap());
        assert_eq!(
            (&installed["version"], &installed["previous"]),
            (&VERSION.into(), &Value::Null)
        );
        assert!(file.is_file());
    }
}

#[actix_rt::test]
async fn old_plugin_is_updated_and_foreign_file_is_kept() {
    let place = TestEnv::new();
    let folder = place.environment.folder.join(".opencode/plugins");
    let file = folder.join("greenroom.js");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        &file,
        "// Greenroom's plugin for opencode, version 0.0.1\nold\n",
    )
    .unwrap();
    let updated = plugin(&place, &["install", "--project", "."], &[]).await;
    assert!(
        updated.stderr.starts_with("updated from version 0.0.1"),
        "{}",
        updated.stderr
    );
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("export const Greenroom")
    );

    for what in ["install", "uninstall"] {
        std::fs::write(&file, "export const Mine = 1\n").unwrap();
        let refused = plugin(&place, &[what, "--project", "."], &[]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{what}");
        assert!(
            refused.stderr.contains("is no plugin of Greenroom's")
                && refused.stderr.contains("hint: move it away"),
            "{}",
            refused.stderr
        );
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "export const Mine = 1\n"
        );
    }
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", &file).unwrap();
    let refused = plugin(&place, &["install", "--project", "."], &[]).await;
    assert_eq!(refused.code, 1, "a link to nowhere is kept too");
    assert!(file.is_symlink());
}

#[actix_rt::test]
async fn invalid_targets_are_rejected() {
    let place = TestEnv::new();
    let missing = plugin(&place, &["install", "--project", "nowhere"], &[]).await;
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("--project: ") && missing.stderr.contains("nowhere is no folder")
    );
    let both = plugin(&place, &["install", "--project", ".", "--global"], &[]).await;
    assert_eq!(both.code, 2, "{}", both.stderr);
    let homeless = plugin(&place, &["install"], &[("HOME", Path::new(""))]).await;
    assert_eq!(homeless.code, 2);
    assert!(
        homeless.stderr.contains("no home folder"),
        "{}",
        homeless.stderr
    );
    let file = place.environment.folder.join(".opencode");
    std::fs::write(&file, "").unwrap();
    let blocked = plugin(&place, &["install", "--project", "."], &[]).await;
    assert_eq!(blocked.code, 1);
    assert!(
        blocked.stderr.contains("cannot write"),
        "{}",
        blocked.stderr
    );
}

/// Returns the doctor's findings about the plugin, as verdict and text.
async fn doctor(place: &TestEnv) -> Vec<(String, String)> {
    let mut command = greenroom(&["doctor", "--json", "--url", "http://127.0.0.1:1"]);
    command
        .env("HOME", place.environment.home.as_ref().unwrap())
        .current_dir(&place.environment.folder);
    let report: Value = serde_json::from_str(&run_command(command).await.stdout).unwrap();
    let lines = report["checks"].as_array().unwrap();
    lines
        .iter()
        .filter(|line| line["of"] == "plugin")
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default();
            (
                text("verdict").to_owned(),
                format!("{} → {}", text("says"), text("next")),
            )
        })
        .collect()
}

#[actix_rt::test]
async fn doctor_reports_the_plugin() {
    let place = TestEnv::new();
    let none = doctor(&place).await;
    assert_eq!(none.len(), 1);
    assert!(
        none[0].0 == "ok" && none[0].1.contains("not installed"),
        "{none:?}"
    );

    json(&plugin(&place, &["install", "--global", "--json"], &[]).await);
    let file = PathBuf::from(
        json(&plugin(&place, &["install", "--project", ".", "--json"], &[]).await)["path"]
            .as_str()
            .unwrap(),
    );
    let two = doctor(&place).await;
    assert_eq!(two.len(), 2, "{two:?}");
    assert!(
        two.iter()
            .all(|(verdict, finding)| verdict == "ok" && finding.contains(VERSION)),
        "{two:?}"
    );

    let text = std::fs::read_to_string(&file).unwrap();
    let binary = env!("CARGO_BIN_EXE_greenroom");
    for (changed, expected) in [
        (text.replacen(VERSION, "0.0.1", 1), "version 0.0.1 at"),
        (text.replace("MIB", "MEBIBYTE"), "is not as version"),
        (
            text.replace(binary, "/nowhere/greenroom"),
            "would start /nowhere/greenroom, which is gone",
        ),
    ] {
        std::fs::write(&file, changed).unwrap();
        let (verdict, line) = doctor(&place).await.remove(0);
        assert_eq!(verdict, "warn");
        assert!(
            line.contains(expected) && line.contains("greenroom plugin install --project ."),
            "{line}"
        );
    }
    std::fs::write(&file, "mine").unwrap();
    let (verdict, line) = doctor(&place).await.remove(0);
    assert!(
        verdict == "warn" && line.contains("is no plugin of Greenroom's"),
        "{line}"
    );
}

/// Starts `greenroom serve` with an idle limit and returns its address.
async fn serving(idle_limit: &str, opencode: &str) -> (Child, String) {
    let args = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--journal",
        "",
        "--set",
        "auth=none",
        "--opencode",
        opencode,
    ];
    let mut command = greenroom(&[&args[..], &["--exit-when-unused", idle_limit]].concat());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (child, address) = actix_web::web::block(move || {
        let address = lines.find_map(|line| {
            line.unwrap()
                .strip_prefix("listening on http://")
                .map(str::to_owned)
        });
        // Drains the pipe, so that it stays open.
        std::thread::spawn(move || lines.for_each(drop));
        (child, address.unwrap())
    })
    .await
    .unwrap();
    (child, address)
}

/// Connects a websocket like the plugin.
fn bridge(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET /v1/bridge HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let hello = br#"{"type":"hello","protocol":1,"directory":"/p","pid":7}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(hello.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(hello);
    socket.write_all(&frame).unwrap();
    let mut received = Vec::new();
    while !received.windows(7).any(|window| window == b"welcome") {
        let mut some = [0; 512];
        let count = socket.read(&mut some).unwrap();
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&some[..count]);
    }
    socket
}

#[actix_rt::test]
async fn idle_service_stops() {
    let begin = Instant::now();
    let (mut child, _) = serving("300ms", &healthy_opencode().await).await;
    let ended = actix_web::web::block(move || child.wait().unwrap())
        .await
        .unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[actix_rt::test]
async fn connected_bridge_prevents_idle_shutdown() {
    let (mut child, address) = serving("500ms", &healthy_opencode().await).await;
    let ended = actix_web::web::block(move || {
        let socket = bridge(&address);
        // The absence of a shutdown needs real time.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(child.try_wait().unwrap(), None, "it is used");
        drop(socket);
        let gone = Instant::now();
        let ended = child.wait().unwrap();
        assert!(
            gone.elapsed() >= Duration::from_millis(450),
            "{:?}",
            gone.elapsed()
        );
        ended
    })
    .await
    .unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[actix_rt::test]
async fn starting_task_prevents_idle_shutdown() {
    let (mut child, address) = serving("500ms", "").await;
    let to = address.clone();
    let socket = actix_web::web::block(move || bridge(&to)).await.unwrap();
    let client = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("http://{address}{path}")).json(&body);
        request.send().await.unwrap().text().await.unwrap()
    };
    let launch = json!({"description": "d", "prompt": "p", "agent": "explore"});
    let call = json!({"arguments": launch, "sessionID": "ses_1"});
    let launched = post("/v1/tools/background_task", call).await;
    assert!(launched.contains("launched"), "{launched}");
    // The task has a slot and waits for the bridge's answer about its parent session.
    drop(socket);
    // The absence of a shutdown needs real time.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(child.try_wait().unwrap(), None, "a task is open");
    post("/v1/tasks/cancel", json!({"all": true})).await;
    let ended = actix_web::web::block(move || child.wait().unwrap());
    assert_eq!(ended.await.unwrap().code(), Some(0));
}

//! `greenroom journal`: texts, and commands that are rejected while a service uses the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use greenroom::domain::task::Task;
use greenroom::ports::journal::{Changed, Journal, JournalEntry};
use greenroom_server::cli::journal::text;
use greenroom_sqlite::SqliteJournal;
use greenroom_sqlite::maintenance::Stats;
use serde_json::{Value, json};

use crate::command::{CommandOutput, greenroom, run_command};
use crate::support::Host;

const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);

/// Creates a journal with a task that has left memory and one that waits for its batch.
fn filled(folder: &Path) -> PathBuf {
    let path = folder.join("journal.db");
    let journal = SqliteJournal::open(&path, RETENTION).unwrap();
    let now = greenroom::clock::Clock::system().now();
    for (number, id) in [(1, "bg_0000000a"), (2, "bg_0000000b")] {
        let task = json!({
            "id": id, "spawnDepth": 1, "description": "look", "prompt": "find it", "agent": "explore",
            "status": "pending", "queuedAt": now, "concurrencyGroup": "explore", "run": 1,
            "progress": { "toolCalls": 0, "lastUpdate": now },
        });
        let task: Task = serde_json::from_value(task).unwrap();
        let changed = Some(Changed { number, from: None });
        let entry = JournalEntry::Task {
            accepted: number,
            queue_seq: number,
            task: Arc::new(task),
            changed,
        };
        journal.append(now, vec![entry]);
    }
    journal.append(
        now,
        vec![JournalEntry::Forgotten("bg_0000000a".into(), now)],
    );
    path
}

async fn journal(path: &Path, args: &[&str]) -> CommandOutput {
    let args = [&["journal"], args, &["--journal", path.to_str().unwrap()]].concat();
    run_command(greenroom(&args)).await
}

#[test]
fn stats_text() {
    let full = Stats {
        path: "/home/me/.local/share/greenroom/journal.db".into(),
        version: 2,
        bytes: 5_500_000,
        free_bytes: 40_960,
        open: 3,
        ended: 812,
        left: 800,
        oldest_left: Some(serde_json::from_str("\"2026-01-01T00:00:05.000Z\"").unwrap()),
        waiting_parents: 2,
        changes: 2420,
        keys: 1,
        used_by: Some(4711),
        in_use: true,
        missing: None,
    };
    let empty = Stats {
        bytes: 900,
        free_bytes: 0,
        open: 0,
        ended: 0,
        left: 0,
        oldest_left: None,
        waiting_parents: 0,
        changes: 0,
        keys: 0,
        used_by: None,
        in_use: false,
        ..full.clone()
    };
    insta::assert_snapshot!(format!("{}\n{}", text(&full), text(&empty)));
}

#[actix_rt::test]
async fn stats_export_and_vacuum() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path());
    let stats = journal(&path, &["stats", "--json"]).await;
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    assert_eq!(
        (&stats["open"], &stats["left"]),
        (&2.into(), &1.into()),
        "{stats}"
    );
    assert_eq!(stats["inUse"], false);

    let lines = journal(&path, &["export"]).await;
    assert_eq!((lines.code, lines.stderr.as_str()), (0, ""));
    let lines: Vec<Value> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["task"]["id"], "bg_0000000a");
    assert_eq!(lines[0]["task"]["prompt"], "find it");
    assert_eq!(lines[0]["story"][0]["what"], "accepted");
    assert!(lines[0]["leftAt"].is_string() && lines[1]["leftAt"].is_null());

    let to = folder.path().join("out.jsonl");
    let file = journal(&path, &["export", to.to_str().unwrap()]).await;
    assert_eq!((file.code, file.stdout.as_str()), (0, ""));
    assert_eq!(
        fs::metadata(&to).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = journal(&path, &["export", to.to_str().unwrap()]).await;
    assert_eq!(again.code, 1, "nothing is written over");

    let small = journal(&path, &["vacuum"]).await;
    assert_eq!(small.code, 0, "{}", small.stderr);
    assert!(small.stdout.contains(" now"));
}

#[actix_rt::test]
async fn purge_needs_confirmation() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path());
    let refused = journal(&path, &["purge", "--all-ended"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    let none = journal(&path, &["purge", "--older-than", "7d", "--yes"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, "0 tasks removed\n"));
    let gone = journal(&path, &["purge", "--all-ended", "--yes"]).await;
    assert_eq!((gone.code, gone.stdout.as_str()), (0, "1 tasks removed\n"));
    let journal = SqliteJournal::open(&path, RETENTION).unwrap();
    assert!(journal.find("bg_0000000a").is_none());
    assert!(journal.find("bg_0000000b").is_some(), "it has not ended");
}

#[actix_rt::test]
async fn tasks_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let kept = [("journal", path.to_str().unwrap())];
    let host = Host::start(&kept).await;
    let body = json!({"description": "d", "prompt": "wait", "agent": "explore"});
    let (status, task) = host.post("/v1/tasks", body).await;
    assert_eq!(status, 201, "{task}");
    let metrics = host.text("/metrics").await;
    for line in [
        "greenroom_journal_failing 0",
        "greenroom_journal_lag ",
        "greenroom_journal_bytes ",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    host.stop().await;

    let host = Host::start(&kept).await;
    let id = task["id"].as_str().unwrap();
    let (status, again) = host.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["prompt"], "wait", "{again}");
    host.stop().await;
}

#[actix_rt::test]
async fn journal_in_use_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path());
    let held = SqliteJournal::open(&path, RETENTION).unwrap();
    let pid = std::process::id().to_string();
    for args in [&["vacuum"][..], &["purge", "--all-ended", "--yes"]] {
        let refused = journal(&path, args).await;
        assert_eq!(refused.code, 1, "{args:?}");
        assert!(
            refused
                .stderr
                .contains(&format!("in use by the process {pid}"))
                && refused.stderr.contains("hint: stop the service"),
            "{}",
            refused.stderr
        );
    }
    let path_text = path.to_str().unwrap();
    let second = ["serve", "--listen", "127.0.0.1:0", "--journal", path_text];
    let second = run_command(greenroom(&second)).await;
    assert_eq!(second.code, 1);
    assert!(
        second
            .stderr
            .contains(&format!("in use by the process {pid}")),
        "{}",
        second.stderr
    );
    let stats = journal(&path, &["stats"]).await;
    assert!(
        stats.stdout.contains(&format!("by the process {pid}")),
        "{}",
        stats.stderr
    );
    assert_eq!(journal(&path, &["export"]).await.code, 0);
    drop(held);

    let nothing = folder.path().join("nothing.db");
    for args in [&["stats"][..], &["export"], &["vacuum"]] {
        let missing = journal(&nothing, args).await;
        assert_eq!(missing.code, 1);
        assert!(
            missing.stderr.contains("there is no journal"),
            "{}",
            missing.stderr
        );
    }
    assert!(!nothing.exists(), "looking makes nothing");
}

//! `greenroom run` on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use unicode_width::UnicodeWidthStr;

use crate::command::greenroom;
use crate::support::Host;

const TIMEOUT: Duration = Duration::from_secs(20);
const COLUMNS: u16 = 40;

/// The command on a terminal of 40 columns.
struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(host: &Host, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = Winsize {
            ws_row: 10,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let inside = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = greenroom(args);
        command
            .env("GREENROOM_URL", host.url(""))
            .envs(variables.iter().copied())
            .stdin(inside())
            .stdout(inside())
            .stderr(inside());
        let child = command.spawn().unwrap();
        // It holds this side of the terminal open.
        drop(command);
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().unwrap();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Fails when the last program on the terminal has ended.
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                kept.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self { child, keys, seen }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    async fn shows(&self, text: &str) {
        let begin = Instant::now();
        while !self.seen().contains(text) {
            assert!(begin.elapsed() < TIMEOUT, "no {text:?}: {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends SIGINT, as the terminal does for Ctrl-C. The pseudo-terminal is not the controlling one, so the key itself
    /// has no effect.
    fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    async fn ends(mut self) -> (i32, String) {
        let begin = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            assert!(begin.elapsed() < TIMEOUT, "{:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        (code, self.seen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns all drawn rows in full width. Erasing the progress line is the only control sequence.
fn rows(seen: &str) -> Vec<String> {
    let text = seen.replace("\r\u{1b}[J", "\n").replace("\r\n", "\n");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    text.lines().map(str::to_owned).collect()
}

#[actix_rt::test]
async fn progress_line_fits_the_terminal() {
    let host = Host::start(&[]).await;
    let long = "日本語 words that are much longer than the terminal is wide";
    let terminal = Terminal::start(
        &host,
        &["run", "x", "--description", long],
        &[("NO_COLOR", "1")],
    );
    let id = host.newest().await;
    let session = host.running(&id).await;
    terminal.shows("running · 1s").await;
    host.finish(&session).await;
    terminal.shows("answer to: x").await;
    let seen = terminal.seen();
    for row in rows(&seen) {
        assert!(row.width() <= usize::from(COLUMNS), "{row:?}");
    }
    let rows = rows(&seen);
    assert!(
        rows[0].starts_with(&format!("{id} 日本語")) && rows[0].ends_with('…'),
        "{rows:?}"
    );
    assert_eq!(rows.last().unwrap(), "answer to: x");
    // The progress line is erased before other output.
    let end = seen.find(" completed after").unwrap();
    assert!(seen[..end].contains(&format!("\r\u{1b}[J{id}")));
    host.stop().await;
}

#[actix_rt::test]
async fn interrupt_asks_and_yes_cancels() {
    let host = Host::start(&[]).await;
    let mut terminal = Terminal::start(&host, &["run", "x"], &[]);
    let id = host.newest().await;
    host.running(&id).await;
    terminal.shows("running").await;
    terminal.interrupt();
    terminal.shows("cancel the task? [y/N]").await;
    terminal.types("y\n");
    let (code, _) = ends_with(terminal, "cancelled at the terminal").await;
    assert_eq!(code, 1);
    assert_eq!(host.ended(&id).await["status"], "cancelled");
    host.stop().await;
}

#[actix_rt::test]
async fn second_interrupt_detaches() {
    let host = Host::start(&[]).await;
    let terminal = Terminal::start(&host, &["run", "x"], &[]);
    let id = host.newest().await;
    let session = host.running(&id).await;
    terminal.shows("running").await;
    terminal.interrupt();
    terminal.shows("cancel the task? [y/N]").await;
    terminal.interrupt();
    let (code, _) = ends_with(terminal, "goes on").await;
    assert_eq!(code, 1);
    host.finish(&session).await;
    assert_eq!(host.ended(&id).await["status"], "completed");
    host.stop().await;
}

#[actix_rt::test]
async fn result_starts_on_a_new_row_after_the_question() {
    let host = Host::start(&[]).await;
    let terminal = Terminal::start(&host, &["run", "x"], &[("NO_COLOR", "1")]);
    let id = host.newest().await;
    let session = host.running(&id).await;
    terminal.shows("running").await;
    terminal.interrupt();
    terminal.shows("(Ctrl-C leaves) ").await;
    host.finish(&session).await;
    let (code, seen) = ends_with(terminal, "answer to: x").await;
    assert_eq!(code, 0);
    let rows = rows(&seen);
    assert!(
        rows.contains(&"cancel the task? [y/N] (Ctrl-C leaves) ".to_owned()),
        "{rows:?}"
    );
    host.stop().await;
}

#[actix_rt::test]
async fn declined_cancel_continues_watching() {
    let host = Host::start(&[]).await;
    let mut terminal = Terminal::start(&host, &["run", "x"], &[]);
    let id = host.newest().await;
    let session = host.running(&id).await;
    terminal.shows("running").await;
    terminal.interrupt();
    terminal.shows("cancel the task? [y/N]").await;
    terminal.types("n\n");
    terminal.shows("running · 1s").await;
    host.finish(&session).await;
    let (code, seen) = ends_with(terminal, "answer to: x").await;
    assert_eq!(code, 0);
    assert!(seen.trim_end().ends_with("answer to: x"), "{seen:?}");
    host.stop().await;
}

/// Waits for a text and the end of the command.
async fn ends_with(terminal: Terminal, text: &str) -> (i32, String) {
    terminal.shows(text).await;
    terminal.ends().await
}

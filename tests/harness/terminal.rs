//! A program on a terminal, as a user runs it: the screen is read, keys are typed, the terminal is closed. The terminal is
//! the controlling one of the program, so that closing it hangs the program up.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use pty_process::Pty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::until_or_print;

/// The size of every terminal.
const ROWS: NonZero<u16> = NonZero::new(40).expect("not zero");
const COLUMNS: NonZero<u16> = NonZero::new(120).expect("not zero");
/// The text of opencode's empty input.
const PLACEHOLDER: &str = "Ask anything";

/// A program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    name: &'static str,
    child: Child,
    pid: Pid,
    keys: Option<mpsc::UnboundedSender<Vec<u8>>>,
    screen: Screen,
    io: JoinHandle<()>,
}

/// The screen of the terminal.
#[derive(Clone)]
struct Screen(Arc<Mutex<vt100::Parser>>);

impl Terminal {
    /// Starts a command on a new terminal. Its output goes to `log` too.
    pub fn start(name: &'static str, command: Command, log: &Path) -> Self {
        let (pty, pts) = pty_process::open().expect("a terminal can be opened");
        pty.resize(pty_process::Size::new(ROWS.get(), COLUMNS.get()))
            .expect("a terminal can be resized");
        let command = pty_process::Command::from(tokio::process::Command::from(command));
        let child = command
            .kill_on_drop(true)
            .spawn(pts)
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let id = child.id().expect("it was not waited for");
        let pid = Pid::from_raw(i32::try_from(id).expect("a pid is an i32"));
        let screen = Screen(Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0))));
        let copy = File::create(log).expect("the log can be written");
        let (keys, typed) = mpsc::unbounded_channel();
        let io = tokio::spawn(transfer(pty, typed, screen.clone(), copy));
        Self {
            name,
            child,
            pid,
            keys: Some(keys),
            screen,
            io,
        }
    }

    /// Returns the text on the screen.
    pub fn screen(&self) -> String {
        self.screen.text()
    }

    /// Waits until the screen shows this text.
    pub async fn shows(&self, text: &str) {
        let what = format!("{text:?} on the screen");
        let ask = async || self.screen().contains(text).then_some(());
        until_or_print(&what, ask, async || self.screen()).await;
    }

    /// Waits until the screen does not show this text.
    pub async fn shows_no(&self, text: &str) {
        let what = format!("no {text:?} on the screen");
        let ask = async || (!self.screen().contains(text)).then_some(());
        until_or_print(&what, ask, async || self.screen()).await;
    }

    /// Types these keys.
    pub fn types(&self, keys: &str) {
        let open = self.keys.as_ref().expect("the terminal is open");
        // A program that has ended reads no keys.
        let _ = open.send(keys.as_bytes().to_vec());
    }

    /// Pastes a prompt into opencode, which has just started, and submits it. The prompt begins with further letters: opencode
    /// drops keys until its input is ready, which only an answer to a key shows.
    pub async fn submits(&self, prompt: &str) {
        let what = "opencode takes keys";
        let mut looks = 0;
        until_or_print(
            what,
            async || {
                let screen = self.screen();
                if screen.contains(PLACEHOLDER) && looks % 10 == 0 {
                    self.types("x");
                }
                looks += 1;
                (screen.contains("┃") && !screen.contains(PLACEHOLDER)).then_some(())
            },
            async || self.screen(),
        )
        .await;
        self.types(&format!("\x1b[200~{prompt}\x1b[201~"));
        // A long text is shown as its length.
        let begin: String = prompt.chars().take(20).collect();
        let what = "the prompt is in the input";
        until_or_print(
            what,
            async || {
                let screen = self.screen();
                (screen.contains("[Pasted") || screen.contains(&begin)).then_some(())
            },
            async || self.screen(),
        )
        .await;
        self.types("\r");
    }

    /// Closes the terminal, as a terminal emulator does when its window is closed. Returns when it is closed.
    pub async fn close(&mut self) {
        self.keys = None;
        let _ = (&mut self.io).await;
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the process is there");
    }

    /// Waits for the end of the program.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| {
            let screen = self.screen();
            panic!("{} did not end in {limit:?}\n{screen}", self.name)
        });
        ended.expect("a child can be waited for")
    }

    /// Kills the program and all processes of its group, and waits for its end.
    pub async fn kill(&mut self) {
        // The program may have ended; its group may live on.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = self.child.wait().await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.io.abort();
        let _ = killpg(self.pid, Signal::SIGKILL);
        if std::thread::panicking() {
            eprintln!("---- the screen shows:\n{}\n----", self.screen());
        }
    }
}

impl Screen {
    fn text(&self) -> String {
        let parser = self.0.lock().expect("no holder panics");
        parser.screen().contents()
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Screen").field(&self.text()).finish()
    }
}

/// Carries output to the screen and keys to the program, until the program has ended or the sender of keys is dropped.
/// Owns the terminal: its end closes it.
async fn transfer(
    mut pty: Pty,
    mut typed: mpsc::UnboundedReceiver<Vec<u8>>,
    screen: Screen,
    mut copy: File,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = pty.read(&mut buffer) => match read {
                Ok(length) if length > 0 => {
                    let bytes = &buffer[..length];
                    screen.0.lock().expect("no holder panics").process(bytes);
                    // A failed copy does not fail the test.
                    let _ = copy.write_all(bytes);
                }
                // The program has ended.
                _ => return,
            },
            keys = typed.recv() => {
                let Some(keys) = keys else { return };
                let sent = pty.write_all(&keys).await;
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

//! SIGINT and SIGTERM of a service: the first one shuts it down, the second one exits immediately.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code after a second signal, by shell convention.
const INTERRUPTED: i32 = 130;

/// The two signals that stop a service.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs the handlers.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Exits the process at the next signal. A supervised child notices the exit and ends.
    pub fn arm_exit(mut self) {
        actix_rt::spawn(async move {
            self.next().await;
            std::process::exit(INTERRUPTED);
        });
    }
}

//! SIGINT and SIGTERM of a service: the first one ends it gracefully, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code after a second signal, as shells know it of an interrupted command.
const INTERRUPTED: i32 = 130;

/// The two signals that end a service.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals from now on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// From now on the next one ends the process at once. A supervised child ends with us by itself.
    pub fn arm_exit(mut self) {
        actix_rt::spawn(async move {
            self.next().await;
            std::process::exit(INTERRUPTED);
        });
    }
}

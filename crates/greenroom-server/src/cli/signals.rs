//! Signals of a service. They are received on a thread of their own, so that they work while the actor system is blocked.
//! The first SIGINT or SIGTERM shuts the service down, within [`SHUTDOWN_LIMIT`]; the second one exits immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal as SignalNumber;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::logging;

/// The exit code after a second signal, by shell convention.
const INTERRUPTED: i32 = 130;
/// The exit code of a shutdown that does not end in time.
const SHUTDOWN_TIMED_OUT: i32 = 1;
/// Time limit of a shutdown. A shutdown that waits for all its own limits needs less.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(45);

/// What a service does on SIGHUP, which is sent when its terminal is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHangup {
    /// Shuts down, as on SIGTERM.
    Stop,
    /// Continues.
    Continue,
}

/// The signals that stop a service.
#[derive(Debug)]
pub struct Signals {
    stops: mpsc::UnboundedReceiver<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// True once the shutdown has begun: the next signal exits the process.
    is_armed: AtomicBool,
    armed: Notify,
}

impl Shared {
    /// Starts the time limit of the shutdown. Returns true if it was started before.
    fn arm(&self) -> bool {
        let was_armed = self.is_armed.swap(true, Ordering::SeqCst);
        self.armed.notify_one();
        was_armed
    }
}

impl Signals {
    /// Installs the handlers and starts the thread.
    pub fn new(on_hangup: OnHangup) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handlers = {
            let _entered = runtime.enter();
            Handlers {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                on_hangup,
            }
        };
        let (sender, stops) = mpsc::unbounded_channel();
        let shared = Arc::<Shared>::default();
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::join!(
                        handlers.forward(&sender, &thread_shared),
                        limit_shutdown(&thread_shared)
                    )
                })
            })?;
        Ok(Self { stops, shared })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        if self.stops.recv().await.is_none() {
            // The thread has ended: no further signal is received.
            std::future::pending().await
        }
    }

    /// Exits the process at the next signal, or when the shutdown takes too long. A supervised child notices the exit
    /// and ends.
    pub fn arm_exit(self) {
        self.shared.arm();
    }
}

struct Handlers {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    on_hangup: OnHangup,
}

impl Handlers {
    /// Forwards the first signal and exits the process at the second one.
    async fn forward(mut self, stops: &mpsc::UnboundedSender<()>, shared: &Shared) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.hangup.recv() => if self.on_hangup == OnHangup::Continue {
                    tracing::info!("SIGHUP received; the service continues");
                    continue;
                }
            }
            if shared.arm() {
                logging::flush();
                std::process::exit(INTERRUPTED);
            }
            // The receiver is dropped once the shutdown has begun.
            let _ = stops.send(());
        }
    }
}

/// Exits the process if the shutdown does not end within [`SHUTDOWN_LIMIT`].
async fn limit_shutdown(shared: &Shared) {
    shared.armed.notified().await;
    tokio::time::sleep(SHUTDOWN_LIMIT).await;
    tracing::error!("the shutdown timed out");
    logging::flush();
    std::process::exit(SHUTDOWN_TIMED_OUT);
}

/// Makes a write beyond the file size limit of the process (RLIMIT_FSIZE) an error instead of the end of the process. A
/// handler, not an ignored signal: a child process must not inherit it. Must be called inside a tokio runtime.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    let kind = SignalKind::from_raw(SignalNumber::SIGXFSZ as i32);
    // The handler stays installed after the stream of signals is dropped.
    signal(kind).map(drop)
}

//! A wire between the service and the agent server that a story can cut: all of it, or only what carries events; or that
//! lets answers wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::frames::Frames;

/// What goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    NoEvents,
    NoAnswers,
    Cut,
}

/// A proxy to one port of loopback.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: Arc<watch::Sender<Wire>>,
    slowness: Arc<watch::Sender<Duration>>,
    frames: Arc<AtomicUsize>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let slowness = Arc::new(watch::Sender::new(Duration::ZERO));
        let frames = Arc::new(AtomicUsize::new(0));
        let (of_all, slow) = (Arc::clone(&wire), slowness.subscribe());
        let counted = Arc::clone(&frames);
        let listener = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(
                    near,
                    to,
                    of_all.subscribe(),
                    slow.clone(),
                    Arc::clone(&counted),
                ));
            }
        });
        Self {
            port,
            wire,
            slowness,
            frames,
            listener,
        }
    }

    /// Where the service is sent to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many frames bridges have sent so far.
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Cuts every connection and every new one.
    pub fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }

    /// Cuts every connection that carries events, and every new one.
    pub fn cut_events(&self) {
        self.wire.send_replace(Wire::NoEvents);
    }

    /// Lets nothing that is said by the far side through, and keeps it; what is said to it arrives.
    pub fn keep_answers(&self) {
        self.wire.send_replace(Wire::NoAnswers);
    }

    /// From now on what the agent server answers comes that much later, except events: it has done its work while whoever
    /// asked does not know.
    pub fn hold_answers(&self, slowness: Duration) {
        self.slowness.send_replace(slowness);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.wire.send_replace(Wire::Whole);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// One connection, until either side or the wire ends it.
async fn carry(
    mut near: TcpStream,
    to: u16,
    mut wire: watch::Receiver<Wire>,
    slowness: watch::Receiver<Duration>,
    counted: Arc<AtomicUsize>,
) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (mut out, mut back) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut has_events = false;
    let mut frames: Option<Frames> = None;
    loop {
        match *wire.borrow_and_update() {
            Wire::Cut => return,
            Wire::NoEvents if has_events => return,
            Wire::NoEvents | Wire::NoAnswers | Wire::Whole => {}
        }
        let answers = *wire.borrow() != Wire::NoAnswers;
        let carried = tokio::select! {
            changed = wire.changed() => changed.map_err(|_| ()),
            read = near.read(&mut out) => match read {
                Ok(length) if length > 0 => {
                    // A request begins a segment: clients write its head in one piece.
                    let head = &out[..length];
                    has_events |= head.starts_with(b"GET /global/event") || head.starts_with(b"GET /event");
                    if has_events && *wire.borrow() == Wire::NoEvents {
                        return;
                    }
                    if frames.is_none() && head.starts_with(b"GET /v1/bridge") {
                        frames = Some(Frames::default());
                    }
                    if let Some(frames) = &mut frames {
                        counted.fetch_add(frames.follow(head), Ordering::Relaxed);
                    }
                    far.write_all(head).await.map_err(|_| ())
                }
                _ => return,
            },
            read = far.read(&mut back), if answers => match read {
                Ok(length) if length > 0 => {
                    let slowness = *slowness.borrow();
                    if !has_events && !slowness.is_zero() {
                        tokio::time::sleep(slowness).await;
                    }
                    near.write_all(&back[..length]).await.map_err(|_| ())
                }
                _ => return,
            },
        };
        if carried.is_err() {
            return;
        }
    }
}

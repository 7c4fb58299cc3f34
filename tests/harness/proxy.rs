//! A proxy between the service and the agent server. A story can cut all connections or only the event streams, or delay
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::frames::Frames;

/// The traffic that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    All,
    NoEvents,
    NoAnswers,
    Cut,
}

/// A proxy to one port of loopback.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    traffic: Arc<watch::Sender<Traffic>>,
    delay: Arc<watch::Sender<Duration>>,
    frames: Arc<AtomicUsize>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let traffic = Arc::new(watch::Sender::new(Traffic::All));
        let delay = Arc::new(watch::Sender::new(Duration::ZERO));
        let frames = Arc::new(AtomicUsize::new(0));
        let (of_all, slow) = (Arc::clone(&traffic), delay.subscribe());
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
            traffic,
            delay,
            frames,
            listener,
        }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the number of frames that bridges have sent so far.
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Cuts every connection, also new ones.
    pub fn cut(&self) {
        self.traffic.send_replace(Traffic::Cut);
    }

    /// Cuts every connection with events, also new ones.
    pub fn cut_events(&self) {
        self.traffic.send_replace(Traffic::NoEvents);
    }

    /// Holds back all bytes of the far side; requests still pass.
    pub fn keep_answers(&self) {
        self.traffic.send_replace(Traffic::NoAnswers);
    }

    /// Delays all answers except events, so that a request has its effect before its sender knows.
    pub fn hold_answers(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Lets all traffic pass again.
    pub fn restore(&self) {
        self.traffic.send_replace(Traffic::All);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// Forwards one connection until either side or the proxy ends it.
async fn carry(
    mut near: TcpStream,
    to: u16,
    mut traffic: watch::Receiver<Traffic>,
    delay: watch::Receiver<Duration>,
    counted: Arc<AtomicUsize>,
) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (mut out, mut back) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut has_events = false;
    let mut frames: Option<Frames> = None;
    loop {
        match *traffic.borrow_and_update() {
            Traffic::Cut => return,
            Traffic::NoEvents if has_events => return,
            Traffic::NoEvents | Traffic::NoAnswers | Traffic::All => {}
        }
        let answers = *traffic.borrow() != Traffic::NoAnswers;
        let carried = tokio::select! {
            changed = traffic.changed() => changed.map_err(|_| ()),
            read = near.read(&mut out) => match read {
                Ok(length) if length > 0 => {
                    // A request begins a segment: clients write its head in one piece.
                    let head = &out[..length];
                    has_events |= head.starts_with(b"GET /global/event") || head.starts_with(b"GET /event");
                    if has_events && *traffic.borrow() == Traffic::NoEvents {
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
                    let delay = *delay.borrow();
                    if !has_events && !delay.is_zero() {
                        tokio::time::sleep(delay).await;
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

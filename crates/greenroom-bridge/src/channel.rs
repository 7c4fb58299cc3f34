//! Sends calls of the agent server's API over one bridge. Each call is a request with an id; it ends with a response, a
//! time-out or the loss of the connection. A channel remains after the sockets of its bridge: after a reconnect it repeats
//! the repeatable requests. The host's router makes requests; the bridge's socket sends them and receives the responses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::lock;
use crate::options::BridgeLimits;
use crate::protocol::{FrameId, Response, ToBridge};
use crate::registry::BridgeKey;
use crate::send_queue::{MAX_BYTES, Outgoing, SendQueue};

/// The most requests of one bridge that may be without a response at a time.
pub const IN_FLIGHT: usize = 1000;
/// The most bytes of their frames: the size of a send queue, so that all of them fit into the queue of a new socket.
const BYTES_IN_FLIGHT: usize = MAX_BYTES;

/// One call of the agent server's API, made by the bridge.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `GET`, `POST`, …; only a `GET` is ever repeated.
    pub method: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// The query parameters.
    pub query: &'a BTreeMap<String, String>,
    /// The JSON body.
    pub body: Option<&'a Value>,
    /// The time limit of the response.
    pub limit: Duration,
}

/// Why a request has no response. The variants differ in the known effect of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The bridge is not connected; the request had no effect.
    #[error("the bridge of process {pid} in {directory} is not connected")]
    Disconnected {
        /// The id of its process.
        pid: u32,
        /// Its directory.
        directory: String,
    },
    /// Too many requests are in flight; the request had no effect.
    #[error("the bridge has too many requests to answer already")]
    Overloaded,
    /// The request is larger than a frame; it had no effect.
    #[error("the request is larger than a frame of the bridge")]
    TooLarge,
    /// The request was not sent in time; it had no effect.
    #[error("the bridge did not take the request within {0:?}")]
    NotSent(Duration),
    /// The request was sent, and its response did not arrive in time.
    #[error("no answer over the bridge within {0:?}")]
    TimedOut(Duration),
    /// The connection was lost after the request was sent; it may have had its effect.
    #[error("the bridge was cut off with the request on its way")]
    ConnectionLost,
}

#[derive(Debug)]
struct Pending {
    frame: Arc<str>,
    /// True if the request only reads.
    repeatable: bool,
    /// True once a socket has started to write it.
    sent: bool,
    reply: oneshot::Sender<Result<Response, ChannelError>>,
}

impl Pending {
    fn can_be_sent_again(&self) -> bool {
        self.repeatable || !self.sent
    }
}

#[derive(Debug)]
struct State {
    /// The queue of the current socket, with the socket's number.
    send_queue: Option<(u64, Arc<SendQueue>)>,
    disconnected_since: Instant,
    /// Requests without a response, by number; bounded by `IN_FLIGHT`.
    pending: BTreeMap<u64, Pending>,
    last: u64,
    has_responded: bool,
}

#[derive(Debug)]
struct Shared {
    key: BridgeKey,
    /// Makes the request ids differ from the ids of an earlier service.
    salt: u64,
    limits: BridgeLimits,
    state: Mutex<State>,
}

/// A channel to one bridge across its sockets. Clones share it.
#[derive(Debug, Clone)]
pub struct BridgeChannel(Arc<Shared>);

impl BridgeChannel {
    pub(crate) fn new(key: BridgeKey, salt: u64, limits: BridgeLimits) -> Self {
        let state = State {
            send_queue: None,
            disconnected_since: Instant::now(),
            pending: BTreeMap::new(),
            last: 0,
            has_responded: false,
        };
        Self(Arc::new(Shared {
            key,
            salt,
            limits,
            state: Mutex::new(state),
        }))
    }

    /// Returns the identity of the bridge.
    pub fn key(&self) -> &BridgeKey {
        &self.0.key
    }

    pub(crate) fn frame_limit(&self) -> usize {
        self.0.limits.frame
    }

    /// Returns true if the bridge is connected.
    pub fn is_connected(&self) -> bool {
        self.lock().send_queue.is_some()
    }

    /// Returns the time since the bridge disconnected; none if it is connected.
    pub fn disconnected_for(&self) -> Option<Duration> {
        let state = self.lock();
        match state.send_queue {
            Some(_) => None,
            None => Some(state.disconnected_since.elapsed()),
        }
    }

    /// Returns true if the bridge has ever sent a response: some bridges only send events.
    pub fn has_responded(&self) -> bool {
        self.lock().has_responded
    }

    /// Returns the number of requests without a response.
    pub fn in_flight(&self) -> usize {
        self.lock().pending.len()
    }

    /// Sends one request and waits for its response. Dropping the future cancels a request that was not sent yet, and
    /// ignores the response of one that was.
    ///
    /// # Errors
    /// Fails if there is no response; the variant describes the known effect of the request.
    pub async fn request(&self, request: Request<'_>) -> Result<Response, ChannelError> {
        let (number, answer) = self.enqueue(&request)?;
        let request_guard = RemoveOnDrop(self, number);
        let answered = timeout(request.limit, answer).await;
        let unanswered = request_guard.remove();
        match answered {
            Ok(Ok(answer)) => answer,
            // The channel was dropped.
            Ok(Err(_)) => Err(self.disconnected()),
            Err(_) => match unanswered {
                Some(pending) if !pending.sent => Err(ChannelError::NotSent(request.limit)),
                _ => Err(ChannelError::TimedOut(request.limit)),
            },
        }
    }

    /// Sends a frame to the bridge. Does nothing if it is not connected.
    pub fn send(&self, frame: &ToBridge<'_>) {
        self.send_text(frame.text());
    }

    pub(crate) fn send_text(&self, text: String) {
        if let Some((_, send_queue)) = &self.lock().send_queue {
            send_queue.push(Outgoing::Text(text));
        }
    }

    fn enqueue(
        &self,
        request: &Request<'_>,
    ) -> Result<(u64, oneshot::Receiver<Result<Response, ChannelError>>), ChannelError> {
        let mut state = self.lock();
        let Some((_, send_queue)) = &state.send_queue else {
            drop(state);
            return Err(self.disconnected());
        };
        if state.pending.len() >= IN_FLIGHT {
            return Err(ChannelError::Overloaded);
        }
        let send_queue = Arc::clone(send_queue);
        state.last += 1;
        let number = state.last;
        let id = self.id(number);
        let frame = ToBridge::Request {
            id: &id,
            method: request.method,
            path: request.path,
            query: request.query,
            body: request.body,
        };
        let frame: Arc<str> = frame.text().into();
        if frame.len() > self.0.limits.frame {
            return Err(ChannelError::TooLarge);
        }
        let waiting: usize = state
            .pending
            .values()
            .map(|pending| pending.frame.len())
            .sum();
        if waiting > 0 && waiting + frame.len() > BYTES_IN_FLIGHT {
            return Err(ChannelError::Overloaded);
        }
        send_queue
            .try_push(Outgoing::Request(number, frame.len()))
            .map_err(|_| ChannelError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        state.pending.insert(
            number,
            Pending {
                frame,
                repeatable: request.method == "GET",
                sent: false,
                reply,
            },
        );
        Ok((number, answer))
    }

    fn id(&self, number: u64) -> FrameId {
        FrameId::Text(format!("rq_{:x}_{number}", self.0.salt))
    }

    fn disconnected(&self) -> ChannelError {
        ChannelError::Disconnected {
            pid: self.0.key.pid,
            directory: self.0.key.directory.to_string(),
        }
    }

    /// Uses a new socket, and sends repeatable requests again.
    pub(crate) fn attach(&self, socket: u64, send_queue: &Arc<SendQueue>) {
        let mut state = self.lock();
        if state
            .send_queue
            .as_ref()
            .is_some_and(|(of, _)| *of > socket)
        {
            return;
        }
        self.drop_socket(&mut state);
        for (number, pending) in &mut state.pending {
            pending.sent = false;
            // If the queue overflows, the socket closes; the next socket sends these requests.
            send_queue.push(Outgoing::Request(*number, pending.frame.len()));
        }
        state.send_queue = Some((socket, Arc::clone(send_queue)));
    }

    /// Removes a socket that has ended. Requests that may have had their effect fail; the others wait for a reconnect.
    pub(crate) fn detach(&self, socket: u64) {
        let mut state = self.lock();
        if state
            .send_queue
            .as_ref()
            .is_none_or(|(of, _)| *of != socket)
        {
            return;
        }
        self.drop_socket(&mut state);
        if state.pending.is_empty() {
            return;
        }
        drop(state);
        let channel = self.clone();
        actix_web::rt::spawn(async move {
            tokio::time::sleep(channel.0.limits.reconnect_grace).await;
            channel.fail_pending();
        });
    }

    fn drop_socket(&self, state: &mut State) {
        if let Some((_, send_queue)) = state.send_queue.take() {
            send_queue.close();
            state.disconnected_since = Instant::now();
        }
        let lost = state
            .pending
            .extract_if(.., |_, pending| !pending.can_be_sent_again());
        for (_, pending) in lost {
            // The caller may be gone.
            let _ = pending.reply.send(Err(ChannelError::ConnectionLost));
        }
    }

    fn fail_pending(&self) {
        let mut state = self.lock();
        if state.send_queue.is_some()
            || state.disconnected_since.elapsed() < self.0.limits.reconnect_grace
        {
            return;
        }
        for (_, pending) in std::mem::take(&mut state.pending) {
            let _ = pending.reply.send(Err(self.disconnected()));
        }
    }

    /// Returns the frame of a request that is about to be written; none if the request was cancelled. From now on the
    /// request may have its effect.
    pub(crate) fn start_sending(&self, number: u64) -> Option<Arc<str>> {
        let mut state = self.lock();
        let pending = state.pending.get_mut(&number)?;
        pending.sent = true;
        Some(Arc::clone(&pending.frame))
    }

    /// Completes the request of a response. The response of a cancelled request is dropped.
    pub(crate) fn receive_response(&self, response: Response) {
        let mut state = self.lock();
        state.has_responded = true;
        let FrameId::Text(text) = &response.id else {
            return;
        };
        let number = text
            .rsplit('_')
            .next()
            .and_then(|number| number.parse().ok())
            .filter(|number| response.id == self.id(*number));
        if let Some(pending) = number.and_then(|number| state.pending.remove(&number)) {
            let _ = pending.reply.send(Ok(response));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

/// Removes a request when its caller has the response or is dropped.
struct RemoveOnDrop<'a>(&'a BridgeChannel, u64);

impl RemoveOnDrop<'_> {
    fn remove(self) -> Option<Pending> {
        self.0.lock().pending.remove(&self.1)
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().pending.remove(&self.1);
    }
}

#[cfg(test)]
mod tests;

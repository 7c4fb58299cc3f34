//! Calls of the agent server's API over one bridge: each is a request with an id, and has its answer, its time limit or
//! its loss. A line outlives the sockets of its bridge: what can be asked again without harm is, after a reconnect. The
//! host's router makes requests; the bridge's socket hands them out and brings answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::options::BridgeLimits;
use crate::outbox::{BYTES, Out, Outbox};
use crate::protocol::{FrameId, Response, ToBridge};
use crate::registry::BridgeKey;

/// Requests that may wait for their answers at a time, of one bridge.
pub const IN_FLIGHT: usize = 1000;
/// Bytes of their frames: as many as may wait to be written, so that a new socket takes what the old one had.
const BYTES_IN_FLIGHT: usize = BYTES;

/// One call to be made by the bridge.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `GET`, `POST`, …; what is no `GET` is an order, and never made twice.
    pub method: &'a str,
    /// Percent-encoded.
    pub path: &'a str,
    /// Texts by name.
    pub query: &'a BTreeMap<String, String>,
    /// JSON.
    pub body: Option<&'a Value>,
    /// How long its answer may take.
    pub limit: Duration,
}

/// Why a request has no answer; the variants differ in what is known of its effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The bridge is not there: it has had no effect.
    #[error("the bridge of process {pid} in {directory} is not connected")]
    Gone {
        /// Its process.
        pid: u32,
        /// Its directory.
        directory: String,
    },
    /// Too much is on its way already: it has had no effect.
    #[error("the bridge has too many requests to answer already")]
    Overloaded,
    /// It is larger than a frame: it has had no effect.
    #[error("the request is larger than a frame of the bridge")]
    TooLarge,
    /// The bridge has not even read it in time: it has had no effect.
    #[error("the bridge did not take the request within {0:?}")]
    NotTaken(Duration),
    /// The bridge has it, and its answer did not come in time.
    #[error("no answer over the bridge within {0:?}")]
    TimedOut(Duration),
    /// The bridge had it and was cut off: it may have had its effect.
    #[error("the bridge was cut off with the request on its way")]
    Cut,
}

#[derive(Debug)]
struct Pending {
    frame: Arc<str>,
    /// It only reads.
    repeatable: bool,
    /// It was given to a socket.
    handed: bool,
    reply: oneshot::Sender<Result<Response, LineError>>,
}

impl Pending {
    fn can_be_sent_again(&self) -> bool {
        self.repeatable || !self.handed
    }
}

#[derive(Debug)]
struct State {
    /// Of the socket that is there now, with its number.
    outbox: Option<(u64, Arc<Outbox>)>,
    gone_since: Instant,
    /// Bounded by `IN_FLIGHT`.
    pending: BTreeMap<u64, Pending>,
    last: u64,
    has_answered: bool,
}

#[derive(Debug)]
struct Shared {
    key: BridgeKey,
    /// Makes ids differ from those of a service before this one.
    salt: u64,
    limits: BridgeLimits,
    state: Mutex<State>,
}

/// The way to one bridge, through all its sockets; clones share it.
#[derive(Debug, Clone)]
pub struct Line(Arc<Shared>);

impl Line {
    pub(crate) fn new(key: BridgeKey, salt: u64, limits: BridgeLimits) -> Self {
        let state = State {
            outbox: None,
            gone_since: Instant::now(),
            pending: BTreeMap::new(),
            last: 0,
            has_answered: false,
        };
        Self(Arc::new(Shared {
            key,
            salt,
            limits,
            state: Mutex::new(state),
        }))
    }

    /// Whose line this is.
    pub fn key(&self) -> &BridgeKey {
        &self.0.key
    }

    pub(crate) fn frame_limit(&self) -> usize {
        self.0.limits.frame
    }

    /// True if its bridge is connected.
    pub fn is_connected(&self) -> bool {
        self.lock().outbox.is_some()
    }

    /// How long its bridge has been away; none if it is there.
    pub fn gone_for(&self) -> Option<Duration> {
        let state = self.lock();
        match state.outbox {
            Some(_) => None,
            None => Some(state.gone_since.elapsed()),
        }
    }

    /// True if it has ever answered a request: a bridge may only bring events.
    pub fn has_answered(&self) -> bool {
        self.lock().has_answered
    }

    /// Requests whose answers are waited for.
    pub fn in_flight(&self) -> usize {
        self.lock().pending.len()
    }

    /// Makes one request and waits for its answer. Dropping the future forgets it; one that was not handed out yet is
    /// then never made.
    ///
    /// # Errors
    /// There is no answer; the error says what that means for the request's effect.
    pub async fn request(&self, request: Request<'_>) -> Result<Response, LineError> {
        let (number, answer) = self.post(&request)?;
        let forget = Forget(self, number);
        let answered = timeout(request.limit, answer).await;
        let left = forget.now();
        match answered {
            Ok(Ok(answer)) => answer,
            // The line itself was given up.
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => match left {
                Some(pending) if !pending.handed => Err(LineError::NotTaken(request.limit)),
                _ => Err(LineError::TimedOut(request.limit)),
            },
        }
    }

    /// Says something to the bridge, if it is there.
    pub fn tell(&self, frame: &ToBridge<'_>) {
        self.tell_text(frame.text());
    }

    pub(crate) fn tell_text(&self, text: String) {
        if let Some((_, outbox)) = &self.lock().outbox {
            outbox.push(Out::Text(text));
        }
    }

    fn post(
        &self,
        request: &Request<'_>,
    ) -> Result<(u64, oneshot::Receiver<Result<Response, LineError>>), LineError> {
        let mut state = self.lock();
        let Some((_, outbox)) = &state.outbox else {
            drop(state);
            return Err(self.gone());
        };
        if state.pending.len() >= IN_FLIGHT {
            return Err(LineError::Overloaded);
        }
        let outbox = Arc::clone(outbox);
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
            return Err(LineError::TooLarge);
        }
        let waiting: usize = state.pending.values().map(|asked| asked.frame.len()).sum();
        if waiting > 0 && waiting + frame.len() > BYTES_IN_FLIGHT {
            return Err(LineError::Overloaded);
        }
        outbox
            .try_push(Out::Request(number, frame.len()))
            .map_err(|_| LineError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        state.pending.insert(
            number,
            Pending {
                frame,
                repeatable: request.method == "GET",
                handed: false,
                reply,
            },
        );
        Ok((number, answer))
    }

    fn id(&self, number: u64) -> FrameId {
        FrameId::Text(format!("rq_{:x}_{number}", self.0.salt))
    }

    fn gone(&self) -> LineError {
        LineError::Gone {
            pid: self.0.key.pid,
            directory: self.0.key.directory.to_string(),
        }
    }

    /// A socket is there: what can be asked again is.
    pub(crate) fn attach(&self, socket: u64, outbox: &Arc<Outbox>) {
        let mut state = self.lock();
        if state.outbox.as_ref().is_some_and(|(of, _)| *of > socket) {
            return;
        }
        self.cut(&mut state);
        for (number, pending) in &mut state.pending {
            pending.handed = false;
            // More than fits is the socket's end, and comes with the next one.
            outbox.push(Out::Request(*number, pending.frame.len()));
        }
        state.outbox = Some((socket, Arc::clone(outbox)));
    }

    /// A socket has ended: what may have had its effect is lost, the rest waits for a while.
    pub(crate) fn detach(&self, socket: u64) {
        let mut state = self.lock();
        if state.outbox.as_ref().is_none_or(|(of, _)| *of != socket) {
            return;
        }
        self.cut(&mut state);
        if state.pending.is_empty() {
            return;
        }
        drop(state);
        let line = self.clone();
        actix_web::rt::spawn(async move {
            tokio::time::sleep(line.0.limits.linger).await;
            line.give_up();
        });
    }

    fn cut(&self, state: &mut State) {
        if let Some((_, outbox)) = state.outbox.take() {
            outbox.abandon();
            state.gone_since = Instant::now();
        }
        let lost = state
            .pending
            .extract_if(.., |_, pending| !pending.can_be_sent_again());
        for (_, pending) in lost {
            // Whoever asked may have given up.
            let _ = pending.reply.send(Err(LineError::Cut));
        }
    }

    fn give_up(&self) {
        let mut state = self.lock();
        if state.outbox.is_some() || state.gone_since.elapsed() < self.0.limits.linger {
            return;
        }
        for (_, pending) in std::mem::take(&mut state.pending) {
            let _ = pending.reply.send(Err(self.gone()));
        }
    }

    /// The frame of a request whose turn has come, if it is still wanted; from now on it may have its effect.
    pub(crate) fn hand(&self, number: u64) -> Option<Arc<str>> {
        let mut state = self.lock();
        let pending = state.pending.get_mut(&number)?;
        pending.handed = true;
        Some(Arc::clone(&pending.frame))
    }

    /// The bridge has answered. An answer that nobody waits for any more is dropped.
    pub(crate) fn answered(&self, response: Response) {
        let mut state = self.lock();
        state.has_answered = true;
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
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a request back when whoever made it has its answer, or does not want it any more.
struct Forget<'a>(&'a Line, u64);

impl Forget<'_> {
    fn now(self) -> Option<Pending> {
        self.0.lock().pending.remove(&self.1)
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.lock().pending.remove(&self.1);
    }
}

#[cfg(test)]
mod tests;

//! The tool calls of one bridge: the running ones, and the answers of completed ones for ten minutes. A call that the
//! bridge repeats after a reconnect joins the running call or gets the kept answer; it is never made twice.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::rt;
use futures::FutureExt;
use greenroom::domain::ids::SessionId;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::channel::BridgeChannel;
use crate::dispatcher::{ToolAnswer, ToolCall, ToolDispatcher};
use crate::lock;
use crate::protocol::{FrameId, ToBridge};
use crate::sink::EventSink;

/// The most running calls of one bridge.
pub const MAX_RUNNING: usize = 256;
/// The most bytes of the frames of running calls, of one bridge.
const MAX_RUNNING_BYTES: usize = 16 << 20;
/// The most kept answers of one bridge, and their bytes; the oldest are dropped first.
const MAX_ANSWERS: usize = 256;
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// The time an answer is kept.
const ANSWER_TTL: Duration = Duration::from_secs(600);
/// The time limit of a compaction context. It is read from memory; if it is late, it is left out.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer to a call for a session of another process.
const NOT_THE_OWNER: &str = "This session is in use by another opencode process, so nothing was done. Tell the user to go on there, or to close it there first.";
/// The most concurrent compaction contexts of one bridge.
const MAX_COMPACTIONS: usize = 16;

/// A running or completed call.
#[derive(Debug)]
struct CallEntry {
    /// A hash of tool, arguments and session: the same id with another fingerprint is another call.
    fingerprint: u64,
    state: CallState,
}

#[derive(Debug)]
enum CallState {
    Running { abort: AbortHandle, size: usize },
    Done { frame: String, at: Instant },
}

/// What decides whether an answer is kept.
struct RetainedAnswer {
    id: FrameId,
    at: Instant,
    size: usize,
}

#[derive(Debug, Default)]
struct Table {
    // Bounded by `MAX_RUNNING` and `MAX_ANSWERS`.
    calls: BTreeMap<FrameId, CallEntry>,
}

impl Table {
    /// Returns the number of running calls and the bytes of their frames.
    fn running(&self) -> (usize, usize) {
        let sizes = self.calls.values().filter_map(|entry| match entry.state {
            CallState::Running { size, .. } => Some(size),
            CallState::Done { .. } => None,
        });
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Drops answers that are too old, and the oldest above the limits.
    fn evict(&mut self) {
        self.calls.retain(|_, entry| match &entry.state {
            CallState::Running { .. } => true,
            CallState::Done { at, .. } => at.elapsed() < ANSWER_TTL,
        });
        let answers = self
            .calls
            .iter()
            .filter_map(|(id, entry)| match &entry.state {
                CallState::Running { .. } => None,
                CallState::Done { frame, at } => Some(RetainedAnswer {
                    id: id.clone(),
                    at: *at,
                    size: frame.len(),
                }),
            });
        let mut answers: Vec<RetainedAnswer> = answers.collect();
        let bytes: usize = answers.iter().map(|answer| answer.size).sum();
        if answers.len() <= MAX_ANSWERS && bytes <= MAX_ANSWER_BYTES {
            return;
        }
        answers.sort_by_key(|answer| std::cmp::Reverse(answer.at));
        let (mut count, mut bytes) = (0, 0);
        for answer in answers {
            count += 1;
            bytes += answer.size;
            if count > MAX_ANSWERS || bytes > MAX_ANSWER_BYTES {
                self.calls.remove(&answer.id);
            }
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for entry in self.calls.values() {
            if let CallState::Running { abort, .. } = &entry.state {
                abort.abort();
            }
        }
    }
}

/// The tool calls of one bridge. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ToolCalls {
    table: Arc<Mutex<Table>>,
    compaction_permits: Arc<Semaphore>,
}

impl Default for ToolCalls {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            compaction_permits: Arc::new(Semaphore::new(MAX_COMPACTIONS)),
        }
    }
}

impl ToolCalls {
    /// Starts a call whose frame has `size` bytes, unless it was started before. The answer is sent over the socket that
    /// the bridge has when the call completes.
    pub(crate) fn start(
        &self,
        call: ToolCall,
        size: usize,
        dispatcher: Option<&Arc<dyn ToolDispatcher>>,
        channel: &BridgeChannel,
        sink: &Arc<dyn EventSink>,
    ) {
        let (id, fingerprint) = (call.id.clone(), fingerprint(&call));
        let mut table = lock(&self.table);
        table.evict();
        match table.calls.get(&id) {
            Some(CallEntry {
                fingerprint: same,
                state,
            }) if *same == fingerprint => {
                if let CallState::Done { frame, .. } = state {
                    channel.send_text(frame.clone());
                }
                return;
            }
            Some(CallEntry {
                state: CallState::Running { abort, .. },
                ..
            }) => abort.abort(),
            _ => {}
        }
        table.calls.remove(&id);
        let Some(dispatcher) = dispatcher else {
            let text = "this Greenroom offers no tools: it was started without them";
            return refuse(channel, &id, text);
        };
        let (running, bytes) = table.running();
        if running >= MAX_RUNNING || bytes + size > MAX_RUNNING_BYTES {
            let text = format!(
                "too many tool calls of this process are open at once (at most {MAX_RUNNING}): wait for some to end, then call again"
            );
            return refuse(channel, &id, &text);
        }
        let (dispatcher, sink) = (Arc::clone(dispatcher), Arc::clone(sink));
        let abort = self.spawn(call, fingerprint, dispatcher, channel.clone(), sink);
        let state = CallState::Running { abort, size };
        table.calls.insert(id, CallEntry { fingerprint, state });
    }

    fn spawn(
        &self,
        call: ToolCall,
        fingerprint: u64,
        dispatcher: Arc<dyn ToolDispatcher>,
        channel: BridgeChannel,
        sink: Arc<dyn EventSink>,
    ) -> AbortHandle {
        // Weak: dropping the table aborts the running calls.
        let table = Arc::downgrade(&self.table);
        let task = rt::spawn(async move {
            let (id, tool) = (call.id.clone(), call.tool.clone());
            let answer = async {
                if sink.tool_called(channel.key(), &call.context).await {
                    dispatcher.call(call).await
                } else {
                    ToolAnswer::text(NOT_THE_OWNER)
                }
            };
            let answer = AssertUnwindSafe(answer).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| {
                tracing::error!(tool, "a tool panicked");
                ToolAnswer::text(format!(
                    "{tool} failed inside Greenroom, which is a bug; its log has the details"
                ))
            });
            let frame = result_frame(&id, &answer, channel.frame_limit());
            let Some(table) = table.upgrade() else { return };
            {
                let mut table = lock(&table);
                let Some(entry) = table
                    .calls
                    .get_mut(&id)
                    .filter(|entry| entry.fingerprint == fingerprint)
                else {
                    return;
                };
                entry.state = CallState::Done {
                    frame: frame.clone(),
                    at: Instant::now(),
                };
                table.evict();
            }
            channel.send_text(frame);
        });
        task.abort_handle()
    }

    /// Aborts the wait for a call. Effects of the call stay.
    pub(crate) fn abort(&self, id: &FrameId) {
        if let Some(CallEntry {
            state: CallState::Running { abort, .. },
            ..
        }) = lock(&self.table).calls.remove(id)
        {
            abort.abort();
        }
    }

    /// Returns the number of running calls.
    pub(crate) fn running(&self) -> usize {
        lock(&self.table).running().0
    }

    /// Sends the text that the compaction of a session carries along.
    pub(crate) fn compaction(
        &self,
        id: Option<FrameId>,
        session: SessionId,
        dispatcher: Option<&Arc<dyn ToolDispatcher>>,
        channel: &BridgeChannel,
    ) {
        let (dispatcher, channel) = (dispatcher.cloned(), channel.clone());
        let permit = Arc::clone(&self.compaction_permits).try_acquire_owned();
        rt::spawn(async move {
            let context = async {
                match (&dispatcher, &permit) {
                    (Some(dispatcher), Ok(_)) => dispatcher.compaction(&session).await,
                    _ => None,
                }
            };
            let context =
                timeout(COMPACTION_TIMEOUT, AssertUnwindSafe(context).catch_unwind()).await;
            let markdown = context.ok().and_then(Result::ok).flatten();
            channel.send(&ToBridge::CompactionContext {
                id: id.as_ref(),
                session: &session,
                markdown: markdown.as_deref().unwrap_or_default(),
            });
        });
    }
}

/// Refuses a call. The refusal is not kept, so that the call can be repeated.
pub(crate) fn refuse(channel: &BridgeChannel, id: &FrameId, text: &str) {
    channel.send_text(result_frame(
        id,
        &ToolAnswer::text(text),
        channel.frame_limit(),
    ));
}

fn result_frame(id: &FrameId, answer: &ToolAnswer, limit: usize) -> String {
    let frame = ToBridge::ToolResult { id, answer }.text();
    if frame.len() <= limit {
        return frame;
    }
    let answer = ToolAnswer::text("the answer is too large for the bridge: ask for less of it");
    ToBridge::ToolResult {
        id,
        answer: &answer,
    }
    .text()
}

fn fingerprint(call: &ToolCall) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.tool.hash(&mut hasher);
    call.args.to_string().hash(&mut hasher);
    call.context.session_id.as_str().hash(&mut hasher);
    hasher.finish()
}

//! The calls of tools that one bridge has made: those that run, and the answers of those that have ended, kept for a
//! while. A call repeated after a reconnect joins the one that runs or has its answer again; it is never made twice.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::rt;
use futures::FutureExt;
use greenroom::domain::ids::SessionId;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::desk::{ToolAnswer, ToolCall, ToolDesk};
use crate::line::Line;
use crate::protocol::{FrameId, ToBridge};

/// Calls that run at a time, of one bridge.
pub const RUNNING: usize = 256;
/// Bytes of frames whose calls run, of one bridge.
const RUNNING_BYTES: usize = 16 << 20;
/// Answers kept, of one bridge, and their bytes; the oldest go first.
const KEPT: usize = 256;
const KEPT_BYTES: usize = 8 << 20;
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// What a compaction carries along is asked of memory and is there at once, or is left out.
const COMPACTION: Duration = Duration::from_secs(5);
/// Compactions asked for at a time, of one bridge.
const COMPACTIONS: usize = 16;

/// One call's place.
#[derive(Debug)]
struct Held {
    /// Of what was called and by whom: an id that is used anew for something else is another call.
    print: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Running { abort: AbortHandle, size: usize },
    Done { frame: String, at: Instant },
}

#[derive(Debug, Default)]
struct Table {
    // Bounded by RUNNING and KEPT.
    calls: BTreeMap<FrameId, Held>,
}

impl Table {
    fn running(&self) -> (usize, usize) {
        let sizes = self.calls.values().filter_map(|held| match held.place {
            Place::Running { size, .. } => Some(size),
            Place::Done { .. } => None,
        });
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Lets go of answers that are old or too many.
    fn tidy(&mut self) {
        self.calls.retain(|_, held| match &held.place {
            Place::Running { .. } => true,
            Place::Done { at, .. } => at.elapsed() < KEPT_FOR,
        });
        let done = self
            .calls
            .iter()
            .filter_map(|(id, held)| match &held.place {
                Place::Running { .. } => None,
                Place::Done { frame, at } => Some((*at, frame.len(), id.clone())),
            });
        let mut done: Vec<_> = done.collect();
        let bytes: usize = done.iter().map(|(_, size, _)| size).sum();
        if done.len() <= KEPT && bytes <= KEPT_BYTES {
            return;
        }
        done.sort_by_key(|(at, _, _)| std::cmp::Reverse(*at));
        let (mut count, mut bytes) = (0, 0);
        for (_, size, id) in done {
            count += 1;
            bytes += size;
            if count > KEPT || bytes > KEPT_BYTES {
                self.calls.remove(&id);
            }
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for held in self.calls.values() {
            if let Place::Running { abort, .. } = &held.place {
                abort.abort();
            }
        }
    }
}

/// See the module; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    table: Arc<Mutex<Table>>,
    asking: Arc<Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            asking: Arc::new(Semaphore::new(COMPACTIONS)),
        }
    }
}

impl Calls {
    /// Makes a call of `size` bytes, unless it is made already; its answer goes to whichever socket the bridge has then.
    pub(crate) fn begin(
        &self,
        call: ToolCall,
        size: usize,
        desk: Option<&Arc<dyn ToolDesk>>,
        line: &Line,
    ) {
        let (id, print) = (call.id.clone(), print_of(&call));
        let mut table = self.lock();
        table.tidy();
        match table.calls.get(&id) {
            Some(Held { print: same, place }) if *same == print => {
                if let Place::Done { frame, .. } = place {
                    line.tell_text(frame.clone());
                }
                return;
            }
            Some(Held {
                place: Place::Running { abort, .. },
                ..
            }) => abort.abort(),
            _ => {}
        }
        table.calls.remove(&id);
        let Some(desk) = desk else {
            let text = "this Greenroom offers no tools: it was started without them";
            return refuse(line, &id, text);
        };
        let (running, bytes) = table.running();
        if running >= RUNNING || bytes + size > RUNNING_BYTES {
            let text = format!(
                "too many tool calls of this process are open at once (at most {RUNNING}): wait for some to end, then call again"
            );
            return refuse(line, &id, &text);
        }
        let abort = self.spawn(call, print, Arc::clone(desk), line.clone());
        let place = Place::Running { abort, size };
        table.calls.insert(id, Held { print, place });
    }

    fn spawn(
        &self,
        call: ToolCall,
        print: u64,
        desk: Arc<dyn ToolDesk>,
        line: Line,
    ) -> AbortHandle {
        // Weak: what runs does not keep alive who would end it.
        let table = Arc::downgrade(&self.table);
        let task = rt::spawn(async move {
            let (id, tool) = (call.id.clone(), call.tool.clone());
            let answer = AssertUnwindSafe(desk.call(call)).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| {
                tracing::error!(tool, "a tool panicked");
                ToolAnswer::saying(format!(
                    "{tool} failed inside Greenroom, which is a bug of it; its log says more"
                ))
            });
            let frame = frame_of(&id, &answer, line.frame_limit());
            let Some(table) = table.upgrade() else { return };
            {
                let mut table = locked(&table);
                let Some(held) = table.calls.get_mut(&id).filter(|held| held.print == print) else {
                    return;
                };
                held.place = Place::Done {
                    frame: frame.clone(),
                    at: Instant::now(),
                };
                table.tidy();
            }
            line.tell_text(frame);
        });
        task.abort_handle()
    }

    /// Ends the wait for a call; what it has brought about stays.
    pub(crate) fn abort(&self, id: &FrameId) {
        if let Some(Held {
            place: Place::Running { abort, .. },
            ..
        }) = self.lock().calls.remove(id)
        {
            abort.abort();
        }
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.lock().running().0
    }

    /// Says what a session's compaction carries along.
    pub(crate) fn compaction(
        &self,
        id: Option<FrameId>,
        session: SessionId,
        desk: Option<&Arc<dyn ToolDesk>>,
        line: &Line,
    ) {
        let (desk, line) = (desk.cloned(), line.clone());
        let room = Arc::clone(&self.asking).try_acquire_owned();
        rt::spawn(async move {
            let ask = async {
                match (&desk, &room) {
                    (Some(desk), Ok(_)) => desk.compaction(&session).await,
                    _ => None,
                }
            };
            let said = timeout(COMPACTION, AssertUnwindSafe(ask).catch_unwind()).await;
            let markdown = said.ok().and_then(Result::ok).flatten();
            line.tell(&ToBridge::CompactionContext {
                id: id.as_ref(),
                session: &session,
                markdown: markdown.as_deref().unwrap_or_default(),
            });
        });
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing panics while it is held.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that was not made: not kept, so that it can be made later.
pub(crate) fn refuse(line: &Line, id: &FrameId, text: &str) {
    line.tell_text(frame_of(id, &ToolAnswer::saying(text), line.frame_limit()));
}

fn frame_of(id: &FrameId, answer: &ToolAnswer, limit: usize) -> String {
    let frame = ToBridge::ToolResult { id, answer }.text();
    if frame.len() <= limit {
        return frame;
    }
    let answer = ToolAnswer::saying("the answer is too large for the bridge: ask for less of it");
    ToBridge::ToolResult {
        id,
        answer: &answer,
    }
    .text()
}

fn print_of(call: &ToolCall) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.tool.hash(&mut hasher);
    call.args.to_string().hash(&mut hasher);
    call.context.session_id.as_str().hash(&mut hasher);
    hasher.finish()
}

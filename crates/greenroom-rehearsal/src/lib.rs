//! A scripted model provider. It implements the OpenAI chat-completions protocol with streaming and plays the script in
//! the prompt. An agent server that uses it behaves as with a real model, but needs no key, costs nothing, and is
//! deterministic.
//!
//! Markers in the newest user message are the script. They are played in the order they are written; a message without
//! markers is answered at once with its own first words.
//!
//! | marker | what the model does |
//! |---|---|
//! | `[[wait 2s]]` | waits that long before the first word |
//! | `[[say TEXT]]` | answers TEXT (instead of the default answer) |
//! | `[[slow 10s]]` | spreads the words of its answer over that time |
//! | `[[call TOOL {"a": 1}]]` | calls the tool; the markers behind it are played after the tool's result |
//! | `[[repeat 30 TOOL {"a": 1}]]` | calls the tool that many times, one turn each |
//! | `[[fail 500 x2]]` | refuses two requests with this status, then continues; without `x2` it refuses all |
//! | `[[retry-after 2s]]` | adds that header to the refusals of this turn |
//! | `[[drop x1]]` | cuts the connection in the middle of its answer, counted the same way |
//! | `[[hang]]` | begins an answer and never continues |
//!
//! One request plays one turn: the markers up to and including the next tool call. The turn number is derived from the
//! conversation (the answers since that message), so the provider keeps no state per conversation. Only refusals and cuts
//! are counted, per session of the `x-session-id` header.
//!
//! `$task1`, `$task2`, … in a prompt are replaced by the ids (`bg_…`) of the tasks that tools have named in the
//! conversation. The part of a prompt after `[[woken]]` is played at the first background-task notice, the part after a
//! second `[[woken]]` at the second notice.
//!
//! Any other notice is answered with `Noted: …`. Requests for a title or for a summary are never scripts.
//!
//! `GET /rehearsal/stats` returns the counted requests (see [`StatsReport`]), `POST /rehearsal/reset` clears them.

mod conversation;
mod protocol;
mod script;
mod server;
mod stats;
mod template;

pub use server::{Rehearsal, StartError};
pub use stats::{Level, ModelReport, SessionReport, StatsReport};

/// The id under which agent servers configure this provider.
pub const PROVIDER: &str = "rehearsal";

/// The models that `GET /v1/models` names. The provider accepts any other name too.
pub const MODELS: [&str; 2] = ["small", "large"];

//! A scripted model provider: it speaks the OpenAI chat-completions protocol with streaming, and plays what the prompt
//! tells it to. An agent server pointed at it behaves as with a real model, without a key, a cost, or chance.
//!
//! Markers in the newest message of the user say what happens. They are played in the order they are written; a message
//! without any is answered at once, with its own first words.
//!
//! | marker | what the model does |
//! |---|---|
//! | `[[wait 2s]]` | thinks that long before the first word |
//! | `[[say TEXT]]` | answers TEXT (instead of the default answer) |
//! | `[[slow 10s]]` | spreads the words of its answer over that time |
//! | `[[call TOOL {"a": 1}]]` | calls the tool; what follows is played after the tool's result |
//! | `[[repeat 30 TOOL {"a": 1}]]` | calls it so many times, one turn each |
//! | `[[fail 500 x2]]` | refuses two requests with this status, then goes on; without `x2` it refuses all |
//! | `[[retry-after 2s]]` | the refusals of this turn carry that header |
//! | `[[drop x1]]` | cuts the connection in the middle of its answer, likewise counted |
//! | `[[hang]]` | begins an answer and never goes on |
//!
//! A turn is what is played in one request: everything up to the next tool call. Which turn it is, is read off the
//! conversation (the answers since that message), so that nothing need be remembered; only refusals and cuts are
//! counted, by the session named in the `x-session-id` header.
//!
//! `$task1`, `$task2`, … in a prompt stand for the tasks that tools have named in the conversation (`bg_…`), and what
//! follows `[[woken]]` is played when a background-task notice comes; after a second `[[woken]]`, at the second one.
//!
//! Else a notice is answered with `Noted: …`. Requests for a title or for a summary are never scripts.
//!
//! `GET /rehearsal/stats` tells what was asked for (see [`StatsReport`]), `POST /rehearsal/reset` forgets it.

mod conversation;
mod cues;
mod protocol;
mod script;
mod server;
mod stats;

pub use server::{Rehearsal, StartError};
pub use stats::{Level, ModelReport, SessionReport, StatsReport};

/// The id under which agent servers are told of this provider.
pub const PROVIDER: &str = "rehearsal";

/// The models that `GET /v1/models` names. Any other name is accepted too.
pub const MODELS: [&str; 2] = ["small", "large"];

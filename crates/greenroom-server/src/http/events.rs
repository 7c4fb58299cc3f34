//! `GET /v1/events`: the changes of tasks as server-sent events. A reader that comes back names the last one it had; one
//! that is too slow is told that it missed some. What a client does not take is not produced.

use std::fmt::Write as _;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures::{Stream, stream};
use greenroom::domain::ids::SessionId;
use greenroom::domain::time::Timestamp;
use greenroom::{ChangeFeed, Followed, NumberedChange, Since};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::app::Api;
use super::call::{EventStream, Raw};
use super::error::ApiError;
use super::input::Params;

/// How often something is sent while nothing happens, so that both ends notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader should wait before it comes back, in milliseconds.
const RETRY_MS: u32 = 1000;

/// The query of the stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only changes of this parent's tasks.
    #[serde(rename = "parentSessionID")]
    parent_session: Option<SessionId>,
    /// The id of the last event the reader had, 0 for all that are kept, or an RFC 3339 time.
    since: Option<String>,
}

/// `GET /v1/events`: one event per change of a task, from now on or from where the caller stopped.
pub async fn stream(
    api: Data<Api>,
    request: HttpRequest,
    query: Params<EventsQuery>,
) -> Result<Raw<EventStream>, ApiError> {
    let EventsQuery {
        parent_session,
        since,
    } = query.0;
    // A browser that comes back repeats the address, and knows better by then.
    let last = request.headers().get("last-event-id");
    let since = match (last, since) {
        (Some(last), _) => read_since("Last-Event-ID", last.to_str().unwrap_or("unreadable"))?,
        (None, Some(since)) => read_since("since", &since)?,
        (None, None) => Since::Now,
    };
    let feed = api.greenroom.follow(since);
    let response = HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(frames(feed, parent_session));
    Ok(Raw::build(response))
}

/// The number of an event, 0 for all that are kept, or a time.
fn read_since(name: &str, text: &str) -> Result<Since, ApiError> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(match number {
            0 => Since::Kept,
            number => Since::Number(number),
        });
    }
    if let Ok(at) = serde_json::from_value::<Timestamp>(json!(text)) {
        return Ok(Since::Time(at));
    }
    let shown = greenroom::domain::task::cut(text, 60);
    Err(ApiError::unreadable(
        "invalid_query",
        format!("{name}: {shown:?} is neither the id of an event nor a time"),
        "give the id of the last event you had, 0 for all that are kept, or an RFC 3339 time",
    ))
}

struct Reader {
    feed: ChangeFeed,
    parent: Option<SessionId>,
    begun: bool,
}

fn frames(
    feed: ChangeFeed,
    parent: Option<SessionId>,
) -> impl Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    let reader = Reader {
        feed,
        parent,
        begun: false,
    };
    stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((Ok(Bytes::from(frame)), reader))
    })
}

impl Reader {
    /// The next frame, a heartbeat if there is nothing to say; none once the service ends.
    async fn next(&mut self) -> Option<String> {
        if !self.begun {
            self.begun = true;
            return Some(format!("retry: {RETRY_MS}\n{}", self.heartbeat()));
        }
        let wanted = async {
            loop {
                match self.feed.next().await? {
                    Followed::Change(change) if !self.wants(&change) => {}
                    followed => return Some(followed),
                }
            }
        };
        match timeout(HEARTBEAT, wanted).await {
            Ok(followed) => Some(frame(&followed?)),
            Err(_) => Some(self.heartbeat()),
        }
    }

    /// A comment. Its id moves on what a reader comes back with, also while only others' tasks change; without data it
    /// is no event.
    fn heartbeat(&self) -> String {
        format!(": alive\nid: {}\n\n", self.feed.position())
    }

    fn wants(&self, change: &NumberedChange) -> bool {
        let of = change.change.task.parent_session.as_ref();
        self.parent.as_ref().is_none_or(|parent| of == Some(parent))
    }
}

fn frame(followed: &Followed) -> String {
    let (id, event, data) = match followed {
        Followed::Change(NumberedChange { number, change }) => {
            // A record of texts, numbers and times always has a JSON form.
            let data = serde_json::to_string(change.as_ref()).unwrap_or_default();
            (*number, "task", data)
        }
        Followed::Missed { newest } => {
            let hint = "changes were missed; read GET /v1/tasks anew and go on from here";
            (*newest, "reset", json!({ "hint": hint }).to_string())
        }
    };
    let mut frame = String::with_capacity(data.len() + 64);
    // Writing to a text does not fail; JSON on one line has no line break to split at.
    let _ = write!(frame, "id: {id}\nevent: {event}\ndata: {data}\n\n");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_says_where_it_stopped() {
        assert_eq!(read_since("since", "0").unwrap(), Since::Kept);
        assert_eq!(read_since("since", "17").unwrap(), Since::Number(17));
        assert_eq!(
            read_since("since", "1970-01-01T00:00:01.000Z").unwrap(),
            Since::Time(Timestamp::from_millis(1000))
        );
        for wrong in ["", "-1", "yesterday", "99999999999999999999999"] {
            let error = read_since("since", wrong).unwrap_err();
            assert!(error.message.contains("since"), "{error:?}");
        }
    }
}

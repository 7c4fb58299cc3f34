//! `GET /v1/events`: the changes of tasks as server-sent events. A reconnecting reader continues after its last event;
//! a reader that is too slow gets a `reset` event. Changes are read from the feed only as fast as the client reads
//! them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures::{Stream, stream};
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::{ChangeFeed, Followed, NumberedChange, Since, TaskChange};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::app::Api;
use super::error::ApiError;
use super::input::Params;
use super::operation::{EventStream, MediaResponse};

/// Interval of heartbeats, by which both ends notice a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Reconnect delay for readers, in milliseconds.
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

/// `GET /v1/events`: one event per change of a task, from now on or after the last received event.
pub async fn stream(
    api: Data<Api>,
    request: HttpRequest,
    query: Params<EventsQuery>,
) -> Result<MediaResponse<EventStream>, ApiError> {
    let EventsQuery {
        parent_session,
        since,
    } = query.0;
    // A reconnecting browser repeats the URL, so the header has precedence.
    let last_event_id = request.headers().get("last-event-id");
    let since = match (last_event_id, since) {
        (Some(last_event_id), _) => parse_since(
            "Last-Event-ID",
            last_event_id.to_str().unwrap_or("unreadable"),
        )?,
        (None, Some(since)) => parse_since("since", &since)?,
        (None, None) => Since::Now,
    };
    let permit = api.streams.acquire().map_err(|limit| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            format!("{limit} event streams are open already"),
            "close some, or raise the limit of open files of the service",
        )
    })?;
    let feed = api.greenroom.follow(since);
    let response = HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(event_frames(feed, parent_session, permit));
    Ok(MediaResponse::build(response))
}

/// Parses the number of an event, 0 for all kept events, or a time.
fn parse_since(name: &str, text: &str) -> Result<Since, ApiError> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(match number {
            0 => Since::Oldest,
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

struct EventReader {
    feed: ChangeFeed,
    parent: Option<SessionId>,
    started: bool,
    /// Held as long as the stream is open.
    _permit: OwnedSemaphorePermit,
}

fn event_frames(
    feed: ChangeFeed,
    parent: Option<SessionId>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    let reader = EventReader {
        feed,
        parent,
        started: false,
        _permit: permit,
    };
    stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((Ok(Bytes::from(frame)), reader))
    })
}

impl EventReader {
    /// Returns the next frame, or a heartbeat after an idle interval; none after the service has stopped.
    async fn next(&mut self) -> Option<String> {
        if !self.started {
            self.started = true;
            return Some(format!("retry: {RETRY_MS}\n{}", self.heartbeat()));
        }
        let next_match = async {
            loop {
                match self.feed.next().await? {
                    Followed::Change(change) if !self.matches(&change) => {}
                    item => return Some(item),
                }
            }
        };
        match timeout(HEARTBEAT, next_match).await {
            Ok(item) => Some(frame(&item?)),
            Err(_) => Some(self.heartbeat()),
        }
    }

    /// Returns a comment with the current id. The id advances the reader's position while only filtered events occur;
    /// without data it is not an event.
    fn heartbeat(&self) -> String {
        format!(": alive\nid: {}\n\n", self.feed.position())
    }

    fn matches(&self, change: &NumberedChange) -> bool {
        let owner = change.change.task.parent_session.as_ref();
        self.parent
            .as_ref()
            .is_none_or(|parent| owner == Some(parent))
    }
}

fn frame(item: &Followed) -> String {
    let (id, event, data) = match item {
        Followed::Change(NumberedChange { number, change }) => {
            // Whole prompts would make the stream of a busy service as large as all its prompts.
            let mut task = Task::clone(&change.task);
            task.truncate_texts();
            let mut change = TaskChange::clone(change);
            change.task = Arc::new(task);
            // Strings, numbers and times can always be serialised.
            let data = serde_json::to_string(&change).unwrap_or_default();
            (*number, "task", data)
        }
        Followed::Missed { newest } => {
            let hint = "changes were missed; read GET /v1/tasks anew and go on from here";
            (*newest, "reset", json!({ "hint": hint }).to_string())
        }
    };
    let mut frame = String::with_capacity(data.len() + 64);
    // Writing to a string cannot fail. JSON on one line has no line break.
    let _ = write!(frame, "id: {id}\nevent: {event}\ndata: {data}\n\n");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_number_or_a_time() {
        assert_eq!(parse_since("since", "0").unwrap(), Since::Oldest);
        assert_eq!(parse_since("since", "17").unwrap(), Since::Number(17));
        assert_eq!(
            parse_since("since", "1970-01-01T00:00:01.000Z").unwrap(),
            Since::Time(Timestamp::from_millis(1000))
        );
        for wrong in ["", "-1", "yesterday", "99999999999999999999999"] {
            let error = parse_since("since", wrong).unwrap_err();
            assert!(error.message.contains("since"), "{error:?}");
        }
    }
}

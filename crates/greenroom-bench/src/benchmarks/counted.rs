//! Benchmarks whose instructions callgrind counts. Each repeats one thing as often as its count, so that the difference of
//! a run and a run with twice the count contains neither setup nor shutdown. They wait for no disk, socket or thread. Time
//! is virtual: periodic work would run more often on a slower machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::domain::event_filter::EventFilter;
use greenroom::domain::session_event::{SessionEvent, SessionEventKind};
use greenroom::{CancelOptions, CancelScope};
use greenroom_bridge::protocol::FromBridge;
use serde_json::json;

use super::ends::{limited, start_answering, until_done};
use super::events::running;
use crate::instant_server::InstantServer;
use crate::setup::{launch_all, parent, start, unlimited};

/// The number of running tasks where events and polls are counted.
const RUNNING: usize = 200;

/// A benchmark whose instructions are counted.
#[derive(Debug)]
pub struct CountedBenchmark {
    /// Its name, also in the committed table.
    pub name: &'static str,
    /// The count of the smaller of the two runs.
    pub count: usize,
    /// Units per count: the figure is divided by them.
    pub units: usize,
    run: fn(usize),
}

/// All counted benchmarks.
pub const COUNTED: &[CountedBenchmark] = &[
    CountedBenchmark {
        name: "a task from launch to prompt",
        count: 1_000,
        units: 1,
        run: launches,
    },
    CountedBenchmark {
        name: "the whole life of a task",
        count: 300,
        units: 1,
        run: lives,
    },
    CountedBenchmark {
        name: "a typed event to a running task",
        count: 10_000,
        units: 1,
        run: events,
    },
    CountedBenchmark {
        name: "a running task at a poll",
        count: 50,
        units: RUNNING,
        run: polls,
    },
    CountedBenchmark {
        name: "a task of a parent's that is cancelled",
        count: 500,
        units: 1,
        run: cancels,
    },
    CountedBenchmark {
        name: "a frame through the bridge's filter or reader",
        count: 1_200,
        units: 1,
        run: frames,
    },
];

/// Runs the benchmark of that name that many times.
///
/// # Errors
/// Returns a text if the name is unknown.
pub fn run(name: &str, count: usize) -> Result<(), String> {
    let counted = COUNTED.iter().find(|counted| counted.name == name);
    let counted = counted.ok_or_else(|| format!("not a counted benchmark: {name}"))?;
    (counted.run)(count);
    Ok(())
}

/// Runs a future on an actix system with a paused clock on this thread.
fn in_virtual_time(work: impl Future<Output = ()>) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime can be built")
    };
    actix_rt::System::with_tokio_rt(runtime).block_on(work);
}

fn launches(count: usize) {
    in_virtual_time(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(unlimited(), &server);
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
    });
}

fn lives(count: usize) {
    in_virtual_time(async move {
        let (server, greenroom) = start_answering(limited(5));
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        until_done(&greenroom).await;
    });
}

fn events(count: usize) {
    in_virtual_time(async move {
        let (greenroom, sessions) = running(RUNNING).await;
        for number in 0..count {
            let session = sessions[number % RUNNING].clone();
            let kind = SessionEventKind::Delta { message: None };
            greenroom.ingest_event(SessionEvent { session, kind }).await;
        }
        greenroom.task_counts().await;
    });
}

fn polls(count: usize) {
    in_virtual_time(async move {
        let server = Arc::new(InstantServer::default());
        let mut config = unlimited();
        config.lifecycle.poll_interval = Duration::from_millis(5);
        let greenroom = start(config, &server);
        server.list_busy();
        launch_all(&greenroom, 0..RUNNING, 10, 20).await;
        server.until_prompted(RUNNING).await;
        let (begun, _) = server.status_calls();
        server.until_status_calls(begun + count).await;
        greenroom.task_counts().await;
    });
}

fn cancels(count: usize) {
    in_virtual_time(async move {
        let server = Arc::new(InstantServer::default());
        let greenroom = start(limited(5), &server);
        launch_all(&greenroom, 0..count, 1, 1).await;
        server.until_prompted(5).await;
        let scope = CancelScope::Descendants(parent(0));
        let cancelled = greenroom.cancel_all(scope, CancelOptions::default()).await;
        assert_eq!(cancelled.len(), count, "every task is cancelled");
    });
}

/// Reads the frames of a bridge while sessions write: mostly growing parts, of which the filter passes few. One frame in six
/// is a response.
fn frames(count: usize) {
    let kinds = [
        "message.part.delta",
        "message.part.updated",
        "message.part.delta",
        "session.status",
        "file.watcher.updated",
    ];
    let events: Vec<String> = (0..kinds.len() * 20)
        .map(|number| frame(kinds[number % kinds.len()], number % 20))
        .collect();
    let response = json!({"type": "response", "id": 7, "status": 200, "body": {"id": "ses_1"}});
    let response = response.to_string();
    let mut filter = EventFilter::for_wrapped(Duration::from_millis(100));
    let begin = Instant::now();
    for number in 0..count {
        if number % 6 == 0 {
            std::hint::black_box(FromBridge::read(&response));
            continue;
        }
        let text = events[number % events.len()].as_bytes();
        // Each frame has its own time.
        let at = begin + Duration::from_millis(number as u64);
        std::hint::black_box(filter.filter(text, at));
    }
}

fn frame(kind: &str, session: usize) -> String {
    let session = format!("ses_{session:010}");
    let event = json!({
        "id": "evt_dfe2c1a8b001X9Y8Z7W6V5U4T3",
        "type": kind,
        "properties": {
            "sessionID": session,
            "messageID": "msg_dfe2c1a8b002A1B2C3D4E5F6G7",
            "partID": "prt_dfe2c1a8b003H8I9J0K1L2M3N4",
            "status": {"type": "busy"},
            "part": {"id": "prt_dfe2c1a8b003H8I9J0K1L2M3N4", "sessionID": session, "type": "text",
                "text": "some words of the agent's answer, as they come from the model here"},
        },
    });
    json!({"type": "event", "event": event}).to_string()
}

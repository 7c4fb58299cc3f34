//! Works whose instructions are counted, by callgrind, from outside. Each does the same thing as often as it is told, so
//! that the difference of a run and one of twice as many is what was asked about: everything before and after drops out.
//! Nothing in them waits for a disk, a socket or another thread, and time is virtual: what happens once in so many
//! milliseconds would happen more often on a slower machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::domain::session_event::{Happening, SessionEvent};
use greenroom::domain::sift::Sift;
use greenroom::{CancelOptions, CancelScope};
use greenroom_bridge::protocol::FromBridge;
use serde_json::json;

use super::ends::{limited, lively, over};
use super::events::running;
use crate::instant_server::InstantServer;
use crate::stage::{launch_all, parent, start, unlimited};

/// Tasks that run where events and polls are counted.
const RUNNING: usize = 200;

/// A work whose instructions are counted.
#[derive(Debug)]
pub struct Counted {
    /// For people, and in the committed table.
    pub name: &'static str,
    /// How many, in the smaller of the two runs.
    pub count: usize,
    /// Units in one of those: what the figure is divided by besides.
    pub units: usize,
    run: fn(usize),
}

/// Everything that is counted.
pub const COUNTED: &[Counted] = &[
    Counted {
        name: "a task from launch to prompt",
        count: 1_000,
        units: 1,
        run: launches,
    },
    Counted {
        name: "the whole life of a task",
        count: 300,
        units: 1,
        run: lives,
    },
    Counted {
        name: "a typed event to a running task",
        count: 10_000,
        units: 1,
        run: events,
    },
    Counted {
        name: "a running task at a poll",
        count: 50,
        units: RUNNING,
        run: polls,
    },
    Counted {
        name: "a task of a parent's that is cancelled",
        count: 500,
        units: 1,
        run: cancels,
    },
    Counted {
        name: "a frame through the bridge's sieve or reader",
        count: 1_200,
        units: 1,
        run: frames,
    },
];

/// Does that one, so often.
///
/// # Errors
/// There is none of that name.
pub fn run(name: &str, count: usize) -> Result<(), String> {
    let counted = COUNTED.iter().find(|counted| counted.name == name);
    let counted = counted.ok_or_else(|| format!("no work that is counted is called {name}"))?;
    (counted.run)(count);
    Ok(())
}

/// Runs it on an actix system of this thread whose clock stands still while anything is to be done.
fn in_virtual_time(work: impl Future<Output = ()>) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime needs nothing")
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
        let (server, greenroom) = lively(limited(5));
        launch_all(&greenroom, 0..count, 10, 20).await;
        server.until_prompted(count).await;
        over(&greenroom).await;
    });
}

fn events(count: usize) {
    in_virtual_time(async move {
        let (greenroom, sessions) = running(RUNNING).await;
        for number in 0..count {
            let session = sessions[number % RUNNING].clone();
            let what = Happening::Delta { message: None };
            greenroom.happened(SessionEvent { session, what }).await;
        }
        greenroom.tally().await;
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
        let (begun, _) = server.asked();
        server.until_asked(begun + count).await;
        greenroom.tally().await;
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

/// What a bridge says while sessions write: parts that grow, mostly, of which few are passed on; one frame in six is none
/// of an event.
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
    let mut sift = Sift::of_wrapped(Duration::from_millis(100));
    let begin = Instant::now();
    for number in 0..count {
        if number % 6 == 0 {
            std::hint::black_box(FromBridge::read(&response));
            continue;
        }
        let text = events[number % events.len()].as_bytes();
        // A time of its own, whatever time it is.
        let at = begin + Duration::from_millis(number as u64);
        std::hint::black_box(sift.sift(text, at));
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
                "text": "some words of what the agent has to say, as they come from the model"},
        },
    });
    json!({"type": "event", "event": event}).to_string()
}

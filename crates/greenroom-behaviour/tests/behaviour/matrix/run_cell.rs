//! Runs one cell of the matrix: brings a task to a stage, applies an event, and finishes all sessions until
//! memory is empty.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use greenroom::config::OnParentAbort;
use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::task::TaskStatus;
use greenroom::{CancelOptions, EventLink};

use super::events::Event;
use super::stages::{LifecycleStage, bring_to_stage};
use super::table::Outcome;
use crate::harness::{Harness, lock, story_with};
use crate::server::{Call, CallKind, CallPayload};

/// Applies an event at a stage and returns the outcome.
pub fn run_cell(event: Event, stage: LifecycleStage) -> Outcome {
    let outcome = Arc::new(Mutex::new(None));
    let result = Arc::clone(&outcome);
    story_with(
        move |config| {
            config.limits.default = 2;
            if event == Event::ParentAbortedWithTasks {
                config.notifications.on_parent_abort = OnParentAbort::Cancel;
            }
        },
        move |s| async move {
            let seen = play(&s, event, stage).await;
            *lock(&result) = Some(seen);
        },
    );
    let mut outcome = lock(&outcome);
    outcome.take().expect("the story sets it")
}

async fn play(s: &Harness, event: Event, stage: LifecycleStage) -> Outcome {
    s.server.add_session("R", None);
    let a = bring_to_stage(s, stage).await;
    let mut changes = s.changes();
    let since = if stage == LifecycleStage::Created {
        s.now()
    } else {
        s.now() + 1
    };
    let answer = match stage {
        LifecycleStage::Created => apply_while_session_is_created(s, event, &a).await,
        _ => {
            s.advance(1).await;
            let request = event.apply(s.clone(), a.clone());
            s.resolve(request).await
        }
    };
    if matches!(event, Event::SessionAborted | Event::ParentAbortedWithTasks) {
        // An abort from outside is judged after its grace.
        s.advance(2000).await;
    }
    let (state, slots) = (s.state(&a).await, s.in_use().await);
    let away = finish_everything(s, event, &a).await;
    let mut ends = Vec::new();
    while let Ok(change) = changes.try_recv() {
        if change.task.id == a && change.to.is_terminal() {
            let error = change.task.error().map(|error| format!(": {error}"));
            ends.push(format!(
                "{}{}",
                change.to.as_str(),
                error.unwrap_or_default()
            ));
        }
    }
    let relevant = |call: &Call| call.at >= since && !away.contains(&call.at);
    let outcome = Outcome {
        answer,
        state,
        slots,
        end: or_dash(ends.join("; ")),
        calls: or_dash(calls_for(s, &a, relevant).join(", ")),
        notifications: or_dash(notifications(s, &a, relevant).join("; ")),
    };
    assert_nothing_left(s, &a).await;
    outcome
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "–".to_owned()
    } else {
        text
    }
}

/// Applies the event between the answer of the create and its receipt.
async fn apply_while_session_is_created(s: &Harness, event: Event, a: &TaskId) -> String {
    let answer = Arc::new(Mutex::new(None));
    let (harness, task) = (s.clone(), a.clone());
    let result = Arc::clone(&answer);
    s.server.on_next_session(Box::new(move || {
        actix_rt::spawn(async move {
            let answered = event.apply(harness, task).await;
            *lock(&result) = Some(answered);
        });
    }));
    s.advance(1).await;
    let mut answer = lock(&answer);
    answer
        .take()
        .expect("the session was made and the event answered")
}

/// Finishes the turns of all sessions until no task runs. Returns the time during which the server was
/// unreachable.
async fn finish_everything(s: &Harness, event: Event, a: &TaskId) -> Range<i64> {
    let mut away = 0..0;
    match event {
        Event::Unreachable => {
            let since = s.now();
            s.advance(60_000).await;
            s.server.come_online();
            away = since..s.now();
            s.link(EventLink::Connected).await;
        }
        Event::TakeOver => {
            // Only the end of the older task is compared; the newer one is cancelled without calls.
            s.advance(6000).await;
            let without_abort = CancelOptions {
                abort_session: false,
                ..CancelOptions::default()
            };
            let known = s.try_cancel(&"t".into(), without_abort).await;
            assert!(known.is_ok(), "t had ended by itself");
            if let Some(session) = s.server.session_of(a) {
                s.idle_without_event(&session);
            }
        }
        _ => {}
    }
    for _ in 0..12 {
        s.advance(6000).await;
        for task in s.tasks().await {
            if let (TaskStatus::Running, Some(session)) = (task.status(), &task.session)
                && (s.server.status_of(session).is_some() || was_woken(s, session))
            {
                s.finish_turn(session).await;
            }
        }
    }
    if matches!(event, Event::ParentAborted | Event::ParentAbortedWithTasks) {
        s.user_prompts("P", None, None).await;
    }
    away
}

fn was_woken(s: &Harness, session: &SessionId) -> bool {
    let notifications = s.notifications_to(session.as_str());
    notifications.iter().any(|line| line.contains("wakes"))
}

/// Returns the calls that created, prompted or aborted a session of the task, in order.
fn calls_for(s: &Harness, a: &TaskId, relevant: impl Fn(&Call) -> bool) -> Vec<&'static str> {
    let session = s.server.session_of(a);
    let log = s.server.log().into_iter();
    log.filter(relevant)
        .filter_map(|call| match (&call.kind, &call.payload) {
            (CallKind::Create, CallPayload::Create(new)) if new.task == *a => Some("create"),
            (CallKind::Prompt, _) if call.session == session => Some("prompt"),
            (CallKind::Abort, _) if call.session == session => Some("abort"),
            _ => None,
        })
        .collect()
}

/// Returns the notifications of all parents except `Q`, by parent. The session of the task is called `a`.
fn notifications(s: &Harness, a: &TaskId, relevant: impl Fn(&Call) -> bool) -> Vec<String> {
    let own = s.server.session_of(a);
    let calls = s
        .server
        .calls(CallKind::Notify)
        .into_iter()
        .filter(relevant);
    let mut notifications: Vec<(String, String)> = calls
        .filter(|call| call.session.as_ref().is_none_or(|to| to.as_str() != "Q"))
        .filter_map(|call| {
            let parent = if call.session == own {
                "a".to_owned()
            } else {
                call.session.as_ref()?.to_string()
            };
            Some((parent, crate::call_log::notification_line(&call)?))
        })
        .collect();
    // The order of parents within one instant is not specified.
    notifications.sort_by(|(one, _), (other, _)| one.cmp(other));
    notifications
        .into_iter()
        .map(|(parent, line)| format!("{parent}: {line}"))
        .collect()
}

/// Checks after fifteen minutes that no task is in memory, no slot is held or awaited, and no session is
/// busy.
async fn assert_nothing_left(s: &Harness, a: &TaskId) {
    s.advance(900_000).await;
    let counts = s.resource_counts().await;
    let mut empty = crate::memory::empty(&counts);
    empty.histories = counts.histories;
    assert_eq!(counts, empty, "left in memory");
    if let Some(session) = s.server.session_of(a) {
        assert_eq!(s.server.status_of(&session), None, "left at work");
    }
}

//! Whatever happens to a task at whatever stage of its life: one test an event, each at every stage, against the one table
//! of outcomes in `table`. `stages` brings a task to a stage, `events` makes something happen to it, `play` tells what
//! came of it, and `page` keeps `docs/stages.md` true to the table.

mod events;
mod page;
mod run_cell;
mod stages;
mod table;

use self::events::Event;
use self::run_cell::played;
use self::stages::AtStage;
use self::table::expected;

/// One event at every stage; all that differs from the table is told at once.
fn at_every_stage(event: Event) {
    let mut wrong = String::new();
    for stage in AtStage::ALL {
        let Some(expected) = expected(event, stage) else {
            continue;
        };
        let seen = played(event, stage);
        if seen != expected {
            wrong.push_str(&format!(
                "\n{event:?} at {stage:?}\n  wanted {expected:?}\n  seen   {seen:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "not as the table says:{wrong}");
}

#[test]
fn nothing() {
    at_every_stage(Event::Nothing);
}

#[test]
fn cancel() {
    at_every_stage(Event::Cancel);
}

#[test]
fn cancel_from_above() {
    at_every_stage(Event::CancelFromAbove);
}

#[test]
fn cancel_pending() {
    at_every_stage(Event::CancelPending);
}

#[test]
fn session_deleted() {
    at_every_stage(Event::SessionDeleted);
}

#[test]
fn parent_deleted() {
    at_every_stage(Event::ParentDeleted);
}

#[test]
fn session_error() {
    at_every_stage(Event::SessionError);
}

#[test]
fn session_aborted() {
    at_every_stage(Event::SessionAborted);
}

#[test]
fn idle() {
    at_every_stage(Event::Idle);
}

#[test]
fn resume() {
    at_every_stage(Event::Resume);
}

#[test]
fn resume_twice_at_once() {
    at_every_stage(Event::ResumeTwice);
}

#[test]
fn send() {
    at_every_stage(Event::Send);
}

#[test]
fn track_known() {
    at_every_stage(Event::TrackKnown);
}

#[test]
fn reparent() {
    at_every_stage(Event::Reparent);
}

#[test]
fn take_over() {
    at_every_stage(Event::TakeOver);
}

#[test]
fn limit_raised() {
    at_every_stage(Event::LimitRaised);
}

#[test]
fn limit_lowered() {
    at_every_stage(Event::LimitLowered);
}

#[test]
fn server_unreachable() {
    at_every_stage(Event::Unreachable);
}

#[test]
fn parent_aborted() {
    at_every_stage(Event::ParentAborted);
}

#[test]
fn parent_aborted_with_its_tasks() {
    at_every_stage(Event::ParentAbortedWithTasks);
}

#[test]
fn shutdown() {
    at_every_stage(Event::Shutdown);
}

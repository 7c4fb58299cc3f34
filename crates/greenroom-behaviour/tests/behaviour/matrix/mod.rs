//! Every event at every stage of a task: one test for each event, compared with the table of outcomes in
//! `table`. `stages` brings a task to a stage, `events` applies an event, `run_cell` returns the outcome, and
//! `page` keeps `docs/stages.md` equal to the table.

mod events;
mod page;
mod run_cell;
mod stages;
mod table;

use self::events::Event;
use self::run_cell::run_cell;
use self::stages::LifecycleStage;
use self::table::expected;

/// Applies an event at every stage and reports all differences from the table.
fn check_every_stage(event: Event) {
    let mut differences = String::new();
    for stage in LifecycleStage::ALL {
        let Some(expected) = expected(event, stage) else {
            continue;
        };
        let seen = run_cell(event, stage);
        if seen != expected {
            differences.push_str(&format!(
                "\n{event:?} at {stage:?}\n  expected {expected:?}\n  actual   {seen:?}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "the outcomes differ from the table:{differences}"
    );
}

#[test]
fn nothing() {
    check_every_stage(Event::Nothing);
}

#[test]
fn cancel() {
    check_every_stage(Event::Cancel);
}

#[test]
fn cancel_from_above() {
    check_every_stage(Event::CancelFromAbove);
}

#[test]
fn cancel_pending() {
    check_every_stage(Event::CancelPending);
}

#[test]
fn session_deleted() {
    check_every_stage(Event::SessionDeleted);
}

#[test]
fn parent_deleted() {
    check_every_stage(Event::ParentDeleted);
}

#[test]
fn session_error() {
    check_every_stage(Event::SessionError);
}

#[test]
fn session_aborted() {
    check_every_stage(Event::SessionAborted);
}

#[test]
fn idle() {
    check_every_stage(Event::Idle);
}

#[test]
fn resume() {
    check_every_stage(Event::Resume);
}

#[test]
fn resume_twice_at_once() {
    check_every_stage(Event::ResumeTwice);
}

#[test]
fn send() {
    check_every_stage(Event::Send);
}

#[test]
fn track_known() {
    check_every_stage(Event::TrackKnown);
}

#[test]
fn reparent() {
    check_every_stage(Event::Reparent);
}

#[test]
fn take_over() {
    check_every_stage(Event::TakeOver);
}

#[test]
fn limit_raised() {
    check_every_stage(Event::LimitRaised);
}

#[test]
fn limit_lowered() {
    check_every_stage(Event::LimitLowered);
}

#[test]
fn server_unreachable() {
    check_every_stage(Event::Unreachable);
}

#[test]
fn parent_aborted() {
    check_every_stage(Event::ParentAborted);
}

#[test]
fn parent_aborted_with_its_tasks() {
    check_every_stage(Event::ParentAbortedWithTasks);
}

#[test]
fn shutdown() {
    check_every_stage(Event::Shutdown);
}

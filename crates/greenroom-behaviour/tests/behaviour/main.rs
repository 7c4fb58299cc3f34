//! Tests of the rules of behaviour, each a story in virtual time under the default profile. One module per heading of the
//! behaviour page. The harness runs the real actors against the scripted agent server of [`server`].

mod call_log;
mod call_outcome;
mod fixtures;
mod harness;
mod server;
mod server_events;

mod cancel_resume_track;
mod concurrency;
mod crash_recovery;
mod launch_and_start;
mod matrix;
mod memory;
mod notifying_the_parent;
mod ordinary;
mod panics;
mod retention;
mod shutdown;
mod slots_and_panics;
mod task_lifecycle;
mod watching;

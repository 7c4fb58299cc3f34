//! The rules of behaviour, each told as a story under virtual time in the default profile. One module per heading; a
//! test's name is the rule it holds the system to. `stage` is where they are told, on the agent server of `server`.

mod cast;
mod fate;
mod happenings;
mod record;
mod server;
mod stage;

mod a_task;
mod across_crashes;
mod cancel_resume_track;
mod concurrency;
mod launch_and_start;
mod matrix;
mod memory;
mod panics;
mod remembering;
mod shutdown;
mod slots_and_panics;
mod telling_the_parent;
mod watching;

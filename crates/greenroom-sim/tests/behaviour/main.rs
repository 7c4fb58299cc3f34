//! The rules of behaviour, each told as a story under virtual time in the default profile. One module per heading; a
//! test's name is the rule it holds the system to.

mod server;
mod stage;

mod a_task;
mod cancel;
mod concurrency;
mod launch_and_start;
mod remembering;
mod resume;
mod shutdown;
mod slots_and_panics;
mod telling_the_parent;
mod track;
mod unreachable;
mod watching;

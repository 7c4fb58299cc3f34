//! The ordinary life of opencode: instances end, users revert sessions, and runs continue.

mod cut_off;
mod reverted;

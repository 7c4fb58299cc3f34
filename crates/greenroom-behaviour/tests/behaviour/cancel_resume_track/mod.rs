//! Cancel, resume, send and track.

mod cancel;
mod cancel_races;
mod resume;
mod track;

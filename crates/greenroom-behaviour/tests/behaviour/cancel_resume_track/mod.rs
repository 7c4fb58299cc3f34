//! Cancel, resume, send and track.

mod cancel;
mod resume;
mod stages;
mod track;

//! Runs `greenroom serve` in a separate process on a scripted agent server, and reads the kernel's counters of it: memory,
//! wake-ups, the time until it is ready.

pub mod agent;
pub mod load;
pub mod sample;
pub mod service;

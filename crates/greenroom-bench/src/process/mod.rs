//! The service as people run it: `greenroom serve` in a process of its own, on an agent server that is scripted here.
//! What is measured there is told by the kernel: memory, wake-ups, the time until it is ready.

pub mod agent;
pub mod load;
pub mod sample;
pub mod service;

//! What the core once got wrong, and must not again: each test is named by the promise that it guards. The simulator
//! finds such things by chance; here each is led to its place, step by step.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acknowledgements;
mod flash;
mod links;
mod memory;
mod packets;
mod queue;
mod sessions;
mod wires;
mod world;

//! The program as its user has it: a process that is killed, stopped, starved of disk and watched from outside. Each
//! test is named by the promise that it holds the program to, and prints its figures (`--nocapture` shows them).
//!
//! `LARDER_BINARY` names another binary than Cargo's, such as a released one. `LARDER_BACKLOG` is the length of the
//! backlog, `LARDER_SEED` the seed of the moments at which the broker is killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "this is a program of its own, with its own clock and its own standard streams"
)]

mod backlog;
mod broker;
#[allow(dead_code, reason = "the crash tests ask for more")]
mod calls;
mod client;
mod durable;
mod exactly_once;
mod failing;
mod flash;
mod full;
mod kill;
mod load;
mod memory;
mod qos2;
mod random;
mod shutdown;
mod stall;
mod start;
mod trace;

//! The network against real sockets of this machine.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test waits with a clock of its own, and prints"
)]
#![allow(clippy::unwrap_used, missing_docs)]

mod child;
mod harness;
mod links;
mod listeners;
mod process;

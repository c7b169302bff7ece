//! The network against real sockets of this machine.

#![allow(clippy::unwrap_used, missing_docs)]

mod child;
mod harness;
mod links;
mod listeners;
mod process;

//! The store, through its public interface: the same conversations with SQLite and with the store in memory, random
//! batches given to both, and what only a disk can do.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits with a clock of its own"
)]
#![allow(clippy::unwrap_used, missing_docs)]

mod damage;
mod differential;
mod disk;
mod fixture;
#[allow(dead_code, reason = "the crash tests ask for more")]
mod harness;
mod life;
mod suite;

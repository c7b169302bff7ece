//! Faults that were found once, each held by the promise that it broke: the core alone, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod acknowledgements;
mod classes;
mod drops;
mod fan_out;
mod flash;
mod large;
mod latest;
mod links;
mod memory;
mod orders;
mod packet_ids;
mod packets;
mod policies;
mod qos2;
mod queue;
mod retained;
mod sessions;
mod shed;
mod walks;
mod will_lives;
mod wills;
mod wires;
mod world;

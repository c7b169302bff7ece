//! The targets, as tests/fuzz has them.

#![allow(dead_code, unused_imports, missing_docs, clippy::all)]

#[path = "../../regressions/flash.rs"]
mod flash;
#[path = "../../store/harness.rs"]
mod harness;
#[path = "../../regressions/packets.rs"]
mod packets;
#[path = "../targets/mod.rs"]
mod targets;
#[path = "../../regressions/wires.rs"]
mod wires;
#[path = "../../regressions/world.rs"]
mod world;

pub fn decode(input: &[u8]) {
    targets::decode(input);
}
pub fn conversation(input: &[u8]) {
    targets::conversation(input);
}
pub fn stored(input: &[u8]) {
    targets::stored(input);
}
pub fn configuration(input: &[u8]) {
    targets::configuration(input);
}

//! The codec from outside: packets byte by byte, round trips, broken rules, damage.
#![allow(clippy::unwrap_used)]

mod forbidden;
mod mutation;
mod round_trip;
mod samples;
mod standard;

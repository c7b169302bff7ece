//! What Larder tells of itself.

pub mod log;

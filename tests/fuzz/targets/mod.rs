//! The targets. Each takes any bytes, and panics if a promise is broken.

mod configuration;
mod conversation;
mod decode;
mod stored;

pub(crate) use configuration::configuration;
pub(crate) use conversation::{PASS, SEND, Step, conversation, write_step};
pub(crate) use decode::decode;
pub(crate) use stored::{records, stored};

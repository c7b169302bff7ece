//! Larder, an MQTT broker for the edge of the network.

pub mod cli;
pub mod clock;
pub mod config;
pub mod net;
pub mod observe;
pub mod record;
pub mod store;
pub mod time;

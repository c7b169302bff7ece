//! Larder, an MQTT broker for the edge of the network.

pub mod broker;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod limits;
pub mod net;
pub mod observe;
pub mod record;
pub mod server;
pub mod store;
pub mod time;

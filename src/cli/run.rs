//! `larder run`: puts the parts together and turns until it is told to stop.

use super::{EXIT_CONFIG, RunArguments, configuration};
use crate::broker::{
    Broker, ConfiguredSession, Order, QueueClass, QueuePolicy, QueueRule, Rate, WhenFull,
};
use crate::budget;
use crate::clock::SystemClock;
use crate::config::{
    self, Bind, BridgeConfig, ClassConfig, Config, LANES_MAX, QueueConfig, ShownSize,
};
use crate::limits::{BRIDGE_WINDOW_BYTES, Limits, SESSION_LANES};
use crate::net::{Listen, Sockets};
use crate::observe;
use crate::record::{Recovered, SubscriptionRecord};
use crate::server::Server;
use crate::store::{self, Threads};
use crate::time::{Clock, Now};
use larder_bridge::{Handle, LocalAddress, TimeFloor};
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The private socket, in `data_dir`: bridges and administration speak MQTT over it.
const PRIVATE_SOCKET: &str = "private.sock";

/// Runs the broker until SIGTERM or SIGINT.
pub fn run(arguments: RunArguments) -> ExitCode {
    let config = match configuration(arguments) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let _log = match observe::log::init(config.log.level) {
        Ok(guard) => guard,
        Err(error) => return fail(&error),
    };
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &(impl Error + ?Sized)) -> ExitCode {
    // Nobody is left to be told where standard error cannot be written.
    let _ = writeln!(io::stderr(), "larder: {error}");
    ExitCode::from(EXIT_CONFIG)
}

fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    budget::check(config)?;
    make_data_dir(&config.data_dir)?;
    let private = config.data_dir.join(PRIVATE_SOCKET);

    // The store first: its lock says whether somebody else runs here already.
    let waker = LateWaker::default();
    let (store, recovered) = store::open(
        &store::Options {
            data_dir: config.data_dir.clone(),
            disk_max: config.store.disk_max,
        },
        {
            let waker = waker.clone();
            move || waker.wake()
        },
    )?;
    if let Some(salvaged) = &recovered.salvaged {
        log::error!("store: {salvaged}");
    }
    let mut clock = SystemClock::new(recovered.service, recovered.wall);
    let now = clock.now();
    let broker = recovered_broker(config, &recovered, now);

    let listeners: Vec<Listen> = config
        .listeners
        .iter()
        .map(|listener| listen(&listener.bind))
        .collect();
    let mut sockets = Sockets::bind(
        &listeners,
        Some(private.clone()),
        budget::socket_options(config),
    )?;
    waker.set(sockets.waker());
    sockets.catch_shutdown()?;
    announce(config, &sockets, &recovered);
    drop(recovered);

    let mut server = Server::new(sockets, store, broker, now);
    // A certificate is judged by no earlier time, whatever the wall clock says.
    let time_floor = TimeFloor::default();
    time_floor.set(now.wall_floor.unwrap_or(0));
    let bridges = start_bridges(config, &private, now, &time_floor)?;
    while !server.net().shutdown_requested() {
        server.turn(&mut clock);
        time_floor.set(server.now().wall_floor.unwrap_or(0));
    }
    log::info!("stopping: told to by SIGTERM or SIGINT");
    // While they stop, what they still send waits in its sender's session.
    bridges.into_iter().for_each(Handle::stop);
    server.shut_down(&mut clock);
    let (_, store): (Sockets, Threads) = server.into_parts();
    store.shutdown();
    log::info!("stopped");
    Ok(())
}

/// The core with everything that the store has found and the configuration names, before a listener opens.
fn recovered_broker(config: &Config, recovered: &Recovered, now: Now) -> Broker {
    let mut broker = Broker::new(limits(config), seed(), now);
    let queues: Vec<QueueRule> = config.queues.iter().map(queue_rule).collect();
    broker.set_policies(&queues);
    broker.recover(recovered, now);
    let configured: Vec<ConfiguredSession> = config.bridges.iter().map(bridge_session).collect();
    for client_id in broker.configure(&configured, now) {
        log::warn!(
            "session {client_id}: no longer named by the configuration; it keeps its subscriptions and its queue \
             until it is named again"
        );
    }
    broker.set_sys_interval(config.sys.interval, now);
    broker
}

/// The capacities that the configuration moves.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    let of = &config.limits;
    let pools = budget::pools(config);
    Limits {
        links: of.links,
        sessions: of.sessions,
        packet_max: of.packet_max,
        receive_maximum: of.receive_maximum,
        window: of.receive_maximum,
        session_expiry_max: u32::try_from(of.session_expiry_max.as_secs()).unwrap_or(u32::MAX - 1),
        keep_alive_max: of
            .keep_alive_max
            .map(|longest| u16::try_from(longest.as_secs()).unwrap_or(u16::MAX)),
        subscriptions_per_session: of.subscriptions_per_session,
        publish_rate: of.publish_rate,
        publish_bytes_rate: of.publish_bytes_rate,
        subscription_pool_bytes: pools.subscription_bytes,
        alias_pool_bytes: pools.alias_bytes,
        batch_bytes: pools.batch_bytes,
        buffer_pool_bytes: pools.buffer_bytes,
        transient_pool_bytes: pools.transient_bytes,
        retained_pool_bytes: pools.retained_bytes,
        held_max: budget::held_max(config),
        will_pool_bytes: budget::will_pool_bytes(config),
        disk_max: config.store.disk_max,
        session_disk_max: config.store.session_disk_max,
        settle_wait: config.store.settle_wait,
        park_max: config.store.park_max,
    }
}

fn queue_rule(queue: &QueueConfig) -> QueueRule {
    let policy = QueuePolicy {
        bytes_max: queue.max_bytes,
        messages_max: queue.max_messages.unwrap_or(u64::MAX),
        age_max: queue.max_age,
        when_full: when_full(queue.when_full),
        qos0: queue.qos0,
        rate: Rate {
            messages: queue.rate,
            bytes: queue.rate_bytes,
        },
        share: queue.share,
        order: order(queue.order),
    };
    let class = |class: &ClassConfig| QueueClass {
        name: class.name.clone(),
        filters: class.filters.clone(),
        policy: QueuePolicy {
            bytes_max: class.max_bytes,
            messages_max: class.max_messages.unwrap_or(u64::MAX),
            age_max: class.max_age,
            when_full: when_full(class.when_full),
            share: class.share,
            order: order(class.order),
            ..policy.clone()
        },
        reserve: class.reserve,
    };
    QueueRule {
        client_id: queue.client_id.clone(),
        classes: queue.classes.iter().map(class).collect(),
        policy,
    }
}

const _: () = assert!(
    LANES_MAX == SESSION_LANES,
    "there are as many lanes as the configuration may ask for"
);

fn when_full(of: config::WhenFull) -> WhenFull {
    match of {
        config::WhenFull::DropOldest => WhenFull::DropOldest,
        config::WhenFull::KeepLatest => WhenFull::KeepLatest,
        config::WhenFull::DropNewest => WhenFull::DropNewest,
        config::WhenFull::Reject => WhenFull::Reject,
    }
}

fn order(of: config::Order) -> Order {
    match of {
        config::Order::Fifo => Order::Fifo,
        config::Order::LiveFirst => Order::LiveFirst,
        config::Order::NewestFirst => Order::NewestFirst,
    }
}

/// A bridge is a client of a session that the configuration names: what it forwards queues there from the first second.
fn bridge_session(bridge: &BridgeConfig) -> ConfiguredSession {
    let subscriptions = bridge.forward.iter().map(|rule| {
        let record = SubscriptionRecord {
            qos: rule.qos as u8,
            no_local: true,
            // The cloud is to retain what is retained here; what is there when the bridge is new is forwarded once.
            retain_as_published: true,
            retain_handling: 1,
            ..SubscriptionRecord::default()
        };
        (rule.filter.clone(), record)
    });
    ConfiguredSession {
        client_id: format!("$larder/bridge/{}", bridge.name),
        subscriptions: subscriptions.collect(),
        disk_max: bridge.disk_max,
        window: bridge.window,
        window_bytes: BRIDGE_WINDOW_BYTES as u64,
    }
}

fn start_bridges(
    config: &Config,
    private: &Path,
    now: Now,
    time_floor: &TimeFloor,
) -> Result<Vec<Handle>, Box<dyn Error>> {
    let mut handles = Vec::with_capacity(config.bridges.len());
    for bridge in &config.bridges {
        let bridge = larder_bridge::Config {
            name: bridge.name.clone(),
            urls: bridge.urls.clone(),
            tls: bridge.tls.clone(),
            version: bridge.version,
            client_id: bridge.client_id.clone(),
            username: bridge.username.clone(),
            password: bridge
                .password
                .as_ref()
                .map(|password| password.0.clone().into_bytes()),
            forward: bridge.forward.clone(),
            receive: bridge.receive.clone(),
            window: bridge.window,
            packet_max: config.limits.packet_max,
            keep_alive: bridge.keep_alive,
            reconnect_min: bridge.reconnect_min,
            reconnect_max: bridge.reconnect_max,
            return_after: bridge.return_after,
        };
        let local = LocalAddress::Unix(private.to_owned());
        let seed = seed() ^ now.mono.0;
        handles.push(larder_bridge::start(
            bridge,
            local,
            seed,
            time_floor.clone(),
            |_| {},
        )?);
    }
    Ok(handles)
}

fn listen(bind: &Bind) -> Listen {
    match bind {
        Bind::Tcp(address) => Listen::Tcp(*address),
        Bind::Unix(path) => Listen::Unix(path.clone()),
    }
}

fn make_data_dir(path: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(path).map_err(|error| {
        format!(
            "data_dir {}: cannot be made: {error}; choose another with data_dir or --data",
            path.display()
        )
        .into()
    })
}

/// Says in one line where it listens and where it keeps its data.
fn announce(config: &Config, sockets: &Sockets, recovered: &Recovered) {
    let mut places = Vec::new();
    for (index, listener) in (0..).zip(&config.listeners) {
        places.push(
            sockets
                .address(index)
                .map_or_else(|| listener.bind.to_string(), |address| address.to_string()),
        );
    }
    let queued: u64 = recovered
        .sessions
        .iter()
        .filter_map(|session| session.extent)
        .map(|extent| extent.messages)
        .sum();
    log::info!(
        "larder {} listens on {}; data in {} ({} sessions, {queued} messages queued, {} used)",
        env!("CARGO_PKG_VERSION"),
        places.join(", "),
        config.data_dir.display(),
        recovered.sessions.len(),
        ShownSize(recovered.disk_used),
    );
}

/// Not predictable to a peer: it decides assigned Client Identifiers and hash tables.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// The store starts before the network whose waker it uses.
#[derive(Clone, Default)]
struct LateWaker(std::sync::Arc<std::sync::OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl LateWaker {
    fn set(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Set once, by `serve`.
        let _ = self.0.set(Box::new(wake));
    }

    fn wake(&self) {
        if let Some(wake) = self.0.get() {
            wake();
        }
    }
}

/// Where the private socket of a broker with this data directory is.
#[must_use]
pub fn private_socket(data_dir: &Path) -> PathBuf {
    data_dir.join(PRIVATE_SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_take_as_many_lanes_as_the_configuration_counts() {
        for counted in config::Order::ALL {
            let taken = order(counted);
            assert_eq!(taken.lanes(), counted.lanes());
            assert_eq!(taken.lanes_of_rest(), counted.lanes_of_rest());
        }
    }
}

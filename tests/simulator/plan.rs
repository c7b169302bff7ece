//! What a life is like: who takes part, how large everything is, and what may go wrong. All of it follows from the seed.

use crate::client::{self, Acks, Manners, Publishes};
use crate::clock::Millis;
use crate::oracle::{CLOUD, GATEWAY};
use crate::random::Random;
use crate::wire::Subscription;
use larder::broker::{Order, QueueClass, QueuePolicy, QueueRule, WhenFull};
use larder::limits::Limits;
use larder_packet::{Qos, Version};
use std::time::Duration;

/// What befalls somebody when the world has made so many steps.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    pub step: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A server is killed. `commits`: what it had given to the disk still becomes durable.
    Kill { server: usize, commits: bool },
    /// The link of a client is cut.
    Cut { client: usize },
}

/// A life, before it is lived.
#[derive(Clone)]
pub struct Plan {
    pub seed: u64,
    /// The clients, and whose they are.
    pub clients: Vec<(usize, client::Plan)>,
    pub bridge: bool,
    pub limits: [Limits; 2],
    /// The queues of subscribers have classes.
    pub classes: bool,
    /// And keep the latest of every topic when they are full.
    pub keeps_latest: bool,
    /// In what order leave what is in no class, and what is in the first.
    pub orders: [Order; 2],
    pub bridge_disk_max: u64,
    pub bridge_window: u16,
    pub cloud_version: Version,
    pub cloud_away_until: Millis,
    pub wall_trusted: bool,
    /// The longest ordinary commit, read, way of a packet.
    pub commit_max: Millis,
    pub read_max: Millis,
    pub latency_max: Millis,
    /// Mean time between faults; 0: none.
    pub chaos_every: Millis,
    /// A crash that would come is spared but for one in so many; 0: all are.
    pub crash_one_in: u64,
    /// The longest stall of a disk, a link, the way to the cloud.
    pub stall_max: Millis,
    /// The most failures of a disk in a row.
    pub failures_max: u64,
    pub suspends: bool,
    /// Whether a client that is not concerned must be answered at once, always.
    pub strict_probe: bool,
    /// How long the storm lasts.
    pub storm: Millis,
    pub blows: Vec<Blow>,
}

/// With this begin the Client Identifiers of those whose queues may have classes.
pub const CLASSED: &str = "s";

const ORDERS: [Order; 3] = [Order::Fifo, Order::LiveFirst, Order::NewestFirst];

impl Plan {
    /// The policies of queues at a server.
    pub fn rules(&self, at: usize) -> Vec<QueueRule> {
        if !self.classes {
            return Vec::new();
        }
        let (when_full, messages_max) = match self.keeps_latest {
            true => (WhenFull::KeepLatest, 2 + self.seed / 8 % 30),
            false => (WhenFull::DropOldest, u64::MAX),
        };
        let policy = QueuePolicy {
            when_full,
            messages_max,
            order: self.orders[0],
            ..QueuePolicy::drop_oldest(self.limits[at].session_disk_max)
        };
        let class = |name: &str, filters: &[&str], part: u64, order| QueueClass {
            name: name.to_owned(),
            filters: filters.iter().map(|of| (*of).to_owned()).collect(),
            policy: QueuePolicy {
                bytes_max: policy.bytes_max / part,
                order,
                ..policy.clone()
            },
            reserve: 0,
        };
        let classes = vec![
            class("a", &["t/a", "up/#"], 2, self.orders[1]),
            class("c", &["t/c/#", "site42/#"], 1, Order::Fifo),
        ];
        let client_id = format!("{CLASSED}*");
        vec![QueueRule {
            client_id,
            policy,
            classes,
        }]
    }

    /// The life that a seed stands for.
    pub fn of_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x5EED_0F1A_2DE2);
        let random = &mut random;
        let bridge = random.one_in(3);
        let marathon = !bridge && random.one_in(60);
        let storm = random.between(10, 240) * 1000;
        let limits = [limits(random), limits(random)];
        let mut clients = Vec::new();
        let publishers = if marathon { 1 } else { random.between(1, 3) };
        for _ in 0..publishers {
            let topics = if bridge {
                &["t/a", "t/c/d", "up/a", "up/b"][..]
            } else {
                &["t/a", "t/b", "t/c/d"][..]
            };
            clients.push((GATEWAY, publisher(random, topics, storm, marathon)));
        }
        let filters = ["t/#", "t/a", "t/+", "t/c/#", "t/c/d"];
        let subscribers = if marathon { 1 } else { random.between(1, 4) };
        for _ in 0..subscribers {
            clients.push((GATEWAY, subscriber(random, &filters, storm)));
        }
        if bridge {
            clients.push((
                GATEWAY,
                subscriber(random, &["down/#", "up/#", "down/x"], storm),
            ));
            let filters = ["site42/up/#", "site42/up/a", "site42/#"];
            clients.push((CLOUD, subscriber(random, &filters, storm)));
            if random.one_in(2) {
                clients.push((
                    CLOUD,
                    publisher(random, &["site42/down/x", "site42/down/y"], storm, false),
                ));
            }
        }
        clients.push((GATEWAY, probe()));
        for (index, (_, client)) in clients.iter_mut().enumerate() {
            client.index = index as u16;
            client.client_id = format!("{}{index}", client.client_id);
        }
        let quiet_links = random.one_in(6);
        let strict_probe = limits[GATEWAY].buffer_pool_bytes >= 1 << 20;
        Plan {
            seed,
            clients,
            bridge,
            classes: !marathon && seed % 4 == 3,
            keeps_latest: !marathon && seed % 8 == 7,
            orders: match !marathon && seed % 8 == 3 {
                true => [
                    ORDERS[(seed / 8 % 3) as usize],
                    ORDERS[(seed / 24 % 3) as usize],
                ],
                false => [Order::Fifo; 2],
            },
            bridge_disk_max: limits[GATEWAY].session_disk_max * 4,
            limits,
            bridge_window: *random.pick(&[1, 2, 8, 64]),
            cloud_version: *random.pick(&[Version::V311, Version::V5]),
            cloud_away_until: 0,
            wall_trusted: random.one_in(2),
            commit_max: *random.pick(&[5, 40, 400, 5000]),
            read_max: *random.pick(&[2, 20, 500]),
            latency_max: *random.pick(&[1, 20, 300]),
            chaos_every: if quiet_links {
                0
            } else {
                *random.pick(&[300, 1500, 6000])
            },
            crash_one_in: *random.pick(&[0, 1, 1, 4]),
            stall_max: *random.pick(&[1000, 20_000, 120_000]),
            failures_max: *random.pick(&[0, 3, 30]),
            suspends: random.one_in(3),
            strict_probe,
            storm,
            blows: Vec::new(),
        }
    }

    /// A life without chance in it: `clients`, and what befalls them.
    pub fn quiet(clients: Vec<(usize, client::Plan)>, bridge: bool, blows: Vec<Blow>) -> Plan {
        Plan {
            seed: 1,
            clients,
            bridge,
            limits: [roomy(), roomy()],
            classes: false,
            keeps_latest: false,
            orders: [Order::Fifo; 2],
            bridge_disk_max: 1 << 20,
            bridge_window: 8,
            cloud_version: Version::V5,
            cloud_away_until: 0,
            wall_trusted: false,
            commit_max: 40,
            read_max: 1,
            latency_max: 1,
            chaos_every: 0,
            crash_one_in: 0,
            stall_max: 0,
            failures_max: 0,
            suspends: false,
            strict_probe: false,
            storm: 8_000,
            blows,
        }
    }
}

/// Limits at which nothing is short.
pub fn roomy() -> Limits {
    Limits {
        links: 64,
        sessions: 32,
        packet_max: 64 * 1024,
        batch_bytes: 256 * 1024,
        buffer_pool_bytes: 4 << 20,
        disk_max: 1 << 30,
        session_disk_max: 64 << 20,
        ..Limits::default()
    }
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits {
        receive_maximum: *random.pick(&[1, 2, 8, 64]),
        window: *random.pick(&[1, 2, 8, 64]),
        ..roomy()
    };
    if random.one_in(4) {
        limits.batch_bytes = *random.pick(&[700, 2000]);
    }
    if random.one_in(6) {
        limits.buffer_pool_bytes = *random.pick(&[24, 64, 128]) * 1024;
    }
    if random.one_in(5) {
        limits.disk_max = random.between(3, 20) * 1024;
    }
    if random.one_in(4) {
        limits.session_disk_max = random.between(500, 4000);
    }
    if random.one_in(6) {
        limits.transient_pool_bytes = random.between(200, 4000) as usize;
    }
    if random.one_in(6) {
        limits.park_max = Duration::from_millis(random.between(100, 1000));
    }
    if random.one_in(6) {
        limits.publish_rate = Some(*random.pick(&[20, 50]));
        limits.publish_bytes_rate = random.one_in(2).then_some(10_000);
    }
    limits
}

fn client(random: &mut Random, client_id: &str, storm: Millis) -> client::Plan {
    let version = *random.pick(&[Version::V311, Version::V5]);
    let expiry = match (version, random.below(8)) {
        (_, 0 | 1) => 0,
        (Version::V311, _) => u32::MAX,
        (Version::V5, 2) => 20,
        (Version::V5, _) => 3600,
    };
    client::Plan {
        client_id: client_id.to_owned(),
        index: 0,
        version,
        expiry,
        keep_alive: *random.pick(&[0, 5, 30, 60]),
        receive_maximum: match version {
            Version::V311 => u16::MAX,
            Version::V5 => *random.pick(&[1, 2, 20, u16::MAX]),
        },
        packet_max: match version {
            Version::V5 if random.one_in(8) => 150,
            _ => 1 << 20,
        },
        publishes: None,
        subscribes: Vec::new(),
        manners: Manners {
            acks: Acks::Within(0),
            twice_in: 0,
            refuses_in: 0,
        },
        comes: None,
        whims: *random.pick(&[0, 0, 5_000, 30_000]),
        away: *random.pick(&[100, 5_000, 60_000, storm]),
        probe: false,
    }
}

fn publisher(random: &mut Random, topics: &[&str], storm: Millis, marathon: bool) -> client::Plan {
    let total = if marathon {
        random.between(5_000, 12_000)
    } else {
        random.between(1, 120)
    };
    let every = if random.one_in(4) { 5 } else { storm / total };
    client::Plan {
        publishes: Some(Publishes {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            every: if marathon { 3 } else { every },
            total: total as u32,
            at_most_once_in: *random.pick(&[0, 3, 10]),
            exactly_once_in: *random.pick(&[0, 1, 2, 3]),
            expires_in: *random.pick(&[0, 0, 5]),
            payload_max: *random.pick(&[20, 300, 300]),
            window: *random.pick(&[1, 10, 64]),
        }),
        whims: if marathon {
            0
        } else {
            *random.pick(&[0, 0, 0, 20_000])
        },
        ..client(random, "p", storm)
    }
}

fn subscriber(random: &mut Random, filters: &[&str], storm: Millis) -> client::Plan {
    let count = random.between(1, 2);
    let mut subscribes: Vec<Subscription> = Vec::new();
    for _ in 0..count {
        let filter = (*random.pick(filters)).to_owned();
        if subscribes.iter().all(|of| of.filter != filter) {
            subscribes.push(Subscription {
                filter,
                qos: match random.below(6) {
                    0 => Qos::AtMostOnce,
                    1..3 => Qos::AtLeastOnce,
                    _ => Qos::ExactlyOnce,
                },
                no_local: false,
            });
        }
    }
    let acks = match random.below(8) {
        0 => Acks::InTheCalm,
        1 => Acks::Unordered(2_000),
        2..5 => Acks::Within(0),
        5 | 6 => Acks::Within(500),
        _ => Acks::Within(20_000),
    };
    client::Plan {
        subscribes,
        manners: Manners {
            acks,
            twice_in: *random.pick(&[0, 0, 0, 3]),
            refuses_in: *random.pick(&[0, 0, 0, 5]),
        },
        ..client(random, "s", storm)
    }
}

/// What is published in a small world.
#[derive(Clone, Copy, Debug)]
pub struct Few {
    pub messages: u32,
    /// Each so manieth has QoS 2; 0: none.
    pub exactly_once_in: u64,
    /// How many are under way at a time.
    pub window: usize,
    pub version: Version,
    /// Session Expiry Interval of the publisher.
    pub expiry: u32,
}

/// One publisher of a few messages, and one stored subscriber, which comes first: here, or at the cloud behind the bridge.
pub fn one_of_each(bridge: bool, few: Few) -> Vec<(usize, client::Plan)> {
    let plain = client::Plan {
        version: few.version,
        whims: 0,
        away: 1,
        probe: false,
        publishes: None,
        subscribes: Vec::new(),
        ..probe()
    };
    let (at, topic, filter) = if bridge {
        (CLOUD, "up/a", "site42/up/a")
    } else {
        (GATEWAY, "t/a", "t/a")
    };
    let publisher = client::Plan {
        client_id: "p0".to_owned(),
        comes: Some(100),
        publishes: Some(Publishes {
            topics: vec![topic.to_owned()],
            every: 50,
            total: few.messages,
            at_most_once_in: 0,
            exactly_once_in: few.exactly_once_in,
            expires_in: 0,
            payload_max: 20,
            window: few.window,
        }),
        expiry: few.expiry,
        ..plain.clone()
    };
    let subscriber = client::Plan {
        client_id: "s1".to_owned(),
        index: 1,
        comes: Some(1),
        expiry: 3600,
        subscribes: vec![Subscription {
            filter: filter.to_owned(),
            qos: Qos::ExactlyOnce,
            no_local: false,
        }],
        ..plain
    };
    vec![(GATEWAY, publisher), (at, subscriber)]
}

/// It publishes to itself, volatile throughout: nothing of what it does rests on the disk.
fn probe() -> client::Plan {
    client::Plan {
        client_id: "probe".to_owned(),
        index: 0,
        version: Version::V5,
        expiry: 0,
        keep_alive: 0,
        receive_maximum: u16::MAX,
        packet_max: 1 << 20,
        publishes: Some(Publishes {
            topics: vec!["probe/x".to_owned()],
            every: 400,
            total: u32::MAX,
            at_most_once_in: 2,
            exactly_once_in: 3,
            expires_in: 0,
            payload_max: 20,
            window: 10,
        }),
        subscribes: vec![Subscription {
            filter: "probe/#".to_owned(),
            qos: Qos::AtLeastOnce,
            no_local: false,
        }],
        manners: Manners {
            acks: Acks::Within(0),
            twice_in: 0,
            refuses_in: 0,
        },
        comes: None,
        whims: 0,
        away: 0,
        probe: true,
    }
}

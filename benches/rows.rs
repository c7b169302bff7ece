//! The rows: what is measured, by name.

use crate::broker::{Kind, Needs};
use crate::crowd::Form;
use crate::load::Traffic;
use larder_packet::Qos;

/// The rows by which other brokers were compared.
pub(crate) const PEERS: &str = "peers";
/// What a message costs, and what it should not grow with.
const GROWTH: &str = "growth";
/// Bytes written for each durable message.
const FLASH: &str = "flash";

/// One row; it may have several figures.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) group: &'static str,
    pub(crate) about: String,
    pub(crate) work: Work,
    pub(crate) figures: Vec<Figure>,
    /// For which brokers it is.
    pub(crate) kinds: &'static [Kind],
}

/// What a row measures.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) decimals: usize,
    /// Of the best of five other brokers to Debian's mosquitto.
    pub(crate) best: Option<f64>,
}

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Messages a second through the broker, beside clients that do nothing.
    Flow(Traffic, Beside),
    /// Messages a second into the queue of a session that is away, and out of it.
    Absent(Traffic),
    /// Latency at so many messages a second.
    Latency(Traffic, f64),
    /// Resident memory at the start and with so many links.
    Memory(usize),
    /// Time from the start to the first CONNACK.
    Start(Backlog),
    /// Bytes written at so many messages a second.
    Flash {
        traffic: Traffic,
        rate: f64,
        is_present: bool,
    },
}

/// How long a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    Messages(u64),
    /// As many as the command line says.
    AsAsked,
}

/// What is there besides the traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) clients: usize,
    /// Subscriptions of each.
    pub(crate) subscriptions: usize,
    pub(crate) form: Form,
    /// Messages for a session that is away.
    pub(crate) backlog: Backlog,
}

const NOTHING: Beside = Beside {
    clients: 0,
    subscriptions: 0,
    form: Form::Exact,
    backlog: Backlog::Messages(0),
};

const ALL: &[Kind] = &Kind::ALL;
const BROKERS: &[Kind] = &[Kind::Larder, Kind::Mosquitto];
const LARDER: &[Kind] = &[Kind::Larder];

impl Row {
    /// By its own name or its group's.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name || self.group == name
    }

    pub(crate) fn needs(&self) -> Needs {
        let crowd = match self.work {
            Work::Flow(_, beside) => beside.clients * beside.subscriptions > 500,
            Work::Memory(_) => true,
            _ => false,
        };
        let backlog = match self.work {
            Work::Flow(_, beside) => beside.backlog != Backlog::Messages(0),
            Work::Start(backlog) => backlog != Backlog::Messages(0),
            _ => false,
        };
        Needs { crowd, backlog }
    }
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = peers();
    rows.extend(growth());
    rows.extend(flash());
    rows
}

fn peers() -> Vec<Row> {
    let fan_in = Traffic {
        name: "traffic",
        publishers: 20,
        subscribers: 1,
        topics: 1,
        qos: Qos::AtMostOnce,
        payload: 100,
        window: 50,
        stored: false,
    };
    let qos1 = Traffic {
        qos: Qos::AtLeastOnce,
        ..fan_in
    };
    let stored = Traffic {
        stored: true,
        ..qos1
    };
    let pairs = Traffic {
        subscribers: 20,
        topics: 20,
        ..qos1
    };
    let one = Traffic {
        publishers: 1,
        window: 1,
        ..stored
    };
    let flow = |name, about, traffic, best| Row {
        name: String::from(name),
        group: PEERS,
        about: String::from(about),
        work: Work::Flow(traffic, NOTHING),
        figures: vec![rate("", Some(best))],
        kinds: ALL,
    };
    let other = |name, about, work, figures| Row {
        name: String::from(name),
        group: PEERS,
        about: String::from(about),
        work,
        figures,
        kinds: BROKERS,
    };
    vec![
        flow(
            "fan-in-0",
            "20 publishers, 1 subscriber, QoS 0",
            fan_in,
            18.0,
        ),
        flow("fan-in-1", "20 → 1, QoS 1", qos1, 16.8),
        flow(
            "fan-in-2",
            "20 → 1, QoS 2",
            Traffic {
                qos: Qos::ExactlyOnce,
                ..fan_in
            },
            14.2,
        ),
        flow(
            "fan-out",
            "1 → 50, QoS 0",
            Traffic {
                publishers: 1,
                subscribers: 50,
                window: 200,
                ..fan_in
            },
            29.4,
        ),
        flow("pairs", "20 times 1 → 1, QoS 1", pairs, 10.2),
        flow(
            "pairs-1k",
            "10 times 1 → 1, QoS 1, 1 KiB",
            Traffic {
                publishers: 10,
                subscribers: 10,
                topics: 10,
                payload: 1024,
                ..qos1
            },
            9.3,
        ),
        flow("stored", "20 → 1 stored and present, QoS 1", stored, 9.9),
        flow(
            "stored-one",
            "1 → 1 stored, one message at a time",
            one,
            1.4,
        ),
        other(
            "absent",
            "20 → 1 stored and away, QoS 1",
            Work::Absent(stored),
            vec![rate("queued", Some(4.6)), rate("drained", Some(4.9))],
        ),
        other(
            "latency",
            "1 → 1, QoS 1, 1,000 msg/s",
            Work::Latency(
                Traffic {
                    publishers: 1,
                    ..qos1
                },
                1000.0,
            ),
            vec![
                figure("p50", "ms", 3, None),
                figure("p99", "ms", 3, Some(0.74)),
                figure("max", "ms", 3, None),
            ],
        ),
        other(
            "memory",
            "10,000 links with a subscription each",
            Work::Memory(10_000),
            vec![
                figure("RSS idle", "MB", 2, Some(0.39)),
                figure("a link", "bytes", 0, Some(1.0)),
                figure("RSS", "MB", 2, Some(1.0)),
            ],
        ),
        other(
            "start",
            "start to CONNACK",
            Work::Start(Backlog::Messages(0)),
            vec![figure("", "ms", 2, Some(0.85))],
        ),
        other(
            "start-backlog",
            "start to CONNACK with a backlog (--backlog)",
            Work::Start(Backlog::AsAsked),
            vec![figure("", "ms", 2, None)],
        ),
    ]
}

fn growth() -> Vec<Row> {
    let mut rows = Vec::new();
    for (suffix, qos) in [("-0", Qos::AtMostOnce), ("-1", Qos::AtLeastOnce)] {
        let traffic = Traffic {
            name: "traffic",
            publishers: 20,
            subscribers: 1,
            topics: 1,
            qos,
            payload: 100,
            window: 50,
            stored: qos != Qos::AtMostOnce,
        };
        let mut push = |name: String, about: String, traffic, beside| {
            rows.push(Row {
                name: name + suffix,
                group: GROWTH,
                about: format!("{about}, QoS {}", qos as u8),
                work: Work::Flow(traffic, beside),
                figures: vec![rate("", None)],
                kinds: LARDER,
            });
        };
        for clients in [10, 100, 1_000, 10_000] {
            let beside = Beside {
                clients,
                subscriptions: 1,
                ..NOTHING
            };
            let about = format!("20 → 1 beside {clients} links");
            push(format!("links-{clients}"), about, traffic, beside);
        }
        for (form, name) in [
            (Form::Exact, "exact"),
            (Form::Plus, "plus"),
            (Form::Hash, "hash"),
        ] {
            for (clients, subscriptions) in [(10, 1), (10, 100), (100, 1_000)] {
                let count = clients * subscriptions;
                let beside = Beside {
                    clients,
                    subscriptions,
                    form,
                    ..NOTHING
                };
                let about = format!("20 → 1 beside {count} subscriptions ({name})");
                push(format!("filters-{name}-{count}"), about, traffic, beside);
            }
        }
        for subscribers in [1, 10, 100] {
            let traffic = Traffic {
                publishers: 1,
                subscribers,
                window: 50,
                ..traffic
            };
            let about = format!("1 → {subscribers}, cost of a delivery");
            push(format!("receivers-{subscribers}"), about, traffic, NOTHING);
        }
        for (name, backlog) in [
            ("backlog-0", Backlog::Messages(0)),
            ("backlog-100000", Backlog::Messages(100_000)),
            ("backlog-asked", Backlog::AsAsked),
        ] {
            let beside = Beside { backlog, ..NOTHING };
            let about = format!("20 → 1 beside a session that is away ({name})");
            push(name.to_owned(), about, traffic, beside);
        }
    }
    rows
}

fn flash() -> Vec<Row> {
    let mut rows = Vec::new();
    for (is_present, word) in [(true, "present"), (false, "absent")] {
        for rate in [1, 10, 100, 1_000] {
            let traffic = Traffic {
                name: "traffic",
                publishers: 1,
                subscribers: 1,
                topics: 1,
                qos: Qos::AtLeastOnce,
                payload: 100,
                window: 50,
                stored: true,
            };
            rows.push(Row {
                name: format!("flash-{word}-{rate}"),
                group: FLASH,
                about: format!("1 → 1 stored and {word}, QoS 1, {rate} msg/s"),
                work: Work::Flash {
                    traffic,
                    rate: f64::from(rate),
                    is_present,
                },
                figures: vec![
                    figure("process", "B/msg", 0, None),
                    figure("device", "B/msg", 0, None),
                ],
                kinds: BROKERS,
            });
        }
    }
    rows
}

fn rate(label: &'static str, best: Option<f64>) -> Figure {
    figure(label, "msg/s", 0, best)
}

fn figure(label: &'static str, unit: &'static str, decimals: usize, best: Option<f64>) -> Figure {
    Figure {
        label,
        unit,
        decimals,
        best,
    }
}

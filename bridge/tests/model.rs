//! The relay between two modelled brokers, over thousands of random lives.
//!
//! A modelled broker does what a broker does with a durable session: it has a queue of messages for the bridge, sends
//! them in order within its Receive Maximum, forgets one when its ack comes, and sends the unacknowledged ones again on
//! the next link. Every fifth life has brokers that exceed the Receive Maximum. Links have delay in both directions, and are cut at any moment, with all that is on them.

use bytes::Bytes;
use larder_bridge::message::{Message, Properties};
use larder_bridge::relay::{Action, CloseReason, Counters, Relay, Side, Terms};
use larder_bridge::rule::Rule;
use larder_packet::Qos;
use std::collections::VecDeque;

const SEEDS: u64 = 3_000;
const STEPS: u64 = 400;

#[test]
fn acknowledged_means_delivered_in_order_and_everything_drains() {
    let mut cuts = 0;
    for seed in 0..SEEDS {
        cuts += Life::new(seed).run();
    }
    assert!(cuts > SEEDS, "the lives were too quiet: {cuts} cuts");
}

struct Life {
    seed: u64,
    random: u64,
    relay: Relay,
    window: u16,
    local: Broker,
    cloud: Broker,
    cuts: u64,
}

#[derive(Default)]
struct Broker {
    /// Numbers of the messages owed to the bridge, the oldest first.
    queue: VecDeque<u64>,
    /// How many of them are sent and unacknowledged; their packet identifiers count up from `tag`.
    in_flight: usize,
    tag: u16,
    published: u64,
    /// Numbers from the other broker, in the order of their arrival.
    delivered: Vec<u64>,
    link: Option<Link>,
}

#[derive(Default)]
struct Link {
    receive_maximum: u16,
    to_bridge: VecDeque<ToBridge>,
    to_broker: VecDeque<ToBroker>,
    unacknowledged: u16,
}

enum ToBridge {
    Publish { tag: u16, number: u64 },
    Ack { id: u64 },
}

enum ToBroker {
    Publish { id: u64, number: u64 },
    Ack { tag: u16 },
}

impl Life {
    fn new(seed: u64) -> Self {
        let rule = |filter: &str| Rule {
            filter: filter.into(),
            strip_prefix: String::new(),
            add_prefix: "x/".into(),
            qos: Qos::AtLeastOnce,
        };
        let window = 1 + (seed % 7) as u16;
        Self {
            seed,
            random: seed,
            relay: Relay::new(
                vec![rule("up")],
                vec![rule("down")],
                window,
                Counters::default(),
            ),
            window,
            local: Broker::default(),
            cloud: Broker::default(),
            cuts: 0,
        }
    }

    fn run(mut self) -> u64 {
        for now in 0..STEPS {
            self.step(now);
            self.carry_out(now);
        }
        for now in STEPS.. {
            self.carry_out(now);
            for side in [Side::Local, Side::Cloud] {
                if self.broker(side).link.is_none() {
                    self.link(side);
                }
            }
            let moved = [Side::Local, Side::Cloud].map(|side| {
                let sent = self.send(side);
                sent | self.arrive_at_bridge(side, now) | self.arrive_at_broker(side)
            });
            if moved == [false, false] && self.relay.poll_action(now).is_none() {
                break;
            }
            assert!(
                now < STEPS * 100,
                "seed {}: it does not come to rest",
                self.seed
            );
        }
        for side in [Side::Local, Side::Cloud] {
            let seed = self.seed;
            let published = self.broker(side).published;
            assert!(
                self.broker(side).queue.is_empty(),
                "seed {seed}: stuck at the {side}"
            );
            let arrivals = &self.broker(side.other()).delivered;
            let mut expected = 0;
            for number in arrivals {
                assert!(
                    *number <= expected,
                    "seed {seed}: {number} came before {expected}"
                );
                expected = expected.max(number + 1);
            }
            assert_eq!(
                expected,
                published,
                "seed {seed}: missing at the {}",
                side.other()
            );
        }
        assert_eq!(self.relay.counters().set_aside(), 0);
        self.cuts
    }

    fn step(&mut self, now: u64) {
        let side = if self.chance(2) {
            Side::Local
        } else {
            Side::Cloud
        };
        match self.below(16) {
            0..4 => {
                let broker = self.broker(side);
                broker.queue.push_back(broker.published);
                broker.published += 1;
            }
            4..8 => {
                self.send(side);
            }
            8..11 => {
                self.arrive_at_bridge(side, now);
            }
            11..15 => {
                self.arrive_at_broker(side);
            }
            _ => {
                if self.broker(side).link.is_none() {
                    self.link(side);
                } else if self.chance(2) {
                    self.cut(side);
                }
            }
        }
    }

    fn link(&mut self, side: Side) {
        let receive_maximum = 1 + self.below(8) as u16;
        let broker = self.broker(side);
        broker.link = Some(Link {
            receive_maximum,
            ..Link::default()
        });
        broker.in_flight = 0;
        broker.tag += 100;
        self.relay.linked(
            side,
            Terms {
                session_present: true,
                receive_maximum,
                ..Terms::default()
            },
        );
    }

    fn cut(&mut self, side: Side) {
        self.broker(side).link = None;
        self.relay.unlinked(side, false);
        self.cuts += 1;
    }

    /// The broker sends the next message of its queue, within the window that the bridge announced.
    fn send(&mut self, side: Side) -> bool {
        let careless = self.seed % 5 == 0;
        let window = usize::from(self.window) * if careless { 3 } else { 1 };
        let broker = self.broker(side);
        let (Some(link), Some(number)) = (&mut broker.link, broker.queue.get(broker.in_flight))
        else {
            return false;
        };
        if broker.in_flight >= window {
            return false;
        }
        let tag = broker.tag + broker.in_flight as u16;
        link.to_bridge.push_back(ToBridge::Publish {
            tag,
            number: *number,
        });
        broker.in_flight += 1;
        true
    }

    fn arrive_at_bridge(&mut self, side: Side, now: u64) -> bool {
        let Some(arrival) = self
            .broker(side)
            .link
            .as_mut()
            .and_then(|link| link.to_bridge.pop_front())
        else {
            return false;
        };
        match arrival {
            ToBridge::Ack { id } => self.relay.acknowledged(side, id, 0),
            ToBridge::Publish { tag, number } => {
                let topic = if side == Side::Local { "up" } else { "down" };
                let message = Message {
                    topic: topic.into(),
                    qos: Qos::AtLeastOnce,
                    retain: false,
                    properties: Properties::default(),
                    payload: Bytes::copy_from_slice(&number.to_be_bytes()),
                };
                self.relay.message(side, tag, message, now);
            }
        }
        true
    }

    fn arrive_at_broker(&mut self, side: Side) -> bool {
        let seed = self.seed;
        let Some(link) = self.broker(side).link.as_mut() else {
            return false;
        };
        match link.to_broker.pop_front() {
            None => return false,
            Some(ToBroker::Publish { id, number }) => {
                link.unacknowledged -= 1;
                link.to_bridge.push_back(ToBridge::Ack { id });
                self.broker(side).delivered.push(number);
            }
            Some(ToBroker::Ack { tag }) => {
                self.relay.acknowledgement_written(side);
                let broker = self.broker(side);
                assert_eq!(
                    tag, broker.tag,
                    "seed {seed}: acks out of order, or of another link"
                );
                let number = broker.queue.pop_front();
                broker.tag += 1;
                broker.in_flight -= 1;
                let other = self.broker(side.other());
                let delivered = number.is_some_and(|number| other.delivered.contains(&number));
                assert!(
                    delivered,
                    "seed {seed}: {number:?} acknowledged and not delivered"
                );
            }
        }
        true
    }

    fn carry_out(&mut self, now: u64) {
        while let Some(action) = self.relay.poll_action(now) {
            let seed = self.seed;
            match action {
                Action::Publish { to, id, message } => {
                    let number = message.payload[..].try_into().map(u64::from_be_bytes);
                    let number = number.unwrap_or_else(|_| panic!("seed {seed}: another payload"));
                    let link = self.broker(to).link.as_mut();
                    let link = link.unwrap_or_else(|| panic!("seed {seed}: sent without a link"));
                    link.unacknowledged += 1;
                    assert!(
                        link.unacknowledged <= link.receive_maximum,
                        "seed {seed}: above the Receive Maximum"
                    );
                    link.to_broker.push_back(ToBroker::Publish { id, number });
                }
                Action::Acknowledge { to, tag } => {
                    let link = self.broker(to).link.as_mut();
                    let link =
                        link.unwrap_or_else(|| panic!("seed {seed}: acknowledged without a link"));
                    link.to_broker.push_back(ToBroker::Ack { tag });
                }
                Action::Close {
                    side,
                    reason: CloseReason::WindowExceeded,
                } if seed % 5 == 0 => {
                    while self.arrive_at_broker(side) {}
                    self.cut(side);
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
    }

    fn broker(&mut self, side: Side) -> &mut Broker {
        match side {
            Side::Local => &mut self.local,
            Side::Cloud => &mut self.cloud,
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// splitmix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

//! A life of random batches: sessions and lanes that come and go, and all that can be said of them.

use crate::harness::{Fill, payload};
use larder::record::{
    Batch, Change, LaneRecord, Seq, SessionRecord, SubscriptionRecord, WillRecord,
};
use larder::time::ServiceSeconds;
use larder_packet::Qos;
use std::collections::BTreeMap;

/// What the batches so far have made, as far as making the next one needs it.
#[derive(Clone, Default)]
pub(crate) struct Life {
    pub(crate) last_key: u64,
    service: u64,
    /// Of each session and lane alive: rows, bytes and the last number so far.
    queues: BTreeMap<u64, (u64, u64, Seq)>,
    /// Of each lane, its session and its number there.
    lanes: BTreeMap<u64, (u64, u8)>,
}

impl Life {
    pub(crate) fn batch(&mut self, random: &mut Random) -> Batch {
        self.service += random.below(50);
        let wall = (random.below(2) == 0).then_some(1_700_000_000 + self.service);
        let mut fill = Fill::at(self.service, wall);
        for _ in 0..random.below(12) {
            fill = self.change(fill, random);
        }
        fill.done()
    }

    fn change(&mut self, mut fill: Fill, random: &mut Random) -> Fill {
        let some_key = 1 + random.below(self.last_key + 1);
        let last = self.queues.get(&some_key).map_or(5, |&(_, _, last)| last);
        let is_lane = self.lanes.contains_key(&some_key);
        match random.below(29) {
            0 => {
                self.last_key += 1;
                self.queues.insert(self.last_key, (0, 0, 0));
                fill.session(
                    self.last_key,
                    &format!("client {}", self.last_key),
                    record(random),
                )
            }
            1 if self.queues.contains_key(&some_key) && !is_lane => {
                fill.session(some_key, &format!("client {some_key}"), record(random))
            }
            2 => fill.reserve(some_key, last + random.below(1_000)),
            3 if random.below(3) == 0 => {
                let gone = |lane: &u64, lanes: &BTreeMap<u64, (u64, u8)>| {
                    lanes.get(lane).is_some_and(|(of, _)| *of == some_key)
                };
                if is_lane {
                    self.queues.remove(&some_key);
                    self.lanes.remove(&some_key);
                    return fill.end_lane(some_key);
                }
                self.queues.remove(&some_key);
                self.queues.retain(|lane, _| !gone(lane, &self.lanes));
                self.lanes.retain(|_, (of, _)| *of != some_key);
                fill.end(some_key)
            }
            20 | 21 => self.lane(fill, some_key, random),
            4 | 5 if !is_lane => {
                let qos = u8::try_from(random.below(3)).unwrap();
                let record = SubscriptionRecord {
                    qos,
                    ..SubscriptionRecord::default()
                };
                fill.subscribe(some_key, &format!("filter/{}", random.below(6)), record)
            }
            6 => fill.unsubscribe(some_key, &format!("filter/{}", random.below(6))),
            7 => {
                let range = (random.below(last + 1), random.below(last + 5));
                let keep = u32::try_from(random.below(4)).unwrap();
                let maybe_sent = keep + u32::try_from(random.below(20)).unwrap();
                let (ever, stay) = (random.below(5), random.below(3_000));
                fill.drop_sent(some_key, (maybe_sent, keep), range, ever, stay)
            }
            8..=10 => fill.settle(some_key, random.below(last + 3)),
            11 | 12 => fill.received(some_key, random.below(last + 3)),
            13 | 14 if !is_lane => fill.hold(some_key, packet_id(random)),
            15 => fill.release(some_key, packet_id(random)),
            16 | 17 => {
                let (topic, qos) = (format!("topic/{}", random.below(9)), qos(random));
                fill.retain(&topic, &some_payload(random), qos)
            }
            18 => fill.unretain(&format!("topic/{}", random.below(9))),
            19 if !is_lane => fill.will(some_key, &some_payload(random), will(random)),
            22 => fill.no_will(some_key),
            _ => {
                let topic = format!("some/topic/{}", random.below(5));
                let message = fill.message(&topic, &some_payload(random));
                let size = u64::from(fill.peek(message).len());
                let share = 1 + random.below(3);
                for (&key, (rows, bytes, last)) in &mut self.queues {
                    if random.below(share) == 0 {
                        *last += 1 + random.below(2);
                        fill.owe_after(message, key, *last, *rows, *bytes);
                        if random.below(40) == 0 {
                            fill.not_indexed();
                        }
                        *rows += 1;
                        *bytes += size;
                    }
                }
                match random.below(4) {
                    0 => fill.change(Change::Retain {
                        message,
                        qos: qos(random),
                    }),
                    _ => fill,
                }
            }
        }
    }
}

impl Life {
    /// A lane of some session that is there or was, or another name for one.
    fn lane(&mut self, fill: Fill, session: u64, random: &mut Random) -> Fill {
        let name = format!("class {}", random.below(9));
        if let Some(&(of, number)) = self.lanes.get(&session) {
            let record = LaneRecord { number, start: 9 };
            return fill.lane(session, of, record, &name);
        }
        let taken = self.lanes.values().filter(|(of, _)| *of == session).count();
        let number = u8::try_from(taken + 1).unwrap();
        // Numbers of lanes that have ended are not used again here.
        let is_taken = self.lanes.values().any(|of| *of == (session, number));
        if !self.queues.contains_key(&session) || is_taken {
            return fill;
        }
        self.last_key += 1;
        self.queues.insert(self.last_key, (0, 0, 0));
        self.lanes.insert(self.last_key, (session, number));
        let record = LaneRecord {
            number,
            start: random.below(1 << 40),
        };
        fill.lane(self.last_key, session, record, &name)
    }
}

fn some_payload(random: &mut Random) -> Vec<u8> {
    let size_max = 1 << random.below(13);
    let size = usize::try_from(random.below(size_max)).unwrap();
    payload(random.next(), size)
}

fn packet_id(random: &mut Random) -> u16 {
    u16::try_from(1 + random.below(9) * 8_191).unwrap()
}

fn qos(random: &mut Random) -> Qos {
    Qos::from_u8(u8::try_from(random.below(3)).unwrap()).unwrap()
}

fn will(random: &mut Random) -> WillRecord {
    WillRecord {
        qos: qos(random) as u8,
        retain: random.below(2) == 0,
        delay_interval: u32::try_from(random.below(1 << 32)).unwrap(),
        message_expiry_interval: (random.below(2) == 0).then_some(7),
    }
}

fn record(random: &mut Random) -> SessionRecord {
    SessionRecord {
        expiry_interval: u32::try_from(random.below(1 << 32)).unwrap(),
        left_at: (random.below(2) == 0).then(|| ServiceSeconds(random.below(1 << 40))),
        configured: random.below(2) == 0,
    }
}

/// SplitMix64.
#[derive(Clone, Copy)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

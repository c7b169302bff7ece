//! Lives of Wills: clients come, go and take over from themselves, the disk stalls and is full, the power goes. In the end
//! each Will has come to its reader once or not at all, as the standard says [MQTT 3.1.2.5, 3.1.3.2.2].

use crate::packets::Connect;
use crate::world::World;
use larder::limits::Limits;
use larder::net::LinkId;
use std::time::Duration;

const LIVES: u64 = 2000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// What is to become of a Will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its link stands.
    Standing,
    /// Its link has ended; it is due then, if no new link comes first.
    Waits(Duration),
    /// It is to come.
    Due,
    /// It is not to come.
    Gone,
    /// Both is right: the power went before what decided it was on disk.
    Either,
}

struct Will {
    delay: Duration,
    expiry: Duration,
    fate: Fate,
    /// The CONNACK of its CONNECT has come.
    is_acknowledged: bool,
    /// What decided its fate is on disk.
    is_recorded: bool,
}

impl Will {
    fn is_stored(&self) -> bool {
        !self.expiry.is_zero()
    }

    fn decide(&mut self, fate: Fate) {
        if self.fate != Fate::Either {
            (self.fate, self.is_recorded) = (fate, false);
        }
    }

    /// Its link ends, and nothing says that its session does.
    fn link_ends(&mut self, now: Duration) {
        let wait = self.delay.min(self.expiry);
        self.decide(match wait.is_zero() {
            true => Fate::Due,
            false => Fate::Waits(now + wait),
        });
    }

    /// The power goes.
    fn crash(&mut self, now: Duration, is_disk_full: bool) {
        let is_known = self.is_acknowledged;
        match self.fate {
            Fate::Standing if is_known && !self.is_stored() => self.decide(Fate::Gone),
            Fate::Standing | Fate::Waits(_) if is_known => self.link_ends(now),
            // It is due again after the start.
            Fate::Due if is_known && self.is_stored() && self.delay.is_zero() && !is_disk_full => {}
            Fate::Due | Fate::Gone if self.is_recorded => {}
            _ => self.decide(Fate::Either),
        }
    }
}

struct Client {
    id: &'static str,
    expiry: Duration,
    link: Option<LinkId>,
    is_connected: bool,
    /// Its Will, by its number.
    will: Option<usize>,
    /// The one before, while no CONNACK has come.
    before: Option<usize>,
}

/// A life, from a seed (SplitMix64).
struct Life {
    random: u64,
    world: Option<World>,
    now: Duration,
    clients: Vec<Client>,
    wills: Vec<Will>,
    is_disk_full: bool,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut life = Life {
            random: seed,
            world: None,
            now: Duration::ZERO,
            clients: Vec::new(),
            wills: Vec::new(),
            is_disk_full: false,
        };
        let batch_bytes = if life.one_in(2) { 1500 } else { 1 << 20 };
        life.world = Some(World::new(Limits {
            batch_bytes,
            ..Limits::default()
        }));
        for id in ["a", "b", "c"] {
            let expiry = [Duration::ZERO, MINUTE, DAY, DAY][life.below(4) as usize];
            life.clients.push(Client {
                id,
                expiry,
                link: None,
                is_connected: false,
                will: None,
                before: None,
            });
        }
        let reader = life.world().connect(&reader());
        life.world().subscribe(reader, "w", 1);
        life.world().lose(reader);
        life
    }

    fn below(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn live(&mut self) {
        for _ in 0..60 {
            let client = self.below(3) as usize;
            match self.below(20) {
                0..7 => self.connect(client),
                7..10 => self.lose(client),
                10..13 => self.disconnect(client),
                13 => {
                    let time = [SECOND, 10 * SECOND, 2 * MINUTE][self.below(3) as usize];
                    self.pass(time);
                }
                14 => self.world().stall(),
                15 => self.world().commit_one(),
                16 | 17 => self.world().unstall(),
                18 if self.one_in(2) => self.crash(),
                19 if self.one_in(2) => self.fill_or_empty_the_disk(),
                _ => {}
            }
            self.hear();
        }
        self.come_to_an_end();
    }

    fn connect(&mut self, client: usize) {
        let clean = self.one_in(4);
        let has_will = !self.one_in(4);
        let delay = [Duration::ZERO, Duration::ZERO, 5 * SECOND, DAY][self.below(4) as usize];
        if !self.clients[client].is_connected {
            // Of two that wait for their CONNACK nobody knows which comes first.
            self.lose(client);
        }
        let now = self.now;
        let of = &mut self.clients[client];
        if let Some(will) = of.will.map(|before| &mut self.wills[before]) {
            if of.link.is_some() {
                will.link_ends(now);
            }
            if let Fate::Waits(due) = will.fate {
                let ends = clean || due <= now;
                will.decide(if ends { Fate::Due } else { Fate::Gone });
            }
        }
        let mut connect = Connect::v5(of.id).expiry(of.expiry);
        if !clean {
            connect = connect.unclean();
        }
        of.before = of.will.take();
        if has_will {
            let payload = format!("{:0500}", self.wills.len()).leak();
            connect = connect.will("w", payload.as_bytes(), 1).will_delay(delay);
            of.will = Some(self.wills.len());
            self.wills.push(Will {
                delay,
                expiry: of.expiry,
                fate: Fate::Standing,
                is_acknowledged: false,
                is_recorded: false,
            });
        }
        of.is_connected = false;
        let link = self.world().open_with(&connect);
        self.clients[client].link = Some(link);
        self.world().settle();
    }

    /// What CONNACKs have come, and what is on disk by now.
    fn hear(&mut self) {
        self.world().settle();
        for client in 0..self.clients.len() {
            let Some(link) = self.clients[client].link else {
                continue;
            };
            let received = self.world().received(link);
            if received.first() == Some(&0x20) {
                assert_eq!(received[3], 0, "refused");
                let of = &mut self.clients[client];
                (of.is_connected, of.before) = (true, None);
                if let Some(will) = of.will {
                    self.wills[will].is_acknowledged = true;
                }
            }
        }
        if self.world().is_saved() && !self.is_disk_full {
            self.wills
                .iter_mut()
                .for_each(|will| will.is_recorded = true);
        }
    }

    /// Nobody knows what the server has made of a CONNECT without a CONNACK.
    fn doubt(&mut self, client: usize) {
        let of = &mut self.clients[client];
        for will in [of.will, of.before].into_iter().flatten() {
            self.wills[will].decide(Fate::Either);
        }
    }

    fn lose(&mut self, client: usize) {
        let of = &mut self.clients[client];
        let Some(link) = of.link.take() else { return };
        if let Some(will) = of.will.filter(|_| of.is_connected) {
            self.wills[will].link_ends(self.now);
        }
        if !std::mem::take(&mut of.is_connected) {
            self.doubt(client);
        }
        self.world().lose(link);
    }

    fn disconnect(&mut self, client: usize) {
        let (with_will, ends) = (self.one_in(2), self.one_in(3));
        let now = self.now;
        let of = &mut self.clients[client];
        let Some(link) = of.link.filter(|_| of.is_connected) else {
            return;
        };
        (of.link, of.is_connected) = (None, false);
        if let Some(will) = of.will.map(|will| &mut self.wills[will]) {
            match (with_will, ends) {
                (false, _) => will.decide(Fate::Gone),
                (true, true) => will.decide(Fate::Due),
                (true, false) => will.link_ends(now),
            }
        }
        let reason = if with_will { 4 } else { 0 };
        let disconnect = match ends {
            true => vec![0xE0, 7, reason, 5, 0x11, 0, 0, 0, 0],
            false => vec![0xE0, 1, reason],
        };
        self.world().say(link, &disconnect);
    }

    fn pass(&mut self, time: Duration) {
        self.world().pass(time);
        self.now += time;
        // A CONNECT may have been taken before or after that.
        for client in 0..self.clients.len() {
            if self.clients[client].link.is_some() && !self.clients[client].is_connected {
                self.hear();
                if !self.clients[client].is_connected {
                    self.doubt(client);
                }
            }
        }
        for will in &mut self.wills {
            if matches!(will.fate, Fate::Waits(due) if due <= self.now) {
                will.decide(Fate::Due);
            }
        }
    }

    fn crash(&mut self) {
        let world = self.world.take().unwrap();
        for client in 0..self.clients.len() {
            let of = &mut self.clients[client];
            if of.link.take().is_some() && !std::mem::take(&mut of.is_connected) {
                self.doubt(client);
            }
        }
        for will in &mut self.wills {
            will.crash(self.now, self.is_disk_full);
        }
        self.is_disk_full = false;
        self.world = Some(world.crash());
        self.world().settle();
    }

    /// It is told with the next commit.
    fn fill_or_empty_the_disk(&mut self) {
        if self.is_disk_full {
            self.world().flash().claims_used = None;
            self.world().unstall();
            self.pass(3 * SECOND);
            self.is_disk_full = false;
        } else {
            self.is_disk_full = true;
            self.world().flash().claims_used = Some(u64::MAX / 4);
        }
    }

    fn come_to_an_end(&mut self) {
        self.world().flash().claims_used = None;
        self.world().unstall();
        self.pass(3 * SECOND);
        self.hear();
        for client in 0..self.clients.len() {
            self.lose(client);
        }
        self.pass(2 * DAY);
        assert_eq!(
            self.world().gauges().sessions,
            1,
            "none is left but the reader's"
        );
        let reader = self.world().connect(&reader());
        let messages = self.world().drain(reader);
        let mut came = vec![0; self.wills.len()];
        for message in messages {
            let number = String::from_utf8_lossy(&message.payload).into_owned();
            came[number.parse::<usize>().unwrap()] += 1;
        }
        for (number, (will, came)) in self.wills.iter().zip(came).enumerate() {
            let is_right = match will.fate {
                Fate::Due => came == 1,
                Fate::Gone => came == 0,
                Fate::Either => came <= 1,
                Fate::Standing | Fate::Waits(_) => false,
            };
            assert!(
                is_right,
                "Will {number}, {:?}, has come {came} times",
                will.fate
            );
        }
    }
}

fn reader() -> Connect {
    Connect::v311("reader").unclean()
}

#[test]
fn every_will_comes_once_or_not_at_all() {
    let seed = std::env::var("WILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..LIVES, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let life = std::panic::catch_unwind(|| Life::new(seed).live());
        assert!(life.is_ok(), "WILL_SEED={seed}");
    }
}

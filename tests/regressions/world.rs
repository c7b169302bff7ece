//! A server, with the wires, the flash and the clock that a test moves by hand.

use crate::flash::{Flash, Pace};
use crate::packets::{self, Connect, Message};
use crate::wires::Wires;
use larder::broker::{Broker, ConfiguredSession, Counters, Drops, Gauges, QueueRule};
use larder::limits::Limits;
use larder::net::LinkId;
use larder::record::Recovered;
use larder::server::Server;
use larder::store::MemoryStore;
use larder::time::{Clock, Mono, Now, ServiceSeconds};
use std::collections::BTreeMap;
use std::time::Duration;

/// Turns after which a server that should have come to rest never will.
const TURNS_MAX: u32 = 100_000;
/// What the monotonic clock says when a machine has booted.
const BOOT: Duration = Duration::from_secs(20);
/// How often `$SYS` is told in a world with policies.
pub(crate) const SYS_INTERVAL: Duration = Duration::from_secs(10);

/// A server and what surrounds it. Time stands still but for [`World::pass`].
pub(crate) struct World {
    server: Server<Wires, Flash>,
    hands: Hands,
    limits: Limits,
    rules: Vec<QueueRule>,
    /// Links of MQTT 5.0.
    v5: BTreeMap<LinkId, bool>,
}

/// The clock: time since the machine booted, and time in service over all boots.
#[derive(Clone, Copy)]
struct Hands {
    mono: Duration,
    service: Duration,
}

impl Clock for Hands {
    fn now(&mut self) -> Now {
        Now {
            mono: Mono(u64::try_from(self.mono.as_millis()).unwrap()),
            service: ServiceSeconds(self.service.as_secs()),
            wall: 0,
            wall_trusted: false,
            wall_floor: None,
        }
    }
}

impl World {
    /// A server on an empty disk.
    pub(crate) fn new(limits: Limits) -> World {
        World::with_rules(limits, Vec::new())
    }

    /// The same, and some queues have policies of their own. `$SYS` is told every [`SYS_INTERVAL`].
    pub(crate) fn with_rules(limits: Limits, rules: Vec<QueueRule>) -> World {
        let hands = Hands {
            mono: 1000 * BOOT,
            service: Duration::ZERO,
        };
        let flash = Flash::new(MemoryStore::new());
        World::of(flash, &Recovered::default(), hands, limits, rules, &[])
    }

    fn of(
        flash: Flash,
        recovered: &Recovered,
        mut hands: Hands,
        limits: Limits,
        rules: Vec<QueueRule>,
        sessions: &[ConfiguredSession],
    ) -> World {
        let mut broker = Broker::new(limits.clone(), 7, hands.now());
        if !rules.is_empty() {
            broker.set_policies(&rules);
            broker.set_sys_interval(Some(SYS_INTERVAL), hands.now());
        }
        broker.recover(recovered, hands.now());
        broker.configure(sessions, hands.now());
        World {
            server: Server::new(Wires::default(), flash, broker, hands.now()),
            hands,
            limits,
            rules,
            v5: BTreeMap::new(),
        }
    }

    /// `kill -9`, and a start at the same moment.
    pub(crate) fn crash(self) -> World {
        let limits = self.limits.clone();
        self.crash_into(limits)
    }

    /// The same, and the configuration gives queues other policies.
    pub(crate) fn crash_into_rules(mut self, rules: Vec<QueueRule>) -> World {
        self.rules = rules;
        self.crash()
    }

    /// The same, and the configuration is another one.
    pub(crate) fn crash_into(self, limits: Limits) -> World {
        self.crash_naming(limits, &[])
    }

    /// The same, and the configuration names these sessions.
    pub(crate) fn crash_naming(self, limits: Limits, sessions: &[ConfiguredSession]) -> World {
        let (_, flash) = self.server.into_parts();
        let (flash, recovered) = flash.crash();
        World::of(flash, &recovered, self.hands, limits, self.rules, sessions)
    }

    /// SIGTERM, and a start at the same moment.
    pub(crate) fn restart(mut self) -> World {
        self.server.shut_down(&mut self.hands);
        self.crash()
    }

    /// SIGTERM, and a start at the same moment.
    pub(crate) fn shut_down(mut self) -> World {
        self.server.shut_down(&mut self.hands);
        self.crash()
    }

    /// The power goes, and the machine boots.
    pub(crate) fn reboot(mut self) -> World {
        self.hands.mono = BOOT;
        self.crash()
    }

    // --- Time ---

    /// One turn.
    pub(crate) fn turn(&mut self) {
        self.server.turn(&mut self.hands);
    }

    /// Turns until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            let flash = self.server.store();
            let is_flash_quiet = !flash.take_was_busy() && !flash.is_due();
            let wires = self.server.net();
            let is_asleep = wires.timeout != Some(Duration::ZERO);
            if is_flash_quiet && is_asleep && !wires.was_busy && !wires.is_due() {
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    /// Lets time pass; everything is done when it is due, to the millisecond.
    pub(crate) fn pass(&mut self, time: Duration) {
        let mut left = time;
        self.settle();
        while !left.is_zero() {
            let step = self.wires().timeout.map_or(left, |due| due.min(left));
            self.hands.mono += step;
            self.hands.service += step;
            left -= step;
            self.settle();
        }
    }

    // --- Clients ---

    /// A peer connects, and says nothing yet.
    pub(crate) fn open(&mut self) -> LinkId {
        self.wires().open()
    }

    pub(crate) fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.wires().send(link, bytes);
    }

    /// Sends, and lets the server come to rest.
    pub(crate) fn say(&mut self, link: LinkId, bytes: &[u8]) {
        self.send(link, bytes);
        self.settle();
    }

    /// A new link, with its CONNECT on the way.
    pub(crate) fn open_with(&mut self, connect: &Connect) -> LinkId {
        let link = self.open();
        self.v5.insert(link, connect.is_v5());
        self.send(link, &connect.encode());
        link
    }

    /// A new link, connected. The CONNACK is taken off.
    pub(crate) fn connect(&mut self, connect: &Connect) -> LinkId {
        let link = self.open_with(connect);
        self.settle();
        let wires = self.server.net();
        let received = wires.take_received(link);
        let is_accepted = received.first() == Some(&0x20) && received.get(3) == Some(&0);
        assert!(is_accepted, "{received:02x?} is no CONNACK of success");
        let behind = 2 + usize::from(received[1]);
        wires.put_back(link, &received[behind..]);
        link
    }

    /// Subscribes to one filter; it must be granted.
    pub(crate) fn subscribe(&mut self, link: LinkId, filter: &str, qos: u8) {
        let is_v5 = self.is_v5(link);
        self.say(
            link,
            &packets::subscribe(is_v5, 1, &[filter.to_owned()], qos),
        );
        let suback = match is_v5 {
            true => vec![0x90, 4, 0, 1, 0, qos],
            false => vec![0x90, 3, 0, 1, qos],
        };
        assert_eq!(self.received(link), suback);
    }

    /// Publishes from a 3.1.1 link at QoS 1; it must be acknowledged.
    pub(crate) fn publish(&mut self, link: LinkId, topic: &str, payload: &[u8]) {
        self.say(link, &packets::publish_1(topic, 1, payload));
        assert_eq!(self.received(link), packets::puback(1));
    }

    /// The same with each of these numbers as payload.
    pub(crate) fn publish_all(
        &mut self,
        link: LinkId,
        topic: &str,
        numbers: impl IntoIterator<Item: ToString>,
    ) {
        for number in numbers {
            self.publish(link, topic, number.to_string().as_bytes());
        }
    }

    /// What has come on a link since this was last asked.
    pub(crate) fn received(&mut self, link: LinkId) -> Vec<u8> {
        let received = self.wires().take_received(link);
        if self.is_v5(link) {
            packets::without_reason_strings(&received)
        } else {
            received
        }
    }

    /// The same, where nothing but messages can have come.
    pub(crate) fn messages(&mut self, link: LinkId) -> Vec<Message> {
        let received = self.received(link);
        packets::messages(self.is_v5(link), &received)
    }

    /// Acknowledges those of QoS 1.
    pub(crate) fn acknowledge(&mut self, link: LinkId, messages: &[Message]) {
        for message in messages.iter().filter(|message| message.packet_id > 0) {
            self.say(link, &packets::puback(message.packet_id));
        }
    }

    /// Takes and acknowledges messages until no more come.
    pub(crate) fn drain(&mut self, link: LinkId) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let messages = self.messages(link);
            if messages.is_empty() {
                return all;
            }
            self.acknowledge(link, &messages);
            all.extend(messages);
        }
    }

    /// The link breaks.
    pub(crate) fn lose(&mut self, link: LinkId) {
        self.wires().lose(link);
        self.settle();
    }

    /// The peer reads again, from the next turn on.
    pub(crate) fn let_read(&mut self, link: LinkId) {
        self.wires().read_only(link, usize::MAX);
    }

    /// The peer reads so many more bytes, and then no more.
    pub(crate) fn read_only(&mut self, link: LinkId, bytes: usize) {
        self.wires().read_only(link, bytes);
        self.settle();
    }

    /// The links that were written to since this was last asked, in their order.
    pub(crate) fn written(&mut self) -> Vec<LinkId> {
        self.wires().take_written()
    }

    pub(crate) fn is_closed(&mut self, link: LinkId) -> bool {
        self.wires().is_closed(link)
    }

    // --- What can be seen ---

    pub(crate) fn flash(&mut self) -> &mut Flash {
        self.server.store()
    }

    /// The disk commits nothing from now on.
    pub(crate) fn stall(&mut self) {
        self.settle();
        self.flash().pace = Pace::ReadsOnly;
    }

    /// The disk commits one batch, and then nothing again.
    pub(crate) fn commit_one(&mut self) {
        self.flash().pace = Pace::OneBatch;
        self.settle();
    }

    /// The disk is prompt again.
    pub(crate) fn unstall(&mut self) {
        self.flash().pace = Pace::Prompt;
        self.settle();
    }

    /// Whether everything is on disk.
    pub(crate) fn is_saved(&self) -> bool {
        self.server.broker().is_saved()
    }

    /// What was dropped on its way to a session, by class.
    pub(crate) fn drops_of(&self, client_id: &str) -> Vec<(Option<&str>, Drops)> {
        self.server.broker().drops_of(client_id)
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.server.broker().counters()
    }

    pub(crate) fn gauges(&self) -> Gauges {
        self.server.broker().gauges()
    }

    fn wires(&mut self) -> &mut Wires {
        self.server.net()
    }

    fn is_v5(&self, link: LinkId) -> bool {
        self.v5.get(&link).copied().unwrap_or(false)
    }
}

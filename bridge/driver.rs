//! The bridge's thread: two links, each kept by a task of its own, and the relay between them.
//!
//! Both tasks are parts of one future on one thread, so that the relay needs no lock. Each polls its link, reports the
//! event to the relay, and hands the relay's actions to whichever link they are for; that never waits.

#![expect(
    clippy::disallowed_methods,
    reason = "the driver reads the clock for the relay, whose rules have it as an argument"
)]

use crate::client::{self, Connection, Event, LinkError, NoRoom, Requests, Target};
use crate::config::Config;
use crate::redial::Redial;
use crate::relay::{Action, Millis, Reason, Relay, Side, Terms};
use crate::status::{Board, LogQuota, State, Status};
use larder_packet::{Qos, Version};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// After so many events of one link the other one has its turn.
const EVENTS_PER_TURN: u32 = 16;
/// How long a DISCONNECT may take, until the server has closed the link.
const DISCONNECT_GRACE: Duration = Duration::from_millis(200);
/// The local broker is on this machine: it is not waited for longer than that.
const LOCAL_RECONNECT_MAX: Duration = Duration::from_secs(5);
const STATE_LINES_PER_MINUTE: u32 = 12;
const SET_ASIDE_LINES_PER_MINUTE: u32 = 12;

/// What a bridge runs with, over all its restarts.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) local: Target,
    pub(crate) cloud: Vec<Target>,
    pub(crate) seed: u64,
    pub(crate) board: std::sync::Arc<Board>,
    pub(crate) listener: Box<dyn Fn(Status) + Send>,
}

impl Setup {
    /// Tells the owner about a state, if it is a new one.
    pub(crate) fn announce(&self, state: State) {
        if let Some(status) = self.board.change(state) {
            (self.listener)(status);
        }
    }
}

/// Relays until told to stop.
pub(crate) async fn run(setup: &Setup, mut stop: watch::Receiver<bool>) {
    let config = &setup.config;
    let driver = Driver {
        setup,
        stop: stop.clone(),
        inner: RefCell::new(Inner::new(setup)),
        room: Notify::new(),
        start: Instant::now(),
    };
    let redial = |addresses, max: Duration, salt| {
        let max = max.max(config.reconnect_min);
        Redial::new(addresses, config.reconnect_min, max, setup.seed ^ salt)
    };
    let local = redial(1, config.reconnect_max.min(LOCAL_RECONNECT_MAX), 1);
    let cloud = redial(setup.cloud.len(), config.reconnect_max, 2);
    let both = async {
        tokio::join!(
            driver.keep_link(Side::Local, std::slice::from_ref(&setup.local), local),
            driver.keep_link(Side::Cloud, &setup.cloud, cloud),
        )
    };
    tokio::pin!(both);
    tokio::select! {
        _ = &mut both => return,
        // An error means that the handle is gone, which is a stop as well.
        _ = stop.wait_for(|stop| *stop) => {}
    }
    for side in [Side::Local, Side::Cloud] {
        driver.inner.borrow_mut().link(side).disconnect();
    }
    driver.room.notify_one();
    // Longer is not waited for: a link that is cut loses nothing.
    let _ = tokio::time::timeout(DISCONNECT_GRACE, both).await;
}

struct Driver<'a> {
    setup: &'a Setup,
    stop: watch::Receiver<bool>,
    inner: RefCell<Inner<'a>>,
    /// Wakes the cloud's task because the relay has room again.
    room: Notify,
    start: Instant,
}

struct Inner<'a> {
    setup: &'a Setup,
    relay: Relay,
    local: Link,
    cloud: Link,
    state_lines: LogQuota,
    set_aside_lines: LogQuota,
}

#[derive(Default)]
struct Link {
    /// While there is a link to which something can be sent.
    requests: Option<Requests>,
    state: LinkState,
    /// Why it has to end.
    fault: Option<String>,
    /// Wakes its task because of that. Each link has its own, so that none ends for its predecessor.
    broken: Rc<Notify>,
}

#[derive(Default)]
enum LinkState {
    #[default]
    Connecting,
    Linked,
    Waiting {
        until: Instant,
        error: String,
    },
}

/// How an attempt to have a link ended.
enum Ended {
    NoLink(LinkError),
    Lost(LinkError),
    Stopped,
}

impl Link {
    /// Asks for a DISCONNECT, behind what was asked for before; nothing can be asked for after it.
    fn disconnect(&mut self) {
        if let Some(Err(NoRoom)) = self.requests.take().map(|requests| requests.disconnect()) {
            self.broken.notify_one();
        }
    }
}

impl Driver<'_> {
    async fn keep_link(&self, side: Side, targets: &[Target], mut redial: Redial) {
        let mut subscribed = false;
        loop {
            self.inner
                .borrow_mut()
                .change(side, LinkState::Connecting, None);
            let target = &targets[redial.address()];
            let first = targets.first().filter(|_| redial.address() > 0);
            let link = self.link(side, target, first, &mut redial, &mut subscribed);
            let (delay, error) = match link.await {
                Ended::Stopped => return,
                Ended::NoLink(error) => (redial.failed(), error),
                Ended::Lost(error) => (redial.lost(), error),
            };
            if self.stopping() {
                return;
            }
            let next = if delay.is_zero() {
                "trying the next address".to_owned()
            } else {
                format!("next attempt in {:.1} s", delay.as_secs_f32())
            };
            let line = format!("no link to the {side} ({target}): {}; {next}", error.text);
            let state = LinkState::Waiting {
                until: Instant::now() + delay,
                error: format!("{side}: {}", error.text),
            };
            self.inner.borrow_mut().change(side, state, Some(line));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stopped() => return,
            }
        }
    }

    /// Opens a link and serves it to its end. `first` is another address that would be better.
    async fn link(
        &self,
        side: Side,
        target: &Target,
        first: Option<&Target>,
        redial: &mut Redial,
        subscribed: &mut bool,
    ) -> Ended {
        let (requests, mut connection) = client::open(target);
        let connected = tokio::select! {
            connected = connected(&mut connection) => connected,
            () = self.stopped() => return Ended::Stopped,
        };
        let terms = match connected {
            Ok(terms) => terms,
            Err(error) => return Ended::NoLink(error),
        };
        let filters = match side {
            Side::Local => Vec::new(),
            Side::Cloud => self.setup.config.cloud_filters(),
        };
        // A 3.1.1 server sends its retained messages again at every SUBSCRIBE: one is enough for a session.
        let subscribed_before =
            terms.session_present && *subscribed && target.version == Version::V311;
        if !filters.is_empty() && !subscribed_before && requests.subscribe(&filters).is_err() {
            return Ended::NoLink(LinkError::ours("no room for the subscriptions"));
        }
        let since = Instant::now();
        self.inner
            .borrow_mut()
            .linked(side, target, requests, terms, self.now());
        self.room.notify_one();
        let ended = tokio::select! {
            ended = self.serve(side, &mut connection, redial, subscribed, &filters) => ended,
            () = self.return_to(side, first) => Ok(()),
        };
        if since.elapsed() >= self.setup.config.reconnect_max {
            redial.proved();
        }
        let closed_by_peer = ended.as_ref().is_err_and(|error| error.closed_by_peer);
        self.inner
            .borrow_mut()
            .unlinked(side, closed_by_peer, self.now());
        self.room.notify_one();
        match ended {
            Ok(()) => Ended::Stopped,
            Err(error) => Ended::Lost(error),
        }
    }

    /// Carries events until the link is over: `Ok` if because the bridge stops.
    async fn serve(
        &self,
        side: Side,
        connection: &mut Connection,
        redial: &mut Redial,
        subscribed: &mut bool,
        filters: &[(String, Qos)],
    ) -> Result<(), LinkError> {
        let broken = Rc::clone(&self.inner.borrow_mut().link(side).broken);
        let mut events = 0;
        loop {
            if side == Side::Cloud {
                self.wait_for_room(&broken).await?;
            }
            let event = tokio::select! {
                biased;
                () = broken.notified() => return self.inner.borrow_mut().why_disconnected(side),
                event = connection.next() => event?,
            };
            match event {
                Event::Message { .. } | Event::Acknowledged { .. } => redial.proved(),
                Event::Subscribed { ref refused } => *subscribed = refused.is_empty(),
                Event::Disconnected => {
                    let _ =
                        tokio::time::timeout(DISCONNECT_GRACE, self.read_to_end(side, connection))
                            .await;
                    return self.inner.borrow_mut().why_disconnected(side);
                }
                Event::Connected(_) | Event::Written | Event::AckWritten | Event::Other => {}
            }
            self.inner
                .borrow_mut()
                .handle(side, event, filters, self.now());
            if side == Side::Local {
                self.room.notify_one();
            }
            events += 1;
            if events % EVENTS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Asks for the end of a link as soon as a better address answers, and leaves that end to [`Self::serve`].
    async fn return_to(&self, side: Side, first: Option<&Target>) {
        if let Some(first) = first {
            loop {
                tokio::time::sleep(self.setup.config.return_after).await;
                if client::answers(first).await {
                    break;
                }
            }
            let mut inner = self.inner.borrow_mut();
            let link = inner.link(side);
            link.fault = Some(format!("{first} answers again"));
            link.disconnect();
        }
        std::future::pending().await
    }

    /// Reads on after our DISCONNECT until the server closes. A socket that is closed with unread bytes resets the
    /// connection, and the server would lose the acks that it has not read.
    async fn read_to_end(&self, side: Side, connection: &mut Connection) {
        while let Ok(event) = connection.next().await {
            if let Event::Acknowledged { .. } = event {
                self.inner.borrow_mut().handle(side, event, &[], self.now());
            }
        }
    }

    /// The cloud's link is not read while its messages find no room ([`Relay::accepts`] says why only the cloud's).
    /// rumqttc sends no PINGREQ meanwhile, so not for longer than the server lets pass.
    async fn wait_for_room(&self, broken: &Notify) -> Result<(), LinkError> {
        let full = || !self.inner.borrow().relay.accepts(Side::Cloud) && !self.stopping();
        if !full() {
            return Ok(());
        }
        let deadline = tokio::time::sleep(self.setup.config.keep_alive);
        tokio::pin!(deadline);
        while full() {
            tokio::select! {
                () = self.room.notified() => {}
                () = broken.notified() => return self.inner.borrow_mut().why_disconnected(Side::Cloud),
                () = &mut deadline => return Err(LinkError::ours("the local broker does not take its messages")),
            }
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    async fn stopped(&self) {
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

async fn connected(connection: &mut Connection) -> Result<Terms, LinkError> {
    loop {
        if let Event::Connected(terms) = connection.next().await? {
            return Ok(terms);
        }
    }
}

impl<'a> Inner<'a> {
    fn new(setup: &'a Setup) -> Self {
        let config = &setup.config;
        let counters = setup.board.read().counters;
        Self {
            setup,
            relay: Relay::new(
                config.forward.clone(),
                config.receive.clone(),
                config.window,
                counters,
            ),
            local: Link::default(),
            cloud: Link::default(),
            state_lines: LogQuota::new(STATE_LINES_PER_MINUTE),
            set_aside_lines: LogQuota::new(SET_ASIDE_LINES_PER_MINUTE),
        }
    }

    fn linked(
        &mut self,
        side: Side,
        target: &Target,
        requests: Requests,
        terms: Terms,
        now: Millis,
    ) {
        let link = self.link(side);
        *link = Link {
            requests: Some(requests),
            state: LinkState::Linked,
            ..Link::default()
        };
        self.relay.linked(side, terms);
        let session = match (terms.session_present, side) {
            (true, _) => "session resumed",
            (false, Side::Local) => {
                "but it had no session for this bridge: what was published before is not there"
            }
            (false, Side::Cloud) => "new session",
        };
        let line = format!("linked to the {side} ({target}), {session}");
        self.change(side, LinkState::Linked, Some(line));
        self.pump(now);
    }

    fn handle(&mut self, side: Side, event: Event, filters: &[(String, Qos)], now: Millis) {
        match event {
            Event::Message { tag, message } => self.relay.message(side, tag, message, now),
            Event::Acknowledged { id, reason } => self.relay.acknowledged(side, id, reason),
            Event::Written => self.relay.written(side),
            Event::AckWritten => self.relay.acknowledgement_written(side),
            Event::Subscribed { refused } => self.warn_of_refused(&refused, filters),
            Event::Connected(_) | Event::Disconnected | Event::Other => return,
        }
        self.pump(now);
    }

    fn unlinked(&mut self, side: Side, closed_by_peer: bool, now: Millis) {
        self.link(side).requests = None;
        self.relay.unlinked(side, closed_by_peer);
        self.pump(now);
    }

    /// Carries out what the relay says.
    fn pump(&mut self, now: Millis) {
        while let Some(action) = self.relay.poll_action(now) {
            match action {
                Action::Publish { to, id, message } => {
                    self.request(to, |requests| requests.publish(id, message));
                }
                Action::Acknowledge { to, tag } => {
                    self.request(to, |requests| requests.acknowledge(tag))
                }
                Action::SetAside { to, what } => {
                    self.log_set_aside(to, &what);
                    self.setup.board.set_aside(to, what);
                }
                Action::Close { side, reason } => {
                    let link = self.link(side);
                    link.fault = Some(reason.to_string());
                    link.disconnect();
                }
            }
        }
        self.setup.board.count(self.relay.counters());
    }

    fn request(&mut self, to: Side, request: impl FnOnce(&Requests) -> Result<(), NoRoom>) {
        let link = self.link(to);
        // Without a link, or after its DISCONNECT, it is not sent; the relay learns that when the link is reported ended.
        if let Some(Err(NoRoom)) = link.requests.as_ref().map(request) {
            link.fault = Some("more was to be sent than the relay allows".to_owned());
            link.broken.notify_one();
        }
    }

    /// Why we ended a link: `Ok` if only because the bridge stops.
    fn why_disconnected(&mut self, side: Side) -> Result<(), LinkError> {
        self.link(side)
            .fault
            .take()
            .map_or(Ok(()), |fault| Err(LinkError::ours(fault)))
    }

    fn change(&mut self, side: Side, state: LinkState, line: Option<String>) {
        self.link(side).state = state;
        if let Some(line) = line {
            let name = &self.setup.config.name;
            match self.state_lines.pass(Instant::now()) {
                Some(0) => log::info!(target: "bridge", "bridge {name}: {line}"),
                Some(withheld) => {
                    log::info!(target: "bridge", "bridge {name}: {line} ({withheld} lines before it left out)")
                }
                None => {}
            }
        }
        self.setup.announce(self.state());
    }

    /// Of the whole: a link that is not there says more than one that is.
    fn state(&self) -> State {
        match (&self.local.state, &self.cloud.state) {
            (LinkState::Linked, LinkState::Linked) => State::Linked,
            (LinkState::Waiting { until, error }, _) | (_, LinkState::Waiting { until, error }) => {
                State::Waiting {
                    until: *until,
                    error: error.clone(),
                }
            }
            _ => State::Connecting,
        }
    }

    fn log_set_aside(&mut self, to: Side, what: &crate::relay::SetAside) {
        let Some(withheld) = self.set_aside_lines.pass(Instant::now()) else {
            return;
        };
        let level = match what.reason {
            Reason::ClosesLinks(_) => log::Level::Error,
            _ => log::Level::Warn,
        };
        let left_out = if withheld == 0 {
            String::new()
        } else {
            format!(" ({withheld} lines before it left out)")
        };
        log::log!(
            target: "bridge",
            level,
            "bridge {}: a message of {} bytes to `{}` is set aside, the {to} does not get it: {}{left_out}",
            self.setup.config.name,
            what.payload_len,
            what.topic,
            what.reason
        );
    }

    fn warn_of_refused(&self, refused: &[usize], filters: &[(String, Qos)]) {
        for (filter, _) in refused.iter().filter_map(|index| filters.get(*index)) {
            let name = &self.setup.config.name;
            log::warn!(target: "bridge", "bridge {name}: the cloud refuses the subscription `{filter}`; nothing of it comes");
        }
    }

    fn link(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Local => &mut self.local,
            Side::Cloud => &mut self.cloud,
        }
    }
}

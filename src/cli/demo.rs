//! `larder demo`: sensors, a gateway and a cloud on one machine; the link is cut, the gateway is killed, and every message
//! is counted.
//!
//! The gateway and the cloud are this same program as two processes. The sensors, the subscriber at the cloud and the
//! link between the two brokers are threads of this one. Here are the scenes; each part has a file.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own beside the broker: it lives by the clock, as its visitor does"
)]

mod client;
mod cloud;
mod gateway;
mod link;
mod place;
mod screen;
mod sensor;
mod tally;
mod watch;

use cloud::{Cloud, Subscriber};
use gateway::{Broker, free_addresses};
use larder_packet::Version;
use link::Link;
use place::Place;
use screen::{Screen, count, size};
use sensor::{FULL, SENSORS, Sensors, WINDOW};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tally::{Tally, Totals};
use watch::Watch;

/// Messages a second of each sensor: usually, and while the link is cut.
const CALM: u32 = 25;
const HURRY: u32 = if cfg!(debug_assertions) { 500 } else { 1_250 };
const LIVE_TIME: Duration = Duration::from_secs(4);
const OUTAGE_TIME: Duration = Duration::from_secs(10);
const OUTAGE_LINE: Duration = Duration::from_secs(2);
/// So few messages are on their way when all is caught up and the sensors go on.
const CAUGHT_UP: u64 = 100;
/// The catch-up is given up if nothing arrives for so long: while the gateway has more to send, and when it has not.
const STALL_MAX: Duration = Duration::from_secs(15);
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The sensors are told to finish then, even if the catch-up is slower than they are.
const CATCH_UP_MAX: Duration = Duration::from_secs(90);
/// How long other things may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// What comes a second time comes within this time after the last one.
const LATE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);
const LOG_LINES: usize = 8;
/// As a shell counts a program that SIGINT has ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Plays all scenes, with the broker at `cloud`, or one of its own. It fails if anything acknowledged is missing.
pub fn run(cloud: Option<String>) -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&interrupted)) {
            return fail(&format!("signals cannot be caught: {error}"));
        }
    }
    let theirs = match cloud.map(|url| Cloud::at_url(&url).map(|cloud| (url, cloud))) {
        None => None,
        Some(Ok(theirs)) => Some(theirs),
        Some(Err(fault)) => return fail(&fault),
    };
    let name = random_name();
    let mut place = match Place::make(&name) {
        Ok(place) => place,
        Err(error) => return fail(&error.to_string()),
    };
    match play(&name, &place, theirs, &interrupted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted.load(Ordering::Relaxed) => {
            drop(place);
            let _ = writeln!(
                io::stderr(),
                "larder: demo: interrupted; its processes are ended and its directory is removed"
            );
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(Stop(fault)) => {
            place.keep();
            let code = fail(&fault);
            let mut lines = place.last_lines(LOG_LINES);
            lines.push(format!(
                "All that it left is in {}; remove it when you have seen it.",
                place.path().display()
            ));
            for line in lines {
                let _ = writeln!(io::stderr(), "{line}");
            }
            code
        }
    }
}

fn fail(fault: &str) -> ExitCode {
    // Nobody is left to be told where standard error cannot be written.
    let _ = writeln!(io::stderr(), "larder: demo: {fault}");
    ExitCode::FAILURE
}

/// Distinguishes this run from others, here and at a broker that others use.
fn random_name() -> String {
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{:08x}", random >> 32)
}

/// Why the scenes did not come to a good end, in words.
struct Stop(String);

impl<T: Into<String>> From<T> for Stop {
    fn from(fault: T) -> Stop {
        Stop(fault.into())
    }
}

/// Every process is ended when this returns.
fn play(
    name: &str,
    place: &Place,
    theirs: Option<(String, Cloud)>,
    interrupted: &AtomicBool,
) -> Result<(), Stop> {
    let mut stage = Stage::set(name, place.path(), theirs, interrupted)?;
    stage.link_up()?;
    stage.outage()?;
    stage.kill_and_restart()?;
    stage.catch_up()?;
    stage.account()
}

/// All who take part. They end in this order: the gateway's bridge must be gone before its session at the cloud is ended.
struct Stage<'a> {
    screen: Screen,
    interrupted: &'a AtomicBool,
    gateway: Broker,
    sensors: Sensors,
    tally: Arc<Tally>,
    watch: Watch,
    link: Link,
    _subscriber: Subscriber,
    cloud: Option<Broker>,
    measured: Measured,
}

#[derive(Debug, Default)]
struct Measured {
    rss_live: u64,
    /// The highest while messages waited.
    rss_backlog: u64,
    backlog_peak: u64,
    first_connack: Duration,
    /// Messages a second.
    catch_up: f64,
}

impl<'a> Stage<'a> {
    fn set(
        name: &str,
        directory: &Path,
        theirs: Option<(String, Cloud)>,
        interrupted: &'a AtomicBool,
    ) -> Result<Stage<'a>, Stop> {
        let mut screen = Screen::new();
        screen.title("Larder demo: a gateway that loses its cloud, its power, and no message");
        let words = |error: io::Error| error.to_string();
        let [gateway_at, cloud_at] = free_addresses().map_err(words)?;
        let (cloud, at, kind) = match theirs {
            Some((url, cloud)) => (None, cloud, format!("the broker at {url}")),
            None => {
                let broker = Broker::start(directory, "cloud", cloud_at, CLOUD_SETTINGS)?;
                let kind = format!("another Larder, pid {}, on {cloud_at}", broker.pid());
                let at = Cloud {
                    address: cloud_at,
                    version: Version::V5,
                };
                (Some(broker), at, kind)
            }
        };
        let tally = Arc::new(Tally::new(SENSORS));
        let prefix = format!("larder-demo-{name}/");
        let bridge_client_id = format!("larder-demo-{name}-bridge");
        let subscriber = Subscriber::start(
            at,
            &prefix,
            format!("larder-demo-{name}-subscriber"),
            bridge_client_id.clone(),
            &tally,
        )
        .map_err(|error| format!("cloud: {error}"))?;
        let link = Link::start(at.address).map_err(words)?;
        let settings = gateway_settings(&link, at.version, &bridge_client_id, &prefix);
        let gateway = Broker::start(directory, "gateway", gateway_at, &settings)?;
        let watch = Watch::start(gateway_at).map_err(words)?;
        let sensors = Sensors::start(gateway_at, &tally).map_err(words)?;

        screen.line(&format!("directory  {}", directory.display()));
        screen.line("           with configurations, logs and data; removed at the end");
        screen.line(&format!("cloud      {kind}"));
        screen.line(&format!(
            "gateway    pid {}, on {gateway_at}; its bridge goes to the cloud",
            gateway.pid()
        ));
        screen.line(&format!(
            "sensors    {SENSORS}, publishing at QoS 1; half of them MQTT 3.1.1, half 5.0"
        ));
        Ok(Stage {
            screen,
            interrupted,
            gateway,
            sensors,
            tally,
            watch,
            link,
            _subscriber: subscriber,
            cloud,
            measured: Measured::default(),
        })
    }

    fn link_up(&mut self) -> Result<(), Stop> {
        self.screen.heading(1, "The link is up");
        self.sensors.pace(CALM);
        self.wait_until(PATIENCE, "no message has come to the cloud", |stage| {
            stage.tally.totals().arrived > 0
        })?;
        let begin = Instant::now();
        while begin.elapsed() < LIVE_TIME {
            self.tick()?;
            let text = carried(&self.tally.totals());
            self.screen.live(&text);
        }
        let text = carried(&self.tally.totals());
        self.screen.line(&text);
        self.measured.rss_live = self.gateway.rss().unwrap_or(0);
        Ok(())
    }

    fn outage(&mut self) -> Result<(), Stop> {
        self.screen.heading(2, "The link to the cloud is cut");
        self.link.cut();
        self.screen
            .line("The sensors go on, and have more to say now.");
        self.screen
            .line("What it acknowledges waits in gateway/larder.db, not in memory:");
        let before = self.tally.totals();
        self.sensors.pace(HURRY);
        let begin = Instant::now();
        let mut next_line = OUTAGE_LINE;
        loop {
            self.tick()?;
            let (totals, elapsed) = (self.tally.totals(), begin.elapsed());
            let taken = totals.acknowledged - before.acknowledged;
            let text = format!(
                "{} at {:>6} msg/s",
                self.waiting(),
                count((taken as f64 / elapsed.as_secs_f64()) as u64)
            );
            if elapsed >= OUTAGE_TIME {
                self.screen.line(&text);
                return Ok(());
            }
            if elapsed >= next_line {
                next_line += OUTAGE_LINE;
                self.screen.line(&text);
            } else {
                self.screen.live(&text);
            }
        }
    }

    fn kill_and_restart(&mut self) -> Result<(), Stop> {
        self.screen.heading(
            3,
            "The gateway is killed in the middle of a burst (kill -9)",
        );
        let pid = self.gateway.pid();
        self.sensors.pace(FULL);
        self.tick()?;
        self.gateway.kill();
        self.sensors.pace(CALM);
        self.watch.forget();
        self.wait_for_sensors(0)?;
        let (open, resent) = (self.tally.totals().open(), self.sensors.resent());
        self.screen.line(&format!(
            "pid {pid} is gone; {} messages had been sent and not acknowledged",
            count(open)
        ));
        self.measured.first_connack = self.gateway.start_again()?;
        self.screen.line(&format!(
            "started again as pid {}: first CONNACK after {} ms",
            self.gateway.pid(),
            self.measured.first_connack.as_millis()
        ));
        self.wait_for_sensors(SENSORS)?;
        self.screen.line(&format!(
            "the sensors are back, and have sent {} messages again",
            count(self.sensors.resent() - resent)
        ));
        self.wait_until(PATIENCE, "the gateway does not tell its backlog", |stage| {
            stage.watch.backlog().is_some()
        })?;
        let text = self.waiting();
        self.screen.line(&text);
        Ok(())
    }

    fn catch_up(&mut self) -> Result<(), Stop> {
        self.screen.heading(4, "The link comes back");
        self.link.restore();
        let before = self.tally.totals();
        let begin = Instant::now();
        let (mut arrived, mut arrived_at) = (before.arrived, begin);
        let mut done = None;
        loop {
            self.tick()?;
            let (totals, now) = (self.tally.totals(), Instant::now());
            if totals.arrived > arrived {
                (arrived, arrived_at) = (totals.arrived, now);
            }
            let elapsed = now - begin;
            if done.is_none() {
                let since = arrived - before.arrived;
                self.measured.catch_up = since as f64 / elapsed.as_secs_f64();
                let sent = self.watch.backlog().is_some_and(|left| left < CAUGHT_UP);
                if totals.missing < CAUGHT_UP || sent || elapsed > CATCH_UP_MAX {
                    done = Some((elapsed, since));
                    self.sensors.finish();
                }
            }
            let all_left = self.sensors.finished() == SENSORS;
            let patience = match self.watch.backlog() {
                Some(0) => SILENCE_MAX,
                _ => STALL_MAX,
            };
            if now - arrived_at > patience || (all_left && totals.missing == 0) {
                break;
            }
            let text = format!(
                "{} of {}, {} msg/s",
                count(totals.arrived),
                count(totals.acknowledged),
                count(self.measured.catch_up as u64)
            );
            self.screen
                .progress(totals.arrived, totals.acknowledged, &text);
        }
        let line = match done {
            Some((elapsed, since)) => format!(
                "{} messages caught up in {:.1} s, {} msg/s",
                count(since),
                elapsed.as_secs_f64(),
                count(self.measured.catch_up as u64)
            ),
            None => "no more arrives".to_owned(),
        };
        self.screen.line(&line);
        let end = Instant::now();
        while end.elapsed() < LATE {
            self.tick()?;
        }
        Ok(())
    }

    fn account(&mut self) -> Result<(), Stop> {
        let rss_end = self.gateway.rss().unwrap_or(0);
        let written = self.gateway.written();
        let (totals, measured) = (self.tally.totals(), &self.measured);
        let screen = &mut self.screen;
        screen.heading(5, "The account");
        screen.row("published", &count(totals.published), "");
        let note = "by PUBACK: on disk, or at the cloud already";
        screen.row("acknowledged", &count(totals.acknowledged), note);
        screen.row("arrived", &count(totals.arrived), "at the cloud");
        let note = "acknowledged, but not arrived";
        screen.verdict_row("missing", &count(totals.missing), note, totals.missing == 0);
        let note = "sent again after the cut or the kill (QoS 1)";
        screen.row("doubled", &count(totals.doubled), note);
        let good = totals.out_of_order == 0;
        let note = "after a later one of its sensor";
        screen.verdict_row("out of order", &count(totals.out_of_order), note, good);
        let note = "messages waiting at the peak";
        screen.row("backlog", &count(measured.backlog_peak), note);
        let note = format!(
            "before, {} at the peak, {} after",
            size(measured.rss_backlog),
            size(rss_end)
        );
        screen.row("gateway RSS", &size(measured.rss_live), &note);
        let first_connack = format!("{} ms", measured.first_connack.as_millis());
        screen.row(
            "restart",
            &first_connack,
            "from its start to its first CONNACK",
        );
        match written {
            Some(written @ 1..) => {
                let each = size(written / totals.acknowledged.max(1));
                screen.row("disk writes", &each, "per message, all in all");
            }
            _ => screen.row("disk writes", "-", "not counted by this file system"),
        }
        let catch_up = count(measured.catch_up as u64);
        screen.row("catch-up", &catch_up, "messages a second");

        let fault = totals.fault().or_else(|| match totals.open() {
            0 => None,
            open => Some(format!("{open} messages were never acknowledged")),
        });
        let is_theirs = self.cloud.is_none() && totals.missing > 0;
        let fault = match fault {
            Some(fault) if is_theirs && self.watch.backlog() == Some(0) => Some(format!(
                "{fault}; the gateway has passed them on, and that broker may have dropped what its queue could not \
                 hold (Mosquitto: max_queued_messages)"
            )),
            fault => fault,
        };
        match fault {
            None => {
                screen.verdict("Nothing that was acknowledged is missing.", true);
                Ok(())
            }
            Some(fault) => {
                screen.verdict("The promise was not kept.", false);
                Err(Stop(fault))
            }
        }
    }

    /// The backlog by the gateway's own count, and its memory, which is measured by that.
    fn waiting(&mut self) -> String {
        let rss = self.gateway.rss().unwrap_or(0);
        self.measured.rss_backlog = self.measured.rss_backlog.max(rss);
        format!(
            "waiting on disk {:>7} ({:>9}), gateway RSS {:>9}",
            count(self.watch.backlog().unwrap_or(0)),
            size(self.watch.disk()),
            size(rss),
        )
    }

    fn wait_for_sensors(&mut self, connected: usize) -> Result<(), Stop> {
        let begin = Instant::now();
        while self.sensors.connected() != connected {
            if begin.elapsed() > PATIENCE {
                let now = self.sensors.connected();
                return Err(format!("{now} sensors are connected, not {connected}").into());
            }
            self.check_interrupt()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn wait_until(
        &mut self,
        patience: Duration,
        fault: &str,
        mut is_so: impl FnMut(&Stage<'_>) -> bool,
    ) -> Result<(), Stop> {
        let begin = Instant::now();
        while !is_so(self) {
            if begin.elapsed() > patience {
                return Err(format!("{fault} within {} s", patience.as_secs()).into());
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Lets a moment pass, measures, and sees that all is well.
    fn tick(&mut self) -> Result<(), Stop> {
        thread::sleep(TICK);
        self.check_interrupt()?;
        self.gateway.check()?;
        if let Some(cloud) = &mut self.cloud {
            cloud.check()?;
        }
        if let Some(trouble) = self.sensors.trouble() {
            return Err(trouble.into());
        }
        let measured = &mut self.measured;
        measured.backlog_peak = measured.backlog_peak.max(self.watch.backlog().unwrap_or(0));
        Ok(())
    }

    fn check_interrupt(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        Ok(())
    }
}

fn carried(totals: &Totals) -> String {
    format!(
        "published {}, acknowledged {}, arrived at the cloud {}",
        count(totals.published),
        count(totals.acknowledged),
        count(totals.arrived)
    )
}

const CLOUD_SETTINGS: &str = "\
[limits]
links = 16
sessions = 16
packet_max = \"8 KiB\"
receive_maximum = 1024
";

/// Delays are short, and the window is wide, for a visitor who waits.
fn gateway_settings(link: &Link, version: Version, client_id: &str, prefix: &str) -> String {
    let address: SocketAddr = link.address();
    let version = version as u8;
    format!(
        "\
[limits]
links = 64
sessions = 64
packet_max = \"8 KiB\"
receive_maximum = {WINDOW}

[[bridge]]
name = \"cloud\"
url = \"mqtt://{address}\"
version = {version}
client_id = \"{client_id}\"
forward = [{{ filter = \"sensors/#\", remote_prefix = \"{prefix}\", qos = 1 }}]
window = 1024
reconnect_min = \"200 ms\"
reconnect_max = \"1 s\"

[sys]
interval = \"1 s\"
"
    )
}

//! One broker, one row, once.

use crate::Result;
use crate::broker::{Broker, Kind};
use crate::crowd::{Crowd, Form};
use crate::load::{Load, Traffic, Until};
use crate::machine::{self, CpuTime};
use crate::options::Options;
use crate::rows::{Backlog, Beside, Row, Work};
use crate::tally::Faults;
use larder_packet::Qos;
use std::process;
use std::time::{Duration, Instant};

/// Before a rate is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// What was still to be written when the last message was acknowledged: settlements, and a file system that takes its time.
const WRITE_WAIT: Duration = Duration::from_secs(7);
const STARTS: usize = 5;

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) effort: Option<Effort>,
    pub(crate) faults: Faults,
}

/// What it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// CPU time of the broker for each message, in microseconds.
    pub(crate) cpu: f64,
    /// The part of it in the system.
    pub(crate) system: f64,
    /// Parts of the time in which broker and generator had their cores: 1 is all of it.
    pub(crate) broker_busy: f64,
    pub(crate) generator_busy: f64,
    /// Parts of the time in which they wanted it and other programs had it.
    pub(crate) broker_waited: f64,
    pub(crate) generator_waited: f64,
}

impl Effort {
    /// The generator had no time to spare, and the broker had.
    pub(crate) fn is_limited_by_generator(&self) -> bool {
        self.generator_busy + self.generator_waited > 0.95
            && self.broker_busy + self.broker_waited < 0.9
    }
}

impl From<f64> for Sample {
    fn from(value: f64) -> Sample {
        Sample {
            value,
            ..Sample::default()
        }
    }
}

/// A sample for each of the row's figures.
pub(crate) fn measure(kind: Kind, row: &Row, options: &Options) -> Result<Vec<Sample>> {
    let mut broker = Broker::start(kind, row.needs(), options)?;
    let with_window = |traffic: Traffic| Traffic {
        window: options.window.unwrap_or(traffic.window),
        ..traffic
    };
    match row.work {
        Work::Flow(traffic, beside) => flow(&broker, with_window(traffic), beside, options),
        Work::Absent(traffic) => absent(&broker, with_window(traffic), options),
        Work::Latency(traffic, rate) => latency(&broker, traffic, rate, options),
        Work::Memory(links) => memory(&broker, links),
        Work::Start(backlog) => start(&mut broker, messages(backlog, options)),
        Work::Flash {
            traffic,
            rate,
            is_present,
        } => flash(&broker, traffic, rate, is_present, options),
    }
}

fn messages(backlog: Backlog, options: &Options) -> u64 {
    match backlog {
        Backlog::Messages(messages) => messages,
        Backlog::AsAsked => options.backlog,
    }
}

/// A stretch of time, and the CPU that broker and generator had in it.
struct Stretch {
    pid: u32,
    began: Instant,
    broker: CpuTime,
    generator: CpuTime,
}

impl Stretch {
    fn begin(broker: &Broker) -> Result<Stretch> {
        let pid = broker.pid();
        Ok(Stretch {
            pid,
            began: Instant::now(),
            broker: CpuTime::of(pid)?,
            generator: CpuTime::of(process::id())?,
        })
    }

    /// The rate of so many messages, and what they took.
    fn end(&self, messages: u64) -> Result<Sample> {
        let elapsed = self.began.elapsed().as_secs_f64();
        let broker = CpuTime::of(self.pid)?.since(self.broker);
        let generator = CpuTime::of(process::id())?.since(self.generator);
        let part = |time: Duration| time.as_secs_f64() / elapsed;
        Ok(Sample {
            value: messages as f64 / elapsed,
            effort: Some(Effort {
                cpu: broker.total.as_secs_f64() * 1e6 / messages.max(1) as f64,
                system: broker.system.as_secs_f64() / broker.total.as_secs_f64(),
                broker_busy: part(broker.total),
                generator_busy: part(generator.total),
                broker_waited: part(broker.waited),
                generator_waited: part(generator.waited),
            }),
            faults: Faults::default(),
        })
    }
}

fn flow(
    broker: &Broker,
    traffic: Traffic,
    beside: Beside,
    options: &Options,
) -> Result<Vec<Sample>> {
    queue_up(broker, messages(beside.backlog, options))?;
    let _crowd = Crowd::connect(
        broker.address(),
        beside.clients,
        beside.subscriptions,
        beside.form,
    )?;
    let mut load = Load::connect(broker.address(), traffic)?;
    load.run_closed(Until::elapsed(WARM_UP))?;
    let before = load.counts().received;
    let stretch = Stretch::begin(broker)?;
    load.run_closed(Until::elapsed(options.elapsed))?;
    let mut sample = stretch.end(load.counts().received - before)?;
    load.settle()?;
    sample.faults = load.faults();
    Ok(vec![sample])
}

fn absent(broker: &Broker, traffic: Traffic, options: &Options) -> Result<Vec<Sample>> {
    let mut load = Load::connect(broker.address(), traffic)?;
    load.leave()?;
    let stretch = Stretch::begin(broker)?;
    load.run_closed(Until::elapsed(options.elapsed))?;
    load.settle()?;
    let queued = stretch.end(load.counts().acknowledged)?;

    let stretch = Stretch::begin(broker)?;
    load.come_back()?;
    load.settle()?;
    let mut drained = stretch.end(load.counts().received)?;
    drained.faults = load.faults();
    Ok(vec![queued, drained])
}

fn latency(broker: &Broker, traffic: Traffic, rate: f64, options: &Options) -> Result<Vec<Sample>> {
    let mut load = Load::connect(broker.address(), traffic)?;
    load.run_paced(rate, WARM_UP)?;
    load.take_latencies();
    let before = load.counts().received;
    let stretch = Stretch::begin(broker)?;
    load.run_paced(rate, options.elapsed * 3)?;
    load.settle()?;
    let mut sample = stretch.end(load.counts().received - before)?;
    sample.faults = load.faults();
    // It is awake while it waits, and the limit of nothing.
    if let Some(effort) = &mut sample.effort {
        effort.generator_busy = 0.0;
        effort.generator_waited = 0.0;
    }
    let latencies = load.take_latencies();
    let at = |part: f64| -> Result<Sample> {
        let index = (latencies.len() as f64 * part) as usize;
        let nanoseconds = latencies.get(index.min(latencies.len().saturating_sub(1)));
        let value = *nanoseconds.ok_or("nothing has arrived")? as f64 / 1e6;
        Ok(Sample { value, ..sample })
    };
    Ok(vec![at(0.5)?, at(0.99)?, at(1.0)?])
}

fn memory(broker: &Broker, links: usize) -> Result<Vec<Sample>> {
    let idle = machine::resident_bytes(broker.pid())? as f64;
    let crowd = Crowd::connect(broker.address(), links, 1, Form::Exact)?;
    let full = machine::resident_bytes(broker.pid())? as f64;
    let a_link = (full - idle) / crowd.len() as f64;
    Ok(vec![
        Sample::from(idle / 1e6),
        Sample::from(a_link),
        Sample::from(full / 1e6),
    ])
}

/// Larder is ended by SIGKILL, as it may be; Mosquitto keeps nothing then, and is ended by SIGTERM.
fn start(broker: &mut Broker, backlog: u64) -> Result<Vec<Sample>> {
    let mut faults = queue_up(broker, backlog)?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        match broker.kind() {
            Kind::Mosquitto => broker.stop()?,
            Kind::Larder | Kind::Relay => broker.kill()?,
        }
        times.push(broker.resume()?.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    faults.lost = 0;
    let value = times[times.len() / 2];
    Ok(vec![Sample {
        value,
        faults,
        ..Sample::default()
    }])
}

/// Queues messages for a session that is away, and stays away.
fn queue_up(broker: &Broker, messages: u64) -> Result<Faults> {
    if messages == 0 {
        return Ok(Faults::default());
    }
    let traffic = Traffic {
        name: "backlog",
        publishers: 20,
        subscribers: 1,
        topics: 1,
        qos: Qos::AtLeastOnce,
        payload: 100,
        window: 50,
        stored: true,
    };
    let mut load = Load::connect(broker.address(), traffic)?;
    load.leave()?;
    load.run_closed(Until::sent(messages))?;
    load.settle()?;
    if load.counts().acknowledged < messages {
        return Err("the backlog was not acknowledged".into());
    }
    Ok(load.faults())
}

fn flash(
    broker: &Broker,
    traffic: Traffic,
    rate: f64,
    is_present: bool,
    options: &Options,
) -> Result<Vec<Sample>> {
    let mut load = Load::connect(broker.address(), traffic)?;
    if !is_present {
        load.leave()?;
    }
    // What the sessions and the start have written is no message's.
    std::thread::sleep(WRITE_WAIT);
    let written = || -> Result<(u64, Option<u64>)> {
        let process = machine::written_bytes(broker.pid())?;
        Ok((process, machine::device_written_bytes(broker.directory())))
    };
    let before = written()?;
    // Ten messages at least.
    let elapsed = (options.elapsed * 5).max(Duration::from_secs_f64(10.0 / rate));
    load.run_paced(rate, elapsed)?;
    load.settle()?;
    std::thread::sleep(WRITE_WAIT);
    let after = written()?;
    let messages = load.counts().acknowledged.max(1) as f64;
    let mut faults = load.faults();
    if !is_present {
        faults.lost = 0;
    }
    let process = (after.0 - before.0) as f64 / messages;
    let device = match (before.1, after.1) {
        (Some(before), Some(after)) => (after - before) as f64 / messages,
        _ => f64::NAN,
    };
    let sample = |value| Sample {
        value,
        faults,
        ..Sample::default()
    };
    Ok(vec![sample(process), sample(device)])
}

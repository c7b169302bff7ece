//! Larder's bridge: a client of the local broker, a client of the cloud, and a relay between them.
//!
//! It acknowledges to one side only after the other has acknowledged, so the queue that bridges a week without a network
//! is the durable session that each broker keeps for it, and nothing in here has to survive a crash. The price of that
//! is the price of QoS 1: what was under way when a link ended may arrive twice.
//!
//! - [`rule`]: which topics cross, under which names, and the refusal of rules that would go round.
//! - [`relay`]: what is sent, acknowledged and set aside, when. No I/O, no clock: a simulator runs the same code.
//! - [`redial`]: when to connect, and where.
//! - the links themselves are rumqttc's event loops, one for each connection, never used as a queue; those with TLS go
//!   through a tunnel of ours.
//!
//! [`start`] runs a bridge on a thread of its own.

mod client;
mod config;
mod driver;
mod flow;
pub mod message;
pub mod redial;
pub mod relay;
pub mod rule;
mod status;
mod tls;
mod tunnel;

pub use config::{Config, ConfigError, LocalAddress};
pub use relay::Counters;
pub use rule::Rule;
pub use status::{State, Status};
pub use tls::{TLS_BYTES, TimeFloor, Tls, TlsFault};

use driver::Setup;
use redial::Redial;
use status::Board;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// Stack of each thread of a bridge, in bytes: its own, and while a name is looked up one more.
pub const THREAD_STACK_BYTES: usize = 256 * 1024;
/// How long the thread that looks up names stays after it.
const LOOKUP_THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Starts a bridge on a thread of its own. `seed` makes its delays differ from those of other bridges; `time_floor` is kept
/// by the caller, for TLS on machines without a clock; `status` is called on that thread at every change of state, and must
/// not block.
///
/// # Errors
/// The configuration cannot be run, or the system gives no thread. Nothing is running then.
pub fn start(
    config: Config,
    local: LocalAddress,
    seed: u64,
    time_floor: TimeFloor,
    status: impl Fn(Status) + Send + 'static,
) -> Result<Handle, StartError> {
    config.check().map_err(StartError::Config)?;
    let board = Arc::new(Board::new());
    let setup = Setup {
        local: config.local_target(&local).map_err(StartError::Config)?,
        cloud: config
            .cloud_targets(&time_floor)
            .map_err(StartError::Config)?,
        config,
        seed,
        board: Arc::clone(&board),
        listener: Box::new(status),
    };
    let (stop, stopped) = watch::channel(false);
    let thread = thread::Builder::new()
        .name("bridge".to_owned())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || run_for_ever(&setup, &stopped))
        .map_err(StartError::Thread)?;
    Ok(Handle {
        board,
        stop,
        thread,
    })
}

/// A bridge that runs. Dropped, it stops as well, in its own time.
pub struct Handle {
    board: Arc<Board>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.board.read()
    }

    /// Ends it, with a DISCONNECT on both links where that is possible within 200 ms. What was not acknowledged stays in
    /// the brokers' sessions.
    pub fn stop(self) {
        self.stop.send_replace(true);
        self.thread.thread().unpark();
        // Its panics were caught inside.
        let _ = self.thread.join();
    }
}

/// Why a bridge was not started.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot be run.
    Config(ConfigError),
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "no thread for the bridge: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the bridge, and again after a panic or when the system refused it something, with growing delays.
#[expect(clippy::disallowed_methods, reason = "it times the driver's restarts")]
fn run_for_ever(setup: &Setup, stop: &watch::Receiver<bool>) {
    let config = &setup.config;
    let mut redial = Redial::new(1, config.reconnect_min, config.reconnect_max, setup.seed);
    loop {
        let error = match catch_unwind(AssertUnwindSafe(|| run_once(setup, stop))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("the system gives no event queue: {error}"),
            Err(_) => "a fault in the bridge itself".to_owned(),
        };
        let until = Instant::now() + redial.lost();
        let name = &config.name;
        log::error!(target: "bridge", "bridge {name}: stopped by {error}; it starts again, nothing acknowledged is lost");
        // The fault may have been the owner's listener.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            setup.announce(State::Waiting { until, error })
        }));
        while Instant::now() < until {
            if *stop.borrow() || stop.has_changed().is_err() {
                return;
            }
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

fn run_once(setup: &Setup, stop: &watch::Receiver<bool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(1)
        .thread_keep_alive(LOOKUP_THREAD_KEEP_ALIVE)
        .build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, driver::run(setup, stop.clone()));
    // Not dropped in the ordinary way: that would wait for a name being looked up.
    runtime.shutdown_background();
    Ok(())
}

//! The control thread: signals, keys, names, reloads, the admin listener. One event loop of its
//! own, unpinned, so that nothing here takes time from a worker.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use monoio::io::AsyncReadRent;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::assemble::Assembly;
use super::compile::{self, Compiler, InForce};
use super::doors::serve_admin;
use super::reload::{Reloads, listen_to_compiler};
use super::state::State;
use super::watch::Seen;
use super::{notify, refresh};
use crate::audit::Writer;
use crate::bus::{Notice, Outbox};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::jwks::ProviderKeys;
use crate::control::{Ask, Slot, Snapshot};
use crate::event::Event;
use crate::metrics::{AuditOutcome, Counters, ProcessCounters, ReloadTrigger};
use crate::net::Timers;
use crate::net::listen::Acceptor;
use crate::net::resolve::Resolver;
use crate::net::runtime::{self, Ring};
use crate::net::tls::Ticketer;
use crate::quota::Exact;
use crate::worker::Report;

/// What the control thread is started with.
pub(super) struct Setup {
    pub(super) clock: Clock,
    pub(super) ring: Ring,
    pub(super) config: Arc<Config>,
    pub(super) assembly: Assembly,
    /// The policy files as they were before `assembly` was made.
    pub(super) seen: Seen,
    pub(super) ticketer: Ticketer,
    pub(super) slot: Arc<Slot>,
    pub(super) outbox: Outbox,
    pub(super) asks: Receiver<Ask>,
    pub(super) ask_bell: UnixStream,
    pub(super) admin: TcpListener,
    pub(super) writer: Writer,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) process: Arc<ProcessCounters>,
    pub(super) exact: Arc<Exact>,
    pub(super) reports: Sender<Report>,
    /// Where the gateway listens, the port filled in.
    pub(super) address: SocketAddr,
    /// Dropped by every key and name once it was asked for the first time.
    pub(super) first_round: Sender<()>,
}

/// The main thread's hold on it.
pub(super) struct Handle {
    thread: JoinHandle<bool>,
    finish: UnixStream,
    /// Where the admin listener is.
    pub(super) admin: SocketAddr,
}

impl Handle {
    /// After the workers ended: has the audit written out. True when all of it was.
    pub(super) fn finish(self) -> bool {
        drop(self.finish);
        self.thread.join().unwrap_or(false)
    }
}

/// State of the control thread; its tasks share it.
pub(super) struct Control {
    pub(super) clock: Clock,
    pub(super) timers: Timers,
    pub(super) resolver: Resolver,
    pub(super) state: RefCell<State>,
    /// Rung when someone asked for keys or addresses.
    pub(super) asked: Event,
    pub(super) process: Arc<ProcessCounters>,
    /// What all cores count together for exact rate limits.
    pub(super) exact: Arc<Exact>,
    slot: Arc<Slot>,
    outbox: Outbox,
    pub(super) reloads: Reloads,
    /// Taken at the end.
    pub(super) writer: RefCell<Option<Writer>>,
    pub(super) ring: Ring,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) alive: Cell<bool>,
}

/// Pairs for the doorbells: the workers' ends and ours, both non-blocking.
pub(super) fn doorbells(count: usize) -> Result<(Vec<UnixStream>, Vec<UnixStream>), String> {
    let pairs: Result<Vec<_>, String> = (0..count).map(|_| pair()).collect();
    Ok(pairs?.into_iter().map(|(near, far)| (far, near)).unzip())
}

/// One pair; the first end is for writing and never blocks.
pub(super) fn pair() -> Result<(UnixStream, UnixStream), String> {
    let fault = |error| format!("no descriptors for a doorbell: {error}");
    let (near, far) = UnixStream::pair().map_err(fault)?;
    near.set_nonblocking(true).map_err(fault)?;
    Ok((near, far))
}

/// Starts the thread.
pub(super) fn start(setup: Setup) -> Result<Handle, String> {
    let admin = setup.admin.local_addr().map_err(|error| format!("[admin] {error}"))?;
    let (finish, finished) = pair()?;
    let signals = Signals::register()?;
    let reports = setup.reports.clone();
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let ring = setup.ring;
            let body = std::panic::AssertUnwindSafe(|| {
                runtime::block_on(ring, drive(setup, signals, finished))
            });
            let ended = match std::panic::catch_unwind(body) {
                Ok(Ok(Ok(written))) => return written,
                Ok(Ok(Err(words))) => words,
                Ok(Err(error)) => format!("its event loop cannot be started: {error}"),
                Err(_) => "panicked".to_owned(),
            };
            let _ = reports.send(Report::Failed(format!("control thread: {ended}")));
            false
        })
        .map_err(|error| format!("the control thread cannot be started: {error}"))?;
    Ok(Handle { thread, finish, admin })
}

/// One pipe per signal: what arrives says which.
struct Signals {
    reload: UnixStream,
    terminate: UnixStream,
}

impl Signals {
    fn register() -> Result<Self, String> {
        let fault = |error: std::io::Error| format!("signals cannot be handled: {error}");
        let (reload, hangup) = pair()?;
        let (terminate, term) = pair()?;
        let interrupt = terminate.try_clone().map_err(fault)?;
        signal_hook::low_level::pipe::register(SIGHUP, reload).map_err(fault)?;
        signal_hook::low_level::pipe::register(SIGTERM, terminate).map_err(fault)?;
        signal_hook::low_level::pipe::register(SIGINT, interrupt).map_err(fault)?;
        Ok(Self { reload: hangup, terminate: term })
    }
}

async fn drive(setup: Setup, signals: Signals, finished: UnixStream) -> Result<bool, String> {
    let timers = Timers::new(setup.clock);
    runtime::spawn(timers.clone().run());
    let resolver = Resolver::new().map_err(|error| format!("no resolver threads: {error}"))?;
    let acceptor = Acceptor::new(setup.admin, timers.clone())
        .map_err(|error| format!("the admin listener cannot be used: {error}"))?;
    let (made_in, made) = mpsc::channel();
    let (bell, made_bell) = pair()?;
    let compiler = Compiler::start(compile::Setup {
        in_force: InForce { config: Arc::clone(&setup.config), generation: 1, seen: setup.seen },
        first: Arc::clone(&setup.assembly.policy),
        clock: setup.clock,
        ticketer: setup.ticketer,
        address: setup.address,
        made: made_in,
        bell,
    })?;
    let reloads = Reloads::new(compiler);
    let state = State {
        keys: setup.config.trust_providers.iter().map(|_| ProviderKeys::none()).collect(),
        wanted_keys: vec![false; setup.config.trust_providers.len()],
        upstreams: setup.assembly.upstreams(&setup.config),
        wanted_addresses: vec![false; setup.config.servers.len()],
        config: setup.config,
        config_generation: 1,
        assembly: setup.assembly,
        generation: 1,
        draining: false,
        old: Vec::new(),
    };
    let control = Rc::new(Control {
        clock: setup.clock,
        timers,
        resolver,
        state: RefCell::new(state),
        asked: Event::default(),
        process: setup.process,
        exact: setup.exact,
        slot: setup.slot,
        outbox: setup.outbox,
        reloads,
        writer: RefCell::new(Some(setup.writer)),
        ring: setup.ring,
        counters: setup.counters,
        alive: Cell::new(true),
    });
    control.process.set_policy_epoch(super::FIRST_EPOCH);
    refresh::start(&control, Some(setup.first_round));
    runtime::spawn(listen_to_workers(Rc::clone(&control), setup.asks, setup.ask_bell));
    let compiled = listen_to_compiler(Rc::clone(&control), made, made_bell, setup.reports);
    runtime::spawn(compiled);
    runtime::spawn(on_hangup(Rc::clone(&control), signals.reload));
    runtime::spawn(on_terminate(Rc::clone(&control), signals.terminate));
    runtime::spawn(serve_admin(Rc::clone(&control), acceptor));
    runtime::spawn(watch_cores(Rc::clone(&control)));
    let mut finished = adopt(finished)?;
    let (_, _) = finished.read(vec![0; 1]).await;
    // The process ends right after this, and with it every task that still holds the control.
    let writer = control.writer.borrow_mut().take();
    Ok(writer.is_some_and(|writer| writer.shutdown(AUDIT_WITHIN)))
}

impl Control {
    /// Publishes the state as the newest snapshot and tells every core.
    pub(super) fn publish(&self) {
        let mut state = self.state.borrow_mut();
        state.generation += 1;
        let snapshot = Arc::new(Snapshot {
            generation: state.generation,
            config: Arc::clone(&state.config),
            config_generation: state.config_generation,
            keys: state.keys.clone(),
            policy: Arc::clone(&state.assembly.policy),
            geo: state.assembly.geo(),
            pdp: state.assembly.pdp.clone(),
            upstreams: state.upstreams.clone(),
            keyring: Arc::clone(&state.assembly.keyring),
            tls: state.assembly.tls.clone(),
            draining: state.draining,
        });
        let old = self.slot.publish(snapshot);
        state.old.push(old);
        self.free(&mut state);
        let generation = state.generation;
        drop(state);
        self.tell(Notice::Published { generation });
    }

    /// Has those snapshots freed that no worker has any more.
    fn free(&self, state: &mut State) {
        let unused = |snapshot: &mut Arc<Snapshot>| Arc::strong_count(snapshot) == 1;
        for last in state.old.extract_if(.., unused) {
            self.reloads.compiler().free(last);
        }
    }

    /// Tells every core.
    pub(super) fn tell(&self, notice: Notice) {
        let overflowed = self.outbox.send(notice);
        if overflowed > 0 {
            tracing::warn!(cores = overflowed, "an inbox is full; those cores forget everything");
        }
    }
}

async fn listen_to_workers(control: Rc<Control>, asks: Receiver<Ask>, bell: UnixStream) {
    let Ok(mut bell) = adopt(bell) else { return };
    let mut buffer = vec![0; 64];
    loop {
        let (result, returned) = bell.read(buffer).await;
        buffer = returned;
        if !matches!(result, Ok(count) if count > 0) {
            return;
        }
        while let Ok(ask) = asks.try_recv() {
            let mut state = control.state.borrow_mut();
            match ask {
                Ask::Keys { provider } => {
                    if let Some(wanted) = state.wanted_keys.get_mut(usize::from(provider)) {
                        *wanted = true;
                    }
                }
                Ask::Resolve { server } => {
                    if let Some(wanted) = state.wanted_addresses.get_mut(usize::from(server)) {
                        *wanted = true;
                    }
                }
                Ask::EndSession { mark } => {
                    drop(state);
                    if control.slot.end_session(mark, control.clock.now().wall.seconds()) {
                        control.tell(Notice::SessionEnded { mark });
                    }
                    continue;
                }
                Ask::Retire(snapshot) => {
                    drop(snapshot);
                    control.free(&mut state);
                    continue;
                }
            }
            drop(state);
            control.asked.ring();
        }
    }
}

async fn on_hangup(control: Rc<Control>, pipe: UnixStream) {
    let Ok(mut pipe) = adopt(pipe) else { return };
    loop {
        let (result, _) = pipe.read(vec![0; 16]).await;
        if !matches!(result, Ok(count) if count > 0) {
            return;
        }
        control.order_reload(ReloadTrigger::Signal);
    }
}

async fn on_terminate(control: Rc<Control>, pipe: UnixStream) {
    let Ok(mut pipe) = adopt(pipe) else { return };
    let (mut told, mut buffer) = (0, vec![0; 1]);
    loop {
        let (result, returned) = pipe.read(buffer).await;
        buffer = returned;
        if !matches!(result, Ok(count) if count > 0) {
            return;
        }
        told += 1;
        if told > 1 {
            end_at_once();
        }
        notify::say("STOPPING=1");
        tracing::info!("draining; a second signal ends the process at once");
        control.state.borrow_mut().draining = true;
        control.publish();
        control.tell(Notice::Drain);
    }
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "the operator asked twice")]
fn end_at_once() -> ! {
    std::process::exit(i32::from(super::EX_SOFTWARE))
}

/// Says that the gateway lives only while every core turns its loop.
async fn watch_cores(control: Rc<Control>) {
    let mut seen: Vec<(u64, u32)> =
        control.counters.iter().map(|core| (core.heartbeat.get(), 0)).collect();
    let pet = notify::watchdog();
    let pause = pet.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
    loop {
        control.timers.sleep_until(control.timers.now().after(pause)).await;
        for (core, (beat, still)) in control.counters.iter().zip(&mut seen) {
            let now = core.heartbeat.get();
            *still = if now == *beat { still.saturating_add(1) } else { 0 };
            *beat = now;
        }
        let limit = (STILL_MAX.as_micros() / pause.as_micros().max(1)) as u32;
        // A core that drained stands still, as it should.
        let draining = control.state.borrow().draining;
        let alive = draining || seen.iter().all(|(_, still)| *still <= limit);
        control.alive.set(alive);
        let counts = control.writer.borrow().as_ref().map(Writer::counts).unwrap_or_default();
        control.process.set_audit(AuditOutcome::Written, counts.written);
        control.process.set_audit(AuditOutcome::Dropped, counts.dropped);
        control.process.set_audit(AuditOutcome::Failed, counts.errors);
        if alive && pet.is_some() {
            notify::say("WATCHDOG=1");
        }
    }
}

pub(super) fn adopt(stream: UnixStream) -> Result<monoio::net::UnixStream, String> {
    let fault = |error| format!("a doorbell cannot be used: {error}");
    stream.set_nonblocking(monoio::utils::is_legacy()).map_err(fault)?;
    monoio::net::UnixStream::from_std(stream).map_err(fault)
}

const AUDIT_WITHIN: Duration = Duration::from_secs(5);
/// A core that does not turn for this long is dead to the watchdog.
const STILL_MAX: Duration = Duration::from_secs(5);

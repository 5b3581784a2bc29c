//! The thread that drives one shard: pinned, with its own event loop, listener and doorbell.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use monoio::io::AsyncReadRent;

use crate::gateway;
use crate::limits::WHEEL_TICK;
use crate::net::listen::{Acceptor, shares_port};
use crate::net::runtime::{self, Ring};
use crate::net::turns::Turns;
use crate::net::{Either, Stream, Timers, accept_tls, catch_unwind, first, proxy};
use crate::shard::{Parts, Shard};

/// What a worker is started with.
pub struct Assignment {
    /// The CPU it runs on; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// Its event loop.
    pub ring: Ring,
    /// Its own sockets.
    pub listeners: Vec<TcpListener>,
    /// Rung when the inbox holds something.
    pub doorbell: UnixStream,
    /// What its shard is made of.
    pub parts: Parts,
    /// Where it says how it is.
    pub reports: Sender<Report>,
}

/// What a worker says to the main thread.
pub enum Report {
    /// It accepts connections.
    Ready,
    /// It drained and ended, as it was told.
    Drained,
    /// It cannot go on; the process must end.
    Failed(String),
}

/// The thread's body. Never panics outward: whatever ends it is reported.
pub fn run(assignment: Assignment) {
    let reports = assignment.reports.clone();
    let core = assignment.parts.core;
    let body = std::panic::AssertUnwindSafe(|| serve(assignment));
    let report = match std::panic::catch_unwind(body) {
        Ok(Ok(())) => Report::Failed(format!("worker {core}: ended without being told")),
        Ok(Err(words)) => Report::Failed(format!("worker {core}: {words}")),
        Err(_) => Report::Failed(format!("worker {core}: panicked")),
    };
    // A main thread that is gone has ended the process already.
    let _ = reports.send(report);
}

fn serve(assignment: Assignment) -> Result<(), String> {
    if let Some(cpu) = assignment.cpu {
        runtime::pin(cpu).map_err(|error| format!("cannot be pinned to CPU {cpu}: {error}"))?;
    }
    let ring = assignment.ring;
    let ended = runtime::block_on(ring, drive(assignment));
    ended.map_err(|error| format!("the event loop cannot be started: {error}"))?
}

async fn drive(assignment: Assignment) -> Result<(), String> {
    let timers = Timers::new(assignment.parts.clock);
    runtime::spawn(timers.clone().run());
    let shard = Shard::new(assignment.parts, timers.clone());
    let reports = assignment.reports.clone();
    // Nobody but us writes there, so what is broken there is broken here.
    let broken = move |words: String| {
        let _ = reports.send(Report::Failed(words));
    };
    shard.open_mail(broken).map_err(|error| format!("its mail cannot be used: {error}"))?;
    // Lives on in every task that accepts.
    let accepting = Rc::new(());
    for listener in assignment.listeners {
        let shared = shares_port(&listener);
        let acceptor = Acceptor::new(listener, timers.clone())
            .map_err(|error| format!("its listener cannot be used: {error}"))?;
        let (shard, reports) = (Rc::clone(&shard), assignment.reports.clone());
        let still = Rc::clone(&accepting);
        runtime::spawn(async move {
            accept(&shard, acceptor, shared, &reports).await;
            drop(still);
        });
    }
    runtime::spawn(sweep(Rc::clone(&shard)));
    let turns = Turns::new().map_err(|error| format!("it cannot count its turns: {error}"))?;
    runtime::spawn(pace(Rc::clone(&shard), turns));
    let _ = assignment.reports.send(Report::Ready);
    watch_doorbell(&shard, assignment.doorbell).await?;
    finish(&shard, &accepting).await;
    let _ = assignment.reports.send(Report::Drained);
    // The process ends now, by the main thread: dropping the event loop here could free buffers of
    // operations that the kernel still works on (DESIGN §4, cancellation).
    std::future::pending().await
}

/// Ends when the gateway drains, or when the control thread is gone.
async fn watch_doorbell(shard: &Rc<Shard>, doorbell: UnixStream) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("its doorbell cannot be used: {error}");
    doorbell.set_nonblocking(monoio::utils::is_legacy()).map_err(fault)?;
    let mut doorbell = monoio::net::UnixStream::from_std(doorbell).map_err(fault)?;
    let mut buffer = vec![0; 64];
    loop {
        let (result, returned) = doorbell.read(buffer).await;
        buffer = returned;
        if result.map_err(fault)? == 0 {
            return Err("the control thread is gone".to_owned());
        }
        shard.drain_bus();
        if shard.draining() {
            return Ok(());
        }
    }
}

/// Lets what is under way finish, within the configured time, and idle connections close. A thread
/// that ends before them would leave their sockets open for as long as another worker is busy.
async fn finish(shard: &Rc<Shard>, accepting: &Rc<()>) {
    let limit = Duration::from_millis(shard.world().snapshot.config.limits.drain_ms_max);
    let until = shard.timers.now().after(limit);
    loop {
        let busy = shard.connections() > 0 || Rc::strong_count(accepting) > 1;
        let waits = busy && shard.timers.now() < until;
        // Once more after the last one: closing a socket is an operation of its own.
        shard.timers.sleep_until(shard.timers.now().after(WHEEL_TICK)).await;
        if !waits {
            return;
        }
    }
}

async fn sweep(shard: Rc<Shard>) {
    loop {
        shard.timers.sleep_until(shard.timers.now().after(Duration::from_secs(1))).await;
        shard.sweep();
    }
}

/// Signatures that nobody has checked yet share the core with all else: some of them, then
/// whatever the loop finds ready, then some more.
async fn pace(shard: Rc<Shard>, mut turns: Turns) {
    loop {
        shard.identity.spent().await;
        turns.next().await;
        shard.identity.new_turn();
    }
}

/// `shared` tells a socket of our own from one that was passed to us. What waits on a passed one
/// stays there when we leave: another process holds it, too, and may serve it. Closing our own
/// would reset every connection in its backlog, so those are taken first.
async fn accept(shard: &Rc<Shard>, mut acceptor: Acceptor, shared: bool, reports: &Sender<Report>) {
    loop {
        let seen = shard.drained.version();
        if shard.draining() {
            if shared {
                take_backlog(shard, &mut acceptor).await;
            }
            return;
        }
        match first(acceptor.accept(), shard.drained.changed(seen)).await {
            Either::Left(Ok(stream)) => runtime::spawn(guarded(Rc::clone(shard), stream)),
            Either::Left(Err(error)) => {
                let _ = reports.send(Report::Failed(format!("cannot accept: {error}")));
                return;
            }
            Either::Right(()) => {}
        }
    }
}

/// Serves what is queued; each of them is told to close. Bounded, because new connections may come
/// for as long as the socket is open.
async fn take_backlog(shard: &Rc<Shard>, acceptor: &mut Acceptor) {
    let until = shard.timers.now().after(BACKLOG_WITHIN);
    while shard.timers.now() < until {
        // Two ticks: the next one may be due this very moment.
        let soon = shard.timers.sleep_until(shard.timers.now().after(2 * WHEEL_TICK));
        match first(acceptor.accept(), soon).await {
            Either::Left(Ok(stream)) => runtime::spawn(guarded(Rc::clone(shard), stream)),
            Either::Left(Err(_)) | Either::Right(()) => return,
        }
    }
}

/// One connection. A panic in here costs this connection and nothing else.
async fn guarded(shard: Rc<Shard>, stream: Stream) {
    // Pinned where it is made: handed over by value, each connection would have room for it twice.
    let serving = pin!(connection(Rc::clone(&shard), stream));
    if catch_unwind(serving).await.is_err() {
        shard.meter.refusal(crate::reject::Reject::GatewayFault);
        tracing::error!(core = shard.core, "a connection panicked and was closed");
    }
}

async fn connection(shard: Rc<Shard>, mut stream: Stream) {
    let Some(_seat) = shard.seat() else {
        Box::pin(gateway::turn_away(shard, stream)).await;
        return;
    };
    // What was published before this client came holds for it: its certificate, for one.
    shard.drain_bus();
    let world = shard.world();
    let config = &world.snapshot.config;
    // One deadline for whatever has to come before the first request.
    let until = shard.timers.now().after(Duration::from_millis(config.limits.handshake_ms_max));
    if gateway::is_introduced(&world, &stream)
        && Box::pin(proxy::introduce(&mut stream, until)).await.is_err()
    {
        // As with a handshake that fails: nobody was asked for anything, so there is no record.
        shard.meter.counters().source_refusals.add(1);
        return;
    }
    let stream = match &world.snapshot.tls {
        None => stream,
        // On the heap while it lasts: a connection needs its room for a handshake only once.
        Some(tls) => match Box::pin(accept_tls(stream, tls, until)).await {
            Ok(stream) => stream,
            Err(_) => {
                // Nobody was asked for anything yet, so there is no record of it.
                shard.meter.counters().tls_handshake_failures.add(1);
                return;
            }
        },
    };
    drop(world);
    gateway::serve(shard, stream).await;
}

const BACKLOG_WITHIN: Duration = Duration::from_secs(1);

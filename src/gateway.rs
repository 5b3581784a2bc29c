//! THE WAY of a request. `process` reads as the list of stages and nothing else decides.
//!
//! Each stage returns a value that only it can make, and the next one demands it: a
//! [`VerifiedToken`](crate::identity::VerifiedToken), a judged [`Call`](crate::mcp::Call), a
//! [`Permit`], an upstream credential, an audit ticket. `handle` records exactly one event
//! per request, whatever came back.

mod admit;
mod ask;
mod decide;
mod documents;
mod exchange;
mod hub;
mod oversight;
mod record;
mod refuse;
mod route;
mod session;
mod words;
#[cfg(feature = "bench-internals")]
pub mod whole_way;

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Proxy;
use crate::credential::UpstreamCredential;
use crate::fault::{self, Stage};
use crate::identity::Resource;
use crate::limits::Limits;
use crate::listener::{
    Downstream,
    downstream::{Next, Wake},
};
use crate::net::{Panicked, Stream, catch_unwind, runtime};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Failed, Leg, Relayed, To};
use crate::shard::Shard;
use crate::world::World;

pub(crate) use decide::{subject, wanted};
use exchange::Exchange;
use oversight::Watch;
use route::Route;
use words::Words;

/// Serves one connection to its end.
pub async fn serve(shard: Rc<Shard>, stream: Stream) {
    let mut downstream = Downstream::new(stream);
    loop {
        // On the heap, and only while it is busy: what a request under way needs is many times
        // what a silent connection does, and most connections are silent.
        match Box::pin(busy(&shard, &mut downstream)).await {
            Turn::Again | Turn::Silent => {}
            Turn::Close => return Box::pin(downstream.close(&shard.timers)).await,
            Turn::Cut => return downstream.abort(),
            Turn::Gone => return,
        }
        let idle = Duration::from_millis(shard.world().snapshot.config.limits.idle_ms_max);
        if !downstream.waits(&shard.timers, idle).await {
            return;
        }
    }
}

/// Carries out one request after the other until they stop coming.
async fn busy(shard: &Shard, downstream: &mut Downstream) -> Turn {
    loop {
        let end = turn(shard, downstream).await;
        if !matches!(end, Turn::Again) {
            return end;
        }
    }
}

/// What is to be done with a connection after one turn of it.
enum Turn {
    /// It can carry another request.
    Again,
    /// No request came for a while: it waits on, without what a request needs.
    Silent,
    /// It is closed so that the last answer still arrives.
    Close,
    /// Its answer ended too early, and the agent must notice.
    Cut,
    /// It was quiet or closed: nothing is owed to it.
    Gone,
}

/// Waits for one request and carries it out.
async fn turn(shard: &Shard, downstream: &mut Downstream) -> Turn {
    // A copy, because a connection that idles must not keep an old snapshot alive.
    let limits = shard.world().snapshot.config.limits.clone();
    match downstream.wakes(&shard.timers, &limits, &shard.inputs).await {
        Wake::Ready => {}
        Wake::Silent => return Turn::Silent,
        Wake::Gone => return Turn::Gone,
    }
    // Pinned where it is made, here and below: handed over by value it would be copied, and each
    // connection would have room for it twice.
    let head = {
        let reading = pin!(read_head(shard, downstream, &limits));
        catch_unwind(reading).await
    };
    shard.drain_bus();
    match head {
        Ok(Ok(Next::Request)) => {}
        Ok(Ok(Next::Quiet)) => return Turn::Gone,
        Ok(Err(reject)) => return refuse::unread(shard, downstream, reject).await,
        Err(Panicked) => return panicked(shard, Exchange::begin(shard, downstream)),
    }
    if fault::asked(Stage::Worker, downstream.head().1) {
        let head = downstream.head().1.to_vec();
        runtime::spawn(async move { fault::point(Stage::Worker, &head) });
    }
    let next = match shard.enter() {
        Some(_place) => handle(shard, downstream).await,
        None => refuse::unread(shard, downstream, Reject::GatewayOverloaded).await,
    };
    // Whatever is left of the request is not the next one. By now it holds no place any more.
    if matches!(next, Turn::Again) && !downstream.discard_body(&shard.timers).await {
        return Turn::Close;
    }
    next
}

async fn read_head(
    shard: &Shard,
    downstream: &mut Downstream,
    limits: &Limits,
) -> Result<Next, Reject> {
    let next = downstream.next_head(&shard.timers, limits, &shard.inputs).await?;
    if let Next::Request = next {
        fault::move_clock(downstream.head().1);
        fault::point(Stage::Head, downstream.head().1);
    }
    Ok(next)
}

/// True when a connection begins with the word of a proxy, whom it speaks for.
#[must_use]
pub fn is_introduced(world: &World, stream: &Stream) -> bool {
    let listen = &world.snapshot.config.listen;
    listen.proxy == Proxy::V2 && listen.trusts(stream.peer().ip())
}

/// Answers a connection that finds no place: 503, and the end.
pub async fn turn_away(shard: Rc<Shard>, stream: Stream) {
    let world = shard.world();
    if world.snapshot.tls.is_some() || is_introduced(&world, &stream) {
        // There is no session yet in which to say anything, or nobody yet to say it to.
        shard.meter.refusal(Reject::GatewayOverloaded);
    } else {
        let mut downstream = Downstream::new(stream);
        refuse::unread(&shard, &mut downstream, Reject::GatewayOverloaded).await;
        downstream.close(&shard.timers).await;
    }
}

/// One request: processed, answered, recorded.
async fn handle(shard: &Shard, downstream: &mut Downstream) -> Turn {
    let mut exchange = Exchange::begin(shard, downstream);
    let answered = {
        let answering = pin!(answer(shard, downstream, &mut exchange));
        catch_unwind(answering).await
    };
    match answered {
        Ok((next, refused)) => {
            exchange.record(shard, refused);
            next
        }
        Err(Panicked) => panicked(shard, exchange),
    }
}

/// How much of an answer was written is not known, so there is none; a record there is.
fn panicked(shard: &Shard, mut exchange: Exchange) -> Turn {
    tracing::error!(core = shard.core, "a request panicked; its connection is closed");
    exchange.broken();
    exchange.record(shard, Some(Reject::GatewayFault));
    Turn::Cut
}

/// Processed and answered; what is left is the record.
async fn answer(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> (Turn, Option<Reject>) {
    let relayed = match process(shard, downstream, exchange).await {
        Ok(relayed) => relayed,
        Err(reject) => {
            let keep = refuse::answer(shard, downstream, exchange, reject).await;
            return (if keep { Turn::Again } else { Turn::Close }, Some(reject));
        }
    };
    exchange.relayed(&relayed);
    let next = match relayed {
        Relayed { reusable: true, .. } => Turn::Again,
        // The end of the connection would be taken for the end of the answer.
        Relayed { cut: Some(reason), ends_by_close: true, .. }
            if reason != Reject::GatewayDraining =>
        {
            Turn::Cut
        }
        Relayed { .. } => Turn::Close,
    };
    (next, None)
}

async fn process(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
) -> Result<Relayed, Reject> {
    let world = Rc::clone(&exchange.world);
    fault::point(Stage::Route, downstream.head().1);
    match route::accept(downstream, &world)? {
        // As any other path that is not served.
        Route::Hub if !world.snapshot.config.federation.enabled => return Err(Reject::RequestPath),
        Route::Hub => exchange.name_server(None),
        Route::Server(name) => exchange.name_server(Some(name)),
        Route::Metadata(Resource::Federation) if !world.snapshot.config.federation.enabled => {
            return Err(Reject::RequestPath);
        }
        Route::Metadata(resource) => {
            let document = documents::metadata(&world.snapshot.config, resource);
            return documents::serve(shard, downstream, exchange, document).await;
        }
        Route::Preflight => {
            let document = documents::preflight(downstream, &world.snapshot.config);
            return documents::serve(shard, downstream, exchange, document).await;
        }
    }
    // Before anything is asked about the client: from where.
    let _ = exchange.source.ok_or(Reject::RequestSource)?;
    exchange.identify(shard, downstream).await?;
    exchange.read_body(shard, downstream).await?;
    exchange.read_call(shard, downstream)?;
    if exchange.hub.is_some() {
        // On the heap: most requests are for one server and have no room for it.
        return Box::pin(hub::serve(shard, downstream, exchange)).await;
    }
    fault::point(Stage::Policy, downstream.head().1);
    let permit = if exchange.asks() {
        // On the heap: who decides here has no room for this in each request.
        Box::pin(exchange.ask(shard, downstream)).await?
    } else {
        exchange.decide(shard)?
    };
    exchange.admit(shard)?;
    fault::point(Stage::Credential, downstream.head().1);
    let credential = exchange.obtain(shard, &permit)?;
    exchange.commit(shard)?;
    fault::point(Stage::Audit, downstream.head().1);
    forward(shard, downstream, exchange, permit, credential).await
}

/// Stage 7. A credential that the server refuses is fetched anew once: it may have been rotated.
async fn forward(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    permit: Permit,
    credential: Option<Rc<UpstreamCredential>>,
) -> Result<Relayed, Reject> {
    let used = permit.credential();
    let failed = match relay_once(shard, downstream, exchange, permit, credential).await {
        Ok(relayed) => return Ok(relayed),
        Err(failed) => failed,
    };
    let (Some(_), Some(used)) = (failed.permit, used) else { return Err(failed.reject) };
    shard.credentials.evict(used);
    let permit = exchange.decide_again(shard).await?;
    let fresh = exchange.obtain(shard, &permit)?;
    let again = relay_once(shard, downstream, exchange, permit, fresh).await;
    again.map_err(|failed| failed.reject)
}

async fn relay_once(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    permit: Permit,
    credential: Option<Rc<UpstreamCredential>>,
) -> Result<Relayed, Failed> {
    let world = Rc::clone(&exchange.world);
    let snapshot = &world.snapshot;
    let (Some(server), Some(upstream)) =
        (snapshot.config.servers.get(permit.server()), world.upstreams.get(permit.server()))
    else {
        return Err(Reject::GatewayFault.into());
    };
    let server_index = permit.server();
    if upstream.addresses.is_empty() {
        shard.ask_addresses(server_index);
    }
    let words = Words::of(exchange);
    let mut body = std::mem::take(&mut exchange.scratch.body);
    let origin = route::cors_origin(downstream, &snapshot.config).to_vec();
    let watch = Watch::new(shard, exchange, downstream.head().0.keep_alive(), words);
    let to = To {
        server,
        server_index,
        upstream,
        generation: snapshot.config_generation,
        credential: credential.as_deref(),
        credential_index: permit.credential(),
        limits: &snapshot.config.limits,
    };
    let leg = Leg {
        to,
        method: exchange.method,
        body: &mut body,
        session: exchange.session.as_ref().map(|session| session.upstream.as_slice()),
        cancel_on_leave: exchange.cancels_on_leave(),
        retryable: exchange.retryable(),
        origin: &origin,
    };
    let result = shard.relay.forward(permit, leg, downstream, &watch).await;
    let tally = watch.tally();
    exchange.scratch.body = body;
    exchange.outcome.list = tally;
    // None of the known addresses answers: the server may have moved.
    if result.as_ref().is_err_and(|failed| failed.reject == Reject::UpstreamConnect) {
        shard.ask_addresses(server_index);
    }
    exchange.outcome.upstream_status = match &result {
        Ok(relayed) => Some(relayed.status),
        Err(failed) => {
            shard.upstream_failed(server_index, failed.reject);
            failed.upstream_status
        }
    };
    result
}

//! Stages 3 and 5 as the gateway asks them: the token's proof and the policy's permit.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::Exchange;
use crate::address::Country;
use crate::clock::{Monotonic, Now, UnixSeconds};
use crate::config::{Server, TrustProvider};
use crate::control::jwks::ProviderKeys;
use crate::http::Method as HttpMethod;
use crate::identity::{Audiences, VerifiedToken};
use crate::judge::policy::{Context, QTarget, Subject};
use crate::judge::principal::Principal;
use crate::limits::{LIST_ITEMS_AT_ONCE, LIST_TURN_MICROS};
use crate::mcp::{Arguments, Kind, Listed, Method, Plan, Target};
use crate::net::runtime;
use crate::policy::{Ask, Connected, Denial, Form, Permit, Shown, Wanted};
use crate::reject::Reject;
use crate::shard::Shard;
use crate::world::World;

/// Validates the bearer token for this route.
pub(super) async fn verify(
    shard: &Shard,
    authorization: Option<&[u8]>,
    audiences: &Audiences<'_>,
    now: Now,
    keys_wait_ms: u64,
) -> Result<Rc<VerifiedToken>, Reject> {
    let wait = Duration::from_millis(keys_wait_ms);
    shard.identity.verify(authorization, audiences, shard, now, wait).await
}

/// For an open answer: the issuer of its token still counts, and for a stream by the same rules; by
/// others the token would have to be verified anew, which is the next request's business.
pub(super) fn still_trusted(
    old: &World,
    new: &World,
    token: &VerifiedToken,
    same_rules: bool,
) -> bool {
    if old.snapshot.config_generation == new.snapshot.config_generation {
        return true;
    }
    let issuer = token.principal().issuer();
    let (before, now) = (provider(old, issuer), provider(new, issuer));
    now.is_some() && (!same_rules || before == now)
}

/// For an open stream: the key that signed its token is still its issuer's. A key is withdrawn
/// because it leaked, and what it signed must not outlive it (case F06).
pub(super) fn key_holds(
    world: &World,
    token: &VerifiedToken,
    now: Monotonic,
) -> Result<(), Reject> {
    let set =
        keys(world, token).and_then(|keys| keys.usable(now)).ok_or(Reject::KeysUnavailable)?;
    if set.holds(token.key()) { Ok(()) } else { Err(Reject::TokenKeyUnknown) }
}

/// The keys of the token's issuer, which a reload may have moved.
pub(super) fn keys<'w>(world: &'w World, token: &VerifiedToken) -> Option<&'w ProviderKeys> {
    let snapshot = &world.snapshot;
    let index = if snapshot.config_generation == token.epoch() {
        usize::from(token.provider())
    } else {
        let issuer = token.principal().issuer();
        snapshot.config.trust_providers.iter().position(|known| known.issuer == issuer)?
    };
    snapshot.keys.get(index)
}

fn provider<'w>(world: &'w World, issuer: &str) -> Option<&'w TrustProvider> {
    world.snapshot.config.trust_providers.iter().find(|known| known.issuer == issuer)
}

/// For an open stream: the server is where it was, and would get the credential that it got.
pub(super) fn same_way(exchange: &Exchange, new: &World, permit: &Permit) -> bool {
    let old = &exchange.world;
    if old.snapshot.config_generation == new.snapshot.config_generation {
        return true;
    }
    let name = exchange.scratch.server.as_str();
    let credential = |world: &World, index: Option<usize>| {
        let known = world.snapshot.config.credentials.get(index?);
        known.map(|credential| credential.name.clone())
    };
    let (before, now) = (server(old, name), server(new, name));
    before.is_some_and(|before| now.is_some_and(|now| before.url == now.url))
        && credential(old, exchange.credential_index()) == credential(new, permit.credential())
}

/// For an answer under way: the arguments of its call were read by what `new` asks for, shadow
/// policies aside, which must not cut what they do not decide. The body is with the upstream and is
/// not read twice.
pub(super) fn read_alike(exchange: &Exchange, new: &World) -> bool {
    let call = &exchange.scratch.call;
    let calls = exchange.mcp_method() == Some(Method::ToolsCall);
    let Some(tool) = call.name().filter(|_| calls) else { return true };
    plan(new, exchange, tool)
        .is_none_or(|asked| asked.decides_as(plan(&exchange.world, exchange, tool)))
}

fn plan<'w>(world: &'w World, exchange: &Exchange, tool: &str) -> Option<&'w Plan> {
    world.snapshot.policy.plan(world.server(&exchange.scratch.server)?, tool)
}

fn server<'w>(world: &'w World, name: &str) -> Option<&'w Server> {
    world.snapshot.config.servers.get(usize::from(world.server(name)?))
}

/// Decides on the request: the gateway itself, then everything that the message names on its
/// server.
///
/// Also how an open stream is judged again, by a newer `world` and with another `now`.
pub(super) fn permit(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
) -> Result<Permit, Denial> {
    let set = &world.snapshot.policy;
    let (Some(token), Some(source_ip)) = (exchange.token.as_deref(), exchange.source) else {
        return Err(Denial::unknown_server(set));
    };
    let subject = subject(token.principal());
    let call = &exchange.scratch.call;
    let revision = if exchange.call_read { call.revision() } else { None };
    let arguments = if exchange.call_read { call.arguments() } else { Arguments::NONE };
    let country = country(world, exchange);
    let context = Context { source_ip, now, revision, country, arguments };
    let index = world.server(&exchange.scratch.server);
    let server = index.and_then(|at| world.snapshot.config.servers.get(usize::from(at)));
    let (Some(index), Some(server)) = (index, server) else {
        // The gateway is judged first, so that a principal without `connect` learns nothing else.
        let unknown = Denial::unknown_server(set);
        return Err(match shard.enforcer.connect(set, &subject, &context) {
            // A better login would not help to a server that is not there, nor to one that is
            // hidden, and the two must not differ.
            Err(denial) if denial.step_up.is_none() => denial,
            Ok(_) | Err(_) => unknown,
        });
    };
    let is_message = exchange.method == HttpMethod::Post && call.kind() != Kind::Response;
    let form = match call.kind() {
        Kind::Request if is_message && call.method().is_handshake() => Form::Handshake,
        Kind::Request if is_message => Form::Request,
        Kind::Request | Kind::Notification | Kind::Response => Form::Stream,
    };
    let ask = Ask {
        subject: &subject,
        server: (index, server.name.as_str()),
        // Whoever may open a session may read its stream, answer on it and end it.
        method: if is_message { call.method_name() } else { "initialize" },
        form,
        context: &context,
        default_credential: server.credential.and_then(|index| u16::try_from(index).ok()),
    };
    if is_message {
        shard.enforcer.enforce(set, &ask, call.wants().map(wanted))
    } else {
        shard.enforcer.enforce(set, &ask, [Wanted::from(QTarget::Server)])
    }
}

/// Decides whether the gateway may be used: what a request to `/mcp` needs before anything is
/// looked for.
pub(super) fn connect(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
) -> Result<Connected, Denial> {
    let set = &world.snapshot.policy;
    let (Some(token), Some(source_ip)) = (exchange.token.as_deref(), exchange.source) else {
        return Err(Denial::unknown_server(set));
    };
    let call = &exchange.scratch.call;
    let revision = if exchange.call_read { call.revision() } else { None };
    let country = country(world, exchange);
    let context = Context { revision, country, ..Context::at(source_ip, now) };
    shard.enforcer.connect(set, &subject(token.principal()), &context)
}

/// Judges which of `names`, items of a list, are for who asked; `each` hears of them in order.
/// Others of this core have their turns in between.
pub(super) async fn shown(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
    listed: Listed,
    names: &[&str],
    mut each: impl FnMut(Shown),
) -> Result<(), Reject> {
    let token = exchange.token.as_deref().ok_or(Reject::GatewayFault)?;
    let source_ip = exchange.source.ok_or(Reject::RequestSource)?;
    let index = world.server(&exchange.scratch.server).ok_or(Reject::PolicyStreamDenied)?;
    let subject = subject(token.principal());
    let call = &exchange.scratch.call;
    let revision = if exchange.call_read { call.revision() } else { None };
    let country = country(world, exchange);
    let context = Context { revision, country, ..Context::at(source_ip, now) };
    let ask = Ask {
        subject: &subject,
        server: (index, exchange.scratch.server.as_str()),
        method: "",
        form: Form::Request,
        context: &context,
        default_credential: None,
    };
    let set = &world.snapshot.policy;
    let judge = |name: &str| each(shard.enforcer.shows(set, &ask, listed, name));
    in_turns(names, || shard.clock.monotonic(), judge).await;
    Ok(())
}

/// Judges all of `names`, and lets others run whenever that has taken a while.
async fn in_turns(names: &[&str], now: impl Fn() -> Monotonic, mut judge: impl FnMut(&str)) {
    let mut began = now();
    for some in names.chunks(LIST_ITEMS_AT_ONCE) {
        if now().micros_since(began) >= LIST_TURN_MICROS {
            runtime::turn().await;
            began = now();
        }
        some.iter().for_each(|name| judge(name));
    }
}

/// The country of a client, when a policy asks for one and the database knows it.
pub(super) fn locate(world: &World, source: Option<IpAddr>) -> Option<Country> {
    world.snapshot.geo.as_ref()?.country(source?)
}

/// Looked up once for a request, and again when it is judged under another snapshot: policies may
/// ask for it that did not before.
fn country(world: &World, exchange: &Exchange) -> Option<Country> {
    if Arc::ptr_eq(&world.snapshot, &exchange.world.snapshot) {
        exchange.country
    } else {
        locate(world, exchange.source)
    }
}

/// A principal as policies see it.
pub(crate) fn subject(principal: &Principal) -> Subject<'_> {
    Subject {
        user: principal.user(),
        agent: principal.agent(),
        groups: principal.groups(),
        scopes: principal.scopes(),
        acr: principal.acr(),
        auth_time: principal.auth_time(),
        digest: principal.digest(),
    }
}

/// What a message touches, as policies name it.
pub(crate) const fn wanted<'a>((target, action): (Target<'a>, Option<&'static str>)) -> Wanted<'a> {
    let target = match target {
        Target::Server => QTarget::Server,
        Target::Tool(name) => QTarget::Tool(name),
        Target::Prompt(name) => QTarget::Prompt(name),
        Target::Resource(uri) => QTarget::Resource(uri),
    };
    Wanted { target, action }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// How often others run while `count` items are judged, each in `micros`.
    fn turns(count: usize, micros: u64) -> usize {
        let all: Vec<String> = (0..count).map(|at| at.to_string()).collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let (clock, mut since, mut longest) = (Cell::new(0), 0, 0);
        let mut judged = Vec::new();
        let mut turns = 0;
        {
            let judge = |name: &str| {
                clock.set(clock.get() + micros);
                judged.push(name.to_owned());
            };
            let mut judging = pin!(in_turns(&names, || Monotonic(clock.get()), judge));
            let mut context = Context::from_waker(Waker::noop());
            while judging.as_mut().poll(&mut context) == Poll::Pending {
                longest = longest.max(clock.get() - since);
                since = clock.get();
                turns += 1;
            }
        }
        longest = longest.max(clock.get() - since);
        assert_eq!(judged, all, "each once, in order");
        assert!(longest <= LIST_TURN_MICROS + LIST_ITEMS_AT_ONCE as u64 * micros, "{longest}");
        turns
    }

    #[test]
    fn a_long_list_leaves_turns_to_others() {
        assert_eq!((turns(0, 80), turns(1, 80), turns(6, 80)), (0, 0, 0));
        assert!(turns(10_000, 80) > 1000);
        assert!(turns(10_000, 1) < 30, "what is cheap is done at once");
    }
}

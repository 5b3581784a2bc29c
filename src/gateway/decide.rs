//! Stages 3 and 5 as the gateway asks them: the token's proof and the policy's permit.

use std::rc::Rc;
use std::time::Duration;

use super::exchange::Exchange;
use crate::clock::{Now, UnixSeconds};
use crate::http::Method as HttpMethod;
use crate::identity::{Audiences, VerifiedToken};
use crate::judge::policy::{Context, QTarget, Subject};
use crate::judge::principal::Principal;
use crate::mcp::{Kind, Target};
use crate::policy::{Ask, Denial, Form, Permit};
use crate::reject::Reject;
use crate::shard::{Shard, World};

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

/// For an open stream: the token's time has not passed, and its issuer still counts.
pub(super) fn token_still_good(
    world: &World,
    token: &VerifiedToken,
    now: UnixSeconds,
) -> Result<(), Reject> {
    token.judge_time(now)?;
    let issuer = token.principal().issuer();
    let known = world.snapshot.config.trust_providers.iter().any(|known| known.issuer == issuer);
    if known { Ok(()) } else { Err(Reject::TokenIssuer) }
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
    let Some(token) = exchange.token.as_deref() else {
        return Err(Denial::unknown_server(set));
    };
    let subject = subject(token.principal());
    let call = &exchange.scratch.call;
    let revision = if exchange.call_read { call.revision() } else { None };
    let context = Context { source_ip: exchange.peer, now, revision };
    let index = world.server(&exchange.scratch.server);
    let server = index.and_then(|at| world.snapshot.config.servers.get(usize::from(at)));
    let (Some(index), Some(server)) = (index, server) else {
        // The gateway is judged first, so that a principal without `connect` learns nothing else.
        let _ = shard.enforcer.connect(set, &subject, &context)?;
        return Err(Denial::unknown_server(set));
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
        shard.enforcer.enforce(set, &ask, call.targets().map(target))
    } else {
        shard.enforcer.enforce(set, &ask, [QTarget::Server])
    }
}

fn subject(principal: &Principal) -> Subject<'_> {
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

const fn target(target: Target<'_>) -> QTarget<'_> {
    match target {
        Target::Server => QTarget::Server,
        Target::Tool(name) => QTarget::Tool(name),
        Target::Prompt(name) => QTarget::Prompt(name),
        Target::Resource(uri) => QTarget::Resource(uri),
    }
}

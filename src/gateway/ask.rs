//! Stage 5 where a remote decision point decides: what a request is about, in its words, and what
//! its answers mean. The mapping stands in the manual's page on policy.
//!
//! A permit may be kept for `permit_ttl_seconds`; that is asked first then. Lists and the reviews
//! of open answers are always asked about anew.

use super::decide;
use super::exchange::Exchange;
use crate::clock::{Monotonic, UnixSeconds};
use crate::control::authzen::{Answer, Asker, Endpoints, Evaluation, Questions, timeless};
use crate::http::Method as HttpMethod;
use crate::limits::{PDP_ONE_BY_ONE_MAX, POLICY_TARGETS_MAX};
use crate::mcp::{Kind, Listed, Method, Target};
use crate::policy::kept::{Depends, Remembered, Wish};
use crate::policy::remote::{Asked, conclude, refused};
use crate::policy::{Denial, Form, PROMPT_USES, Permit, RESOURCE_USES};
use crate::reject::Reject;
use crate::shard::Shard;
use crate::world::World;

/// Asks whether the request is permitted, under `world` and at `now`. With a permit that was kept
/// comes when it was asked for.
///
/// # Errors
/// The denial, or [`Reject::PolicyUnavailable`] for want of an answer.
pub(super) async fn permit(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
) -> Result<(Permit, Option<Monotonic>), Denial> {
    let place = Place::of(world, exchange);
    let asking = Asking::about(world, exchange, now, &place, What::Message)?;
    let mut wish = None;
    if let Some((asked, kept)) = recall(shard, world, exchange, &asking) {
        if let Some(kept) = kept
            && let Ok(permit) = conclude_with(world, exchange, Ok(&kept.answers))
        {
            shard.meter.counters().pdp_kept.add(1);
            return Ok((permit, Some(kept.asked)));
        }
        wish = Some(asked);
    }
    let answers = ask(shard, world, exchange, &asking.questions()).await;
    let concluded = conclude_with(world, exchange, answers.as_deref().map_err(|reject| *reject));
    let denial = match concluded {
        Ok(permit) => {
            if let (Some(wish), Ok(answers), Some(point)) = (wish, answers, &world.snapshot.pdp) {
                shard.pdp.keep(wish, answers, point);
            }
            return Ok((permit, None));
        }
        Err(denial) => denial,
    };
    // What one may not see answers like what is not there: who may not even open a session hears
    // the same as of a server that does not exist.
    if matches!(denial.reject, Reject::PolicyCallNoPermit | Reject::PolicyStreamDenied) {
        let opens = self::questions(world, exchange, now, What::Session)?;
        let answers = ask(shard, world, exchange, &opens).await;
        if !answers.is_ok_and(|answers| answers.iter().all(|answer| answer.permitted)) {
            return Err(Denial { reject: Reject::PolicyDenied, ..denial });
        }
    }
    Err(denial)
}

/// Asks whether the caller may use the gateway at all; of no server, so before one is named.
///
/// # Errors
/// The denial, or [`Reject::PolicyUnavailable`] for want of an answer.
pub(super) async fn connect(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
) -> Result<(), Denial> {
    let questions = questions(world, exchange, now, What::Message)?;
    let answers = ask(shard, world, exchange, &questions).await;
    connected(world, answers.as_deref().map_err(|reject| *reject))
}

/// What the answers to the questions of [`connect`] mean.
///
/// # Errors
/// As [`connect`].
pub(super) fn connected(world: &World, answers: Result<&[Answer], Reject>) -> Result<(), Denial> {
    let set = &world.snapshot.policy;
    match answers.map_err(|reject| refused(reject, set))?.first() {
        Some(answer) if answer.permitted => Ok(()),
        Some(_) | None => Err(Denial::unknown_server(set)),
    }
}

/// Which questions are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// `connect`, and all that the message names.
    Message,
    /// Whether the caller may open a session with the server.
    Session,
}

/// One request's questions, written for the endpoints that `world` knows.
///
/// # Errors
/// As [`Asking::about`].
pub(super) fn questions(
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
    what: What,
) -> Result<Questions, Denial> {
    let place = Place::of(world, exchange);
    Asking::about(world, exchange, now, &place, what).map(|asking| asking.questions())
}

/// The gateway and one server of it, as they are called.
struct Place<'a> {
    gateway: &'a str,
    name: &'a str,
    url: String,
}

impl<'a> Place<'a> {
    fn of(world: &'a World, exchange: &'a Exchange) -> Self {
        let gateway = world.snapshot.config.public_url.as_str();
        let name = exchange.scratch.server.as_str();
        Self { gateway, name, url: format!("{gateway}/mcp/{name}") }
    }
}

/// Everything that is asked about one request.
struct Asking<'a> {
    endpoints: &'a Endpoints,
    asker: Asker<'a>,
    all: Vec<Evaluation<'a>>,
}

impl<'a> Asking<'a> {
    /// # Errors
    /// [`Reject::PolicyUnavailable`] when nobody is known to be asked, and for many questions that
    /// would have to be asked one by one; [`Reject::RpcParams`] for more targets than one message
    /// may have.
    fn about(
        world: &'a World,
        exchange: &'a Exchange,
        now: UnixSeconds,
        place: &'a Place<'_>,
        what: What,
    ) -> Result<Self, Denial> {
        let no = |reject| refused(reject, &world.snapshot.policy);
        let (endpoints, asker) =
            asker(world, exchange, now).ok_or_else(|| no(Reject::PolicyUnavailable))?;
        let all = evaluations(world, exchange, place, what);
        // Beside `connect`.
        if all.len() > POLICY_TARGETS_MAX + 1 {
            return Err(no(Reject::RpcParams));
        }
        if !together(endpoints) && all.len() > PDP_ONE_BY_ONE_MAX {
            return Err(no(Reject::PolicyUnavailable));
        }
        Ok(Self { endpoints, asker, all })
    }

    fn questions(&self) -> Questions {
        Questions::write(self.endpoints, &self.asker, &self.all)
    }
}

fn evaluations<'a>(
    world: &World,
    exchange: &'a Exchange,
    place: &'a Place<'_>,
    what: What,
) -> Vec<Evaluation<'a>> {
    let call = &exchange.scratch.call;
    let Place { gateway, name, ref url } = *place;
    let on_server = |action| Evaluation { action, kind: "mcp_server", id: url, server: None };
    let connect = Evaluation { action: "connect", kind: "gateway", id: gateway, server: None };
    let mut all = Vec::new();
    if what == What::Message {
        all.push(connect);
    }
    if world.server(name).is_none() {
        // Only whether the caller may connect matters; nothing else is there.
    } else if what == What::Session || !names_something(exchange) {
        // Whoever may open a session may read its stream, answer on it, notify and end it.
        all.push(on_server("initialize"));
    } else {
        for (target, action) in call.wants() {
            // The server stands for the tasks of `tasks/*`, and, with an action of their own, for
            // those of a listen.
            let tasks = target == Target::Server && (action.is_some() || call.task_id().is_some());
            let action = action.unwrap_or(call.method_name());
            let of = |kind, id| Evaluation { action, kind, id, server: Some(name) };
            match target {
                Target::Server if tasks => all.extend(call.tasks().map(|id| of("task", id))),
                Target::Server => all.push(on_server(action)),
                Target::Tool(id) => all.push(of("tool", id)),
                Target::Prompt(id) => all.push(of("prompt", id)),
                Target::Resource(id) => all.push(of("resource", id)),
            }
        }
    }
    all
}

/// Where permits are kept: what to remember this one by, and what was answered a moment ago.
/// `None` also for a request that began under another point than the newest: it takes nothing from
/// the newest one's memory and adds nothing to it.
fn recall(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    asking: &Asking<'_>,
) -> Option<(Wish, Option<Remembered>)> {
    let snapshot = &world.snapshot;
    let point = snapshot.pdp.as_ref()?;
    if point.permit_ttl.is_zero() || !world.decides_as(&shard.world()) {
        return None;
    }
    let depends = Depends {
        identity: exchange.token.as_deref()?.principal().digest(),
        generations: [snapshot.config_generation, snapshot.policy.epoch()],
        server: &exchange.scratch.server,
        words: &timeless(&asking.asker, &asking.all),
    };
    Some(shard.pdp.recall(&depends))
}

/// Who asks, and where questions go. `None` when one of them is not known.
fn asker<'a>(
    world: &'a World,
    exchange: &'a Exchange,
    now: UnixSeconds,
) -> Option<(&'a Endpoints, Asker<'a>)> {
    let endpoints = &world.snapshot.pdp.as_ref()?.endpoints;
    if *endpoints == Endpoints::Unknown {
        return None;
    }
    let principal = exchange.token.as_deref()?.principal();
    let call = &exchange.scratch.call;
    let asker = Asker {
        user: principal.user(),
        agent: principal.agent(),
        source_ip: exchange.source?,
        country: decide::locate(world, exchange.source),
        now,
        revision: if exchange.call_read { call.revision() } else { None },
    };
    Some((endpoints, asker))
}

/// Asks which of `names`, items of a list, are for the caller: those with which something may be
/// done.
///
/// # Errors
/// [`Reject::PolicyUnavailable`]: no list is shown unasked, nor are many questions asked one by
/// one.
pub(super) async fn shown(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    now: UnixSeconds,
    listed: Listed,
    names: &[&str],
) -> Result<Vec<bool>, Reject> {
    let (endpoints, asker) = asker(world, exchange, now).ok_or(Reject::PolicyUnavailable)?;
    let (kind, actions): (_, &[&str]) = match listed {
        Listed::Tools => ("tool", &["tools/call"]),
        Listed::Prompts => ("prompt", &PROMPT_USES),
        Listed::Resources => ("resource", &RESOURCE_USES),
        // It stands for resources that nobody has named yet.
        Listed::Templates => ("resource_template", &["resources/read"]),
    };
    let server = Some(exchange.scratch.server.as_str());
    let mut all = Vec::with_capacity(names.len() * actions.len());
    for id in names {
        all.extend(actions.iter().map(|action| Evaluation { action, kind, id, server }));
    }
    if all.is_empty() {
        return Ok(Vec::new());
    }
    if !together(endpoints) && all.len() > PDP_ONE_BY_ONE_MAX {
        return Err(Reject::PolicyUnavailable);
    }
    let questions = Questions::write(endpoints, &asker, &all).to_the_end();
    let answers = ask(shard, world, exchange, &questions).await?;
    let items = answers.chunks(actions.len());
    Ok(items.map(|uses| uses.iter().any(|answer| answer.permitted)).collect())
}

/// Whether all of one message may be asked at once.
const fn together(endpoints: &Endpoints) -> bool {
    matches!(endpoints, Endpoints::Known { evaluations: Some(_), .. })
}

/// A request that is judged by its method and what it names. Notifications and pings are part of a
/// session.
fn names_something(exchange: &Exchange) -> bool {
    let call = &exchange.scratch.call;
    exchange.method == HttpMethod::Post
        && call.kind() == Kind::Request
        && call.method() != Method::Ping
}

/// Asks, and takes note of what came of it.
async fn ask(
    shard: &Shard,
    world: &World,
    exchange: &Exchange,
    questions: &Questions,
) -> Result<Vec<Answer>, Reject> {
    let began = shard.clock.monotonic();
    let point = world.snapshot.pdp.as_ref().ok_or(Reject::PolicyUnavailable)?;
    let answers = shard.pdp.ask(point, world.snapshot.config_generation, questions).await;
    note(shard, exchange, &answers);
    let took = shard.clock.monotonic().micros_since(began);
    shard.meter.counters().pdp_duration.record(took);
    answers
}

/// Counts one set of answers. A denial ends what was kept for whom it is about.
pub(super) fn note(shard: &Shard, exchange: &Exchange, answers: &Result<Vec<Answer>, Reject>) {
    let counters = shard.meter.counters();
    match answers {
        Err(_) => counters.pdp_errors.add(1),
        Ok(all) if all.iter().all(|answer| answer.permitted) => counters.pdp_permits.add(1),
        Ok(_) => {
            counters.pdp_denials.add(1);
            if let Some(token) = exchange.token.as_deref() {
                shard.pdp.forget_permits_of(token.principal().digest());
            }
        }
    }
}

/// What the answers to [`What::Message`] mean for the request.
///
/// # Errors
/// As [`permit`].
pub(super) fn conclude_with(
    world: &World,
    exchange: &Exchange,
    answers: Result<&[Answer], Reject>,
) -> Result<Permit, Denial> {
    let (snapshot, set) = (&world.snapshot, &world.snapshot.policy);
    let answers = answers.map_err(|reject| refused(reject, set))?;
    let token = exchange.token.as_deref().ok_or_else(|| Denial::unknown_server(set))?;
    let index = world.server(&exchange.scratch.server);
    let server = index.and_then(|at| snapshot.config.servers.get(usize::from(at)));
    let (Some(index), Some(server)) = (index, server) else {
        return Err(Denial::unknown_server(set));
    };
    let call = &exchange.scratch.call;
    let is_message = exchange.method == HttpMethod::Post && call.kind() == Kind::Request;
    let form = match is_message {
        true if call.method().is_handshake() => Form::Handshake,
        true => Form::Request,
        false => Form::Stream,
    };
    let asked = Asked {
        server: index,
        form,
        default_credential: server.credential.and_then(|index| u16::try_from(index).ok()),
        identity: token.principal().digest(),
    };
    conclude(set, &asked, answers, |name| {
        let known = &snapshot.config.credentials;
        known.iter().position(|one| one.name == name).and_then(|at| u16::try_from(at).ok())
    })
}

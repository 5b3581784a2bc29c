//! Whose a name or a URI is that an agent asks for.
//!
//! Most names say it themselves. What a cut name stands for, and whose a URI is, only the servers'
//! lists tell; and of those only what this agent may ask for counts, so that an answer never says
//! that there is something which is hidden.

use std::rc::Rc;
use std::time::Duration;

use super::lists::Asking;
use super::together::together;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::Words;
use crate::hub::catalog::Use;
use crate::limits::TEMPLATES_MATCHED_MAX;
use crate::mcp::capability::era_of;
use crate::mcp::catalog::{Ambiguous, Catalog, META_SERVER};
use crate::mcp::names::{Split, is_composed};
use crate::mcp::span::Node;
use crate::mcp::{Era, Listed, Method, Mirrored, Target, field_value, template};
use crate::reject::Reject;
use crate::relay::Oversight as _;
use crate::shard::Shard;

use super::greet::Speaker;

/// The server that is meant, and what it calls what is asked for. `known` is what the agent calls
/// it, in the message; `hint` is the server that it names for a URI.
///
/// # Errors
/// `PolicyCallNoPermit` for what is nobody's, or hidden; `NameAmbiguous`; why a server's list could
/// not be had where that left nothing.
pub(super) async fn resolve(
    shard: &Shard,
    exchange: &Exchange,
    speaker: &Speaker,
    known: &str,
    hint: Option<&Hint>,
) -> Result<(u16, String), Reject> {
    let finder = Finder { shard, exchange, speaker };
    if is_uri(exchange) {
        let server = finder.owner(known, hint).await?;
        return Ok((server, known.to_owned()));
    }
    match exchange.world.prefixes.split(known) {
        Split::Plain { server, name } => Ok((server, name.to_owned())),
        Split::Hashed { server, name } => Ok((server, finder.hashed(server, known, name).await?)),
        Split::Unknown => Err(Reject::PolicyCallNoPermit),
    }
}

/// The server that an agent names for a URI, as a list told it.
pub(super) struct Hint(String);

impl Hint {
    /// # Errors
    /// `RpcParams` for one that is no string.
    pub(super) fn of(params: Node<'_>) -> Result<Option<Self>, Reject> {
        let hint = params.get("_meta").and_then(|meta| meta.get(META_SERVER));
        hint.map(|hint| hint.text().map(|name| Self(name.to_owned())).ok_or(Reject::RpcParams))
            .transpose()
    }
}

fn is_uri(exchange: &Exchange) -> bool {
    exchange.scratch.call.targets().any(|target| matches!(target, Target::Resource(_)))
}

/// Who looks for something in the servers' lists.
pub(super) struct Finder<'a> {
    pub(super) shard: &'a Shard,
    pub(super) exchange: &'a Exchange,
    pub(super) speaker: &'a Speaker,
}

impl<'a> Finder<'a> {
    pub(super) fn asking(&self, server: u16, listed: Listed) -> Asking<'a> {
        let config = &self.exchange.world.snapshot.config;
        let own = config.servers.get(usize::from(server)).map_or(0, |it| it.timeout_seconds);
        let time = Duration::from_millis(config.federation.timeout_ms);
        Asking {
            shard: self.shard,
            exchange: self.exchange,
            speaker: self.speaker,
            server,
            listed,
            until: self.shard.timers.now().after(time.min(Duration::from_secs(own))),
        }
    }

    /// What a name stands for that may be cut. Who may not list reads it as it is: the name that is
    /// judged then is the name that is sent.
    async fn hashed(&self, server: u16, outer: &str, plain: &str) -> Result<String, Reject> {
        let tools = self.exchange.scratch.call.method() == Method::ToolsCall;
        let listed = if tools { Listed::Tools } else { Listed::Prompts };
        let config = &self.exchange.world.snapshot.config;
        let prefix = config.servers.get(usize::from(server)).ok_or(Reject::GatewayFault)?;
        let prefix = &prefix.prefix;
        let Some((view, list)) = self.asking(server, listed).known(Use::Routing).await else {
            return Ok(plain.to_owned());
        };
        let found = match list {
            Ok(catalog) => match catalog.meant(prefix, outer, plain) {
                Ok(entry) => Ok(entry.map_or(plain, |entry| entry.name()).to_owned()),
                Err(Ambiguous) => {
                    let both = catalog.entries().map(|entry| entry.name());
                    let both =
                        both.filter(|name| *name == plain || is_composed(prefix, name, outer));
                    Err(self.ambiguous(&view, listed, &both.collect::<Vec<_>>()).await)
                }
            },
            Err(reject) => Err(reject),
        };
        view.unsent(self.shard);
        found
    }

    /// Two things of one name: that there are any is only for who may use one.
    async fn ambiguous(&self, view: &Exchange, listed: Listed, names: &[&str]) -> Reject {
        let watch = Watch::new(self.shard, view, true, Words::default());
        let mut kept = Vec::with_capacity(names.len());
        match watch.keep(listed, names.len(), names, &mut kept).await {
            Ok(()) if kept.contains(&true) => Reject::NameAmbiguous,
            Ok(()) => Reject::PolicyCallNoPermit,
            Err(reject) => reject,
        }
    }

    /// The server of a URI: the one that the agent names, or the only one on which it may ask for
    /// it, or the only one of these that lists it, or that has a template for it.
    async fn owner(&self, uri: &str, hint: Option<&Hint>) -> Result<u16, Reject> {
        let world = &self.exchange.world;
        if let Some(Hint(name)) = hint {
            return world.server(name).ok_or(Reject::PolicyCallNoPermit);
        }
        if let [_] = world.snapshot.config.servers.as_slice() {
            return Ok(0);
        }
        let all = world.prefixes.in_order().map(|(server, _)| server);
        let permitted = together(
            all.map(|server| async move { self.permits(server, uri).await.then_some(server) }),
        );
        let permitted: Vec<u16> = permitted.await.into_iter().flatten().collect();
        match permitted.as_slice() {
            [] => return Err(Reject::PolicyCallNoPermit),
            [only] => return Ok(*only),
            [_, ..] => {}
        }
        let mut failed = None;
        for listed in [Listed::Resources, Listed::Templates] {
            let owners = together(
                permitted
                    .iter()
                    .map(|server| async move { (*server, self.has(*server, listed, uri).await) }),
            );
            let mut found = Vec::new();
            for (server, has) in owners.await {
                match has {
                    Ok(true) => found.push(server),
                    Ok(false) => {}
                    Err(reject) => failed = failed.or(Some(reject)),
                }
            }
            match found.as_slice() {
                [] => {}
                [only] => return Ok(*only),
                [_, _, ..] => return Err(Reject::NameAmbiguous),
            }
        }
        Err(failed.unwrap_or(Reject::PolicyCallNoPermit))
    }

    /// Whether the message may go to `server` as it is: a URI is the same for all of them.
    async fn permits(&self, server: u16, uri: &str) -> bool {
        let exchange = self.exchange;
        let modern = era_of(self.speaker.revision) == Era::Modern;
        let method = exchange.scratch.call.method();
        let mut name = Vec::new();
        field_value(uri, &mut name);
        let sent = Mirrored {
            protocol_version: Some(self.speaker.revision.as_bytes()),
            method: modern.then(|| exchange.scratch.call.method_name().as_bytes()),
            name: (modern && method == Method::ResourcesRead).then_some(name.as_slice()),
        };
        let body = exchange.scratch.body.clone();
        let Ok(mut leg) = exchange.leg(self.shard, server, body, &sent) else { return false };
        let judged = leg.judge(self.shard).await;
        leg.unsent(self.shard);
        judged.is_ok()
    }

    /// Whether a server that may be asked lists `uri`, or a template for it. Of one that may be
    /// read and not listed nobody knows.
    async fn has(&self, server: u16, listed: Listed, uri: &str) -> Result<bool, Reject> {
        let Some((view, list)) = self.asking(server, listed).known(Use::Routing).await else {
            return Ok(false);
        };
        view.unsent(self.shard);
        let catalog: Rc<Catalog> = list?;
        Ok(match listed {
            Listed::Templates => {
                let mut templates = catalog.entries().take(TEMPLATES_MATCHED_MAX);
                // What is asked to be completed is the template itself.
                catalog.find(uri).is_some()
                    || templates.any(|entry| template::matches(entry.name(), uri))
            }
            Listed::Resources | Listed::Tools | Listed::Prompts => catalog.find(uri).is_some(),
        })
    }
}

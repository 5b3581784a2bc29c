//! What the permitted servers list, as one list.
//!
//! Every server that the agent may ask is asked at the same time, all its pages, within its time.
//! What is remembered is not asked for again. Of all that came, those items are shown whose use is
//! permitted, judged now; a server that is denied is not there, one that fails costs its own items
//! and is named.

use std::rc::Rc;
use std::time::Duration;

use super::greet::{self, Greeted, Ours, Speaker, Visible};
use super::together::together;
use super::{handshake, leg, local};
use crate::audit::{Legs, Tally};
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::gateway::oversight::Watch;
use crate::gateway::words::Words;
use crate::hub::catalog::{CatalogKey, Found, Owner, Use};
use crate::limits::CATALOG_LIFETIME;
use crate::listener::Downstream;
use crate::mcp::capability::{ServerCapabilities as Server, era_of};
use crate::mcp::catalog::{Catalog, Entry, Gatherer, Unusable};
use crate::mcp::message::{Message, ResultKind, Said};
use crate::mcp::names;
use crate::mcp::paging::{Answer, Missing, Page, Place};
use crate::mcp::span::{Document, Node, NodeKind};
use crate::mcp::{Era, Listed};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Oversight as _, Relayed};
use crate::shard::Shard;

/// Answers `tools/list` and its like.
///
/// # Errors
/// `CursorUnknown`; `RpcParams` for a cursor that is no string; quota, audit.
pub(super) async fn serve(
    shard: &Shard,
    downstream: &mut Downstream,
    exchange: &mut Exchange,
    listed: Listed,
) -> Result<Relayed, Reject> {
    let speaker = Speaker::of(shard, downstream, exchange)?;
    let world = Rc::clone(&exchange.world);
    let owner = handshake::owner(exchange)?;
    let now = exchange.judged.wall.seconds();
    let from = match cursor(&exchange.scratch.body)? {
        Some(cursor) => Some(Place::open(&world.keyring, listed, &owner, now, &cursor)?),
        None => None,
    };
    exchange.admit(shard)?;
    exchange.commit(shard)?;
    let parts = ask_all(shard, exchange, &speaker, listed, from.as_ref()).await?;
    exchange.connect_still(shard).await?;
    let mut merged = Merged::new(world.snapshot.config.federation.page_items);
    let mut legs = Legs::default();
    for part in &parts {
        legs.asked += 1;
        if merged.take(shard, part, listed, from.as_ref()).await {
            legs.answered += 1;
        }
    }
    exchange.outcome.legs = Some(legs);
    exchange.outcome.list = Some(merged.tally);
    let mut next = Vec::new();
    if let Some(place) = merged.page.next() {
        place.seal(&world.keyring, listed, &owner, now, &mut next)?;
    }
    let missing: Vec<Missing<'_>> = parts
        .iter()
        .zip(&merged.failed)
        .filter_map(|(part, reason)| Some(Missing { server: part.server(), reason: (*reason)? }))
        .collect();
    // What is incomplete is worth asking for again.
    let ttl_ms = if missing.is_empty() { merged.ttl_ms.unwrap_or(0) } else { 0 };
    let id = exchange.scratch.call.id_raw(&exchange.scratch.body).ok_or(Reject::GatewayFault)?;
    let answer = Answer {
        id,
        listed,
        page: &merged.page,
        next: (!next.is_empty()).then_some(&next),
        missing: &missing,
        ttl_ms: exchange.is_modern().then_some(ttl_ms),
    };
    let mut body = Vec::new();
    answer.write(&mut body);
    for part in parts {
        part.view.unsent(shard);
    }
    Ok(local::answer(shard, downstream, exchange, None, &body).await)
}

/// `params.cursor`; null is none.
fn cursor(body: &[u8]) -> Result<Option<String>, Reject> {
    let mut document = Document::new();
    let root = document.read(body).map_err(|_| Reject::RpcParams)?;
    let Some(params) = root.get("params") else { return Ok(None) };
    let [cursor] = params.pick(&["cursor"]).map_err(|_| Reject::RpcParams)?;
    match cursor.filter(|cursor| cursor.kind() != NodeKind::Null) {
        Some(cursor) => cursor.text().map(|text| Some(text.to_owned())).ok_or(Reject::RpcParams),
        None => Ok(None),
    }
}

/// One server that the agent may ask, and what it lists.
struct Part {
    /// The list of this server as the agent would ask for it: its items are judged by it.
    view: Exchange,
    prefix: String,
    list: Result<Listing, Failure>,
}

struct Listing {
    catalog: Rc<Catalog>,
    /// For how many milliseconds more it may be shown.
    left_ms: u64,
    /// No server was asked for it.
    remembered: bool,
}

/// Why a server has no part in the answer.
#[derive(Clone, Copy)]
enum Failure {
    Reject(Reject),
    /// It answered with an error.
    Refused,
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::Reject(match unusable {
            Unusable::Malformed => Reject::UpstreamMalformed,
            Unusable::TooLarge => Reject::UpstreamTooLarge,
        })
    }
}

impl Failure {
    const fn reason(self) -> &'static str {
        match self {
            Self::Reject(reject) => reject.audit_code(),
            Self::Refused => "upstream_error",
        }
    }
}

impl Part {
    fn server(&self) -> &str {
        &self.view.scratch.server
    }
}

/// In the order of the merged list. Servers before `from` have nothing on this page.
async fn ask_all(
    shard: &Shard,
    exchange: &Exchange,
    speaker: &Speaker,
    listed: Listed,
    from: Option<&Place>,
) -> Result<Vec<Part>, Reject> {
    let world = Rc::clone(&exchange.world);
    let config = &world.snapshot.config;
    let (now, all_have) = (shard.timers.now(), Duration::from_millis(config.federation.timeout_ms));
    let servers = world
        .prefixes
        .in_order()
        .filter(|(_, prefix)| from.is_none_or(|from| from.prefix.as_str() <= *prefix));
    let asked = servers.map(|(index, prefix)| {
        let server = config.servers.get(usize::from(index));
        let own = Duration::from_secs(server.map_or(0, |server| server.timeout_seconds));
        let asking = Asking {
            shard,
            exchange,
            speaker,
            server: index,
            listed,
            until: now.after(all_have.min(own)),
        };
        // Who reads on is shown what the first page was taken from, as far as that is remembered.
        let what_for = if from.is_some() { Use::Routing } else { Use::Listing };
        async move { asking.part(prefix, what_for).await }
    });
    together(asked).await.into_iter().filter_map(Result::transpose).collect()
}

/// One list of one server, for one principal.
pub(super) struct Asking<'a> {
    pub(super) shard: &'a Shard,
    pub(super) exchange: &'a Exchange,
    pub(super) speaker: &'a Speaker,
    pub(super) server: u16,
    pub(super) listed: Listed,
    pub(super) until: Monotonic,
}

impl Asking<'_> {
    /// `None` for a server that is not there for this agent.
    ///
    /// # Errors
    /// No decision was to be had: whether the server is there is not known, and so not told.
    async fn part(&self, prefix: &str, what_for: Use) -> Result<Option<Part>, Reject> {
        let Some(Visible { mut leg, permit }) = greet::unless_denied(self.view().await)? else {
            return Ok(None);
        };
        let list = match self.list(&permit, what_for).await {
            // What is remembered must not multiply what a limit grants.
            Ok(listing) if listing.remembered => {
                leg.admit(self.shard).map(|()| listing).map_err(Failure::from)
            }
            other => other,
        };
        Ok(Some(Part { view: leg, prefix: prefix.to_owned(), list }))
    }

    /// The list as far as it takes to know whose something is, and by what right it was asked for.
    /// `None` for who may not ask for it.
    pub(super) async fn known(
        &self,
        what_for: Use,
    ) -> Option<(Exchange, Result<Rc<Catalog>, Reject>)> {
        let Visible { leg, permit } = self.view().await.ok()?;
        let list = self.list(&permit, what_for).await;
        let list = list.map(|listing| listing.catalog).map_err(|failure| match failure {
            Failure::Reject(reject) => reject,
            Failure::Refused => Reject::UpstreamMalformed,
        });
        Some((leg, list))
    }

    /// The agent's own wish for this server's list, judged.
    async fn view(&self) -> Result<Visible, Reject> {
        let Speaker { revision, capabilities, .. } = *self.speaker;
        let ours = Ours::list(revision, self.listed, "g0", None, capabilities);
        greet::judged(self.shard, self.exchange, self.server, &ours).await
    }

    /// What is remembered, or is fetched now.
    async fn list(&self, permit: &Permit, what_for: Use) -> Result<Listing, Failure> {
        let snapshot = &self.exchange.world.snapshot;
        let key = self.key(permit)?;
        let catalogs = &self.shard.hub.catalogs;
        let fetch = match catalogs.find(&key, what_for, self.shard.timers.now()) {
            Found::Known(catalog, left_ms) => {
                return Ok(Listing { catalog, left_ms, remembered: true });
            }
            Found::Unknown(fetch) => fetch,
        };
        let catalog = self.fetched(permit).await?;
        let server = snapshot.config.servers.get(usize::from(self.server));
        // Every kind of credential that there is belongs to the gateway, not to a user.
        let may_share = server.is_some_and(|server| server.share_public_results);
        let life_ms = u64::try_from(CATALOG_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let left_ms = catalog.ttl_ms().min(life_ms);
        let catalog = catalogs.keep(fetch, catalog, may_share);
        Ok(Listing { catalog, left_ms, remembered: false })
    }

    fn key(&self, permit: &Permit) -> Result<CatalogKey, Reject> {
        let small = |index: usize| u16::try_from(index).map_err(|_| Reject::GatewayFault);
        Ok(CatalogKey {
            owner: Owner::Identity(*permit.identity()),
            server: self.server,
            credential: permit.credential().map(small).transpose()?,
            generation: self.exchange.world.snapshot.config_generation,
            revision: self.speaker.revision,
            listed: self.listed,
        })
    }

    /// The list as far as it is remembered for whom `permit` was given.
    pub(super) fn remembered(&self, permit: &Permit) -> Option<Rc<Catalog>> {
        let key = self.key(permit).ok()?;
        match self.shard.hub.catalogs.find(&key, Use::Routing, self.shard.timers.now()) {
            Found::Known(catalog, _) => Some(catalog),
            Found::Unknown(_) => None,
        }
    }

    /// All pages. A credential that was refused is read anew, and a session that the server forgot
    /// is opened anew, once.
    async fn fetched(&self, permit: &Permit) -> Result<Catalog, Failure> {
        match self.pages(permit).await {
            Err(Failure::Reject(Reject::UpstreamAuth | Reject::SessionUnknown)) => {
                self.pages(permit).await.map_err(|again| match again {
                    // Of the agent's own session nothing was said.
                    Failure::Reject(Reject::SessionUnknown) => Reject::UpstreamMalformed.into(),
                    other @ (Failure::Reject(_) | Failure::Refused) => other,
                })
            }
            other => other,
        }
    }

    async fn pages(&self, permit: &Permit) -> Result<Catalog, Failure> {
        let Self { shard, exchange, speaker, server, listed, until } = *self;
        let greeted = greet::greeted(shard, exchange, permit, speaker, until).await?;
        let mut gatherer = Gatherer::new(listed);
        if !greeted.hello.capabilities.hold(needed(listed)) {
            return Ok(gatherer.finish());
        }
        if (era_of(speaker.revision), greeted.hello.era) == (Era::Legacy, Era::Modern) {
            gatherer = gatherer.for_legacy();
        }
        let mut document = Document::new();
        let mut cursor: Option<String> = None;
        let mut number = 0;
        loop {
            number += 1;
            let id = match &greeted.session {
                Some((_, session)) => format!("g{}", session.next_id()),
                None => format!("g{number}"),
            };
            let capabilities = speaker.capabilities;
            let revision = greeted.hello.revision;
            let ours = Ours::list(revision, listed, &id, cursor.as_deref(), capabilities);
            let visible = greet::judged(shard, exchange, server, &ours).await?;
            if visible.permit.credential() != permit.credential() {
                visible.leg.unsent(shard);
                return Err(Reject::PolicyCredentialAmbiguous.into());
            }
            let text = self.ask(visible, &ours, &greeted).await?;
            let next = read_page(&mut gatherer, &mut document, &text, &id)?;
            // Nothing of a page is held while the next one is waited for.
            document.forget();
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(gatherer.finish()),
            }
        }
    }

    async fn ask(
        &self,
        visible: Visible,
        ours: &Ours,
        greeted: &Greeted,
    ) -> Result<Vec<u8>, Failure> {
        let session = greeted.session.as_ref().and_then(|(_, session)| session.id.as_deref());
        let answered = greet::converse(self.shard, visible, ours, session, self.until).await?;
        if let (true, Some((key, session))) =
            (leg::forgot_session(answered.status), &greeted.session)
            && session.id.is_some()
        {
            self.shard.hub.sessions.forget(key, session);
            return Err(Reject::SessionUnknown.into());
        }
        answered.text.ok_or(Failure::Reject(Reject::UpstreamMalformed))
    }
}

/// What a server must have said in its handshake to be asked.
const fn needed(listed: Listed) -> Server {
    match listed {
        Listed::Tools => Server::TOOLS,
        Listed::Prompts => Server::PROMPTS,
        Listed::Resources | Listed::Templates => Server::RESOURCES,
    }
}

/// Takes one answer in; answers the cursor of the next page.
fn read_page(
    gatherer: &mut Gatherer,
    document: &mut Document,
    text: &[u8],
    id: &str,
) -> Result<Option<String>, Failure> {
    let malformed = |_| Failure::Reject(Reject::UpstreamMalformed);
    document.read(text).map_err(malformed)?;
    let root = document.root().ok_or(Failure::Reject(Reject::UpstreamMalformed))?;
    let message = Message::read(root).map_err(malformed)?;
    match (message.said, message.id.and_then(Node::text), message.content) {
        (Said::Result(ResultKind::Complete), Some(answered), Some(result)) if answered == id => {
            Ok(gatherer.page(document, result, text)?.map(str::to_owned))
        }
        // It has no such list, whatever it said before.
        (Said::Error { code: METHOD_UNKNOWN }, ..) => Ok(None),
        (Said::Error { .. }, ..) => Err(Failure::Refused),
        (Said::Result(_) | Said::Request(_) | Said::Notification(_), ..) => {
            Err(Reject::UpstreamMalformed.into())
        }
    }
}

/// The answer under way.
struct Merged {
    page: Page,
    tally: Tally,
    /// The shortest time that any part may be shown.
    ttl_ms: Option<u64>,
    /// Of each part, why it is missing.
    failed: Vec<Option<&'static str>>,
}

impl Merged {
    fn new(page_items: usize) -> Self {
        let (tally, failed) = (Tally::default(), Vec::new());
        Self { page: Page::new(page_items), tally, ttl_ms: None, failed }
    }

    /// Takes in what is shown of a part. False when the part is missing.
    async fn take(
        &mut self,
        shard: &Shard,
        part: &Part,
        listed: Listed,
        from: Option<&Place>,
    ) -> bool {
        let taken = match &part.list {
            Ok(listing) => self.show(shard, part, listing, listed, from).await,
            Err(failure) => Err(*failure),
        };
        self.failed.push(taken.err().map(Failure::reason));
        taken.is_ok()
    }

    async fn show(
        &mut self,
        shard: &Shard,
        part: &Part,
        listing: &Listing,
        listed: Listed,
        from: Option<&Place>,
    ) -> Result<(), Failure> {
        let Part { view, prefix, .. } = part;
        let behind =
            |entry: &Entry<'_>| from.is_none_or(|from| from.is_before(prefix, entry.name()));
        let entries: Vec<Entry<'_>> = listing.catalog.entries().filter(behind).collect();
        let named = matches!(listed, Listed::Tools | Listed::Prompts);
        let ambiguous = if named { listing.catalog.ambiguous(prefix) } else { Vec::new() };
        // A URI has no prefix that tells whose it is.
        let server = (!named && !prefix.is_empty()).then_some(part.server());
        let least = self.ttl_ms.unwrap_or(u64::MAX).min(listing.left_ms);
        self.ttl_ms = Some(least);
        let watch = Watch::new(shard, view, true, Words::default());
        let mut outer = String::new();
        for window in entries.chunks(JUDGED_AT_ONCE) {
            if self.page.is_full() {
                break;
            }
            let names: Vec<&str> = window.iter().map(|entry| entry.name()).collect();
            let mut kept = Vec::with_capacity(names.len());
            watch.keep(listed, names.len(), &names, &mut kept).await?;
            for (entry, _) in window.iter().zip(kept).filter(|(_, kept)| *kept) {
                if !ambiguous.is_empty() {
                    outer.clear();
                    names::compose(prefix, entry.name(), &mut outer);
                    if ambiguous.binary_search(&outer).is_ok() {
                        continue;
                    }
                }
                if !self.page.put(prefix, *entry, server) {
                    break;
                }
            }
        }
        if entries.is_empty() {
            watch.keep(listed, 0, &[], &mut Vec::new()).await?;
        }
        self.count(watch.tally());
        Ok(())
    }

    /// Together as each alone: why nothing is shown is the strongest of all reasons.
    fn count(&mut self, tally: Option<Tally>) {
        let Some(tally) = tally else { return };
        let first = self.tally == Tally::default();
        let upstream = self.tally.upstream.saturating_add(tally.upstream);
        let shown = self.tally.shown.saturating_add(tally.shown);
        let empty = match (self.tally.empty, tally.empty) {
            _ if shown > 0 => None,
            (None, why) if first => why,
            (before, why) => before.max(why),
        };
        self.tally = Tally { upstream, shown, empty };
    }
}

const METHOD_UNKNOWN: i64 = -32601;
/// Items that are judged before it is looked whether the page is full.
const JUDGED_AT_ONCE: usize = 256;

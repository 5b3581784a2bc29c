//! Handshakes with servers, held when they are first needed.
//!
//! What is said in one is remembered per principal and credential (`hub::hello`), a legacy one
//! opens a session of ours as well (`hub::sessions`). Each message of a handshake is a leg: judged,
//! counted, given a credential and recorded like anything else that goes to a server.

use std::rc::Rc;

use super::ours::Answered;
pub(super) use super::ours::{Ours, converse, judged};
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::hub::hello::{Found, HelloKey, Probe};
use crate::hub::sessions::{Entered, Opening, SessionKey, UpstreamSession};
use crate::mcp::Era;
use crate::mcp::capability::{ClientCapabilities, era_of};
use crate::mcp::handshake::{Hello, NEWEST_LEGACY, Verdict};
use crate::mcp::hub_session::SessionMark;
use crate::net::Either;
use crate::policy::Permit;
use crate::reject::Reject;
use crate::shard::Shard;

/// Whom the hub speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    /// What the agent speaks.
    pub(super) revision: &'static str,
    /// What servers are told that it can be asked for.
    pub(super) capabilities: ClientCapabilities,
    /// The session of a legacy agent.
    pub(super) session: Option<SessionMark>,
}

impl Speaker {
    /// What to ask a legacy server for.
    pub(super) fn legacy_revision(&self) -> &'static str {
        match era_of(self.revision) {
            Era::Legacy => self.revision,
            Era::Modern => NEWEST_LEGACY,
        }
    }
}

/// A handshake that may be held: the server may be seen, and by what right.
pub(super) struct Visible {
    pub(super) leg: Exchange,
    pub(super) permit: Permit,
}

/// Judges the handshake of the agent's own era with `server`, an index of the exchange's world.
///
/// # Errors
/// The denial: for this agent there is no such server.
pub(super) async fn visible(
    shard: &Shard,
    exchange: &Exchange,
    server: u16,
    speaker: &Speaker,
) -> Result<Visible, Reject> {
    judged(shard, exchange, server, &Ours::handshake(era_of(speaker.revision), speaker)).await
}

impl Visible {
    /// What the server says of itself: what it said to this principal, or a handshake with it.
    ///
    /// # Errors
    /// Why there is none: of the server, of the credential, of the audit.
    pub(super) async fn hello(
        self,
        shard: &Shard,
        exchange: &Exchange,
        speaker: &Speaker,
        until: Monotonic,
    ) -> Result<Rc<Hello>, Reject> {
        let greeting = Greeting::new(shard, exchange, &self.permit, speaker, until)?;
        greeting.hello(Some(self)).await
    }
}

/// What a request needs to know of its server before it is sent.
pub(super) struct Greeted {
    /// Its era, among other things.
    pub(super) hello: Rc<Hello>,
    /// Our session with it, if it is a legacy one.
    pub(super) session: Option<(SessionKey, Rc<UpstreamSession>)>,
    key: HelloKey,
}

impl Greeted {
    /// What is spoken with the server: a session was agreed on by itself.
    pub(super) fn revision(&self) -> &'static str {
        self.session.as_ref().map_or(self.hello.revision, |(_, session)| session.revision)
    }

    /// The server refused a request in the form that its handshake asked for, as one of the other
    /// era would. It may have become one: the next request holds the handshake anew, unless this
    /// one was held a moment ago.
    pub(super) fn doubt(&self, shard: &Shard) {
        let _ = shard.hub.hellos.contradict(&self.key, &self.hello, shard.timers.now());
    }
}

/// Sees to it that the server of `permit`, which is the request's own, is known and has a session
/// where it needs one.
///
/// # Errors
/// Those of a handshake; `PolicyDenied` and the like when the handshake itself is denied.
pub(super) async fn greeted(
    shard: &Shard,
    exchange: &Exchange,
    permit: &Permit,
    speaker: &Speaker,
    until: Monotonic,
) -> Result<Greeted, Reject> {
    let greeting = Greeting::new(shard, exchange, permit, speaker, until)?;
    let hello = greeting.hello(None).await?;
    let session = match hello.era {
        Era::Legacy => Some((greeting.session_key(), greeting.session().await?)),
        Era::Modern => None,
    };
    Ok(Greeted { hello, session, key: greeting.hello_key() })
}

/// One principal in front of one server, under one credential.
struct Greeting<'a> {
    shard: &'a Shard,
    exchange: &'a Exchange,
    speaker: &'a Speaker,
    server: u16,
    credential: Option<u16>,
    identity: [u8; 32],
    generation: u64,
    until: Monotonic,
}

impl<'a> Greeting<'a> {
    fn new(
        shard: &'a Shard,
        exchange: &'a Exchange,
        permit: &Permit,
        speaker: &'a Speaker,
        until: Monotonic,
    ) -> Result<Self, Reject> {
        let small = |index: usize| u16::try_from(index).map_err(|_| Reject::GatewayFault);
        let server = small(permit.server())?;
        let credential = permit.credential().map(small).transpose()?;
        Ok(Self {
            shard,
            exchange,
            speaker,
            server,
            credential,
            identity: *permit.identity(),
            generation: exchange.world.snapshot.config_generation,
            until,
        })
    }

    fn hello_key(&self) -> HelloKey {
        HelloKey {
            identity: self.identity,
            server: self.server,
            credential: self.credential,
            generation: self.generation,
            revision: self.speaker.revision,
        }
    }

    fn session_key(&self) -> SessionKey {
        SessionKey {
            client: self.speaker.session,
            identity: self.identity,
            server: self.server,
            credential: self.credential,
            generation: self.generation,
            capabilities: self.speaker.capabilities,
        }
    }

    /// The agent's own era first. `first` is its handshake, when it was judged already.
    async fn hello(&self, mut first: Option<Visible>) -> Result<Rc<Hello>, Reject> {
        let hellos = &self.shard.hub.hellos;
        let probe = match hellos.find(&self.hello_key(), self.shard.timers.now()) {
            Found::Known(hello) => {
                if let Some(Visible { leg, .. }) = first {
                    leg.unsent(self.shard);
                }
                return Ok(hello);
            }
            Found::Unknown(probe) => probe,
        };
        let own = era_of(self.speaker.revision);
        for era in [own, other(own)] {
            let verdict = match era {
                Era::Modern => self.discover(first.take()).await?,
                Era::Legacy => match self.open(first.take(), probe.stale()).await? {
                    Opened::Said(verdict) => verdict,
                    Opened::ByAnother => {
                        match hellos.find(&self.hello_key(), self.shard.timers.now()) {
                            Found::Known(hello) => return Ok(hello),
                            Found::Unknown(_) => return Err(Reject::UpstreamTimeout),
                        }
                    }
                    Opened::Session(opening, session, hello) => {
                        return Ok(self.admit(probe, opening, session, hello));
                    }
                },
            };
            match verdict {
                Verdict::Speaks(hello) => return Ok(self.keep(probe, hello)),
                Verdict::OtherEra => {}
                Verdict::Silent => return Err(Reject::UpstreamMalformed),
            }
        }
        Err(Reject::UpstreamEra)
    }

    fn keep(&self, probe: Probe, hello: Hello) -> Rc<Hello> {
        self.shard.upstream_speaks(self.server, self.generation, hello.era);
        self.shard.hub.hellos.keep(probe, hello)
    }

    /// Known before it can be used, so that whoever waited for the session finds both.
    fn admit(
        &self,
        probe: Probe,
        opening: Opening,
        session: UpstreamSession,
        hello: Hello,
    ) -> Rc<Hello> {
        let kept = self.keep(probe, hello);
        opening.opened(session, self.shard.timers.now());
        kept
    }

    async fn discover(&self, first: Option<Visible>) -> Result<Verdict, Reject> {
        let ours = Ours::handshake(Era::Modern, self.speaker);
        Ok(self.say(first, &ours, None).await?.verdict(Era::Modern))
    }

    /// A session with a server whose era is to be found out by opening one.
    async fn open(&self, first: Option<Visible>, stale: Option<Hello>) -> Result<Opened, Reject> {
        let sessions = &self.shard.hub.sessions;
        let key = self.session_key();
        let opening = match sessions.enter(&key, self.shard.timers.now())? {
            Entered::Open(opening) => opening,
            Entered::Wait(waiting) => {
                self.put_back(first);
                let until = self.shard.timers.sleep_until(self.until);
                return match crate::net::first(waiting, until).await {
                    Either::Left(Ok(_)) => Ok(Opened::ByAnother),
                    Either::Left(Err(Reject::UpstreamEra)) => Ok(Opened::Said(Verdict::OtherEra)),
                    Either::Left(Err(reject)) => Err(reject),
                    Either::Right(()) => Err(Reject::UpstreamTimeout),
                };
            }
            Entered::Ready(session) => match stale.filter(|hello| hello.era == Era::Legacy) {
                // The session is alive and the handshake is old: it said nothing else meanwhile.
                Some(hello) => {
                    self.put_back(first);
                    return Ok(Opened::Said(Verdict::Speaks(hello)));
                }
                None => {
                    sessions.forget(&key, &session);
                    match sessions.enter(&key, self.shard.timers.now())? {
                        Entered::Open(opening) => opening,
                        Entered::Ready(_) | Entered::Wait(_) => {
                            self.put_back(first);
                            return Err(Reject::GatewayOverloaded);
                        }
                    }
                }
            },
        };
        self.initialize(first, opening).await
    }

    /// `opening` fails for all who wait if anything here does: it is dropped then, or told why.
    async fn initialize(&self, first: Option<Visible>, opening: Opening) -> Result<Opened, Reject> {
        match self.initialized(first).await {
            Ok((Verdict::Speaks(hello), id)) => {
                let session = UpstreamSession::new(id, hello.revision);
                Ok(Opened::Session(opening, session, hello))
            }
            Ok((verdict, _)) => {
                opening.failed(match verdict {
                    Verdict::OtherEra => Reject::UpstreamEra,
                    Verdict::Silent | Verdict::Speaks(_) => Reject::UpstreamMalformed,
                });
                Ok(Opened::Said(verdict))
            }
            Err(reject) => {
                opening.failed(reject);
                Err(reject)
            }
        }
    }

    /// `initialize`, and the word that it was heard, without which a server may refuse the next
    /// message (2025-11-25 basic/lifecycle "Initialization").
    async fn initialized(
        &self,
        first: Option<Visible>,
    ) -> Result<(Verdict, Option<Vec<u8>>), Reject> {
        let answered = self.say(first, &Ours::handshake(Era::Legacy, self.speaker), None).await?;
        let verdict = answered.verdict(Era::Legacy);
        if let Verdict::Speaks(hello) = &verdict {
            let note = Ours::initialized(hello.revision);
            let heard = self.say(None, &note, answered.session.as_deref()).await?;
            if !matches!(heard.status, 200 | 202 | 204) {
                return Err(Reject::UpstreamMalformed);
            }
        }
        Ok((verdict, answered.session))
    }

    /// The session of a server that is known to be a legacy one.
    async fn session(&self) -> Result<Rc<UpstreamSession>, Reject> {
        let sessions = &self.shard.hub.sessions;
        let now = self.shard.timers.now();
        match sessions.enter(&self.session_key(), now)? {
            Entered::Ready(session) => Ok(session),
            Entered::Wait(waiting) => {
                let until = self.shard.timers.sleep_until(self.until);
                match crate::net::first(waiting, until).await {
                    Either::Left(opened) => opened,
                    Either::Right(()) => Err(Reject::UpstreamTimeout),
                }
            }
            Entered::Open(opening) => match self.initialize(None, opening).await? {
                Opened::Session(opening, session, _) => {
                    Ok(opening.opened(session, self.shard.timers.now()))
                }
                Opened::Said(Verdict::OtherEra) => Err(Reject::UpstreamEra),
                Opened::Said(Verdict::Speaks(_) | Verdict::Silent) | Opened::ByAnother => {
                    Err(Reject::UpstreamMalformed)
                }
            },
        }
    }

    /// Says `ours`, which `first` is when it was judged already. A credential that was refused may
    /// have been rotated: it is read anew once, by a decision of its own.
    async fn say(
        &self,
        first: Option<Visible>,
        ours: &Ours,
        session: Option<&[u8]>,
    ) -> Result<Answered, Reject> {
        let visible = self.or_judged(first, ours).await?;
        match converse(self.shard, visible, ours, session, self.until).await {
            Err(Reject::UpstreamAuth) if self.credential.is_some() => {
                let visible = self.or_judged(None, ours).await?;
                converse(self.shard, visible, ours, session, self.until).await
            }
            answered => answered,
        }
    }

    /// `first`, or the same judged now. The credential is that of whoever needs the handshake: a
    /// session that another one opened is none of theirs.
    async fn or_judged(&self, first: Option<Visible>, ours: &Ours) -> Result<Visible, Reject> {
        let visible = match first {
            Some(visible) => visible,
            None => judged(self.shard, self.exchange, self.server, ours).await?,
        };
        if visible.permit.credential() == self.credential.map(usize::from) {
            Ok(visible)
        } else {
            visible.leg.unsent(self.shard);
            Err(Reject::PolicyCredentialAmbiguous)
        }
    }

    fn put_back(&self, first: Option<Visible>) {
        if let Some(Visible { leg, .. }) = first {
            leg.unsent(self.shard);
        }
    }
}

/// What opening a session came to.
enum Opened {
    /// A session that nobody may use yet.
    Session(Opening, UpstreamSession, Hello),
    /// Somebody else opened it meanwhile.
    ByAnother,
    /// No new session.
    Said(Verdict),
}

const fn other(era: Era) -> Era {
    match era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    }
}

/// `None` for what is denied: to whoever asks, it is not there.
///
/// # Errors
/// Why nobody knows whether it is.
pub(super) fn unless_denied<T>(judged: Result<T, Reject>) -> Result<Option<T>, Reject> {
    match judged {
        Ok(granted) => Ok(Some(granted)),
        Err(reject) if is_denial(reject) => Ok(None),
        Err(reject) => Err(reject),
    }
}

/// A decision against who asks, not the want of one.
pub(super) const fn is_denial(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::PolicyDenied
            | Reject::PolicyCallNoPermit
            | Reject::PolicyCallForbidden
            | Reject::PolicyStepUp
            | Reject::PolicyCredentialAmbiguous
    )
}

//! Decisions of a remote point (OpenID AuthZEN): asked here, and made into a [`Permit`] here.
//!
//! Which error is safe: every trouble is a refusal (503). Nothing is remembered unless the
//! configuration says for how long, and then permits only (`kept`), so an answer never outlives its
//! question or that time, and an open stream is cut when no new one is to be had.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::kept::{Depends, Kept, Remembered, Wish};
use super::{Denial, Form, Permit};
use crate::clock::Monotonic;
use crate::control::authzen::{Answer, DecisionPoint, Endpoints, Questions, read_many, read_one};
use crate::core_cell::CoreCell;
use crate::judge::policy::{PolicySet, Verdict};
use crate::limits::{PDP_ANSWER_BYTES_MAX, PDP_IDLE_PER_CORE_MAX};
use crate::net::Timers;
use crate::net::ask::{Post, Unanswered, post};
use crate::net::dial::dial;
use crate::net::pool::Pool;
use crate::net::tls::ClientTls;
use crate::places::Places;
use crate::reject::Reject;

/// What one core needs to ask a remote decision point.
pub struct Pdp {
    core: u16,
    timers: Timers,
    /// Requests that may wait at once.
    places: Places,
    /// Idle connections, by the configuration they were made under.
    pool: Pool<u64>,
    /// The snapshot's trust, and what this core made of it.
    tls: CoreCell<Option<[Arc<ClientTls>; 2]>>,
    /// Numbers requests.
    asked: Cell<u64>,
    /// What was permitted a moment ago.
    kept: CoreCell<Kept>,
}

impl Pdp {
    /// Without connections.
    #[must_use]
    pub fn new(core: u16, timers: Timers) -> Self {
        // Not the same numbers again after a restart, for whoever reads the other side's log.
        let asked = Cell::new(timers.now().0);
        Self {
            core,
            timers,
            places: Places::new(0),
            pool: Pool::new(PDP_IDLE_PER_CORE_MAX),
            tls: CoreCell::default(),
            asked,
            kept: CoreCell::default(),
        }
    }

    /// Asks all `questions`, as they were written for the endpoints of `point`. Of questions that
    /// are asked one by one, those behind a denied one are not, unless all are wanted; they count
    /// as denied.
    ///
    /// # Errors
    /// [`Reject::PolicyUnavailable`], whatever went wrong: no place among those that wait, no
    /// endpoint or address known, no connection, no answer in time, or none that the standard
    /// knows.
    pub async fn ask(
        &self,
        point: &DecisionPoint,
        generation: u64,
        questions: &Questions,
    ) -> Result<Vec<Answer>, Reject> {
        self.places.resize(point.in_flight_max);
        let Some(_place) = self.places.take() else { return Err(Reject::PolicyUnavailable) };
        let until = self.timers.now().after(point.timeout);
        let bad = |_| Reject::PolicyUnavailable;
        match (questions, &point.endpoints) {
            (
                Questions::Together(body, count),
                Endpoints::Known { evaluations: Some(target), .. },
            ) => {
                let answer = self.carry(point, generation, target, body, until).await?;
                read_many(&answer, *count).map_err(bad)
            }
            (Questions::OneByOne { bodies, to_the_end }, Endpoints::Known { evaluation, .. }) => {
                let mut answers = vec![Answer::default(); bodies.len()];
                for (body, place) in bodies.iter().zip(&mut answers) {
                    let answer = self.carry(point, generation, evaluation, body, until).await?;
                    *place = read_one(&answer).map_err(bad)?;
                    if !place.permitted && !to_the_end {
                        break;
                    }
                }
                Ok(answers)
            }
            // Unknown endpoints, or others than the questions were written for.
            (Questions::Together(..) | Questions::OneByOne { .. }, _) => {
                Err(Reject::PolicyUnavailable)
            }
        }
    }

    /// One request, over a connection that was kept if there is one.
    async fn carry(
        &self,
        point: &DecisionPoint,
        generation: u64,
        target: &str,
        body: &[u8],
        until: Monotonic,
    ) -> Result<Vec<u8>, Reject> {
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        let request_id = format!("{:x}-{number:x}", self.core);
        let (authority, bearer) = (point.url.authority.as_str(), point.bearer.as_deref());
        let question = Post { authority, target, bearer, request_id: &request_id, body };
        if let Some(mut stream) = self.pool.take(&generation, self.timers.now()) {
            match post(&mut stream, &question, PDP_ANSWER_BYTES_MAX, until).await {
                Ok((answer, kept)) => {
                    if kept {
                        self.pool.put(generation, stream, self.timers.now());
                    }
                    return Ok(answer);
                }
                // To ask a second time changes nothing, and the other side may have closed
                // meanwhile.
                Err(Unanswered::Silent) => {}
                Err(Unanswered::Failed(_)) => return Err(Reject::PolicyUnavailable),
            }
        }
        let own = point.upstream.tls.as_ref().map(|shared| self.own_tls(shared));
        if point.url.tls != own.is_some() {
            return Err(Reject::PolicyUnavailable);
        }
        let secure = own.as_deref().map(|tls| (tls, point.url.host.as_str()));
        let dialled = dial(&point.upstream.addresses, secure, &self.timers, until).await;
        let mut stream = dialled.map_err(|_| Reject::PolicyUnavailable)?;
        let answered = post(&mut stream, &question, PDP_ANSWER_BYTES_MAX, until).await;
        let (answer, kept) = answered.map_err(|_| Reject::PolicyUnavailable)?;
        if kept {
            self.pool.put(generation, stream, self.timers.now());
        }
        Ok(answer)
    }

    /// `shared` with a memory of sessions that only this core has.
    fn own_tls(&self, shared: &Arc<ClientTls>) -> Arc<ClientTls> {
        let known = self.tls.with(|tls| match tls {
            Some([made_of, own]) if Arc::ptr_eq(made_of, shared) => Some(Arc::clone(own)),
            Some(_) | None => None,
        });
        known.unwrap_or_else(|| {
            let own = Arc::new(shared.for_core());
            let both = [Arc::clone(shared), Arc::clone(&own)];
            drop(self.tls.with(|tls| tls.replace(both)));
            own
        })
    }

    /// A question that may be answered from memory, and its answer if it is there.
    #[must_use]
    pub fn recall(&self, depends: &Depends<'_>) -> (Wish, Option<Remembered>) {
        let now = self.timers.exact();
        self.kept.with(|kept| {
            let wish = kept.wish(depends, now);
            let found = kept.get(&wish);
            (wish, found)
        })
    }

    /// Keeps what was permitted. Only for `answers` that [`conclude`] made a permit of.
    pub fn keep(&self, wish: Wish, answers: Vec<Answer>, point: &DecisionPoint) {
        self.kept.with(|kept| kept.put(wish, answers, point.permit_ttl));
    }

    /// Forgets what was permitted, also what is asked and not yet answered.
    pub fn forget_permits(&self) {
        self.kept.with(Kept::forget);
    }

    /// Forgets what was permitted to `identity`, which was just denied something.
    pub fn forget_permits_of(&self, identity: &[u8; 32]) {
        self.kept.with(|kept| kept.forget_of(identity));
    }

    /// Closes what was idle for too long, and frees what was kept for as long as it may be.
    pub fn sweep(&self, now: Monotonic, budget: usize) {
        self.pool.sweep(now);
        self.kept.with(|kept| kept.sweep(now, budget));
    }

    /// Closes every idle connection (new configuration).
    pub fn forget_connections(&self) {
        self.pool.clear();
    }
}

/// What was asked about one message: `connect`, then everything that it names on `server`.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Index of the server.
    pub server: u16,
    /// How the message is answered.
    pub form: Form,
    /// The server's own credential, used when no answer names one.
    pub default_credential: Option<u16>,
    /// Digest of the identity that was asked about.
    pub identity: &'a [u8; 32],
}

/// Makes of `answers` what they mean: the first is about `connect`. `named` knows a credential by
/// its name.
///
/// # Errors
/// [`Reject::PolicyDenied`] when the gateway is denied, and for a handshake; else, by [`Form`],
/// [`Reject::PolicyCallNoPermit`] or [`Reject::PolicyStreamDenied`];
/// [`Reject::PolicyCredentialAmbiguous`] when the answers differ on the credential;
/// [`Reject::PolicyUnavailable`] when they name one that is unknown or another server's, or when
/// nothing was asked.
pub fn conclude(
    set: &PolicySet,
    asked: &Asked<'_>,
    answers: &[Answer],
    named: impl Fn(&str) -> Option<u16>,
) -> Result<Permit, Denial> {
    let denied = |reject| Err(refused(reject, set));
    let Some((connect, rest)) = answers.split_first() else {
        return denied(Reject::PolicyUnavailable);
    };
    if !connect.permitted {
        return denied(Reject::PolicyDenied);
    }
    if rest.iter().any(|answer| !answer.permitted) {
        return denied(match asked.form {
            Form::Handshake => Reject::PolicyDenied,
            Form::Request => Reject::PolicyCallNoPermit,
            Form::Stream => Reject::PolicyStreamDenied,
        });
    }
    let mut chosen: Option<Option<u16>> = None;
    for answer in rest {
        let credential = match &answer.credential {
            None => asked.default_credential,
            Some(name) => match named(name) {
                None => return denied(Reject::PolicyUnavailable),
                known => known,
            },
        };
        if *chosen.get_or_insert(credential) != credential {
            return denied(Reject::PolicyCredentialAmbiguous);
        }
    }
    let Some(credential) = chosen else { return denied(Reject::PolicyUnavailable) };
    if credential.is_some_and(|credential| !set.credential_fits(credential, asked.server)) {
        return denied(Reject::PolicyUnavailable);
    }
    let (server, identity) = (asked.server, *asked.identity);
    Ok(Permit { server, credential, policies: Rc::from([]), would_deny: None, identity })
}

/// A refusal that no policy of ours determined.
#[must_use]
pub fn refused(reject: Reject, set: &PolicySet) -> Denial {
    Denial::new(reject, &Verdict::by_default(), set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::policy::{CredentialScope, Setting};

    fn set() -> PolicySet {
        let credentials = [
            CredentialScope { name: "first", servers: &[0] },
            CredentialScope { name: "second", servers: &[0] },
            CredentialScope { name: "foreign", servers: &[1] },
        ];
        let setting = Setting {
            epoch: 7,
            servers: &["github", "wiki"],
            credentials: &credentials,
            methods: &[],
            timezone: "UTC",
            geoip: false,
        };
        PolicySet::compile(&[], std::path::Path::new(""), &setting).ok().unwrap()
    }

    fn answer(permitted: bool, credential: Option<&str>) -> Answer {
        Answer { permitted, credential: credential.map(str::to_owned) }
    }

    #[test]
    fn everything_must_be_permitted_and_agree_on_one_credential() {
        let set = set();
        let named = |name: &str| {
            let index = ["first", "second", "foreign"].iter().position(|known| *known == name);
            index.and_then(|index| u16::try_from(index).ok())
        };
        let yes = || answer(true, None);
        let with = |name| answer(true, Some(name));
        let no = || answer(false, None);
        use Reject::{
            PolicyCallNoPermit, PolicyCredentialAmbiguous, PolicyDenied, PolicyStreamDenied,
            PolicyUnavailable,
        };
        for (answers, form, expected) in [
            (vec![yes(), yes()], Form::Request, Ok(Some(0))),
            (vec![yes(), with("second")], Form::Request, Ok(Some(1))),
            (vec![with("second"), yes()], Form::Request, Ok(Some(0))),
            (vec![yes(), with("first"), yes()], Form::Request, Ok(Some(0))),
            (vec![yes(), with("second"), yes()], Form::Request, Err(PolicyCredentialAmbiguous)),
            (vec![yes(), with("foreign")], Form::Request, Err(PolicyUnavailable)),
            (vec![yes(), with("nobody's")], Form::Request, Err(PolicyUnavailable)),
            (vec![no(), yes()], Form::Request, Err(PolicyDenied)),
            (vec![yes(), yes(), no()], Form::Request, Err(PolicyCallNoPermit)),
            (vec![yes(), no()], Form::Handshake, Err(PolicyDenied)),
            (vec![yes(), no()], Form::Stream, Err(PolicyStreamDenied)),
            (vec![yes()], Form::Request, Err(PolicyUnavailable)),
            (vec![], Form::Request, Err(PolicyUnavailable)),
        ] {
            let asked = Asked { server: 0, form, default_credential: Some(0), identity: &[9; 32] };
            let found = conclude(&set, &asked, &answers, named);
            match (&found, expected) {
                (Ok(permit), Ok(credential)) => {
                    assert_eq!(permit.credential(), credential, "{answers:?}");
                    assert_eq!((permit.server(), permit.identity()), (0, &[9; 32]));
                    assert!(permit.policies().is_empty() && permit.would_deny().is_none());
                }
                (Err(denial), Err(reject)) => {
                    assert_eq!((denial.reject, denial.epoch), (reject, 7), "{answers:?}");
                }
                _ => panic!("{answers:?}: {found:?}"),
            }
        }
    }
}

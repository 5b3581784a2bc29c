//! Stage 3: whose request is this? A bearer token becomes a [`VerifiedToken`], or a refusal.
//!
//! [`Identity`] is one core's: its cache of verified tokens, and who waits for keys or a place. The
//! judging itself is `judge`'s; this stage remembers, waits and makes the proof.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Monotonic, Now};
use crate::config::TrustProvider;
use crate::control::jwks::{ProviderKeys, UnknownKey};
use crate::core_cell::CoreCell;
use crate::judge::jwt::{Claims, Fault, Unproved, Unverified};
use crate::judge::principal::Principal;
use crate::limits::{CACHE_SECONDS_MAX, TOKEN_CACHE_BYTES_MAX, TOKEN_CACHE_ENTRIES_MAX};
use crate::reject::Reject;

use cache::{Bounds, TokenCache};
use marks::{Digest, Marks};
use pace::{Pace, Rank};
use verified::{Basis, Fingerprint};
use waiting::{KeyWaiters, Seen};

pub use audience::{Audiences, Resource};
pub use verified::VerifiedToken;

pub mod audience;
pub mod bearer;
mod cache;
pub mod challenge;
mod marks;
pub mod metadata;
mod pace;
mod verified;
mod waiting;

/// Whose tokens count at this moment. The parts belong together: `keys[i]` are those of
/// `providers[i]`.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    /// Changes with every configuration; what was verified under another one is forgotten.
    pub epoch: u64,
    /// The trust providers.
    pub providers: &'a [TrustProvider],
    /// Their keys.
    pub keys: &'a [ProviderKeys],
}

/// What this stage needs from the core it runs on.
pub trait Door {
    /// Shows the newest trust. Called again after a wait, for it may have changed.
    fn with_trust<R>(&self, read: impl FnOnce(&Trust<'_>) -> R) -> R;
    /// Reads both clocks.
    fn now(&self) -> Now;
    /// Posts a request for the keys of a provider to the control thread; never waits.
    fn ask(&self, provider: u16);
    /// Sleeps; may be dropped.
    fn sleep_until(&self, until: Monotonic) -> impl Future<Output = ()>;
}

/// What a judgement came to.
enum Outcome {
    /// It holds.
    Verified(Rc<VerifiedToken>),
    /// It does not.
    Refused(Reject),
    /// An unknown key id that newer keys of this provider may have.
    NeedKeys {
        /// Index of the provider.
        provider: u16,
    },
}

/// What this stage did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens found in the cache.
    pub hits: u64,
    /// Tokens judged from the beginning; the signature comes last, if nothing else refused before.
    pub misses: u64,
}

/// Identity of one core.
pub struct Identity {
    cache: CoreCell<TokenCache>,
    marks: CoreCell<Marks>,
    waiters: KeyWaiters,
    pace: Pace,
    counts: Cell<Counts>,
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let bounds = Bounds { entries: TOKEN_CACHE_ENTRIES_MAX, bytes: TOKEN_CACHE_BYTES_MAX };
        Self {
            cache: CoreCell::new(TokenCache::new(bounds)),
            marks: CoreCell::new(Marks::new(TOKEN_CACHE_ENTRIES_MAX)),
            waiters: KeyWaiters::default(),
            pace: Pace::default(),
            counts: Cell::default(),
        }
    }

    /// Verifies the token of a request for the route whose `audiences` are given. `now` is the
    /// reading of this request; `keys_wait` bounds a wait for keys.
    ///
    /// # Errors
    /// 401 for the token's faults, 503 when keys are not to be had or too many others wait for a
    /// verification.
    pub async fn verify(
        &self,
        authorization: Option<&[u8]>,
        audiences: &Audiences<'_>,
        door: &impl Door,
        now: Now,
        keys_wait: Duration,
    ) -> Result<Rc<VerifiedToken>, Reject> {
        let token = bearer::presented(authorization)?;
        let known = door.with_trust(|trust| self.remembered(token, audiences, trust, now));
        match known {
            Some(verdict) => verdict,
            None => {
                // What is remembered, byte for byte, passed this when it was verified.
                bearer::check(token)?;
                self.verify_cold(token, audiences, door, keys_wait).await
            }
        }
    }

    /// Keeps what is worth keeping of a judgement.
    fn settle(
        &self,
        judged: Result<VerifiedToken, Trouble>,
        asked: &Asked<'_>,
        now: Now,
    ) -> Outcome {
        self.count(|counts| counts.misses += 1);
        match judged {
            Ok(verified) => {
                let verified = Rc::new(verified);
                self.remember(asked, &verified, now);
                Outcome::Verified(verified)
            }
            Err(Trouble::Refused(reject)) => {
                // Else a token of one route, sent to another over and over, would be served first
                // each time. Of missing keys no token is to blame.
                if reject.status() != 503 {
                    self.marks.with(|marks| marks.clear(&asked.digest));
                }
                Outcome::Refused(reject)
            }
            Err(Trouble::NeedKeys(provider)) => Outcome::NeedKeys { provider },
        }
    }

    /// The slot holds a new snapshot: whoever waits for keys that changed looks again.
    pub fn keys_published(&self, trust: &Trust<'_>) {
        self.waiters.answer_changed(|provider| seen(trust, provider));
    }

    /// A refetch ended without new keys, or was not allowed.
    pub fn keys_unchanged(&self, provider: u16) {
        self.waiters.answer(provider);
    }

    /// Wipes remembered tokens that are too old, `budget` places at a time. Called with the core's
    /// timer; reading never depends on it.
    pub fn sweep(&self, now: Monotonic, budget: usize) {
        self.cache.with(|cache| cache.sweep(now, budget));
    }

    /// Forgets every verified token (bus overflow, revocation). Their marks stay: they prove
    /// nothing, and all those tokens have to be verified again at once.
    pub fn purge(&self) {
        self.cache.with(TokenCache::purge);
    }

    /// Ends when this turn of the event loop has done as many cold verifications as it may. The
    /// one task that waits for it lets the loop turn and calls [`Identity::new_turn`]; without that
    /// task, requests with new tokens meet their deadline.
    pub async fn spent(&self) {
        self.pace.spent().await;
    }

    /// The event loop has turned: more cold verifications may be done.
    pub fn new_turn(&self) {
        self.pace.new_turn();
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Number of remembered tokens.
    #[must_use]
    pub fn remembered_count(&self) -> usize {
        self.cache.with(|cache| cache.len())
    }

    async fn verify_cold(
        &self,
        token: &[u8],
        audiences: &Audiences<'_>,
        door: &impl Door,
        keys_wait: Duration,
    ) -> Result<Rc<VerifiedToken>, Reject> {
        let deadline = door.now().mono.after(keys_wait);
        let mut asked = Asked { token, digest: Digest::of(token), audiences, waited: false };
        loop {
            let now = door.now();
            let at_once = door.with_trust(|trust| self.judge_at_once(&asked, trust, now));
            let (outcome, before) = match at_once {
                Ok(judged) => judged,
                Err(rank) => {
                    self.pace.admit(rank, door.sleep_until(deadline)).await?;
                    let now = door.now();
                    door.with_trust(|trust| self.judge_in_turn(&asked, trust, now))
                }
            };
            let provider = match outcome {
                Outcome::Verified(verified) => return Ok(verified),
                Outcome::Refused(reject) => return Err(reject),
                Outcome::NeedKeys { provider } => provider,
            };
            let before = before.ok_or(Reject::KeysUnavailable)?;
            let ask = || door.ask(provider);
            let sleep = door.sleep_until(deadline);
            if !self.waiters.wait(provider, before, ask, sleep).await {
                return Err(Reject::KeysPending);
            }
            asked.waited = true;
        }
    }

    /// Judges a token that nobody waits before; `Err` is the rank in which it waits for its place.
    /// All but the signature comes before that: what is refused without one takes no place from
    /// anybody, and costs no more than reading a request does; it is bounded as those are. What was
    /// read is not kept while the token waits, which would be many times its size.
    fn judge_at_once(
        &self,
        asked: &Asked<'_>,
        trust: &Trust<'_>,
        now: Now,
    ) -> Result<Judged, Rank> {
        // Whoever waited for the same keys may have verified the same token by now.
        if asked.waited
            && let Some(verdict) = self.remembered(asked.token, asked.audiences, trust, now)
        {
            return Ok((verdict.map_or_else(Outcome::Refused, Outcome::Verified), None));
        }
        let judged = match Candidate::find(asked, trust, now) {
            Err(trouble) => Err(trouble),
            Ok(found) => {
                let rank = self.rank(asked, now);
                if !self.pace.admits_at_once(rank) {
                    return Err(rank);
                }
                found.verify(asked, trust, now)
            }
        };
        Ok(with_seen(self.settle(judged, asked, now), trust))
    }

    /// Judges a token that waited for its place.
    fn judge_in_turn(&self, asked: &Asked<'_>, trust: &Trust<'_>, now: Now) -> Judged {
        // Another request may have verified the same token meanwhile.
        if let Some(verdict) = self.remembered(asked.token, asked.audiences, trust, now) {
            self.pace.give_back();
            return (verdict.map_or_else(Outcome::Refused, Outcome::Verified), None);
        }
        let judged = match Candidate::find(asked, trust, now) {
            Err(trouble) => {
                self.pace.give_back();
                Err(trouble)
            }
            Ok(found) => found.verify(asked, trust, now),
        };
        with_seen(self.settle(judged, asked, now), trust)
    }

    fn rank(&self, asked: &Asked<'_>, now: Now) -> Rank {
        if self.marks.with(|marks| marks.has(&asked.digest, now.wall.seconds())) {
            Rank::Known
        } else if asked.waited {
            Rank::Returning
        } else {
            Rank::Stranger
        }
    }

    /// `None` = not remembered. A remembered token is judged like a new one, signature aside.
    fn remembered(
        &self,
        token: &[u8],
        audiences: &Audiences<'_>,
        trust: &Trust<'_>,
        now: Now,
    ) -> Option<Result<Rc<VerifiedToken>, Reject>> {
        let current = |verified: &VerifiedToken| is_current(verified, trust, now.mono);
        let verified = self.cache.with(|cache| cache.get(token, now.mono, current))?;
        let provider = trust.providers.get(usize::from(verified.provider()))?;
        self.count(|counts| counts.hits += 1);
        Some(verified.judge(provider, audiences, now.wall.seconds()).map(|()| verified))
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    fn remember(&self, asked: &Asked<'_>, verified: &Rc<VerifiedToken>, now: Now) {
        let left = verified.seconds_left(now.wall.seconds()).min(CACHE_SECONDS_MAX);
        // Within the leeway after `exp` nothing is remembered.
        if left > 0 {
            let until = now.mono.after(Duration::from_secs(left));
            self.cache.with(|cache| cache.insert(asked.token, Rc::clone(verified), until));
            self.marks.with(|marks| marks.set(asked.digest, verified.expires_at()));
        }
    }
}

/// One cold token and what it is asked for.
struct Asked<'a> {
    token: &'a [u8],
    digest: Digest,
    audiences: &'a Audiences<'a>,
    /// Keys were already waited for, so an unknown key id is final.
    waited: bool,
}

/// An outcome; of one that needs keys, how they stood.
type Judged = (Outcome, Option<Seen>);

enum Trouble {
    Refused(Reject),
    NeedKeys(u16),
}

impl From<Reject> for Trouble {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// A token of which everything holds but the signature; nothing is proved.
struct Candidate<'a> {
    unproved: Unproved<'a, 'a>,
    index: u16,
    provider: &'a TrustProvider,
    keys: &'a ProviderKeys,
}

impl<'a> Candidate<'a> {
    fn find(asked: &Asked<'a>, trust: &Trust<'a>, now: Now) -> Result<Self, Trouble> {
        let unverified = Unverified::read(asked.token)?;
        let (index, provider) = (0_u16..)
            .zip(trust.providers)
            .find(|(_, provider)| provider.issuer == unverified.issuer())
            .ok_or(Reject::TokenIssuer)?;
        let keys = trust.keys.get(usize::from(index)).ok_or(Reject::KeysUnavailable)?;
        let set = keys.usable(now.mono).ok_or(Reject::KeysUnavailable)?;
        let judged = unverified.judge(provider, set, now.wall.seconds());
        let unproved =
            judged.map_err(|fault| trouble(fault, keys, index, now.mono, asked.waited))?;
        Ok(Self { unproved, index, provider, keys })
    }

    /// Checks the signature, and then what counts of a token that is its issuer's.
    fn verify(
        self,
        asked: &Asked<'_>,
        trust: &Trust<'_>,
        now: Now,
    ) -> Result<VerifiedToken, Trouble> {
        let Self { unproved, index, provider, keys } = self;
        let claims = unproved.verify()?;
        let principal = Principal::from_claims(&claims, provider, trust.providers)?;
        let basis = Basis {
            provider: index,
            keys_generation: keys.generation(),
            key: *claims.key(),
            epoch: trust.epoch,
        };
        let verified = prove(principal, claims, provider, basis, asked.digest.fingerprint());
        verified.judge(provider, asked.audiences, now.wall.seconds())?;
        Ok(verified)
    }
}

fn prove(
    principal: Principal,
    claims: Claims,
    provider: &TrustProvider,
    basis: Basis,
    fingerprint: Fingerprint,
) -> VerifiedToken {
    let times = claims.times();
    let audiences = claims.into_audiences();
    VerifiedToken::new(principal, audiences, times, provider.leeway_seconds, basis, fingerprint)
}

fn trouble(
    fault: Fault,
    keys: &ProviderKeys,
    provider: u16,
    now: Monotonic,
    waited: bool,
) -> Trouble {
    if !fault.unknown_kid {
        return Trouble::Refused(fault.reject);
    }
    match keys.unknown_key(now, waited) {
        UnknownKey::Ask => Trouble::NeedKeys(provider),
        // Not a 401: clients would log in again and come back with a token just as unknown.
        UnknownKey::Pending => Trouble::Refused(Reject::KeysPending),
        UnknownKey::Refuse => Trouble::Refused(fault.reject),
    }
}

/// Still verified under what holds now: same configuration, same key generation, keys not past
/// their limit.
fn is_current(verified: &VerifiedToken, trust: &Trust<'_>, now: Monotonic) -> bool {
    let basis = verified.basis();
    let keys = trust.keys.get(usize::from(basis.provider));
    basis.epoch == trust.epoch
        && keys.is_some_and(|keys| {
            keys.generation() == basis.keys_generation && keys.usable(now).is_some()
        })
}

fn with_seen(outcome: Outcome, trust: &Trust<'_>) -> Judged {
    let before = match outcome {
        Outcome::NeedKeys { provider } => seen(trust, provider),
        Outcome::Verified(_) | Outcome::Refused(_) => None,
    };
    (outcome, before)
}

fn seen(trust: &Trust<'_>, provider: u16) -> Option<Seen> {
    let keys = trust.keys.get(usize::from(provider))?;
    Some(Seen { epoch: trust.epoch, fetched_at: keys.fetched_at() })
}

#[cfg(test)]
mod tests;

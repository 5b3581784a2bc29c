//! The proof that a request's token was verified. Only this stage makes one; every later stage asks
//! for it.

use crate::clock::UnixSeconds;
use crate::config::TrustProvider;
use crate::identity::audience::Audiences;
use crate::judge::jwt::Times;
use crate::judge::keys::KeyDigest;
use crate::judge::principal::Principal;
use crate::reject::Reject;

/// A verified token. Holding one proves signature, type, issuer and claim rules; time and audience
/// are judged again at every use by [`VerifiedToken::judge`].
pub struct VerifiedToken {
    principal: Principal,
    audiences: Vec<String>,
    times: Times,
    leeway_seconds: u64,
    provider: u16,
    keys_generation: u64,
    key: KeyDigest,
    epoch: u64,
    fingerprint: Fingerprint,
}

/// The first 8 bytes of a token's SHA-256: names it in records without showing it.
pub(in crate::identity) type Fingerprint = [u8; 8];

/// Under what a token was verified; anything else makes the verification void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) struct Basis {
    pub(in crate::identity) provider: u16,
    pub(in crate::identity) keys_generation: u64,
    pub(in crate::identity) key: KeyDigest,
    pub(in crate::identity) epoch: u64,
}

impl VerifiedToken {
    pub(in crate::identity) fn new(
        principal: Principal,
        audiences: Vec<String>,
        times: Times,
        leeway_seconds: u64,
        basis: Basis,
        fingerprint: Fingerprint,
    ) -> Self {
        let Basis { provider, keys_generation, key, epoch } = basis;
        Self {
            principal,
            audiences,
            times,
            leeway_seconds,
            provider,
            keys_generation,
            key,
            epoch,
            fingerprint,
        }
    }

    /// Who asks.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Index of the trust provider in the configuration of [`VerifiedToken::epoch`].
    #[must_use]
    pub const fn provider(&self) -> u16 {
        self.provider
    }

    /// The configuration under which it was verified.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The key that verified it. While a stream is open, its issuer may withdraw that key.
    #[must_use]
    pub const fn key(&self) -> &KeyDigest {
        &self.key
    }

    /// First moment at which the token counts no more: `exp` plus leeway. Streams end here.
    #[must_use]
    pub const fn counts_until(&self) -> UnixSeconds {
        UnixSeconds(self.times.expires_at.0.saturating_add(self.leeway_seconds))
    }

    /// The first 8 bytes of the token's SHA-256, for the audit record.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// Judges this use: time first, then whether the token is for the route (case T25).
    ///
    /// # Errors
    /// [`Reject::TokenExpired`], [`Reject::TokenNotYetValid`] or [`Reject::TokenAudience`].
    pub fn judge(
        &self,
        provider: &TrustProvider,
        audiences: &Audiences<'_>,
        now: UnixSeconds,
    ) -> Result<(), Reject> {
        self.judge_time(now)?;
        if audiences.accept(&self.audiences, &provider.audiences) {
            Ok(())
        } else {
            Err(Reject::TokenAudience)
        }
    }

    /// Judges time alone: for open streams, whose route was judged when they began.
    ///
    /// # Errors
    /// [`Reject::TokenExpired`] or [`Reject::TokenNotYetValid`].
    pub fn judge_time(&self, now: UnixSeconds) -> Result<(), Reject> {
        self.times.judge(now, self.leeway_seconds)
    }

    /// Bytes that remembering it takes, its token aside.
    pub(in crate::identity) fn footprint_bytes(&self) -> usize {
        let audiences = self.audiences.iter().map(|text| size_of::<String>() + text.capacity());
        size_of::<Self>() + self.principal.heap_bytes() + audiences.sum::<usize>()
    }

    pub(in crate::identity) const fn basis(&self) -> Basis {
        Basis {
            provider: self.provider,
            keys_generation: self.keys_generation,
            key: self.key,
            epoch: self.epoch,
        }
    }

    /// `exp`, without leeway.
    pub(in crate::identity) const fn expires_at(&self) -> UnixSeconds {
        self.times.expires_at
    }

    /// Seconds until `exp`, without leeway: remembering may never lengthen a token's life.
    pub(in crate::identity) const fn seconds_left(&self, now: UnixSeconds) -> u64 {
        self.times.expires_at.0.saturating_sub(now.0)
    }

    /// For tests of later stages: what a verified token of this principal looks like.
    #[cfg(test)]
    pub(crate) fn of_principal(principal: Principal, expires_at: UnixSeconds) -> Self {
        let times = Times { expires_at, not_before: None, issued_at: None };
        let basis = Basis { provider: 0, keys_generation: 0, key: KeyDigest::default(), epoch: 0 };
        Self::new(principal, Vec::new(), times, 0, basis, [0; 8])
    }
}

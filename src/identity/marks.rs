//! Which tokens were verified on this core before: whoever has such a token need not queue behind
//! strangers when it has to be verified again.
//!
//! A mark outlives what is remembered of its token (a minute, a key generation, a configuration,
//! a purge), so it keeps the SHA-256 of the token and not the token.
//!
//! # Security
//! A mark proves nothing and skips no check: it is a place in a queue. It needs every byte of the
//! token equal and a token that was verified to the full, so nobody without such a token gets one.
//! Which error is safe: one mark too few, and its token waits among strangers.

use hashbrown::HashMap;
use ring::digest;

use crate::clock::UnixSeconds;
use crate::identity::verified::Fingerprint;

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::identity) struct Digest([u8; 32]);

/// The marks of one core, each with the `exp` of its token. When half of those allowed are newer
/// than the others, the others go: whoever comes once a minute is always among the newer.
pub(in crate::identity) struct Marks {
    newer: HashMap<Digest, UnixSeconds>,
    older: HashMap<Digest, UnixSeconds>,
    /// Of both together.
    max: usize,
}

impl Digest {
    pub(in crate::identity) fn of(token: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, token);
        // SHA-256 has 32 bytes. Were it otherwise, all tokens would be one, which costs a place in
        // a queue.
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// See [`crate::identity::VerifiedToken::fingerprint`].
    pub(in crate::identity) fn fingerprint(&self) -> Fingerprint {
        self.0.first_chunk().copied().unwrap_or_default()
    }
}

impl Marks {
    pub(in crate::identity) fn new(max: usize) -> Self {
        Self { newer: HashMap::new(), older: HashMap::new(), max }
    }

    /// The token of this digest was verified; it counts until `expires_at`.
    pub(in crate::identity) fn set(&mut self, digest: Digest, expires_at: UnixSeconds) {
        if self.newer.len() >= self.max / 2 && !self.newer.contains_key(&digest) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.older.remove(&digest);
        self.newer.insert(digest, expires_at);
    }

    /// The token of this digest was verified before, and has not expired since.
    pub(in crate::identity) fn has(&self, digest: &Digest, now: UnixSeconds) -> bool {
        let expires_at = self.newer.get(digest).or_else(|| self.older.get(digest));
        expires_at.is_some_and(|expires_at| now < *expires_at)
    }

    /// The token of this digest was refused: from now on it is a stranger's.
    pub(in crate::identity) fn clear(&mut self, digest: &Digest) {
        self.newer.remove(digest);
        self.older.remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(100);
    const LATER: UnixSeconds = UnixSeconds(101);

    #[test]
    fn a_mark_is_for_the_same_bytes_until_they_expire() {
        let mut marks = Marks::new(8);
        let mark = Digest::of(b"token-a");
        marks.set(mark, LATER);
        assert!(marks.has(&mark, NOW) && !marks.has(&mark, LATER));
        for other in [b"token-b".as_slice(), b"token-", b"token-a ", b"", b"TOKEN-A"] {
            assert!(!marks.has(&Digest::of(other), NOW));
        }
        marks.clear(&mark);
        assert!(!marks.has(&mark, NOW));
    }

    #[test]
    fn marks_are_bounded_and_those_in_use_stay() {
        let mut marks = Marks::new(8);
        let busy = Digest::of(b"busy");
        for token in 0..200_u8 {
            marks.set(busy, LATER);
            marks.set(Digest::of(&[token]), LATER);
            assert!(marks.newer.len() + marks.older.len() <= 8);
            assert!(marks.has(&busy, NOW) && marks.has(&Digest::of(&[token]), NOW));
        }
        assert!(!marks.has(&Digest::of(&[0]), NOW));
    }
}

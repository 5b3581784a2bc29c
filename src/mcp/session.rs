//! Sealed session ids of the legacy era on `/mcp/{server}`: the upstream's session id, encrypted
//! together with whom it belongs to. Any core, any instance with the key and a restarted process
//! can serve one; nothing is stored. A session is never authentication: the token is judged before,
//! on every request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::digest;
use ring::rand::SecureRandom as _;

use super::seal::{FORMAT, Keyring, TAG_BYTES, bound_to, text_bytes, write_text};
use crate::clock::UnixSeconds;
use crate::limits::{SESSION_SKEW_SECONDS_MAX, SESSION_UPSTREAM_ID_BYTES_MAX};
use crate::reject::Reject;

/// Whom a session belongs to. All four must be the same when it comes back; a refreshed token of
/// the same principal keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Issuer of the principal.
    pub issuer: &'a str,
    /// Subject of the principal.
    pub subject: &'a str,
    /// Agent of the principal.
    pub agent: &'a str,
    /// Name of the server.
    pub server: &'a str,
}

impl Keyring {
    /// Appends the sealed id (visible ASCII) of the upstream's session `upstream_id` to `out`.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for an id that is empty, too long or not visible ASCII (2025-11-25
    /// transports "Session Management"), `GatewayFault` without random bytes; `out` is unchanged
    /// then.
    pub fn seal_session(
        &self,
        binding: &Binding<'_>,
        upstream_id: &[u8],
        now: UnixSeconds,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        if !is_session_id(upstream_id) {
            return Err(Reject::UpstreamMalformed);
        }
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Reject::GatewayFault)?;
        let mut message = Vec::with_capacity(HEAD_BYTES + upstream_id.len() + TAG_BYTES);
        message.extend_from_slice(&now.0.to_be_bytes());
        message.extend_from_slice(&digest_of(binding));
        message.extend_from_slice(upstream_id);
        self.session
            .current
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.session_associated.as_slice()),
                &mut message,
            )
            .map_err(|_| Reject::GatewayFault)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + message.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&message);
        write_text(&sealed, out)
    }

    /// The upstream's session id inside `sealed`.
    ///
    /// # Errors
    ///
    /// `SessionUnknown`, whatever the reason: forged, another principal's, another server's, sealed
    /// under a key that is gone, or older than `lifetime_seconds`.
    pub fn open_session(
        &self,
        sealed: &[u8],
        binding: &Binding<'_>,
        now: UnixSeconds,
        lifetime_seconds: u64,
    ) -> Result<Vec<u8>, Reject> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(Reject::SessionUnknown);
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Reject::SessionUnknown)?;
        let mut message = self.decrypt_session(&sealed).ok_or(Reject::SessionUnknown)?;
        let (issued, rest) = message.split_first_chunk::<8>().ok_or(Reject::SessionUnknown)?;
        let (bound, upstream_id) =
            rest.split_at_checked(DIGEST_BYTES).ok_or(Reject::SessionUnknown)?;
        if bound != digest_of(binding) || !is_session_id(upstream_id) {
            return Err(Reject::SessionUnknown);
        }
        if !lives(UnixSeconds(u64::from_be_bytes(*issued)), now, lifetime_seconds) {
            return Err(Reject::SessionUnknown);
        }
        message.drain(..HEAD_BYTES);
        Ok(message)
    }

    fn decrypt_session(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (format, rest) = sealed.split_first()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *format != FORMAT {
            return None;
        }
        self.session.decrypt(*nonce, &self.session_associated, ciphertext)
    }
}

/// Whether a session issued then is neither over nor of the future.
pub(super) const fn lives(issued: UnixSeconds, now: UnixSeconds, lifetime_seconds: u64) -> bool {
    // Wall time: the id may have been issued by another instance or before a restart.
    let young = now.0 < issued.0.saturating_add(lifetime_seconds);
    let past = issued.0 <= now.0.saturating_add(SESSION_SKEW_SECONDS_MAX);
    young && past
}

fn digest_of(binding: &Binding<'_>) -> [u8; DIGEST_BYTES] {
    bound_to(&[binding.issuer, binding.subject, binding.agent, binding.server])
}

/// 2025-11-25 transports "Session Management": visible ASCII, 0x21 to 0x7E.
fn is_session_id(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= SESSION_UPSTREAM_ID_BYTES_MAX
        && id.iter().all(u8::is_ascii_graphic)
}

/// Name of this purpose in its key and in what is authenticated.
pub(super) const LABEL: &[u8] = b"portcullis legacy session";
const DIGEST_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Issue time and digest, before the upstream's id.
const HEAD_BYTES: usize = 8 + DIGEST_BYTES;
/// Bytes of the longest sealed id.
const SEALED_BYTES_MAX: usize =
    text_bytes(1 + NONCE_LEN + HEAD_BYTES + SESSION_UPSTREAM_ID_BYTES_MAX + TAG_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const ALICE: Binding<'_> =
        Binding { issuer: "https://idp", subject: "alice", agent: "agent", server: "files" };

    fn keys(url: &str, current: u8, previous: Option<u8>) -> Keyring {
        let previous = previous.map(|byte| [byte; 32]);
        Keyring::new(url, &[current; 32], previous.as_ref()).unwrap()
    }

    fn sealed(keys: &Keyring) -> Vec<u8> {
        let mut out = b"kept:".to_vec();
        keys.seal_session(&ALICE, b"upstream-id", NOW, &mut out).unwrap();
        out.strip_prefix(b"kept:").unwrap().to_vec()
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_principal_on_any_instance() {
        let id = sealed(&keys("https://gw", 1, None));
        assert!(id.iter().all(u8::is_ascii_graphic), "2025-11-25: visible ASCII");
        let other_instance = keys("https://gw", 1, None);
        assert_eq!(
            other_instance.open_session(&id, &ALICE, NOW, HOUR),
            Ok(b"upstream-id".to_vec())
        );
    }

    #[test]
    fn m12_a_session_of_somebody_else_is_unknown() {
        let keys = keys("https://gw", 1, None);
        let id = sealed(&keys);
        for stranger in [
            Binding { subject: "bob", ..ALICE },
            Binding { issuer: "https://idp2", ..ALICE },
            Binding { agent: "agent2", ..ALICE },
            Binding { server: "mail", ..ALICE },
            // The same characters, cut at another place.
            Binding { subject: "alicea", agent: "gent", ..ALICE },
        ] {
            assert_eq!(keys.open_session(&id, &stranger, NOW, HOUR), Err(Reject::SessionUnknown));
        }
    }

    #[test]
    fn a_changed_byte_is_unknown() {
        let keys = keys("https://gw", 1, None);
        let id = sealed(&keys);
        for at in 0..id.len() {
            for change in [b'A', b'_', b'=', b' ', 0, 0xff] {
                let mut forged = id.clone();
                forged[at] = change;
                if forged != id {
                    assert_eq!(
                        keys.open_session(&forged, &ALICE, NOW, HOUR),
                        Err(Reject::SessionUnknown)
                    );
                }
            }
            assert_eq!(
                keys.open_session(&id[..at], &ALICE, NOW, HOUR),
                Err(Reject::SessionUnknown)
            );
        }
        for junk in [&b"session-1"[..], b"", &[b'A'; 64 * 1024]] {
            assert_eq!(keys.open_session(junk, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
        }
    }

    #[test]
    fn a_session_ends_at_its_lifetime_and_is_not_from_the_future() {
        let keys = keys("https://gw", 1, None);
        let id = sealed(&keys);
        let open = |offset: i64| {
            keys.open_session(&id, &ALICE, UnixSeconds(NOW.0.wrapping_add_signed(offset)), HOUR)
        };
        assert!(open(0).is_ok() && open(3_599).is_ok());
        assert_eq!(open(3_600), Err(Reject::SessionUnknown));
        let skew = SESSION_SKEW_SECONDS_MAX as i64;
        assert!(open(-skew).is_ok());
        assert_eq!(open(-skew - 1), Err(Reject::SessionUnknown));
    }

    /// Taken from a gateway as it was before there were other purposes: who is connected stays so
    /// over the upgrade, also under a key that was rotated out since.
    #[test]
    fn a_session_of_before_opens() {
        const BEFORE: &[u8] = b"ATOAkFAzGi8wkp4uLHx30ySxGbDydqb7rZSUG765XmorSokOYslYO4MGDma7H5Hc-\
            yzCFZXdbWB9plx1c9YO3M_cK6N7sskaKI8GHZfSTrU";
        let then = UnixSeconds(1_795_474_369);
        for keys in [keys("http://gw.localhost", 1, None), keys("http://gw.localhost", 2, Some(1))]
        {
            let opened = keys.open_session(BEFORE, &ALICE, then, HOUR);
            assert_eq!(opened, Ok(b"upstream-id".to_vec()));
        }
        assert_eq!(sealed(&keys("http://gw.localhost", 1, None)).len(), BEFORE.len());
    }

    #[test]
    fn keys_rotate_and_do_not_cross() {
        let old = sealed(&keys("https://gw", 1, None));
        assert!(keys("https://gw", 2, Some(1)).open_session(&old, &ALICE, NOW, HOUR).is_ok());
        for other in [
            keys("https://gw", 2, None),
            keys("https://gw", 2, Some(3)),
            keys("https://other", 1, None),
        ] {
            assert_eq!(other.open_session(&old, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
        }
    }

    #[test]
    fn two_sealings_share_nothing_visible() {
        let keys = keys("https://gw", 1, None);
        let (one, two) = (sealed(&keys), sealed(&keys));
        assert_eq!(one.len(), two.len());
        let equal = one.iter().zip(&two).skip(2).filter(|(a, b)| a == b).count();
        assert!(equal < one.len() / 4, "{equal} equal characters of {}", one.len());
    }

    #[test]
    fn an_upstream_id_that_is_none_is_not_sealed() {
        let keys = keys("https://gw", 1, None);
        let mut out = b"kept".to_vec();
        let longest = vec![b'x'; SESSION_UPSTREAM_ID_BYTES_MAX];
        let above = vec![b'x'; SESSION_UPSTREAM_ID_BYTES_MAX + 1];
        for bad in [&b""[..], b"a b", b"a\r\nb", "\u{e9}".as_bytes(), b"\x7f", &above] {
            assert_eq!(
                keys.seal_session(&ALICE, bad, NOW, &mut out),
                Err(Reject::UpstreamMalformed)
            );
            assert_eq!(out, b"kept");
        }
        out.clear();
        keys.seal_session(&ALICE, &longest, NOW, &mut out).unwrap();
        assert!(out.len() <= SEALED_BYTES_MAX);
        assert_eq!(keys.open_session(&out, &ALICE, NOW, HOUR), Ok(longest));
    }
}

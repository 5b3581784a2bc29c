//! Sealed session ids of the legacy era: the upstream's session id, encrypted together with whom it
//! belongs to. Any core, any instance with the key and a restarted process can serve one; nothing
//! is stored. A session is never authentication: the token is judged before, on every request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};

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

/// The keys that seal sessions, derived once.
pub struct SessionKeys {
    /// Seals and opens.
    current: LessSafeKey,
    /// Opens what was sealed before the rotation.
    previous: Option<LessSafeKey>,
    random: SystemRandom,
    /// Purpose, public URL and format version: a sealed value of another purpose, gateway or format
    /// does not open, even under the same operator key.
    associated: Vec<u8>,
}

impl SessionKeys {
    /// Derives the keys of this purpose (HKDF, RFC 5869). The inputs are 32 random bytes each and
    /// stay the caller's to wipe.
    ///
    /// # Errors
    ///
    /// `GatewayFault` when the cryptographic library refuses.
    pub fn new(
        public_url: &str,
        current: &[u8; 32],
        previous: Option<&[u8; 32]>,
    ) -> Result<Self, Reject> {
        let mut associated = Vec::with_capacity(PURPOSE.len() + public_url.len() + 2);
        associated.extend_from_slice(PURPOSE);
        associated.push(0);
        associated.extend_from_slice(public_url.as_bytes());
        associated.extend_from_slice(&[0, FORMAT]);
        Ok(Self {
            current: derive(current)?,
            previous: previous.map(derive).transpose()?,
            random: SystemRandom::new(),
            associated,
        })
    }

    /// Appends the sealed id (visible ASCII) of the upstream's session `upstream_id` to `out`.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for an id that is empty, too long or not visible ASCII (2025-11-25
    /// transports "Session Management"), `GatewayFault` without random bytes; `out` is unchanged
    /// then.
    pub fn seal(
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
        message.extend_from_slice(digest_of(binding).as_ref());
        message.extend_from_slice(upstream_id);
        self.current
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.associated.as_slice()),
                &mut message,
            )
            .map_err(|_| Reject::GatewayFault)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + message.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&message);
        let start = out.len();
        out.resize(start + sealed.len().div_ceil(3) * 4, 0);
        let space = out.get_mut(start..).unwrap_or_default();
        let written = URL_SAFE_NO_PAD.encode_slice(&sealed, space).unwrap_or(0);
        out.truncate(start + written);
        if written == 0 { Err(Reject::GatewayFault) } else { Ok(()) }
    }

    /// The upstream's session id inside `sealed`.
    ///
    /// # Errors
    ///
    /// `SessionUnknown`, whatever the reason: forged, another principal's, another server's, sealed
    /// under a key that is gone, or older than `lifetime_seconds`.
    pub fn open(
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
        let mut message = self.decrypt(&sealed).ok_or(Reject::SessionUnknown)?;
        let (issued, rest) = message.split_first_chunk::<8>().ok_or(Reject::SessionUnknown)?;
        let (bound, upstream_id) =
            rest.split_at_checked(DIGEST_BYTES).ok_or(Reject::SessionUnknown)?;
        if bound != digest_of(binding).as_ref() || !is_session_id(upstream_id) {
            return Err(Reject::SessionUnknown);
        }
        let issued = u64::from_be_bytes(*issued);
        // Wall time: the id may have been issued by another instance or before a restart.
        let young = now.0 < issued.saturating_add(lifetime_seconds);
        let past = issued <= now.0.saturating_add(SESSION_SKEW_SECONDS_MAX);
        if !young || !past {
            return Err(Reject::SessionUnknown);
        }
        message.drain(..HEAD_BYTES);
        Ok(message)
    }

    fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (format, rest) = sealed.split_first()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *format != FORMAT {
            return None;
        }
        let keys = std::iter::once(&self.current).chain(self.previous.as_ref());
        for key in keys {
            let mut message = ciphertext.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened =
                key.open_in_place(nonce, Aad::from(self.associated.as_slice()), &mut message);
            if let Ok(plain) = opened.map(|plain| plain.len()) {
                message.truncate(plain);
                return Some(message);
            }
        }
        None
    }
}

fn derive(key: &[u8; 32]) -> Result<LessSafeKey, Reject> {
    let pseudorandom = Salt::new(HKDF_SHA256, &[]).extract(key);
    let info = [PURPOSE];
    let okm = pseudorandom.expand(&info, &AES_256_GCM).map_err(|_| Reject::GatewayFault)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

/// A digest instead of the four strings: subjects may be kilobytes, and a session id travels on
/// every request. Lengths go first, so that no two bindings have the same input.
fn digest_of(binding: &Binding<'_>) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [binding.issuer, binding.subject, binding.agent, binding.server] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish()
}

/// 2025-11-25 transports "Session Management": visible ASCII, 0x21 to 0x7E.
fn is_session_id(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= SESSION_UPSTREAM_ID_BYTES_MAX
        && id.iter().all(u8::is_ascii_graphic)
}

const PURPOSE: &[u8] = b"portcullis legacy session";
/// Version of the sealed form. Version N reads N - 1; this is the first.
const FORMAT: u8 = 1;
const DIGEST_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Issue time and digest, before the upstream's id.
const HEAD_BYTES: usize = 8 + DIGEST_BYTES;
const TAG_BYTES: usize = 16;
/// Bytes of the longest sealed id.
const SEALED_BYTES_MAX: usize =
    (1 + NONCE_LEN + HEAD_BYTES + SESSION_UPSTREAM_ID_BYTES_MAX + TAG_BYTES).div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const ALICE: Binding<'_> =
        Binding { issuer: "https://idp", subject: "alice", agent: "agent", server: "files" };

    fn keys(url: &str, current: u8, previous: Option<u8>) -> SessionKeys {
        let previous = previous.map(|byte| [byte; 32]);
        SessionKeys::new(url, &[current; 32], previous.as_ref()).unwrap()
    }

    fn sealed(keys: &SessionKeys) -> Vec<u8> {
        let mut out = b"kept:".to_vec();
        keys.seal(&ALICE, b"upstream-id", NOW, &mut out).unwrap();
        out.strip_prefix(b"kept:").unwrap().to_vec()
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_principal_on_any_instance() {
        let id = sealed(&keys("https://gw", 1, None));
        assert!(id.iter().all(u8::is_ascii_graphic), "2025-11-25: visible ASCII");
        let other_instance = keys("https://gw", 1, None);
        assert_eq!(other_instance.open(&id, &ALICE, NOW, HOUR), Ok(b"upstream-id".to_vec()));
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
            assert_eq!(keys.open(&id, &stranger, NOW, HOUR), Err(Reject::SessionUnknown));
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
                    assert_eq!(keys.open(&forged, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
                }
            }
            assert_eq!(keys.open(&id[..at], &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
        }
        for junk in [&b"session-1"[..], b"", &[b'A'; 64 * 1024]] {
            assert_eq!(keys.open(junk, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
        }
    }

    #[test]
    fn a_session_ends_at_its_lifetime_and_is_not_from_the_future() {
        let keys = keys("https://gw", 1, None);
        let id = sealed(&keys);
        let open = |offset: i64| {
            keys.open(&id, &ALICE, UnixSeconds(NOW.0.wrapping_add_signed(offset)), HOUR)
        };
        assert!(open(0).is_ok() && open(3_599).is_ok());
        assert_eq!(open(3_600), Err(Reject::SessionUnknown));
        let skew = SESSION_SKEW_SECONDS_MAX as i64;
        assert!(open(-skew).is_ok());
        assert_eq!(open(-skew - 1), Err(Reject::SessionUnknown));
    }

    #[test]
    fn keys_rotate_and_do_not_cross() {
        let old = sealed(&keys("https://gw", 1, None));
        assert!(keys("https://gw", 2, Some(1)).open(&old, &ALICE, NOW, HOUR).is_ok());
        for other in [
            keys("https://gw", 2, None),
            keys("https://gw", 2, Some(3)),
            keys("https://other", 1, None),
        ] {
            assert_eq!(other.open(&old, &ALICE, NOW, HOUR), Err(Reject::SessionUnknown));
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
            assert_eq!(keys.seal(&ALICE, bad, NOW, &mut out), Err(Reject::UpstreamMalformed));
            assert_eq!(out, b"kept");
        }
        out.clear();
        keys.seal(&ALICE, &longest, NOW, &mut out).unwrap();
        assert!(out.len() <= SEALED_BYTES_MAX);
        assert_eq!(keys.open(&out, &ALICE, NOW, HOUR), Ok(longest));
    }
}

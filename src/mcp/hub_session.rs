//! Sessions of legacy clients on `/mcp`: what was agreed on with the client, sealed. There is no
//! upstream's session inside, because there are many of them, and each core opens its own.

use ring::digest;

pub use super::capability::ClientCapabilities;
use super::era::REVISIONS;
use super::seal::{Keyring, Purpose};
use super::session::lives;
use crate::clock::UnixSeconds;
use crate::reject::Reject;

/// What was agreed on when a session began (2025-11-25 lifecycle, "Initialization").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubSession {
    /// The revision, one of [`REVISIONS`].
    pub revision: &'static str,
    /// What the client can be asked for.
    pub capabilities: ClientCapabilities,
    /// When it began.
    pub issued: UnixSeconds,
}

/// Names one session where its sealed id would be too long: the first 16 bytes of the SHA-256 of
/// that id. The text of an id has one spelling (no padding, no slack bits), so an id has one mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionMark(pub [u8; 16]);

impl SessionMark {
    /// The mark of a sealed id, as it stands in `Mcp-Session-Id`.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, sealed);
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// The half of it that fits into a notice. Two sessions of which one ends are mistaken for each
    /// other once in 2^64; the other then ends, too, which a client recovers from.
    #[must_use]
    pub fn short(self) -> u64 {
        u64::from_be_bytes(self.0.first_chunk().copied().unwrap_or_default())
    }
}

impl Keyring {
    /// Appends the sealed id (visible ASCII) of `session` to `out`. It opens for `owner` alone, see
    /// [`super::seal::bound_to`].
    ///
    /// # Errors
    /// `GatewayFault` without random bytes; `out` is unchanged then.
    pub fn seal_hub_session(
        &self,
        session: &HubSession,
        owner: &[u8; 32],
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut plain = [0; PLAIN_BYTES_MAX];
        let length = HEAD_BYTES + session.revision.len();
        let used = plain.get_mut(..length).ok_or(Reject::GatewayFault)?;
        let (issued, rest) = used.split_at_mut(8);
        let (capabilities, revision) = rest.split_at_mut(2);
        issued.copy_from_slice(&session.issued.0.to_be_bytes());
        capabilities.copy_from_slice(&session.capabilities.0.to_be_bytes());
        revision.copy_from_slice(session.revision.as_bytes());
        self.seal(Purpose::HubSession, used, owner, out)
    }

    /// What is inside `sealed`.
    ///
    /// # Errors
    /// `SessionUnknown`, whatever the reason: forged, another principal's, sealed under a key that
    /// is gone, of a revision that we do not speak, or older than `lifetime_seconds`.
    pub fn open_hub_session(
        &self,
        sealed: &[u8],
        owner: &[u8; 32],
        now: UnixSeconds,
        lifetime_seconds: u64,
    ) -> Result<HubSession, Reject> {
        let session = (sealed.len() <= SEALED_BYTES_MAX)
            .then(|| self.open(Purpose::HubSession, sealed, owner))
            .flatten()
            .and_then(|plain| read(&plain))
            .ok_or(Reject::SessionUnknown)?;
        if lives(session.issued, now, lifetime_seconds) {
            Ok(session)
        } else {
            Err(Reject::SessionUnknown)
        }
    }
}

fn read(plain: &[u8]) -> Option<HubSession> {
    let (issued, rest) = plain.split_first_chunk::<8>()?;
    let (capabilities, revision) = rest.split_first_chunk::<2>()?;
    let known = REVISIONS.iter().find(|known| known.as_bytes() == revision)?;
    Some(HubSession {
        revision: known,
        capabilities: ClientCapabilities(u16::from_be_bytes(*capabilities)),
        issued: UnixSeconds(u64::from_be_bytes(*issued)),
    })
}

/// Issue time and capabilities, before the revision.
const HEAD_BYTES: usize = 8 + 2;
const PLAIN_BYTES_MAX: usize = HEAD_BYTES + 16;
/// No sealed id is longer; a stranger's megabyte is not decoded.
const SEALED_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SESSION_SKEW_SECONDS_MAX;
    use crate::mcp::seal::bound_to;

    const HOUR: u64 = 3_600;
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const SESSION: HubSession = HubSession {
        revision: "2025-11-25",
        capabilities: ClientCapabilities::ROOTS.with(ClientCapabilities::ELICITATION_URL),
        issued: NOW,
    };

    fn keys(current: u8, previous: Option<u8>) -> Keyring {
        let previous = previous.map(|byte| [byte; 32]);
        Keyring::new("https://gw", &[current; 32], previous.as_ref()).unwrap()
    }

    fn alice() -> [u8; 32] {
        bound_to(&["https://idp", "alice", "agent"])
    }

    fn sealed(keys: &Keyring) -> Vec<u8> {
        let mut out = Vec::new();
        keys.seal_hub_session(&SESSION, &alice(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_session_says_what_was_agreed_on_any_instance_and_after_a_rotation() {
        let id = sealed(&keys(1, None));
        assert!(id.iter().all(u8::is_ascii_graphic), "2025-11-25: visible ASCII");
        assert!(id.len() <= SEALED_BYTES_MAX, "{}", id.len());
        for keys in [keys(1, None), keys(2, Some(1))] {
            assert_eq!(keys.open_hub_session(&id, &alice(), NOW, HOUR), Ok(SESSION));
        }
        for revision in REVISIONS {
            let (keys, session) = (keys(1, None), HubSession { revision, ..SESSION });
            let mut out = b"kept:".to_vec();
            keys.seal_hub_session(&session, &alice(), &mut out).unwrap();
            let id = out.strip_prefix(b"kept:").unwrap();
            assert_eq!(keys.open_hub_session(id, &alice(), NOW, HOUR), Ok(session));
        }
    }

    #[test]
    fn m12_a_session_on_mcp_of_somebody_else_is_unknown() {
        let keys = keys(1, None);
        let id = sealed(&keys);
        let strangers: [&[&str]; 5] = [
            &["https://idp", "bob", "agent"],
            &["https://idp2", "alice", "agent"],
            &["https://idp", "alice", "agent2"],
            &["https://idp", "alicea", "gent"],
            &["https://idp", "alice", "agent", "files"],
        ];
        for stranger in strangers {
            let opened = keys.open_hub_session(&id, &bound_to(stranger), NOW, HOUR);
            assert_eq!(opened, Err(Reject::SessionUnknown), "{stranger:?}");
        }
    }

    #[test]
    fn a_session_ends_at_its_lifetime_and_is_not_from_the_future() {
        let keys = keys(1, None);
        let id = sealed(&keys);
        let open = |offset: i64| {
            let now = UnixSeconds(NOW.0.wrapping_add_signed(offset));
            keys.open_hub_session(&id, &alice(), now, HOUR)
        };
        assert!(open(0).is_ok() && open(3_599).is_ok());
        assert_eq!(open(3_600), Err(Reject::SessionUnknown));
        let skew = SESSION_SKEW_SECONDS_MAX as i64;
        assert!(open(-skew).is_ok());
        assert_eq!(open(-skew - 1), Err(Reject::SessionUnknown));
    }

    #[test]
    fn what_is_sealed_and_no_session_is_unknown() {
        let keys = keys(1, None);
        let mut good = Vec::new();
        good.extend_from_slice(&NOW.0.to_be_bytes());
        good.extend_from_slice(&[0, 0]);
        let head = good.len();
        good.extend_from_slice(b"2025-11-25");
        for (plain, opens) in [
            (&good[..], true),
            (&good[..head], false),
            (&good[..good.len() - 1], false),
            (&[&good[..], b"x"].concat(), false),
            (&[&good[..head], b"2031-01-01"].concat(), false),
            (&good[..9], false),
            (&b""[..], false),
        ] {
            let mut out = Vec::new();
            keys.seal(Purpose::HubSession, plain, &alice(), &mut out).unwrap();
            let opened = keys.open_hub_session(&out, &alice(), NOW, HOUR);
            assert_eq!(opened.is_ok(), opens, "{plain:?}");
        }
        let long = vec![b'A'; 64 * 1024];
        let opened = keys.open_hub_session(&long, &alice(), NOW, HOUR);
        assert_eq!(opened, Err(Reject::SessionUnknown));
    }

    #[test]
    fn every_session_has_a_mark_of_its_own() {
        let keys = keys(1, None);
        let (one, two) = (sealed(&keys), sealed(&keys));
        assert_eq!(SessionMark::of(&one), SessionMark::of(&one));
        assert_ne!(SessionMark::of(&one), SessionMark::of(&two));
        assert_ne!(SessionMark::of(&one).short(), SessionMark::of(&two).short());
        // FIPS 180-4, the vector of "abc".
        assert_eq!(SessionMark::of(b"abc").short(), 0xba78_16bf_8f01_cfea);
    }

    #[test]
    fn capabilities_hold_what_was_declared_and_nothing_else() {
        let declared = ClientCapabilities::SAMPLING.with(ClientCapabilities::SAMPLING_TOOLS);
        assert!(declared.hold(ClientCapabilities::SAMPLING));
        assert!(declared.hold(declared) && declared.hold(ClientCapabilities::default()));
        assert!(!declared.hold(ClientCapabilities::SAMPLING_CONTEXT));
        assert!(!declared.hold(ClientCapabilities::SAMPLING.with(ClientCapabilities::ROOTS)));
    }
}

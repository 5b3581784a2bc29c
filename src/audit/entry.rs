//! What one audit record says. No field can hold a secret: a token is a [`TokenReference`], a
//! credential is its name and kind, and a [`Name`] loses what may be confidential when it is
//! written.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ring::digest;

use crate::clock::UnixMicros;
use crate::reject::Reject;

/// The decision half of a record. `None` means not known and is left out of the line.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// When the request was read.
    pub time: UnixMicros,
    /// What happened: `request`, or a word of its own for a leg of a fan-out or a cut stream;
    /// [`EVENT_METADATA`] and [`EVENT_PREFLIGHT`] for what is public and answered to anybody, so
    /// that every permitted `request` has a principal.
    pub event: &'a str,
    /// What was decided.
    pub decision: Decision,
    /// Why not; `None` is `ok`.
    pub reason: Option<Reject>,
    /// Ids of the determining policies. `Some` and empty: decided, and no policy spoke.
    pub policies: Option<List<'a>>,
    /// Policy epoch.
    pub epoch: Option<u64>,
    /// Namespaced user id.
    pub user: Option<&'a str>,
    /// Issuer of the token.
    pub issuer: Option<&'a str>,
    /// Groups of the user.
    pub groups: Option<List<'a>>,
    /// Agent id.
    pub agent: Option<&'a str>,
    /// Server name.
    pub server: Option<&'a str>,
    /// MCP method.
    pub method: Option<&'a str>,
    /// Tool, prompt, URI or task.
    pub name: Option<Name<'a>>,
    /// Protocol revision.
    pub revision: Option<&'a str>,
    /// Upstream credential.
    pub credential: Option<CredentialUse<'a>>,
    /// Where the agent connected from.
    pub source_ip: Option<IpAddr>,
    /// See [`trace_id`].
    pub trace_id: Option<&'a str>,
    /// Which token it was.
    pub token: Option<TokenReference>,
    /// Country of `source_ip`, when a policy asks for it and the database knows it.
    pub country: Option<&'a str>,
    /// Ids of the shadow policies that would have denied it; `None` when none would have.
    pub would_deny: Option<List<'a>>,
    /// The rate limit that refused it.
    pub limit: Option<&'a str>,
    /// Of a leg: `seq` of the record of the request that it is part of, on the same core.
    pub leg_of: Option<u64>,
}

impl Entry<'_> {
    /// An entry of event `request` that knows nothing else yet; for struct update syntax.
    #[must_use]
    pub const fn new(time: UnixMicros, decision: Decision) -> Self {
        Self {
            time,
            event: EVENT_REQUEST,
            decision,
            reason: None,
            policies: None,
            epoch: None,
            user: None,
            issuer: None,
            groups: None,
            agent: None,
            server: None,
            method: None,
            name: None,
            revision: None,
            credential: None,
            source_ip: None,
            trace_id: None,
            token: None,
            country: None,
            would_deny: None,
            limit: None,
            leg_of: None,
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Refused on purpose.
    Deny,
    /// Refused because no decision, key, credential or record was to be had.
    Error,
    /// Relayed.
    Permit,
}

/// The outcome half of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Status of our answer; `None` when none was sent.
    pub status: Option<u16>,
    /// Status of the upstream's answer.
    pub upstream_status: Option<u16>,
    /// Body bytes from the agent.
    pub bytes_in: u64,
    /// Body bytes to the agent.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration_us: u64,
    /// The part of it that was ours.
    pub overhead_us: Option<u64>,
    /// What went wrong after the decision; `None` leaves the reason of the decision.
    pub reason: Option<Reject>,
    /// What a filtered list came to; `None` for everything that is no list.
    pub list: Option<Tally>,
    /// How the servers answered that were asked at once; `None` where only one could be.
    pub legs: Option<Legs>,
}

/// What came of the legs of one request to `/mcp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// Servers that were to be asked.
    pub asked: u16,
    /// Those that answered in time.
    pub answered: u16,
}

/// What policy left of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Items that the upstream sent.
    pub upstream: u32,
    /// Items that the agent saw.
    pub shown: u32,
    /// Why it saw none; `None` when it saw some.
    pub empty: Option<Empty>,
}

/// Why a list is empty, the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Empty {
    /// The upstream sent none.
    Upstream,
    /// Nothing permits any item.
    NoPermit,
    /// No forbid holds for any item, and a condition failed to evaluate for at least one.
    Error,
    /// A forbid holds for at least one item.
    Forbidden,
}

impl Empty {
    /// The word of the record.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::NoPermit => "no_permit",
            Self::Error => "error",
            Self::Forbidden => "forbidden",
        }
    }

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Upstream => 1,
            Self::NoPermit => 2,
            Self::Forbidden => 3,
            Self::Error => 4,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Upstream),
            2 => Some(Self::NoPermit),
            3 => Some(Self::Forbidden),
            4 => Some(Self::Error),
            _ => None,
        }
    }
}

/// A list of strings as its owner happens to hold it, so that nobody copies it for the audit.
#[derive(Clone, Copy, Debug)]
pub enum List<'a> {
    /// Borrowed strings.
    Slices(&'a [&'a str]),
    /// Owned strings.
    Strings(&'a [String]),
    /// Strings shared within a core.
    Local(&'a [Rc<str>]),
    /// Strings shared between threads.
    Shared(&'a [Arc<str>]),
}

impl<'a> List<'a> {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Slices(list) => list.len(),
            Self::Strings(list) => list.len(),
            Self::Local(list) => list.len(),
            Self::Shared(list) => list.len(),
        }
    }

    /// None at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a str> {
        match self {
            Self::Slices(list) => list.get(index).copied(),
            Self::Strings(list) => list.get(index).map(String::as_str),
            Self::Local(list) => list.get(index).map(|text| &**text),
            Self::Shared(list) => list.get(index).map(|text| &**text),
        }
    }
}

/// What was called, by what may be written of it.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    /// A tool or prompt: as it is.
    Plain(&'a str),
    /// A task id, which works like a bearer secret: only its hash.
    Task(&'a str),
    /// A resource: without user information, query and fragment.
    Uri(&'a str),
}

/// Which upstream credential was used.
#[derive(Clone, Copy, Debug)]
pub struct CredentialUse<'a> {
    /// Its configured name.
    pub provider: &'a str,
    /// Its kind (`api_key`, `none`, …).
    pub kind: &'a str,
    /// Where it came from.
    pub cache: CredentialCache,
}

/// Where a credential came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialCache {
    /// This core's cache.
    Hit,
    /// Its source.
    Miss,
    /// There is nothing to cache.
    None,
}

/// The first 64 bits of a token's SHA-256: enough to find the token's other requests, useless to
/// make the token from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenReference(pub(super) [u8; 8]);

impl TokenReference {
    /// From the first 16 hex digits of the token's SHA-256, as a verified token carries them.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let digits = <&[u8; 16]>::try_from(digits.as_bytes()).ok()?;
        let mut number = 0;
        for digit in digits {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            number = number << 4 | u64::from(nibble);
        }
        Some(Self(number.to_be_bytes()))
    }

    /// Hashes `token`; once per verified token, not per request.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self::from_digest(digest::digest(&digest::SHA256, token).as_ref())
    }

    /// The same from the SHA-256 digest of the token, when somebody has it already.
    #[must_use]
    pub fn from_digest(sha256: &[u8]) -> Self {
        let mut first = [0; 8];
        first.iter_mut().zip(sha256).for_each(|(to, from)| *to = *from);
        Self(first)
    }
}

/// The trace id of a `traceparent` value, when it has one.
///
/// W3C Trace Context §3.2.2.3: 32 lower-case hex digits, not all zero. Anything else is dropped:
/// the header comes from the agent and may hold whatever it likes.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let (_version, rest) = traceparent.split_once('-')?;
    let (id, after) = rest.split_at_checked(TRACE_ID_BYTES)?;
    let ends = after.is_empty() || after.starts_with('-');
    // Every digit is looked at, whatever the ones before it were: that goes many at a time.
    let (hex, zero) = id.bytes().fold((true, true), |(hex, zero), byte| {
        (hex & matches!(byte, b'0'..=b'9' | b'a'..=b'f'), zero & (byte == b'0'))
    });
    (ends && hex && !zero).then_some(id)
}

/// The event of a plain request.
pub const EVENT_REQUEST: &str = "request";
/// One server of several that a request to `/mcp` needs.
pub const EVENT_LEG: &str = "leg";
/// A protected-resource metadata document was asked for (RFC 9728).
pub const EVENT_METADATA: &str = "metadata";
/// A browser asked whether it may ask (CORS).
pub const EVENT_PREFLIGHT: &str = "preflight";
/// Bytes of a trace id.
pub(super) const TRACE_ID_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_32_hex_digits_or_nothing() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        assert_eq!(trace_id(&format!("-{id}")), Some(id), "the version is not ours to judge");
        for bad in [
            "".to_owned(),
            "00".to_owned(),
            "00--1-1".to_owned(),
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-1-1".to_owned(),
            "00-secret-1-1".to_owned(),
            id.to_owned(),
            format!("00-{id}0-1-1"),
            format!("00-{}-1-1", &id[1..]),
            format!("00-{}é-1", &id[1..]),
            format!("00-{}--1", &id[1..]),
        ] {
            assert_eq!(trace_id(&bad), None, "{bad}");
        }
        assert_eq!(trace_id(&format!("00-{}-1-1", "0".repeat(32))), None);
    }

    #[test]
    fn k01_a_token_is_known_by_16_digits_of_its_hash() {
        // SHA-256("abc") is ba7816bf 8f01cfea … (FIPS 180-4 example).
        let abc = TokenReference::of(b"abc");
        assert_eq!(abc.0, [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
        assert_eq!(TokenReference::from_hex("ba7816bf8f01cfea"), Some(abc));
        for bad in
            ["", "ba7816bf8f01cfe", "ba7816bf8f01cfea0", "+a7816bf8f01cfea", "ga7816bf8f01cfea"]
        {
            assert_eq!(TokenReference::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_kind_of_list_reads_the_same() {
        let owned = ["a".to_owned(), "b".to_owned()];
        let local = [Rc::from("a"), Rc::from("b")];
        let shared = [Arc::from("a"), Arc::from("b")];
        for list in [
            List::Slices(&["a", "b"]),
            List::Strings(&owned),
            List::Local(&local),
            List::Shared(&shared),
        ] {
            assert_eq!((list.len(), list.get(1), list.get(2)), (2, Some("b"), None));
            assert!(!list.is_empty());
        }
    }
}

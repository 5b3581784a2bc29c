//! The binary form of a record: how it lies in the ring, and nothing a person reads.
//!
//! Fields follow each other in a fixed order; a string is its length (16 bits, [`ABSENT`] for
//! none) and its bytes. Every string and list has a bound, so no record exceeds
//! [`AUDIT_RECORD_BYTES_MAX`] whatever an agent sends; what is cut is cut between characters, and
//! a cut list ends with how many were left out.

use std::net::IpAddr;

use super::entry::{
    CredentialCache, Decision, Empty, Entry, Legs, List, Outcome, TRACE_ID_BYTES, Tally,
};
use super::name;
use crate::limits::{AUDIT_NAME_BYTES_MAX, AUDIT_RECORD_BYTES_MAX};
use crate::reject::Reject;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A decision whose outcome follows.
    Decision,
    /// Both at once.
    Whole,
    /// The outcome of the decision with the same sequence number.
    Outcome,
    /// Records that could not be kept.
    Gap,
}

impl Kind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Decision => 1,
            Self::Whole => 2,
            Self::Outcome => 3,
            Self::Gap => 4,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Decision),
            2 => Some(Self::Whole),
            3 => Some(Self::Outcome),
            4 => Some(Self::Gap),
            _ => None,
        }
    }
}

/// An outcome as read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutcomeRead<'a> {
    pub(super) status: Option<u16>,
    pub(super) upstream_status: Option<u16>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration_us: u64,
    pub(super) overhead_us: Option<u64>,
    pub(super) reason: Option<&'a str>,
    pub(super) list: Option<Tally>,
    pub(super) legs: Option<Legs>,
}

/// Appends the decision half.
pub(super) fn write_decision(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.time.0.to_le_bytes());
    out.push(match entry.decision {
        Decision::Deny => DENY,
        Decision::Error => ERROR,
        Decision::Permit => PERMIT,
    });
    put_text(Some(entry.event), EVENT_BYTES_MAX, out);
    put_text(entry.reason.map(Reject::audit_code), REASON_BYTES_MAX, out);
    put_list(entry.policies, out);
    put_number(entry.epoch, out);
    put_text(entry.user, ID_BYTES_MAX, out);
    put_text(entry.issuer, ID_BYTES_MAX, out);
    put_list(entry.groups, out);
    put_text(entry.agent, ID_BYTES_MAX, out);
    put_text(entry.server, WORD_BYTES_MAX, out);
    put_text(entry.method, METHOD_BYTES_MAX, out);
    put_name(entry, out);
    put_text(entry.revision, WORD_BYTES_MAX, out);
    put_text(entry.credential.map(|used| used.provider), METHOD_BYTES_MAX, out);
    put_text(entry.credential.map(|used| used.kind), WORD_BYTES_MAX, out);
    out.push(match entry.credential.map(|used| used.cache) {
        Some(CredentialCache::Hit) => CACHE_HIT,
        Some(CredentialCache::Miss) => CACHE_MISS,
        Some(CredentialCache::None) | None => CACHE_NONE,
    });
    match entry.source_ip {
        Some(IpAddr::V4(ip)) => put_bytes(&ip.octets(), out),
        Some(IpAddr::V6(ip)) => put_bytes(&ip.octets(), out),
        None => put_bytes(&[], out),
    }
    put_text(entry.trace_id, TRACE_ID_BYTES, out);
    put_bytes(entry.token.as_ref().map_or(&[], |token| &token.0[..]), out);
    // Few records have any of these.
    let rare = entry.country.is_some()
        || entry.would_deny.is_some()
        || entry.limit.is_some()
        || entry.leg_of.is_some();
    out.push(u8::from(rare));
    if rare {
        put_text(entry.country, COUNTRY_BYTES_MAX, out);
        put_list(entry.would_deny, out);
        put_text(entry.limit, METHOD_BYTES_MAX, out);
        put_number(entry.leg_of, out);
    }
}

/// Appends the outcome half.
pub(super) fn write_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    out.extend_from_slice(&outcome.status.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&outcome.upstream_status.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&outcome.bytes_in.to_le_bytes());
    out.extend_from_slice(&outcome.bytes_out.to_le_bytes());
    out.extend_from_slice(&outcome.duration_us.to_le_bytes());
    put_number(outcome.overhead_us, out);
    put_text(outcome.reason.map(Reject::audit_code), REASON_BYTES_MAX, out);
    if let Some(Legs { asked, answered }) = outcome.legs {
        out.push(LEGS);
        out.extend_from_slice(&asked.to_le_bytes());
        out.extend_from_slice(&answered.to_le_bytes());
    }
    put_tally(outcome.list, out);
}

fn put_tally(tally: Option<Tally>, out: &mut Vec<u8>) {
    let Some(Tally { upstream, shown, empty }) = tally else { return out.push(NO_LIST) };
    out.push(empty.map_or(SHOWN, Empty::code));
    out.extend_from_slice(&upstream.to_le_bytes());
    out.extend_from_slice(&shown.to_le_bytes());
}

/// Appends a gap: when it was told, and how many records it stands for.
pub(super) fn write_gap(time: u64, dropped: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.to_le_bytes());
    out.extend_from_slice(&dropped.to_le_bytes());
}

fn put_name(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let Some(name) = entry.name else { return put_text(None, 0, out) };
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    name::write(name, out);
    let length = u16::try_from(out.len() - length_at - 2).unwrap_or(0);
    if let Some(place) = out.get_mut(length_at..length_at + 2) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_text(text: Option<&str>, bytes_max: usize, out: &mut Vec<u8>) {
    match text {
        Some(text) => put_bytes(name::cut(text, bytes_max).as_bytes(), out),
        None => out.extend_from_slice(&ABSENT.to_le_bytes()),
    }
}

/// `bytes` is bounded by the caller far below 64 KiB.
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

fn put_number(number: Option<u64>, out: &mut Vec<u8>) {
    out.push(u8::from(number.is_some()));
    out.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
}

/// Whole strings only: half a group name is another group. What does not fit is counted.
fn put_list(list: Option<List<'_>>, out: &mut Vec<u8>) {
    let Some(list) = list else { return out.extend_from_slice(&ABSENT.to_le_bytes()) };
    let start = out.len();
    out.extend_from_slice(&[0; LIST_HEAD_BYTES]);
    let mut kept: u16 = 0;
    for index in 0..list.len() {
        let text = list.get(index).unwrap_or_default();
        if out.len() - start + 2 + text.len() > LIST_BYTES_MAX {
            break;
        }
        put_bytes(text.as_bytes(), out);
        kept += 1;
    }
    let left_out = u16::try_from(list.len() - usize::from(kept)).unwrap_or(u16::MAX);
    let head = [kept.to_le_bytes(), left_out.to_le_bytes()];
    if let Some(place) = out.get_mut(start..start + LIST_HEAD_BYTES) {
        place.copy_from_slice(head.as_flattened());
    }
}

/// Reads halves back. `None` anywhere means that the bytes are not a record of ours.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Passes over the decision half.
    pub(super) fn skip_decision(&mut self) -> Option<()> {
        self.u64()?;
        self.verdict()?;
        self.skip_texts(2)?;
        self.skip_list()?;
        self.number()?;
        self.skip_texts(2)?;
        self.skip_list()?;
        // Agent, server, method, name, revision, credential.
        self.skip_texts(7)?;
        self.cache()?;
        // Address, trace id, token.
        self.skip_texts(3)?;
        if !self.flag()? {
            return Some(());
        }
        // Country, shadow policies, limit, whose leg.
        self.skip_texts(1)?;
        self.skip_list()?;
        self.skip_texts(1)?;
        self.number().map(drop)
    }

    /// Whether what follows is there.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn skip_texts(&mut self, count: u16) -> Option<()> {
        (0..count).try_for_each(|_| self.bytes().map(drop))
    }

    fn skip_list(&mut self) -> Option<()> {
        let (kept, _) = self.list()?.unwrap_or_default();
        self.skip_texts(kept)
    }

    /// What was decided, in the word of the record.
    pub(super) fn verdict(&mut self) -> Option<&'static str> {
        match self.u8()? {
            DENY => Some("deny"),
            ERROR => Some("error"),
            PERMIT => Some("permit"),
            _ => None,
        }
    }

    /// The outcome half.
    pub(super) fn outcome(&mut self) -> Option<OutcomeRead<'a>> {
        let mut outcome = OutcomeRead {
            status: Some(self.u16()?).filter(|status| *status != 0),
            upstream_status: Some(self.u16()?).filter(|status| *status != 0),
            bytes_in: self.u64()?,
            bytes_out: self.u64()?,
            duration_us: self.u64()?,
            overhead_us: self.number()?,
            reason: self.text()?,
            list: None,
            legs: None,
        };
        let mut kind = self.u8()?;
        if kind == LEGS {
            outcome.legs = Some(Legs { asked: self.u16()?, answered: self.u16()? });
            kind = self.u8()?;
        }
        outcome.list = self.tally(kind)?;
        Some(outcome)
    }

    fn tally(&mut self, kind: u8) -> Option<Option<Tally>> {
        let empty = match kind {
            NO_LIST => return Some(None),
            SHOWN => None,
            code => Some(Empty::from_code(code)?),
        };
        Some(Some(Tally { upstream: self.u32()?, shown: self.u32()?, empty }))
    }

    /// A gap: time and number.
    pub(super) fn gap(&mut self) -> Option<(u64, u64)> {
        Some((self.u64()?, self.u64()?))
    }

    /// Where the credential came from.
    pub(super) fn cache(&mut self) -> Option<&'static str> {
        match self.u8()? {
            CACHE_HIT => Some("hit"),
            CACHE_MISS => Some("miss"),
            CACHE_NONE => Some("none"),
            _ => None,
        }
    }

    /// The agent's address.
    pub(super) fn address(&mut self) -> Option<Option<IpAddr>> {
        let bytes = self.bytes()??;
        if bytes.is_empty() {
            return Some(None);
        }
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(Some)
    }

    /// The head of a list, whose strings follow: how many there are, and how many were left out.
    pub(super) fn list(&mut self) -> Option<Option<(u16, u16)>> {
        let kept = self.u16()?;
        if kept == ABSENT { Some(None) } else { Some(Some((kept, self.u16()?))) }
    }

    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.bytes()? {
            Some(bytes) => std::str::from_utf8(bytes).ok().map(Some),
            None => Some(None),
        }
    }

    /// A string that nobody has looked into yet.
    #[inline]
    pub(super) fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.u16()?;
        if length == ABSENT { Some(None) } else { self.take(usize::from(length)).map(Some) }
    }

    /// A number that may be absent.
    pub(super) fn number(&mut self) -> Option<Option<u64>> {
        let present = self.u8()? != 0;
        let number = self.u64()?;
        Some(present.then_some(number))
    }

    #[inline]
    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A number.
    #[inline]
    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    #[inline]
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Length of a string or list that is not there.
const ABSENT: u16 = u16::MAX;
const DENY: u8 = 0;
const ERROR: u8 = 1;
const PERMIT: u8 = 2;
const CACHE_NONE: u8 = 0;
const CACHE_HIT: u8 = 1;
const CACHE_MISS: u8 = 2;
/// In the place of a tally's reason: no list at all, and a list of which something was shown.
const NO_LIST: u8 = 0;
const SHOWN: u8 = 255;
/// Before it: how the legs answered.
const LEGS: u8 = 254;

/// User, issuer, agent.
const ID_BYTES_MAX: usize = 256;
const METHOD_BYTES_MAX: usize = 128;
const WORD_BYTES_MAX: usize = 64;
const EVENT_BYTES_MAX: usize = 32;
const REASON_BYTES_MAX: usize = 40;
/// ISO 3166-1 alpha-2.
const COUNTRY_BYTES_MAX: usize = 2;
/// Policies or groups, lengths included.
const LIST_BYTES_MAX: usize = 1024;
const LIST_HEAD_BYTES: usize = 4;
/// Lengths and numbers between the strings.
const FIXED_BYTES: usize = 113;
/// Bytes of the longest decision.
const DECISION_BYTES_MAX: usize = FIXED_BYTES
    + 3 * ID_BYTES_MAX
    + AUDIT_NAME_BYTES_MAX
    + 3 * METHOD_BYTES_MAX
    + 3 * WORD_BYTES_MAX
    + EVENT_BYTES_MAX
    + REASON_BYTES_MAX
    + 3 * LIST_BYTES_MAX
    + COUNTRY_BYTES_MAX
    + TRACE_ID_BYTES;
/// Bytes of the longest outcome.
pub(super) const OUTCOME_BYTES_MAX: usize = 2 + 2 + 3 * 8 + 9 + 2 + REASON_BYTES_MAX + 9 + 5;
/// Bytes of the longest record, without the ring's own head.
pub(super) const PAYLOAD_BYTES_MAX: usize = DECISION_BYTES_MAX + OUTCOME_BYTES_MAX;

const _: () = assert!(PAYLOAD_BYTES_MAX + 64 <= AUDIT_RECORD_BYTES_MAX);

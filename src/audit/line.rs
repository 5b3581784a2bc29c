//! One JSON line per record, keys in fixed order. Runs in the writer thread only.
//!
//! A line is written straight from the bytes of its record, field by field, in the order in which
//! they lie there: nothing is decoded into a structure first and nothing is allocated. What this
//! writes is, byte for byte, what serde_json makes of the same record (`tests::oracle`).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::codec::Reader;
use super::entry::{Legs, Tally};
use super::json::{put_fixed, put_hex, put_number, put_string};
use super::time::Times;

/// What identifies a record among all records of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) instance: u64,
    pub(super) core: u32,
    pub(super) seq: u64,
}

/// How far a record got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Decision and outcome.
    Done,
    /// Still open after [`crate::limits::AUDIT_OPEN_SECONDS_MAX`]; another line follows.
    Opened,
    /// The process died before the outcome.
    Unknown,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Opened => OPENED,
            Self::Unknown => "unknown",
        }
    }
}

/// The bytes of a record's halves, and how far it got.
#[derive(Clone, Copy)]
pub(super) struct Halves<'a> {
    pub(super) decision: &'a [u8],
    /// `None` with [`State::Done`]: it follows the decision.
    pub(super) outcome: Option<&'a [u8]>,
    pub(super) state: State,
}

/// Appends the line of a request. False when the bytes are not a record of ours, which leaves `out`
/// alone.
pub(super) fn write_request(
    key: Key,
    halves: Halves<'_>,
    times: &mut Times,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let written = request(key, halves, times, out).is_some();
    if !written {
        out.truncate(start);
    }
    written
}

fn request(key: Key, halves: Halves<'_>, times: &mut Times, out: &mut Vec<u8>) -> Option<()> {
    let mut read = Reader(halves.decision);
    let outcome = match (halves.state, halves.outcome) {
        (State::Done, Some(outcome)) => Some(Reader(outcome).outcome()?),
        (State::Done, None) => {
            let mut behind = Reader(halves.decision);
            behind.skip_decision()?;
            Some(behind.outcome()?)
        }
        (State::Opened | State::Unknown, _) => None,
    };
    begin(times.text(read.u64()?), Some(key.seq), key.core, out);
    let decision = read.verdict()?;
    put_string(read.bytes()??, out)?;
    put_fixed(b",\"decision\":\"", out);
    put_fixed(decision.as_bytes(), out);
    let reason = read.bytes()?;
    put_fixed(b"\",\"reason\":", out);
    let told = outcome.as_ref().and_then(|outcome| outcome.reason).map(str::as_bytes);
    put_string(told.or(reason).unwrap_or(b"ok"), out)?;
    list(b",\"policy\":", &mut read, out)?;
    number(b",\"epoch\":", read.number()?, out);
    text(b",\"user\":", &mut read, out)?;
    text(b",\"issuer\":", &mut read, out)?;
    list(b",\"groups\":", &mut read, out)?;
    text(b",\"agent\":", &mut read, out)?;
    text(b",\"server\":", &mut read, out)?;
    text(b",\"method\":", &mut read, out)?;
    text(b",\"name\":", &mut read, out)?;
    text(b",\"revision\":", &mut read, out)?;
    credential(&mut read, out)?;
    if let Some(outcome) = outcome {
        number(b",\"status\":", outcome.status.map(u64::from), out);
        number(b",\"upstream_status\":", outcome.upstream_status.map(u64::from), out);
        number(b",\"bytes_in\":", Some(outcome.bytes_in), out);
        number(b",\"bytes_out\":", Some(outcome.bytes_out), out);
        number(b",\"duration_us\":", Some(outcome.duration_us), out);
        number(b",\"overhead_us\":", outcome.overhead_us, out);
        tally(outcome.list, out);
        legs(outcome.legs, out);
    }
    if let Some(ip) = read.address()? {
        put_fixed(b",\"source_ip\":\"", out);
        address(ip.to_canonical(), out)?;
        put_fixed(b"\"", out);
    }
    text(b",\"trace_id\":", &mut read, out)?;
    if let Ok(token) = <[u8; 8]>::try_from(read.bytes()??) {
        put_fixed(b",\"token\":\"", out);
        put_hex(u64::from_be_bytes(token), out);
        put_fixed(b"\"", out);
    }
    if read.flag()? {
        text(b",\"country\":", &mut read, out)?;
        list(b",\"would_deny\":", &mut read, out)?;
        text(b",\"limit\":", &mut read, out)?;
        number(b",\"leg_of\":", read.number()?, out);
    }
    put_fixed(b",\"outcome\":\"", out);
    put_fixed(halves.state.word().as_bytes(), out);
    put_fixed(b"\"", out);
    end(key.instance, out);
    Some(())
}

/// Appends the line that tells of `dropped` records which could not be kept.
pub(super) fn write_gap(key: Key, at: u64, dropped: u64, times: &mut Times, out: &mut Vec<u8>) {
    begin(times.text(at), Some(key.seq), key.core, out);
    put_fixed(b"\"gap\",\"reason\":\"not_kept\"", out);
    number(b",\"dropped\":", Some(dropped), out);
    end(key.instance, out);
}

/// Appends the line that tells of bytes in a ring which are no record; how many records they were
/// nobody knows, but the sequence numbers around them do.
pub(super) fn write_torn(instance: u64, core: u32, at: u64, times: &mut Times, out: &mut Vec<u8>) {
    begin(times.text(at), None, core, out);
    put_fixed(b"\"gap\",\"reason\":\"torn\"", out);
    end(instance, out);
}

/// The key of a line that ends its record; `None` for early lines and for what is not a line of
/// ours.
pub(super) fn final_key(line: &[u8]) -> Option<Key> {
    #[derive(serde::Deserialize)]
    struct Ids<'a> {
        instance: &'a str,
        core: u32,
        seq: u64,
        outcome: Option<&'a str>,
    }
    let ids: Ids<'_> = serde_json::from_slice(line).ok()?;
    let instance = u64::from_str_radix(ids.instance, 16).ok()?;
    (ids.outcome != Some(OPENED)).then_some(Key { instance, core: ids.core, seq: ids.seq })
}

/// Up to where the event stands.
fn begin(time: &[u8], seq: Option<u64>, core: u32, out: &mut Vec<u8>) {
    put_fixed(b"{\"time\":\"", out);
    put_fixed(time, out);
    put_fixed(b"\"", out);
    number(b",\"seq\":", seq, out);
    number(b",\"core\":", Some(u64::from(core)), out);
    put_fixed(b",\"event\":", out);
}

fn end(instance: u64, out: &mut Vec<u8>) {
    put_fixed(b",\"instance\":\"", out);
    put_hex(instance, out);
    put_fixed(b"\"}\n", out);
}

fn text(key: &[u8], read: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    if let Some(text) = read.bytes()? {
        put_fixed(key, out);
        put_string(text, out)?;
    }
    Some(())
}

fn number(key: &[u8], number: Option<u64>, out: &mut Vec<u8>) {
    if let Some(number) = number {
        put_fixed(key, out);
        put_number(number, out);
    }
}

fn list(key: &[u8], read: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let Some((kept, left_out)) = read.list()? else { return Some(()) };
    put_fixed(key, out);
    put_fixed(b"[", out);
    for index in 0..kept {
        if index > 0 {
            put_fixed(b",", out);
        }
        put_string(read.bytes()??, out)?;
    }
    if left_out > 0 {
        put_fixed(if kept > 0 { b",\"\xe2\x80\xa6 " } else { b"\"\xe2\x80\xa6 " }, out);
        put_number(u64::from(left_out), out);
        put_fixed(b" more\"", out);
    }
    put_fixed(b"]", out);
    Some(())
}

fn tally(tally: Option<Tally>, out: &mut Vec<u8>) {
    let Some(Tally { upstream, shown, empty }) = tally else { return };
    put_fixed(b",\"list\":{\"upstream\":", out);
    put_number(u64::from(upstream), out);
    number(b",\"shown\":", Some(u64::from(shown)), out);
    if let Some(empty) = empty {
        put_fixed(b",\"empty\":\"", out);
        put_fixed(empty.word().as_bytes(), out);
        put_fixed(b"\"", out);
    }
    put_fixed(b"}", out);
}

fn legs(legs: Option<Legs>, out: &mut Vec<u8>) {
    let Some(Legs { asked, answered }) = legs else { return };
    put_fixed(b",\"legs\":{\"asked\":", out);
    put_number(u64::from(asked), out);
    number(b",\"answered\":", Some(u64::from(answered)), out);
    put_fixed(b"}", out);
}

fn credential(read: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let (provider, kind) = (read.bytes()?, read.bytes()?);
    let cache = read.cache()?;
    if let Some((provider, kind)) = provider.zip(kind) {
        put_fixed(b",\"credential\":{\"provider\":", out);
        put_string(provider, out)?;
        put_fixed(b",\"kind\":", out);
        put_string(kind, out)?;
        put_fixed(b",\"cache\":\"", out);
        put_fixed(cache.as_bytes(), out);
        put_fixed(b"\"}", out);
    }
    Some(())
}

fn address(ip: IpAddr, out: &mut Vec<u8>) -> Option<()> {
    match ip {
        IpAddr::V4(ip) => {
            ipv4(ip, out);
            Some(())
        }
        IpAddr::V6(ip) => write!(out, "{ip}").ok(),
    }
}

fn ipv4(ip: Ipv4Addr, out: &mut Vec<u8>) {
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            put_fixed(b".", out);
        }
        put_number(u64::from(octet), out);
    }
}

const OPENED: &str = "opened";

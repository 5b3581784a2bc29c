//! The key of a cached decision: everything that the decision depends on, and nothing else.

use std::net::IpAddr;

use super::decide::clock_face;
use super::mentions::Mentions;
use super::schema::kind;
use super::{Mode, PolicySet, Question, Slice};
use crate::address::Country;
use crate::limits::DECISION_KEY_BYTES_MAX;
use crate::mcp::Arguments;

impl PolicySet {
    /// Writes the key of `question` into `out`, which is emptied first. Equal keys of one set mean
    /// equal decisions: identity, action, resource, and each context value that the slice mentions,
    /// where an absent value differs from every present one. False: too long to be kept.
    #[must_use]
    pub fn key(&self, slice: &Slice<'_>, question: &Question<'_>, out: &mut Vec<u8>) -> bool {
        let Question { subject, context, .. } = *question;
        out.clear();
        out.extend_from_slice(subject.digest);
        out.extend_from_slice(&slice.action.to_le_bytes());
        out.push(slice.kind | (MODE_BITS * mode_number(question.mode)));
        out.extend_from_slice(&slice.server.unwrap_or(u16::MAX).to_le_bytes());
        // A list may be long, and in most servers its items stand in one slice. A call is always
        // kept by its name, under which it is given arguments.
        let named = question.mode == Mode::Call || slice.tells_names_apart();
        optional(question.target.name().filter(|_| named), out);
        // What only a call can tell is not looked at for a list, nor are shadows.
        let read = match question.mode {
            Mode::Call => slice.mentions.and(slice.to_shadows),
            Mode::List | Mode::Template => slice.mentions.without(Mentions::CALL_TIME),
        };
        // Most slices look at nothing besides.
        if read == Mentions::NONE {
            return out.len() <= DECISION_KEY_BYTES_MAX;
        }
        if read.has(Mentions::AGENT) {
            string(subject.agent, out);
        }
        if read.has(Mentions::SCOPES) {
            number(subject.scopes.len() as u64, out);
            for scope in subject.scopes {
                string(scope, out);
                if out.len() > DECISION_KEY_BYTES_MAX {
                    return false;
                }
            }
        }
        if read.has(Mentions::ACR) {
            optional(subject.acr, out);
        }
        if read.has(Mentions::AUTH_TIME) {
            out.push(u8::from(subject.auth_time.is_some()));
            number(subject.auth_time.unwrap_or_default(), out);
        }
        if read.has(Mentions::SOURCE) {
            match context.client_ip() {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
        if read.has(Mentions::COUNTRY) {
            optional(context.country.as_ref().map(Country::as_str), out);
        }
        if read.has(Mentions::ARGUMENTS) {
            given(context.arguments, out);
        }
        if read.has(Mentions::NOW) {
            number(context.now.0, out);
        }
        if read.has(Mentions::LOCAL) {
            let Some(local) = self.local(context.now) else { return false };
            let (weekday, minute) = clock_face(local);
            if read.has(Mentions::WEEKDAY) {
                out.extend_from_slice(&weekday.to_le_bytes());
            }
            if read.has(Mentions::MINUTE) {
                out.extend_from_slice(&minute.to_le_bytes());
            }
        }
        if read.has(Mentions::REVISION) {
            optional(context.revision, out);
        }
        out.len() <= DECISION_KEY_BYTES_MAX
    }
}

const fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Call => 0,
        Mode::List => 1,
        Mode::Template => 2,
    }
}

fn given(arguments: Arguments<'_>, out: &mut Vec<u8>) {
    let planned = arguments.planned();
    let unrepresentable = arguments.unrepresentable();
    let to_shadows = arguments.unrepresentable_to_shadows();
    out.extend([planned, unrepresentable, to_shadows].map(u8::from));
    let bytes = arguments.bytes();
    number(bytes.len() as u64, out);
    out.extend_from_slice(bytes.get(..DECISION_KEY_BYTES_MAX + 1).unwrap_or(bytes));
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Length first, so that two neighbours never read as one.
fn string(value: &str, out: &mut Vec<u8>) {
    number(value.len() as u64, out);
    // A longer key is refused at the end; no need to copy all of it.
    let bytes = value.as_bytes();
    out.extend_from_slice(bytes.get(..DECISION_KEY_BYTES_MAX + 1).unwrap_or(bytes));
}

fn optional(value: Option<&str>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    string(value.unwrap_or_default(), out);
}

/// The first bit above those of a kind.
const MODE_BITS: u8 = 32;

const _: () = assert!(kind::ALL < MODE_BITS);

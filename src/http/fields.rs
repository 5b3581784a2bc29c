//! The field section of a head: what requests and responses share.
//!
//! Faults are named in the vocabulary of requests; a response turns any of them into its one fault.

use super::body::Framing;
use super::bytes::{decimal, list, trim};
use super::{Field, Span};
use crate::limits;
use crate::reject::Reject;

/// The field lines of one head. Keeps its memory over [`Fields::reset`].
#[derive(Debug)]
pub(super) struct Fields {
    lines: Vec<Line>,
    /// Per known field: the first line that holds it.
    first: [Option<u8>; Field::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    field: Option<Field>,
    /// Of the lower-case name, for `mcp-` names; compares cheaply, decides nothing alone.
    digest: u32,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { lines: Vec::with_capacity(limits::HEAD_FIELDS_MAX), first: [None; Field::ALL.len()] }
    }

    pub(super) fn reset(&mut self) {
        self.lines.clear();
        self.first = [None; Field::ALL.len()];
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Adds a line of `buf`; refuses the second one of a field that must be single.
    pub(super) fn push(&mut self, buf: &[u8], name: &[u8], value: &[u8]) -> Result<(), Reject> {
        let field = Field::from_name(name);
        let place = u8::try_from(self.lines.len()).map_err(|_| Reject::RequestHeadTooLarge)?;
        let is_mcp = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"mcp-"));
        let digest = if is_mcp { fnv1a_lower(name) } else { 0 };
        if let Some(field) = field {
            let first = self.first.get_mut(field as usize).ok_or(Reject::GatewayFault)?;
            match first {
                None => *first = Some(place),
                Some(_) if field.is_single() => return Err(repeated(field)),
                Some(_) => {}
            }
        } else if is_mcp && self.holds(buf, name, digest) {
            // MCP streamable HTTP: a mirrored parameter (`Mcp-Param-*`) has one value.
            return Err(Reject::RequestMalformed);
        }
        let line = Line {
            name: Span::within(buf, name),
            value: Span::within(buf, trim(value)),
            field,
            digest,
        };
        self.lines.push(line);
        Ok(())
    }

    fn holds(&self, buf: &[u8], name: &[u8], digest: u32) -> bool {
        self.lines
            .iter()
            .any(|line| line.digest == digest && line.name.of(buf).eq_ignore_ascii_case(name))
    }

    /// The value of the first line with this name.
    pub(super) fn get<'b>(&self, buf: &'b [u8], field: Field) -> Option<&'b [u8]> {
        let place = self.first.get(field as usize).copied().flatten()?;
        self.lines.get(usize::from(place)).map(|line| line.value.of(buf))
    }

    /// The values of all lines with this name.
    pub(super) fn values<'a>(
        &'a self,
        buf: &'a [u8],
        field: Field,
    ) -> impl Iterator<Item = &'a [u8]> {
        let from = self.first.get(field as usize).copied().flatten();
        let lines = from.and_then(|place| self.lines.get(usize::from(place)..)).unwrap_or_default();
        lines.iter().filter(move |line| line.field == Some(field)).map(|line| line.value.of(buf))
    }

    /// All lines.
    pub(super) fn iter<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.iter().map(|line| (line.name.of(buf), line.value.of(buf)))
    }

    /// True when `Connection` lists `option` (RFC 9110 §7.6.1).
    pub(super) fn connection_lists(&self, buf: &[u8], option: &[u8]) -> bool {
        self.values(buf, Field::Connection).flat_map(list).any(|it| it.eq_ignore_ascii_case(option))
    }

    /// The length that the fields declare; `None` when they declare none.
    pub(super) fn framing(&self, buf: &[u8], is_1_0: bool) -> Result<Option<Framing>, Reject> {
        let length = self.get(buf, Field::ContentLength);
        let Some(coding) = self.get(buf, Field::TransferEncoding) else {
            // RFC 9110 §8.6. A list of equal lengths may be accepted there; here it is not.
            return length
                .map(|value| decimal(value).map(Framing::Length).ok_or(Reject::RequestFraming))
                .transpose();
        };
        // RFC 9112 §6.1: both at once is how requests are smuggled; the server may refuse it.
        if length.is_some() {
            return Err(Reject::RequestClTe);
        }
        // RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so a hop before us may have read on.
        if is_1_0 {
            return Err(Reject::RequestFraming);
        }
        transfer_coding(coding).map(Some)
    }
}

/// RFC 9112 §6.3: `chunked` is last and applied once. Other codings are not implemented (§6.1:
/// 501).
fn transfer_coding(value: &[u8]) -> Result<Framing, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last_is_chunked = list(value).last().is_some_and(is_chunked);
    let chunked = list(value).filter(|coding| is_chunked(coding)).count();
    let has_empty = list(value).any(<[u8]>::is_empty);
    if has_empty || chunked > 1 || (chunked == 1 && !last_is_chunked) {
        return Err(Reject::RequestFraming);
    }
    Err(Reject::RequestTransferCoding)
}

/// RFC 9110 §5.3: only list fields may be repeated.
fn repeated(field: Field) -> Reject {
    if field == Field::Host {
        return Reject::RequestHost; // RFC 9112 §3.2
    }
    if field == Field::ContentLength || field == Field::TransferEncoding {
        return Reject::RequestFraming; // RFC 9112 §6.3
    }
    Reject::RequestMalformed
}

/// FNV-1a over lower case. An attacker can make collisions; they only cost a comparison.
fn fnv1a_lower(name: &[u8]) -> u32 {
    name.iter().fold(FNV_OFFSET, |digest, byte| {
        (digest ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(FNV_PRIME)
    })
}

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

const _: () = assert!(limits::HEAD_FIELDS_MAX <= u8::MAX as usize, "a place fits into a byte");

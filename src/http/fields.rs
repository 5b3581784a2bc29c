//! The field section of a head: what requests and responses share.
//!
//! Faults are named in the vocabulary of requests; a response turns any of them into its one fault.

use super::body::Framing;
use super::bytes::{decimal, list};
use super::write::CRLF;
use super::{Field, Span, headers};
use crate::limits;
use crate::reject::Reject;

/// The field lines of one head. Keeps its memory over [`Fields::reset`].
#[derive(Debug)]
pub(super) struct Fields {
    lines: Vec<Line>,
    /// Per known field: the first line that holds it.
    first: [Option<u8>; Field::ALL.len()],
    /// What is wrong with the first line that is wrong; nothing is added behind it.
    fault: Option<Reject>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    class: Class,
    /// Written as `name: value` without further white space: as we would write it.
    is_plain: bool,
}

/// What a name says about its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Known(Field),
    /// `mcp-` and something that we do not know. The digest of the lower-case name compares
    /// cheaply and decides nothing alone.
    Mcp(u32),
    Other,
}

impl Class {
    const fn field(self) -> Option<Field> {
        match self {
            Self::Known(field) => Some(field),
            Self::Mcp(_) | Self::Other => None,
        }
    }

    const fn goes_upstream(self) -> bool {
        match self {
            Self::Known(field) => headers::field_goes_upstream(field),
            Self::Mcp(_) => true,
            Self::Other => false,
        }
    }

    const fn goes_downstream(self) -> bool {
        match self {
            Self::Known(field) => headers::field_goes_downstream(field),
            Self::Mcp(_) => true,
            Self::Other => false,
        }
    }
}

impl Fields {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new(), first: [None; Field::ALL.len()], fault: None }
    }

    /// Gives its memory back; the next line takes it anew.
    pub(super) fn release(&mut self) {
        self.reset();
        self.lines = Vec::new();
    }

    pub(super) fn reset(&mut self) {
        self.lines.clear();
        self.first = [None; Field::ALL.len()];
        self.fault = None;
    }

    /// Adds the line of `buf` whose name is `start..colon` and whose value, with the white space
    /// around it, ends at `end`; `field` is what the name stands for. The second line of a field
    /// that must be single is a fault.
    pub(super) fn push(
        &mut self,
        buf: &[u8],
        (start, colon, end): (usize, usize, usize),
        field: Option<Field>,
    ) {
        if self.fault.is_none()
            && let Err(fault) = self.add(buf, (start, colon, end), field)
        {
            self.fault = Some(fault);
        }
    }

    /// What is wrong with the lines, if anything is.
    pub(super) const fn fault(&self) -> Result<(), Reject> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        buf: &[u8],
        (start, colon, end): (usize, usize, usize),
        field: Option<Field>,
    ) -> Result<(), Reject> {
        let name = buf.get(start..colon).ok_or(Reject::GatewayFault)?;
        let class = match field {
            Some(field) => {
                self.note_first(field)?;
                Class::Known(field)
            }
            None if headers::is_mcp(name) => {
                let class = Class::Mcp(fnv1a_lower(name));
                // MCP streamable HTTP: a mirrored parameter (`Mcp-Param-*`) has one value.
                if self.holds(buf, name, class) {
                    return Err(Reject::RequestMalformed);
                }
                class
            }
            None => Class::Other,
        };
        let raw = buf.get(colon + 1..end).ok_or(Reject::GatewayFault)?;
        let (before, length) = trimmed(raw);
        let value = Span::new(colon + 1 + before, colon + 1 + before + length);
        let is_plain = before == 1 && before + length == raw.len() && raw.first() == Some(&b' ');
        if self.lines.capacity() == 0 {
            self.lines.reserve_exact(limits::HEAD_FIELDS_MAX);
        }
        self.lines.push(Line { name: Span::new(start, colon), value, class, is_plain });
        Ok(())
    }

    fn note_first(&mut self, field: Field) -> Result<(), Reject> {
        let place = u8::try_from(self.lines.len()).map_err(|_| Reject::RequestHeadTooLarge)?;
        let first = self.first.get_mut(field as usize).ok_or(Reject::GatewayFault)?;
        match first {
            None => *first = Some(place),
            Some(_) if field.is_single() => return Err(repeated(field)),
            Some(_) => {}
        }
        Ok(())
    }

    fn holds(&self, buf: &[u8], name: &[u8], class: Class) -> bool {
        self.lines
            .iter()
            .any(|line| line.class == class && line.name.of(buf).eq_ignore_ascii_case(name))
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
        lines
            .iter()
            .filter(move |line| line.class.field() == Some(field))
            .map(|line| line.value.of(buf))
    }

    /// All lines.
    pub(super) fn iter<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.iter().map(|line| (line.name.of(buf), line.value.of(buf)))
    }

    /// The lines that an upstream may see: those of the allow-list, without what `Connection` takes
    /// out.
    fn upstream<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = &'a Line> {
        // What every client says names no field; only more than that is looked through per line.
        let removes = self
            .values(buf, Field::Connection)
            .any(|value| !value.eq_ignore_ascii_case(b"keep-alive"));
        self.lines.iter().filter(move |line| {
            let is_removed = removes
                && line.class.field().is_some_and(headers::connection_may_remove_field)
                && self.connection_lists(buf, line.name.of(buf));
            line.class.goes_upstream() && !is_removed
        })
    }

    /// See [`super::RequestHead::upstream_fields`].
    pub(super) fn upstream_fields<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.upstream(buf).map(|line| (line.name.of(buf), line.value.of(buf)))
    }

    /// See [`super::RequestHead::write_upstream_fields`].
    pub(super) fn write_upstream(
        &self,
        buf: &[u8],
        withheld: impl Fn(Option<Field>, &[u8]) -> bool,
        out: &mut Vec<u8>,
    ) {
        // Plain lines that stand one behind the other are copied as one.
        let mut run = 0..0;
        for line in self.upstream(buf) {
            let name = line.name.of(buf);
            if withheld(line.class.field(), name) {
                continue;
            }
            let (start, end) = (line.name.start as usize, line.value.end as usize + CRLF.len());
            if line.is_plain && run.end == start {
                run.end = end;
                continue;
            }
            out.extend_from_slice(buf.get(run).unwrap_or_default());
            run = start..end;
            if !line.is_plain {
                run = end..end;
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(line.value.of(buf));
                out.extend_from_slice(CRLF);
            }
        }
        out.extend_from_slice(buf.get(run).unwrap_or_default());
    }

    /// See [`super::ResponseHead::downstream_fields`].
    pub(super) fn downstream_fields<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let lines = self.lines.iter().filter(|line| line.class.goes_downstream());
        lines.map(|line| (line.name.of(buf), line.value.of(buf)))
    }

    /// True when `Connection` lists `option` (RFC 9110 §7.6.1).
    pub(super) fn connection_lists(&self, buf: &[u8], option: &[u8]) -> bool {
        self.values(buf, Field::Connection).any(|value| {
            if value.contains(&b',') {
                list(value).any(|it| it.eq_ignore_ascii_case(option))
            } else {
                value.eq_ignore_ascii_case(option)
            }
        })
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

/// How many bytes of white space `raw` begins with, and how many bytes lie between that and the
/// white space at its end (RFC 9110 §5.6.3: space and tab only).
fn trimmed(raw: &[u8]) -> (usize, usize) {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // As nearly everybody writes it.
    if let [b' ', inside @ ..] = raw
        && !is_space(inside.first())
        && !is_space(inside.last())
    {
        return (1, inside.len());
    }
    let before = raw.iter().take_while(|byte| is_space(Some(byte))).count();
    let inside = raw.get(before..).unwrap_or_default();
    let behind = inside.iter().rev().take_while(|byte| is_space(Some(byte))).count();
    (before, inside.len() - behind)
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

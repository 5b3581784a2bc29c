//! The two eras of MCP, and the rule that header and body say the same.
//!
//! Legacy revisions begin with `initialize`; the modern one makes every POST self-contained and
//! mirrors parts of the body in headers. Whoever reads the body must compare the two and refuse a
//! difference (2026-07-28 streamable HTTP "Server Validation"), or a peer that routes on the header
//! does something else than what we judged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::envelope::Kind;
use crate::reject::Reject;

/// Which of the two protocols a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: handshake, sessions, requests of the server.
    Legacy,
    /// 2026-07-28: every POST stands alone.
    Modern,
}

/// The revisions that we speak, oldest first.
pub const REVISIONS: [&str; 5] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// What `data.supported` of a refused revision lists. Servers of both eras list the modern ones
/// only, and a client checks the list against `server/discover`.
pub const MODERN_REVISIONS: [&str; 1] = ["2026-07-28"];

/// What a request without the header speaks (2025-11-25 transports "Protocol Version Header").
pub const ASSUMED_REVISION: &str = "2025-03-26";

/// The headers that mirror the body, as received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirrored<'a> {
    /// `MCP-Protocol-Version`
    pub protocol_version: Option<&'a [u8]>,
    /// `Mcp-Method`
    pub method: Option<&'a [u8]>,
    /// `Mcp-Name`
    pub name: Option<&'a [u8]>,
}

/// The era, and the revision that header and `_meta` agree on. `meta` is
/// `params._meta["io.modelcontextprotocol/protocolVersion"]`.
///
/// # Errors
///
/// `RpcHeaderMismatch` when they differ or only the body has one, `RpcVersion` for a revision that
/// we do not speak, `RpcInvalid` for a response of a modern client.
pub(super) fn revision(
    header: Option<&[u8]>,
    meta: Option<&str>,
    kind: Kind,
) -> Result<(Era, &'static str), Reject> {
    let Some(header) = header.map(<[u8]>::trim_ascii) else {
        return match meta {
            // A body in the modern form without the header is legacy to a peer that looks at
            // headers only. Notifications are no exception: 2026-07-28 asks for the header on every
            // POST.
            Some(_) => Err(Reject::RpcHeaderMismatch),
            None => Ok((Era::Legacy, ASSUMED_REVISION)),
        };
    };
    if meta.is_some_and(|meta| meta.as_bytes() != header) {
        return Err(Reject::RpcHeaderMismatch);
    }
    let known = REVISIONS.iter().find(|revision| revision.as_bytes() == header);
    let revision = *known.ok_or(Reject::RpcVersion)?;
    if !MODERN_REVISIONS.contains(&revision) {
        return Ok((Era::Legacy, revision));
    }
    match kind {
        // 2026-07-28 streamable HTTP "Sending Messages": servers ask nothing, so nothing is
        // answered.
        Kind::Response => Err(Reject::RpcInvalid),
        Kind::Request | Kind::Notification => Ok((Era::Modern, revision)),
    }
}

/// The same for GET and DELETE, where the header stands alone.
///
/// # Errors
///
/// `RpcVersion` for a revision that we do not speak.
pub fn bodyless_revision(header: Option<&[u8]>) -> Result<(Era, &'static str), Reject> {
    revision(header, None, Kind::Notification)
}

/// Compares a mirrored header with the body's value. `required` says whether it may be left out.
///
/// # Errors
///
/// `RpcHeaderMismatch`; a header without a counterpart in the body is a mismatch too, because a
/// peer may act on it.
pub(super) fn mirror(
    header: Option<&[u8]>,
    body: Option<&str>,
    required: bool,
    decode: Option<&mut Vec<u8>>,
) -> Result<(), Reject> {
    let (header, body) = match (header, body) {
        (None, Some(_)) if required => return Err(Reject::RpcHeaderMismatch),
        (None, _) => return Ok(()),
        (Some(_), None) => return Err(Reject::RpcHeaderMismatch),
        // RFC 9110 §5.5: white space around a field value is not part of it.
        (Some(header), Some(body)) => (header.trim_ascii(), body.as_bytes()),
    };
    let equal = match (decode, encoded(header)) {
        (Some(buffer), Some(encoded)) => {
            buffer.clear();
            STANDARD.decode_vec(encoded, buffer).is_ok() && buffer == body
        }
        _ => header == body,
    };
    if equal { Ok(()) } else { Err(Reject::RpcHeaderMismatch) }
}

/// Appends `value` as a mirrored field carries it (2026-07-28 streamable HTTP "Value Encoding"): as
/// it is when it is plain, else in base64 between markers.
pub fn field_value(value: &str, out: &mut Vec<u8>) {
    let bytes = value.as_bytes();
    let edged = |edge: Option<&u8>| edge.is_none_or(|edge| matches!(edge, b' ' | b'\t'));
    let printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    // What looks like an encoded value, and is none, would be decoded.
    let plain = printable && !edged(bytes.first()) && !edged(bytes.last());
    if plain && !bytes.starts_with(PREFIX) {
        return out.extend_from_slice(bytes);
    }
    out.extend_from_slice(PREFIX);
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    let space = out.get_mut(start..).unwrap_or_default();
    let _ = STANDARD.encode_slice(bytes, space);
    out.extend_from_slice(SUFFIX);
}

/// The base64 text between the markers (2026-07-28 streamable HTTP "Value Encoding"). The markers
/// are case-sensitive; a value that lacks one of them is meant literally.
fn encoded(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)
}

const PREFIX: &[u8] = b"=?base64?";
const SUFFIX: &[u8] = b"?=";

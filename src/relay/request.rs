//! The head that goes upstream: built from the judged request, never copied from it as a whole.

use super::talk::Asked;
use super::{Leg, To};
use crate::credential::UpstreamCredential;
use crate::http::{Field, Method, write};
use crate::listener::Downstream;
use crate::mcp::field_value;
use crate::reject::Reject;

/// Appends the request head to `out`, credential included.
///
/// # Errors
/// `CredentialUnavailable` when the credential may not go to this server.
pub(super) fn write_head(
    leg: &Leg<'_>,
    downstream: &Downstream,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let (head, bytes) = downstream.head();
    let credential = leg.to.credential.map_or(0, UpstreamCredential::written_bytes_max);
    // Room for all of it at once: a vector that grows leaves an unwiped copy of the credential
    // behind.
    out.reserve(bytes.len() + leg.to.server.url.target.len() + credential + FIXED_BYTES);
    begin(leg.method, &leg.to, out)?;
    let occupied = leg.to.credential.and_then(UpstreamCredential::header_name);
    // The session id is ours; the upstream gets its own below. An event id belongs to a session
    // (case M16): without an opened one it could be anybody's. Without a body there is nothing to
    // mirror. And no client field may stand in for the credential.
    let resumes = leg.method == Method::Get && leg.session.is_some();
    let mirrors = leg.method == Method::Post;
    let withheld = |field: Option<Field>, name: &[u8]| {
        matches!(field, Some(Field::McpSessionId | Field::ContentType))
            || (!resumes && field == Some(Field::LastEventId))
            || (!mirrors && matches!(field, Some(Field::McpMethod | Field::McpName)))
            || occupied.is_some_and(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    };
    head.write_upstream_fields(bytes, withheld, out);
    if let Some(session) = leg.session {
        write::header(b"mcp-session-id", session, out)?;
    }
    if let Some(credential) = leg.to.credential {
        credential.write_header(leg.to.server_index, out)?;
    }
    if leg.method == Method::Post {
        // Never the client's: what was judged as UTF-8 must not be read as anything else.
        out.extend_from_slice(b"content-type: application/json\r\n");
        write::content_length(leg.body.len() as u64, out);
    }
    out.extend_from_slice(write::CRLF);
    Ok(())
}

/// Appends the head of a request of the gateway's own.
///
/// # Errors
/// As [`write_head`]; `GatewayFault` for a value that would break a line.
pub(super) fn write_own(asked: &Asked<'_>, out: &mut Vec<u8>) -> Result<(), Reject> {
    let (to, head) = (&asked.to, &asked.head);
    let credential = to.credential.map_or(0, UpstreamCredential::written_bytes_max);
    let optional = [
        ("mcp-protocol-version", head.protocol_version.map(str::as_bytes)),
        ("mcp-session-id", head.session),
        ("mcp-method", head.mcp_method.map(str::as_bytes)),
        ("traceparent", head.traceparent),
        ("tracestate", head.tracestate),
        ("baggage", head.baggage),
        ("last-event-id", head.last_event_id),
    ];
    let params = || head.params.iter().copied();
    let size = |(name, value): (&str, &[u8])| name.len() + value.len() + SEPARATOR_BYTES;
    let written = optional.iter().filter_map(|(name, value)| Some(size((name, (*value)?))));
    let room = written.sum::<usize>() + params().map(size).sum::<usize>();
    let name_room = head.mcp_name.map_or(0, |name| 2 * name.len());
    out.reserve(room + name_room + to.server.url.target.len() + credential + FIXED_BYTES);
    begin(asked.method, to, out)?;
    let streams_only = asked.method == Method::Get;
    let json = if streams_only { &b""[..] } else { b"application/json, " };
    out.extend_from_slice(b"accept: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"text/event-stream\r\n");
    write::header(b"user-agent", b"portcullis", out)?;
    // No field may stand in for the credential.
    let occupied = to.credential.and_then(UpstreamCredential::header_name).unwrap_or_default();
    let free = |name: &str| !name.eq_ignore_ascii_case(occupied);
    for (name, value) in optional {
        if let Some(value) = value.filter(|_| free(name)) {
            write::header(name.as_bytes(), value, out)?;
        }
    }
    for (name, value) in params().filter(|(name, _)| free(name)) {
        write::header(name.as_bytes(), value, out)?;
    }
    if let Some(name) = head.mcp_name.filter(|_| free("mcp-name")) {
        out.extend_from_slice(b"mcp-name: ");
        field_value(name, out);
        out.extend_from_slice(write::CRLF);
    }
    if let Some(credential) = to.credential {
        credential.write_header(to.server_index, out)?;
    }
    if asked.method == Method::Post {
        out.extend_from_slice(b"content-type: application/json\r\n");
        write::content_length(asked.body.len() as u64, out);
    }
    out.extend_from_slice(write::CRLF);
    Ok(())
}

/// The request line and `Host`.
#[inline]
fn begin(method: Method, to: &To<'_>, out: &mut Vec<u8>) -> Result<(), Reject> {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    let target_start = out.len();
    out.extend_from_slice(to.server.url.target.as_bytes());
    if let Some(credential) = to.credential {
        credential.write_query(to.server_index, target_start, out)?;
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write::header(b"host", to.server.url.authority.as_bytes(), out)
}

/// `": "` and CRLF.
const SEPARATOR_BYTES: usize = 4;
/// More than the fixed parts of a head need: names, separators, `Content-Length`, session id.
const FIXED_BYTES: usize = 2048;

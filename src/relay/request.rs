//! The head that goes upstream: built from the judged request, never copied from it as a whole.

use super::Leg;
use crate::credential::UpstreamCredential;
use crate::http::{Field, Method, write};
use crate::listener::Downstream;
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
    let credential = leg.credential.map_or(0, UpstreamCredential::written_bytes_max);
    // Room for all of it at once: a vector that grows leaves an unwiped copy of the credential
    // behind.
    out.reserve(bytes.len() + leg.server.url.target.len() + credential + FIXED_BYTES);
    out.extend_from_slice(leg.method.as_str().as_bytes());
    out.push(b' ');
    let target_start = out.len();
    out.extend_from_slice(leg.server.url.target.as_bytes());
    if let Some(credential) = leg.credential {
        credential.write_query(leg.server_index, target_start, out)?;
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write::header(b"host", leg.server.url.authority.as_bytes(), out)?;
    let occupied = leg.credential.and_then(UpstreamCredential::header_name);
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
    if let Some(credential) = leg.credential {
        credential.write_header(leg.server_index, out)?;
    }
    if leg.method == Method::Post {
        // Never the client's: what was judged as UTF-8 must not be read as anything else.
        out.extend_from_slice(b"content-type: application/json\r\n");
        write::content_length(leg.body.len() as u64, out);
    }
    out.extend_from_slice(write::CRLF);
    Ok(())
}

/// More than the fixed parts of a head need: names, separators, `Content-Length`, session id.
const FIXED_BYTES: usize = 2048;

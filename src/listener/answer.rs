//! Answers that the gateway itself gives: refusals and the few documents it serves.

use crate::http::write;
use crate::reject::Reject;

/// One refusal, ready to be written.
pub struct Refusal<'a> {
    /// Why.
    pub reject: Reject,
    /// The exact bytes of the request's JSON-RPC id, when one was read.
    pub id: Option<&'a [u8]>,
    /// A finished `WWW-Authenticate` value; empty for none.
    pub challenge: &'a [u8],
    /// `error.data` besides the kind, as finished JSON members starting with a comma; empty for
    /// none.
    pub data: &'a [u8],
    /// Seconds until a rate limit would let it pass.
    pub retry_after: Option<u64>,
    /// The allowed foreign origin to which the answer may be shown (CORS); empty for none.
    pub origin: &'a [u8],
    /// The connection ends after this answer.
    pub close: bool,
    /// The answer to HEAD: a head that speaks of a body, and no body (RFC 9110 §9.3.2).
    pub no_content: bool,
    /// For 405: the methods that are served there.
    pub allow: &'static str,
}

impl Refusal<'_> {
    /// Appends the whole response to `out`. Answers its status.
    pub fn write(&self, out: &mut Vec<u8>) -> u16 {
        let mut body = Vec::with_capacity(256);
        match self.id {
            Some(id) => self.rpc_body(id, &mut body),
            None => {
                body.extend_from_slice(b"{\"error\":\"");
                body.extend_from_slice(self.reject.audit_code().as_bytes());
                body.extend_from_slice(b"\"}");
            }
        }
        let status = self.status();
        write::status_line(status, out);
        if !self.challenge.is_empty() {
            field(b"www-authenticate", self.challenge, out);
        }
        if self.reject == Reject::RequestMethod {
            field(b"allow", self.allow.as_bytes(), out);
        }
        // RFC 9110 §10.2.3, RFC 6585 §4; short, because most of these pass within seconds.
        let usual = (status == 503).then_some(RETRY_SECONDS);
        if let Some(seconds) = self.retry_after.or(usual) {
            field(b"retry-after", seconds.to_string().as_bytes(), out);
        }
        common_fields(b"application/json", body.len(), self.origin, self.close, out);
        if !self.no_content {
            out.extend_from_slice(&body);
        }
        status
    }

    /// A JSON-RPC error in a 200 answer needs an id to echo; without one the refusal is a plain
    /// 403.
    fn status(&self) -> u16 {
        let status = self.reject.status();
        if status == 200 && self.id.is_none() { 403 } else { status }
    }

    fn rpc_body(&self, id: &[u8], body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        body.extend_from_slice(id);
        body.extend_from_slice(b",\"error\":{\"code\":");
        body.extend_from_slice(self.reject.json_rpc_code().to_string().as_bytes());
        body.extend_from_slice(b",\"message\":\"");
        body.extend_from_slice(message(self.reject).as_bytes());
        body.extend_from_slice(b"\",\"data\":{\"kind\":\"");
        body.extend_from_slice(self.reject.audit_code().as_bytes());
        body.push(b'"');
        body.extend_from_slice(self.data);
        body.extend_from_slice(b"}}}");
    }
}

/// Appends a response with a document of ours.
pub fn document(status: u16, kind: &[u8], cache: &[u8], body: &[u8], out: &mut Vec<u8>) {
    write::status_line(status, out);
    field(b"cache-control", cache, out);
    common_fields(kind, body.len(), b"", false, out);
    out.extend_from_slice(body);
}

/// Appends an answer of ours in JSON-RPC. Nobody may store it: it is for who asked.
pub fn rpc(session: Option<&[u8]>, origin: &[u8], body: &[u8], out: &mut Vec<u8>) {
    write::status_line(200, out);
    field(b"cache-control", b"no-store", out);
    if let Some(session) = session {
        field(b"mcp-session-id", session, out);
    }
    common_fields(b"application/json", body.len(), origin, false, out);
    out.extend_from_slice(body);
}

/// Appends an answer that says all with its status: 202 to a notification that was taken
/// (2025-11-25, 2026-07-28, transports, "Sending Messages"), 204 to the end of a session.
pub fn empty(status: u16, origin: &[u8], out: &mut Vec<u8>) {
    write::status_line(status, out);
    cors(origin, out);
    // RFC 9110 §8.6: not with a 204.
    if status != 204 {
        write::content_length(0, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a public document: pages of any origin may read it. For metadata only (RFC 9728 §3.1
/// asks for no protection).
pub fn public_document(body: &[u8], out: &mut Vec<u8>) {
    write::status_line(200, out);
    field(b"cache-control", b"max-age=300", out);
    field(b"access-control-allow-origin", b"*", out);
    common_fields(b"application/json", body.len(), b"", false, out);
    out.extend_from_slice(body);
}

/// Appends the answer to a CORS preflight from an allowed origin (Fetch standard,
/// "CORS-preflight").
pub fn preflight(origin: &[u8], out: &mut Vec<u8>) {
    write::status_line(204, out);
    field(b"access-control-allow-origin", origin, out);
    field(b"access-control-allow-methods", b"POST, GET, DELETE", out);
    field(b"access-control-allow-headers", ALLOWED_HEADERS, out);
    field(b"access-control-max-age", b"600", out);
    field(b"vary", b"origin", out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the CORS fields of an answer to an allowed foreign origin.
pub fn cors(origin: &[u8], out: &mut Vec<u8>) {
    if !origin.is_empty() {
        field(b"access-control-allow-origin", origin, out);
        field(b"access-control-expose-headers", EXPOSED_HEADERS, out);
        field(b"vary", b"origin", out);
    }
}

/// Our own fields are sound; an origin was compared with a list. One that could break the line is
/// left out rather than written.
fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let _ = write::header(name, value, out);
}

fn common_fields(kind: &[u8], length: usize, origin: &[u8], close: bool, out: &mut Vec<u8>) {
    field(b"content-type", kind, out);
    field(b"x-content-type-options", b"nosniff", out);
    cors(origin, out);
    write::content_length(length as u64, out);
    if close {
        field(b"connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
}

/// For people; constant per reason, so that nothing of the request or the policy can be in it.
const fn message(reject: Reject) -> &'static str {
    match reject.status() {
        200 if reject.json_rpc_code() == 1403 => "Access denied by policy",
        200 if reject.json_rpc_code() == 1409 => "More than one server has this name",
        200 if reject.json_rpc_code() == -32602 => "Invalid params",
        200 | 404 => "Method not found",
        400 => match reject.json_rpc_code() {
            -32700 => "Parse error",
            -32020 => "Header mismatch: a mirrored header is missing or differs from the body",
            -32022 => "Unsupported protocol version",
            -32602 => "Invalid params",
            _ => "Invalid request",
        },
        401 => "Authentication required",
        403 => "Access denied",
        429 => "Too many requests, try again later",
        502 => "The MCP server could not be used",
        503 => "Temporarily unavailable, try again",
        504 => "The MCP server did not answer in time",
        _ => "Request refused",
    }
}

/// When to come back where nothing else is known.
const RETRY_SECONDS: u64 = 2;
const ALLOWED_HEADERS: &[u8] = b"authorization, content-type, accept, last-event-id, \
mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, traceparent, tracestate";
const EXPOSED_HEADERS: &[u8] = b"mcp-session-id, www-authenticate, retry-after";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(refusal: &Refusal<'_>) -> String {
        let mut out = Vec::new();
        refusal.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn refusal(reject: Reject) -> Refusal<'static> {
        let (challenge, data, origin, close) = (&b""[..], &b""[..], &b""[..], false);
        let (no_content, allow) = (false, "POST");
        let retry_after = None;
        Refusal { reject, id: None, challenge, data, retry_after, origin, close, no_content, allow }
    }

    #[test]
    fn a_call_denial_echoes_the_id_in_a_200() {
        let denial = Refusal { id: Some(b"\"a\\u0062\""), ..refusal(Reject::PolicyCallNoPermit) };
        let answer = text(&denial);
        assert!(answer.starts_with("HTTP/1.1 200 "));
        assert!(answer.contains("\"id\":\"a\\u0062\",\"error\":{\"code\":1403,"));
        assert!(answer.contains("\"kind\":\"no_permit\""));
        assert!(text(&refusal(Reject::PolicyCallNoPermit)).starts_with("HTTP/1.1 403 "));
    }

    #[test]
    fn a_503_says_when_to_come_back() {
        assert!(text(&refusal(Reject::KeysUnavailable)).contains("\r\nretry-after: 2\r\n"));
        assert!(!text(&refusal(Reject::PolicyDenied)).contains("retry-after"));
    }
}

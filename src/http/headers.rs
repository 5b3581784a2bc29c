//! Which fields travel on: two allow-lists, never a list of what to remove.
//!
//! Hop-by-hop fields, credentials, cookies and forwarding claims are absent from both, so that no
//! spelling of theirs gets through (RFC 9110 §7.6.1; MCP security best practices: no token
//! passthrough).

/// True for fields of a client that an upstream may see. `Authorization` and `Cookie` are not among
/// them: they are meant for the gateway (MCP authorization, "Access Token Privilege Restriction").
#[must_use]
pub fn goes_upstream(name: &[u8]) -> bool {
    is_mcp(name) || contains(&UPSTREAM, name)
}

/// True for fields of an upstream that a client may see.
#[must_use]
pub fn goes_downstream(name: &[u8]) -> bool {
    is_mcp(name) || contains(&DOWNSTREAM, name)
}

/// True when a client that lists `name` in `Connection` thereby keeps it from the upstream. RFC
/// 9110 §7.6.1 forbids to list fields that are meant for everybody, and what was judged (MCP
/// fields) or decides how the body is read must arrive, or a request could be judged with them and
/// executed without.
#[must_use]
pub fn connection_may_remove(name: &[u8]) -> bool {
    contains(&OPTIONAL, name)
}

/// True for names that a trailer must not bring (RFC 9110 §6.5.1). `name` is in lower case and may
/// be cut at 32 bytes.
pub(super) fn forbidden_in_trailer(name: &[u8]) -> bool {
    is_mcp(name)
        || PREFIXES_NOT_IN_TRAILER.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
        || contains(&NOT_IN_TRAILER, name)
}

fn is_mcp(name: &[u8]) -> bool {
    name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"mcp-"))
}

fn contains(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Besides `mcp-*`. `baggage` (W3C Baggage) belongs to the trace, as `traceparent` and
/// `tracestate` do (W3C Trace Context).
const UPSTREAM: [&str; 7] = [
    "accept",
    "baggage",
    "content-type",
    "last-event-id",
    "traceparent",
    "tracestate",
    "user-agent",
];

/// Those of them that mean nothing to the judgement.
const OPTIONAL: [&str; 4] = ["baggage", "traceparent", "tracestate", "user-agent"];

/// Besides `mcp-*`.
const DOWNSTREAM: [&str; 4] = ["cache-control", "content-type", "retry-after", "x-accel-buffering"];

const PREFIXES_NOT_IN_TRAILER: [&str; 4] = ["if-", "proxy-", "x-accel-", "x-forwarded-"];

const NOT_IN_TRAILER: [&str; 29] = [
    "accept",
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "location",
    "max-forwards",
    "origin",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h28_h29_nothing_of_the_hop_and_no_identity_goes_upstream() {
        let names = [
            "Authorization",
            "Cookie",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Transfer-Encoding",
            "Content-Length",
            "Host",
            "Expect",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Real-IP",
            "X-User",
            "X-Remote-User",
            "Origin",
            "Content-Encoding",
            "Mcp",
            "Mcp_Session_Id",
            "Mcp\u{2010}Name",
            "Via",
            "Accept-Language",
            "Accept-Encoding",
            "",
        ];
        for name in names {
            assert!(!goes_upstream(name.as_bytes()), "{name}");
        }
        for name in
            ["Accept", "MCP-Protocol-Version", "mcp-param-region", "Content-Type", "Baggage"]
        {
            assert!(goes_upstream(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn downstream_gets_no_cookie_no_challenge_and_no_redirect() {
        for name in ["Set-Cookie", "WWW-Authenticate", "Location", "Connection", "Server", "Link"] {
            assert!(!goes_downstream(name.as_bytes()), "{name}");
        }
        for name in ["Mcp-Session-Id", "content-TYPE", "X-Accel-Buffering", "Cache-Control"] {
            assert!(goes_downstream(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn connection_removes_only_what_goes_up_and_is_not_judged() {
        for name in OPTIONAL {
            assert!(goes_upstream(name.as_bytes()), "{name}");
        }
        for name in ["mcp-name", "Mcp-Method", "content-type", "accept", "authorization", "host"] {
            assert!(!connection_may_remove(name.as_bytes()), "{name}");
        }
    }
}

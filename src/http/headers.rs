//! Which fields travel on: two allow-lists, never a list of what to remove.
//!
//! Hop-by-hop fields, credentials, cookies and forwarding claims are absent from both, so that no
//! spelling of theirs gets through (RFC 9110 §7.6.1; MCP security best practices: no token
//! passthrough).

use super::Field;

/// True for fields of a client that an upstream may see. `Authorization` and `Cookie` are not among
/// them: they are meant for the gateway (MCP authorization, "Access Token Privilege Restriction").
#[must_use]
pub fn goes_upstream(name: &[u8]) -> bool {
    is_mcp(name) || Field::from_name(name).is_some_and(field_goes_upstream)
}

/// True for fields of an upstream that a client may see.
#[must_use]
pub fn goes_downstream(name: &[u8]) -> bool {
    is_mcp(name) || Field::from_name(name).is_some_and(field_goes_downstream)
}

/// True when a client that lists `name` in `Connection` thereby keeps it from the upstream. RFC
/// 9110 §7.6.1 forbids to list fields that are meant for everybody, and what was judged (MCP
/// fields) or decides how the body is read must arrive, or a request could be judged with them and
/// executed without.
#[must_use]
pub fn connection_may_remove(name: &[u8]) -> bool {
    Field::from_name(name).is_some_and(connection_may_remove_field)
}

/// [`goes_upstream`] of a name that was recognised. `baggage` (W3C Baggage) belongs to the trace,
/// as `traceparent` and `tracestate` do (W3C Trace Context).
pub(super) const fn field_goes_upstream(field: Field) -> bool {
    matches!(
        field,
        Field::Accept
            | Field::Baggage
            | Field::ContentType
            | Field::LastEventId
            | Field::McpMethod
            | Field::McpName
            | Field::McpProtocolVersion
            | Field::McpSessionId
            | Field::Traceparent
            | Field::Tracestate
            | Field::UserAgent
    )
}

/// [`goes_downstream`] of a name that was recognised.
pub(super) const fn field_goes_downstream(field: Field) -> bool {
    matches!(
        field,
        Field::CacheControl
            | Field::ContentType
            | Field::McpMethod
            | Field::McpName
            | Field::McpProtocolVersion
            | Field::McpSessionId
            | Field::RetryAfter
            | Field::XAccelBuffering
    )
}

/// [`connection_may_remove`] of a name that was recognised: what goes up and means nothing to the
/// judgement.
pub(super) const fn connection_may_remove_field(field: Field) -> bool {
    matches!(field, Field::Baggage | Field::Traceparent | Field::Tracestate | Field::UserAgent)
}

/// True for names that a trailer must not bring (RFC 9110 §6.5.1). `name` is in lower case and may
/// be cut at 32 bytes.
pub(super) fn forbidden_in_trailer(name: &[u8]) -> bool {
    is_mcp(name)
        || PREFIXES_NOT_IN_TRAILER.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
        || contains(&NOT_IN_TRAILER, name)
}

/// True for `mcp-*`: what MCP mirrors of the body, and what servers define.
pub(super) fn is_mcp(name: &[u8]) -> bool {
    name.first_chunk::<4>().is_some_and(|start| start.eq_ignore_ascii_case(b"mcp-"))
}

fn contains(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

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
        for name in ["baggage", "traceparent", "Tracestate", "User-Agent"] {
            assert!(connection_may_remove(name.as_bytes()), "{name}");
            assert!(goes_upstream(name.as_bytes()), "{name}");
        }
        for name in ["mcp-name", "Mcp-Method", "content-type", "accept", "authorization", "host"] {
            assert!(!connection_may_remove(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_class_of_a_known_name_is_that_of_the_list() {
        let up = ["accept", "baggage", "content-type", "last-event-id", "traceparent"];
        let down = ["cache-control", "content-type", "retry-after", "x-accel-buffering"];
        let optional = ["baggage", "traceparent", "tracestate", "user-agent"];
        for field in Field::ALL {
            let name = field.name();
            let goes_up =
                name.starts_with("mcp-") || up.contains(&name) || optional.contains(&name);
            let goes_down = name.starts_with("mcp-") || down.contains(&name);
            assert_eq!(field_goes_upstream(field), goes_up, "{name}");
            assert_eq!(field_goes_downstream(field), goes_down, "{name}");
            assert_eq!(connection_may_remove_field(field), optional.contains(&name), "{name}");
        }
    }
}

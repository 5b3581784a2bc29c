//! The field names that the gateway knows.

/// A known field name. Anything else is reached through `fields()` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub enum Field {
    Accept,
    Authorization,
    Baggage,
    CacheControl,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    Host,
    LastEventId,
    Location,
    McpMethod,
    McpName,
    McpProtocolVersion,
    McpSessionId,
    Origin,
    RetryAfter,
    Traceparent,
    Tracestate,
    TransferEncoding,
    UserAgent,
    WwwAuthenticate,
    XAccelBuffering,
}

impl Field {
    /// All of them, in the order of their discriminants.
    pub(super) const ALL: [Self; 25] = [
        Self::Accept,
        Self::Authorization,
        Self::Baggage,
        Self::CacheControl,
        Self::Connection,
        Self::ContentEncoding,
        Self::ContentLength,
        Self::ContentType,
        Self::Cookie,
        Self::Expect,
        Self::Host,
        Self::LastEventId,
        Self::Location,
        Self::McpMethod,
        Self::McpName,
        Self::McpProtocolVersion,
        Self::McpSessionId,
        Self::Origin,
        Self::RetryAfter,
        Self::Traceparent,
        Self::Tracestate,
        Self::TransferEncoding,
        Self::UserAgent,
        Self::WwwAuthenticate,
        Self::XAccelBuffering,
    ];

    /// The name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Authorization => "authorization",
            Self::Baggage => "baggage",
            Self::CacheControl => "cache-control",
            Self::Connection => "connection",
            Self::ContentEncoding => "content-encoding",
            Self::ContentLength => "content-length",
            Self::ContentType => "content-type",
            Self::Cookie => "cookie",
            Self::Expect => "expect",
            Self::Host => "host",
            Self::LastEventId => "last-event-id",
            Self::Location => "location",
            Self::McpMethod => "mcp-method",
            Self::McpName => "mcp-name",
            Self::McpProtocolVersion => "mcp-protocol-version",
            Self::McpSessionId => "mcp-session-id",
            Self::Origin => "origin",
            Self::RetryAfter => "retry-after",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::TransferEncoding => "transfer-encoding",
            Self::UserAgent => "user-agent",
            Self::WwwAuthenticate => "www-authenticate",
            Self::XAccelBuffering => "x-accel-buffering",
        }
    }

    /// Which field `name` is, in any case (RFC 9110 §5.1).
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let candidates: &[Self] = match name.len() {
            4 => &[Self::Host],
            6 => &[Self::Accept, Self::Cookie, Self::Expect, Self::Origin],
            7 => &[Self::Baggage],
            8 => &[Self::Location, Self::McpName],
            10 => &[Self::Connection, Self::McpMethod, Self::Tracestate, Self::UserAgent],
            11 => &[Self::RetryAfter, Self::Traceparent],
            12 => &[Self::ContentType],
            13 => &[Self::Authorization, Self::CacheControl, Self::LastEventId],
            14 => &[Self::ContentLength, Self::McpSessionId],
            16 => &[Self::ContentEncoding, Self::WwwAuthenticate],
            17 => &[Self::TransferEncoding, Self::XAccelBuffering],
            20 => &[Self::McpProtocolVersion],
            _ => &[],
        };
        candidates.iter().copied().find(|field| field.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// True when a message must not hold it twice. A list field may be repeated (RFC 9110 §5.3); of
    /// any other, two parsers may each believe a different line.
    #[must_use]
    pub const fn is_single(self) -> bool {
        match self {
            Self::Authorization
            | Self::ContentLength
            | Self::ContentType
            | Self::Cookie
            | Self::Expect
            | Self::Host
            | Self::LastEventId
            | Self::Location
            | Self::McpMethod
            | Self::McpName
            | Self::McpProtocolVersion
            | Self::McpSessionId
            | Self::Origin
            | Self::Traceparent
            | Self::TransferEncoding
            | Self::UserAgent => true,
            Self::Accept
            | Self::Baggage
            | Self::CacheControl
            | Self::Connection
            | Self::ContentEncoding
            | Self::RetryAfter
            | Self::Tracestate
            | Self::WwwAuthenticate
            | Self::XAccelBuffering => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name_in_any_case() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(Field::from_name(field.name().as_bytes()), Some(field));
            assert_eq!(Field::from_name(field.name().to_uppercase().as_bytes()), Some(field));
            let longer = format!("{}x", field.name());
            assert_eq!(Field::from_name(longer.as_bytes()), None);
        }
    }
}

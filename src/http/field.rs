//! The field names that the gateway knows.

use super::bytes::fold;

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
    Forwarded,
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
    pub(super) const ALL: [Self; 26] = [
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
        Self::Forwarded,
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
            Self::Forwarded => "forwarded",
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
            8 => &[Self::McpName, Self::Location],
            9 => &[Self::Forwarded],
            10 => &[Self::Connection, Self::McpMethod, Self::UserAgent, Self::Tracestate],
            11 => &[Self::Traceparent, Self::RetryAfter],
            12 => &[Self::ContentType],
            13 => &[Self::Authorization, Self::CacheControl, Self::LastEventId],
            14 => &[Self::ContentLength, Self::McpSessionId],
            16 => &[Self::ContentEncoding, Self::WwwAuthenticate],
            17 => &[Self::TransferEncoding, Self::XAccelBuffering],
            20 => &[Self::McpProtocolVersion],
            _ => return None,
        };
        let ends = ends(name);
        let found = candidates.iter().copied().find(|it| ENDS.get(*it as usize) == Some(&ends))?;
        // The ends of longer names leave a middle.
        let whole = name.len() <= 2 * WORD || found.name().as_bytes().eq_ignore_ascii_case(name);
        whole.then_some(found)
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
            | Self::Forwarded
            | Self::RetryAfter
            | Self::Tracestate
            | Self::WwwAuthenticate
            | Self::XAccelBuffering => false,
        }
    }
}

/// The first and the last bytes of a name in lower case: all of it up to 16 bytes. Equal ones of
/// names that are equally long stand for equal names, because those that we know are made of
/// letters and hyphens, for which [`fold`] is exact.
const fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (name.first_chunk::<WORD>(), name.last_chunk::<WORD>()) {
        return (fold(u64::from_le_bytes(*first)), fold(u64::from_le_bytes(*last)));
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return (fold(u32::from_le_bytes(*first) as u64), fold(u32::from_le_bytes(*last) as u64));
    }
    (0, 0)
}

/// Of every known name, by its discriminant.
#[expect(clippy::indexing_slicing, reason = "in a constant: a place outside would not compile")]
const ENDS: [(u64, u64); Field::ALL.len()] = {
    let mut all = [(0, 0); Field::ALL.len()];
    let mut place = 0;
    while place < all.len() {
        all[place] = ends(Field::ALL[place].name().as_bytes());
        place += 1;
    }
    all
};

/// Bytes that are compared at once.
const WORD: usize = 8;

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

    #[test]
    fn a_name_with_one_other_byte_is_another_name() {
        let slowly = |name: &[u8]| {
            let same = |it: &Field| it.name().as_bytes().eq_ignore_ascii_case(name);
            Field::ALL.into_iter().find(same)
        };
        for field in Field::ALL {
            let name = field.name().as_bytes();
            for place in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut other = name.to_vec();
                    other[place] = byte;
                    assert_eq!(Field::from_name(&other), slowly(&other), "{other:?}");
                }
                assert_eq!(Field::from_name(&name[..place]), slowly(&name[..place]));
            }
        }
    }

    #[test]
    fn only_names_of_letters_and_hyphens_may_be_compared_by_their_ends() {
        for field in Field::ALL {
            let name = field.name().as_bytes();
            assert!(name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-'));
            assert!(name.len() >= 4, "shorter names have no ends");
        }
    }
}

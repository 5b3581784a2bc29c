//! The bearer token of a request (RFC 6750 §2.1), from the `Authorization` field and nowhere else.
//!
//! A token in the query or in a form body is not looked for (RFC 6750 §2.2, §2.3 are optional and
//! MCP forbids the query): such a request simply has no token (case T21).

use crate::limits::TOKEN_BYTES_MAX;
use crate::reject::Reject;

/// Takes what should be a token out of an `Authorization` value whose surrounding white space was
/// trimmed. It is one only if [`check`] says so, or if the same bytes passed it before.
///
/// # Errors
/// [`Reject::TokenMissing`] without the field or with another scheme, [`Reject::TokenTooLarge`],
/// [`Reject::TokenMalformed`] for nothing at all.
pub fn presented(authorization: Option<&[u8]>) -> Result<&[u8], Reject> {
    let value = authorization.ok_or(Reject::TokenMissing)?;
    // RFC 9110 §11.1: the scheme is case-insensitive.
    let (scheme, rest) = value.split_at_checked(SCHEME.len()).ok_or(Reject::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Reject::TokenMissing);
    }
    let token = match rest.split_first() {
        None => return Err(Reject::TokenMalformed),
        // RFC 9110 §11.4: one or more spaces after the scheme.
        Some((b' ', token)) => token.trim_ascii_start(),
        // `BearerX`, `Bearer\t…`: another scheme.
        Some(_) => return Err(Reject::TokenMissing),
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Reject::TokenTooLarge);
    }
    Ok(token)
}

/// Judges the form of what was [`presented`].
///
/// # Errors
/// [`Reject::TokenMalformed`] for anything but exactly one `b64token`.
pub fn check(token: &[u8]) -> Result<(), Reject> {
    let body = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let characters = token.get(..body).unwrap_or_default();
    // Without an early end the compiler looks at many bytes at once, and good tokens have none.
    let sound = characters.iter().fold(true, |sound, byte| sound & is_token_byte(*byte));
    if characters.is_empty() || !sound {
        return Err(Reject::TokenMalformed);
    }
    Ok(())
}

/// RFC 6750 §2.1 `b64token` without the trailing `=`.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

const SCHEME: &[u8] = b"Bearer";

#[cfg(test)]
mod tests {
    use super::*;

    fn token(authorization: Option<&[u8]>) -> Result<&[u8], Reject> {
        let token = presented(authorization)?;
        check(token).map(|()| token)
    }

    #[test]
    fn rfc6750_2_1_exactly_one_bearer_token() {
        let missing = Err(Reject::TokenMissing);
        let malformed = Err(Reject::TokenMalformed);
        type Case<'a> = (&'a [u8], Result<&'a [u8], Reject>);
        let cases: [Case<'_>; 21] = [
            (b"Bearer a.b.c", Ok(b"a.b.c")),
            (b"bearer a.b.c", Ok(b"a.b.c")),
            (b"BEARER   a.b.c", Ok(b"a.b.c")),
            (b"Bearer aZ09-._~+/==", Ok(b"aZ09-._~+/==")),
            (b"", missing),
            (b"Bear", missing),
            (b"Basic dXNlcjpwYXNz", missing),
            (b"BearerX a", missing),
            (b"Bearer\ta", missing),
            (b"DPoP a.b.c", missing),
            (b"Digest a.b.c", missing),
            (b"Bearer", malformed),
            (b"Bearer ", malformed),
            (b"Bearer ==", malformed),
            (b"Bearer a b", malformed),
            (b"Bearer a,Bearer b", malformed),
            (b"Bearer a, Bearer b", malformed),
            (b"Bearer a=b", malformed),
            (b"Bearer \"a\"", malformed),
            (b"Bearer a\0", malformed),
            (b"Bearer a\xc3\xa9", malformed),
        ];
        for (value, wanted) in cases {
            assert_eq!(token(Some(value)), wanted, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(token(None), missing);
    }

    #[test]
    fn t17_a_token_over_the_limit_stops_here() {
        let of = |size: usize| [b"Bearer ".as_slice(), &vec![b'a'; size]].concat();
        assert!(token(Some(&of(TOKEN_BYTES_MAX))).is_ok());
        assert_eq!(token(Some(&of(TOKEN_BYTES_MAX + 1))), Err(Reject::TokenTooLarge));
    }
}

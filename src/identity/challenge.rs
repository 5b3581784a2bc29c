//! The value of `WWW-Authenticate` (RFC 6750 §3, RFC 9728 §5.1, RFC 9470 §3).
//!
//! Built from `public_url` and the route, never from what the client sent: a reflected `Host` would
//! let an attacker point clients at a login page of its own.

use crate::identity::audience::Resource;
use crate::identity::metadata;
use crate::reject::Challenge;

/// What a step-up needs, all of it in one challenge. Empty and `None` parts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepUp<'a> {
    /// Scopes, separated by single spaces.
    pub scope: &'a str,
    /// Accepted `acr` values, separated by single spaces.
    pub acr_values: &'a str,
    /// Oldest login that would do, in seconds.
    pub max_age: Option<u64>,
}

/// Appends the value for `challenge`; false (and nothing written) when there is none to send.
pub fn write(
    out: &mut Vec<u8>,
    challenge: Challenge,
    public_url: &str,
    resource: Resource<'_>,
    step_up: &StepUp<'_>,
) -> bool {
    let error = match challenge {
        Challenge::None => return false,
        Challenge::Bare => None,
        Challenge::InvalidToken => Some("invalid_token"),
        Challenge::InsufficientScope => Some("insufficient_scope"),
    };
    out.extend_from_slice(b"Bearer resource_metadata=\"");
    metadata::write_url(out, public_url, resource);
    out.push(b'"');
    if let Some(error) = error {
        parameter(out, "error", error);
    }
    if challenge == Challenge::InsufficientScope {
        parameter(out, "scope", step_up.scope);
        parameter(out, "acr_values", step_up.acr_values);
        if let Some(seconds) = step_up.max_age {
            parameter(out, "max_age", &seconds.to_string());
        }
    }
    true
}

/// RFC 6750 §3: printable ASCII without `"` and `\`. A value outside that is left out whole: it
/// comes from a policy annotation, and half a list would send the client for the wrong token.
fn parameter(out: &mut Vec<u8>, name: &str, value: &str) {
    let printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if value.is_empty() || !value.bytes().all(printable) {
        return;
    }
    out.extend_from_slice(b", ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::Reject;

    const URL: &str = "https://gw.example.com";

    fn value(challenge: Challenge, resource: Resource<'_>, step_up: &StepUp<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, challenge, URL, resource, step_up);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_contract_forms() {
        let none = StepUp::default();
        assert_eq!(
            value(Reject::TokenMissing.challenge(), Resource::Server("github"), &none),
            "Bearer resource_metadata=\"https://gw.example.com/.well-known/oauth-protected-resource\
             /mcp/github\""
        );
        assert_eq!(
            value(Reject::TokenExpired.challenge(), Resource::Federation, &none),
            "Bearer resource_metadata=\"https://gw.example.com/.well-known/oauth-protected-resource\
             /mcp\", error=\"invalid_token\""
        );
        assert_eq!(value(Reject::PolicyDenied.challenge(), Resource::Federation, &none), "");
    }

    #[test]
    fn o02_a_step_up_names_everything_at_once() {
        let step_up = StepUp { scope: "a b", acr_values: "phr", max_age: Some(600) };
        let wanted = "error=\"insufficient_scope\", scope=\"a b\", acr_values=\"phr\", \
                      max_age=\"600\"";
        let got = value(Challenge::InsufficientScope, Resource::Server("x"), &step_up);
        assert!(got.ends_with(wanted), "{got}");
        let other = value(Challenge::InvalidToken, Resource::Server("x"), &step_up);
        assert!(!other.contains("scope="), "{other}");
    }

    #[test]
    fn a_value_that_could_break_the_header_is_left_out() {
        for scope in ["a\" b", "a\\", "a\r\nX: y", "ä", "a\0"] {
            let step_up = StepUp { scope, ..StepUp::default() };
            let got = value(Challenge::InsufficientScope, Resource::Federation, &step_up);
            assert!(got.ends_with("error=\"insufficient_scope\""), "{got}");
        }
    }
}

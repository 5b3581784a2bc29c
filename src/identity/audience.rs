//! Which audiences a route accepts, by exact bytes (DESIGN §5; RFC 8707 §2, RFC 9068 §4).
//!
//! `/mcp/{s}` takes `<url>`, `<url>/`, `<url>/mcp` and `<url>/mcp/{s}`; `/mcp` the first three. No
//! case folding, no dot segments, no trailing slash beyond the one named: a lenient comparison is
//! how a token for one server opens another (cases T11, T24).

/// A protected resource of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The origin itself; only metadata is served for it.
    Root,
    /// `/mcp`.
    Federation,
    /// `/mcp/{server}`; the name is of valid form, whether or not such a server exists.
    Server(&'a str),
}

impl<'a> Resource<'a> {
    /// The resource that a request path names, compared undecoded; `None` for every other path.
    #[must_use]
    pub fn of_path(path: &'a [u8]) -> Option<Self> {
        match path {
            b"" => Some(Self::Root),
            b"/mcp" => Some(Self::Federation),
            _ => {
                let name = std::str::from_utf8(path.strip_prefix(b"/mcp/")?).ok()?;
                is_server_name(name).then_some(Self::Server(name))
            }
        }
    }
}

/// The audiences of one route. Borrows, so that building it costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Audiences<'a> {
    public_url: &'a str,
    resource: Resource<'a>,
}

impl<'a> Audiences<'a> {
    /// `public_url` is the canonical origin without a trailing slash.
    #[must_use]
    pub const fn new(public_url: &'a str, resource: Resource<'a>) -> Self {
        Self { public_url, resource }
    }

    /// True when one of the token's audiences is one of ours or one of `extra` (the provider's own
    /// list).
    #[must_use]
    pub fn accept(&self, token: &[String], extra: &[String]) -> bool {
        token.iter().any(|audience| self.is_ours(audience) || extra.contains(audience))
    }

    fn is_ours(&self, audience: &str) -> bool {
        let Some(rest) = audience.strip_prefix(self.public_url) else { return false };
        if matches!(rest, "" | "/" | "/mcp") {
            return true;
        }
        match (self.resource, rest.strip_prefix("/mcp/")) {
            (Resource::Server(name), Some(rest)) => rest == name,
            (Resource::Server(_), None) | (Resource::Root | Resource::Federation, _) => false,
        }
    }
}

/// `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`, the form of server names in the contract.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges = |byte: Option<&u8>| byte.is_some_and(|byte| inner(*byte));
    let bytes = name.as_bytes();
    bytes.len() <= SERVER_NAME_BYTES_MAX
        && edges(bytes.first())
        && edges(bytes.last())
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
}

const SERVER_NAME_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://gw.example.com";

    #[test]
    fn t11_t24_audiences_by_exact_bytes() {
        // audience, accepted on /mcp/github, accepted on /mcp
        let cases = [
            ("https://gw.example.com", true, true),
            ("https://gw.example.com/", true, true),
            ("https://gw.example.com/mcp", true, true),
            ("https://gw.example.com/mcp/github", true, false),
            ("https://gw.example.com/mcp/", false, false),
            ("https://gw.example.com/mcp/github/", false, false),
            ("https://gw.example.com/mcp/githu", false, false),
            ("https://gw.example.com/mcp/githubx", false, false),
            ("https://gw.example.com/mcp/slack", false, false),
            ("https://gw.example.com//mcp", false, false),
            ("https://gw.example.com/MCP", false, false),
            ("https://GW.example.com", false, false),
            ("HTTPS://gw.example.com", false, false),
            ("https://gw.example.com:443", false, false),
            ("https://gw.example.com.evil.test", false, false),
            ("https://gw.example.com?x", false, false),
            ("http://gw.example.com", false, false),
            ("https://other.example.com/mcp/github", false, false),
            ("/mcp/github", false, false),
            ("", false, false),
        ];
        for (audience, server, federation) in cases {
            let token = [audience.to_owned()];
            let of = |resource| Audiences::new(URL, resource).accept(&token, &[]);
            assert_eq!(of(Resource::Server("github")), server, "{audience}");
            assert_eq!(of(Resource::Federation), federation, "{audience}");
        }
    }

    #[test]
    fn t11_one_of_several_is_enough_and_none_is_not() {
        let ours = Audiences::new(URL, Resource::Federation);
        let foreign = "https://other.example.com".to_owned();
        assert!(ours.accept(&[foreign.clone(), format!("{URL}/mcp")], &[]));
        assert!(!ours.accept(&[], &[]));
        assert!(!ours.accept(std::slice::from_ref(&foreign), &[]));
        assert!(ours.accept(std::slice::from_ref(&foreign), std::slice::from_ref(&foreign)));
        assert!(!ours.accept(&["https://other.example.com/".to_owned()], &[foreign]));
    }

    #[test]
    fn paths_of_valid_form_name_a_resource() {
        let long = format!("/mcp/{}", "a".repeat(32));
        let too_long = format!("/mcp/{}", "a".repeat(33));
        for (path, wanted) in [
            ("", Some(Resource::Root)),
            ("/mcp", Some(Resource::Federation)),
            ("/mcp/a", Some(Resource::Server("a"))),
            ("/mcp/a-1", Some(Resource::Server("a-1"))),
            (long.as_str(), Some(Resource::Server(&long[5..]))),
            (too_long.as_str(), None),
            ("/", None),
            ("/mcp/", None),
            ("/mcp/-a", None),
            ("/mcp/a-", None),
            ("/mcp/A", None),
            ("/mcp/a/b", None),
            ("/mcp/a%62", None),
            ("/mcp?x", None),
            ("/MCP", None),
        ] {
            assert_eq!(Resource::of_path(path.as_bytes()), wanted, "{path}");
        }
    }
}

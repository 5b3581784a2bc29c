//! Protected-resource metadata (RFC 9728): who issues tokens for which resource.
//!
//! Every path of valid form has a document, whether or not such a server exists, so that nobody can
//! find out which servers there are (DESIGN §5). `resource` is built from `public_url` and the
//! path.

use serde_json::json;

use crate::identity::audience::Resource;

/// How long clients may keep a document. Short, because a new trust provider must be seen soon.
pub const CACHE_CONTROL: &str = "public, max-age=300";

/// The resource that a metadata path names:
/// `/.well-known/oauth-protected-resource[/mcp[/{server}]]`.
#[must_use]
pub fn resource_of(path: &[u8]) -> Option<Resource<'_>> {
    Resource::of_path(path.strip_prefix(WELL_KNOWN.as_bytes())?)
}

/// Appends the URL of the document of `resource` (RFC 9728 §3.1: the well-known part goes between
/// the host and the path).
pub fn write_url(out: &mut Vec<u8>, public_url: &str, resource: Resource<'_>) {
    out.extend_from_slice(public_url.as_bytes());
    out.extend_from_slice(WELL_KNOWN.as_bytes());
    write_path(out, resource);
}

/// The document of `resource` as JSON. `issuers` are those of the trust providers, in order.
#[must_use]
pub fn document<'i>(
    public_url: &str,
    resource: Resource<'_>,
    issuers: impl Iterator<Item = &'i str>,
) -> Vec<u8> {
    let mut identifier = public_url.as_bytes().to_vec();
    write_path(&mut identifier, resource);
    let mut servers: Vec<&str> = Vec::new();
    for issuer in issuers {
        if !servers.contains(&issuer) {
            servers.push(issuer);
        }
    }
    let name = match resource {
        Resource::Root | Resource::Federation => "MCP gateway",
        Resource::Server(name) => name,
    };
    let document = json!({
        "resource": String::from_utf8_lossy(&identifier),
        "authorization_servers": servers,
        "bearer_methods_supported": ["header"],
        "resource_name": name,
    });
    document.to_string().into_bytes()
}

fn write_path(out: &mut Vec<u8>, resource: Resource<'_>) {
    match resource {
        Resource::Root => {}
        Resource::Federation => out.extend_from_slice(b"/mcp"),
        Resource::Server(name) => {
            out.extend_from_slice(b"/mcp/");
            out.extend_from_slice(name.as_bytes());
        }
    }
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://gw.example.com";

    #[test]
    fn o01_resource_is_the_exact_url() {
        for (path, resource) in [
            ("/.well-known/oauth-protected-resource", URL.to_owned()),
            ("/.well-known/oauth-protected-resource/mcp", format!("{URL}/mcp")),
            ("/.well-known/oauth-protected-resource/mcp/github", format!("{URL}/mcp/github")),
            ("/.well-known/oauth-protected-resource/mcp/nobody", format!("{URL}/mcp/nobody")),
        ] {
            let named = resource_of(path.as_bytes()).unwrap();
            let issuers = ["https://a.test", "https://b.test", "https://a.test"];
            let bytes = document(URL, named, issuers.into_iter());
            let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read["resource"], resource);
            assert_eq!(read["authorization_servers"], json!(["https://a.test", "https://b.test"]));
            assert_eq!(read["bearer_methods_supported"], json!(["header"]));
            let mut url = Vec::new();
            write_url(&mut url, URL, named);
            assert_eq!(String::from_utf8(url).unwrap(), format!("{URL}{path}"));
        }
    }

    #[test]
    fn o01_other_paths_have_no_document() {
        for path in [
            "/.well-known/oauth-protected-resource/",
            "/.well-known/oauth-protected-resource/mcp/",
            "/.well-known/oauth-protected-resource/mcp/UPPER",
            "/.well-known/oauth-protected-resource/mcp/a/b",
            "/.well-known/oauth-protected-resourcemcp",
            "/.well-known/oauth-protected-resource/other",
            "/mcp",
        ] {
            assert_eq!(resource_of(path.as_bytes()), None, "{path}");
        }
    }
}

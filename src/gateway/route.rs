//! Where a request wants to go, judged on the undecoded path: nothing is decoded or normalised, so
//! there is one spelling of each route and no way to hide one behind an escape.

use std::net::IpAddr;

use crate::config::{Config, Listen, Proxy};
use crate::http::head::is_other_charset;
use crate::http::{Field, Framing, Method, forwarded, host};
use crate::identity::{Resource, metadata};
use crate::listener::Downstream;
use crate::reject::Reject;
use crate::world::World;

/// A served path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/mcp`, all servers.
    Hub,
    /// `/mcp/{server}`; the name has a valid form, but there need not be such a server.
    Server(&'a str),
    /// RFC 9728 metadata of this resource.
    Metadata(Resource<'a>),
    /// A CORS preflight from an allowed origin.
    Preflight,
}

/// Checks `Host`, SNI and `Origin`, then finds the route.
///
/// # Errors
/// `RequestHostForeign`, `RequestOriginForeign`, `RequestPath`, `RequestMethod`.
pub(super) fn accept<'a>(downstream: &'a Downstream, world: &World) -> Result<Route<'a>, Reject> {
    let (head, bytes) = downstream.head();
    let config = &world.snapshot.config;
    let named = head.field(bytes, Field::Host).ok_or(Reject::RequestHost)?;
    if !world.knows_host(named)
        && !host::host_allowed(named, &config.listen.hosts, config.listen.loopback)
    {
        return Err(Reject::RequestHostForeign);
    }
    // RFC 9110 §7.4: a request for another authority than the connection was secured for (case
    // S07).
    if let Some(sni) = downstream.server_name()
        && !host::same_name(named, sni)
    {
        return Err(Reject::RequestHostForeign);
    }
    let origin = head.field(bytes, Field::Origin);
    if origin.is_some_and(|origin| !origin_allowed(origin, config)) {
        return Err(Reject::RequestOriginForeign);
    }
    let bodiless = matches!(head.method(), Method::Get | Method::Delete);
    if bodiless && !matches!(head.framing(), Framing::None | Framing::Length(0)) {
        // RFC 9110 §9.3.1: a body here has no meaning, and is how one request hides another.
        return Err(Reject::RequestFraming);
    }
    let route = find(head.target(bytes)).ok_or(Reject::RequestPath)?;
    match (route, head.method()) {
        (Route::Hub | Route::Server(_), Method::Post | Method::Get | Method::Delete) => Ok(route),
        (Route::Metadata(_), Method::Get) => Ok(route),
        (_, Method::Options) if origin.is_some() => Ok(Route::Preflight),
        _ => Err(Reject::RequestMethod),
    }
}

/// Where the client is, as far as the one says it who may: the connection, or a trusted proxy.
/// `None` when such a proxy does not say: its own address never stands in.
pub(super) fn source(downstream: &Downstream, listen: &Listen) -> Option<IpAddr> {
    let peer = downstream.peer();
    if listen.proxy == Proxy::None || !listen.trusts(peer) {
        return Some(peer);
    }
    if listen.proxy == Proxy::V2 {
        // After the header this is whom it named: a proxy again, or the one that sent it, which
        // spoke for itself (LOCAL).
        return None;
    }
    let (head, bytes) = downstream.head();
    let values = head.values(bytes, Field::Forwarded);
    forwarded::client(values, |address| listen.trusts(address)).ok()
}

/// What is served where the request wanted to go, for a 405.
pub(super) fn allowed_methods(downstream: &Downstream) -> &'static str {
    let (head, bytes) = downstream.head();
    match find(head.target(bytes)) {
        Some(Route::Metadata(_)) => "GET",
        Some(Route::Hub | Route::Server(_) | Route::Preflight) | None => "POST, GET, DELETE",
    }
}

/// The origin to which an answer may be shown by a browser; empty when there is none.
#[must_use]
pub(super) fn cors_origin<'a>(downstream: &'a Downstream, config: &Config) -> &'a [u8] {
    let (head, bytes) = downstream.head();
    match head.field(bytes, Field::Origin) {
        Some(origin) if origin_allowed(origin, config) => origin,
        _ => b"",
    }
}

fn origin_allowed(origin: &[u8], config: &Config) -> bool {
    host::origin_allowed(origin, &config.public_url, &config.listen.origins, config.listen.loopback)
}

/// MCP 2026-07-28 and 2025-11-25, transports, "Sending Messages": JSON in, and the client lists
/// both kinds of answer. A content coding would hide what is judged.
pub(super) fn check_media(downstream: &Downstream) -> Result<(), Reject> {
    let (head, bytes) = downstream.head();
    let coding = head.field(bytes, Field::ContentEncoding);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Reject::RequestContentEncoding);
    }
    let kind = head.field(bytes, Field::ContentType).unwrap_or_default();
    // How nearly every client spells it; any other spelling is read.
    if kind == b"application/json" && head.field(bytes, Field::Accept) == Some(BOTH_KINDS) {
        return Ok(());
    }
    let mut parts = kind.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"));
    // In another encoding the same bytes are another message, and some servers would read that one.
    if !is_json || parts.any(is_other_charset) {
        return Err(Reject::RequestContentType);
    }
    let accepts = |wanted: &[u8]| {
        head.values(bytes, Field::Accept).flat_map(|line| line.split(|byte| *byte == b',')).any(
            |range| {
                let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
                let kind = kind.trim_ascii();
                let family = wanted.split(|byte| *byte == b'/').next().unwrap_or_default();
                kind == b"*/*"
                    || kind.eq_ignore_ascii_case(wanted)
                    || kind.strip_suffix(b"/*").is_some_and(|own| own.eq_ignore_ascii_case(family))
            },
        )
    };
    if accepts(b"application/json") && accepts(b"text/event-stream") {
        Ok(())
    } else {
        Err(Reject::RequestNotAcceptable)
    }
}

fn find(target: &[u8]) -> Option<Route<'_>> {
    let path = target.split(|byte| *byte == b'?').next()?;
    if let Some(resource) = metadata::resource_of(path) {
        return Some(Route::Metadata(resource));
    }
    match Resource::of_path(path)? {
        Resource::Root => None,
        Resource::Federation => Some(Route::Hub),
        Resource::Server(name) => Some(Route::Server(name)),
    }
}

/// How nearly every client spells what it takes.
const BOTH_KINDS: &[u8] = b"application/json, text/event-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_each_route() {
        assert_eq!(find(b"/mcp"), Some(Route::Hub));
        assert_eq!(find(b"/mcp?access_token=x"), Some(Route::Hub));
        assert_eq!(find(b"/mcp/git-hub"), Some(Route::Server("git-hub")));
        assert_eq!(
            find(b"/.well-known/oauth-protected-resource"),
            Some(Route::Metadata(Resource::Root))
        );
        assert_eq!(
            find(b"/.well-known/oauth-protected-resource/mcp/a"),
            Some(Route::Metadata(Resource::Server("a")))
        );
        for foreign in [
            "/",
            "/mcp/",
            "/MCP",
            "/mcp//a",
            "/mcp/a/",
            "/mcp/a/b",
            "/mcp/%61",
            "/mcp/-a",
            "/mcp/A",
            "/mcp/../mcp",
            "//mcp",
            "/.well-known/oauth-protected-resource/",
            "/mcp/a;b",
            "*",
            "/mcp/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(find(foreign.as_bytes()), None, "{foreign}");
        }
    }
}

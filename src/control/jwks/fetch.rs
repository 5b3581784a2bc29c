//! Fetching a key set: where it is, and what an answer must be to count. The sockets are behind
//! [`KeyIo`], which the control thread implements over `net` (deadline, pinned address, no
//! redirects).

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Monotonic;
use crate::config::{KeySource, TrustProvider};
use crate::judge::keys::KeySetFault;
use crate::limits::{JWKS_BYTES_MAX, JWKS_FETCH_MS_MAX, JWKS_FRESH_SECONDS_MAX};

/// A key set document and how long it says it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub document: Vec<u8>,
    /// `Cache-Control: max-age` in seconds.
    pub max_age: Option<u64>,
}

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFault {
    /// Not resolvable, refused, TLS trouble, or not one HTTP answer.
    Unreachable,
    /// Its address is not one that keys may come from.
    Address,
    /// Not within `JWKS_FETCH_MS_MAX`.
    Timeout,
    /// More than `JWKS_BYTES_MAX`.
    TooLarge,
    /// Not 200.
    Status(u16),
    /// The metadata document is not JSON of the required form.
    DiscoveryMalformed,
    /// The metadata names another issuer (RFC 8414 §3.3, OIDC Discovery §4.3).
    DiscoveryIssuer,
    /// `jwks_uri` is not an acceptable URL.
    DiscoveryUrl,
    /// The key file cannot be read.
    File,
    /// The document is not an acceptable key set.
    Keys(KeySetFault),
}

/// One HTTP answer, its body at most as long as asked for.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status code; redirects are not followed, so 3xx arrive here.
    pub status: u16,
    /// [`max_age`] of its `Cache-Control`.
    pub max_age: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

/// The door to the network and the disk. Implementations keep to the deadline they are given and
/// refuse addresses by the provider's `trust_private_addresses`, and public ones for plain http.
pub trait KeyIo {
    /// GETs `url` before `until`, reading at most `bytes_max` bytes of body
    /// ([`FetchFault::TooLarge`] beyond).
    fn get(
        &self,
        url: &str,
        bytes_max: usize,
        until: Monotonic,
    ) -> impl Future<Output = Result<Answer, FetchFault>>;

    /// Reads a file of at most `bytes_max` bytes.
    fn read(
        &self,
        path: &Path,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<u8>, FetchFault>>;
}

/// Where the keys of one provider are.
pub struct Source {
    issuer: String,
    keys: KeySource,
    /// `http` is allowed: only where the operator trusts a private network. [`KeyIo::get`] then
    /// dials no other.
    plain: bool,
    /// `jwks_uri` and until when it is believed.
    discovered: Option<(String, Monotonic)>,
}

impl Source {
    /// The source that the configuration names.
    #[must_use]
    pub fn new(provider: &TrustProvider) -> Self {
        Self {
            issuer: provider.issuer.clone(),
            keys: provider.keys.clone(),
            plain: provider.trust_private_addresses,
            discovered: None,
        }
    }

    /// Gets the document: one request, or up to three when the issuer's metadata is to be read
    /// first. All of them share `JWKS_FETCH_MS_MAX`, counted from `now`: requests wait for the
    /// outcome only a little longer than that.
    ///
    /// # Errors
    /// See [`FetchFault`].
    pub async fn fetch(&mut self, io: &impl KeyIo, now: Monotonic) -> Result<Fetched, FetchFault> {
        let until = now.after(Duration::from_millis(JWKS_FETCH_MS_MAX));
        let url = match &self.keys {
            KeySource::File(path) => {
                let document = io.read(path, JWKS_BYTES_MAX).await?;
                return Ok(Fetched { document, max_age: None });
            }
            KeySource::Url(url) => url.clone(),
            KeySource::Discovery => self.discover(io, now, until).await?,
        };
        let fetched = get_document(io, &url, until).await;
        if fetched.is_err() {
            // The set may have moved; the next attempt reads the metadata again.
            self.discovered = None;
        }
        fetched
    }

    async fn discover(
        &mut self,
        io: &impl KeyIo,
        now: Monotonic,
        until: Monotonic,
    ) -> Result<String, FetchFault> {
        if let Some((url, believed_until)) = &self.discovered
            && now < *believed_until
        {
            return Ok(url.clone());
        }
        let mut fault = FetchFault::Unreachable;
        for url in metadata_urls(&self.issuer)? {
            let answer = io.get(&url, JWKS_BYTES_MAX, until).await?;
            if answer.status != OK {
                // Not served there: an issuer has one of the two documents at least.
                fault = FetchFault::Status(answer.status);
                continue;
            }
            let found = jwks_uri(&answer.body, &self.issuer, self.plain)?;
            let believed_until = now.after(Duration::from_secs(JWKS_FRESH_SECONDS_MAX));
            self.discovered = Some((found.clone(), believed_until));
            return Ok(found);
        }
        Err(fault)
    }
}

/// `max-age` of a `Cache-Control` value in seconds; 0 for `no-store` and `no-cache`; `None` when it
/// does not say.
#[must_use]
pub fn max_age(cache_control: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(cache_control).ok()?;
    let mut age = None;
    for directive in text.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Some(0);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            // RFC 9111 §4.2.1: of several the shortest is the careful choice.
            let seconds = value.trim_matches('"').parse::<u64>().ok()?;
            age = Some(age.map_or(seconds, |old: u64| old.min(seconds)));
        }
    }
    age
}

async fn get_document(io: &impl KeyIo, url: &str, until: Monotonic) -> Result<Fetched, FetchFault> {
    let answer = io.get(url, JWKS_BYTES_MAX, until).await?;
    if answer.status != OK {
        return Err(FetchFault::Status(answer.status));
    }
    Ok(Fetched { document: answer.body, max_age: answer.max_age })
}

/// OIDC Discovery §4.1 appends to the issuer; RFC 8414 §3.1 inserts before its path.
fn metadata_urls(issuer: &str) -> Result<[String; 2], FetchFault> {
    let bare = issuer.strip_suffix('/').unwrap_or(issuer);
    let host_at = bare.find("://").map(|at| at + 3).ok_or(FetchFault::DiscoveryUrl)?;
    let rest = bare.get(host_at..).unwrap_or_default();
    let path_at = rest.find('/').map_or(bare.len(), |at| host_at + at);
    let (origin, path) = bare.split_at_checked(path_at).ok_or(FetchFault::DiscoveryUrl)?;
    Ok([
        format!("{bare}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ])
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Reads a metadata document. The issuer must be the configured one byte for byte, or any site that
/// can answer at this URL could name its own keys (RFC 8414 §3.3).
fn jwks_uri(document: &[u8], issuer: &str, plain: bool) -> Result<String, FetchFault> {
    let metadata: Metadata =
        serde_json::from_slice(document).map_err(|_| FetchFault::DiscoveryMalformed)?;
    if metadata.issuer != issuer {
        return Err(FetchFault::DiscoveryIssuer);
    }
    let url: ::http::Uri = metadata.jwks_uri.parse().map_err(|_| FetchFault::DiscoveryUrl)?;
    let scheme = match url.scheme_str() {
        Some("https") => true,
        Some("http") => plain,
        Some(_) | None => false,
    };
    let authority = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if scheme && authority && !metadata.jwks_uri.contains('#') {
        Ok(metadata.jwks_uri)
    } else {
        Err(FetchFault::DiscoveryUrl)
    }
}

const OK: u16 = 200;

#[cfg(test)]
mod tests;

//! One credential, ready to be written. The secret leaves its type here and nowhere else.

use zeroize::Zeroizing;

use crate::config::{ApiKeyPlace, Credential, CredentialKind};
use crate::reject::Reject;
use crate::secret::Secret;

/// A credential in memory. Dropped, it is wiped; hold it no longer than until the head is written.
pub struct UpstreamCredential {
    /// Where it may go; asserted again at each write (DESIGN §6).
    servers: Vec<usize>,
    place: ApiKeyPlace,
    secret: Secret,
}

impl UpstreamCredential {
    /// Joins a secret with its place.
    ///
    /// # Errors
    /// `CredentialUnavailable` when the secret is empty, or holds a byte that could end a header
    /// field and begin another (RFC 9110 §5.5), or when the kind sends nothing.
    pub fn new(credential: &Credential, secret: Secret) -> Result<Self, Reject> {
        let CredentialKind::ApiKey(key) = &credential.kind else {
            return Err(Reject::CredentialUnavailable);
        };
        if !key.place.takes(secret.expose()) {
            return Err(Reject::CredentialUnavailable);
        }
        let servers = credential.servers.clone();
        Ok(Self { servers, place: key.place.clone(), secret })
    }

    /// `credential.kind` of the audit record.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        "api_key"
    }

    /// The header field it occupies, lower case: the relay must not write that name from elsewhere.
    #[must_use]
    pub fn header_name(&self) -> Option<&str> {
        match &self.place {
            ApiKeyPlace::Header { name, .. } => Some(name),
            ApiKeyPlace::Query(_) => None,
        }
    }

    /// Appends the whole field line, CRLF included, to a head for `server`; nothing for a query
    /// key. `out` holds a secret afterwards and must be wiped.
    ///
    /// # Errors
    /// `CredentialUnavailable` when it may not be sent to `server`; `out` is untouched then.
    pub fn write_header(&self, server: usize, out: &mut Vec<u8>) -> Result<(), Reject> {
        self.assert_for(server)?;
        let ApiKeyPlace::Header { name, scheme } = &self.place else { return Ok(()) };
        let scheme = scheme.as_deref().unwrap_or_default();
        // Room is made before the secret is written: a vector that grows later leaves a copy
        // behind.
        out.reserve(name.len() + scheme.len() + self.secret.len() + SEPARATORS_BYTES);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        if !scheme.is_empty() {
            out.extend_from_slice(scheme.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.secret.expose());
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Appends `?name=key` or `&name=key`, percent-encoded, to the request line that `out` ends
    /// with; `target_start` is where the target begins in it. Nothing for a header key. `out` holds
    /// a secret afterwards and must be wiped.
    ///
    /// # Errors
    /// `CredentialUnavailable` when it may not be sent to `server`; `out` is untouched then.
    pub fn write_query(
        &self,
        server: usize,
        target_start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        self.assert_for(server)?;
        let ApiKeyPlace::Query(name) = &self.place else { return Ok(()) };
        let target = out.get(target_start..).ok_or(Reject::CredentialUnavailable)?;
        let separator = match (target.contains(&b'?'), target.last()) {
            (false, _) => Some(b'?'),
            (true, Some(b'?' | b'&')) => None,
            (true, _) => Some(b'&'),
        };
        out.reserve(3 * (name.len() + self.secret.len()) + SEPARATORS_BYTES);
        out.extend(separator);
        percent_encode(name.as_bytes(), out);
        out.push(b'=');
        percent_encode(self.secret.expose(), out);
        Ok(())
    }

    /// True when `bytes` hold the secret, as it is or as a query has it, or what stands in it
    /// behind a scheme (`Bearer`). For what came back from a server: it may say what it was sent.
    #[must_use]
    pub fn stands_in(&self, bytes: &[u8]) -> bool {
        let secret = self.secret.expose();
        let mut encoded = Zeroizing::new(Vec::with_capacity(3 * secret.len()));
        percent_encode(secret, &mut encoded);
        let behind = secret.iter().rposition(|byte| byte.is_ascii_whitespace());
        let behind = behind.and_then(|at| secret.get(at + 1..));
        [Some(secret), Some(encoded.as_slice()), behind].into_iter().flatten().any(|wanted| {
            !wanted.is_empty() && bytes.windows(wanted.len()).any(|piece| piece == wanted)
        })
    }

    /// Bytes that a write may append, for a buffer of fixed size.
    #[must_use]
    pub fn written_bytes_max(&self) -> usize {
        match &self.place {
            ApiKeyPlace::Header { name, scheme } => {
                let scheme = scheme.as_ref().map_or(0, String::len);
                name.len() + scheme + self.secret.len() + SEPARATORS_BYTES
            }
            ApiKeyPlace::Query(name) => 3 * (name.len() + self.secret.len()) + SEPARATORS_BYTES,
        }
    }

    fn assert_for(&self, server: usize) -> Result<(), Reject> {
        if self.servers.contains(&server) { Ok(()) } else { Err(Reject::CredentialUnavailable) }
    }
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// `": "`, the space behind a scheme, CRLF; or the separator and `=` of a query.
const SEPARATORS_BYTES: usize = 5;

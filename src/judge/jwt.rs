//! The JWT profile (RFC 9068, RFC 8725): what a token must be before anything in it is believed.
//!
//! jsonwebtoken gives key types and signature checks; its validation accepts a missing or mistyped
//! `aud`, `crit`, any `typ` and repeated claims, so none of it is used. Every rule stands here.
//! Cheap rules come first: a token that cannot be valid does not buy a signature check.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::UnixSeconds;
use crate::config::{Algorithm, TrustProvider};
use crate::judge::json::{self, JsonFault};
use crate::judge::keys::{Found, Key, KeyDigest, KeySet};
use crate::limits::TOKEN_BYTES_MAX;
use crate::reject::Reject;

/// The claims of a token whose signature, type and times held. Only [`check`] and
/// [`Unproved::verify`] make one.
pub struct Claims {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
    times: Times,
    /// The key that verified the signature; all 0 until one did.
    key: KeyDigest,
    all: Map<String, Value>,
}

/// When a token counts (RFC 7519 §4.1.4–§4.1.6), judged at every use, cached or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// `exp`.
    pub expires_at: UnixSeconds,
    /// `nbf`.
    pub not_before: Option<UnixSeconds>,
    /// `iat`.
    pub issued_at: Option<UnixSeconds>,
}

/// A refusal, and whether the issuer's newest keys could turn it into an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reject: Reject,
    /// The token names a key id that the set does not have.
    pub unknown_kid: bool,
}

/// A token read but not believed: its issuer may be looked at to find whose keys to use, nothing
/// else.
pub struct Unverified<'t> {
    jws: Jws<'t>,
    claims: Claims,
}

/// A token of which everything holds but the signature, which nobody has checked.
pub struct Unproved<'t, 'k> {
    jws: Jws<'t>,
    signer: Signer<'k>,
    claims: Claims,
}

/// Reads and judges a compact JWS against one provider and its keys.
///
/// # Errors
/// A 401 reason; [`Fault::unknown_kid`] tells that newer keys could help.
pub fn check(
    token: &[u8],
    provider: &TrustProvider,
    keys: &KeySet,
    now: UnixSeconds,
) -> Result<Claims, Fault> {
    Ok(Unverified::read(token)?.judge(provider, keys, now)?.verify()?)
}

impl Claims {
    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`, not empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `aud` as a list; a single string is a list of one.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// When the token counts.
    #[must_use]
    pub const fn times(&self) -> Times {
        self.times
    }

    /// Any top-level claim.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    /// The key that verified the signature.
    #[must_use]
    pub const fn key(&self) -> &KeyDigest {
        &self.key
    }

    /// Moves the parts out for whoever keeps them.
    #[must_use]
    pub fn into_audiences(self) -> Vec<String> {
        self.audiences
    }

    fn from_object(all: Map<String, Value>) -> Result<Self, Reject> {
        let issuer = required_text(&all, "iss")?;
        let subject = required_text(&all, "sub")?;
        let audiences = audiences(all.get("aud"))?;
        let times = Times {
            expires_at: moment(&all, "exp")?.ok_or(Reject::TokenClaim)?,
            not_before: moment(&all, "nbf")?,
            issued_at: moment(&all, "iat")?,
        };
        Ok(Self { issuer, subject, audiences, times, key: KeyDigest::default(), all })
    }
}

impl Times {
    /// Judges the moment `now` with `leeway` seconds for clocks that differ.
    ///
    /// # Errors
    /// [`Reject::TokenExpired`] or [`Reject::TokenNotYetValid`].
    pub fn judge(&self, now: UnixSeconds, leeway: u64) -> Result<(), Reject> {
        // RFC 7519 §4.1.4: refused on or after `exp`.
        if now.0 >= self.expires_at.0.saturating_add(leeway) {
            return Err(Reject::TokenExpired);
        }
        let latest = now.0.saturating_add(leeway);
        let future = |moment: Option<UnixSeconds>| moment.is_some_and(|at| at.0 > latest);
        // RFC 7519 §4.1.5 for `nbf`; a future `iat` is a forged or a badly set clock (stricter than
        // §4.1.6, which leaves it open).
        if future(self.not_before) || future(self.issued_at) {
            return Err(Reject::TokenNotYetValid);
        }
        Ok(())
    }
}

impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        Self { reject, unknown_kid: false }
    }
}

impl<'t> Unverified<'t> {
    /// Splits and reads a token; nothing of it is proved.
    ///
    /// # Errors
    /// Whatever rules the token out without a key.
    pub fn read(token: &'t [u8]) -> Result<Self, Reject> {
        let jws = Jws::split(token)?;
        let payload = decode(jws.payload)?;
        let claims = json::object(&payload).map_err(json_reject)?;
        Ok(Self { jws, claims: Claims::from_object(claims)? })
    }

    /// `iss` as claimed, to look up the trust provider.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.claims.issuer
    }

    /// Judges all but the signature against the provider of its issuer, and finds the key.
    ///
    /// # Errors
    /// See [`check`].
    pub fn judge<'k>(
        self,
        provider: &TrustProvider,
        keys: &'k KeySet,
        now: UnixSeconds,
    ) -> Result<Unproved<'t, 'k>, Fault> {
        // RFC 8725 §3.8: compared as exact bytes; no normalising, no trailing slash.
        if self.claims.issuer != provider.issuer {
            return Err(Reject::TokenIssuer.into());
        }
        token_type(self.jws.header.typ.as_deref(), provider.token_type.as_deref())?;
        // OIDC Core §2, §3.3.2.11: only ID tokens carry these. An ID token tells a client who
        // logged in; it is not a right to call anything (RFC 9068 §5 warns of the mix-up).
        if ID_TOKEN_CLAIMS.iter().any(|name| self.claims.all.contains_key(*name)) {
            return Err(Reject::TokenType.into());
        }
        // RFC 7800, RFC 9449 §6: bound to a key whose possession we cannot check (case T23).
        if self.claims.all.contains_key("cnf") {
            return Err(Reject::TokenBound.into());
        }
        self.claims.times.judge(now, provider.leeway_seconds)?;
        let signer = self.jws.signer(keys, &provider.algorithms)?;
        Ok(Unproved { jws: self.jws, signer, claims: self.claims })
    }
}

impl Unproved<'_, '_> {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`Reject::TokenSignature`].
    pub fn verify(mut self) -> Result<Claims, Reject> {
        self.claims.key = self.jws.verify(&self.signer)?;
        Ok(self.claims)
    }
}

/// A compact JWS (RFC 7515 §7.1) with a header that is understood to the full.
pub(crate) struct Jws<'t> {
    header: Header,
    payload: &'t str,
    signature: &'t str,
    signed: &'t str,
}

/// What we act on. `jku`, `x5u`, `x5c` and `jwk` would let a token bring its own key; they are
/// never read (RFC 8725 §3.10, case T08).
struct Header {
    algorithm: String,
    key_id: Option<String>,
    typ: Option<String>,
}

/// The key that a token names, and the algorithm that both agree on.
pub(crate) struct Signer<'k> {
    key: &'k Key,
    algorithm: Algorithm,
}

impl<'t> Jws<'t> {
    /// Splits and reads the header.
    pub(crate) fn split(token: &'t [u8]) -> Result<Self, Reject> {
        // The bound stands before everything that costs (case T17).
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Reject::TokenTooLarge);
        }
        let token = std::str::from_utf8(token).map_err(|_| Reject::TokenMalformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(Reject::TokenMalformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Reject::TokenMalformed)?;
        // Two dots exactly: four of them would be a JWE (RFC 7516 §7.1, case T19).
        if [header, payload, signature].iter().any(|part| !is_base64url(part)) {
            return Err(Reject::TokenMalformed);
        }
        // An unsigned token is one with an empty signature (RFC 7515 §6, cases T01, T05).
        if header.is_empty() || signature.is_empty() {
            return Err(Reject::TokenMalformed);
        }
        let header = json::object(&decode(header)?).map_err(json_reject)?;
        Ok(Self { header: Header::from_object(header)?, payload, signature, signed })
    }

    /// Finds the key.
    pub(crate) fn signer<'k>(
        &self,
        keys: &'k KeySet,
        allowed: &[Algorithm],
    ) -> Result<Signer<'k>, Fault> {
        let algorithm = named_algorithm(&self.header.algorithm)
            .filter(|named| allowed.contains(named))
            .ok_or(Reject::TokenAlgorithm)?;
        Ok(Signer { key: self.key(keys, algorithm)?, algorithm })
    }

    /// Checks the signature. Answers which key it was.
    pub(crate) fn verify(&self, signer: &Signer<'_>) -> Result<KeyDigest, Reject> {
        let Signer { key, algorithm } = *signer;
        if key.verifies(algorithm, self.signed.as_bytes(), self.signature) {
            Ok(key.digest())
        } else {
            Err(Reject::TokenSignature)
        }
    }

    fn key<'k>(&self, keys: &'k KeySet, algorithm: Algorithm) -> Result<&'k Key, Fault> {
        let Some(id) = &self.header.key_id else {
            // Trying every key would make each bad token cost a signature check per key.
            return keys.only(algorithm).ok_or_else(|| Reject::TokenKeyUnknown.into());
        };
        match keys.by_id(id, algorithm) {
            Found::Key(key) => Ok(key),
            // RFC 8725 §3.1: the key says which algorithm it serves, not the token (cases T02,
            // T03).
            Found::OtherAlgorithm => Err(Reject::TokenAlgorithm.into()),
            Found::Unknown => Err(Fault { reject: Reject::TokenKeyUnknown, unknown_kid: true }),
        }
    }

    /// The decoded payload, for callers that judge the signature alone.
    #[cfg(test)]
    pub(crate) fn payload(&self) -> Result<Zeroizing<Vec<u8>>, Reject> {
        decode(self.payload)
    }
}

impl Header {
    fn from_object(mut header: Map<String, Value>) -> Result<Self, Reject> {
        // RFC 7515 §4.1.11: extensions listed here must be understood; we understand none. An empty
        // list is invalid too, and `b64` (RFC 7797) changes what the signature covers.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(Reject::TokenCritical);
        }
        let mut text = |name: &str| match header.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Reject::TokenMalformed),
        };
        let algorithm = text("alg")?.ok_or(Reject::TokenAlgorithm)?;
        let (key_id, typ, cty) = (text("kid")?, text("typ")?, text("cty")?);
        // RFC 7519 §5.2: a token within a token. What the inner one says is not ours to unwrap.
        if cty.is_some_and(|cty| bare_type(&cty).eq_ignore_ascii_case("jwt")) {
            return Err(Reject::TokenMalformed);
        }
        Ok(Self { algorithm, key_id, typ })
    }
}

/// RFC 9068 §2.1, §4: `at+jwt` with or without `application/`, in any case (RFC 7515 §4.1.9).
fn token_type(typ: Option<&str>, wanted: Option<&str>) -> Result<(), Reject> {
    let Some(wanted) = wanted else { return Ok(()) };
    match typ {
        Some(typ) if bare_type(typ).eq_ignore_ascii_case(wanted) => Ok(()),
        Some(_) | None => Err(Reject::TokenType),
    }
}

fn bare_type(typ: &str) -> &str {
    match typ.split_at_checked(APPLICATION.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(APPLICATION) => rest,
        Some(_) | None => typ,
    }
}

/// Exact names; `none` in any spelling is not among them (cases T01, T02).
fn named_algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "ES256" => Some(Algorithm::Es256),
        "EdDSA" => Some(Algorithm::EdDsa),
        "PS256" => Some(Algorithm::Ps256),
        "RS256" => Some(Algorithm::Rs256),
        _ => None,
    }
}

fn required_text(all: &Map<String, Value>, name: &str) -> Result<String, Reject> {
    match all.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err(Reject::TokenClaim),
    }
}

/// RFC 7519 §2 `NumericDate`, of which we take whole seconds that fit: a float, a string or a
/// negative number is a token we cannot date (case T13).
fn moment(all: &Map<String, Value>, name: &str) -> Result<Option<UnixSeconds>, Reject> {
    match all.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(UnixSeconds).map(Some).ok_or(Reject::TokenClaim),
    }
}

/// RFC 7519 §4.1.3: a string or an array of strings; one element of another type spoils it all.
fn audiences(value: Option<&Value>) -> Result<Vec<String>, Reject> {
    let list = match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or(Reject::TokenClaim))
            .collect::<Result<_, _>>()?,
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err(Reject::TokenClaim);
        }
    };
    Ok(list)
}

fn is_base64url(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Strict: no padding, no white space, no set bits after the last octet (RFC 7515 §2, RFC 4648
/// §3.5), so that one token has one spelling. Wiped when it goes: encoded again, it is the token.
fn decode(part: &str) -> Result<Zeroizing<Vec<u8>>, Reject> {
    // Enough from the start, for what is written before a fault must not stay behind either.
    let mut bytes = Zeroizing::new(Vec::with_capacity(part.len()));
    match URL_SAFE_NO_PAD.decode_vec(part, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Reject::TokenMalformed),
    }
}

fn json_reject(fault: JsonFault) -> Reject {
    match fault {
        JsonFault::Malformed => Reject::TokenMalformed,
        JsonFault::Repeated => Reject::TokenClaim,
    }
}

const APPLICATION: &str = "application/";
const ID_TOKEN_CLAIMS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

#[cfg(test)]
mod tests;

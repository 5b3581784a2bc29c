//! Who asks: the user with its agent, or a workload, as the trust provider's rules read a token.
//!
//! Whatever is doubtful makes no principal at all, never a stronger or a different one.

use jiff::Timestamp;
use ring::digest;
use serde_json::Value;

use crate::config::{ClaimRule, ClaimTest, TrustProvider};
use crate::judge::jwt::Claims;
use crate::reject::Reject;

/// Who asks. Ids carry the provider's namespace, so equal claims of two issuers stay apart.
pub struct Principal {
    issuer: String,
    subject: String,
    user: Option<String>,
    agent: String,
    groups: Vec<String>,
    scopes: Vec<String>,
    acr: Option<String>,
    auth_time: Option<u64>,
    /// INVARIANT: covers every other field. A field that policy reads and the digest misses would
    /// let one caller's cached decision or credential answer another's request.
    digest: [u8; 32],
}

impl Principal {
    /// Reads a verified token by the rules of `provider`; `providers` are all of them, whose
    /// namespaces the provider without one may not imitate.
    ///
    /// # Errors
    /// [`Reject::TokenRule`], [`Reject::TokenUserClaimMissing`] or [`Reject::TokenClaim`].
    pub(crate) fn from_claims(
        claims: &Claims,
        provider: &TrustProvider,
        providers: &[TrustProvider],
    ) -> Result<Self, Reject> {
        if !provider.require.iter().all(|rule| holds(rule, claims)) {
            return Err(Reject::TokenRule);
        }
        let names = Names { provider, providers };
        let parts = Parts {
            issuer: claims.issuer().to_owned(),
            subject: claims.subject().to_owned(),
            user: user(claims, &names)?,
            agent: agent(claims, &names)?,
            groups: groups(claims, &names)?,
            scopes: scopes(claims)?,
            acr: optional_text(claims, "acr")?,
            auth_time: auth_time(claims)?,
        };
        Ok(Self::assemble(parts))
    }

    /// A principal from its parts. Only for `explain` and `policy test`, which judge callers that
    /// do not exist; on the request path there is [`Principal::from_claims`] alone.
    pub(crate) fn assemble(mut parts: Parts) -> Self {
        for list in [&mut parts.groups, &mut parts.scopes] {
            list.sort_unstable();
            list.dedup();
        }
        let digest = parts.digest();
        Self {
            issuer: parts.issuer,
            subject: parts.subject,
            user: parts.user,
            agent: parts.agent,
            groups: parts.groups,
            scopes: parts.scopes,
            acr: parts.acr,
            auth_time: parts.auth_time,
            digest,
        }
    }

    /// `iss`, byte for byte.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`, without namespace.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The namespaced user id; `None` = a workload without a human.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The namespaced agent id.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Namespaced groups, sorted, without repeats.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Scopes, sorted, without repeats.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// `acr`: how strongly the user logged in.
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// `auth_time`: when the user logged in, seconds since 1970.
    #[must_use]
    pub const fn auth_time(&self) -> Option<u64> {
        self.auth_time
    }

    /// Bytes outside of the value itself.
    #[must_use]
    pub(crate) fn heap_bytes(&self) -> usize {
        let options = [&self.user, &self.acr].into_iter().flatten().map(String::capacity);
        let lists = self.groups.iter().chain(&self.scopes);
        let items = lists.map(|text| size_of::<String>() + text.capacity());
        let texts = [&self.issuer, &self.subject, &self.agent].map(String::capacity);
        texts.into_iter().chain(options).chain(items).sum()
    }

    /// The identity digest: key of everything that is cached or stored for this principal.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// What a principal is made of; see the getters of [`Principal`].
#[derive(Clone, Default)]
pub(crate) struct Parts {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) user: Option<String>,
    pub(crate) agent: String,
    pub(crate) groups: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) acr: Option<String>,
    pub(crate) auth_time: Option<u64>,
}

impl Parts {
    /// Every part goes in with its length, every option with its presence and every list with its
    /// count: no two different principals give the same bytes.
    fn digest(&self) -> [u8; 32] {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut put = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        put(DIGEST_PURPOSE);
        put(self.issuer.as_bytes());
        put(self.subject.as_bytes());
        put(self.agent.as_bytes());
        for option in [&self.user, &self.acr] {
            put(&[u8::from(option.is_some())]);
            put(option.as_deref().unwrap_or_default().as_bytes());
        }
        put(&[u8::from(self.auth_time.is_some())]);
        put(&self.auth_time.unwrap_or_default().to_be_bytes());
        for list in [&self.groups, &self.scopes] {
            put(&(list.len() as u64).to_be_bytes());
            for item in list {
                put(item.as_bytes());
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        digest
    }
}

/// Turns claims into ids.
struct Names<'a> {
    provider: &'a TrustProvider,
    providers: &'a [TrustProvider],
}

impl Names<'_> {
    /// `<namespace>/<claim>`. Without a namespace the claim stands alone, unless it would read as
    /// an id of another provider's namespace: `hr/alice` of this issuer must never be `alice` of
    /// `hr`.
    fn id(&self, claim: &str) -> Option<String> {
        if claim.is_empty() {
            return None;
        }
        let namespace = &self.provider.namespace;
        if !namespace.is_empty() {
            return Some(format!("{namespace}/{claim}"));
        }
        let imitates = |other: &TrustProvider| {
            !other.namespace.is_empty()
                && claim
                    .strip_prefix(other.namespace.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if self.providers.iter().any(imitates) { None } else { Some(claim.to_owned()) }
    }
}

/// A workload by the provider's rules, else the user; nothing in between.
fn user(claims: &Claims, names: &Names<'_>) -> Result<Option<String>, Reject> {
    let provider = names.provider;
    let rules = &provider.workload;
    // No rules = never; an empty list would otherwise hold for every token.
    if !rules.is_empty() && rules.iter().all(|rule| holds(rule, claims)) {
        return Ok(None);
    }
    let missing = Reject::TokenUserClaimMissing;
    not_elsewhere(claims, &provider.user_claim).map_err(|_| missing)?;
    // An address that its owner never proved is a name anybody may take (OIDC Core §5.7).
    if provider.user_claim == "email" && !email_may_be_verified(claims) {
        return Err(missing);
    }
    let claim = claims.get(&provider.user_claim).and_then(Value::as_str).ok_or(missing)?;
    names.id(claim).map(Some).ok_or(missing)
}

/// Absent is left to the operator's trust in the issuer; anything but true is a no (some issuers
/// send the string).
fn email_may_be_verified(claims: &Claims) -> bool {
    match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => true,
        Some(Value::String(text)) => text == "true",
        Some(Value::Null | Value::Bool(false) | Value::Number(_)) => false,
        Some(Value::Array(_) | Value::Object(_)) => false,
    }
}

/// RFC 9068 §2.2 `client_id`; `azp` (OIDC Core §2) where an issuer has no `client_id` at all.
fn agent(claims: &Claims, names: &Names<'_>) -> Result<String, Reject> {
    let wanted = names.provider.agent_claim.as_str();
    let claim = match claims.get(wanted) {
        None if wanted == "client_id" => claims.get("azp"),
        found => found,
    };
    claim.and_then(Value::as_str).and_then(|id| names.id(id)).ok_or(Reject::TokenClaim)
}

/// Absent = none. Half-readable groups are refused, because a missing group may be the one that a
/// `forbid` names.
fn groups(claims: &Claims, names: &Names<'_>) -> Result<Vec<String>, Reject> {
    let claim = &names.provider.groups_claim;
    not_elsewhere(claims, claim)?;
    texts(claims.get(claim))?
        .into_iter()
        .map(|group| names.id(group).ok_or(Reject::TokenClaim))
        .collect()
}

/// OIDC Core §5.6.2: the claim's value lies elsewhere (how some issuers shorten long group lists),
/// so what the token shows is not the whole truth.
fn not_elsewhere(claims: &Claims, claim: &str) -> Result<(), Reject> {
    match claims.get("_claim_names").map(|names| names.get(claim)) {
        Some(Some(_)) => Err(Reject::TokenClaim),
        Some(None) | None => Ok(()),
    }
}

/// RFC 9068 §2.2.3 `scope`, else `scp` as some issuers write it (an array or a string).
fn scopes(claims: &Claims) -> Result<Vec<String>, Reject> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(list)) => {
            Ok(list.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
        other => Ok(texts(other)?.into_iter().map(str::to_owned).collect()),
    }
}

fn texts(value: Option<&Value>) -> Result<Vec<&str>, Reject> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().ok_or(Reject::TokenClaim)).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            Err(Reject::TokenClaim)
        }
        Some(Value::Object(_)) => Err(Reject::TokenClaim),
    }
}

fn optional_text(claims: &Claims, name: &str) -> Result<Option<String>, Reject> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(|text| Some(text.to_owned())).ok_or(Reject::TokenClaim),
    }
}

/// OIDC Core §2: seconds since 1970. A number that no calendar holds (milliseconds, mostly) is no
/// time, as a string is none: policies could not look at it.
fn auth_time(claims: &Claims) -> Result<Option<u64>, Reject> {
    let Some(value) = claims.get("auth_time") else { return Ok(None) };
    let is_time = |seconds: &u64| {
        i64::try_from(*seconds).is_ok_and(|seconds| Timestamp::from_second(seconds).is_ok())
    };
    value.as_u64().filter(is_time).map(Some).ok_or(Reject::TokenClaim)
}

/// An absent or mistyped claim never satisfies a rule.
fn holds(rule: &ClaimRule, claims: &Claims) -> bool {
    let claim = claims.get(&rule.claim);
    match &rule.test {
        ClaimTest::OneOf(allowed) => {
            let listed = |value: &Value| {
                value.as_str().is_some_and(|text| allowed.iter().any(|one| one == text))
            };
            match claim {
                Some(Value::Array(items)) => items.iter().any(listed),
                Some(value) => listed(value),
                None => false,
            }
        }
        ClaimTest::EqualsClaim(other) => {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            text(claim).is_some_and(|own| text(claims.get(other)) == Some(own))
        }
    }
}

const DIGEST_PURPOSE: &[u8] = b"portcullis identity 1";

#[cfg(test)]
mod tests;

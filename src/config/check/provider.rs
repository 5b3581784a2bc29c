//! `[[trust_provider]]`: whose tokens count.

use super::{Checker, second_use};
use crate::address::Reach;
use crate::config::fault::Place;
use crate::config::raw;
use crate::config::reader::At;
use crate::config::{Algorithm, ClaimRule, ClaimTest, KeySource, TrustProvider, UpstreamUrl};
use crate::limits::TRUST_PROVIDERS_MAX;

impl Checker<'_> {
    pub(super) fn trust_providers(&mut self, file: &raw::File) -> Vec<TrustProvider> {
        let raw = &file.trust_provider;
        if raw.is_empty() {
            let cure = "add a [[trust_provider]]; without one no token counts";
            self.report.missing(&file.place, "trust_provider", cure);
        }
        if let Some(surplus) = raw.get(TRUST_PROVIDERS_MAX) {
            let what = format!("more than {TRUST_PROVIDERS_MAX} trust providers");
            self.fault(&surplus.place, what, "remove some");
        }
        for name in second_use(raw.iter().map(|provider| provider.name.as_ref())) {
            self.fault(&name.place, "the same name twice", "rename one");
        }
        // Two rules for one `iss` would make the looser one decide.
        for issuer in second_use(raw.iter().map(|provider| provider.issuer.as_ref())) {
            self.fault(&issuer.place, "the same issuer twice", "merge the two trust providers");
        }
        self.namespaces(raw);
        raw.iter().filter_map(|provider| self.trust_provider(provider)).collect()
    }

    /// Two issuers in one namespace could name the same user (DESIGN §5).
    fn namespaces(&mut self, raw: &[raw::TrustProvider]) {
        let mut seen = hashbrown::HashSet::new();
        for provider in raw {
            let name = provider.namespace.as_ref().map_or("", |text| text.value.as_str());
            if !seen.insert(name) {
                let place = match &provider.namespace {
                    Some(text) => text.place.clone(),
                    None => provider.place.below("namespace"),
                };
                let cure = "give each its own; one at most may have none";
                self.fault(&place, "the same namespace as another trust provider", cure);
            }
        }
    }

    fn trust_provider(&mut self, raw: &raw::TrustProvider) -> Option<TrustProvider> {
        let name = self.name(&raw.name, &raw.place);
        let trust_private_addresses = raw.trust_private_addresses.as_ref().is_some_and(|v| v.value);
        let issuer = self.issuer(raw);
        let keys = self.key_source(raw, trust_private_addresses);
        let algorithms = self.algorithms(raw);
        let namespace = self.namespace(raw);
        let token_type = match &raw.token_type {
            Some(text) if text.value == "any" => Some(None),
            Some(text) if text.value != "at+jwt" => {
                self.fault(&text.place, "unknown value", "write \"at+jwt\" or \"any\"");
                None
            }
            Some(_) | None => Some(Some("at+jwt".to_owned())),
        };
        let leeway_seconds = self.number(&raw.leeway_seconds, 30, 0, 60);
        let audiences = self.audiences(raw);
        let ca_file = match &raw.ca_file {
            Some(path) => self.file(path).map(Some),
            None => Some(None),
        };
        let user_claim = self.word(&raw.user_claim, "email", CLAIM_BYTES_MAX);
        let groups_claim = self.word(&raw.groups_claim, "groups", CLAIM_BYTES_MAX);
        let agent_claim = self.word(&raw.agent_claim, "client_id", CLAIM_BYTES_MAX);
        let require = self.rules(&raw.require);
        let workload = self.rules(&raw.workload);
        Some(TrustProvider {
            name: name?,
            issuer: issuer?,
            keys: keys?,
            algorithms: algorithms?,
            namespace: namespace?,
            token_type: token_type?,
            leeway_seconds: leeway_seconds?,
            audiences,
            trust_private_addresses,
            ca_file: ca_file?,
            user_claim: user_claim?,
            groups_claim: groups_claim?,
            agent_claim: agent_claim?,
            require,
            workload,
        })
    }

    fn issuer(&mut self, raw: &raw::TrustProvider) -> Option<String> {
        let Some(issuer) = &raw.issuer else {
            self.report.missing(&raw.place, "issuer", "write the `iss` of its tokens");
            return None;
        };
        let word = self.word(&raw.issuer, "", ISSUER_BYTES_MAX)?;
        // RFC 8414 §2: an issuer is an https URL without query and fragment; RFC 9728 lists it for
        // clients.
        if !word.starts_with("https://") {
            let cure = "expect clients that cannot find their authorization server";
            self.report.warn(&issuer.place, "not an https:// URL", cure);
        }
        Some(word)
    }

    fn key_source(&mut self, raw: &raw::TrustProvider, private: bool) -> Option<KeySource> {
        match (&raw.jwks_url, &raw.jwks_file) {
            (Some(_), Some(file)) => {
                self.fault(&file.place, "both jwks_url and jwks_file", "keep one of the two");
                None
            }
            (Some(url), None) => {
                self.fetch_url(url, private, "write an https:// URL")?;
                Some(KeySource::Url(url.value.clone()))
            }
            (None, Some(path)) => self.file(path).map(KeySource::File),
            (None, None) => {
                let issuer = raw.issuer.as_ref()?;
                let cure =
                    "write an https:// URL, or say where the keys are with jwks_url or jwks_file";
                let url = self.fetch_url(issuer, private, cure)?;
                if url.target.contains('?') {
                    // RFC 8414 §2: the well-known path is put behind it.
                    self.fault(&issuer.place, "has a query", cure);
                }
                Some(KeySource::Discovery)
            }
        }
    }

    /// A URL that keys are fetched from: whoever answers it decides who may come in.
    fn fetch_url(&mut self, text: &At<String>, private: bool, cure: &str) -> Option<UpstreamUrl> {
        let url = match UpstreamUrl::parse(&text.value) {
            Ok(url) => url,
            Err(what) => {
                self.fault(&text.place, what, cure);
                return None;
            }
        };
        self.url_reach(&url, &text.place, private);
        Some(url)
    }

    /// Scheme and address literal of a URL against `trust_private_addresses`.
    pub(super) fn url_reach(&mut self, url: &UpstreamUrl, place: &Place, private: bool) {
        if !url.tls && !private {
            let cure = "write https://, or set trust_private_addresses = true if it is next door";
            self.fault(place, "plain http", cure);
        }
        match url.reach() {
            // What a name leads to is judged when it is resolved, by the same rule.
            Reach::Public if private && !url.tls && url.literal.is_some() => {
                let cure = "write https://; plain http never leaves a private network";
                self.fault(place, "plain http to a public address", cure);
            }
            Reach::Public if private && !url.tls => {
                let cure = "write https://, unless it only has private addresses";
                self.report.warn(place, "plain http: no public address is dialled", cure);
            }
            Reach::Public => {}
            Reach::Private if private => {}
            Reach::Private => {
                let cure = "set trust_private_addresses = true if this is meant";
                self.fault(place, "a loopback or private address", cure);
            }
            Reach::Forbidden => {
                let cure = "use another address; no setting allows link-local, metadata, \
                            multicast or reserved ones";
                self.fault(place, "a forbidden address", cure);
            }
        }
    }

    fn algorithms(&mut self, raw: &raw::TrustProvider) -> Option<Vec<Algorithm>> {
        let Some(list) = &raw.algorithms else {
            return Some(vec![Algorithm::Es256, Algorithm::Rs256]);
        };
        if list.value.is_empty() {
            self.fault(&list.place, "no algorithm", "write ES256, EdDSA, PS256 or RS256");
            return None;
        }
        let mut algorithms = Vec::new();
        let mut valid = true;
        for text in &list.value {
            let algorithm = match text.value.as_str() {
                "ES256" => Algorithm::Es256,
                "EdDSA" => Algorithm::EdDsa,
                "PS256" => Algorithm::Ps256,
                "RS256" => Algorithm::Rs256,
                // RFC 8725 §3.1: shared keys and "none" would let a verifier's secret or nobody
                // sign.
                _ => {
                    let cure = "write ES256, EdDSA, PS256 or RS256";
                    self.fault(&text.place, "not an accepted algorithm", cure);
                    valid = false;
                    continue;
                }
            };
            if algorithms.contains(&algorithm) {
                self.fault(&text.place, "the same algorithm twice", "remove one");
                valid = false;
            }
            algorithms.push(algorithm);
        }
        valid.then_some(algorithms)
    }

    fn namespace(&mut self, raw: &raw::TrustProvider) -> Option<String> {
        let Some(text) = &raw.namespace else { return Some(String::new()) };
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.value.len() <= 64 && text.value.bytes().all(valid) {
            return Some(text.value.clone());
        }
        // A slash would let "a/b" + "c" and "a" + "b/c" be the same user.
        let cure = "write at most 64 of a-z, A-Z, 0-9, '-', '_' and '.'";
        self.fault(&text.place, "not a namespace", cure);
        None
    }

    fn audiences(&mut self, raw: &raw::TrustProvider) -> Vec<String> {
        let Some(list) = &raw.audiences else { return Vec::new() };
        for text in &list.value {
            if text.value.is_empty() || text.value.chars().any(char::is_control) {
                self.fault(&text.place, "not an audience", "write the `aud` byte for byte");
            }
        }
        if !list.value.is_empty() {
            // RFC 8707 §2, RFC 9068 §4: a token for someone else can be replayed here by that
            // someone.
            let cure = "prefer tokens issued for the gateway's own URLs";
            self.report.warn(&list.place, "tokens meant for other audiences are accepted", cure);
        }
        list.value.iter().map(|text| text.value.clone()).collect()
    }

    fn rules(&mut self, raw: &[raw::ClaimRule]) -> Vec<ClaimRule> {
        raw.iter().filter_map(|rule| self.rule(rule)).collect()
    }

    fn rule(&mut self, raw: &raw::ClaimRule) -> Option<ClaimRule> {
        if raw.claim.is_none() {
            self.report.missing(&raw.place, "claim", "name a claim of the token");
        }
        let claim = self.word(&raw.claim, "", CLAIM_BYTES_MAX);
        let test = match (&raw.one_of, &raw.equals_claim) {
            (Some(list), None) if list.value.is_empty() => {
                self.fault(&list.place, "no value: the rule could never hold", "add one");
                None
            }
            (Some(list), None) => {
                Some(ClaimTest::OneOf(list.value.iter().map(|text| text.value.clone()).collect()))
            }
            (None, Some(_)) => {
                self.word(&raw.equals_claim, "", CLAIM_BYTES_MAX).map(ClaimTest::EqualsClaim)
            }
            (Some(_), Some(other)) => {
                self.fault(&other.place, "both one_of and equals_claim", "write two rules");
                None
            }
            (None, None) => {
                self.report.missing(&raw.place, "one_of", "write one_of or equals_claim");
                None
            }
        };
        Some(ClaimRule { claim: claim?, test: test? })
    }
}

const CLAIM_BYTES_MAX: usize = 128;
const ISSUER_BYTES_MAX: usize = 512;

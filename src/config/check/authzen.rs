//! `[policy.authzen]`.

use super::Checker;
use crate::config::raw;
use crate::config::reader::At;
use crate::config::{AuthZen, SecretSource, UpstreamUrl};

impl Checker<'_> {
    pub(super) fn authzen(&mut self, raw: &raw::AuthZen) -> Option<AuthZen> {
        let private = raw.trust_private_addresses.as_ref().is_some_and(|it| it.value);
        let url = self.authzen_url(raw, private);
        for identity in [&raw.certificate, &raw.private_key].into_iter().flatten() {
            self.not_built(&identity.place, "a client certificate");
        }
        let timeout_ms = self.number(&raw.timeout_ms, TIMEOUT_MS_DEFAULT, 50, 5_000);
        let permit_ttl = self.number(&raw.permit_ttl_seconds, 0, 0, PERMIT_TTL_SECONDS_MAX);
        let in_flight = self.number(&raw.in_flight_per_core_max, IN_FLIGHT_DEFAULT, 1, 65_536);
        let ca_file = match &raw.ca_file {
            Some(path) => self.file(path).map(Some),
            None => Some(None),
        };
        let bearer = match &raw.bearer {
            Some(text) => self.bearer(text).map(Some),
            None => Some(None),
        };
        let url = url?;
        if let (false, Some(text)) = (url.tls, &raw.ca_file) {
            self.fault(&text.place, "plain http with a ca_file", "write https:// in url");
        }
        Some(AuthZen {
            url,
            timeout_ms: timeout_ms?,
            in_flight_per_core_max: usize::try_from(in_flight?).ok()?,
            permit_ttl_seconds: permit_ttl?,
            ca_file: ca_file?,
            bearer: bearer?,
            trust_private_addresses: private,
        })
    }

    /// A secret that can be read now, and can stand in a header.
    fn bearer(&mut self, text: &At<String>) -> Option<SecretSource> {
        let source = self.secret_source(text)?;
        match source.read_for_header_with(self.environment) {
            Ok(_) => Some(source),
            Err(fault) => {
                self.secret_fault(&text.place, fault);
                None
            }
        }
    }

    fn authzen_url(&mut self, raw: &raw::AuthZen, private: bool) -> Option<UpstreamUrl> {
        let Some(text) = &raw.url else {
            self.report.missing(&raw.place, "url", "write https://HOST or https://HOST:PORT");
            return None;
        };
        // It is compared byte for byte with what the decision point says of itself.
        let parsed = UpstreamUrl::parse(&text.value).ok();
        let Some(url) = parsed.filter(|url| url.origin() == text.value) else {
            let cure = "write https://HOST or https://HOST:PORT, without a path or a slash";
            self.fault(&text.place, "not an origin in canonical form", cure);
            return None;
        };
        self.url_reach(&url, &text.place, private);
        Some(url)
    }
}

/// No answer stands for longer, kept or not.
const PERMIT_TTL_SECONDS_MAX: u64 = 60;
const TIMEOUT_MS_DEFAULT: u64 = 1_000;
const IN_FLIGHT_DEFAULT: u64 = 1_024;

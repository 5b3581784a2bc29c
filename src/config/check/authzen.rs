//! `[policy.authzen]`.

use super::Checker;
use crate::config::raw;
use crate::config::reader::At;
use crate::config::{
    AuthZen, Certified, CertifiedFault, ClientCertificate, SecretSource, UpstreamUrl,
};

impl Checker<'_> {
    pub(super) fn authzen(&mut self, raw: &raw::AuthZen) -> Option<AuthZen> {
        let private = raw.trust_private_addresses.as_ref().is_some_and(|it| it.value);
        let url = self.authzen_url(raw, private);
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
        let client = self.client_certificate(raw);
        let url = url?;
        for (text, what) in [
            (&raw.ca_file, "plain http with a ca_file"),
            (&raw.certificate, "plain http with a client certificate"),
        ] {
            if let (false, Some(text)) = (url.tls, text) {
                self.fault(&text.place, what, "write https:// in url");
            }
        }
        Some(AuthZen {
            url,
            timeout_ms: timeout_ms?,
            in_flight_per_core_max: usize::try_from(in_flight?).ok()?,
            permit_ttl_seconds: permit_ttl?,
            ca_file: ca_file?,
            client: client?,
            bearer: bearer?,
            trust_private_addresses: private,
        })
    }

    /// Both or neither, and fit for use as they are now.
    fn client_certificate(&mut self, raw: &raw::AuthZen) -> Option<Option<ClientCertificate>> {
        let (certificate, private_key) = match (&raw.certificate, &raw.private_key) {
            (None, None) => return Some(None),
            (Some(certificate), Some(private_key)) => (certificate, private_key),
            (None, Some(_)) => {
                let cure = "name a PEM file with the chain that private_key is the key of";
                self.report.missing(&raw.place, "certificate", cure);
                return None;
            }
            (Some(_), None) => {
                let cure = "write \"credential:NAME\" or \"file:PATH\"";
                self.report.missing(&raw.place, "private_key", cure);
                return None;
            }
        };
        let path = self.file(certificate);
        let source = self.secret_source(private_key).and_then(|source| {
            match source.read_with(self.environment) {
                Ok(key) => Some((source, key)),
                Err(fault) => {
                    self.secret_fault(&private_key.place, fault);
                    None
                }
            }
        });
        let (path, (source, key)) = (path?, source?);
        match Certified::load(&path, &key) {
            Ok(_) => Some(Some(ClientCertificate { certificate: path, private_key: source })),
            Err(CertifiedFault::Certificate(what)) => {
                self.fault(&certificate.place, what, "name a PEM file with the chain, leaf first");
                None
            }
            Err(CertifiedFault::Key(what)) => {
                self.fault(&private_key.place, what, "name the PEM key of certificate");
                None
            }
        }
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

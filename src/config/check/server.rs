//! `[[server]]` and `[[credential]]`, which refer to each other.

use super::{Checker, second_use};
use crate::config::raw::{self, Number};
use crate::config::reader::At;
use crate::config::source::{SecretFault, is_field_value};
use crate::config::{ApiKey, ApiKeyPlace, Credential, CredentialKind, Server, UpstreamUrl};
use crate::limits::{CREDENTIALS_MAX, PREFIX_BYTES_MAX, SERVERS_MAX};

impl Checker<'_> {
    pub(super) fn servers_and_credentials(
        &mut self,
        file: &raw::File,
    ) -> (Vec<Server>, Vec<Credential>) {
        if file.server.is_empty() {
            let cure = "add a [[server]] with a name and a url";
            self.report.missing(&file.place, "server", cure);
        }
        if let Some(surplus) = file.server.get(SERVERS_MAX) {
            self.fault(&surplus.place, format!("more than {SERVERS_MAX} servers"), "remove some");
        }
        if let Some(surplus) = file.credential.get(CREDENTIALS_MAX) {
            let what = format!("more than {CREDENTIALS_MAX} credentials");
            self.fault(&surplus.place, what, "remove some");
        }
        let servers = file.server.iter().map(|server| server.name.as_ref());
        let credentials = file.credential.iter().map(|credential| credential.name.as_ref());
        for name in second_use(servers).into_iter().chain(second_use(credentials)) {
            self.fault(&name.place, "the same name twice", "rename one");
        }
        self.prefixes(&file.server);
        // Indexes refer to the written order; a table with a fault ends in no `Config` at all.
        let servers = file.server.iter().filter_map(|server| self.server(server, file)).collect();
        let credentials = file
            .credential
            .iter()
            .filter_map(|credential| self.credential(credential, file))
            .collect();
        (servers, credentials)
    }

    /// With one prefix for two servers, `github_search` would be a tool of either (DESIGN §8).
    fn prefixes(&mut self, servers: &[raw::Server]) {
        let mut seen = hashbrown::HashSet::new();
        for server in servers {
            let Some(text) = server.prefix.as_ref().or(server.name.as_ref()) else { continue };
            let named_twice = server.prefix.is_none()
                && servers.iter().any(|other| {
                    !std::ptr::eq(other, server)
                        && other.name.as_ref().is_some_and(|name| name.value == text.value)
                });
            if !seen.insert(text.value.to_ascii_lowercase()) && !named_twice {
                let cure = "give each server its own prefix";
                self.fault(&text.place, "the same tool prefix as another server", cure);
            }
        }
    }

    fn server(&mut self, raw: &raw::Server, file: &raw::File) -> Option<Server> {
        let name = self.name(&raw.name, &raw.place);
        let trust_private_addresses = raw.trust_private_addresses.as_ref().is_some_and(|v| v.value);
        let url = self.server_url(raw, trust_private_addresses);
        let credential = self.default_credential(raw, file);
        let prefix = self.prefix(raw, name.as_deref(), file.server.len() == 1);
        let max = self.number(&raw.max_seconds, MAX_SECONDS_DEFAULT, 1, 86_400);
        let timeout = self.wait(&raw.timeout_seconds, TIMEOUT_SECONDS_DEFAULT, 600, max);
        let idle = self.wait(&raw.idle_seconds, IDLE_SECONDS_DEFAULT, 86_400, max);
        let ca_file = match &raw.ca_file {
            Some(path) => self.file(path).map(Some),
            None => Some(None),
        };
        Some(Server {
            name: name?,
            url: url?,
            credential: credential?,
            prefix: prefix?,
            timeout_seconds: timeout?,
            idle_seconds: idle?,
            max_seconds: max?,
            share_public_results: raw.share_public_results.as_ref().is_some_and(|v| v.value),
            trust_private_addresses,
            ca_file: ca_file?,
        })
    }

    /// Seconds of one wait within an answer of at most `max` seconds; a default is cut to fit.
    fn wait(&mut self, raw: &Number, default: u64, longest: u64, max: Option<u64>) -> Option<u64> {
        let max = max.unwrap_or(u64::MAX);
        let seconds = self.number(raw, default.min(max), 1, longest)?;
        if let Some(number) = raw.as_ref().filter(|_| seconds > max) {
            let what = format!("{seconds} seconds can never pass within max_seconds = {max}");
            self.fault(&number.place, what, "make it smaller, or max_seconds larger");
        }
        Some(seconds)
    }

    fn server_url(&mut self, raw: &raw::Server, private: bool) -> Option<UpstreamUrl> {
        let Some(text) = &raw.url else {
            self.report.missing(&raw.place, "url", "write the https:// URL of its MCP endpoint");
            return None;
        };
        match UpstreamUrl::parse(&text.value) {
            Ok(url) => {
                self.url_reach(&url, &text.place, private);
                if !url.tls && raw.ca_file.is_some() {
                    self.fault(&text.place, "plain http with a ca_file", "write https://");
                }
                Some(url)
            }
            Err(what) => {
                self.fault(&text.place, what, "write https://HOST/PATH");
                None
            }
        }
    }

    /// `Some(None)`: no credential is named. `None`: a fault.
    fn default_credential(&mut self, raw: &raw::Server, file: &raw::File) -> Option<Option<usize>> {
        let Some(text) = &raw.credential else { return Some(None) };
        let named = |credential: &raw::Credential| {
            credential.name.as_ref().is_some_and(|name| name.value == text.value)
        };
        let Some(index) = file.credential.iter().position(named) else {
            self.fault(
                &text.place,
                "no [[credential]] has this name",
                "add it, or correct the name",
            );
            return None;
        };
        // DESIGN §6: a credential goes only where its owner said it may.
        let list = file.credential.get(index).and_then(|credential| credential.servers.as_ref());
        if let (Some(list), Some(name)) = (list, &raw.name)
            && !list.value.iter().any(|server| server.value == name.value)
        {
            let cure = format!("add {:?} to its servers, or name another", name.value);
            self.fault(&text.place, "this credential may not be sent to this server", cure);
            return None;
        }
        Some(Some(index))
    }

    fn prefix(
        &mut self,
        raw: &raw::Server,
        name: Option<&str>,
        only_server: bool,
    ) -> Option<String> {
        let Some(text) = &raw.prefix else { return name.map(str::to_owned) };
        // The underscore ends the prefix in `prefix_tool`.
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if text.value.is_empty() && !only_server {
            let cure = "name one, or leave it out for the server's name";
            self.fault(&text.place, "no prefix beside other servers", cure);
            return None;
        }
        if text.value.len() <= PREFIX_BYTES_MAX && text.value.bytes().all(valid) {
            return Some(text.value.clone());
        }
        self.fault(&text.place, "not a prefix", "write 1 to 32 of A-Z, a-z, 0-9 and -");
        None
    }

    fn credential(&mut self, raw: &raw::Credential, file: &raw::File) -> Option<Credential> {
        let name = self.name(&raw.name, &raw.place);
        let servers = self.credential_servers(raw, file);
        let kind = self.credential_kind(raw, file);
        Some(Credential { name: name?, servers: servers?, kind: kind? })
    }

    fn credential_servers(
        &mut self,
        raw: &raw::Credential,
        file: &raw::File,
    ) -> Option<Vec<usize>> {
        let Some(list) = &raw.servers else {
            if file.server.len() == 1 {
                return Some(vec![0]);
            }
            let cure = "list the servers that it may be sent to";
            self.report.missing(&raw.place, "servers", cure);
            return None;
        };
        if list.value.is_empty() {
            self.fault(&list.place, "no server: it could never be sent", "name one");
            return None;
        }
        let mut indexes = Vec::new();
        let mut valid = true;
        for text in &list.value {
            let named = |server: &raw::Server| {
                server.name.as_ref().is_some_and(|name| name.value == text.value)
            };
            match file.server.iter().position(named) {
                Some(index) if indexes.contains(&index) => {
                    self.fault(&text.place, "the same server twice", "remove one");
                    valid = false;
                }
                Some(index) => indexes.push(index),
                None => {
                    let cure = "add it, or correct the name";
                    self.fault(&text.place, "no [[server]] has this name", cure);
                    valid = false;
                }
            }
        }
        valid.then_some(indexes)
    }

    fn credential_kind(
        &mut self,
        raw: &raw::Credential,
        file: &raw::File,
    ) -> Option<CredentialKind> {
        let Some(kind) = &raw.kind else {
            self.report.missing(&raw.place, "kind", "write \"api_key\" or \"none\"");
            return None;
        };
        match kind.value.as_str() {
            "api_key" => self.api_key(raw, file).map(CredentialKind::ApiKey),
            "none" => {
                let keys = [&raw.header, &raw.scheme, &raw.query, &raw.secret];
                for text in keys.into_iter().flatten() {
                    let cure = "remove it, or write kind = \"api_key\"";
                    self.fault(&text.place, "kind \"none\" sends nothing", cure);
                }
                Some(CredentialKind::None)
            }
            "oauth_authorization_code"
            | "oauth_client_credentials"
            | "token_exchange"
            | "id_jag" => {
                self.not_built(&kind.place, &format!("kind \"{}\"", kind.value));
                None
            }
            _ => {
                self.fault(&kind.place, "unknown value", "write \"api_key\" or \"none\"");
                None
            }
        }
    }

    fn api_key(&mut self, raw: &raw::Credential, file: &raw::File) -> Option<ApiKey> {
        let place = self.api_key_place(raw, file);
        let Some(text) = &raw.secret else {
            self.report.missing(&raw.place, "secret", "write \"credential:NAME\" or \"file:PATH\"");
            return None;
        };
        let secret = self.secret_source(text)?;
        let place = place?;
        match secret.read_with(self.environment) {
            Ok(bytes) if place.takes(bytes.expose()) => Some(ApiKey { place, secret }),
            Ok(_) => {
                self.secret_fault(&text.place, SecretFault::NotForHeaders);
                None
            }
            Err(fault) => {
                self.secret_fault(&text.place, fault);
                None
            }
        }
    }

    fn api_key_place(&mut self, raw: &raw::Credential, file: &raw::File) -> Option<ApiKeyPlace> {
        match (&raw.header, &raw.query) {
            (Some(header), None) => {
                let name = self.header_name(header);
                let scheme = match &raw.scheme {
                    Some(scheme) if is_token(&scheme.value) => Some(Some(scheme.value.clone())),
                    Some(scheme) => {
                        let cure = "write one word, such as Bearer";
                        self.fault(&scheme.place, "not an authentication scheme", cure);
                        None
                    }
                    None => Some(None),
                };
                Some(ApiKeyPlace::Header { name: name?, scheme: scheme? })
            }
            (None, Some(query)) => {
                if let Some(scheme) = &raw.scheme {
                    self.fault(&scheme.place, "a scheme goes with header only", "remove it");
                }
                self.query_name(query, raw, file)
            }
            (Some(_), Some(query)) => {
                self.fault(&query.place, "both header and query", "keep one of the two");
                None
            }
            (None, None) => {
                let cure = "write header = \"X-Api-Key\" or query = \"key\"";
                self.report.missing(&raw.place, "header", cure);
                None
            }
        }
    }

    fn header_name(&mut self, header: &At<String>) -> Option<String> {
        let name = header.value.to_ascii_lowercase();
        if !is_token(&name) {
            self.fault(&header.place, "not a header name", "write one such as X-Api-Key");
            return None;
        }
        // These frame the message, route it, or belong to MCP: a key in one would change what is
        // sent.
        if RESERVED_HEADERS.contains(&name.as_str()) || name.starts_with("mcp-") {
            let cure = "use Authorization or a header of its own";
            self.fault(&header.place, "this header is the gateway's to write", cure);
            return None;
        }
        Some(name)
    }

    fn query_name(
        &mut self,
        query: &At<String>,
        raw: &raw::Credential,
        file: &raw::File,
    ) -> Option<ApiKeyPlace> {
        let name = self.word(&raw.query, "", QUERY_NAME_BYTES_MAX)?;
        // Two parameters of one name: which of them counts is the upstream's guess.
        let mine = |server: &&raw::Server| match (&raw.servers, &server.name) {
            (Some(list), Some(name)) => list.value.iter().any(|text| text.value == name.value),
            (None, _) | (_, None) => true,
        };
        let urls = file.server.iter().filter(mine).filter_map(|server| server.url.as_ref());
        let clash = urls.into_iter().any(|url| {
            let pairs = url.value.split_once('?').map_or("", |(_, pairs)| pairs);
            pairs.split('&').any(|pair| pair.split('=').next() == Some(name.as_str()))
        });
        if clash {
            let cure = "remove it from the URL, or rename one";
            self.fault(
                &query.place,
                "the url of its server has this query parameter already",
                cure,
            );
            return None;
        }
        Some(ApiKeyPlace::Query(name))
    }
}

impl ApiKeyPlace {
    /// Whether `secret` can be written here: a header takes no byte that could end it (RFC 9110
    /// §5.5), a query takes everything because it is percent-encoded.
    pub(crate) fn takes(&self, secret: &[u8]) -> bool {
        match self {
            Self::Header { .. } => is_field_value(secret),
            Self::Query(_) => !secret.is_empty(),
        }
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(valid)
}

const TIMEOUT_SECONDS_DEFAULT: u64 = 30;
const IDLE_SECONDS_DEFAULT: u64 = 300;
const MAX_SECONDS_DEFAULT: u64 = 3_600;
const QUERY_NAME_BYTES_MAX: usize = 64;

/// Lower case. Hop-by-hop fields (RFC 9110 §7.6.1), framing, routing, and what the relay writes
/// itself.
const RESERVED_HEADERS: [&str; 24] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
];

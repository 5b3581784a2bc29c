//! `public_url`, `[listen]`, `[cores]` and `[admin]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Checker, is_file_name, one_of};
use crate::address::Network;
use crate::config::fault::Place;
use crate::config::raw;
use crate::config::reader::At;
use crate::config::url::{is_loopback_host, parse_authority};
use crate::config::{
    Admin, Cores, Driver, Listen, ListenAddress, ListenTls, Proxy, SecretFault, SecretSource,
    UpstreamUrl,
};
use crate::limits::TRUSTED_PROXIES_MAX;

impl Checker<'_> {
    pub(super) fn listen(&mut self, file: &raw::File) -> Option<(String, Listen)> {
        let Some(listen) = &file.listen else {
            self.report.missing(&file.place, "listen", "add a [listen] table with an address");
            return None;
        };
        let address = self.listen_address(listen);
        let loopback =
            matches!(&address, Some(ListenAddress::Socket(address)) if is_loopback(*address));
        let proxies = self.proxies(listen);
        let origins = self.origins(listen);
        let mut hosts = self.hosts(listen, loopback);
        let tls = self.listen_tls(listen, loopback);
        let address = address?;
        let public = self.public_url(file, listen, &address, tls.is_some())?;
        hosts.retain(|host| *host != public.authority);
        hosts.insert(0, public.authority.clone());
        let (proxy, trusted_proxies) = proxies?;
        let origins = origins?;
        let listen = Listen { address, hosts, loopback, origins, proxy, trusted_proxies, tls };
        Some((public.origin(), listen))
    }

    fn listen_address(&mut self, listen: &raw::Listen) -> Option<ListenAddress> {
        let Some(text) = &listen.address else {
            self.report.missing(&listen.place, "address", "write ADDRESS:PORT or fd:NAME");
            return None;
        };
        match text.value.strip_prefix("fd:") {
            Some(name) if is_file_name(name) => Some(ListenAddress::Passed(name.to_owned())),
            Some(_) => {
                let cure = "write the FileDescriptorName= of the socket unit";
                self.fault(&text.place, "not a name of a passed socket", cure);
                None
            }
            None => self.address(text).map(ListenAddress::Socket),
        }
    }

    fn public_url(
        &mut self,
        file: &raw::File,
        listen: &raw::Listen,
        address: &ListenAddress,
        tls: bool,
    ) -> Option<UpstreamUrl> {
        let Some(text) = &file.public_url else {
            let socket = match address {
                ListenAddress::Socket(socket) if is_loopback(*socket) => *socket,
                ListenAddress::Socket(_) | ListenAddress::Passed(_) => {
                    let cure = "write the https:// origin that agents use; \
                                only a loopback listener has a default";
                    self.report.missing(&file.place, "public_url", cure);
                    return None;
                }
            };
            return Some(default_url(socket, tls));
        };
        let url = match UpstreamUrl::parse(&text.value) {
            Ok(url) => url,
            Err(what) => {
                self.fault(&text.place, what, "write https://HOST or https://HOST:PORT");
                return None;
            }
        };
        // Compared byte for byte with `aud` of every token, so only one spelling may exist.
        if url.origin() != text.value {
            let cure = format!("write \"{}\"", url.origin());
            self.fault(
                &text.place,
                "not in canonical form (lower case, no default port, no path)",
                cure,
            );
            return None;
        }
        if !url.tls && !url.is_loopback() {
            let cure = "write https://; plain http is for loopback only";
            self.fault(&text.place, "tokens would travel in the clear", cure);
        }
        if !url.tls && listen.tls.is_some() {
            self.fault(&text.place, "is http, but the listener speaks TLS", "write https://");
        }
        let reachable = matches!(address, ListenAddress::Socket(socket) if !is_loopback(*socket));
        if url.is_loopback() && reachable {
            let cure = "write the name that agents use, or listen on loopback only";
            self.fault(&text.place, "names loopback, but the listener is open to others", cure);
        }
        Some(url)
    }

    fn hosts(&mut self, listen: &raw::Listen, loopback: bool) -> Vec<String> {
        let mut hosts = Vec::new();
        for host in listen.hosts.iter().flat_map(|list| &list.value) {
            match parse_authority(&host.value) {
                Err(what) => self.fault(&host.place, what, "write HOST or HOST:PORT"),
                // A page that resolves its own name to 127.0.0.1 (DNS rebinding) is stopped by this
                // list.
                Ok((name, _)) if is_loopback_host(&name) && !loopback => {
                    let cure = "remove it, or listen on loopback only";
                    self.fault(&host.place, "a loopback name on a listener open to others", cure);
                }
                Ok((name, Some(port))) => hosts.push(format!("{name}:{port}")),
                Ok((name, None)) => hosts.push(name),
            }
        }
        hosts
    }

    fn origins(&mut self, listen: &raw::Listen) -> Option<Vec<String>> {
        let mut origins = Vec::new();
        let mut valid = true;
        for origin in listen.origins.iter().flat_map(|list| &list.value) {
            let parsed = UpstreamUrl::parse(&origin.value);
            if parsed.is_ok_and(|url| url.origin() == origin.value) {
                origins.push(origin.value.clone());
            } else {
                // "null" is what every sandboxed page sends (RFC 6454 §7.1), so it names nobody.
                let cure = "write scheme://host[:port] as browsers send it, without a slash; \
                            \"null\" and \"*\" are never accepted";
                self.fault(&origin.place, "not an origin", cure);
                valid = false;
            }
        }
        valid.then_some(origins)
    }

    /// Who says where a client is, and whom that is believed.
    fn proxies(&mut self, listen: &raw::Listen) -> Option<(Proxy, Vec<Network>)> {
        let choices =
            [("none", Proxy::None), ("proxy_v2", Proxy::V2), ("forwarded", Proxy::Forwarded)];
        let proxy = one_of(self, &listen.proxy, Proxy::None, &choices);
        let written = listen.trusted_proxies.iter().flat_map(|list| &list.value);
        if let Some(surplus) = written.clone().nth(TRUSTED_PROXIES_MAX) {
            let what = format!("more than {TRUSTED_PROXIES_MAX} trusted proxies");
            self.fault(&surplus.place, what, "write networks that hold several");
            return None;
        }
        let mut networks = Vec::new();
        let mut valid = true;
        for text in written {
            let what = match text.value.parse::<Network>() {
                // Everybody could then say to be anybody.
                Ok(network) if network.is_too_wide_to_trust() => {
                    "as good as everybody: wider than /8, or /16 of IPv6"
                }
                Ok(network) => {
                    networks.push(network);
                    continue;
                }
                Err(what) => what,
            };
            self.fault(&text.place, what, "write the proxy's address, or a network as 10.0.0.0/8");
            valid = false;
        }
        let place = listen.trusted_proxies.as_ref().map(|list| &list.place);
        match (proxy?, networks.is_empty() && valid) {
            (Proxy::None, false) => {
                let cure = "write how they say whom they speak for: proxy = \"proxy_v2\" \
                            or \"forwarded\"; or remove them";
                self.fault(place.unwrap_or(&listen.place), "trusted for nothing", cure);
                None
            }
            (Proxy::V2 | Proxy::Forwarded, true) => {
                let cure = "list the addresses of the proxies; nobody else is believed";
                self.report.missing(&listen.place, "trusted_proxies", cure);
                None
            }
            (proxy, _) => valid.then_some((proxy, networks)),
        }
    }

    fn listen_tls(&mut self, listen: &raw::Listen, loopback: bool) -> Option<ListenTls> {
        let Some(tls) = &listen.tls else {
            if !loopback && listen.address.is_some() {
                let cure = "add [listen.tls] with certificate and private_key, \
                            or listen on loopback only";
                self.report.missing(&listen.place, "tls", cure);
            }
            return None;
        };
        if tls.certificate.is_none() {
            self.report.missing(&tls.place, "certificate", "name a PEM file with the chain");
        }
        if tls.private_key.is_none() {
            self.report.missing(
                &tls.place,
                "private_key",
                "write \"credential:NAME\" or \"file:PATH\"",
            );
        }
        let certificate = tls.certificate.as_ref().and_then(|path| self.file(path));
        let private_key = tls.private_key.as_ref().and_then(|text| self.readable_secret(text));
        Some(ListenTls { certificate: certificate?, private_key: private_key? })
    }

    pub(super) fn cores(&mut self, cores: Option<&raw::Cores>) -> Option<Cores> {
        let Some(cores) = cores else { return Some(Cores { cpus: None, driver: Driver::Auto }) };
        let choices =
            [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
        let driver = one_of(self, &cores.driver, Driver::Auto, &choices);
        let cpus = match &cores.cpus {
            Some(text) if text.value != "auto" => Some(self.cpus(text)?),
            Some(_) | None => None,
        };
        Some(Cores { cpus, driver: driver? })
    }

    fn cpus(&mut self, text: &At<String>) -> Option<Vec<usize>> {
        let cpus = parse_cpus(&text.value);
        if cpus.is_none() {
            let cure = "write \"auto\" or a list such as \"0-3,8\", each cpu once, below 1024";
            self.fault(&text.place, "not a list of cpus", cure);
        }
        cpus
    }

    pub(super) fn admin(
        &mut self,
        admin: Option<&raw::Admin>,
        listen: Option<&Listen>,
    ) -> Option<Admin> {
        let Some(text) = admin.and_then(|admin| admin.address.as_ref()) else {
            return Some(Admin { address: ADMIN_DEFAULT });
        };
        let address = self.address(text)?;
        // It has no authentication of its own (case K06).
        if !is_loopback(address) {
            let cure = "write a loopback address and let a scraper on this machine read it";
            self.fault(&text.place, "the admin listener is for loopback only", cure);
        }
        let same = matches!(listen.map(|listen| &listen.address),
            Some(ListenAddress::Socket(other)) if *other == address && address.port() != 0);
        if same {
            self.fault(&text.place, "the same as listen.address", "choose another port");
        }
        Some(Admin { address })
    }

    /// A secret that must be readable now.
    pub(super) fn readable_secret(&mut self, text: &At<String>) -> Option<SecretSource> {
        let source = self.secret_source(text)?;
        match source.read_with(self.environment) {
            Ok(_) => Some(source),
            Err(fault) => {
                self.secret_fault(&text.place, fault);
                None
            }
        }
    }

    pub(super) fn secret_fault(&mut self, place: &Place, fault: SecretFault) {
        let cure = match fault {
            SecretFault::NoCredentialsDirectory => {
                "start it from a unit with LoadCredential=, \
                 or set CREDENTIALS_DIRECTORY to the folder that holds the file"
            }
            SecretFault::Absent
            | SecretFault::Unreadable(_)
            | SecretFault::NotAFile
            | SecretFault::TooLarge
            | SecretFault::Empty
            | SecretFault::NotForHeaders => "correct its source, or the rights on it",
        };
        self.fault(place, format!("the secret {fault}"), cure);
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn default_url(socket: SocketAddr, tls: bool) -> UpstreamUrl {
    let default_port = if tls { 443 } else { 80 };
    let (literal, port) = (socket.ip().to_canonical(), socket.port());
    let host = literal.to_string();
    let bracketed = if literal.is_ipv6() { format!("[{host}]") } else { host.clone() };
    let authority = if port == default_port { bracketed } else { format!("{bracketed}:{port}") };
    UpstreamUrl { tls, host, literal: Some(literal), port, authority, target: "/".to_owned() }
}

fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|cpu| digits && *cpu < CPUS_MAX)
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
        if cpus.len() > CPUS_MAX {
            return None;
        }
    }
    cpus.sort_unstable();
    let before = cpus.len();
    cpus.dedup();
    (cpus.len() == before).then_some(cpus)
}

const CPUS_MAX: usize = 1024;
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

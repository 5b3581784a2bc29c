//! `[policy]`, `[sessions]`, `[audit]`, `[[method]]` and `[limits]`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Checker, one_of, second_use};
use crate::config::fault::Place;
use crate::config::raw::{self, Number, Text};
use crate::config::{
    Audit, AuditMode, AuditSink, ExtensionMethod, ExtensionResource, Policy, SecretSource, Sessions,
};
use crate::limits::{
    EXTENSION_METHODS_MAX, Limits, MAIL_BODY_BYTES_MAX, SESSION_LIFETIME_SECONDS_MAX,
};

impl Checker<'_> {
    pub(super) fn policy(&mut self, file: &raw::File) -> Option<Policy> {
        let Some(policy) = &file.policy else {
            let cure = "add [policy] with a directory; without one everything would be denied";
            self.report.missing(&file.place, "policy", cure);
            return None;
        };
        // What is in it is for who reads it; here it has to be there.
        let geoip = match &policy.geoip {
            None => Some(None),
            Some(path) => self.file(path).map(Some),
        };
        let authzen = match &policy.authzen {
            None => Some(None),
            Some(authzen) => self.authzen(authzen).map(Some),
        };
        let directory = match (&policy.directory, &policy.authzen) {
            (Some(path), Some(_)) => {
                let cure = "keep one of the two: either files decide, or [policy.authzen]";
                self.fault(&path.place, "policies that would never be asked", cure);
                None
            }
            (Some(path), None) => self.directory(path),
            (None, Some(_)) => Some(PathBuf::new()),
            (None, None) => {
                let cure = "name the folder of the *.cedar files";
                self.report.missing(&policy.place, "directory", cure);
                None
            }
        };
        let timezone = match &policy.timezone {
            Some(text) if jiff::tz::TimeZone::get(&text.value).is_err() => {
                let cure = "write an IANA name such as Europe/Berlin, and have tzdata installed";
                self.fault(&text.place, "no such time zone on this machine", cure);
                None
            }
            Some(text) => Some(text.value.clone()),
            None => Some("UTC".to_owned()),
        };
        let watch = policy.watch.as_ref().is_some_and(|watch| watch.value);
        if let (true, Some(text), Some(_)) = (watch, &policy.watch, &policy.authzen) {
            self.fault(&text.place, "there are no files to watch", "remove it");
        }
        Some(Policy {
            directory: directory?,
            timezone: timezone?,
            geoip: geoip?,
            watch,
            authzen: authzen?,
        })
    }

    pub(super) fn sessions(
        &mut self,
        sessions: Option<&raw::Sessions>,
        start: &Place,
    ) -> Option<Sessions> {
        let written = sessions.and_then(|sessions| sessions.key.as_ref());
        if written.is_none() {
            let place = sessions.map_or(start, |sessions| &sessions.place);
            let place =
                if sessions.is_some() { place.below("key") } else { start.below("sessions.key") };
            let cure = "set one to keep legacy sessions over restarts and between instances";
            self.report.warn(&place, "a random key per process", cure);
        }
        let Some(sessions) = sessions else {
            let lifetime_seconds = SESSION_SECONDS_DEFAULT;
            return Some(Sessions { key: None, previous_key: None, lifetime_seconds });
        };
        let key = self.session_key(&sessions.key);
        let previous_key = self.session_key(&sessions.previous_key);
        if let (None, Some(previous)) = (&sessions.key, &sessions.previous_key) {
            let cure = "set sessions.key as well";
            self.fault(&previous.place, "a previous key without a current one", cure);
        }
        let lifetime_seconds = self.number(
            &sessions.lifetime_seconds,
            SESSION_SECONDS_DEFAULT,
            60,
            SESSION_LIFETIME_SECONDS_MAX,
        );
        Some(Sessions {
            key: key?,
            previous_key: previous_key?,
            lifetime_seconds: lifetime_seconds?,
        })
    }

    /// `Some(None)`: not written. `None`: a fault.
    fn session_key(&mut self, key: &Text) -> Option<Option<SecretSource>> {
        let Some(text) = key else { return Some(None) };
        let source = self.secret_source(text)?;
        let secret = match source.read_with(self.environment) {
            Ok(secret) => secret,
            Err(fault) => {
                self.secret_fault(&text.place, fault);
                return None;
            }
        };
        let decoded = STANDARD.decode(secret.expose()).map(Zeroizing::new);
        if decoded.is_ok_and(|key| key.len() == SESSION_KEY_BYTES) {
            return Some(Some(source));
        }
        let cure = "make one with: openssl rand -base64 32";
        self.fault(&text.place, "the secret is not 32 bytes in base64", cure);
        None
    }

    pub(super) fn audit(&mut self, audit: Option<&raw::Audit>, start: &Place) -> Option<Audit> {
        let modes = [("strict", AuditMode::Strict), ("availability", AuditMode::Availability)];
        let none = None;
        let mode = audit.map_or(&none, |audit| &audit.mode);
        let mode = one_of(self, mode, AuditMode::Strict, &modes);
        let sink = self.audit_sink(audit, start);
        let ring_directory = match audit.and_then(|audit| audit.ring_directory.as_ref()) {
            Some(path) => self.directory(path),
            None => sink.as_ref().map(|sink| self.ring_directory(sink)),
        };
        let fsync = audit.and_then(|audit| audit.fsync.as_ref()).is_some_and(|fsync| fsync.value);
        Some(Audit { sink: sink?, ring_directory: ring_directory?, mode: mode?, fsync })
    }

    /// Without a path: the log folder that systemd made for us, else standard output.
    fn audit_sink(&mut self, audit: Option<&raw::Audit>, start: &Place) -> Option<AuditSink> {
        let text = audit.and_then(|audit| audit.path.as_ref());
        let (path, place) = match (text, self.systemd_folder("LOGS_DIRECTORY")) {
            (Some(text), _) if text.value == "stdout" => return Some(AuditSink::Stdout),
            (Some(text), _) => (self.resolve(&text.value), text.place.clone()),
            (None, Some(folder)) => (folder.join("audit.jsonl"), start.below("audit.path")),
            (None, None) => return Some(AuditSink::Stdout),
        };
        if path.is_dir() {
            let what = format!("{path:?} is a folder");
            self.fault(&place, what, "name a file in it, or write \"stdout\"");
            return None;
        }
        let folder = parent(&path);
        if !folder.is_dir() {
            let what = format!("{folder:?} is not a folder that this user can see");
            self.fault(&place, what, "create it, or write \"stdout\"");
            return None;
        }
        Some(AuditSink::File(path))
    }

    /// The rings outlive the process, so they need a folder even when records go to standard
    /// output.
    fn ring_directory(&self, sink: &AuditSink) -> PathBuf {
        match sink {
            AuditSink::File(path) => parent(path).to_owned(),
            AuditSink::Stdout => ["LOGS_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"]
                .into_iter()
                .find_map(|name| self.systemd_folder(name))
                .unwrap_or_else(|| self.resolve(".")),
        }
    }

    /// systemd.exec(5): these hold a list of absolute paths with colons between.
    fn systemd_folder(&self, name: &str) -> Option<PathBuf> {
        let list = self.environment.variable(name)?;
        let first = PathBuf::from(list.to_str()?.split(':').next()?);
        first.is_absolute().then_some(first)
    }

    pub(super) fn methods(&mut self, raw: &[raw::Method]) -> Vec<ExtensionMethod> {
        if let Some(surplus) = raw.get(EXTENSION_METHODS_MAX) {
            let what = format!("more than {EXTENSION_METHODS_MAX} extension methods");
            self.fault(&surplus.place, what, "remove some");
        }
        for name in second_use(raw.iter().map(|method| method.name.as_ref())) {
            self.fault(&name.place, "the same method twice", "remove one");
        }
        raw.iter().filter_map(|method| self.method(method)).collect()
    }

    fn method(&mut self, raw: &raw::Method) -> Option<ExtensionMethod> {
        if raw.name.is_none() {
            self.report.missing(&raw.place, "name", "write the method name");
        }
        let name = self.word(&raw.name, "", METHOD_BYTES_MAX);
        if let (Some(name), Some(text)) = (&name, &raw.name) {
            let first = name.split('/').next().unwrap_or_default();
            // JSON-RPC 2.0 §4.3 reserves `rpc.`; MCP's own methods have their own rules here.
            if name.starts_with("rpc.") || MCP_PREFIXES.contains(&first) {
                let cure = "list extension methods only; MCP's own need no entry";
                self.fault(&text.place, "not an extension method", cure);
            }
        }
        let choices = [("server", ExtensionResource::Server)];
        let resource = one_of(self, &raw.resource, ExtensionResource::Server, &choices);
        Some(ExtensionMethod { name: name?, resource: resource? })
    }

    pub(super) fn limits(&mut self, raw: Option<&raw::Limits>) -> Option<Limits> {
        let default = Limits::default();
        let Some(raw) = raw else { return Some(default) };
        let mut size = |number: &Number, default: usize, min: u64, max: u64| {
            self.number(number, default as u64, min, max).map(|number| number as usize)
        };
        let connections =
            size(&raw.connections_per_core_max, default.connections_per_core_max, 1, 1_000_000);
        let inflight =
            size(&raw.inflight_per_core_max, default.inflight_per_core_max, 1, 1_000_000);
        let idle =
            size(&raw.upstream_idle_per_core_max, default.upstream_idle_per_core_max, 0, 65_536);
        let body =
            size(&raw.body_bytes_max, default.body_bytes_max, 1_024, MAIL_BODY_BYTES_MAX as u64);
        let head_ms_max = self.number(&raw.head_ms_max, default.head_ms_max, 100, 60_000);
        let stall_ms_max = self.number(&raw.stall_ms_max, default.stall_ms_max, 100, 600_000);
        let idle_ms_max = self.number(&raw.idle_ms_max, default.idle_ms_max, 100, 3_600_000);
        let handshake = self.number(&raw.handshake_ms_max, default.handshake_ms_max, 100, 60_000);
        let connect_ms_max = self.number(&raw.connect_ms_max, default.connect_ms_max, 100, 60_000);
        let keys = self.number(&raw.keys_wait_ms_max, default.keys_wait_ms_max, 100, 30_000);
        let drain_ms_max = self.number(&raw.drain_ms_max, default.drain_ms_max, 0, 600_000);
        let sessions = default.hub_sessions_per_core_max as u64;
        let sessions = self.number(&raw.hub_sessions_per_core_max, sessions, 1, 1_000_000);
        if let (Some(connections), Some(requests)) = (connections, inflight)
            && requests > connections
            && let Some(number) = &raw.inflight_per_core_max
        {
            let what =
                format!("more requests than connections ({connections}) can ever be in flight");
            self.fault(&number.place, what, "lower it, or raise connections_per_core_max");
        }
        Some(Limits {
            connections_per_core_max: connections?,
            inflight_per_core_max: inflight?,
            upstream_idle_per_core_max: idle?,
            body_bytes_max: body?,
            head_ms_max: head_ms_max?,
            stall_ms_max: stall_ms_max?,
            idle_ms_max: idle_ms_max?,
            handshake_ms_max: handshake?,
            connect_ms_max: connect_ms_max?,
            keys_wait_ms_max: keys?,
            drain_ms_max: drain_ms_max?,
            hub_sessions_per_core_max: sessions? as usize,
        })
    }
}

/// The folder of a file; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const SESSION_KEY_BYTES: usize = 32;
const SESSION_SECONDS_DEFAULT: u64 = 43_200;
const METHOD_BYTES_MAX: usize = 128;

/// First segments of MCP's own methods, all revisions.
const MCP_PREFIXES: [&str; 15] = [
    "completion",
    "elicitation",
    "initialize",
    "logging",
    "notifications",
    "ping",
    "prompts",
    "resources",
    "roots",
    "sampling",
    "server",
    "subscriptions",
    "tasks",
    "tools",
    "",
];

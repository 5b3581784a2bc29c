//! Turns what was written into a [`Config`], or into everything that is wrong with it.
//!
//! Each table has its function; each answers `None` only after it reported a fault, so that the
//! rest is still looked at. No key can turn a check of the gateway off.

mod authzen;
mod federation;
mod listen;
mod provider;
mod quota;
mod server;
mod state;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::fault::{Fault, Faults, Place, Report};
use super::raw::{self, Number, Text};
use super::reader::{At, Value};
use super::source::Environment;
use super::{Config, SecretSource};
use crate::limits::CONFIG_BYTES_MAX;

/// What every check function needs.
struct Checker<'a> {
    report: Report<'a>,
    /// Relative paths start here.
    folder: PathBuf,
    environment: &'a dyn Environment,
}

/// Reads `path` and checks it.
pub(super) fn load(path: &Path, environment: &dyn Environment) -> Result<Config, Faults> {
    let refuse = |line, column, what: String, cure: &str| {
        let (file, key, cure) = (path.to_owned(), "file".to_owned(), cure.to_owned());
        Err(Faults(vec![Fault { file, line, column, key, what, cure }]))
    };
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let what = format!("cannot be read ({error})");
            return refuse(1, 1, what, "name a TOML file that this user may read");
        }
    };
    if bytes.len() > CONFIG_BYTES_MAX {
        let what = format!("is larger than {CONFIG_BYTES_MAX} bytes");
        return refuse(1, 1, what, "name a TOML file");
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path, environment),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let valid = String::from_utf8_lossy(valid);
            let line = valid.matches('\n').count() + 1;
            let column = valid.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            refuse(line, column, "is not UTF-8".to_owned(), "save it as UTF-8")
        }
    }
}

/// Checks `text` as the content of `path`.
pub(super) fn parse(
    text: &str,
    path: &Path,
    environment: &dyn Environment,
) -> Result<Config, Faults> {
    let mut report = Report::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let what = error.message().replace('\n', ", ");
        report.fault(&Place { at, key: "toml".to_owned() }, what, "correct the TOML");
    }
    if !report.is_clean() {
        return Err(Faults(report.finish().0));
    }
    let document =
        toml::Spanned::new(document.span(), toml::de::DeValue::Table(document.into_inner()));
    let start = Place { at: 0, key: String::new() };
    let file = raw::File::read(&document, start, &mut report);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut checker = Checker { report, folder, environment };
    let config = file.and_then(|file| checker.config(&file, path));
    let (faults, warnings) = checker.report.finish();
    match config {
        Some(config) if faults.is_empty() => Ok(Config { warnings, ..config }),
        Some(_) | None => Err(Faults(faults)),
    }
}

impl Checker<'_> {
    fn config(&mut self, file: &raw::File, path: &Path) -> Option<Config> {
        let front = self.listen(file);
        let cores = self.cores(file.cores.as_ref());
        let trust_providers = self.trust_providers(file);
        let (servers, credentials) = self.servers_and_credentials(file);
        let policy = self.policy(file);
        let sessions = self.sessions(file.sessions.as_ref(), &file.place);
        let audit = self.audit(file.audit.as_ref(), &file.place);
        let admin = self.admin(file.admin.as_ref(), front.as_ref().map(|(_, listen)| listen));
        let methods = self.methods(&file.method);
        let rate_limits = self.rate_limits(file);
        let federation = self.federation(file.federation.as_ref());
        let limits = self.limits(file.limits.as_ref());
        if let Some(authority) = &file.authority {
            self.not_built(&authority.place, "the authority role");
        }
        let (public_url, listen) = front?;
        self.environment_secrets(file, listen.loopback);
        Some(Config {
            public_url,
            listen,
            cores: cores?,
            trust_providers,
            servers,
            credentials,
            policy: policy?,
            sessions: sessions?,
            audit: audit?,
            admin: admin?,
            methods,
            rate_limits,
            federation: federation?,
            limits: limits?,
            warnings: Vec::new(),
            path: path.to_owned(),
            _checked: (),
        })
    }

    // -- small steps shared by the tables --

    fn fault(&mut self, place: &Place, what: impl Into<String>, cure: impl Into<String>) {
        self.report.fault(place, what, cure);
    }

    /// A key or value of the contract that this version cannot honour: refused, never ignored.
    fn not_built(&mut self, place: &Place, thing: &str) {
        self.fault(place, format!("{thing} is not built yet"), "remove it");
    }

    /// A number within `range`, or `default` when the key is absent.
    fn number(&mut self, number: &Number, default: u64, min: u64, max: u64) -> Option<u64> {
        match number {
            None => Some(default),
            Some(number) if (min..=max).contains(&number.value) => Some(number.value),
            Some(number) => {
                let what = format!("{} is out of range", number.value);
                self.fault(&number.place, what, format!("write {min} to {max}"));
                None
            }
        }
    }

    /// A non-empty text of visible ASCII, or `default` when the key is absent.
    fn word(&mut self, text: &Text, default: &str, max: usize) -> Option<String> {
        let Some(text) = text else { return Some(default.to_owned()) };
        let valid = text.value.bytes().all(|byte| byte.is_ascii_graphic());
        if valid && (1..=max).contains(&text.value.len()) {
            return Some(text.value.clone());
        }
        let cure = format!("write 1 to {max} visible ASCII characters without spaces");
        self.fault(&text.place, "not usable", cure);
        None
    }

    /// A name as the contract wants it: `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`.
    fn name(&mut self, name: &Text, table: &Place) -> Option<String> {
        let Some(name) = name else {
            self.report.missing(table, "name", "give it a name");
            return None;
        };
        if is_name(&name.value) {
            return Some(name.value.clone());
        }
        let cure = "write 1 to 32 of a-z, 0-9 and -, not beginning or ending with -";
        self.fault(&name.place, "not a name", cure);
        None
    }

    /// `path`, made absolute from the folder of the configuration file.
    fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// A file that must be there.
    fn file(&mut self, path: &At<String>) -> Option<PathBuf> {
        let full = self.resolve(&path.value);
        if full.is_file() {
            return Some(full);
        }
        let what = format!("{full:?} is not a file that this user can see");
        self.fault(&path.place, what, "correct the path, or the rights of its folders");
        None
    }

    /// A folder that must be there.
    fn directory(&mut self, path: &At<String>) -> Option<PathBuf> {
        let full = self.resolve(&path.value);
        if full.is_dir() {
            return Some(full);
        }
        let what = format!("{full:?} is not a folder that this user can see");
        self.fault(&path.place, what, "create it, or correct the path");
        None
    }

    fn address(&mut self, text: &At<String>) -> Option<SocketAddr> {
        let address = text.value.parse().ok();
        if address.is_none() {
            let cure = "write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080";
            self.fault(&text.place, "not an address and port", cure);
        }
        address
    }

    /// Where a secret is; whether it can be read is for the caller. The value is never repeated in
    /// a fault: it may be the secret itself, written in the wrong place.
    fn secret_source(&mut self, text: &At<String>) -> Option<SecretSource> {
        let source = match text.value.split_once(':') {
            Some(("credential", name)) if is_file_name(name) => {
                Some(SecretSource::Credential(name.to_owned()))
            }
            Some(("file", path)) if !path.is_empty() => {
                Some(SecretSource::File(self.resolve(path)))
            }
            Some(("env", name)) if is_variable(name) => Some(SecretSource::Env(name.to_owned())),
            Some(_) | None => None,
        };
        if source.is_none() {
            let cure =
                "write \"credential:NAME\", \"file:PATH\" or \"env:NAME\"; never the secret itself";
            self.fault(&text.place, "not a place to read a secret from", cure);
        }
        source
    }

    /// `env:` is readable by every process of the same user (`/proc/PID/environ`), so it is for
    /// trying things out on one machine only.
    fn environment_secrets(&mut self, file: &raw::File, loopback: bool) {
        if loopback {
            return;
        }
        let tls = file.listen.as_ref().and_then(|listen| listen.tls.as_ref());
        let keys = tls.map(|tls| &tls.private_key).into_iter();
        let keys = keys.chain(file.sessions.iter().flat_map(|s| [&s.key, &s.previous_key]));
        let keys = keys.chain(file.credential.iter().map(|credential| &credential.secret));
        let authzen = file.policy.as_ref().and_then(|policy| policy.authzen.as_ref());
        let keys = keys.chain(authzen.iter().flat_map(|it| [&it.private_key, &it.bearer]));
        for text in keys.flatten().filter(|text| text.value.starts_with("env:")) {
            let cure = "use credential: or file:, or listen on loopback only";
            self.report.fault(&text.place, "env: is for loopback listeners only", cure);
        }
    }
}

/// What a choice between words was.
fn one_of<T: Copy>(
    checker: &mut Checker<'_>,
    text: &Text,
    default: T,
    choices: &[(&str, T)],
) -> Option<T> {
    let Some(text) = text else { return Some(default) };
    let chosen = choices.iter().find(|(name, _)| *name == text.value).map(|(_, choice)| *choice);
    if chosen.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        checker.fault(&text.place, "unknown value", format!("write {}", names.join(" or ")));
    }
    chosen
}

/// The same word twice in a list of names.
fn second_use<'a>(names: impl Iterator<Item = Option<&'a At<String>>>) -> Vec<&'a At<String>> {
    let mut seen = hashbrown::HashSet::new();
    names.flatten().filter(|name| !seen.insert(name.value.as_str())).collect()
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// One path component; `..` or a slash would leave `$CREDENTIALS_DIRECTORY`.
fn is_file_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    !matches!(name, "" | "." | "..") && name.len() <= 255 && name.bytes().all(valid)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! Upstream credentials: obtained by the core that needs them, remembered for at most 60 s, and
//! written into exactly one request to a server they are meant for.

mod upstream;

#[cfg(test)]
mod tests;

pub use self::upstream::UpstreamCredential;

use std::rc::Rc;
use std::time::Duration;

use crate::clock::Monotonic;
use crate::config::{Config, CredentialKind};
use crate::core_cell::CoreCell;
use crate::limits::{CACHE_SECONDS_MAX, CREDENTIAL_CACHE_ENTRIES_MAX, CREDENTIALS_MAX};
use crate::reject::Reject;
use crate::secret::Secret;

/// The credential cache of one core.
///
/// A key here is the credential's index under one configuration generation, which is enough as long
/// as every kind is shared by all users; a per-user kind adds the identity digest to it.
#[derive(Default)]
pub struct Credentials(CoreCell<State>);

/// Whether a credential was at hand; `credential.cache` of the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// From memory.
    Hit,
    /// Read from its source.
    Miss,
    /// Nothing is to be sent.
    None,
}

/// What [`Credentials::lookup`] found.
pub enum Lookup {
    /// In memory and young enough.
    Hit(Rc<UpstreamCredential>),
    /// To be read from its source, then handed to [`Credentials::store`].
    Miss(Fetch),
    /// The server gets no credential.
    Nothing,
}

/// Permission to fetch one credential, and to remember it if nothing was revoked in between.
pub struct Fetch {
    credential: usize,
    stamp: Stamp,
    began: Monotonic,
}

#[derive(Default)]
struct State {
    stamp: Stamp,
    /// INVARIANT: no entry is handed out later than `CACHE_SECONDS_MAX` after its fetch began; that
    /// is checked on read, not by the sweeper.
    entries: hashbrown::HashMap<usize, Entry>,
}

/// Under which configuration, and after how many revocations, something was known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp {
    generation: u64,
    revocations: u64,
}

struct Entry {
    credential: Rc<UpstreamCredential>,
    began: Monotonic,
}

impl Credentials {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for what `server` is to be sent. `credential` is the permit's choice, an index into
    /// `config.credentials`; `generation` names the configuration that `config` is.
    ///
    /// # Errors
    /// `CredentialUnavailable` when the credential does not exist or may not go to `server`. Both
    /// are configuration faults that `check` refuses; meeting one here means no.
    pub fn lookup(
        &self,
        config: &Config,
        generation: u64,
        credential: Option<usize>,
        server: usize,
        now: Monotonic,
    ) -> Result<Lookup, Reject> {
        let Some(index) = credential else { return Ok(Lookup::Nothing) };
        let known = config.credentials.get(index).ok_or(Reject::CredentialUnavailable)?;
        if !known.servers.contains(&server) {
            return Err(Reject::CredentialUnavailable);
        }
        if matches!(known.kind, CredentialKind::None) {
            return Ok(Lookup::Nothing);
        }
        Ok(self.0.with(|state| state.lookup(generation, index, now)))
    }

    /// Takes a fetched secret. It serves the request that fetched it; it is remembered only when
    /// neither the configuration changed nor anything was revoked since the fetch began (case F09).
    ///
    /// # Errors
    /// `CredentialUnavailable` when the secret cannot be written where the configuration wants it.
    pub fn store(
        &self,
        config: &Config,
        fetch: Fetch,
        secret: Secret,
        now: Monotonic,
    ) -> Result<Rc<UpstreamCredential>, Reject> {
        let known =
            config.credentials.get(fetch.credential).ok_or(Reject::CredentialUnavailable)?;
        let credential = Rc::new(UpstreamCredential::new(known, secret)?);
        let kept = Rc::clone(&credential);
        self.0.with(|state| {
            if state.stamp == fetch.stamp && is_young(fetch.began, now) {
                state.keep(fetch, kept);
            }
        });
        Ok(credential)
    }

    /// Looks, and reads the source on a miss.
    ///
    /// The read blocks the core: one open and at most 64 KiB of a local regular file, once per
    /// credential and minute. A source on a slow file system should be read through `lookup` and
    /// `store` instead.
    ///
    /// # Errors
    /// `CredentialUnavailable` when the secret cannot be read or used.
    pub fn obtain(
        &self,
        config: &Config,
        generation: u64,
        credential: Option<usize>,
        server: usize,
        now: Monotonic,
    ) -> Result<(Option<Rc<UpstreamCredential>>, CacheOutcome), Reject> {
        match self.lookup(config, generation, credential, server, now)? {
            Lookup::Nothing => Ok((None, CacheOutcome::None)),
            Lookup::Hit(credential) => Ok((Some(credential), CacheOutcome::Hit)),
            Lookup::Miss(fetch) => {
                let secret = fetch.read(config)?;
                let credential = self.store(config, fetch, secret, now)?;
                Ok((Some(credential), CacheOutcome::Miss))
            }
        }
    }

    /// Forgets one credential: its upstream refused it.
    pub fn evict(&self, credential: usize) {
        // Counted as a revocation: a fetch under way may hold the same refused secret.
        self.0.with(|state| {
            state.stamp.revocations += 1;
            state.entries.remove(&credential);
        });
    }

    /// Forgets everything: `Notice::CredentialsRevoked`, or an inbox that overflowed.
    pub fn purge(&self) {
        self.0.with(|state| {
            state.stamp.revocations += 1;
            state.entries.clear();
        });
    }

    /// Drops, and so wipes, what is too old to be handed out. Called about once a second; answers
    /// how many are left.
    pub fn sweep(&self, now: Monotonic) -> usize {
        self.0.with(|state| {
            state.entries.retain(|_, entry| is_young(entry.began, now));
            state.entries.len()
        })
    }
}

impl Fetch {
    /// Reads the secret from its source; see [`crate::config::SecretSource::read`] for the bounds.
    /// May run on another thread.
    ///
    /// # Errors
    /// `CredentialUnavailable`.
    pub fn read(&self, config: &Config) -> Result<Secret, Reject> {
        match config.credentials.get(self.credential).map(|credential| &credential.kind) {
            Some(CredentialKind::ApiKey(key)) => {
                key.secret.read().map_err(|_| Reject::CredentialUnavailable)
            }
            Some(CredentialKind::None) | None => Err(Reject::CredentialUnavailable),
        }
    }
}

impl State {
    fn lookup(&mut self, generation: u64, credential: usize, now: Monotonic) -> Lookup {
        if self.stamp.generation != generation {
            self.stamp.generation = generation;
            self.entries.clear();
        }
        match self.entries.get(&credential) {
            Some(entry) if is_young(entry.began, now) => Lookup::Hit(Rc::clone(&entry.credential)),
            Some(_) | None => {
                self.entries.remove(&credential);
                Lookup::Miss(Fetch { credential, stamp: self.stamp, began: now })
            }
        }
    }

    fn keep(&mut self, fetch: Fetch, credential: Rc<UpstreamCredential>) {
        if self.entries.len() < CREDENTIAL_CACHE_ENTRIES_MAX {
            self.entries.insert(fetch.credential, Entry { credential, began: fetch.began });
        }
    }
}

/// By the monotonic clock, so that a clock set back keeps nothing alive (case F10).
fn is_young(began: Monotonic, now: Monotonic) -> bool {
    now.micros_since(began) < LIFETIME.as_micros() as u64
}

const LIFETIME: Duration = Duration::from_secs(CACHE_SECONDS_MAX);
const _: () = assert!(CREDENTIALS_MAX <= CREDENTIAL_CACHE_ENTRIES_MAX);

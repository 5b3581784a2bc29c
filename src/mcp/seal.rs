//! Sealing: what a client keeps for us and gives back, encrypted, so that it can neither read nor
//! change it. Nothing is stored: any core, any instance with the key and a restarted process opens
//! what another one sealed.
//!
//! Each purpose has a key of its own (HKDF, RFC 5869) and is named once more in what the cipher
//! authenticates, beside the public URL and the version of the form (AES-256-GCM, NIST SP 800-38D).
//! A value of one purpose, gateway or owner is no value of another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::limits::SEALED_PLAIN_BYTES_MAX;
use crate::reject::Reject;

/// What a sealed value is for. Ids of sessions with one server have a form of their own, see
/// [`super::session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session on `/mcp`.
    HubSession,
    /// `requestState` of an upstream, or of an exchange that is parked here.
    State,
    /// Id of an upstream's task.
    Task,
    /// Id of an event, for resumption.
    Event,
    /// Where a list goes on.
    Cursor,
    /// Id of a request that we send to a client; its answer carries it back.
    Reply,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::HubSession, Self::State, Self::Task, Self::Event, Self::Cursor, Self::Reply];

    /// Its name in keys and in what is authenticated. Never changes: what was sealed would not
    /// open.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::HubSession => b"portcullis hub session",
            Self::State => b"portcullis request state",
            Self::Task => b"portcullis task",
            Self::Event => b"portcullis event",
            Self::Cursor => b"portcullis cursor",
            Self::Reply => b"portcullis reply",
        }
    }
}

/// The keys that seal, derived once. An operator key and the one before it: what was sealed under
/// either opens, and the current one seals.
pub struct Keyring {
    pub(super) random: SystemRandom,
    /// Of sessions with one server.
    pub(super) session: Pair,
    /// What is authenticated with those.
    pub(super) session_associated: Vec<u8>,
    hub_session: Lane<Pair>,
    state: Lane<Pair>,
    task: Lane<Pair>,
    event: Lane<Roots>,
    cursor: Lane<Pair>,
    reply: Lane<Pair>,
}

impl Keyring {
    /// Derives all keys. The inputs are 32 random bytes each and stay the caller's to wipe.
    ///
    /// # Errors
    /// `GatewayFault` when the cryptographic library refuses.
    pub fn new(
        public_url: &str,
        current: &[u8; 32],
        previous: Option<&[u8; 32]>,
    ) -> Result<Self, Reject> {
        let roots = Roots::new(current, previous);
        let lane = |purpose: Purpose| -> Result<Lane<Pair>, Reject> {
            Ok(Lane { keys: roots.derive(&[purpose.label()])?, named: named(purpose, public_url) })
        };
        Ok(Self {
            random: SystemRandom::new(),
            session: roots.derive(&[super::session::LABEL])?,
            session_associated: associated(super::session::LABEL, public_url),
            hub_session: lane(Purpose::HubSession)?,
            state: lane(Purpose::State)?,
            task: lane(Purpose::Task)?,
            cursor: lane(Purpose::Cursor)?,
            reply: lane(Purpose::Reply)?,
            event: Lane { named: named(Purpose::Event, public_url), keys: roots },
        })
    }

    /// Appends the sealed form (visible ASCII without padding: letters, digits, `-`, `_`) of
    /// `plain` to `out`. It opens for the same `bound` alone: whom it belongs to, see [`bound_to`].
    ///
    /// # Errors
    /// `UpstreamMalformed` for more than `SEALED_PLAIN_BYTES_MAX`, which come from no peer that is
    /// well, `GatewayFault` without random bytes; `out` is unchanged then.
    pub fn seal(
        &self,
        purpose: Purpose,
        plain: &[u8],
        bound: &[u8; 32],
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        if plain.len() > SEALED_PLAIN_BYTES_MAX {
            return Err(Reject::UpstreamMalformed);
        }
        let mut start = [0; START_BYTES_MAX];
        let start = start.get_mut(..self.start_bytes(purpose)).ok_or(Reject::GatewayFault)?;
        let (format, random) = start.split_first_mut().ok_or(Reject::GatewayFault)?;
        *format = FORMAT;
        self.random.fill(random).map_err(|_| Reject::GatewayFault)?;
        let (salt, nonce) = random.split_last_chunk::<NONCE_LEN>().ok_or(Reject::GatewayFault)?;
        let mut sealed = Vec::with_capacity(1 + random.len() + plain.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(random);
        let body = sealed.len();
        sealed.extend_from_slice(plain);
        let message = sealed.get_mut(body..).ok_or(Reject::GatewayFault)?;
        let tag = self.with_keys(purpose, salt, |keys, named| {
            keys.encrypt(*nonce, &with_bound(named, bound), message)
        })??;
        sealed.extend_from_slice(&tag);
        write_text(&sealed, out)
    }

    /// What is inside `sealed`; `None`, whatever the reason: not ours, changed, another purpose's,
    /// another owner's, or sealed under a key that is gone.
    #[must_use]
    pub fn open(&self, purpose: Purpose, sealed: &[u8], bound: &[u8; 32]) -> Option<Vec<u8>> {
        if sealed.len() > SEALED_TEXT_BYTES_MAX {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (start, ciphertext) = sealed.split_at_checked(self.start_bytes(purpose))?;
        let (format, random) = start.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let (salt, nonce) = random.split_last_chunk::<NONCE_LEN>()?;
        let opened = self.with_keys(purpose, salt, |keys, named| {
            keys.decrypt(*nonce, &with_bound(named, bound), ciphertext)
        });
        opened.ok()?
    }

    /// Runs `act` with the keys of a purpose and with its name.
    fn with_keys<R>(
        &self,
        purpose: Purpose,
        salt: &[u8],
        act: impl FnOnce(&Pair, &[u8; 32]) -> R,
    ) -> Result<R, Reject> {
        let lane = match purpose {
            Purpose::HubSession => &self.hub_session,
            Purpose::State => &self.state,
            Purpose::Task => &self.task,
            Purpose::Cursor => &self.cursor,
            Purpose::Reply => &self.reply,
            // Ids of events are made as fast as servers send events. Random nonces of one key hold
            // for 2^32 values (NIST SP 800-38D §8.3), which 1,000 a second reach in 50 days; a key
            // for each has no such end.
            Purpose::Event => {
                let keys = self.event.keys.derive(&[purpose.label(), salt])?;
                return Ok(act(&keys, &self.event.named));
            }
        };
        Ok(act(&lane.keys, &lane.named))
    }

    /// Bytes before the ciphertext: version, the salt of a key of its own, nonce.
    const fn start_bytes(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Event => START_BYTES_MAX,
            Purpose::HubSession
            | Purpose::State
            | Purpose::Task
            | Purpose::Cursor
            | Purpose::Reply => 1 + NONCE_LEN,
        }
    }
}

/// One purpose: its keys, and what is authenticated with all its values.
struct Lane<K> {
    keys: K,
    named: [u8; 32],
}

/// What keys are derived from.
struct Roots {
    current: Prk,
    previous: Option<Prk>,
}

impl Roots {
    fn new(current: &[u8; 32], previous: Option<&[u8; 32]>) -> Self {
        let extract = |key: &[u8; 32]| Salt::new(HKDF_SHA256, &[]).extract(key);
        Self { current: extract(current), previous: previous.map(extract) }
    }

    fn derive(&self, info: &[&[u8]]) -> Result<Pair, Reject> {
        let expand = |root: &Prk| {
            let okm = root.expand(info, &AES_256_GCM).map_err(|_| Reject::GatewayFault)?;
            Ok::<_, Reject>(LessSafeKey::new(UnboundKey::from(okm)))
        };
        let previous = self.previous.as_ref().map(expand).transpose()?;
        Ok(Pair { current: expand(&self.current)?, previous })
    }
}

/// The keys of one purpose.
pub(super) struct Pair {
    /// Seals and opens.
    pub(super) current: LessSafeKey,
    /// Opens what was sealed before the rotation.
    previous: Option<LessSafeKey>,
}

impl Pair {
    fn encrypt(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        message: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Reject> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .current
            .seal_in_place_separate_tag(nonce, Aad::from(associated), message)
            .map_err(|_| Reject::GatewayFault)?;
        tag.as_ref().try_into().map_err(|_| Reject::GatewayFault)
    }

    pub(super) fn decrypt(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        ciphertext: &[u8],
    ) -> Option<Vec<u8>> {
        let keys = std::iter::once(&self.current).chain(self.previous.as_ref());
        for key in keys {
            let mut message = ciphertext.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = key.open_in_place(nonce, Aad::from(associated), &mut message);
            if let Ok(plain) = opened.map(|plain| plain.len()) {
                message.truncate(plain);
                return Some(message);
            }
        }
        None
    }
}

/// A digest to bind to instead of the strings: subjects may be kilobytes, and a sealed value
/// travels with every request. Lengths go first, so that no two lists of parts are the same input.
#[must_use]
pub fn bound_to(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut bound = [0; 32];
    bound.copy_from_slice(context.finish().as_ref());
    bound
}

/// Purpose, public URL and version: a value of another purpose, gateway or form does not open, even
/// under the same operator key.
fn associated(label: &[u8], public_url: &str) -> Vec<u8> {
    let mut associated = Vec::with_capacity(label.len() + public_url.len() + 2);
    associated.extend_from_slice(label);
    associated.push(0);
    associated.extend_from_slice(public_url.as_bytes());
    associated.extend_from_slice(&[0, FORMAT]);
    associated
}

/// The same at a fixed length, for room beside it.
fn named(purpose: Purpose, public_url: &str) -> [u8; 32] {
    let mut named = [0; 32];
    let associated = associated(purpose.label(), public_url);
    named.copy_from_slice(digest::digest(&digest::SHA256, &associated).as_ref());
    named
}

fn with_bound(named: &[u8; 32], bound: &[u8; 32]) -> [u8; 64] {
    let mut both = [0; 64];
    let (first, second) = both.split_at_mut(named.len());
    first.copy_from_slice(named);
    second.copy_from_slice(bound);
    both
}

/// Appends the text of a sealed value.
pub(super) fn write_text(sealed: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let start = out.len();
    out.resize(start + text_bytes(sealed.len()), 0);
    let space = out.get_mut(start..).unwrap_or_default();
    let written = URL_SAFE_NO_PAD.encode_slice(sealed, space).unwrap_or(0);
    out.truncate(start + written);
    if written == 0 { Err(Reject::GatewayFault) } else { Ok(()) }
}

/// No fewer than the text of so many bytes takes.
pub(super) const fn text_bytes(sealed: usize) -> usize {
    sealed.div_ceil(3) * 4
}

/// Version of every sealed form. Version N reads N - 1; this is the first.
pub(super) const FORMAT: u8 = 1;
pub(super) const TAG_BYTES: usize = 16;
/// Bytes that give a value a key of its own; together with the nonce, 2^112 values before two of
/// them may be the same.
const SALT_BYTES: usize = 16;
const START_BYTES_MAX: usize = 1 + SALT_BYTES + NONCE_LEN;
const SEALED_TEXT_BYTES_MAX: usize =
    text_bytes(START_BYTES_MAX + SEALED_PLAIN_BYTES_MAX + TAG_BYTES);

#[cfg(test)]
mod tests;

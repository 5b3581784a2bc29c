//! What the control thread and the workers say to each other.
//!
//! Downward travels one immutable [`Snapshot`] by way of one [`Slot`]: a notice on the bus says
//! only that there is a newer one, and the worker then takes its handle (one lock per change, none
//! per request). Upward travel [`Ask`]s: an unknown key id, a name to resolve, an old snapshot to
//! free.

pub mod authzen;
pub mod jwks;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::control::authzen::DecisionPoint;
use crate::control::jwks::ProviderKeys;
use crate::geo::GeoDb;
use crate::judge::policy::PolicySet;
use crate::mcp::ended::Ended;
use crate::mcp::seal::Keyring;
use crate::net::tls::{ClientTls, ServerTls};

/// Everything a worker needs that can change while it runs. Made by the control thread, never
/// changed.
pub struct Snapshot {
    /// Ever growing; the number in `Notice::Published`.
    pub generation: u64,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Grows with every accepted configuration; caches of what was read under another one are void.
    pub config_generation: u64,
    /// One entry per `Config::trust_providers`.
    pub keys: Vec<ProviderKeys>,
    /// The compiled policy set; its epoch is written to audit records.
    pub policy: Arc<PolicySet>,
    /// Where addresses are, when a policy asks for it.
    pub geo: Option<Arc<GeoDb>>,
    /// Who decides instead of `policy`, which is then empty and numbers epochs only.
    pub pdp: Option<Arc<DecisionPoint>>,
    /// One entry per `Config::servers`. Workers dial with their own copies, see `world::World`.
    pub upstreams: Vec<Upstream>,
    /// Seals and opens what clients keep for us.
    pub keyring: Arc<Keyring>,
    /// TLS of the listener, `None` for plain HTTP on loopback.
    pub tls: Option<Arc<ServerTls>>,
    /// Set once, at SIGTERM.
    pub draining: bool,
}

/// Where one MCP server is, as resolved and checked by the control thread.
#[derive(Clone)]
pub struct Upstream {
    /// Permitted addresses; exactly these are dialled, so a name cannot change its meaning in
    /// between.
    pub addresses: Arc<[SocketAddr]>,
    /// Every address that the name had was refused (private or special).
    pub refused: bool,
    /// How its certificate is verified; `None` for plain HTTP.
    pub tls: Option<Arc<ClientTls>>,
}

/// Holds the newest snapshot, and which sessions ended before their time.
#[repr(align(128))]
pub struct Slot {
    newest: Mutex<Arc<Snapshot>>,
    /// Written per session that ends; read by a core that lost notices, and then whole.
    ended: Mutex<Ended>,
}

impl Slot {
    /// A slot with its first snapshot.
    #[must_use]
    pub fn new(first: Arc<Snapshot>) -> Arc<Self> {
        Arc::new(Self { newest: Mutex::new(first), ended: Mutex::default() })
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it and gives the old one back.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *newest, snapshot)
    }

    /// Remembers for all cores that a session ended; false when that is known.
    pub fn end_session(&self, mark: u64, now: UnixSeconds) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(mark, now)
    }

    /// All sessions that ended before their time.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a worker asks of the control thread.
pub enum Ask {
    /// A token named a key that the provider's set does not hold.
    Keys {
        /// Index of the trust provider.
        provider: u16,
    },
    /// No address of this server is known, or none answers.
    Resolve {
        /// Index of the server.
        server: u16,
    },
    /// A session ended before its time: all cores are to know.
    EndSession {
        /// Its short mark.
        mark: u64,
    },
    /// A snapshot this worker no longer uses. Only the control thread frees them: dropping a set of
    /// 10,000 policies takes 61 ms.
    Retire(Arc<Snapshot>),
}

/// The sending end of one worker.
pub struct Asker {
    queue: Sender<Ask>,
    doorbell: UnixStream,
}

impl Asker {
    /// `doorbell` is a non-blocking stream whose other end the control thread watches.
    #[must_use]
    pub const fn new(queue: Sender<Ask>, doorbell: UnixStream) -> Self {
        Self { queue, doorbell }
    }

    /// Posts without waiting. A control thread that is gone ends the process, so nothing is lost
    /// here that anyone could still answer.
    pub fn ask(&self, ask: Ask) {
        if self.queue.send(ask).is_ok() {
            let _ = (&self.doorbell).write(&[1]);
        }
    }
}

/// The receiving end, on the control thread.
pub type Asks = Receiver<Ask>;

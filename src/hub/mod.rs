//! What one core remembers for `/mcp`, the endpoint for everything: state without I/O, changed
//! through closures, never borrowed across an await. The way of a request is in `gateway`.
//!
//! Nothing here is authority. Who asks is judged before, on every request, and everything that is
//! remembered for somebody is found under who they are.

pub mod breaker;
pub mod calls;
pub mod catalog;
pub mod desk;
pub mod ended;
pub mod hello;
pub mod sessions;

use std::cell::Cell;
use std::rc::Rc;

use breaker::Breakers;
use calls::Calls;
use catalog::Catalogs;
use desk::{Desk, Letterbox};
use ended::EndedSessions;
use hello::Hellos;
use sessions::UpstreamSessions;

/// The hub's share of one core.
#[derive(Default)]
pub struct Hub {
    /// Sessions that ended before their time, those of `/mcp/{server}` among them.
    pub ended: EndedSessions,
    /// Which upstreams are left alone for a while.
    pub breakers: Breakers,
    /// What servers said in their handshakes.
    pub hellos: Hellos,
    /// What may be cancelled.
    pub calls: Calls,
    /// Our own sessions with legacy servers.
    pub sessions: UpstreamSessions,
    /// What they list.
    pub catalogs: Catalogs,
    /// Questions to clients that wait for an answer.
    pub desk: Desk<Rc<Letterbox>>,
    requests: Cell<u64>,
}

impl Hub {
    /// A number that no other request of this core has: some servers give an answer to whoever used
    /// its id last.
    pub fn next_request(&self) -> u64 {
        let number = self.requests.get().saturating_add(1);
        self.requests.set(number);
        number
    }
}

impl Hub {
    /// Credentials were revoked: what was learnt with them is forgotten.
    pub fn voided(&self) {
        self.hellos.purge();
        self.catalogs.purge();
    }
}

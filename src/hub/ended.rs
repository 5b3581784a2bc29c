//! Which sessions ended, as this core knows it.

use std::cell::Cell;

use crate::clock::UnixSeconds;
use crate::core_cell::CoreCell;
use crate::mcp::ended::Ended;
use crate::mcp::hub_session::SessionMark;

/// The refuse-set of one core. While it is empty, asking costs one look at a flag.
#[derive(Default)]
pub struct EndedSessions {
    any: Cell<bool>,
    ended: CoreCell<Ended>,
}

impl EndedSessions {
    /// Whether the session of this sealed id ended. To be asked after the id was opened: a stranger
    /// learns nothing here.
    #[must_use]
    pub fn hold(&self, sealed: &[u8]) -> bool {
        self.any.get() && self.hold_mark(SessionMark::of(sealed).short())
    }

    /// The same by its short mark.
    #[must_use]
    pub fn hold_mark(&self, mark: u64) -> bool {
        self.any.get() && self.ended.with(|ended| ended.holds(mark))
    }

    /// Remembers one; false when it is known already.
    pub fn insert(&self, mark: u64, now: UnixSeconds) -> bool {
        self.any.set(true);
        self.ended.with(|ended| ended.insert(mark, now))
    }

    /// Remembers all that the control thread knows: some notices were lost.
    pub fn merge(&self, all: &Ended, now: UnixSeconds) {
        self.any.set(self.any.get() || !all.is_empty());
        self.ended.with(|ended| ended.merge(all, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    #[test]
    fn a_sealed_id_is_held_by_its_mark_however_it_came() {
        let here = EndedSessions::default();
        assert!(!here.hold(b"sealed"));
        let mark = SessionMark::of(b"sealed").short();
        assert!(here.insert(mark, NOW) && !here.insert(mark, NOW));
        assert!(here.hold(b"sealed") && !here.hold(b"another"));
        let mut all = Ended::default();
        let there = EndedSessions::default();
        there.merge(&all, NOW);
        assert!(!there.any.get(), "nothing ended, nothing to look for");
        all.insert(mark, NOW);
        there.merge(&all, NOW);
        assert!(there.hold(b"sealed"));
    }
}

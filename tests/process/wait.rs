//! Conditions with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. Generous: the machine may be loaded.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Comes back when `condition` holds; panics when it does not in time.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

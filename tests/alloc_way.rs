//! One warm call through every stage of the gateway allocates nothing (feature `bench-internals`).
//!
//! The rig is that of the bench `whole_way`: a core as it runs, with scripted peers instead of
//! sockets. Allocations are those of this thread; the audit writer has its own.

#![allow(clippy::unwrap_used, missing_docs)]

use way_rig::Rig;

#[path = "../benches/support/counting.rs"]
mod counting;
#[path = "../benches/support/way_rig.rs"]
mod way_rig;

#[test]
fn a_warm_call_allocates_nothing_all_the_way() {
    let mut rig = Rig::new(|_| ());
    let allocations = counting::report("whole_way/warm_300B", || rig.turn());
    // Every turn was a permitted call, answered with 200 and written to the audit file.
    rig.check();
    assert_eq!(allocations, 0, "allocations in 1,000 warm calls");
    // The count counts.
    assert_eq!(counting::report("one box", || Box::new(1)), 1_000);
}

//! Memory that the gateway gives back holds no token and no credential (feature `bench-internals`).
//!
//! The rig is that of the bench `whole_way`: a core as it runs, with scripted peers instead of
//! sockets. The allocator of this test looks through every block before it is freed; a buffer that
//! grows counts as freed, even where the system could have stretched it.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(unsafe_code, reason = "an allocator can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use way_rig::Rig;

#[path = "../benches/support/way_rig.rs"]
mod way_rig;

/// Looks for [`SECRETS`] in what this thread frees.
struct Looking;

thread_local! {
    static LOOKS: Cell<bool> = const { Cell::new(false) };
    /// Blocks that held each of the secrets.
    static FOUND: Cell<[usize; SECRETS.len()]> = const { Cell::new([0; SECRETS.len()]) };
}

// SAFETY: every call is passed on to `System`, which keeps the contract; growing is left to the
// trait's own way, which is made of these two.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if LOOKS.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the block is ours until the next line, so long, and came as zeros.
            look(unsafe { std::slice::from_raw_parts(pointer, layout.size()) });
        }
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

fn look(block: &[u8]) {
    let mut found = FOUND.get();
    for (secret, count) in SECRETS.iter().zip(&mut found) {
        *count += usize::from(block.windows(secret.len()).any(|window| window == *secret));
    }
    FOUND.set(found);
}

/// What `work` left behind.
fn found_in(work: impl FnOnce()) -> [usize; SECRETS.len()] {
    FOUND.set([0; SECRETS.len()]);
    LOOKS.set(true);
    work();
    LOOKS.set(false);
    FOUND.get()
}

#[test]
fn what_a_call_used_is_wiped_when_it_is_freed() {
    let mut rig = Rig::new();
    // The first call is cold: its token is verified.
    assert_eq!(found_in(|| rig.turn()), [0, 0]);
    assert_eq!(found_in(|| (0..3).for_each(|_| rig.turn())), [0, 0]);
    // Whatever is pooled ends here. The one block is the script, which is no part of the gateway.
    assert_eq!(found_in(|| rig.check()), [1, 0]);
    // And what is left behind is found, also in a buffer that was emptied, or grew.
    let forgetful = || {
        let mut buffer = SECRETS.concat();
        buffer.reserve_exact(1);
        buffer.clear();
    };
    assert_eq!(found_in(forgetful), [2, 2]);
}

/// How a token begins in a request, and the key that the rig's server is given.
const SECRETS: [&[u8]; 2] = [b"Bearer eyJ", b"bench-key-0123456789abcdef"];

//! Memory that the gateway gives back holds no token and no credential (feature `bench-internals`).
//!
//! The rig is that of the bench `whole_way`: a core as it runs, with scripted peers instead of
//! sockets. The allocator of this test looks through every block before it is freed; a buffer that
//! grows counts as freed, even where the system could have stretched it.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(unsafe_code, reason = "an allocator can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use way_rig::Rig;

#[path = "../benches/support/way_rig.rs"]
mod way_rig;

/// Looks for [`SECRETS`] in what this thread frees.
struct Looking;

thread_local! {
    static LOOKS: Cell<bool> = const { Cell::new(false) };
    /// Blocks that held each of the secrets.
    static FOUND: Cell<[usize; KINDS]> = const { Cell::new([0; KINDS]) };
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
    for (secret, count) in SECRETS.get().into_iter().flatten().zip(&mut found) {
        *count += usize::from(block.windows(secret.len()).any(|window| window == secret));
    }
    FOUND.set(found);
}

/// What `work` left behind.
fn found_in(work: impl FnOnce()) -> [usize; KINDS] {
    FOUND.set([0; KINDS]);
    LOOKS.set(true);
    work();
    LOOKS.set(false);
    FOUND.get()
}

#[test]
fn what_a_call_used_is_wiped_when_it_is_freed() {
    let clean = [0; KINDS];
    let mut rig = Rig::new(|token| SECRETS.set(secrets(token)).unwrap());
    // The first call is cold: its token is verified.
    assert_eq!(found_in(|| rig.turn()), clean);
    assert_eq!(found_in(|| (0..3).for_each(|_| rig.turn())), clean);
    // Whatever is pooled ends here. The one block is the script, which is no part of the gateway.
    assert_eq!(found_in(|| rig.check()), [1, 0, 1, 0, 1, 0]);
    // And what is left behind is found, also in a buffer that was emptied, or grew.
    let forgetful = || {
        let mut buffer = SECRETS.get().unwrap().concat();
        buffer.reserve_exact(1);
        buffer.clear();
    };
    assert_eq!(found_in(forgetful), [2; KINDS]);
}

/// How a token begins in a request, the key that the rig's server is given, and what is in the
/// middle of the token's payload and of its signature, both as they come and decoded.
fn secrets(token: &str) -> [Vec<u8>; KINDS] {
    let [_, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let middle =
        |part: &[u8]| part.iter().copied().skip(part.len() / 2 - 12).take(24).collect::<Vec<_>>();
    // A claim as it is written: of its value alone the principal is made.
    let claim = b"\"sub\":\"00u1a2b3c4d5".to_vec();
    assert!(decoded(payload).windows(claim.len()).any(|window| window == claim));
    [
        b"Bearer eyJ".to_vec(),
        b"bench-key-0123456789abcdef".to_vec(),
        middle(payload.as_bytes()),
        claim,
        middle(signature.as_bytes()),
        middle(&decoded(signature)),
    ]
}

const KINDS: usize = 6;
static SECRETS: OnceLock<[Vec<u8>; KINDS]> = OnceLock::new();

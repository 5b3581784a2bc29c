//! An allocator that counts, so that each bench says how many allocations stand beside its time.
#![expect(unsafe_code, reason = "an allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Write as _};

/// Counts every allocation and growth, then does what the system does.
struct Counting;

thread_local! {
    /// Allocations and bytes of this thread alone: the audit writer and criterion have others.
    static SPENT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn spend(bytes: usize) {
    // A thread that ends may have dropped its count; nothing is measured there.
    let _ = SPENT.try_with(|spent| {
        let (count, total) = spent.get();
        spent.set((count + 1, total + bytes as u64));
    });
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        spend(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        spend(bytes);
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `once` some times warm, prints what one run of it allocates, and says how often all of the
/// counted ones did.
pub(crate) fn report<T>(name: &str, mut once: impl FnMut() -> T) -> u64 {
    for _ in 0..WARM_UP {
        black_box(once());
    }
    let before = SPENT.get();
    for _ in 0..RUNS {
        black_box(once());
    }
    let after = SPENT.get();
    let each = |after: u64, before: u64| (after - before) as f64 / RUNS as f64;
    let (count, bytes) = (each(after.0, before.0), each(after.1, before.1));
    // A closed pipe ends the bench elsewhere.
    let _ = writeln!(
        io::stdout(),
        "{name:<40} allocations per iteration: {count:.2} ({bytes:.0} bytes)"
    );
    after.0 - before.0
}

const WARM_UP: u32 = 64;
const RUNS: u32 = 1_000;

//! A warm reader of MCP messages allocates nothing, and a refused one next to nothing.
#![expect(unsafe_code, reason = "an allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use portcullis::mcp::{Call, Mirrored};

/// Counts every allocation and growth, then does what the system does.
struct Counting;

thread_local! {
    /// Allocations and bytes of this thread alone: the test harness has others.
    static SPENT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn spend(bytes: usize) {
    // A thread that ends may have dropped its count; nothing is measured there.
    let _ = SPENT.try_with(|spent| {
        let (count, total) = spent.get();
        spent.set((count + 1, total + bytes));
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

/// A modern call whose arguments have `keys` members.
fn body(keys: usize) -> String {
    let members: Vec<String> = (0..keys).map(|at| format!("\"key{at}\":\"value\"")).collect();
    format!(
        r#"{{"method":"tools/call",
            "params":{{"name":"search caf\u00e9","arguments":{{{}}},
                "_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities":{{}}}}}},
            "jsonrpc":"2.0","id":7}}"#,
        members.join(",")
    )
}

#[test]
fn a_warm_reader_allocates_nothing() {
    let mut call = Call::new();
    let mirrored = Mirrored {
        protocol_version: Some(b"2026-07-28"),
        method: Some(b"tools/call"),
        name: Some(b"=?base64?c2VhcmNoIGNhZsOp?="),
    };
    let bodies = [body(4), body(40), body(1_000)];
    let mut judge = |body: &str| {
        call.read(body.as_bytes(), |_| None).expect("a good body");
        call.agree(&mirrored).expect("headers that agree");
        assert_eq!(call.targets().count(), 1);
        assert_eq!(call.id_raw(body.as_bytes()), Some(&b"7"[..]));
    };
    bodies.iter().for_each(|body| judge(body));

    let before = SPENT.get().0;
    for _ in 0..100 {
        bodies.iter().for_each(|body| judge(body));
    }
    let warm = SPENT.get().0 - before;
    assert_eq!(warm, 0, "{warm} allocations in 300 warm messages");

    // M01: a million levels are refused before anything is copied or indexed.
    let deep = "[{\"a\":".repeat(500_000);
    let before = SPENT.get().1;
    let mut cold = Call::new();
    assert!(cold.read(deep.as_bytes(), |_| None).is_err());
    let bytes = SPENT.get().1 - before;
    assert!(bytes < 64 * 1024, "{bytes} bytes for a body that is refused");

    // What one large message needed is not kept: a message of many numbers, then a small one.
    let numbers = body(4).replace("\"value\"", &format!("[{}0]", "0,".repeat(200_000)));
    assert!(cold.read(numbers.as_bytes(), |_| None).is_ok());
    let before = SPENT.get().1;
    assert!(cold.read(bodies[0].as_bytes(), |_| None).is_ok());
    assert!(SPENT.get().1 > before, "the buffers of a large message were kept");

    // The count counts: a cold reader needs memory.
    let before = SPENT.get().0;
    assert!(Call::new().read(bodies[0].as_bytes(), |_| None).is_ok());
    assert!(SPENT.get().0 > before);
}

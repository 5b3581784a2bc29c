//! What it costs to read and judge one message, beside the bare parser on the same bytes.
#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::mcp::{Call, Mirrored};
use simd_json::{Buffers, Tape, fill_tape};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/message.rs"]
mod message;

fn envelope(criterion: &mut Criterion) {
    let mirrored = Mirrored {
        protocol_version: Some(b"2026-07-28"),
        method: Some(b"tools/call"),
        name: Some(b"search"),
    };
    let mut group = criterion.benchmark_group("mcp_envelope");
    for (label, bytes, rows) in [
        ("300B", 300, false),
        ("2KiB_rows", 2 * 1024, true),
        ("2KiB_text", 2 * 1024, false),
        ("16KiB_rows", 16 * 1024, true),
        ("16KiB_text", 16 * 1024, false),
        ("64KiB_rows", 64 * 1024, true),
        ("64KiB_text", 64 * 1024, false),
    ] {
        let body = message::body(bytes, rows);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut call = Call::new();
        counting::report(&format!("mcp_envelope/read_and_agree/{label}"), || {
            call.read(black_box(&body), |_| None).and_then(|()| call.agree(&mirrored))
        });
        group.bench_with_input(
            BenchmarkId::new("read_and_agree", label),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    let read = call.read(black_box(body), |_| None);
                    let agreed = call.agree(&mirrored);
                    assert!(read.is_ok() && agreed.is_ok());
                    call.name().map(str::len)
                });
            },
        );
        let mut buffers = Buffers::default();
        let mut kept: Tape<'static> = Tape(Vec::new());
        let mut scratch = Vec::new();
        group.bench_with_input(BenchmarkId::new("parser_alone", label), &body, |bencher, body| {
            bencher.iter(|| {
                scratch.clear();
                scratch.extend_from_slice(black_box(body));
                let mut tape = std::mem::replace(&mut kept, Tape(Vec::new())).reset();
                let filled = fill_tape(&mut scratch, &mut buffers, &mut tape);
                assert!(filled.is_ok());
                kept = tape.reset();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, envelope);
criterion_main!(benches);

//! What it costs to judge one request head of a usual MCP call, about 900 bytes.

#![allow(missing_docs, reason = "criterion's macros make public items without them")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis::http::{BodyDecoder, Framing, RequestHead};

#[path = "support/counting.rs"]
mod counting;
#[path = "support/head.rs"]
mod head;

fn parse(criterion: &mut Criterion) {
    let head = head::head();
    assert!((800..1000).contains(&head.len()), "{} bytes", head.len());
    let mut group = criterion.benchmark_group("http_head");
    group.throughput(Throughput::Bytes(head.len() as u64));
    let mut parser = RequestHead::new();
    counting::report("http_head/whole", || {
        parser.reset();
        parser.parse(black_box(&head))
    });
    group.bench_function("whole", |bencher| {
        bencher.iter(|| {
            parser.reset();
            assert_eq!(parser.parse(black_box(&head)), Ok(Some(head.len())));
        });
    });
    group.bench_function("dripped", |bencher| {
        bencher.iter(|| {
            parser.reset();
            for end in 0..=head.len() {
                let arrived = head.get(..end).unwrap_or_default();
                let _ = black_box(parser.parse(black_box(arrived)));
            }
        });
    });
    group.bench_function("upstream_fields", |bencher| {
        parser.reset();
        assert_eq!(parser.parse(&head), Ok(Some(head.len())));
        bencher.iter(|| {
            let bytes = |(name, value): (&[u8], &[u8])| name.len() + value.len();
            black_box(parser.upstream_fields(black_box(&head)).map(bytes).sum::<usize>())
        });
    });
    // The control: the grammar alone, without our rules, sizes and line ends.
    group.bench_function("httparse_alone", |bencher| {
        bencher.iter(|| {
            let mut lines = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut lines);
            black_box(request.parse(black_box(&head)).is_ok())
        });
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"3e8\r\n");
        body.extend_from_slice(&[b'x'; 1000]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut group = criterion.benchmark_group("http_body");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("16 chunks of 1000", |bencher| {
        bencher.iter(|| {
            let Ok(mut decoder) = BodyDecoder::new(Framing::Chunked, 1 << 20) else { return };
            let mut rest = black_box(&body[..]);
            while let Ok(step) = decoder.decode(rest) {
                rest = rest.get(step.consumed..).unwrap_or_default();
                if step.done {
                    break;
                }
            }
            assert!(decoder.finished());
        });
    });
    group.finish();
}

criterion_group!(benches, parse, chunks);
criterion_main!(benches);

//! What a frame header and heads cost to write and to read.

use std::hint::black_box;

use bench_suite::heads;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use router_common::codec::{FrameHeader, flags, kind};
use router_common::head::{RequestHead, ResponseHead};

fn header(criterion: &mut Criterion) {
    let header = FrameHeader { kind: kind::REQUEST, flags: flags::END_STREAM, stream: 123_456, length: 789 };
    let bytes = header.encode();
    let mut group = criterion.benchmark_group("codec/frame header");
    group.bench_function("encode", |b| b.iter(|| black_box(header).encode()));
    group.bench_function("decode", |b| b.iter(|| FrameHeader::decode(black_box(bytes))));
    group.finish();
}

fn request_head(criterion: &mut Criterion) {
    let headers = heads::request_headers();
    let head = heads::request();
    let mut group = criterion.benchmark_group("codec/request head, 8 headers");
    group.throughput(Throughput::Bytes(head.as_bytes().len() as u64));
    group.bench_function("encode", |b| b.iter(|| heads::encode_request(black_box(&headers))));
    group.bench_function("decode", |b| b.iter(|| RequestHead::decode(black_box(head.as_bytes()).clone())));
    group.bench_function("decode and read all", |b| {
        b.iter(|| {
            let head = RequestHead::decode(black_box(head.as_bytes()).clone()).expect("our own head");
            head.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>() + head.target().len()
        });
    });
    group.finish();
}

fn response_head(criterion: &mut Criterion) {
    let headers = heads::response_headers();
    let head = heads::response();
    let mut group = criterion.benchmark_group("codec/response head, 3 headers");
    group.throughput(Throughput::Bytes(head.as_bytes().len() as u64));
    group.bench_function("encode", |b| b.iter(|| ResponseHead::encode(200, black_box(&headers))));
    group.bench_function("decode", |b| b.iter(|| ResponseHead::decode(black_box(head.as_bytes()).clone())));
    group.finish();
}

criterion_group!(benches, header, request_head, response_head);
criterion_main!(benches);

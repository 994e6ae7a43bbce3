//! What it costs to find the endpoint and to choose the instance: with 10, 1,000 and 10,000 endpoints, and with 10, 100
//! and 1,000 instances.

use std::hint::black_box;
use std::time::Instant;

use bench_suite::tables;
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use router_common::path::RequestPath;
use router_gateway::routing::decide;

/// Different requests a bench goes through, so that no cache holds just one.
const PATHS: usize = 512;

fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route lookup and decision, 10 instances");
    for endpoints in [10, 1_000, 10_000] {
        group.bench_function(format!("{endpoints} endpoints"), |b| decide_one(b, endpoints, 10));
    }
    group.finish();
    let mut group = criterion.benchmark_group("route lookup and decision, 1,000 endpoints");
    for instances in [10, 100, 1_000] {
        group.bench_function(format!("{instances} instances"), |b| decide_one(b, 1_000, instances));
    }
    group.finish();

    let raw = "/shop-3/orders-7/4711/items";
    criterion.bench_function("request path, strictly read", |b| b.iter(|| RequestPath::parse(black_box(raw)).is_ok()));
}

fn decide_one(b: &mut Bencher<'_>, endpoints: usize, instances: usize) {
    let table = tables::table(endpoints, instances);
    let raw = tables::paths(endpoints, PATHS);
    let paths: Vec<_> = raw.iter().map(|raw| RequestPath::parse(raw).expect("a path")).collect();
    let now = Instant::now();
    let mut turn = paths.iter().cycle();
    b.iter(|| {
        let path = turn.next().expect("an endless cycle");
        let decision = decide(black_box(&table), &tables::facts(path, now)).expect("a live endpoint");
        decision.instance.key()
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);

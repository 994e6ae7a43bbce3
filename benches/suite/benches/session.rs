//! What one request and its answer cost two sessions: no task, no clock, no socket.

use bench_suite::sessions::{Sessions, Wire};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session round trip");
    for (size, body) in [("13 B", Bytes::from_static(b"Hello, World!")), ("16 KiB", vec![7; 16 << 10].into())] {
        group.throughput(Throughput::Elements(1));
        let mut sessions = Sessions::new(Wire::Values, body.clone());
        group.bench_function(format!("{size}, frames as values"), |b| b.iter(|| sessions.round_trip()));
        let mut sessions = Sessions::new(Wire::bytes(), body);
        group.bench_function(format!("{size}, frames as bytes"), |b| b.iter(|| sessions.round_trip()));
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);

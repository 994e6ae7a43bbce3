//! What a request costs in one process: a service alone, a call from service to service, and a whole HTTP request.

use bench_suite::calls::{request, runtime, service};
use criterion::{Criterion, criterion_group, criterion_main};
use microservice_sdk::Microservice;
use microservice_sdk::testing::TestGateway;
use tower::{Service as _, ServiceExt as _};

fn in_memory(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("in memory");

    let mut alone = service();
    group.bench_function("a service without a gateway", |b| {
        b.iter(|| {
            let answer = runtime.block_on(async { alone.ready().await?.call(request()).await });
            answer.expect("an answer").status()
        });
    });

    let (gateway, caller) = runtime.block_on(async {
        let gateway = TestGateway::start(service()).await;
        let caller = gateway.join(Microservice::new("caller", "1.0.0")).await;
        (gateway, caller)
    });
    let client = caller.client();
    group.bench_function("a call from service to service", |b| {
        b.iter(|| runtime.block_on(client.call(request())).expect("an answer").status());
    });
    group.bench_function("an HTTP request on a connection of its own", |b| {
        b.iter(|| runtime.block_on(gateway.get("/hello/7")).status());
    });
    group.finish();
}

criterion_group!(benches, in_memory);
criterion_main!(benches);

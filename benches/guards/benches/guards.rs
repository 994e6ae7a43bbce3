//! How many instructions the functions take that every request goes through, counted by callgrind.
//!
//! A count is nearly the same on every run and needs no quiet machine, so a change of a few hundredths can be seen that a
//! clock would not show. It says nothing of caches, system calls or waiting: for those there are the other benches.
//!
//! Every guard calls its function [`CALLS`] times, so that what happens only now and then has its share; `cargo xtask
//! bench guard` divides by that. What is measured on is bench-suite's, warm before the counting begins.

use std::hint::black_box;
use std::time::Instant;

use bench_suite::sessions::{Sessions, Wire};
use bench_suite::{calls, heads, tables};
use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::HeaderMap;
use microservice_sdk::Microservice;
use router_common::codec::{FrameHeader, flags, kind};
use router_common::head::{RequestHead, ResponseHead};
use router_common::limits;
use router_common::path::RequestPath;
use router_gateway::routing::decide;
use router_gateway::routing::table::RouteTable;
use tokio::runtime::Runtime;
use tower::{Service as _, ServiceExt as _};

/// Known to `cargo xtask bench guard` too.
const CALLS: usize = 64;

const HEADER: FrameHeader = FrameHeader { kind: kind::REQUEST, flags: flags::END_STREAM, stream: 123_456, length: 789 };

#[library_benchmark]
fn frame_header_encode() {
    for _ in 0..CALLS {
        black_box(black_box(HEADER).encode());
    }
}

#[library_benchmark]
#[bench::of_a_request(HEADER.encode())]
fn frame_header_decode(bytes: [u8; limits::FRAME_HEADER_BYTES]) {
    for _ in 0..CALLS {
        let _ = black_box(FrameHeader::decode(black_box(bytes)));
    }
}

#[library_benchmark]
#[bench::of_8_headers(heads::request_headers())]
fn request_head_encode(headers: HeaderMap) -> HeaderMap {
    for _ in 0..CALLS {
        let _ = black_box(heads::encode_request(black_box(&headers)));
    }
    headers
}

#[library_benchmark]
#[bench::of_8_headers(heads::request())]
fn request_head_decode(head: RequestHead) -> RequestHead {
    for _ in 0..CALLS {
        let _ = black_box(RequestHead::decode(black_box(head.as_bytes()).clone()));
    }
    head
}

#[library_benchmark]
#[bench::of_8_headers(heads::request())]
fn request_head_read(head: RequestHead) -> RequestHead {
    for _ in 0..CALLS {
        black_box(black_box(&head).headers().map(|(name, value)| name.len() + value.len()).sum::<usize>());
    }
    head
}

#[library_benchmark]
#[bench::of_3_headers(heads::response_headers())]
fn response_head_encode(headers: HeaderMap) -> HeaderMap {
    for _ in 0..CALLS {
        let _ = black_box(ResponseHead::encode(200, black_box(&headers)));
    }
    headers
}

#[library_benchmark]
#[bench::of_3_headers(heads::response())]
fn response_head_decode(head: ResponseHead) -> ResponseHead {
    for _ in 0..CALLS {
        let _ = black_box(ResponseHead::decode(black_box(head.as_bytes()).clone()));
    }
    head
}

library_benchmark_group!(
    name = codec,
    benchmarks = [
        frame_header_encode,
        frame_header_decode,
        request_head_encode,
        request_head_decode,
        request_head_read,
        response_head_encode,
        response_head_decode
    ]
);

fn sessions(wire: Wire, body: Bytes) -> Sessions {
    let mut sessions = Sessions::new(wire, body);
    for _ in 0..CALLS {
        sessions.round_trip();
    }
    sessions
}

#[library_benchmark]
#[bench::of_13_bytes_as_values(sessions(Wire::Values, Bytes::from_static(b"Hello, World!")))]
#[bench::of_13_bytes_as_bytes(sessions(Wire::bytes(), Bytes::from_static(b"Hello, World!")))]
#[bench::of_16_kib_as_bytes(sessions(Wire::bytes(), vec![7; 16 << 10].into()))]
fn round_trip(mut sessions: Sessions) -> Sessions {
    for _ in 0..CALLS {
        black_box(sessions.round_trip());
    }
    sessions
}

library_benchmark_group!(name = session, benchmarks = round_trip);

/// A table, and paths that are spread over it.
struct Routes {
    table: RouteTable<()>,
    paths: Vec<String>,
    now: Instant,
}

impl Routes {
    fn of(endpoints: usize, instances: usize) -> Self {
        let (table, paths) = (tables::table(endpoints, instances), tables::paths(endpoints, CALLS));
        let routes = Self { table, paths, now: Instant::now() };
        routes.decide_all();
        routes
    }

    fn decide_all(&self) {
        for path in self.paths.iter().cycle().take(CALLS) {
            let path = RequestPath::parse(path).expect("a path");
            let decision = decide(&self.table, &tables::facts(&path, self.now)).expect("a live endpoint");
            black_box(decision.instance.key());
        }
    }
}

#[library_benchmark]
#[bench::of_10_endpoints(Routes::of(10, 10))]
#[bench::of_1000_endpoints(Routes::of(1_000, 10))]
#[bench::of_10000_endpoints(Routes::of(10_000, 10))]
#[bench::of_100_instances(Routes::of(10, 100))]
#[bench::of_1000_instances(Routes::of(10, 1_000))]
fn path_and_decision(routes: Routes) -> Routes {
    routes.decide_all();
    routes
}

library_benchmark_group!(name = route, benchmarks = path_and_decision);

/// A service that is called in place, as a test of it would.
struct Alone {
    runtime: Runtime,
    service: Microservice,
}

impl Alone {
    fn warm() -> Self {
        let mut alone = Self { runtime: calls::runtime(), service: calls::service() };
        alone.call_all();
        alone
    }

    fn call_all(&mut self) {
        let Self { runtime, service } = self;
        runtime.block_on(async {
            for _ in 0..CALLS {
                let answer = service.ready().await.expect("a service that is always ready").call(calls::request());
                black_box(answer.await.expect("an answer").status());
            }
        });
    }
}

#[library_benchmark]
#[bench::of_a_service(Alone::warm())]
fn call(mut alone: Alone) -> Alone {
    alone.call_all();
    alone
}

library_benchmark_group!(name = sdk, benchmarks = call);

main!(library_benchmark_groups = [codec, session, route, sdk]);

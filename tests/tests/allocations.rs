//! Allocations a request, counted on the whole road: HTTP/1.1 on one connection that is kept, the gateway, a link, the
//! service. Gateway and service have a thread each, so each is counted by itself; the client is counted nowhere.
//!
//! Counts are of this build: nothing here knows how long anything takes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use integration_tests::carriers::{self, Transport};
use integration_tests::stage::Stage;
use integration_tests::within;
use microservice_sdk::{Microservice, endpoint, endpoints};
use tokio::sync::oneshot;

/// So many that heartbeats and timers in between vanish in the rounding.
const REQUESTS: u32 = 2_000;

/// So many that buffers and maps have the size they keep.
const WARM_UP: u32 = 500;

/// The most that a small GET may allocate on each side, on average. What is reached is a little less; each more than
/// that is one that somebody added to every request, and should be for a reason worth raising this.
const MOST: [(Transport, Sides<f64>); 2] = [
    (carriers::TCP, Sides { gateway: 10.5, service: 3.5 }),
    (carriers::IN_MEMORY, Sides { gateway: 10.5, service: 3.5 }),
];

#[derive(Clone, Copy, Debug)]
struct Sides<T> {
    gateway: T,
    service: T,
}

#[endpoint(GET, "/hello")]
async fn hello() -> &'static str {
    "Hello, World!"
}

#[test]
fn a_small_request_allocates_no_more_than_it_did() {
    for (transport, most) in MOST {
        let counted = a_request(transport);
        println!("{transport:?}: allocations a request: {counted:.2?}");
        assert!(counted.gateway <= most.gateway, "gateway, {transport:?}: {counted:?}, and no more than {most:?}");
        assert!(counted.service <= most.service, "service, {transport:?}: {counted:?}, and no more than {most:?}");
    }
}

/// What one request allocates, on average.
fn a_request(transport: Transport) -> Sides<f64> {
    let ((http, service), gateway) = Counter::start(async move || {
        let stage = Stage::new(transport).await;
        let service = stage.connect(Microservice::new("hello", "1.0.0").endpoints(endpoints![hello]));
        let http = stage.http();
        (stage, (http, service))
    });
    let ((), service) = Counter::start(async move || {
        let mut running = service.start().expect("a service of one endpoint");
        within("the service is ready", running.ready()).await.expect("nothing against it");
        (running, ())
    });
    let mut client = Client::new(http);
    client.ask(WARM_UP);
    let counting = [gateway.begin(), service.begin()];
    client.ask(REQUESTS);
    let [gateway, service] = counting.map(|counting| counting.end() as f64 / f64::from(REQUESTS));
    Sides { gateway, service }
}

/// A thread with a runtime of its own, on which what is allocated between two signals is counted.
struct Counter {
    begin: oneshot::Sender<mpsc::SyncSender<()>>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<u64>,
}

struct Counting {
    end: oneshot::Sender<()>,
    thread: JoinHandle<u64>,
}

impl Counter {
    /// Gives what `prepare` says of what it made; what it made is kept until the counting has ended.
    fn start<Kept, Said: Send + 'static>(prepare: impl AsyncFnOnce() -> (Kept, Said) + Send + 'static) -> (Said, Self) {
        let (said, hear) = mpsc::sync_channel(1);
        let (begin, begun) = oneshot::channel::<mpsc::SyncSender<()>>();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (kept, word) = runtime.block_on(prepare());
            said.send(word).expect("somebody waits");
            let counting = runtime.block_on(within("the beginning", begun)).expect("a beginning");
            let counted = allocation_counter::measure(|| {
                counting.send(()).expect("somebody waits");
                runtime.block_on(within("the end", ended)).expect("an end");
            });
            drop(kept);
            counted.count_total
        });
        (hear.recv().expect("it is prepared"), Self { begin, end, thread })
    }

    fn begin(self) -> Counting {
        let (counting, counts) = mpsc::sync_channel(1);
        self.begin.send(counting).expect("a thread that waits");
        counts.recv().expect("it counts");
        Counting { end: self.end, thread: self.thread }
    }
}

impl Counting {
    fn end(self) -> u64 {
        self.end.send(()).expect("a thread that waits");
        self.thread.join().expect("a thread that ends well")
    }
}

/// One connection, one request after the other.
struct Client {
    connection: TcpStream,
    request: String,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let connection = TcpStream::connect(server).expect("a listener");
        connection.set_nodelay(true).expect("a TCP connection");
        Self { connection, request: format!("GET /hello HTTP/1.1\r\nhost: {server}\r\n\r\n") }
    }

    fn ask(&mut self, times: u32) {
        let mut answer = [0; 1024];
        for _ in 0..times {
            self.connection.write_all(self.request.as_bytes()).expect("a connection");
            let mut read = 0;
            while !answer[..read].ends_with(b"\r\n\r\nHello, World!") {
                let more = self.connection.read(&mut answer[read..]).expect("a connection");
                assert!(more > 0, "closed: {:?}", String::from_utf8_lossy(&answer[..read]));
                read += more;
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    }
}

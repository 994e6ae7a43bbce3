//! What the edge's tests share: an edge on a port of its own with a service of the test's own behind the real layers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::memory::{self, Clients};
use http::{Request, Response};
use router_gateway::edge::{
    Edge, EdgeContext, EdgeSettings, Floor, Gate, HeldBytes, HttpListener, Stop, TcpHttpListener,
};
use router_gateway::http_semantics::TrustedProxies;
use router_gateway::layers::{Identify, Intermediary, Message, PolicyLayer};
use router_gateway::request_id::RequestIds;
use router_link::{Body, Environment, SystemEnvironment};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceBuilder};

/// An edge that runs until it is dropped or stopped.
pub(crate) struct TestEdge {
    pub(crate) address: SocketAddr,
    gate: Gate,
    stop: Stop,
    pub(crate) linger_over: Stop,
    pub(crate) tasks: TaskTracker,
    pub(crate) node_bytes: Arc<HeldBytes>,
}

impl TestEdge {
    /// Takes no connections any more; those that are there end with their next answer.
    pub(crate) fn stop(&self) {
        self.gate.shut();
        self.stop.request();
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.stop();
        self.linger_over.request();
    }
}

pub(crate) fn start<S>(settings: EdgeSettings, service: S) -> TestEdge
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let listener = TcpHttpListener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = listener.local_addr().unwrap();
    start_at(listener, address, settings, service)
}

/// An edge that needs no network.
pub(crate) fn start_in_memory<S>(settings: EdgeSettings, service: S) -> (TestEdge, Clients)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let (listener, clients) = memory::network();
    (start_at(listener, SocketAddr::from(([127, 0, 0, 1], 1)), settings, service), clients)
}

pub(crate) fn start_at<L, S>(listener: L, address: SocketAddr, settings: EdgeSettings, service: S) -> TestEdge
where
    L: HttpListener,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let environment: Arc<dyn Environment> = Arc::new(SystemEnvironment);
    let node_bytes = Arc::new(HeldBytes::new(1024 * 1024));
    let context = Arc::new(EdgeContext {
        settings,
        node_bytes: Arc::clone(&node_bytes),
        request_ids: Arc::new(RequestIds::new(&*environment)),
    });
    let stack = ServiceBuilder::new()
        .layer(PolicyLayer::new(Identify::new(Arc::clone(&context.request_ids), Arc::clone(&environment))))
        .layer(PolicyLayer::new(Message::new(Arc::clone(&context))))
        .layer(PolicyLayer::new(Intermediary::new("gw-1", TrustedProxies::default())))
        .service(service);
    let (stop, linger_over, gate, tasks) = (Stop::new(), Stop::new(), Gate::opened(), TaskTracker::new());
    let edge = Edge {
        context,
        places: Arc::new(Semaphore::new(64)),
        floor: Floor::new(1),
        worker: 0,
        gate: gate.clone(),
        stop: stop.clone(),
        linger_over: linger_over.clone(),
        tasks: tasks.clone(),
        cut: Stop::new(),
    };
    tasks.spawn(edge.run(listener, stack));
    TestEdge { address, gate, stop, linger_over, tasks, node_bytes }
}

/// Sends raw bytes and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    read_all(&mut client).await
}

/// Reads until the other side closes.
pub(crate) async fn read_all(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is the other side's right; what came before it counts.
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads one response whose length is announced; leaves the connection open.
pub(crate) async fn read_response(client: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("the response ended within its head"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(|value| value.parse().unwrap()))
        .unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.unwrap();
    (head, body)
}

/// The status of an answer, as it stands in its first line.
pub(crate) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("nothing")
}

#[track_caller]
pub(crate) fn assert_problem(answer: &str, expected: &str, code: &str) {
    assert_eq!(status(answer), expected, "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{code} in {answer}");
}

//! What RabbitMQ brokers do to gateways and services, and how soon those are back: each test has brokers of its own, and
//! prints what was sent and what became of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use microservice_sdk::Running;
use router_config::Sources;
use router_conformance::client::Client;
use router_conformance::services::orders;
use router_conformance::{eventually, within};
use router_gateway::Gateway;
use router_gateway::settings::{Settings, listen};
use router_link::Connector as _;
use test_broker::{Node, Options, Tls};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport_rabbitmq::{Broker, ClientTls, RabbitConnector};
use transport_tls::development::DevelopmentCa;

const SECRET: &str = "a secret that both ends know, 32 bytes or more";
/// Requests that are always in flight.
const CLIENTS: usize = 8;
/// Service is to be back so soon after the broker is.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Starts brokers where a test may wait for them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

async fn node() -> Node {
    blocking(|| Node::start(Options::default())).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A gateway as its configuration says it.
async fn gateway(name: &str, urls: &[String]) -> Gateway {
    gateway_with(name, urls, "").await
}

/// The same with further keys for the transport.
async fn gateway_with(name: &str, urls: &[String], more: &str) -> Gateway {
    let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    gateway_of(name, &format!("rabbitmq: {{ url: [{}], shared_secret: \"{SECRET}\"{more} }}", urls.join(", "))).await
}

/// The same with other transports.
async fn gateway_of(name: &str, transports: &str) -> Gateway {
    let yaml = format!("node: {{ id: {name} }}\ntransports:\n  {transports}\n");
    let fixed = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "shutdown.idle_linger=0s"];
    let sources = Sources::router().text("router.yaml", &yaml).overrides(fixed.map(str::to_owned));
    let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
    let mut builder = Gateway::builder(&settings);
    for listener in listen(&settings).unwrap_or_else(|error| panic!("{error}")) {
        builder = builder.services(listener);
    }
    within("a gateway starts", builder.start()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// An instance of the service, once every gateway there sends it requests.
async fn instance(url: &str) -> Running {
    let service = orders("1.0.0").gateway(url).shared_secret(SECRET);
    let mut running = service.start().unwrap_or_else(|error| panic!("{error}"));
    within("a service is ready", running.ready()).await.unwrap_or_else(|error| panic!("{error}"));
    running
}

async fn instances(gateway: &Gateway, number: usize) {
    let admin = Client::http1(gateway.admin_addr().expect("an admin listener"));
    eventually("the instances are there", async || {
        let instances = admin.get("/instances").await.json();
        instances.as_array().map(Vec::len) == Some(number)
    })
    .await;
}

fn http(gateway: &Gateway) -> SocketAddr {
    gateway.http_addr().expect("an HTTP listener")
}

/// What became of requests: how many, by status and code.
#[derive(Debug, Clone, Default)]
struct Tally {
    by_outcome: BTreeMap<String, usize>,
    first_good_since: Option<Instant>,
    since: Option<Instant>,
}

impl Tally {
    fn of(&self, outcome: &str) -> usize {
        self.by_outcome.get(outcome).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.by_outcome.values().sum()
    }
}

/// Clients that ask one thing after another.
struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    fn begin(servers: &[SocketAddr]) -> Self {
        let mut load = Self { tally: Arc::default(), stop: CancellationToken::new(), clients: JoinSet::new() };
        for number in 0..CLIENTS {
            let client = Client::http1(servers[number % servers.len()]);
            let (tally, stop) = (Arc::clone(&load.tally), load.stop.clone());
            load.clients.spawn(async move {
                while !stop.is_cancelled() {
                    let begun = Instant::now();
                    let mut request = client.request(Method::GET, "/orders/7");
                    request.headers_mut().insert("x-request-timeout-ms", http::HeaderValue::from_static("2000"));
                    let answer = client.ask(request).await;
                    let outcome = match answer.status {
                        StatusCode::OK => "200".to_owned(),
                        other => format!("{} {}", other.as_u16(), answer.problem()),
                    };
                    let mut tally = tally.lock().expect("no panic");
                    if answer.status == StatusCode::OK && tally.since.is_some_and(|since| begun >= since) {
                        tally.first_good_since.get_or_insert_with(Instant::now);
                    }
                    *tally.by_outcome.entry(outcome).or_default() += 1;
                }
            });
        }
        load
    }

    fn now(&self) -> Tally {
        self.tally.lock().expect("no panic").clone()
    }

    /// Waits until so many more were answered well.
    async fn good(&self, more: usize) {
        let wanted = self.now().of("200") + more;
        eventually("answers", async || self.now().of("200") >= wanted).await;
    }

    /// Waits until anything but a good answer came.
    async fn trouble(&self) {
        let before = self.now();
        let bad = |tally: &Tally| tally.all() - tally.of("200");
        eventually("trouble", async || bad(&self.now()) > bad(&before)).await;
    }

    /// From now on the first good answer is looked for.
    fn mark(&self) -> Instant {
        let now = Instant::now();
        let mut tally = self.tally.lock().expect("no panic");
        (tally.since, tally.first_good_since) = (Some(now), None);
        now
    }

    /// How long after the mark a request was sent that was answered well, and answered.
    async fn back(&self, since: Instant) -> Duration {
        eventually("service is back", async || self.now().first_good_since.is_some()).await;
        self.now().first_good_since.map(|at| at - since).expect("just seen")
    }

    /// Ends the clients, each after its answer: every request has exactly one.
    async fn end(mut self, what: &str) -> Tally {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
        let tally = self.now();
        println!("{what}: {} requests, {:?}", tally.all(), tally.by_outcome);
        let known = ["200", "502 connection_lost", "503 no_instance", "503 no_capacity", "504 deadline_exceeded"];
        for outcome in tally.by_outcome.keys() {
            assert!(known.contains(&outcome.as_str()), "{what}: {outcome}");
        }
        tally
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn several_gateways_and_many_instances_share_one_broker() {
    let node = node().await;
    let urls = [node.url()];
    let gateways = [gateway("gw-1", &urls).await, gateway("gw-2", &urls).await, gateway("gw-3", &urls).await];
    let mut services = Vec::new();
    for _ in 0..6 {
        services.push(instance(&node.url()).await);
    }
    for gateway in &gateways {
        instances(gateway, 6).await;
    }
    let load = Load::begin(&gateways.each_ref().map(http));
    load.good(600).await;
    let tally = load.end("three gateways, six instances").await;
    assert_eq!(tally.of("200"), tally.all());
    // A gateway that comes later is found by those that are there, and one that leaves is missed by nobody.
    let later = gateway("gw-4", &urls).await;
    instances(&later, 6).await;
    let [first, second, third] = gateways;
    within("a gateway leaves", first.shutdown()).await;
    let load = Load::begin(&[http(&second), http(&third), http(&later)]);
    load.good(300).await;
    let tally = load.end("one gateway came, another left").await;
    assert_eq!(tally.of("200"), tally.all());
}

/// The requests that an instance lets a gateway have in flight.
async fn lease(gateway: &Gateway) -> u64 {
    let instances = Client::http1(gateway.admin_addr().expect("an admin listener")).get("/instances").await.json();
    instances[0]["lease"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn gateways_that_nobody_has_named_are_all_served() {
    let node = node().await;
    let transports = format!("rabbitmq: {{ url: \"{}\", shared_secret: \"{SECRET}\" }}", node.url());
    // As the file of the README, twice.
    let nameless = async || gateway_of("gateway", &transports).await;
    let (first, second) = (nameless().await, nameless().await);
    let _services = [instance(&node.url()).await, instance(&node.url()).await];
    for gateway in [&first, &second] {
        instances(gateway, 2).await;
    }
    let load = Load::begin(&[http(&first), http(&second)]);
    load.good(300).await;
    // One that comes later is none of those that are there, either.
    let third = nameless().await;
    instances(&third, 2).await;
    load.good(100).await;
    let tally = load.end("gateways of one name").await;
    assert_eq!(tally.of("200"), tally.all());
    // What one was lent goes to the others as soon as it has left.
    let before = lease(&third).await;
    within("a gateway leaves", first.shutdown()).await;
    eventually("its share is given to the others", async || lease(&third).await > before).await;
    let before = lease(&third).await;
    // Without a word to anybody; and another process of its name is there.
    drop(second);
    eventually("its share is given to the other", async || lease(&third).await > before).await;
    let load = Load::begin(&[http(&third)]);
    load.good(100).await;
    let tally = load.end("one that is left").await;
    assert_eq!(tally.of("200"), tally.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn service_is_back_soon_after_a_broker_is_restarted_under_load() {
    let mut node = node().await;
    let gateway = gateway("gw-1", &[node.url()]).await;
    let _services = [instance(&node.url()).await, instance(&node.url()).await];
    instances(&gateway, 2).await;
    let load = Load::begin(&[http(&gateway)]);
    load.good(300).await;
    node = blocking(move || {
        node.kill();
        node
    })
    .await;
    load.trouble().await;
    let _node = blocking(move || {
        node.start_again().unwrap_or_else(|error| panic!("{error}"));
        node
    })
    .await;
    let back = load.back(load.mark()).await;
    println!("back {back:?} after the broker answered");
    assert!(back <= BACK_WITHIN, "{back:?}");
    instances(&gateway, 2).await;
    load.good(300).await;
    load.end("a broker restarted under load").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_instance_that_comes_by_tcp_too_outlives_its_broker() {
    let mut node = node().await;
    let transports = format!(
        "rabbitmq: {{ url: \"{}\", shared_secret: \"{SECRET}\" }}\n  tcp: {{ listen: \"127.0.0.1:0\", shared_secret: \"{SECRET}\" }}",
        node.url()
    );
    let gateway = gateway_of("gw-1", &transports).await;
    let tcp = gateway.service_listeners().iter().find(|url| url.starts_with("tcp://")).expect("TCP");
    let service = orders("1.0.0").gateway(node.url()).shared_secret(SECRET).gateway(tcp).shared_secret(SECRET);
    let mut running = service.start().unwrap_or_else(|error| panic!("{error}"));
    within("both ways are ready", running.ready()).await.unwrap_or_else(|error| panic!("{error}"));
    let ways = async || {
        let instances = Client::http1(gateway.admin_addr().expect("an admin listener")).get("/instances").await.json();
        assert_eq!(instances.as_array().map(Vec::len), Some(1), "{instances}");
        let ways = instances[0]["ways"].as_array().cloned().unwrap_or_default();
        ways.iter().map(|way| way["transport"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    eventually("it is one instance that comes in two ways", async || ways().await == ["rabbitmq", "tcp"]).await;

    let load = Load::begin(&[http(&gateway)]);
    load.good(300).await;
    node = blocking(move || {
        node.kill();
        node
    })
    .await;
    eventually("one way is lost", async || ways().await == ["tcp"]).await;
    load.good(300).await;
    let _node = blocking(move || {
        node.start_again().unwrap_or_else(|error| panic!("{error}"));
        node
    })
    .await;
    eventually("it is back", async || ways().await == ["rabbitmq", "tcp"]).await;
    load.good(300).await;
    let tally = load.end("a broker killed and started again, beside TCP").await;
    // What was in flight through the broker has no known outcome; nothing else failed.
    let lost = tally.of("502 connection_lost");
    assert!(lost <= CLIENTS && tally.of("200") + lost == tally.all(), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_queue_that_is_deleted_is_made_anew() {
    let node = Arc::new(node().await);
    let gateway = gateway("gw-1", &[node.url()]).await;
    let _services = [instance(&node.url()).await, instance(&node.url()).await];
    instances(&gateway, 2).await;
    let load = Load::begin(&[http(&gateway)]);
    load.good(300).await;
    for word in ["gateway", "service"] {
        let asked = Arc::clone(&node);
        let deleted = blocking(move || {
            let listed = asked.control(&["list_queues", "name"]).unwrap_or_else(|error| panic!("{error}"));
            let queue = listed.lines().find(|line| line.starts_with(&format!("stella.{word}."))).expect("a queue");
            // What owns a queue alone is asked from within.
            let script = format!(
                "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
                 rabbit_amqqueue:delete(Queue, false, false, <<\"test\">>)."
            );
            asked.control(&["eval", &script]).unwrap_or_else(|error| panic!("{error}"));
            queue.to_owned()
        })
        .await;
        let back = load.back(load.mark()).await;
        println!("back {back:?} after {deleted} was deleted");
        assert!(back <= BACK_WITHIN, "{back:?}");
        instances(&gateway, 2).await;
        load.good(100).await;
    }
    load.end("queues deleted under load").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_broker_that_takes_nothing_for_a_while_is_waited_for() {
    let node = Arc::new(node().await);
    let gateway = gateway("gw-1", &[node.url()]).await;
    let _service = instance(&node.url()).await;
    let load = Load::begin(&[http(&gateway)]);
    load.good(300).await;
    let set = |mark: &'static str| {
        let node = Arc::clone(&node);
        blocking(move || {
            node.control(&["set_vm_memory_high_watermark", mark]).unwrap_or_else(|error| panic!("{error}"));
        })
    };
    set("0.0000001").await;
    load.trouble().await;
    set("0.4").await;
    let back = load.back(load.mark()).await;
    println!("back {back:?} after the broker took messages again");
    assert!(back <= BACK_WITHIN, "{back:?}");
    load.good(300).await;
    load.end("a broker that was out of memory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_gateway_that_is_killed_disturbs_no_other() {
    let node = node().await;
    let urls = [node.url()];
    let doomed = std::thread::spawn({
        let urls = urls.clone();
        move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let gateway = runtime.block_on(gateway("gw-doomed", &urls));
            (runtime, gateway)
        }
    });
    let (runtime, doomed) = blocking(move || doomed.join().expect("no panic")).await;
    let gateway = gateway("gw-1", &urls).await;
    let _service = instance(&node.url()).await;
    instances(&gateway, 1).await;
    instances(&doomed, 1).await;
    let load = Load::begin(&[http(&gateway)]);
    load.good(100).await;
    // Without a word to anybody.
    runtime.shutdown_background();
    load.good(500).await;
    let tally = load.end("beside a gateway that was killed").await;
    assert_eq!(tally.of("200"), tally.all());
    drop(doomed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_broker_is_reached_over_tls_with_certificates_of_ones_own() {
    let files = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let ca = DevelopmentCa::new().expect("a CA");
    let (server, client) =
        (ca.gateway(&["localhost"]).expect("signed"), ca.service("spiffe://test/all").expect("signed"));
    let tls = Tls {
        ca: file("ca.pem", ca.certificate()),
        certificate: file("server.pem", &server.certificate),
        key: file("server.key", &server.key),
        client_certificate: true,
    };
    let (certificate, key) = (file("client.pem", &client.certificate), file("client.key", &client.key));
    let stranger = file("stranger.pem", DevelopmentCa::new().expect("a CA").certificate());
    let trusted = tls.ca.clone();
    let node = blocking(|| Node::start(Options { tls: Some(tls), settings: Vec::new() })).await;
    let node = node.unwrap_or_else(|error| panic!("{error}"));
    let url = node.tls_url();

    // A broker that cannot show a certificate of the right CA is not spoken with, and one that wants ours is shown it.
    for (ca, own) in [(&stranger, true), (&trusted, false)] {
        let (certificate, key) = (own.then(|| certificate.clone()), own.then(|| key.clone()));
        let tls = ClientTls { ca: Some(ca.clone()), certificate, key, server_name: None };
        let broker = Broker::new([url.as_str()]).expect("an address").with_tls(tls);
        assert!(RabbitConnector::new(broker, None).connect().await.is_err());
    }
    let shown = |path: &std::path::Path| path.display().to_string();
    let more = format!(", ca: {}, certificate: {}, key: {}", shown(&trusted), shown(&certificate), shown(&key));
    let gateway = gateway_with("gw-1", std::slice::from_ref(&url), &more).await;
    let service = orders("1.0.0").gateway(&url).shared_secret(SECRET).ca(&trusted).certificate(&certificate, &key);
    let mut running = service.start().unwrap_or_else(|error| panic!("{error}"));
    within("a service is ready", running.ready()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(Client::http1(http(&gateway)).get("/orders/7").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn service_goes_on_at_the_other_node_of_a_cluster_when_one_is_killed_under_load() {
    let mut first = node().await;
    let (back, second) = blocking(move || {
        let second = first.join(Options::default()).unwrap_or_else(|error| panic!("{error}"));
        let nodes = first.control(&["eval", "length(rabbit_nodes:all_running())."]);
        assert_eq!(nodes.unwrap_or_else(|error| panic!("{error}")).trim(), "2", "they are one cluster");
        (first, second)
    })
    .await;
    first = back;
    let (one, other) = (first.url(), second.url());
    let gateways =
        [gateway("gw-1", &[one.clone(), other.clone()]).await, gateway("gw-2", &[other.clone(), one.clone()]).await];
    let both = |first: &Node, second: &Node| format!("amqp://guest:guest@{},{}/%2f", first.address(), second.address());
    let _services = [instance(&both(&first, &second)).await, instance(&both(&second, &first)).await];
    for gateway in &gateways {
        instances(gateway, 2).await;
    }
    let load = Load::begin(&gateways.each_ref().map(http));
    load.good(300).await;
    let since = load.mark();
    let _killed = blocking(move || {
        first.kill();
        first
    })
    .await;
    load.good(300).await;
    println!("the first good answer came {:?} after a node was killed", load.back(since).await);
    for gateway in &gateways {
        instances(gateway, 2).await;
    }
    let mended = load.mark();
    load.back(mended).await;
    load.good(100).await;
    let tally = load.end("a node of a cluster killed under load").await;
    assert!(tally.of("200") >= 700);
}

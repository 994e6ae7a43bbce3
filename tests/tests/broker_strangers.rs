//! What somebody with a broker's credentials, but without the secret, can do to links: end them, and no more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use microservice_sdk::Microservice;
use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_config::Sources;
use router_conformance::client::Client;
use router_conformance::{eventually, within};
use router_gateway::Gateway;
use router_gateway::settings::{ServiceListener, Settings};
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};

const SECRET: &[u8] = b"a secret that both ends know, 32 bytes or more";
/// Link id, sequence and MAC.
const HEADER: usize = 40;

fn secret() -> Secret {
    Secret::new(SECRET).expect("long enough")
}

async fn shared_url() -> String {
    let url = tokio::task::spawn_blocking(test_broker::shared_url).await.expect("no panic");
    url.unwrap_or_else(|error| panic!("{error}"))
}

fn exchange() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("strangers-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Somebody between a gateway and a service, who passes their messages on, both ways, as they are: at its own queue the
/// service finds a gateway, and the gateway a service.
struct Between {
    channel: Channel,
    from_service: Consumer,
    from_gateway: Consumer,
    to_service: Option<ShortString>,
    to_gateway: ShortString,
    answers: ShortString,
    /// What the gateway said last, beside the heartbeats' few bytes.
    request: Option<Vec<u8>>,
    /// Number of what the gateway says next.
    next: [u8; 8],
    /// Links that the service has opened.
    opened: usize,
    _connection: Connection,
}

impl Between {
    /// Stands between the gateway that meets at `real` and the services that meet at `apparent`.
    async fn place(url: &str, real: &str, apparent: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a broker");
        let channel = connection.create_channel().await.expect("a channel");
        let queue = async |name: &str| {
            let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.into(), own, FieldTable::default()).await.expect("a queue");
            let taken = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            channel.basic_consume(name.into(), "".into(), taken, FieldTable::default()).await.expect("a consumer")
        };
        for exchange in [real, apparent] {
            // As gateways and services do, whoever is first.
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let declared =
                channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default());
            declared.await.expect("an exchange");
        }
        let (own, answers) = (format!("{apparent}.gateway.false"), format!("{apparent}.service.false"));
        let (from_service, mut from_gateway) = (queue(&own).await, queue(&answers).await);
        let bind = async |exchange: &str, queue: &str, key: &str| {
            let bound = channel.queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("an exchange");
        };
        bind(real, &answers, "solicit").await;
        bind(apparent, &own, "who").await;
        // As a service would.
        let mut who = vec![0x82, 0xa7];
        who.extend(b"version\x01\xa5queue");
        push_text(&mut who, &answers);
        publish(&channel, real, "who", "who", who, None).await;
        let solicit = from_gateway.next().await.expect("an answer").expect("an answer");
        let text = String::from_utf8_lossy(&solicit.data).into_owned();
        let at = text.find(&format!("{real}.gateway.")).expect("the gateway's queue");
        let to_gateway = text.get(at..at + real.len() + ".gateway.".len() + 16).expect("its name").into();
        Self {
            channel,
            from_service,
            from_gateway,
            to_service: None,
            to_gateway,
            answers: answers.as_str().into(),
            request: None,
            next: [0; 8],
            opened: 0,
            _connection: connection,
        }
    }

    /// Passes on whatever comes next.
    async fn pass_on(&mut self, own: &str) {
        tokio::select! {
            Some(Ok(message)) = self.from_service.next() => self.of_service(own, message).await,
            Some(Ok(message)) = self.from_gateway.next() => self.of_gateway(message).await,
        }
    }

    async fn of_service(&mut self, own: &str, message: Delivery) {
        if message.properties.kind().is_some() {
            // It asks who is there.
            let mut solicit = vec![0x83, 0xa7];
            solicit.extend(b"version\x01\xa4node\xa4gw-1\xa5queue");
            push_text(&mut solicit, &format!("{own}.gateway.false"));
            let text = String::from_utf8_lossy(&message.data).into_owned();
            let at = text.find(&format!("{own}.service.")).expect("the service's queue");
            let queue = text.get(at..at + own.len() + ".service.".len() + 16).expect("its name");
            return publish(&self.channel, "", queue, "solicit", solicit, None).await;
        }
        if let Some(queue) = message.properties.reply_to() {
            self.to_service = Some(queue.clone());
            self.opened += 1;
        }
        let reply_to = message.properties.reply_to().as_ref().map(|_| self.answers.clone());
        publish(&self.channel, "", self.to_gateway.as_str(), "", message.data, reply_to).await;
    }

    async fn of_gateway(&mut self, message: Delivery) {
        if message.properties.kind().is_some() {
            return;
        }
        // A REQUEST.
        if message.data.get(HEADER) == Some(&0x10) {
            self.request = Some(message.data.clone());
        }
        let number = u64::from_be_bytes(message.data[16..24].try_into().expect("8 bytes"));
        self.next = (number + 1).to_be_bytes();
        self.tell_service(message.data).await;
    }

    async fn tell_service(&self, message: Vec<u8>) {
        let queue = self.to_service.clone().expect("it has opened a link");
        publish(&self.channel, "", queue.as_str(), "", message, None).await;
    }
}

fn push_text(into: &mut Vec<u8>, text: &str) {
    into.extend([0xd9, u8::try_from(text.len()).expect("short")]);
    into.extend(text.as_bytes());
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    kind: &str,
    payload: Vec<u8>,
    reply_to: Option<ShortString>,
) {
    let mut properties = BasicProperties::default();
    if !kind.is_empty() {
        properties = properties.with_type(kind.into());
    }
    if let Some(queue) = reply_to {
        properties = properties.with_reply_to(queue);
    }
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), key.into(), options, &payload, properties).await.expect("published");
}

/// A gateway, a service whose handler counts, and somebody between them.
struct Scene {
    between: Between,
    own: String,
    client: Client,
    handled: Arc<AtomicUsize>,
    _gateway: Gateway,
    _running: microservice_sdk::Running,
}

impl Scene {
    async fn set() -> Self {
        let url = shared_url().await;
        let (real, own) = (exchange(), exchange());
        let meeting_at = |exchange: &str| {
            let mut broker = Broker::new([url.as_str()]).expect("an address");
            broker.set_exchange(exchange).expect("a name");
            broker
        };
        let options = RabbitListenerOptions::new("gw-1", Secrets::sole(secret()));
        let listener = Box::new(RabbitListener::start(meeting_at(&real), options));
        let fixed = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"].map(str::to_owned);
        let settings: Settings =
            router_config::load(Sources::router().text("router.yaml", "").overrides(fixed)).expect("settings");
        let listener = ServiceListener::new(listener, Secrets::sole(secret()));
        let gateway = Gateway::builder(&settings).services(listener).start().await.expect("a gateway");

        // There before the service asks who is.
        let between = within("somebody between", Between::place(&url, &real, &own)).await;
        let handled = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&handled);
        let connector = RabbitConnector::new(meeting_at(&own), Some((KeyId::sole(), secret())));
        let service = Microservice::new("counted", "1.0.0")
            .raw(Method::GET, "/count", move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async { "counted" }
            })
            .connector(Arc::new(connector))
            .links(1)
            .shared_secret(SECRET);
        let running = service.start().unwrap_or_else(|error| panic!("{error}"));
        let client = Client::http1(gateway.http_addr().expect("an HTTP listener"));
        Self { between, own, client, handled, _gateway: gateway, _running: running }
    }

    /// Passes messages on while something else goes on.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.between.pass_on(&self.own) => {}
            }
        }
    }

    /// Waits until a request is answered well.
    async fn served(&mut self) {
        let client = self.client.clone();
        let served = eventually("it is served", async || client.get("/count").await.status == StatusCode::OK);
        self.meanwhile(served).await;
    }

    /// Waits until the service has opened one more link: its last one has ended.
    async fn opened_anew(&mut self, before: usize) {
        within("another link", async {
            while self.between.opened == before {
                self.between.pass_on(&self.own).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_somebody_in_between_makes_up_reaches_no_handler() {
    let mut scene = Scene::set().await;
    scene.served().await;
    let (handled, opened) = (scene.handled.load(Ordering::SeqCst), scene.between.opened);
    // A request like the last one, on the next stream, in its place: all is right but the MAC.
    let mut forged = scene.between.request.clone().expect("there was a request");
    forged[16..24].copy_from_slice(&scene.between.next);
    forged[HEADER + 7] += 2;
    scene.between.tell_service(forged).await;
    scene.opened_anew(opened).await;
    assert_eq!(scene.handled.load(Ordering::SeqCst), handled, "nothing made up is ever handled");
    scene.served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_somebody_in_between_says_again_is_not_handled_twice() {
    let mut scene = Scene::set().await;
    scene.served().await;
    let (handled, opened) = (scene.handled.load(Ordering::SeqCst), scene.between.opened);
    let again = scene.between.request.clone().expect("there was a request");
    scene.between.tell_service(again).await;
    scene.opened_anew(opened).await;
    assert_eq!(scene.handled.load(Ordering::SeqCst), handled);
    scene.served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_strangers_send_disturbs_nobody() {
    let mut scene = Scene::set().await;
    scene.served().await;
    let opened = scene.between.opened;
    let (service, gateway) = (scene.between.to_service.clone().expect("a link"), scene.between.to_gateway.clone());
    for queue in [service, gateway] {
        for kind in ["", "who", "solicit", "other"] {
            for payload in [Vec::new(), vec![0; 7], vec![0xff; HEADER], vec![0x81; 4096]] {
                publish(&scene.between.channel, "", queue.as_str(), kind, payload, None).await;
            }
        }
    }
    let client = scene.client.clone();
    for _ in 0..20 {
        let answer = client.get("/count");
        assert_eq!(scene.meanwhile(answer).await.status, StatusCode::OK);
    }
    assert_eq!(scene.between.opened, opened, "the link is the same");
}

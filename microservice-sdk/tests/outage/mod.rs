//! What a service's log says of a gateway that is away: enough, and once.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microservice_sdk::Microservice;
use microservice_sdk::http::Method;
use router_link::{BoxFuture, BoxLink, Connector, LinkError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::fake_gateway::FakeGateway;

/// A way to a gateway that nobody listens on until it is opened.
pub(crate) struct Road {
    gateway: Arc<dyn Connector>,
    pub(crate) open: watch::Sender<bool>,
    dialled: watch::Sender<usize>,
}

impl Road {
    pub(crate) fn closed(gateway: Arc<dyn Connector>) -> Arc<Self> {
        Arc::new(Self { gateway, open: watch::Sender::new(false), dialled: watch::Sender::new(0) })
    }
}

impl Connector for Road {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        self.dialled.send_modify(|dialled| *dialled += 1);
        if *self.open.borrow() {
            return self.gateway.connect();
        }
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "it was refused");
        Box::pin(async move { Err(LinkError::io("connecting to road", refused)) })
    }

    fn target(&self) -> &str {
        "road"
    }
}

/// One line of the SDK's log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    level: Level,
    at: Instant,
    pub(crate) text: String,
}

/// Keeps the SDK's own lines, of all levels.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    pub(crate) fn of(&self, level: Level) -> Vec<Line> {
        self.0.lock().unwrap().iter().filter(|line| line.level == level).cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("microservice_sdk")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(Line { level: *event.metadata().level(), at: Instant::now(), text: text.0 });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

/// One thread, so that its subscriber hears all tasks.
#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_a_minute_and_its_end_once() {
    const FAILURES: usize = 60;
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let gateway = FakeGateway::start();
    let road = Road::closed(gateway.connector());
    let mut running = Microservice::new("patient", "1.0.0")
        .raw(Method::GET, "/x", || async {})
        .connector(Arc::clone(&road) as Arc<dyn Connector>)
        .start()
        .unwrap();
    road.dialled.subscribe().wait_for(|dialled| *dialled >= FAILURES).await.unwrap();
    road.open.send_replace(true);
    running.ready().await.unwrap();

    let told = log.of(Level::WARN);
    assert!(told[0].text.contains("no link to the gateway; dialling again"), "{told:#?}");
    assert!(told.len() > 1 && told.len() < FAILURES / 2, "{told:#?}");
    assert!(told.windows(2).all(|pair| pair[1].at - pair[0].at >= Duration::from_secs(60)), "{told:#?}");
    assert!(told[1..].iter().all(|line| line.text.contains("failures=")), "{told:#?}");
    assert!(told.iter().all(|line| line.text.matches("it was refused").count() == 1), "{told:#?}");
    let ends = log.of(Level::INFO);
    let ends: Vec<&Line> = ends.iter().filter(|line| line.text.contains("connected to the gateway")).collect();
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert!(ends[0].text.contains(&format!("failures={FAILURES}")), "{ends:#?}");
    running.shutdown().await.unwrap();
}

//! A place at the broker while it stands: connection, channels, the side's own queue; and how it is built.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use lapin::message::BasicReturnMessage;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer, Event, ExchangeKind};
use router_common::limits;
use router_link::{Environment, SystemEnvironment};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::message::HEADER_BYTES;
use crate::watch::Watch;

/// Building the topology on a connection that stands.
const BUILD_TIMEOUT: Duration = Duration::from_secs(10);
/// Closing a connection in good order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an AMQP frame that are not its payload.
const AMQP_FRAME_BYTES: usize = 8;
/// A broker's default, and what is assumed of one that has no bound of its own.
const FRAME_MAX: u32 = 128 * 1024;
/// Largest frame payload that one such frame takes together with what stands before it, in bytes.
pub(crate) const DEFAULT_MAX_FRAME: u32 =
    FRAME_MAX - (AMQP_FRAME_BYTES + HEADER_BYTES + limits::FRAME_HEADER_BYTES) as u32;

/// What a place needs to be built.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) broker: Broker,
    /// Who this is, for the broker's own lists.
    pub(crate) name: String,
    pub(crate) prefetch: u16,
    /// How long a message may wait in the queue: `dead_after`.
    pub(crate) ttl: Duration,
}

/// A place that stands.
pub(crate) struct Up {
    /// Dropped last: the connection closes with it.
    connection: Connection,
    pub(crate) broker: Arc<str>,
    pub(crate) exchange: ShortString,
    /// This side's own queue.
    pub(crate) queue: ShortString,
    /// Longest message that one of the broker's frames takes, in bytes.
    pub(crate) message_bytes: usize,
    consumes: Channel,
    pub(crate) publishes: Channel,
    pub(crate) watch: Watch,
    blocked: watch::Sender<bool>,
    lost: AtomicBool,
}

/// What the connection itself tells.
pub(crate) type Connected = Pin<Box<dyn Stream<Item = Event> + Send>>;
impl Up {
    /// Waits while the broker takes no messages.
    pub(crate) async fn takes_messages(&self) {
        // The sender is this very value.
        let _ = self.blocked.subscribe().wait_for(|blocked| !blocked).await;
    }

    pub(crate) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// Acknowledges this delivery and all before it.
    pub(crate) async fn acknowledge(&self, tag: u64) -> lapin::Result<()> {
        self.consumes.basic_ack(tag, BasicAckOptions { multiple: true }).await
    }

    /// Closes it, in good order if that is possible.
    pub(crate) async fn close(&self) {
        let closing = async {
            // Closing overtakes what waits to be sent, so that is waited for: messages leave in order, and this one is the
            // last. No queue has an empty name, so it goes nowhere.
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            self.publishes.basic_publish("".into(), "".into(), options, &[], properties).await?;
            self.connection.close(200, "".into()).await
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    /// It is of no use any more.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What came back since the last time.
    pub(crate) fn returned(&self) -> Vec<BasicReturnMessage> {
        // Nothing is ever confirmed here, so there is nothing to wait for.
        let mut looking = Box::pin(self.publishes.wait_for_confirms());
        match looking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(messages)) => messages,
            _ => Vec::new(),
        }
    }

    pub(crate) async fn build(settings: &Settings, names: Names) -> Result<(Arc<Self>, Consumer, Connected), String> {
        let mut last = String::new();
        for address in settings.broker.addresses() {
            let at = format!("{}:{}", address.authority.host, address.authority.port);
            match settings.broker.dial(address, &settings.name).await {
                Err(error) => last = format!("{at}: {error}"),
                Ok(connection) => match timeout(BUILD_TIMEOUT, Self::build_on(connection, settings, names)).await {
                    Ok(Ok(built)) => return Ok(built),
                    Ok(Err(error)) => last = format!("{at}: {error}"),
                    Err(_) => last = format!("{at}: nothing was declared within {BUILD_TIMEOUT:?}"),
                },
            }
        }
        Err(last)
    }

    async fn build_on(
        connection: Connection,
        settings: &Settings,
        names: Names,
    ) -> lapin::Result<(Arc<Self>, Consumer, Connected)> {
        let events: Connected = Box::pin(connection.events_listener());
        let exchange: ShortString = settings.broker.exchange().into();
        let mut random = [0; 8];
        SystemEnvironment.random(&mut random);
        let queue = format!("{}.{}.{:016x}", settings.broker.exchange(), names.word, u64::from_ne_bytes(random));
        let queue: ShortString = queue.as_str().into();
        let consumes = connection.create_channel().await?;
        let publishes = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        consumes.exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        let ttl = i64::try_from(settings.ttl.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl));
        consumes.queue_declare(queue.clone(), own, arguments).await?;
        let (to, key) = (queue.clone(), names.hears.into());
        consumes.queue_bind(to, exchange.clone(), key, QueueBindOptions::default(), FieldTable::default()).await?;
        consumes.basic_qos(settings.prefetch, BasicQosOptions::default()).await?;
        let only = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = consumes.basic_consume(queue.clone(), "".into(), only, FieldTable::default()).await?;
        let frame_max = match connection.configuration().frame_max() {
            0 => FRAME_MAX,
            bound => bound,
        };
        let up = Self {
            broker: Arc::clone(settings.broker.shown()),
            exchange,
            queue,
            message_bytes: (frame_max as usize).saturating_sub(AMQP_FRAME_BYTES).max(HEADER_BYTES),
            consumes,
            publishes,
            watch: Watch::default(),
            blocked: watch::Sender::new(false),
            lost: AtomicBool::new(false),
            connection,
        };
        Ok((Arc::new(up), consumer, events))
    }
}

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Up").field("broker", &self.broker).field("queue", &self.queue.as_str()).finish_non_exhaustive()
    }
}

/// What tells a gateway's place from a service's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) hears: &'static str,
    pub(crate) word: &'static str,
}

/// Longest frame payload that a message takes for sure: never less than the protocol's own least.
pub(crate) fn max_frame(message_bytes: usize) -> u32 {
    let fits = message_bytes.saturating_sub(HEADER_BYTES + limits::FRAME_HEADER_BYTES);
    u32::try_from(fits).unwrap_or(u32::MAX).clamp(limits::FRAME_PAYLOAD_BYTES, limits::FRAME_PAYLOAD_BYTES_MAX)
}

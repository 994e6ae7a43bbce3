//! One side's place at the broker: a connection, a queue of its own, and every link that runs through it.
//!
//! It is kept by one task, for as long as it is wanted: whatever breaks (the broker, the connection, the queue), all of it
//! is built anew from nothing, and the links that ran through it are over (SPEC 7). It passes messages on by the link they
//! name, and knows neither keys nor frames. What gateways and services do differently here is their [`Role`].

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer, Event, ExchangeKind};
use router_common::limits;
use router_link::{Backoff, Environment, SystemEnvironment};
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::error::Broken;
use crate::mailbox::Mailbox;
use crate::message::{HEADER_BYTES, Header, LinkId};
use crate::publish::Watch;

/// First and longest wait before a broker is dialled again (SPEC 7: at most 2 s).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Building the topology on a connection that stands.
const BUILD_TIMEOUT: Duration = Duration::from_secs(10);
/// Closing a connection in good order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Deliveries that are passed on in one turn.
const BURST: usize = 128;
/// How often one looks for messages that came back, while messages are sent,
const RETURNS: Duration = Duration::from_millis(20);
/// and how many times after the last one.
const RESTFUL_LOOKS: u32 = 10;
/// How often a side announces itself unasked.
const ANNOUNCE: Duration = Duration::from_secs(10);
/// Bytes of an AMQP frame that are not its payload.
const AMQP_FRAME_BYTES: usize = 8;
/// What is assumed of a broker that has no bound of its own.
const FRAME_MAX: u32 = 128 * 1024;

/// What one kind of side does at its place.
pub(crate) trait Role: Send + 'static {
    /// The routing key of the announcements that it wants to hear.
    const HEARS: &'static str;
    /// The word for its queues.
    const WORD: &'static str;

    /// Its place stands; also called at intervals, `first` being false then.
    fn announce(&mut self, up: &Arc<Up>, first: bool);

    /// An announcement was heard.
    fn heard(&mut self, up: &Arc<Up>, announcement: &[u8]);

    /// A message came for a link that is not there.
    fn stranger(&mut self, up: &Arc<Up>, header: Header, delivery: Delivery);

    /// It is not wanted any more: only the links that are there go on.
    fn leave(&mut self, up: &Arc<Up>);

    /// The broker cannot be reached, or was lost.
    fn is_down(&mut self, why: &str);
}

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

/// What links and their makers share with the task that keeps the place.
#[derive(Debug)]
pub(crate) struct Station {
    links: Mutex<HashMap<LinkId, Arc<Mailbox>>>,
    /// A link has left.
    left: Notify,
    up: watch::Sender<Option<Arc<Up>>>,
    /// Nobody wants the place any more but the links that are there.
    pub(crate) leaving: CancellationToken,
}

/// A place that stands.
pub(crate) struct Up {
    /// Dropped last: the connection closes with it.
    _connection: Connection,
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

impl Station {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            links: Mutex::default(),
            left: Notify::new(),
            up: watch::Sender::new(None),
            leaving: CancellationToken::new(),
        })
    }

    /// Waits until there is a place at a broker that takes messages.
    pub(crate) async fn up(&self) -> Arc<Up> {
        let mut ups = self.up.subscribe();
        loop {
            let up = match ups.wait_for(Option::is_some).await {
                Ok(up) => up.clone(),
                // The sender is this very value.
                Err(_) => None,
            };
            let Some(up) = up else { continue };
            let mut blocked = up.blocked.subscribe();
            tokio::select! {
                free = blocked.wait_for(|blocked| !blocked) => if free.is_ok() && !up.is_lost() { drop(free); return up },
                _ = ups.changed() => {}
            }
        }
    }

    /// Makes a link's mailbox, unless there are `most` links, or this one is there already.
    pub(crate) fn join(&self, link: LinkId, most: usize) -> Option<Arc<Mailbox>> {
        let mut links = self.links();
        if links.len() >= most || links.contains_key(&link) {
            return None;
        }
        let mailbox = Arc::<Mailbox>::default();
        links.insert(link, Arc::clone(&mailbox));
        Some(mailbox)
    }

    /// The link is over.
    pub(crate) fn leave(&self, link: LinkId) {
        self.links().remove(&link);
        self.left.notify_one();
    }

    fn mailbox(&self, link: LinkId) -> Option<Arc<Mailbox>> {
        self.links().get(&link).cloned()
    }

    fn is_empty(&self) -> bool {
        self.links().is_empty()
    }

    fn links(&self) -> MutexGuard<'_, HashMap<LinkId, Arc<Mailbox>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: &str) {
        let lost = self.up.send_replace(None);
        if let Some(up) = lost {
            up.lost.store(true, Ordering::Release);
        }
        for (_, mailbox) in self.links().drain() {
            mailbox.end(Broken::Broker(why.to_owned()));
        }
        self.left.notify_one();
    }
}

impl Up {
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What came back since the last time.
    fn returned(&self) -> Vec<Bytes> {
        // Nothing is ever confirmed here, so there is nothing to wait for.
        let mut looking = Box::pin(self.publishes.wait_for_confirms());
        match looking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(messages)) => {
                messages.into_iter().map(|message| Bytes::from(message.delivery.data)).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn build(settings: &Settings, role: RoleNames) -> Result<(Arc<Self>, Consumer, Connected), String> {
        let mut last = String::new();
        for address in settings.broker.addresses() {
            let at = format!("{}:{}", address.authority.host, address.authority.port);
            match settings.broker.dial(address, &settings.name).await {
                Err(error) => last = format!("{at}: {error}"),
                Ok(connection) => match timeout(BUILD_TIMEOUT, Self::build_on(connection, settings, role)).await {
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
        role: RoleNames,
    ) -> lapin::Result<(Arc<Self>, Consumer, Connected)> {
        let events: Connected = Box::pin(connection.events_listener());
        let exchange: ShortString = settings.broker.exchange().into();
        let mut random = [0; 8];
        SystemEnvironment.random(&mut random);
        let queue = format!("{}.{}.{:016x}", settings.broker.exchange(), role.word, u64::from_ne_bytes(random));
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
        let (to, key) = (queue.clone(), role.hears.into());
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
            _connection: connection,
        };
        Ok((Arc::new(up), consumer, events))
    }
}

impl std::fmt::Debug for Up {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Up").field("broker", &self.broker).field("queue", &self.queue.as_str()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct RoleNames {
    hears: &'static str,
    word: &'static str,
}

/// What the connection itself tells.
type Connected = Pin<Box<dyn Stream<Item = Event> + Send>>;
type Acking = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// Keeps a place until nobody wants it any more and its last link is over.
pub(crate) async fn keep<R: Role>(station: Arc<Station>, settings: Settings, mut role: R) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let names = RoleNames { hears: R::HEARS, word: R::WORD };
    while !station.leaving.is_cancelled() {
        let built = tokio::select! {
            () = station.leaving.cancelled() => return,
            built = Up::build(&settings, names) => built,
        };
        match built {
            Ok((up, consumer, events)) => {
                backoff.reset();
                tracing::info!(broker = %up.broker, queue = up.queue.as_str(), "at the broker");
                station.up.send_replace(Some(Arc::clone(&up)));
                let serving = Serving { station: &station, up, role: &mut role, consumer, events };
                let ended = serving.run().await;
                let Err(why) = ended else { return station.lose("closed") };
                tracing::warn!(broker = %settings.broker.shown(), error = why, "the broker was lost");
                station.lose(&why);
                role.is_down(&why);
            }
            Err(why) => {
                tracing::debug!(broker = %settings.broker.shown(), error = why, "the broker cannot be reached");
                role.is_down(&why);
            }
        }
        let wait = backoff.next_wait(SystemEnvironment.random_u64());
        tokio::select! {
            () = station.leaving.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A place while it stands.
struct Serving<'a, R> {
    station: &'a Station,
    up: Arc<Up>,
    role: &'a mut R,
    consumer: Consumer,
    events: Connected,
}

impl<R: Role> Serving<'_, R> {
    /// Runs until it is lost.
    ///
    /// # Errors
    /// Why it was lost; `Ok`: it is not wanted any more.
    async fn run(mut self) -> Result<(), String> {
        let mut burst = Vec::with_capacity(BURST);
        let mut acking: Option<Acking> = None;
        let mut unacked = None;
        let mut announcing = interval(ANNOUNCE);
        announcing.reset();
        let mut looking = Looking { interval: interval(RETURNS), left: 0, seen: 0 };
        let mut is_leaving = false;
        self.role.announce(&self.up, true);
        let ended = loop {
            tokio::select! {
                biased;
                more = poll_fn(|cx| take_burst(&mut self.consumer, cx, &mut burst)) => {
                    for delivery in burst.drain(..) {
                        unacked = Some(delivery.delivery_tag);
                        self.pass_on(delivery);
                    }
                    if let Err(why) = more {
                        break Err(why);
                    }
                }
                done = poll_fn(|cx| acking.as_mut().map_or(Poll::Pending, |acking| acking.as_mut().poll(cx))) => {
                    acking = None;
                    if let Err(error) = done {
                        break Err(error.to_string());
                    }
                }
                event = poll_fn(|cx| self.events.as_mut().poll_next(cx)) => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        tracing::warn!(broker = %self.up.broker, why, "the broker takes no messages for now");
                        self.up.blocked.send_replace(true);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(broker = %self.up.broker, "the broker takes messages again");
                        self.up.blocked.send_replace(false);
                    }
                    Some(Event::Error(error)) => break Err(error.to_string()),
                    Some(_) => {}
                    None => break Err("the connection is closed".to_owned()),
                },
                () = self.up.watch.wanted(), if looking.left == 0 => looking.begin(),
                _ = looking.interval.tick(), if looking.left > 0 => {
                    self.give_back();
                    looking.look(&self.up.watch);
                }
                _ = announcing.tick(), if !is_leaving => self.role.announce(&self.up, false),
                () = self.station.leaving.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    self.role.leave(&self.up);
                }
                () = self.station.left.notified(), if is_leaving => {}
            }
            if is_leaving && self.station.is_empty() {
                break Ok(());
            }
            if acking.is_none()
                && let Some(tag) = unacked.take()
            {
                let up = Arc::clone(&self.up);
                acking =
                    Some(Box::pin(async move { up.consumes.basic_ack(tag, BasicAckOptions { multiple: true }).await }));
            }
        };
        // In good order if that is possible; nobody waits for it otherwise.
        let _ = timeout(CLOSE_TIMEOUT, self.up._connection.close(200, "".into())).await;
        ended
    }

    fn pass_on(&mut self, delivery: Delivery) {
        if !delivery.exchange.as_str().is_empty() || delivery.properties.kind().is_some() {
            return self.role.heard(&self.up, &delivery.data);
        }
        let Some(header) = Header::read(&delivery.data) else {
            tracing::debug!(queue = self.up.queue.as_str(), "a message that is none of this protocol was dropped");
            return;
        };
        match self.station.mailbox(header.link) {
            Some(mailbox) if delivery.redelivered => mailbox.end(Broken::Redelivered),
            Some(mailbox) => mailbox.deliver(Bytes::from(delivery.data)),
            None => self.role.stranger(&self.up, header, delivery),
        }
    }

    fn give_back(&self) {
        for message in self.up.returned() {
            if let Some(header) = Header::read(&message)
                && let Some(mailbox) = self.station.mailbox(header.link)
            {
                mailbox.give_back(message);
            }
        }
    }
}

/// Looking for what came back: often while messages are sent, not at all otherwise.
struct Looking {
    interval: Interval,
    left: u32,
    seen: u64,
}

impl Looking {
    fn begin(&mut self) {
        self.left = RESTFUL_LOOKS;
        self.interval.reset();
    }

    fn look(&mut self, watch: &Watch) {
        let published = watch.published();
        if published != self.seen {
            self.seen = published;
            self.left = RESTFUL_LOOKS;
        } else {
            self.left -= 1;
            if self.left == 0 && !watch.rest(published) {
                self.left = RESTFUL_LOOKS;
            }
        }
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Takes what was delivered, as much as one turn passes on. An error is told behind what came before it.
fn take_burst(consumer: &mut Consumer, cx: &mut Context<'_>, burst: &mut Vec<Delivery>) -> Poll<Result<(), String>> {
    while burst.len() < BURST {
        match Pin::new(&mut *consumer).poll_next(cx) {
            Poll::Ready(Some(Ok(delivery))) => burst.push(delivery),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.to_string())),
            Poll::Ready(None) => return Poll::Ready(Err("the queue is gone".to_owned())),
            Poll::Pending if burst.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(()))
}

/// Longest frame payload that a message takes for sure: never less than the protocol's own least.
pub(crate) fn max_frame(message_bytes: usize) -> u32 {
    let fits = message_bytes.saturating_sub(HEADER_BYTES + limits::FRAME_HEADER_BYTES);
    u32::try_from(fits).unwrap_or(u32::MAX).clamp(limits::FRAME_PAYLOAD_BYTES, limits::FRAME_PAYLOAD_BYTES_MAX)
}

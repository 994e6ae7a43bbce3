//! One side's place at the broker: a connection, a queue of its own, and every link that runs through it.
//!
//! It is kept by one task, for as long as it is wanted: whatever breaks (the broker, the connection, the queue), all of it
//! is built anew from nothing, and the links that ran through it are over (SPEC 7). It passes messages on by the link they
//! name, and knows neither keys nor frames. What gateways and services do differently here is their [`Role`].

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use lapin::message::Delivery;
use lapin::types::ShortString;
use lapin::{Consumer, Event};
use router_common::limits;
use router_common::session::Budget;
use router_link::{Backoff, Environment, SystemEnvironment};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use crate::error::Broken;
use crate::mailbox::Mailbox;
use crate::message::{Header, LinkId};
use crate::up::{Connected, Names, Settings, Up};
use crate::watch::Watch;

/// First and longest wait before a broker is dialled again (SPEC 7: at most 2 s).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Deliveries that are passed on in one turn.
const BURST: usize = 128;
/// What is acknowledged together at most, and a quarter of `prefetch` at most, so that the broker never waits for it;
const RECEIPT_MESSAGES: u16 = 64;
/// likewise, in bytes;
const RECEIPT_BYTES: usize = 1024 * 1024;
/// and how long the first of them waits for others.
const RECEIPT: Duration = Duration::from_millis(100);
/// How often one looks for messages that came back, while messages are sent,
const RETURNS: Duration = Duration::from_millis(20);
/// and how many times after the last one.
const RESTFUL_LOOKS: u32 = 10;
/// How soon one looks again at links that are not read, while the node's buffers fill up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long who owes an answer may be silent before it is asked whether it is still there, and how often it is asked.
const ASK: Duration = Duration::from_secs(1);
/// Sides that are asked at a time.
const ASKED: usize = 256;
/// How often a side announces itself unasked.
const ANNOUNCE: Duration = Duration::from_secs(10);

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

    /// The broker says that another side's queue is gone.
    fn queue_gone(&mut self, _queue: &str) {}

    /// A link is over.
    fn link_left(&mut self) {}

    /// Asks whether another side's queue is still there: if not, the question comes back.
    fn ask(&mut self, up: &Arc<Up>, queue: ShortString, standing: Standing);

    /// It is not wanted any more: only the links that are there go on.
    fn leave(&mut self, up: &Arc<Up>);

    /// The broker cannot be reached, or was lost.
    fn is_down(&mut self, why: &str);
}

/// Whether a place is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Wanted,
    /// Only the links that are there go on.
    Leaving,
}

/// What links and their makers share with the task that keeps the place.
#[derive(Debug)]
pub(crate) struct Station {
    links: Mutex<HashMap<LinkId, Joined>>,
    /// A link has left.
    left: Notify,
    up: watch::Sender<Option<Arc<Up>>>,
    /// Where what waits for links is counted, as the first of them says: it is the same for all links of a node.
    budget: OnceLock<Arc<Budget>>,
    /// Nobody wants the place any more but the links that are there.
    pub(crate) leaving: CancellationToken,
}

/// A link that runs through a place.
#[derive(Debug)]
struct Joined {
    mailbox: Arc<Mailbox>,
    /// The other side's queue.
    to: ShortString,
}

impl Station {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            links: Mutex::default(),
            left: Notify::new(),
            up: watch::Sender::new(None),
            budget: OnceLock::new(),
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
            tokio::select! {
                () = up.takes_messages() => if !up.is_lost() { return up },
                _ = ups.changed() => {}
            }
        }
    }

    /// Makes a link's mailbox, unless there are `most` links, or this one is there already.
    pub(crate) fn join(&self, link: LinkId, to: &ShortString, most: usize) -> Option<Arc<Mailbox>> {
        let mut links = self.links();
        if links.len() >= most || links.contains_key(&link) {
            return None;
        }
        let mailbox = Arc::<Mailbox>::default();
        links.insert(link, Joined { mailbox: Arc::clone(&mailbox), to: to.clone() });
        Some(mailbox)
    }

    /// The link is over.
    pub(crate) fn leave(&self, link: LinkId) {
        self.links().remove(&link);
        self.left.notify_one();
    }

    /// What waits for links here is counted there.
    pub(crate) fn count_in(&self, budget: &Arc<Budget>) {
        self.budget.get_or_init(|| Arc::clone(budget));
    }

    /// While the node's buffers fill up, links end whose messages nobody has come to for long, the longest first (SPEC 4,
    /// credit).
    fn relieve(&self) -> Room {
        let Some(budget) = self.budget.get().filter(|budget| budget.is_high()) else { return Room::Enough };
        let links = self.links();
        let mut waiting: Vec<_> =
            links.values().filter_map(|joined| Some((joined.mailbox.waits_since()?, &joined.mailbox))).collect();
        waiting.sort_unstable_by_key(|(since, _)| *since);
        let now = Instant::now();
        let is_stuck = |since: Instant| now.saturating_duration_since(since) >= limits::STALLED_AFTER;
        let stuck = waiting.iter().take_while(|(since, _)| is_stuck(*since) && budget.is_high());
        let ended = stuck.inspect(|(_, mailbox)| mailbox.give_up()).count();
        if ended > 0 {
            tracing::warn!(links = ended, "the node's buffers are nearly full: links that nobody reads were ended");
        }
        match waiting.len() > ended {
            true if budget.is_exceeded() => Room::None,
            true => Room::Little,
            // Others have filled it, and relieve it.
            false => Room::Enough,
        }
    }

    /// The queues of those who owe an answer and have said nothing since the last time: some of them, if there are many.
    fn silent(&self) -> Vec<ShortString> {
        let links = self.links();
        let silent = links.values().filter(|joined| joined.mailbox.owed().look());
        let mut silent: Vec<_> = silent.map(|joined| joined.to.clone()).collect();
        drop(links);
        if silent.len() > ASKED {
            let begin = SystemEnvironment.random_u64() as usize % silent.len();
            silent.rotate_left(begin);
            silent.truncate(ASKED);
        }
        silent
    }

    fn mailbox(&self, link: LinkId) -> Option<Arc<Mailbox>> {
        self.links().get(&link).map(|joined| Arc::clone(&joined.mailbox))
    }

    /// The other side's queue is gone, and with it every link to it.
    fn end_at(&self, queue: &str) {
        for joined in self.links().values().filter(|joined| joined.to.as_str() == queue) {
            joined.mailbox.end(Broken::Returned);
        }
    }

    fn is_empty(&self) -> bool {
        self.links().is_empty()
    }

    fn links(&self) -> MutexGuard<'_, HashMap<LinkId, Joined>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: &str) {
        let lost = self.up.send_replace(None);
        if let Some(up) = lost {
            up.lose();
        }
        for (_, joined) in self.links().drain() {
            joined.mailbox.end(Broken::Broker(why.to_owned()));
        }
        self.left.notify_one();
    }
}

/// What the node's buffers have for more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// Those that wait in vain are to be looked at.
    Little,
    /// Whoever reads is waited for.
    None,
}

type Acking = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// Keeps a place until nobody wants it any more and its last link is over.
pub(crate) async fn keep<R: Role>(station: Arc<Station>, settings: Settings, mut role: R) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let names = Names { hears: R::HEARS, word: R::WORD };
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
                let prefetch = settings.prefetch;
                let serving = Serving { station: &station, up, role: &mut role, consumer, events, prefetch };
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
            // Before the broker, or the next one, is dialled again.
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
    prefetch: u16,
}

impl<R: Role> Serving<'_, R> {
    /// Runs until it is lost.
    ///
    /// # Errors
    /// Why it was lost; `Ok`: it is not wanted any more.
    async fn run(mut self) -> Result<(), String> {
        let mut burst = Vec::with_capacity(BURST);
        let mut acking: Option<Acking> = None;
        let mut receipts = Receipts::new(self.prefetch);
        let mut announcing = interval(ANNOUNCE);
        announcing.reset();
        let mut asking = interval(ASK);
        let mut looking = Looking { interval: interval(RETURNS), left: 0, seen: 0 };
        let mut is_leaving = false;
        self.role.announce(&self.up, true);
        let ended = loop {
            // What is not taken out waits at the broker, but for what `prefetch` lets it send.
            let room = self.station.relieve();
            tokio::select! {
                biased;
                more = poll_fn(|cx| take_burst(&mut self.consumer, cx, &mut burst)), if room != Room::None => {
                    for delivery in burst.drain(..) {
                        receipts.owe(&delivery);
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
                () = receipts.late.as_mut(), if receipts.is_waiting() => receipts.call(),
                event = poll_fn(|cx| self.events.as_mut().poll_next(cx)) => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        tracing::warn!(broker = %self.up.broker, why, "the broker takes no messages for now");
                        self.up.set_blocked(true);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(broker = %self.up.broker, "the broker takes messages again");
                        self.up.set_blocked(false);
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
                _ = asking.tick(), if !self.up.is_blocked() => self.ask(is_leaving),
                () = self.station.leaving.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    self.role.leave(&self.up);
                }
                () = tokio::time::sleep(LOOK_AGAIN), if room != Room::Enough => {}
                () = self.station.left.notified() => self.role.link_left(),
            }
            if is_leaving && self.station.is_empty() {
                break Ok(());
            }
            if acking.is_none()
                && let Some(tag) = receipts.take_due()
            {
                let up = Arc::clone(&self.up);
                acking = Some(Box::pin(async move { up.acknowledge(tag).await }));
            }
        };
        self.up.close().await;
        ended
    }

    /// Asks those who may be gone: who waits for them sends nothing that could come back.
    fn ask(&mut self, is_leaving: bool) {
        let standing = if is_leaving { Standing::Leaving } else { Standing::Wanted };
        for queue in self.station.silent() {
            self.role.ask(&self.up, queue, standing);
        }
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
            Some(mailbox) => {
                mailbox.owed().hear();
                mailbox.deliver(Bytes::from(delivery.data));
            }
            None => self.role.stranger(&self.up, header, delivery),
        }
    }

    fn give_back(&mut self) {
        for message in self.up.returned() {
            let Delivery { routing_key, properties, data, .. } = message.delivery;
            if properties.kind().is_some() {
                // It was asked whether that queue is still there.
                self.station.end_at(routing_key.as_str());
                self.role.queue_gone(routing_key.as_str());
            } else if let Some(header) = Header::read(&data)
                && let Some(mailbox) = self.station.mailbox(header.link)
            {
                mailbox.give_back(data.into());
            }
        }
    }
}

/// What was taken out and is yet to be acknowledged: together, because each acknowledgement costs both ends as much as a
/// message. What is not acknowledged is kept by the broker, which sends no more than `prefetch` beyond it.
struct Receipts {
    /// The last one; it stands for those before it.
    tag: Option<u64>,
    messages: u16,
    bytes: usize,
    most: u16,
    is_due: bool,
    late: Pin<Box<Sleep>>,
}

impl Receipts {
    fn new(prefetch: u16) -> Self {
        let (late, most) = (Box::pin(tokio::time::sleep(RECEIPT)), (prefetch / 4).clamp(1, RECEIPT_MESSAGES));
        Self { tag: None, messages: 0, bytes: 0, most, is_due: false, late }
    }

    fn owe(&mut self, delivery: &Delivery) {
        if self.tag.replace(delivery.delivery_tag).is_none() {
            self.late.as_mut().reset(Instant::now() + RECEIPT);
        }
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(delivery.data.len());
        self.is_due |= self.messages >= self.most || self.bytes >= RECEIPT_BYTES;
    }

    /// Whether there are any that may wait for others.
    const fn is_waiting(&self) -> bool {
        self.tag.is_some() && !self.is_due
    }

    /// They have waited for long enough.
    const fn call(&mut self) {
        self.is_due = true;
    }

    fn take_due(&mut self) -> Option<u64> {
        let tag = self.tag.take_if(|_| self.is_due)?;
        (self.messages, self.bytes, self.is_due) = (0, 0, false);
        Some(tag)
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

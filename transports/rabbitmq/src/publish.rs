//! Handing messages to the AMQP connection: without confirms, and without waiting for anything but its own socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;

use crate::up::Up;

/// A message on its way to the socket. It goes there whether this is polled or not; polled, it says when.
pub(crate) struct Publishing(Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>);

impl Publishing {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<lapin::Result<()>> {
        self.0.as_mut().poll(cx)
    }
}

impl Up {
    /// Sends a link's message to the other side's queue. What has no queue to go to comes back.
    pub(crate) fn publish(
        self: &Arc<Self>,
        to: ShortString,
        message: Bytes,
        reply_to: Option<ShortString>,
    ) -> Publishing {
        let properties = match reply_to {
            Some(queue) => BasicProperties::default().with_reply_to(queue),
            None => BasicProperties::default(),
        };
        let up = Arc::clone(self);
        let mut publishing = Publishing(Box::pin(async move {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            up.publishes.basic_publish("".into(), to, options, &message, properties).await.map(drop)
        }));
        // The first poll is what queues it. Who wants to know when it is written polls again.
        if let Poll::Ready(done) = publishing.poll(&mut Context::from_waker(Waker::noop())) {
            publishing = Publishing(Box::pin(std::future::ready(done)));
        }
        self.watch.note();
        publishing
    }

    /// Sends an announcement to all who listen for its kind, or to one queue. Nobody may be there to hear it.
    pub(crate) fn announce(self: &Arc<Self>, kind: &str, to: Option<&str>, payload: Vec<u8>) {
        let (exchange, key) = match to {
            Some(queue) => ("".into(), queue.into()),
            None => (self.exchange.clone(), kind.into()),
        };
        let options = BasicPublishOptions::default();
        self.tell(kind, exchange, key, options, payload);
    }

    /// Sends an announcement to one queue, to learn whether it is still there: if not, it comes back.
    pub(crate) fn probe(self: &Arc<Self>, kind: &str, queue: ShortString, payload: Vec<u8>) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.tell(kind, "".into(), queue, options, payload);
        self.watch.note();
    }

    fn tell(
        self: &Arc<Self>,
        kind: &str,
        exchange: ShortString,
        key: ShortString,
        options: BasicPublishOptions,
        payload: Vec<u8>,
    ) {
        let properties = BasicProperties::default().with_type(kind.into());
        let up = Arc::clone(self);
        let mut publishing = Box::pin(async move {
            up.publishes.basic_publish(exchange, key, options, &payload, properties).await.map(drop)
        });
        // A connection that does not take it is lost, which its owner finds out.
        let _ = publishing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

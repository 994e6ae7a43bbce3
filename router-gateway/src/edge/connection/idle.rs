//! How long a client connection has had nothing to do. What is done about that is not decided here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::edge::client::ClientConnection;

/// After how long without a request a connection's HTTP/1.1 state is given up until the next one: making it anew costs
/// a microsecond or two, keeping it some 10 KiB.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// How long a connection has had nothing open. Requests do not touch the timer: it looks at times whether there were
/// any, so it may say so late by [`QUIET_AFTER`], and never early.
pub(super) struct Idle {
    limit: Duration,
    since: Instant,
    pub(super) alarm: Option<Pin<Box<Sleep>>>,
}

/// How idle a connection is.
pub(super) enum Idleness {
    /// For [`QUIET_AFTER`] at least.
    Quiet,
    /// For longer than it may.
    Over,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), alarm: None }
    }

    /// Ready when there is something to say about idleness; it wants to be asked again then.
    pub(super) fn poll(&mut self, client: &ClientConnection, cx: &mut Context<'_>) -> Poll<Idleness> {
        let (since, limit) = (self.since, self.limit);
        let alarm = match &mut self.alarm {
            // Its waker is this task's already.
            Some(alarm) if !alarm.is_elapsed() => return Poll::Pending,
            Some(alarm) => alarm,
            none => none.insert(Box::pin(sleep_until(since + QUIET_AFTER.min(limit)))),
        };
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if client.has_stirred() || client.is_busy() {
                self.since = now;
            }
            let idle = now - self.since;
            if idle >= limit {
                return Poll::Ready(Idleness::Over);
            }
            if idle >= QUIET_AFTER {
                alarm.as_mut().reset(self.since + limit);
                // Leaves its waker; should it have rung already, the next look at it says so.
                let _ = alarm.as_mut().poll(cx);
                return Poll::Ready(Idleness::Quiet);
            }
            alarm.as_mut().reset(self.since + QUIET_AFTER.min(limit));
        }
        Poll::Pending
    }

    /// Ready when nothing has begun for too long.
    pub(super) fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.since + self.limit;
        self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx)
    }
}

//! What waits for one link: its messages, what came back of what it sent, and its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use router_common::session::{Budget, Holding};
use tokio::time::Instant;

use crate::error::Broken;
use crate::owed::Owed;

/// Bytes that wait for one link. Flow control keeps a peer below this: a link that is read slower holds 4 MiB of bodies,
/// and the heads of what its lease allows.
pub(crate) const MAILBOX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that wait for a link which nobody has begun to read, and which are counted nowhere: it is yet to be accepted. Its peer
/// says HELLO and then waits for an answer.
const UNREAD_BYTES: usize = 64 * 1024;

/// One thing that happened to a link.
#[derive(Debug)]
pub(crate) enum Mail {
    Message(Bytes),
    /// The broker could not route this message of ours.
    Returned(Bytes),
    /// Nothing more will come.
    Ended(Broken),
}

/// Filled by the station, emptied by the link.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<State>, Owed);

#[derive(Debug, Default)]
struct State {
    mail: VecDeque<Mail>,
    bytes: usize,
    /// Somebody reads it, or has.
    is_read: bool,
    /// Since when something waits that its reader has not come to. Each look of its reader makes it later.
    waits_since: Option<Instant>,
    /// The bytes as they are counted in the node.
    held: Option<Holding>,
    ended: Option<Broken>,
    reader: Option<Waker>,
}

impl Mailbox {
    /// Adds a message. Past the bound the link ends: its reader is stuck, and others are not to wait for it.
    pub(crate) fn deliver(&self, message: Bytes) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let bytes = state.bytes + message.len();
        let most = if state.is_read { MAILBOX_BYTES } else { UNREAD_BYTES };
        if bytes > most {
            state.give_up(Broken::Overflow(most));
        } else {
            state.mail.push_back(Mail::Message(message));
            state.waits_since.get_or_insert_with(Instant::now);
            state.hold(bytes);
        }
        wake(state);
    }

    /// Counts what waits here among what the node buffers, from now on.
    pub(crate) fn count_in(&self, budget: &Arc<Budget>) {
        let mut state = self.lock();
        let bytes = state.bytes;
        state.held = Some(Holding::of(Arc::clone(budget)));
        state.is_read = true;
        state.hold(bytes);
    }

    /// Since when messages wait to which nobody has come; `None`: none do.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.lock().waits_since
    }

    /// The node has no room, and nobody has read this for long.
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.give_up(Broken::Stalled);
            wake(state);
        }
    }

    /// Adds what came back. It is bounded by what was sent and not yet routed.
    pub(crate) fn give_back(&self, message: Bytes) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.mail.push_back(Mail::Returned(message));
            wake(state);
        }
    }

    /// Ends it, behind what is there already.
    pub(crate) fn end(&self, why: Broken) {
        let mut state = self.lock();
        state.ended.get_or_insert(why);
        wake(state);
    }

    /// The next thing. The end is told again and again.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Mail> {
        let mut state = self.lock();
        if let Some(mail) = state.mail.pop_front() {
            if let Mail::Message(message) = &mail {
                let bytes = state.bytes.saturating_sub(message.len());
                state.waits_since = (bytes > 0).then(Instant::now);
                state.hold(bytes);
            }
            return Poll::Ready(mail);
        }
        state.is_read = true;
        if let Some(why) = &state.ended {
            return Poll::Ready(Mail::Ended(why.clone()));
        }
        match &mut state.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// What the other side owes.
    pub(crate) const fn owed(&self) -> &Owed {
        &self.1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hold(&mut self, bytes: usize) {
        self.bytes = bytes;
        if let Some(held) = &mut self.held {
            held.set(bytes);
        }
    }

    fn give_up(&mut self, why: Broken) {
        self.mail.clear();
        self.waits_since = None;
        self.hold(0);
        self.ended = Some(why);
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(mailbox: &Mailbox) -> Poll<Mail> {
        mailbox.poll_next(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_was_delivered_comes_before_the_end_and_nothing_after_it() {
        let mailbox = Mailbox::default();
        assert!(next(&mailbox).is_pending());
        mailbox.deliver(Bytes::from_static(b"one"));
        mailbox.end(Broken::Redelivered);
        mailbox.deliver(Bytes::from_static(b"two"));
        assert!(matches!(next(&mailbox), Poll::Ready(Mail::Message(message)) if message == "one"));
        for _ in 0..2 {
            assert!(matches!(next(&mailbox), Poll::Ready(Mail::Ended(Broken::Redelivered))));
        }
    }

    #[test]
    fn a_link_that_nobody_reads_ends_and_holds_nothing() {
        let (mailbox, budget) = (Mailbox::default(), Budget::new(usize::MAX));
        mailbox.deliver(Bytes::from(vec![0; 40]));
        mailbox.count_in(&budget);
        assert_eq!(budget.used(), 40);
        for _ in 0..15 {
            mailbox.deliver(Bytes::from(vec![0; 1024 * 1024]));
        }
        assert!(matches!(next(&mailbox), Poll::Ready(Mail::Message(first)) if first.len() == 40));
        assert_eq!(budget.used(), 15 * 1024 * 1024);
        mailbox.deliver(Bytes::from(vec![0; 2 * 1024 * 1024]));
        assert_eq!(budget.used(), 0);
        assert!(matches!(next(&mailbox), Poll::Ready(Mail::Ended(Broken::Overflow(MAILBOX_BYTES)))));
    }

    #[test]
    fn what_nobody_has_accepted_holds_no_more_than_a_handshake() {
        let mailbox = Mailbox::default();
        mailbox.deliver(Bytes::from(vec![0; 40_000]));
        mailbox.deliver(Bytes::from(vec![0; 40_000]));
        assert!(matches!(next(&mailbox), Poll::Ready(Mail::Ended(Broken::Overflow(UNREAD_BYTES)))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_known_from_when_its_reader_came_last() {
        let (mailbox, second) = (Mailbox::default(), std::time::Duration::from_secs(1));
        assert_eq!(mailbox.waits_since(), None);
        let began = Instant::now();
        for _ in 0..2 {
            mailbox.deliver(Bytes::from_static(b"message"));
            tokio::time::advance(second).await;
        }
        assert_eq!(mailbox.waits_since(), Some(began));
        assert!(next(&mailbox).is_ready());
        assert_eq!(mailbox.waits_since(), Some(began + 2 * second));
        assert!(next(&mailbox).is_ready());
        assert_eq!(mailbox.waits_since(), None);
    }
}

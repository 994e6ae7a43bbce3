//! What waits for one link: its messages, what came back of what it sent, and its end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::Broken;

/// Bytes that wait for one link. Flow control keeps a peer below this: a link that is read slower holds 4 MiB of bodies,
/// and the heads of what its lease allows.
pub(crate) const MAILBOX_BYTES: usize = 16 * 1024 * 1024;

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
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    mail: VecDeque<Mail>,
    bytes: usize,
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
        state.bytes += message.len();
        if state.bytes > MAILBOX_BYTES {
            state.mail.clear();
            state.bytes = 0;
            state.ended = Some(Broken::Overflow(MAILBOX_BYTES));
        } else {
            state.mail.push_back(Mail::Message(message));
        }
        wake(state);
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
                state.bytes = state.bytes.saturating_sub(message.len());
            }
            return Poll::Ready(mail);
        }
        if let Some(why) = &state.ended {
            return Poll::Ready(Mail::Ended(why.clone()));
        }
        match &mut state.reader {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mailbox = Mailbox::default();
        for _ in 0..=16 {
            mailbox.deliver(Bytes::from(vec![0; 1024 * 1024]));
        }
        assert!(matches!(next(&mailbox), Poll::Ready(Mail::Ended(Broken::Overflow(_)))));
    }
}

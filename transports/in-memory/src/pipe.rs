//! One direction of a link: a queue of frames, bounded in bytes as they would be encoded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use router_common::codec::{DecodeError, encoded_len};
use router_common::frame::Frame;
use router_common::limits::FRAME_HEADER_BYTES;
use router_link::LinkError;

/// Encoded bytes that may wait in one direction; one frame may go beyond it.
const QUEUE_BYTES: usize = 256 * 1024;
/// Frames given out in one turn.
const TURN_FRAMES: usize = 512;

pub(crate) struct Sender(Arc<Pipe>);

pub(crate) struct Receiver(Arc<Pipe>);

struct Pipe {
    /// Largest payload that the receiver accepts.
    max_frame: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Frame, usize)>,
    bytes: usize,
    /// No more frames will be sent.
    closed: bool,
    /// Nobody will receive any.
    abandoned: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

pub(crate) fn pipe(max_frame: u32) -> (Sender, Receiver) {
    let pipe = Arc::new(Pipe { max_frame, state: Mutex::default() });
    (Sender(Arc::clone(&pipe)), Receiver(pipe))
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Poll::Ready(Err(LinkError::Closed));
        }
        let before = state.queue.len();
        while state.bytes < QUEUE_BYTES
            && let Some(frame) = batch.pop_front()
        {
            let size = encoded_len(&frame);
            state.bytes += size;
            state.queue.push_back((frame, size));
        }
        let receiver = if state.queue.len() > before { state.receiver.take() } else { None };
        let result = if batch.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            remember(&mut state.sender, cx);
            Poll::Pending
        };
        drop(state);
        wake(receiver);
        result
    }

    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
    }
}

impl Receiver {
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        let mut state = self.0.lock();
        let mut taken = 0;
        while taken < TURN_FRAMES
            && let Some((frame, size)) = state.queue.pop_front()
        {
            if let Err(error) = self.check(&frame, size) {
                if taken > 0 {
                    // The frames before it are told first.
                    state.queue.push_front((frame, size));
                    break;
                }
                state.bytes -= size;
                return Poll::Ready(Err(error.into()));
            }
            state.bytes -= size;
            taken += 1;
            into.push(frame);
        }
        if taken == 0 {
            if state.closed {
                return Poll::Ready(Err(LinkError::Closed));
            }
            remember(&mut state.receiver, cx);
            return Poll::Pending;
        }
        let sender = if state.bytes < QUEUE_BYTES { state.sender.take() } else { None };
        drop(state);
        wake(sender);
        Poll::Ready(Ok(()))
    }

    /// What a decoder would refuse. The rest of a frame cannot be malformed: it is a value.
    fn check(&self, frame: &Frame, size: usize) -> Result<(), DecodeError> {
        let length = u32::try_from(size.saturating_sub(FRAME_HEADER_BYTES)).unwrap_or(u32::MAX);
        if length > self.0.max_frame {
            return Err(DecodeError::TooLarge { frame: frame.name(), length, limit: self.0.max_frame });
        }
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.bytes = 0;
        let queue = std::mem::take(&mut state.queue);
        let sender = state.sender.take();
        drop(state);
        drop(queue);
        wake(sender);
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use router_common::frame::{Data, DataPayload, HeartbeatAck, StreamId};

    use super::*;

    fn data(bytes: usize) -> Frame {
        let payload = DataPayload::Bytes { bytes: Bytes::from(vec![7; bytes]), end: false };
        Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload })
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_full_queue_takes_no_more_until_it_is_read() {
        let (sender, receiver) = pipe(64 * 1024);
        let mut batch: VecDeque<_> = (0..10).map(|_| data(60_000)).collect();
        assert!(sender.poll_send(&mut cx(), &mut batch).is_pending());
        assert_eq!(batch.len(), 5, "four fit, and one goes beyond the bound");
        let mut frames = Vec::new();
        assert!(receiver.poll_recv(&mut cx(), &mut frames).is_ready());
        assert_eq!(frames.len(), 5);
        assert!(sender.poll_send(&mut cx(), &mut batch).is_ready());
    }

    #[test]
    fn what_was_sent_before_the_end_arrives_and_then_the_end_is_clean() {
        let (sender, receiver) = pipe(64 * 1024);
        let frame = Frame::HeartbeatAck(HeartbeatAck { sequence: 1 });
        assert!(sender.poll_send(&mut cx(), &mut VecDeque::from([frame.clone()])).is_ready());
        drop(sender);
        let mut frames = Vec::new();
        assert!(matches!(receiver.poll_recv(&mut cx(), &mut frames), Poll::Ready(Ok(()))));
        assert_eq!(frames, [frame]);
        assert!(matches!(receiver.poll_recv(&mut cx(), &mut frames), Poll::Ready(Err(LinkError::Closed))));
    }

    #[test]
    fn a_frame_over_the_receivers_limit_is_an_error_behind_those_before_it() {
        let (sender, receiver) = pipe(64 * 1024);
        let _ = sender.poll_send(&mut cx(), &mut VecDeque::from([data(1), data(70_000)]));
        let mut frames = Vec::new();
        assert!(matches!(receiver.poll_recv(&mut cx(), &mut frames), Poll::Ready(Ok(()))));
        assert_eq!(frames.len(), 1);
        let second = receiver.poll_recv(&mut cx(), &mut frames);
        assert!(matches!(second, Poll::Ready(Err(LinkError::Protocol(DecodeError::TooLarge { .. })))), "{second:?}");
    }

    #[tokio::test]
    async fn a_waiting_sender_is_woken_by_the_reader() {
        let (sender, receiver) = pipe(64 * 1024);
        let mut batch: VecDeque<_> = (0..10).map(|_| data(60_000)).collect();
        let sending = tokio::spawn(async move { poll_fn(|cx| sender.poll_send(cx, &mut batch)).await });
        let mut frames = Vec::new();
        while frames.len() < 10 {
            poll_fn(|cx| receiver.poll_recv(cx, &mut frames)).await.unwrap();
        }
        assert!(sending.await.unwrap().is_ok());
    }
}

//! Whether the other side of a link owes answers and is silent: then it is asked whether its queue is still there.
//!
//! A broker says nothing of a side that is gone but by what it gives back, and whoever only waits sends nothing. It knows no
//! time and no broker: whoever looks, looks once in a while.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use router_common::frame::{Data, DataPayload, Frame, Response, StreamId};

use crate::keys::End;

/// What one side of a link knows of the other one. Counted by the link, looked at by its place.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Streams of this side whose last frame has not come.
    open: AtomicUsize,
    /// Something came since the last look.
    heard: AtomicBool,
}

impl Owed {
    /// A frame left.
    pub(crate) fn sent(&self, frame: &Frame) {
        if matches!(frame, Frame::Request(_)) {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A frame came to this end.
    pub(crate) fn received(&self, own: End, frame: &Frame) {
        let is_own = |stream: StreamId| stream.is_gateway_opened() == (own == End::Gateway);
        let is_last = match frame {
            Frame::Response(Response { end, .. }) => *end,
            Frame::ResponseData(Data { payload: DataPayload::Bytes { end, .. }, .. }) => *end,
            Frame::ResponseData(Data { payload: DataPayload::Trailers(_), .. }) => true,
            Frame::Cancel(stream, _) => is_own(*stream),
            _ => false,
        };
        if is_last {
            // A peer may end what is not open.
            let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| open.checked_sub(1));
        }
    }

    /// A message came, whatever is in it.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether answers are owed, and nothing was heard since the last look.
    pub(crate) fn look(&self) -> bool {
        !self.heard.swap(false, Ordering::Relaxed) && self.open.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use router_common::frame::{Cancel, Reason};

    use super::*;

    fn cancel(stream: u64) -> Frame {
        let cancel = Cancel { reason: Reason::Refused, text: String::new() };
        Frame::Cancel(StreamId::new(stream).unwrap(), Box::new(cancel))
    }

    #[test]
    fn only_who_owes_and_is_silent_is_asked() {
        let owed = Owed::default();
        assert!(!owed.look());
        owed.open.store(2, Ordering::Relaxed);
        owed.hear();
        assert!(!owed.look());
        assert!(owed.look() && owed.look());
        owed.received(End::Gateway, &cancel(3));
        owed.received(End::Gateway, &cancel(2));
        assert!(owed.look());
        owed.received(End::Gateway, &cancel(4));
        owed.received(End::Gateway, &cancel(4));
        assert!(!owed.look());
    }
}

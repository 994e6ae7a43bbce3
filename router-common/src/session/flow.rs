//! Byte credit (SPEC 4, credit). Only body bytes count.
//!
//! A stream's credit returns when its bytes are consumed, so a slow reader holds no more than its window. A link's
//! credit returns when bytes arrive, so no stalled stream can stall the link.

use super::budget::Budget;
use super::event::ProtocolError;
use crate::frame::CloseCode;
use crate::limits;

/// A peer broke the rules of credit; the link closes with `flow_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowError;

/// What this side may still send.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendCredit(u64);

impl SendCredit {
    pub(super) const fn new(credit: u32) -> Self {
        Self(credit as u64)
    }

    pub(super) const fn available(self) -> usize {
        self.0 as usize
    }

    /// The peer granted more.
    pub(super) fn grant(&mut self, bytes: u32) -> Result<(), FlowError> {
        let credit = self.0 + u64::from(bytes);
        if credit > limits::WINDOW_MAX {
            return Err(FlowError);
        }
        self.0 = credit;
        Ok(())
    }

    /// `bytes` of body are sent. The scheduler never takes more than is available.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as u64);
    }
}

/// What the peer may still send, and what it is owed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    /// Bytes that the peer may still send.
    granted: u64,
    /// Bytes that were taken and not yet granted again.
    owed: u32,
    size: u32,
    least: u32,
    most: u32,
    /// Bytes taken by a reader that has kept pace since the size last changed.
    kept: u32,
}

impl ReceiveWindow {
    /// A window that may grow from `size` to `most`.
    pub(super) const fn new(size: u32, most: u32) -> Self {
        let most = if most < size { size } else { most };
        Self { granted: size as u64, owed: 0, size, least: size, most, kept: 0 }
    }

    /// `bytes` of body arrived.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), FlowError> {
        self.granted = self.granted.checked_sub(bytes as u64).ok_or(FlowError)?;
        Ok(())
    }

    /// `bytes` were taken. Returns whether enough is owed that it is worth a WINDOW frame.
    pub(super) const fn take(&mut self, bytes: usize) -> bool {
        self.owed = self.owed.saturating_add(bytes as u32);
        self.owed > 0 && self.owed >= self.size / 2
    }

    /// Fits the window to its reader, when credit is about to return: `waiting` bytes are there and not taken. One that
    /// has kept pace for a whole window gets the double, if the node has room for it; one that has fallen behind gives
    /// back what it had beyond the first size. Returns whether anything is still owed.
    pub(super) fn fit(&mut self, waiting: usize, budget: &Budget) -> bool {
        if waiting == 0 {
            self.kept = self.kept.saturating_add(self.owed);
            let more = self.size.min(self.most - self.size);
            if more > 0 && self.kept >= self.size && budget.grow(more) {
                self.owed = self.owed.saturating_add(more);
                (self.size, self.kept) = (self.size + more, 0);
            }
        } else if waiting >= (self.size / 2) as usize {
            let beyond = (self.size - self.least).min(self.owed);
            self.size -= beyond;
            self.owed -= beyond;
            self.kept = 0;
            budget.shrink(beyond as usize);
        }
        self.owed > 0
    }

    /// What it has beyond its first size.
    pub(super) const fn beyond(&self) -> usize {
        (self.size - self.least) as usize
    }

    /// What is owed, as the content of one WINDOW frame.
    pub(super) fn settle(&mut self) -> u32 {
        let bytes = std::mem::take(&mut self.owed);
        self.granted += u64::from(bytes);
        bytes
    }

    /// The invariant that every simulation checks: granted and owed never exceed the window.
    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn is_sound(&self) -> bool {
        self.granted + self.owed as u64 <= self.size as u64 && self.size <= self.most
    }
}

impl From<FlowError> for ProtocolError {
    fn from(_: FlowError) -> Self {
        Self::with(CloseCode::FlowControl, "more bytes than credit, or credit beyond its bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_returns_when_half_is_owed() {
        let mut window = ReceiveWindow::new(100, 100);
        assert_eq!(window.receive(60), Ok(()));
        assert!(!window.take(49));
        assert!(window.take(1));
        assert_eq!(window.settle(), 50);
        assert_eq!(window.receive(91), Err(FlowError));
        assert_eq!(window.receive(90), Ok(()));
    }

    /// A peer that sends all it may, and a reader that takes it in halves.
    fn kept_pace(window: &mut ReceiveWindow, halves: usize, budget: &Budget) {
        for _ in 0..halves {
            let half = (window.size / 2) as usize;
            assert_eq!(window.receive(half), Ok(()));
            assert!(window.take(half));
            assert!(window.fit(0, budget));
            window.settle();
        }
    }

    #[test]
    fn a_window_grows_to_its_bound_while_its_reader_keeps_pace() {
        let (mut window, budget) = (ReceiveWindow::new(100, 250), Budget::new(4000));
        kept_pace(&mut window, 1, &budget);
        assert_eq!(window.size, 100);
        kept_pace(&mut window, 1, &budget);
        assert_eq!(window.size, 200);
        kept_pace(&mut window, 2, &budget);
        assert_eq!(window.size, 250);
        kept_pace(&mut window, 40, &budget);
        assert_eq!((window.size, window.granted, window.beyond(), budget.grown()), (250, 250, 150, 150));
    }

    #[test]
    fn windows_grow_together_by_no_more_than_a_quarter_of_the_budget() {
        let budget = Budget::new(1200);
        let mut windows = [(); 5].map(|()| ReceiveWindow::new(100, 400));
        for window in &mut windows {
            kept_pace(window, 2, &budget);
        }
        assert_eq!(windows.map(|window| window.size), [200, 200, 200, 100, 100]);
        kept_pace(&mut windows[0], 40, &budget);
        assert_eq!((windows[0].size, budget.grown()), (200, 300));
    }

    #[test]
    fn a_reader_that_falls_behind_gives_back_what_it_had_beyond_the_first_size() {
        let (mut window, budget) = (ReceiveWindow::new(100, 400), Budget::new(4000));
        kept_pace(&mut window, 4, &budget);
        assert_eq!(window.size, 400);
        assert_eq!(window.receive(400), Ok(()));
        assert!(window.take(200));
        assert!(!window.fit(200, &budget), "all that is owed is kept");
        assert_eq!(window.size, 200);
        assert!(window.take(150));
        assert!(window.fit(100, &budget) && window.is_sound());
        assert_eq!((window.size, window.settle(), budget.grown()), (100, 50, 0));
    }

    #[test]
    fn credit_beyond_its_bound_is_refused() {
        let mut credit = SendCredit::new(limits::STREAM_WINDOW);
        assert_eq!(credit.grant(u32::MAX), Err(FlowError));
        assert_eq!(credit.available(), limits::STREAM_WINDOW as usize);
    }
}
